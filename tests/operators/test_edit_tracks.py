"""Operator `edit_tracks`: the form says beforehand what cannot be, and what is done can be undone."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.fiftyone


@pytest.fixture
def edit(foo: ModuleType) -> Any:
    return foo.get_operator("@shepherd/tracking/edit_tracks")


@pytest.fixture
def sample(labels: ModuleType, dataset: Any, result: Any) -> Any:
    """Sheep 1 on frames 1 to 12, sheep 2 on 1 to 3 and 7 to 10, dog 3 on 5 to 12 (as the App counts)."""
    labels.write_tracks(dataset.first(), "tracks", result)
    return dataset.first()


def test_form_asks_which_video_where_that_is_not_clear(form: Any, edit: Any, dataset: Any, sample: Any) -> None:
    drawn = form(edit, dataset, {})
    assert "open one, or select one" in drawn.errors["no_video"]
    assert form(edit, dataset, {}, selected=[sample.id, dataset.last().id]).errors["no_video"].startswith("2 samples")
    assert "holds no tracks in this video" in form(edit, dataset, {}, selected=[dataset.last().id]).errors["no_tracks"]


def test_form_lists_tracks_with_their_frames(form: Any, edit: Any, dataset: Any, sample: Any, labels: Any) -> None:
    labels.lock(sample, "tracks", [2])
    drawn = form(edit, dataset, {"action": "merge", "track": 1, "other": 3}, current_sample=sample.id)
    shown = [choice.label for choice in drawn.properties["track"].view.choices]
    assert shown == ["sheep 1 (frames 1 to 12)", "sheep 2 (frames 1 to 10, locked)", "dog 3 (frames 5 to 12)"]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"action": "merge", "track": 2, "other": 3}, "Both are on frames 7 to 10: one object cannot be in two places"),
        ({"action": "merge", "track": 1, "other": 1}, "two different tracks"),
        ({"action": "split", "track": 3, "frame": 5}, "It can be split at frames 6 to 12"),
        ({"action": "undo"}, "There is no edit to undo here"),
    ],
)
def test_form_says_what_stands_in_the_way(
    form: Any, edit: Any, dataset: Any, sample: Any, params: dict[str, Any], message: str
) -> None:
    drawn = form(edit, dataset, params, current_sample=sample.id)
    assert message in " ".join(drawn.errors.values())


@pytest.mark.parametrize(
    "params",
    [
        {"action": "split", "track": 1, "frame": 6},
        {"action": "swap", "track": 1, "other": 2, "frame": 7},
        {"action": "relabel", "track": 3, "phrase": "wolf"},
        {"action": "lock", "track": 3},
        {"action": "accept", "encounter": "2"},
        {"action": "delete", "track": 3},
    ],
    ids=lambda params: params["action"],
)
def test_execute_as_the_app_does_and_undo(
    foo: ModuleType, form: Any, edit: Any, labels: Any, dataset: Any, sample: Any, params: dict[str, Any]
) -> None:
    before = labels.read_summary(sample, "tracks")
    params = {"field": "tracks", **params}
    assert form(edit, dataset, params, current_sample=sample.id).errors == {}
    ctx = {"dataset": dataset, "current_sample": sample.id}
    done = foo.execute_operator(edit.uri, ctx, params=params).result
    assert done["kind"] == params["action"]
    assert labels.read_summary(sample, "tracks") != before
    undone = edit(sample, "undo").result
    assert undone["edit_id"] == done["edit_id"]
    assert labels.read_summary(sample, "tracks")["tracks"] == before["tracks"]


def test_call_frames_are_one_based(edit: Any, labels: ModuleType, sample: Any) -> None:
    edit(sample, "split", track=1, frame=6)
    found = {t.track_id: t.frame_indices.tolist() for t in labels.read_tracks(sample, "tracks")}
    assert found[1] == [0, 1, 2, 3, 4]
    edit(sample, "swap", track=1, other=3, frame=5, last_frame=5)
    found = {t.track_id: t.frame_indices.tolist() for t in labels.read_tracks(sample, "tracks")}
    assert found[1] == [0, 1, 2, 3, 4]
    assert found[3][0] == 4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"action": "explode"}, "'explode': must be one of merge, split, swap"),
        ({"action": "merge", "track": 1}, "Path: other. Reason: Required property"),
        ({"action": "delete", "track": 77}, "Track 77: must be one of 1, 2, 3"),
        ({"action": "split", "track": 1, "frame": 1}, "can be split at frames 2 to 12"),
        (
            {"action": "swap", "track": 1, "other": 3, "frame": 9, "last_frame": 5},
            "Frames 9 to 5: the last exchanged frame must not come before the first",
        ),
    ],
)
def test_call_wrong_input_is_one_clear_line(edit: Any, sample: Any, call: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match="Validation error") as raised:
        edit(sample, **call)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_later_runs_and_audits_are_told_what_a_person_said(
    edit: Any,
    track_objects: Any,
    labels: ModuleType,
    dataset: Any,
    scripted: Any,
    result: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from fiftyone_plugin import pipeline, runner

    one = dataset.limit(1)
    track_objects(one, "sheep. dog.")
    edit(dataset.first(), "lock", track=1)
    said = labels.read_constraints(dataset.first(), "tracks")
    assert len(said) == 1
    track_objects(one, "sheep. dog.", overwrite=True)
    assert scripted.constraints == [(), said]
    assert labels.read_constraints(dataset.first(), "tracks") == said
    told: list[Any] = []

    def audit(*_: Any, constraints: Any, **__: Any) -> Any:
        told.append(constraints)
        return result

    monkeypatch.setattr(pipeline, "repair", audit)
    runner.repair_dataset(one, "tracks", dry_run=True)
    assert told == [said]


# --- masks tracked anew -------------------------------------------------------------------------------------------


class Painter:
    """Stands in for the models of the run: shows in a gap what was there last, and is asked nothing else."""

    def __init__(self) -> None:
        self.gaps: list[Any] = []
        self.windows: list[Any] = []

    def fill(self, tracks: Any, gaps: Any) -> list[Any]:
        self.gaps += gaps
        (track,) = [t for t in tracks if t.track_id == gaps[0].track_id]
        first = {
            name: np.repeat(getattr(track, name)[:1], gaps[0].stop - gaps[0].start, axis=0)
            for name in ("boxes_xyxy", "scores", "mask_scores", "identity_confidence")
        }
        count = gaps[0].stop - gaps[0].start
        frames = np.arange(gaps[0].start, gaps[0].stop)
        return [
            replace(
                track, frame_indices=frames, masks=track.masks[:1] * count, sources=track.sources[:1] * count, **first
            )
        ]

    def rechoose(self, tracks: Any, window: Any) -> Any:
        from fiftyone_plugin.pipeline.rechoose import Rechosen

        self.windows.append(window)
        return Rechosen()


@pytest.fixture
def painter(labels: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Painter:
    from fiftyone_plugin import repropagate

    made = Painter()
    monkeypatch.setattr(repropagate, "models_of_run", lambda target, field: made)
    return made


@pytest.fixture
def halves(labels: ModuleType, dataset: Any, result: Any) -> Any:
    """As `sample`, of a run with the bundled models; sheep 2 is sheep 4 from frame 7 on."""
    from fiftyone_plugin.config import TrackingOptions

    settings = {"prompt": "sheep. dog.", **TrackingOptions().as_dict()}
    made = replace(result, carried=result.tracks, repairs=(), settings=settings)
    labels.write_tracks(dataset.first(), "tracks", made)
    labels.split(dataset.first(), "tracks", 2, 6)
    return dataset.first()


def test_form_offers_the_gap_of_a_merge_and_the_encounter_of_a_swap(
    form: Any, edit: Any, dataset: Any, halves: Any
) -> None:
    merge = {"action": "merge", "track": 2, "other": 4}
    drawn = form(edit, dataset, merge, current_sample=halves.id)
    tick = drawn.properties["repropagate"]
    assert (tick.type.__class__.__name__, tick.default) == ("Boolean", True)
    assert "Track the gap anew" in tick.view.label
    assert "3 frames between the two have no mask, which the models of the run can track anew" in tick.view.description
    assert "max_gap_frames" in drawn.properties
    assert "max_gap_frames" not in form(edit, dataset, {**merge, "repropagate": False}).properties
    swap = {"action": "swap", "track": 1, "other": 4, "frame": 9}
    drawn = form(edit, dataset, swap, current_sample=halves.id)
    assert "Choose masks anew around it" in drawn.properties["repropagate"].view.label
    assert "The encounter has 2 frames" in drawn.properties["repropagate"].view.description
    # Nothing to do, nothing to ask.
    for params in ({**swap, "frame": 8}, {"action": "split", "track": 1, "frame": 6}, {**merge, "other": 1}):
        assert "repropagate" not in form(edit, dataset, params, current_sample=halves.id).properties


def test_form_says_what_is_missing_and_does_not_tick(
    form: Any, edit: Any, dataset: Any, labels: ModuleType, sample: Any
) -> None:
    labels.split(sample, "tracks", 2, 6)
    drawn = form(edit, dataset, {"action": "merge", "track": 2, "other": 4}, current_sample=sample.id)
    tick = drawn.properties["repropagate"]
    assert tick.default is False
    assert "they stay as they are: these tracks came from another tool" in tick.view.description
    done = edit(sample, "merge", track=2, other=4).result
    assert done["message"].startswith("merged sheep 4 into sheep 2. Masks were not tracked anew: these tracks came")


@pytest.mark.parametrize(
    ("wanted", "filled"), [({}, 3), ({"repropagate": True}, 3), ({"repropagate": False}, 0)], ids=["none", "yes", "no"]
)
def test_merge_tracks_the_gap_anew_unless_told_not_to(
    edit: Any, labels: ModuleType, halves: Any, painter: Painter, wanted: dict[str, bool], filled: int
) -> None:
    done = edit(halves, "merge", track=2, other=4, **wanted).result
    note = ". 3 of the 3 frames between them were tracked anew" if filled else ""
    assert done["message"] == f"merged sheep 4 into sheep 2{note}"
    found = {t.track_id: len(t) for t in labels.read_tracks(halves, "tracks")}
    assert found[2] == 7 + filled
    edit(halves, "undo")
    assert {t.track_id: len(t) for t in labels.read_tracks(halves, "tracks")}[4] == 4


def test_merge_leaves_gaps_that_are_too_long(edit: Any, labels: ModuleType, halves: Any, painter: Painter) -> None:
    done = edit(halves, "merge", track=2, other=4, repropagate=True, max_gap_frames=2).result
    assert done["message"].endswith("The gap of 3 frames is longer than 2 and stays empty")
    assert painter.gaps == []


def test_swap_chooses_masks_anew_in_its_encounter(edit: Any, halves: Any, painter: Painter) -> None:
    done = edit(halves, "swap", track=1, other=4, frame=9).result
    assert [(w.start, w.stop) for w in painter.windows] == [(8, 10)]
    assert done["message"].endswith("Masks in frames 9 to 10 were tracked anew and stay as they are")


def test_edit_is_made_where_the_models_cannot_be_loaded(
    edit: Any, labels: ModuleType, halves: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fiftyone_plugin import registry, repropagate
    from fiftyone_plugin.errors import DependencyError

    def refuse(*_: Any, **__: Any) -> Any:
        raise DependencyError("propagator 'sam2' needs the package 'sam2'")

    monkeypatch.setattr(registry, "make_propagator", refuse)
    monkeypatch.setattr(repropagate, "_loaded", {})
    done = edit(halves, "merge", track=2, other=4).result
    assert done["message"].endswith("Masks were not tracked anew: propagator 'sam2' needs the package 'sam2'")
    assert {t.track_id: len(t) for t in labels.read_tracks(halves, "tracks")}[2] == 7
