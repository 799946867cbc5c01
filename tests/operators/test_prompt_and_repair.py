"""Operators `prompt_objects` and `repair_tracks`: what they take, where they write, what they refuse."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.fiftyone


@pytest.fixture
def prompt_objects(foo: ModuleType) -> Any:
    return foo.get_operator("@shepherd/tracking/prompt_objects")


@pytest.fixture
def repair_tracks(foo: ModuleType) -> Any:
    return foo.get_operator("@shepherd/tracking/repair_tracks")


@pytest.fixture
def marked(fo: ModuleType, dataset: Any) -> Any:
    """On frame 5 of the first video a box round the bright square; clicks on frame 3 of the second one."""
    first, second = dataset.first(), dataset.last()
    box = fo.Detection(label="square", bounding_box=[9 / 64, 10 / 48, 10 / 64, 10 / 48])
    first.frames[5]["marks"] = fo.Detections(detections=[box])
    first.save()
    points = fo.Keypoints(
        keypoints=[
            fo.Keypoint(label="square", points=[(12 / 64, 15 / 48)], index=1),
            fo.Keypoint(label="background", points=[(50 / 64, 40 / 48)], index=1),
        ]
    )
    second.frames[3]["clicks"] = points
    second.save()
    return dataset


class Followed:
    """Stands in for `pipeline.follow`: remembers what it was asked, and returns the hand-made result."""

    def __init__(self, result: Any) -> None:
        self.result = result
        self.calls: list[tuple[Any, Any]] = []

    def __call__(self, source: Any, prompts: Any, options: Any, *, on_progress: Any = None, **rest: Any) -> Any:
        self.calls.append((prompts, options))
        if on_progress is not None:
            progress = importlib.import_module("fiftyone_plugin.pipeline").Progress
            on_progress(progress(0, 1, 12, 1, "track", 0.1))
        return self.result


@pytest.fixture
def followed(result: Any, monkeypatch: pytest.MonkeyPatch) -> Followed:
    from fiftyone_plugin import pipeline, registry

    double = Followed(result)
    monkeypatch.setattr(pipeline, "follow", double)
    monkeypatch.setattr(registry, "make_propagator", lambda *a, **k: None)
    monkeypatch.setattr(registry, "make_embedder", lambda *a, **k: None)
    return double


def test_form_is_ready_with_the_marks_that_are_there(form: Any, prompt_objects: Any, marked: Any) -> None:
    drawn = form(prompt_objects, marked, {})
    assert drawn.errors == {}
    shown = [c.label for c in drawn.properties["from_field"].view.choices]
    assert shown == ["marks (detections)", "clicks (keypoints)"]
    assert "perhaps" in drawn.text("cost")


def test_form_without_marks_says_what_to_do(form: Any, prompt_objects: Any, dataset: Any) -> None:
    assert "draw one on some frame first" in form(prompt_objects, dataset, {}).errors["from_field_missing"]


def test_form_refuses_to_write_over_the_marks(form: Any, prompt_objects: Any, marked: Any) -> None:
    drawn = form(prompt_objects, marked, {"from_field": "marks", "field": "marks"})
    assert "holds the labels that are read" in drawn.errors["field"]


def test_call_tracks_the_videos_that_have_marks(
    prompt_objects: Any, labels: ModuleType, marked: Any, followed: Followed
) -> None:
    result = prompt_objects(
        marked, "marks", field="followed", repair=False, color_by_instance=True, save_views=True
    ).result
    assert (result["tracks"], len(result["videos"])) == (3, 1)
    ((prompts, options),) = followed.calls
    assert [(p.frame_index, p.phrase) for p in prompts] == [(4, "square")]
    np.testing.assert_allclose(prompts[0].seed.box_xyxy, [9, 10, 19, 20], atol=1e-4)
    assert options.identity.repair is False
    assert len(labels.read_tracks(marked.first(), "followed")) == 3
    assert labels.field_state(marked, "followed").finished == {marked.first().id}
    assert marked.app_config.color_scheme.color_by == "instance"
    assert "followed: needs review" in marked.list_saved_views()


def test_call_clicks_and_selected_labels(
    prompt_objects: Any, labels: ModuleType, marked: Any, followed: Followed
) -> None:
    prompt_objects(marked, "clicks", field="followed")
    ((prompts, _),) = followed.calls
    assert [(p.frame_index, p.seed.track_id, p.phrase) for p in prompts] == [(2, 1, "square")]
    assert [p.seed.point_labels.tolist() for p in prompts] == [[1, 0]]
    chosen = marked.last().frames[3].clicks.keypoints[0].id
    prompt_objects(marked, "clicks", field="chosen", label_ids=[chosen])
    assert [p.seed.point_labels.tolist() for p in followed.calls[1][0]] == [[1]]
    with pytest.raises(Exception, match="none of the chosen labels"):
        prompt_objects(marked.last(), "clicks", field="none", label_ids=["0" * 24])


# --- repair -------------------------------------------------------------------------------------------------------


@pytest.fixture
def tracked(labels: ModuleType, dataset: Any, result: Any) -> Any:
    labels.write_tracks(dataset.first(), "tracks", result)
    return dataset.limit(1)


def test_repair_reports_first_and_writes_nothing(repair_tracks: Any, form: Any, tracked: Any) -> None:
    dataset = tracked._root_dataset
    drawn = form(repair_tracks, dataset, {"from_field": "tracks"})
    assert drawn.errors == {}
    assert "field" not in drawn.properties
    schema = set(dataset.get_field_schema())
    found = repair_tracks(tracked, "tracks").result
    assert found["videos"][0]["tracks_before"] == 3
    assert isinstance(found["videos"][0]["findings"], list)
    assert set(dataset.get_field_schema()) == schema
    assert not dataset.has_frame_field("tracks_repaired")


def test_repair_in_the_app_shows_what_it_found(
    repair_tracks: Any, tracked: Any, result: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fiftyone.operators.executor import ExecutionContext, Executor

    from fiftyone_plugin import pipeline

    monkeypatch.setattr(pipeline, "repair", lambda *args, **options: result)
    request = {"view": [], "dataset_name": tracked._root_dataset.name, "params": {"from_field": "tracks"}}
    request["selected"] = tracked.values("id")
    request["params"]["view_target"] = "SELECTED_SAMPLES"
    ctx = ExecutionContext(request, executor=Executor())
    messages = [m.to_json()["body"] for m in repair_tracks.execute(ctx)]
    assert [m["operator_uri"] for m in messages][-3:] == ["notify", "show_output", "reload_dataset"]
    assert "nothing was written" in messages[-3]["params"]["message"]
    shown = messages[-2]["params"]["results"]
    text = shown["summary"]
    assert text.startswith(
        "##### 1 repair would be made, 1 doubt left to you\n\n3 tracks in, 3 out · 2 encounters checked"
    )
    assert "Nothing was written." in text
    # Repairs before doubts; frames as people count them; what speaks for it on a line of its own.
    repair, doubt = text.index("**Would repair**"), text.index("**Please look at**")
    assert "- **Frames 4 to 6** — sheep 1 and sheep 2, crossing: exchange the two back" in text[repair:doubt]
    assert "*98 % sure. For it: how they look (strongly), how they move (slightly)*" in text[repair:doubt]
    assert "- **Frames 9 to 10** — sheep 1 and sheep 2, hidden for a moment: left as it is" in text[doubt:]
    assert "*55 % sure that it is right as it stands. For it: how they look (slightly)*" in text[doubt:]


def test_repair_report_says_when_there_is_nothing_to_say_and_hides_what_nobody_would_read(repair_tracks: Any) -> None:
    from fiftyone_plugin.jobs import DatasetSummary, Finding, VideoOutcome

    # FiftyOne loads the plugin's folder under a name of its own.
    report = sys.modules[type(repair_tracks).__module__].audit_report
    clean = DatasetSummary("", (VideoOutcome("a.mp4", frames=10, tracks=2, tracks_before=2),))
    assert "nothing is in doubt" in report.report(clean, is_dry_run=True)
    one = Finding("return", "reassign", "dog", 30, 31, (4,), 2.0, 0.9, 3.0, "gone and back", {"appearance": -2.0})
    videos = tuple(VideoOutcome(f"{n}.mp4", repairs=70, findings=(one,) * 70) for n in range(3))
    text = report.report(DatasetSummary("mended", videos, was_cancelled=True), is_dry_run=False)
    assert text.startswith("##### 210 repairs made, 0 doubts left to you")
    assert "The repaired tracks are in `mended`." in text
    assert text.count("- **Frame 31** — dog 4, gone and back: joined to the track it was before") == 100
    assert "*90 % sure. Against it: how they look (clearly)*" in text
    assert "... and 110 more decisions" in text
    assert "2.mp4" not in text
    assert "stopped before the end" in text


def test_repair_form_keeps_what_is_rarely_needed_folded_away(repair_tracks: Any, form: Any, tracked: Any) -> None:
    dataset = tracked._root_dataset
    assert not {"counts", "min_margin"} & set(form(repair_tracks, dataset, {"from_field": "tracks"}).properties)
    given = {"from_field": "tracks", "advanced": True}
    assert form(repair_tracks, dataset, {**given, "counts": "sheep=2, dog=1"}).errors == {}
    wrong = form(repair_tracks, dataset, {**given, "counts": "cow=2"}).errors
    assert wrong["counts"] == "count of 'cow': must be of one of the classes dog, sheep"


def test_repair_known_numbers_reach_the_identity_layer_as_the_labels_write_them(
    fo: ModuleType, repair_tracks: Any, tracked: Any, result: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fiftyone_plugin import pipeline

    asked: list[Any] = []
    monkeypatch.setattr(pipeline, "repair", lambda source, tracks, options, **rest: (asked.append(options), result)[1])
    for frame in (sample := tracked.first()).frames.values():
        for label in frame.tracks.detections if frame.tracks else ():
            label.label = label.label.capitalize()
    sample.save()
    repair_tracks(tracked, "tracks", counts={"Sheep": 2})
    repair_tracks(tracked, "tracks", counts="sheep=2, dog=1")
    assert [o.identity.counts for o in asked] == [{"Sheep": 2}, {"Sheep": 2, "Dog": 1}]
    with pytest.raises(Exception, match="count of 'cow': must be of one of the classes"):
        repair_tracks(tracked, "tracks", counts="cow=1")


def test_repair_form_goes_on_with_what_an_earlier_job_finished(repair_tracks: Any, form: Any, tracked: Any) -> None:
    dataset = tracked._root_dataset
    repair_tracks(tracked, "tracks", dry_run=False)
    drawn = form(repair_tracks, dataset, {"from_field": "tracks", "dry_run": False})
    assert drawn.errors == {}
    assert "Finished with these settings, and left as it is: 1 video" in drawn.text("field_done")
    other = form(repair_tracks, dataset, {"from_field": "tracks", "dry_run": False, "min_margin": 3.0})
    assert "already holds tracks of 1 of these videos" in other.errors["field"]


def test_repair_writes_to_a_new_field_only(repair_tracks: Any, form: Any, labels: ModuleType, tracked: Any) -> None:
    dataset = tracked._root_dataset
    drawn = form(repair_tracks, dataset, {"from_field": "tracks", "dry_run": False, "field": "tracks"})
    assert "holds the labels that are read" in drawn.errors["field"]
    before = labels.read_tracks(dataset.first(), "tracks")
    repair_tracks(tracked, "tracks", dry_run=False)
    assert labels.field_state(dataset, "tracks_repaired").is_ours
    after = labels.read_tracks(dataset.first(), "tracks")
    assert [t.masks for t in after] == [t.masks for t in before]


def test_repair_without_tracks_says_what_to_do(repair_tracks: Any, form: Any, dataset: Any) -> None:
    assert "track something first" in form(repair_tracks, dataset, {}).errors["from_field_missing"]
