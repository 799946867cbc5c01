"""Operator `edit_tracks`: the form says beforehand what cannot be, and what is done can be undone."""

from __future__ import annotations

from types import ModuleType
from typing import Any

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
        ({"action": "explode"}, "Invalid enum value"),
        ({"action": "merge", "track": 1}, "Path: other. Reason: Required property"),
        ({"action": "delete", "track": 77}, "Invalid enum value"),
        ({"action": "split", "track": 1, "frame": 1}, "can be split at frames 2 to 12"),
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
