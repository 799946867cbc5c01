"""The review panel without a browser: its events as the App sends them, on a real database."""

from __future__ import annotations

import base64
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest

from fiftyone_plugin.types import Decision, Encounter, EncounterKind, Outcome, Source, Track, TrackingResult, VideoInfo

pytestmark = pytest.mark.fiftyone

URI = "@shepherd/tracking/review_tracks"
OPEN_SECONDS = 2.0
"""In which the panel must be there for 1,000 frames with 20 tracks, on two cores."""


class Panel:
    """The browser's half of the panel: sends events, keeps the state, remembers what it was told."""

    def __init__(self, foo: ModuleType, dataset: Any, **request: Any) -> None:
        self._operator = foo.get_operator(URI)
        self._request = {"dataset_name": dataset.name, **request}
        self.state: dict[str, Any] = {}
        self.data: dict[str, Any] = {}
        self.notes: list[tuple[str, str]] = []
        self.layout: Any = None
        self.triggered: list[str] = []
        self.asked: list[tuple[str, dict[str, Any]]] = []
        """Events of its own that it had the browser send, the last time."""

    def send(self, method: str, **params: Any) -> Panel:
        from fiftyone.operators.executor import ExecutionContext, Executor

        params = {**params, "panel_id": "p", "panel_state": self.state, "__method__": method}
        executor = Executor()
        self._operator.execute(ExecutionContext({**self._request, "params": params}, executor=executor))
        self.triggered = [request.operator_uri for request in executor._requests]
        self.asked = []
        for request in executor._requests:
            given = request.params
            if request.operator_uri == URI:
                self.asked.append((given["__method__"], given))
            if request.operator_uri == "patch_panel_state":
                self.state = {**self.state, **given["state"]}
            elif request.operator_uri == "patch_panel_data":
                self.data = {**self.data, **given["data"]}
            elif request.operator_uri == "notify":
                self.notes.append((given["variant"], given["message"]))
            elif request.operator_uri == "show_panel_output":
                self.layout = given["output"]
        return self

    def choose(self, method: str, value: Any, *, path: str = "") -> Panel:
        # An input writes into the state first, and then says so.
        row, _, name = path.partition(".")
        if name:
            self.state = {**self.state, row: {**self.state.get(row, {}), name: value}}
        return self.send(method, value=value, path=path)

    def hand(self, name: str, value: Any) -> Panel:
        """What an edit is applied to: track, other, frame, anew."""
        return self.choose("choose_hands", value, path=f"{self.state['review']['hands_path']}.{name}")

    @property
    def texts(self) -> str:
        return "\n".join(_texts(self.layout))

    def picture(self) -> np.ndarray:
        head, _, code = self.data["look"].partition(",")
        assert head.startswith("data:image/")
        return cv2.imdecode(np.frombuffer(base64.b64decode(code), np.uint8), cv2.IMREAD_COLOR)


def _texts(node: Any) -> list[str]:
    if isinstance(node, dict):
        return [text for value in node.values() for text in _texts(value)]
    if isinstance(node, list):
        return [text for value in node for text in _texts(value)]
    return [node] if isinstance(node, str) else []


@pytest.fixture
def sample(labels: ModuleType, dataset: Any, result: TrackingResult) -> Any:
    """A video with sheep 1, sheep 2 and dog 3, one exchange that was repaired and one doubt."""
    labels.write_tracks(dataset.first(), "tracks", result)
    return dataset.first()


@pytest.fixture
def panel(foo: ModuleType, dataset: Any, sample: Any) -> Panel:
    """The panel beside the opened video."""
    return Panel(foo, dataset, current_sample=sample.id).send("on_load")


@pytest.fixture
def parts(foo: ModuleType) -> Callable[[str], ModuleType]:
    """Modules of the plugin as FiftyOne has loaded them, by name."""
    name = type(foo.get_operator(URI)).__module__.rpartition(".")[0]
    return lambda part: sys.modules[f"{name}.{part}"]


def item_of(panel: Panel) -> str:
    return str(panel.state["review"]["item"])


