"""A clone of a dataset: labels, ids and runs come along by themselves, the history of edits because we see to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from fiftyone_plugin.errors import EditError
from fiftyone_plugin.identity import apply_repairs
from fiftyone_plugin.types import Repair, RepairKind, TrackingResult

pytestmark = pytest.mark.fiftyone

SPLIT = Repair(1, RepairKind.SPLIT, 8, None, {3: None}, {3: 4}, 2.0, "another one")


@pytest.fixture
def sample(labels: ModuleType, dataset: Any, result: TrackingResult) -> Any:
    """A video whose field `tracks` holds the result with one repair: dog 3 is cut in two at frame 8."""
    tracks = apply_repairs(result.tracks, [SPLIT])
    made = replace(result, tracks=tracks, carried=result.tracks, repairs=(SPLIT,), encounters=(), decisions=())
    labels.write_tracks(dataset.first(), "tracks", made)
    return dataset.first()


@pytest.fixture
def clone(sample: Any) -> Iterator[Any]:
    """``clone()`` makes a clone and returns its video."""
    made: list[Any] = []

    def make(of: Any = None) -> Any:
        made.append((of or sample).dataset.clone())
        return made[-1].first()

    yield make
    for dataset in made:
        if not dataset.deleted:
            dataset.delete()


def frames_of(labels: ModuleType, target: Any) -> dict[int, list[int]]:
    return {t.track_id: t.frame_indices.tolist() for t in labels.read_tracks(target, "tracks")}


def texts(labels: ModuleType, target: Any) -> list[str]:
    return [edit.text for edit in labels.history(target, "tracks")[0]]


def test_clone_has_the_history_and_goes_its_own_way(labels: ModuleType, sample: Any, clone: Any) -> None:
    written = frames_of(labels, sample)
    labels.split(sample, "tracks", 1, 5)
    labels.lock(sample, "tracks", [2])
    edited, said = frames_of(labels, sample), labels.read_constraints(sample, "tracks")
    copy = clone()
    assert texts(labels, copy) == texts(labels, sample)
    assert labels.read_constraints(copy, "tracks") == said
    assert len(said) == 2
    labels.undo(copy, "tracks")
    labels.undo(copy, "tracks")
    assert frames_of(labels, copy) == written
    assert texts(labels, copy) == []
    labels.redo(copy, "tracks")
    assert frames_of(labels, copy) == edited
    # The first one is as it was.
    assert frames_of(labels, sample) == edited
    assert len(texts(labels, sample)) == 2
    assert labels.read_constraints(sample, "tracks") == said


def test_clone_knows_nothing_of_what_was_done_to_the_first_one_since(
    labels: ModuleType, sample: Any, clone: Any
) -> None:
    labels.split(sample, "tracks", 1, 5)
    edited = frames_of(labels, sample)
    copy = clone()
    labels.relabel(sample, "tracks", 2, "ram")
    assert texts(labels, copy) == texts(labels, sample)[:1]
    assert labels.history(copy, "tracks")[1] == ()
    # Also where it was taken back there.
    labels.undo(sample, "tracks")
    labels.undo(sample, "tracks")
    assert [e.kind for e in labels.history(copy, "tracks")[0]] == ["split"]
    assert frames_of(labels, copy) == edited
    labels.undo(copy, "tracks")
    assert frames_of(labels, copy) == frames_of(labels, sample)


def test_clone_can_take_repairs_back_also_when_the_first_one_is_gone(
    labels: ModuleType, dataset: Any, sample: Any, clone: Any, result: TrackingResult
) -> None:
    copy = clone()
    labels.lock(copy, "tracks", [1])  # the first edit makes the history the clone's own
    again = clone(copy)
    labels.write_tracks(sample, "tracks", result, overwrite=True)
    for target in (copy, again):
        labels.undo_repair(target, "tracks", 1)
        assert frames_of(labels, target)[3] == list(range(4, 12))
        assert [e.kind for e in labels.history(target, "tracks")[0]] == ["lock", "undo_repair"]


def test_clone_whose_history_is_gone_says_so_and_can_be_edited(
    labels: ModuleType, sample: Any, clone: Any, result: TrackingResult
) -> None:
    labels.split(sample, "tracks", 1, 5)
    copy = clone()
    labels.write_tracks(sample, "tracks", result, overwrite=True)  # its log is gone, and the lineage is another one's
    assert labels.history_note(sample, "tracks") == ""
    note = labels.history_note(copy, "tracks")
    assert "\n" not in note
    assert "clone" in note
    with pytest.raises(EditError, match="clone") as raised:
        labels.undo(copy, "tracks")
    assert "\n" not in str(raised.value)
    with pytest.raises(EditError, match="did not keep what it was made of"):
        labels.undo_repair(copy, "tracks", 1)
    before = frames_of(labels, copy)
    labels.merge(copy, "tracks", 1, 5)
    labels.undo(copy, "tracks")
    assert frames_of(labels, copy) == before


def test_other_dataset_with_the_same_edits_is_not_taken_for_the_first_one(
    labels: ModuleType, fo: ModuleType, sample: Any, clone: Any
) -> None:
    """Two clones, each with an edit of its own: both logs have one entry with the number 1."""
    one, other = clone(), clone()
    labels.split(one, "tracks", 1, 5)
    labels.split(other, "tracks", 1, 7)
    third = clone(other)
    assert texts(labels, third) == texts(labels, other) != texts(labels, one)


def test_dataset_without_edits_has_no_history_and_no_note(labels: ModuleType, sample: Any, clone: Any) -> None:
    copy = clone()
    assert labels.history(copy, "tracks") == ((), ())
    assert labels.history_note(copy, "tracks") == ""
    labels.split(sample, "tracks", 1, 5)
    labels.undo(sample, "tracks")
    assert labels.history(clone(), "tracks") == ((), ())
