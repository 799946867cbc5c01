from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from fiftyone_plugin.geometry import decode_mask
from fiftyone_plugin.types import TrackingResult

pytestmark = pytest.mark.fiftyone


@pytest.fixture
def browse(fo: ModuleType) -> ModuleType:
    from fiftyone_plugin.labels import browse

    return browse


def test_own_fields_come_with_the_most_doubts_first(
    browse: ModuleType, labels: ModuleType, fo: ModuleType, dataset: Any, result: TrackingResult
) -> None:
    assert browse.own_fields(dataset) == ()
    quiet = replace(result, encounters=(), decisions=(), repairs=())
    labels.write_tracks(dataset.first(), "a_quiet", quiet)
    labels.write_tracks(dataset.first(), "tracks", result)
    dataset.add_frame_field("theirs", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    assert browse.own_fields(dataset) == ("tracks", "a_quiet")


def test_targets_to_review_count_doubts_and_leave_out_untracked_videos(
    browse: ModuleType, labels: ModuleType, dataset: Any, result: TrackingResult
) -> None:
    sample = dataset.last()
    labels.write_tracks(sample, "tracks", result)
    assert browse.targets_to_review(dataset, "tracks", limit=5) == [(sample.id, "flock.mp4 (1 to review)")]
    assert browse.targets_to_review(dataset.limit(1), "tracks", limit=5) == []
    assert browse.targets_to_review(dataset, "nothing", limit=5) == []


def test_tracks_at_frames_are_those_of_the_whole_read(
    browse: ModuleType, labels: ModuleType, dataset: Any, result: TrackingResult
) -> None:
    sample = dataset.first()
    labels.write_tracks(sample, "tracks", result)
    whole = {track.track_id: track for track in labels.read_tracks(sample, "tracks")}
    found = browse.read_tracks_at(sample, "tracks", [8, 5, 99], track_ids=[1, 2])
    # Sheep 2 is away on frame 5, the dog was not asked for, and there is no frame 99.
    assert {t.track_id: t.frame_indices.tolist() for t in found} == {1: [5, 8], 2: [8]}
    for track in found:
        rows = np.flatnonzero(np.isin(whole[track.track_id].frame_indices, track.frame_indices))
        assert np.array_equal(track.boxes_xyxy, whole[track.track_id].boxes_xyxy[rows])
        for mask, row in zip(track.masks, rows, strict=True):
            assert np.array_equal(decode_mask(mask), decode_mask(whole[track.track_id].masks[row]))


def test_tracks_at_frames_of_an_untracked_video_are_none(
    browse: ModuleType, labels: ModuleType, dataset: Any, result: TrackingResult
) -> None:
    labels.write_tracks(dataset.first(), "tracks", result)
    assert browse.read_tracks_at(dataset.last(), "tracks", [0, 1]) == ()


def test_target_of_an_image_is_its_sequence(
    browse: ModuleType, labels: ModuleType, sequences: Any, result: TrackingResult
) -> None:
    view = sequences.group_by("scene", order_by="frame_number")
    (group, *_) = labels.targets(view)
    ids = group.values("id")
    assert browse.target_of(view, ids[0]).values("id") == ids
    # Without the grouping nobody can say which images belong together.
    assert browse.target_of(sequences.view(), ids[0]) is None
    labels.write_tracks(group, "tracks", replace(result, frames_processed=len(ids)))
    found = browse.read_tracks_at(browse.target_of(view, ids[0]), "tracks", [1])
    assert {t.track_id for t in found} == {1, 2}


def test_summary_that_another_process_replaced_is_read_anew(
    labels: ModuleType, dataset: Any, result: TrackingResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels.write_tracks(dataset.first(), "tracks", result)
    load, calls = type(dataset).load_run_results, []

    def trip_once(*args: Any, **kwargs: Any) -> Any:
        # What FiftyOne raises where the file it remembers is gone.
        calls.append(args)
        if len(calls) == 1:
            raise AttributeError("'str' object has no attribute 'decode'")
        return load(*args, **kwargs)

    monkeypatch.setattr(type(dataset), "load_run_results", trip_once)
    assert labels.read_summary(dataset.first(), "tracks")["frames"] == result.frames_processed
    assert len(calls) == 2
