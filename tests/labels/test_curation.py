"""Numbers for the sidebar and saved views: they follow what happened, and what a person did about it."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from fiftyone_plugin.errors import FieldConflictError

pytestmark = pytest.mark.fiftyone


@pytest.fixture
def tracked(labels: ModuleType, dataset: Any, result: Any) -> Any:
    from dataclasses import replace

    labels.write_tracks(dataset.first(), "tracks", result)
    labels.write_tracks(dataset.last(), "tracks", replace(result, decisions=(), repairs=(), encounters=()))
    return dataset


def test_stats_are_in_the_schema_and_follow_edits(labels: ModuleType, tracked: Any) -> None:
    assert tracked.values("tracks_stats.needs_review") == [1, 0]
    assert tracked.values("tracks_stats.repairs") == [1, 0]
    assert tracked.values("tracks_stats.tracks") == [3, 3]
    assert tracked.values("tracks_stats.min_identity_confidence") == pytest.approx([0.7, 0.7])
    assert "tracks_stats.needs_review" in tracked.get_field_schema(flat=True)
    labels.accept(tracked.first(), "tracks", encounter_id=2)
    labels.delete(tracked.first(), "tracks", 3)
    assert tracked.values("tracks_stats.needs_review") == [0, 0]
    assert tracked.values("tracks_stats.reviewed") == [1, 0]
    assert tracked.values("tracks_stats.tracks") == [2, 3]
    labels.undo(tracked.first(), "tracks")
    labels.undo(tracked.first(), "tracks")
    assert tracked.values("tracks_stats.needs_review") == [1, 0]


def test_saved_views_hold_the_right_videos(labels: ModuleType, tracked: Any) -> None:
    names = labels.save_views(tracked, "tracks")
    found = {name: tracked.load_saved_view(name).values("id") for name in names}
    first, last = tracked.values("id")
    assert found == {
        "tracks: needs review": [first],
        "tracks: has returns": [],
        "tracks: repaired": [first],
        "tracks: low identity confidence": [first, last],
    }
    # Views are queries: they follow later edits.
    labels.accept(tracked.first(), "tracks", encounter_id=2)
    assert tracked.load_saved_view("tracks: needs review").values("id") == []


def test_saved_views_of_others_are_left_alone(labels: ModuleType, tracked: Any) -> None:
    tracked.save_view("tracks: repaired", tracked.limit(0), description="mine")
    labels.save_views(tracked, "tracks")
    assert "tracks: repaired" not in labels.save_views(tracked, "tracks")
    assert tracked.get_saved_view_info("tracks: repaired")["description"] == "mine"


def test_saved_views_of_a_field_of_others_are_refused(labels: ModuleType, tracked: Any) -> None:
    with pytest.raises(FieldConflictError, match="no tracks of this plugin"):
        labels.save_views(tracked, "other")


def test_stats_field_of_others_is_never_written_to(
    fo: ModuleType, labels: ModuleType, dataset: Any, result: Any
) -> None:
    dataset.add_sample_field("tracks_stats", fo.FloatField)
    with pytest.raises(FieldConflictError, match=r"'tracks_stats'.* never overwritten"):
        labels.write_tracks(dataset.first(), "tracks", result)


def test_stats_can_be_sorted_by_in_the_app(labels: ModuleType, tracked: Any) -> None:
    """The App offers what has an index."""
    wanted = {"tracks_stats.needs_review", "tracks_stats.repairs", "tracks_stats.min_identity_confidence"}
    assert wanted <= set(tracked.list_indexes())


def test_tracks_are_written_where_there_is_no_room_for_an_index(
    fo: ModuleType, labels: ModuleType, dataset: Any, result: Any
) -> None:
    from pymongo.errors import OperationFailure

    # MongoDB has room for 64.
    for number in range(64):
        dataset.add_sample_field(f"number{number}", fo.IntField)
        try:
            dataset.create_index(f"number{number}")
        except OperationFailure:
            break
    labels.write_tracks(dataset.first(), "tracks", result)
    assert dataset.first().tracks_stats.needs_review == 1
