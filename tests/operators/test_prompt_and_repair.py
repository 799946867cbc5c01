"""Operators `prompt_objects` and `repair_tracks`: what they take, where they write, what they refuse."""

from __future__ import annotations

import importlib
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
    # One line per repair, one per encounter to look at.
    assert "flock.mp4: frame 6: 1 and 2 swapped (margin 4.5)" in shown["summary"]
    assert "flock.mp4: frames 8 to 9: please look at sheep 1 and 2" in shown["summary"]


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