def frames_of(labels: ModuleType, sample: Any) -> dict[int, list[int]]:
    return {t.track_id: t.frame_indices.tolist() for t in labels.read_tracks(sample, "tracks")}


def test_panel_opens_with_the_doubt_first(panel: Panel) -> None:
    assert item_of(panel) == "2/None"
    assert "Hidden for a moment: sheep 1 and sheep 2, frames 9 to 10" in panel.texts
    assert "How they look: slightly in favour" in panel.texts
    assert "**0 of 1** reviewed" in panel.texts
    assert panel.picture().std() > 8


def test_panel_without_tracks_says_what_to_do(foo: ModuleType, dataset: Any) -> None:
    assert "Track objects by name" in Panel(foo, dataset).send("on_load").texts


def test_panel_above_the_grid_takes_the_video_with_tracks(foo: ModuleType, dataset: Any, sample: Any) -> None:
    panel = Panel(foo, dataset).send("on_load")
    assert panel.state["review"]["video"] == sample.id
    assert "1 to review" in panel.texts


def test_panel_beside_a_video_without_tracks_says_so(foo: ModuleType, dataset: Any, sample: Any) -> None:
    panel = Panel(foo, dataset, current_sample=dataset.last().id).send("on_load")
    assert "no tracks in **tracks**" in panel.texts


def test_accept_settles_the_doubt_in_the_database(panel: Panel, labels: ModuleType, sample: Any) -> None:
    panel.send("accept")
    assert panel.notes[-1][0] == "success"
    assert labels.read_summary(sample, "tracks")["marks"]["reviews"] == {"2": "accepted"}
    assert "**1 of 1** reviewed" in panel.texts
    assert "reload_samples" in panel.triggered


def test_swap_exchanges_the_tracks_of_the_item(panel: Panel, labels: ModuleType, sample: Any) -> None:
    before = frames_of(labels, sample)
    panel.hand("frame", 6).send("swap")
    after = frames_of(labels, sample)
    # From frame 6 (0-based 5) on, each has the other's frames.
    assert after[1] == [f for f in before[1] if f < 5] + [f for f in before[2] if f >= 5]
    assert labels.read_summary(sample, "tracks")["marks"]["reviews"] == {"2": "edited"}
    panel.send("take_back")
    assert frames_of(labels, sample) == before
    panel.send("put_again")
    assert frames_of(labels, sample) == after


def test_split_and_merge_bring_back_the_same_frames(panel: Panel, labels: ModuleType, sample: Any) -> None:
    before = frames_of(labels, sample)
    panel.hand("frame", 5).send("split")
    assert frames_of(labels, sample)[4] == [f for f in before[1] if f >= 4]
    panel.hand("track", "1")
    panel.hand("other", "4").send("merge")
    assert panel.notes[-1] == ("success", "merged sheep 4 into sheep 1")
    assert frames_of(labels, sample) == before


def test_merge_of_tracks_that_meet_is_refused_in_words(panel: Panel, labels: ModuleType, sample: Any) -> None:
    before = frames_of(labels, sample)
    panel.send("merge")
    kind, message = panel.notes[-1]
    assert kind == "error"
    assert "one object cannot be in two places" in message
    assert frames_of(labels, sample) == before


def button(panel: Panel, name: str) -> dict[str, Any] | None:
    """What is said of a button, None where it is not there."""

    def find(node: Any) -> Any:
        properties = node["type"].get("properties", {})
        inside = (find(child) for child in properties.values() if isinstance(child["type"], dict))
        return properties.get(name) or next((found for found in inside if found), None)

    found = find(panel.layout)
    return None if found is None else found["view"]


def main_button(panel: Panel) -> str | None:
    """The one that stands out, by its label."""
    names = ("accept", "undo_repair", "redo_repair", "next_open", "swap", "merge", "split", "lock")
    shown = [found for name in names if (found := button(panel, name)) is not None]
    (label,) = [found["label"] for found in shown if found["variant"] == "contained"] or [None]
    return label


@pytest.fixture
def mended(foo: ModuleType, labels: ModuleType, dataset: Any, result: TrackingResult) -> Panel:
    """The panel beside a run that kept what its repair was made of, so that it can be undone."""
    from fiftyone_plugin.identity.repair import apply_repairs

    made = replace(result, carried=result.tracks, tracks=apply_repairs(result.tracks, result.repairs))
    labels.write_tracks(dataset.first(), "tracks", made)
    panel = Panel(foo, dataset, current_sample=dataset.first().id).send("on_load")
    return panel.choose("choose_shown", "all")


def test_main_button_is_what_makes_sense_next(mended: Panel, labels: ModuleType, dataset: Any) -> None:
    panel, sample = mended, dataset.first()
    assert main_button(panel) == "Accept"
    panel.send("look_on_timeline", id="1/1")
    assert main_button(panel) == "Accept"
    before = frames_of(labels, sample)
    panel.send("undo_repair").send("look_on_timeline", id="1/1")
    assert main_button(panel) == "Redo repair"
    assert button(panel, "accept") is None
    panel.send("redo_repair")
    assert panel.notes[-1] == ("success", "Repair 1 is made again")
    assert frames_of(labels, sample) == before
    assert main_button(panel) == "Accept"
    panel.send("accept").send("look_on_timeline", id="1/1")
    assert main_button(panel) == "Next to review"
    panel.send("next_open")
    assert item_of(panel) == "2/None"


def test_repair_that_was_undone_before_other_edits_says_the_way_back(mended: Panel) -> None:
    panel = mended.send("look_on_timeline", id="1/1").send("undo_repair")
    panel.send("look_on_timeline", id="1/1").hand("track", "3").send("lock").send("look_on_timeline", id="1/1")
    assert button(panel, "redo_repair") is None
    assert "press **Undo last edit** once" in panel.texts
    panel.send("redo_repair")
    assert panel.notes[-1][0] == "error"
    panel.send("take_back").send("look_on_timeline", id="1/1")
    assert main_button(panel) == "Redo repair"


def test_buttons_that_would_be_refused_are_grey_and_say_why(panel: Panel) -> None:
    def why(name: str) -> str | None:
        found = button(panel, name)
        assert found is not None
        return found["title"] if found["disabled"] else None

    assert why("merge") == "both are on frames 1 to 3: one object cannot be in two places"
    assert why("swap") is None
    assert why("split") is None
    assert why("take_back") == "there is nothing"
    panel.hand("frame", 1)
    assert why("split") == "sheep 1 is on frames 1 to 12: choose a frame after its first"
    panel.hand("other", "1")
    assert why("swap") == why("merge") == "choose two different tracks"
    panel.send("lock")
    panel.hand("frame", 5)
    assert why("split") == "sheep 1 is locked: unlock it first"
    assert why("lock") is None
    assert why("take_back") is None
    panel.send("take_back")
    assert why("put_again") is None


class Painter:
    """Stands in for the models of the run: finds nothing, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def fill(self, tracks: Any, gaps: Any) -> list[Any]:
        self.asked += gaps
        return []

    def rechoose(self, tracks: Any, window: Any) -> Any:
        from fiftyone_plugin.pipeline.rechoose import Rechosen

        self.asked.append(window)
        return Rechosen()


@pytest.fixture
def painter(labels: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Painter:
    from fiftyone_plugin import repropagate

    made = Painter()
    monkeypatch.setattr(repropagate, "models_of_run", lambda target, field: made)
    return made


@pytest.fixture
def halves(foo: ModuleType, labels: ModuleType, dataset: Any, result: TrackingResult) -> Panel:
    """The panel beside a run of the bundled models; sheep 2 (frames 1 to 3) is sheep 4 from frame 7 to 10."""
    from fiftyone_plugin.config import TrackingOptions

    settings = {"prompt": "sheep. dog.", **TrackingOptions().as_dict()}
    made = replace(result, carried=result.tracks, repairs=(), settings=settings)
    labels.write_tracks(dataset.first(), "tracks", made)
    labels.split(dataset.first(), "tracks", 2, 6)
    panel = Panel(foo, dataset, current_sample=dataset.first().id).send("on_load")
    panel.hand("track", "2")
    return panel.hand("other", "4")


def test_merge_across_a_gap_says_that_it_takes_a_while_and_then_does_it(
    halves: Panel, labels: ModuleType, dataset: Any, painter: Painter
) -> None:
    assert "Track the gap anew" in halves.texts
    assert "Merge: 3 frames between the two have no mask" in halves.texts
    halves.send("merge")
    assert halves.notes[-1][0] == "info"
    assert halves.notes[-1][1].startswith("Working: 3 frames between the two have no mask")
    assert 4 in frames_of(labels, dataset.first())
    ((method, told),) = halves.asked
    assert method == "merge_now"
    assert told["panel_id"] == "p"
    # The browser sends that event at once, with the state that it was given.
    halves.state = {**halves.state, **told["panel_state"]}
    halves.send(method)
    assert 4 not in frames_of(labels, dataset.first())
    kind, message = halves.notes[-1]
    assert (kind, message) == (
        "success",
        "merged sheep 4 into sheep 2. The object was not found in the 3 frames between them, which stay empty",
    )
    assert len(painter.asked) == 1


def test_merge_leaves_the_gap_where_a_person_said_so(
    halves: Panel, labels: ModuleType, dataset: Any, painter: Painter
) -> None:
    halves.hand("anew", False).send("merge")
    assert halves.asked == []
    assert halves.notes[-1] == ("success", "merged sheep 4 into sheep 2")
    assert painter.asked == []


def test_swap_in_an_encounter_chooses_masks_anew(halves: Panel, painter: Painter) -> None:
    halves.hand("track", "1")
    assert "Choose masks anew around it" in halves.texts
    halves.send("swap")
    ((method, _),) = halves.asked
    halves.send(method)
    assert halves.notes[-1][1].endswith("Masks in frames 9 to 10 were tracked anew and stay as they are")


def test_edit_whose_models_are_not_known_is_made_at_once_and_says_so(
    panel: Panel, labels: ModuleType, sample: Any
) -> None:
    panel.send("swap")
    assert panel.asked == []
    kind, message = panel.notes[-1]
    assert kind == "success"
    assert message.startswith("swapped sheep 1 and sheep 2 from frame 10 on. Masks were not tracked anew: these tracks")


def test_item_that_was_settled_stays_in_the_list(panel: Panel) -> None:
    panel.choose("choose_shown", "all").send("look_on_timeline", id="1/1").send("accept")
    panel.choose("choose_shown", "worth")
    assert "**1 of 2** reviewed" in panel.texts


def test_tracks_can_be_edited_where_nothing_needs_a_look(
    foo: ModuleType, dataset: Any, labels: ModuleType, result: TrackingResult
) -> None:
    labels.write_tracks(dataset.first(), "tracks", replace(result, encounters=(), decisions=(), repairs=()))
    panel = Panel(foo, dataset, current_sample=dataset.first().id).send("on_load")
    assert "Nothing in this video needs you" in panel.texts
    panel.hand("frame", 5)
    assert "Split sheep 1 at frame 5" in panel.texts
    panel.send("split")
    assert 4 in frames_of(labels, dataset.first())


def test_lock_is_kept_and_can_be_let_go(panel: Panel, labels: ModuleType, sample: Any) -> None:
    panel.send("lock")
    assert labels.read_summary(sample, "tracks")["marks"]["locked"] == [1]
    assert "Unlock sheep 1" in panel.texts
    panel.send("split")
    assert panel.notes[-1][0] == "error"
    panel.send("lock")
    assert labels.read_summary(sample, "tracks")["marks"]["locked"] == []


def test_everything_lists_repairs_behind_doubts(panel: Panel) -> None:
    panel.choose("choose_shown", "all")
    assert item_of(panel) == "2/None"
    panel.send("step", by=1)
    assert item_of(panel) == "1/1"
    assert "repaired: the two had exchanged identities" in panel.texts.lower()
    panel.send("look", row=0)
    assert item_of(panel) == "2/None"


def test_mark_on_the_timeline_opens_its_item(panel: Panel) -> None:
    panel.send("look_on_timeline", id="1/1")
    assert item_of(panel) == "1/1"
    assert panel.state["review"]["shown"] == "all"


def test_frame_is_shown_whole_and_stays_inside_the_video(panel: Panel) -> None:
    panel.choose("choose_picture", "frame")
    assert panel.picture().shape[1] > panel.picture().shape[0]
    panel.choose("choose_frame", 500)
    assert panel.state["review"]["frame"] == 12
    panel.send("step", what="frame", by=-1)
    assert panel.state["review"]["frame"] == 11


def test_player_of_an_image_sequence_is_moved_to_the_item(
    foo: ModuleType, fo: ModuleType, labels: ModuleType, result: TrackingResult, tmp_path: Any
) -> None:
    dataset = fo.Dataset()
    try:
        for index in range(12):
            path = str(tmp_path / f"{index:03}.png")
            cv2.imwrite(path, np.random.default_rng(index).integers(0, 255, (48, 64, 3), dtype=np.uint8))
            dataset.add_sample(fo.Sample(filepath=path, scene="a", frame_number=index + 1))
        view = dataset.group_by("scene", order_by="frame_number")
        labels.write_tracks(view.get_dynamic_group("a"), "tracks", result)
        panel = Panel(foo, dataset, current_sample=dataset.first().id, view=view._serialize()).send("on_load")
        assert "Go there" in panel.texts
        assert panel.picture().std() > 8
        panel.send("go_to_frame")
        assert "set_frame_number" in panel.triggered
    finally:
        dataset.delete()


def test_player_of_a_video_is_left_alone(panel: Panel) -> None:
    assert "Go there" not in panel.texts


def test_film_is_one_that_browsers_play(panel: Panel) -> None:
    panel.choose("choose_picture", "film")
    assert panel.data["film"]["url"].startswith("data:video/mp4;base64,")


def test_video_that_is_gone_costs_the_picture_only(foo: ModuleType, labels: ModuleType, sample: Any) -> None:
    sample.filepath = "/nowhere/flock.mp4"
    sample.save()
    panel = Panel(foo, sample.dataset, current_sample=sample.id).send("on_load")
    assert panel.data["look"] == ""
    panel.send("accept")
    assert labels.read_summary(sample, "tracks")["marks"]["reviews"] == {"2": "accepted"}


def test_timeline_has_a_bar_for_every_stretch_and_a_mark_for_every_item(
    parts: Callable[[str], ModuleType], panel: Panel, labels: ModuleType, sample: Any
) -> None:
    from fiftyone_plugin.labels.review import review_items

    summary = labels.read_summary(sample, "tracks")
    items = review_items(summary)
    drawn = parts("review_timeline").timeline(summary, items, chosen=items[0])
    assert (drawn["first"], drawn["last"]) == (1, 12)
    rows = {row["name"]: [(span["first"], span["last"]) for span in row["spans"]] for row in drawn["rows"]}
    assert rows == {"dog 3": [(5, 12)], "sheep 1": [(1, 12)], "sheep 2": [(1, 3), (7, 10)]}
    assert [row["gaps"] for row in drawn["rows"]] == [[], [], [[4, 6]]]
    # One mark on the row of every track of an item, those of the one that is looked at told from the others.
    marks = [(mark["key"], mark["row"], mark["kind"], mark["is_chosen"]) for mark in drawn["marks"]]
    doubt, repair = ("2/None", "to review", True), ("1/1", "repaired", False)
    assert sorted(marks) == sorted((key, row, *rest) for key, *rest in (doubt, repair) for row in (1, 2))
    assert drawn["band"] == [9, 10]


def test_timeline_is_drawn_by_the_component_that_the_plugin_brings(
    parts: Callable[[str], ModuleType], panel: Panel
) -> None:
    import json

    view = panel.layout["type"]["properties"]["timeline"]["view"]
    script = Path(parts("review_timeline").__file__).parent / "assets" / "timeline.js"
    assert f'name: "{view["component"]}"' in script.read_text()
    assert view["on_look"] == f"{URI}#look_on_timeline"
    assert json.loads(json.dumps(view["rows"])) == view["rows"]


@pytest.mark.parametrize(
    ("term", "nats", "text"),
    [
        ("appearance", 0.1, "How they look: undecided"),
        ("motion", 2.0, "How they move: clearly in favour"),
        ("size", -9.0, "How large they are: strongly against"),
        ("novelty", -0.5, "Novelty: slightly against"),
        ("prior", float("nan"), "What is usual: undecided"),
    ],
)
def test_parts_of_a_margin_in_words(
    parts: Callable[[str], ModuleType], panel: Panel, term: str, nats: float, text: str
) -> None:
    assert parts("review_words").strength(term, nats) == text


def long_result(frames: int, count: int) -> TrackingResult:
    """As many tracks on every frame, and forty doubts."""
    ones = np.ones(frames, np.float32)
    tracks = tuple(
        Track(
            track_id=i,
            phrase="sheep",
            frame_indices=np.arange(frames),
            boxes_xyxy=np.tile(np.array([10, 10, 20, 20], np.float32), (frames, 1)),
            masks=None,  # the panel reads those of a few frames only; 20,000 would only make the test slow
            scores=ones,
            mask_scores=ones,
            identity_confidence=ones,
            sources=(Source.PROPAGATED,) * frames,
        )
        for i in range(1, count + 1)
    )
    doubts = [
        Encounter(n, EncounterKind.CROSSING, "sheep", 20 * n, 20 * n + 8, (n % count + 1, (n + 7) % count + 1))
        for n in range(1, 41)
    ]
    return TrackingResult(
        video=VideoInfo("long.mp4", 64, 48, frames, 25.0),
        tracks=tracks,
        encounters=tuple(doubts),
        decisions=tuple(Decision(d, Outcome.ABSTAIN, 0.4, 0.55, {"appearance": 0.4}) for d in doubts),
        repairs=(),
        frames_processed=frames,
        seconds=1.0,
        settings={"prompt": "sheep", "start": 0, "stop": None},
    )


def test_inputs_that_say_what_they_were_drawn_with_draw_nothing(panel: Panel) -> None:
    """The App sends such an event for every input of a panel, each time that it is drawn."""
    shown = panel.state["review"]
    for name, value in (("shown", "worth"), ("picture", "crops"), ("field", "tracks"), ("frame", shown["frame"])):
        assert panel.choose(f"choose_{name}", value, path=name).triggered == [], name
    for name, value in (*shown["hands"].items(), ("anew", True)):
        assert panel.hand(name, value).triggered == [], name
    # Of an item that is no longer looked at.
    assert panel.choose("choose_hands", 3, path="hands_99_None.frame").triggered == []


def test_buttons_follow_the_hands_there_and_back(panel: Panel) -> None:
    shown = panel.state["review"]
    # An edit may give the item other tracks; what was chosen for those before it must not be applied to them.
    assert shown["hands_path"] == "hands_2_None_1_2"
    frame = shown["hands"]["frame"]
    assert f"from frame {frame}" in panel.texts
    assert f"from frame {frame - 1}" in panel.hand("frame", frame - 1).texts
    assert f"from frame {frame}" in panel.hand("frame", frame).texts


@pytest.mark.slow
def test_panel_opens_in_time_for_a_long_video(
    foo: ModuleType, fo: ModuleType, labels: ModuleType, tmp_path: Any
) -> None:
    import av

    path = tmp_path / "long.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
        for _ in range(1000):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="rgb24")))
        container.mux(stream.encode())
    dataset = fo.Dataset()
    dataset.add_sample(fo.Sample(filepath=str(path)))
    try:
        result = long_result(1000, 20)
        labels.write_tracks(dataset.first(), "tracks", replace(result, video=replace(result.video, source=str(path))))
        panel = Panel(foo, dataset, current_sample=dataset.first().id)
        start = time.perf_counter()
        panel.send("on_load")
        seconds = time.perf_counter() - start
        assert "**0 of 40** reviewed" in panel.texts
        assert panel.picture().std() > 8
        print(f"opened in {seconds:.2f} s")
        assert seconds < OPEN_SECONDS
    finally:
        dataset.delete()
