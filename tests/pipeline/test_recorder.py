from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from fiftyone_plugin.geometry import decode_mask
from fiftyone_plugin.pipeline.recorder import MAX_VIEWS, Recorder
from fiftyone_plugin.types import Source


def add(recorder: Recorder, track_id: int, frame: int, *, x: int = 2, source: Source = Source.PROPAGATED) -> None:
    mask = np.zeros((16, 24), np.bool_)
    mask[4:10, x : x + 5] = True
    box = np.array([x, 4, x + 5, 10], np.float32)
    recorder.add(track_id, frame, mask, box, mask_score=0.5, object_score=0.0, source=source)


def unit(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_recorded_track_has_masks_boxes_and_scores_as_given() -> None:
    recorder = Recorder("colour")
    recorder.open(4, "sheep")
    add(recorder, 4, 7, x=3, source=Source.SEED)
    add(recorder, 4, 9, x=6)
    (track,) = recorder.tracks()
    assert (track.track_id, track.phrase, track.sources) == (4, "sheep", (Source.SEED, Source.PROPAGATED))
    assert_array_equal(track.frame_indices, [7, 9])
    assert_array_equal(track.boxes_xyxy, [[3, 4, 8, 10], [6, 4, 11, 10]])
    assert track.masks is not None
    assert decode_mask(track.masks[1])[5].nonzero()[0].tolist() == [6, 7, 8, 9, 10]
    # An object score of 0 is a logit: as likely there as not.
    assert track.scores.tolist() == [0.5, 0.5]


def test_second_mask_of_a_frame_replaces_the_first() -> None:
    recorder = Recorder("colour")
    recorder.open(1, "sheep")
    add(recorder, 1, 0, x=2)
    add(recorder, 1, 0, x=9, source=Source.SEED)
    (track,) = recorder.tracks()
    assert_array_equal(track.boxes_xyxy, [[9, 4, 14, 10]])
    assert track.sources == (Source.SEED,)


def test_frames_recorded_out_of_order_come_out_in_order() -> None:
    recorder = Recorder("colour")
    recorder.open(1, "sheep")
    for frame in (5, 6, 4, 3):
        add(recorder, 1, frame, x=frame)
        recorder.add_view(1, frame, unit(1, 0), 0.5)
    (track,) = recorder.tracks()
    assert_array_equal(track.frame_indices, [3, 4, 5, 6])
    assert_array_equal(track.boxes_xyxy[:, 0], [3, 4, 5, 6])
    assert_array_equal(recorder.galleries()[1].frame_indices, [3, 4, 5, 6])


def test_track_without_a_mask_is_left_out() -> None:
    recorder = Recorder("colour")
    recorder.open(1, "sheep")
    recorder.open(2, "dog")
    add(recorder, 2, 0)
    assert [t.track_id for t in recorder.tracks()] == [2]
    assert recorder.galleries() == {}


def test_object_scores_of_any_size_become_probabilities() -> None:
    """A network may be surer than float32 can express."""
    recorder = Recorder("colour")
    recorder.open(1, "sheep")
    mask = np.ones((4, 4), np.bool_)
    box = unit(0, 0, 4, 4)
    for frame, score in enumerate((-1e6, 1e6)):
        recorder.add(1, frame, mask, box, mask_score=1.0, object_score=score, source=Source.PROPAGATED)
    assert recorder.tracks()[0].scores.tolist() == pytest.approx([0.0, 1.0])


def test_gallery_of_a_long_video_is_bounded_dense_where_new_and_still_holds_old_views() -> None:
    recorder = Recorder("colour")
    recorder.open(1, "sheep")
    total = 3 * MAX_VIEWS
    for frame in range(total):
        recorder.add_view(1, frame, unit(1, 0), 1.0)
    frames = recorder.galleries()[1].frame_indices
    assert len(frames) <= MAX_VIEWS
    assert_array_equal(frames[-MAX_VIEWS // 2 :], np.arange(total - MAX_VIEWS // 2, total))
    assert (frames < total // 3).sum() >= 2


def test_recent_views_are_the_latest_before_a_frame() -> None:
    recorder = Recorder("colour")
    recorder.open(1, "sheep")
    assert recorder.recent_views(1).shape[0] == 0
    for frame in range(6):
        recorder.add_view(1, frame, unit(frame, 0), 1.0)
    assert recorder.recent_views(1, count=2)[:, 0].tolist() == [4, 5]
    assert recorder.recent_views(1, before=3, count=2)[:, 0].tolist() == [1, 2]
    assert recorder.recent_views(1, before=0).shape[0] == 0


def test_support_tells_what_was_said_and_what_was_missed() -> None:
    recorder = Recorder("colour")
    recorder.open(1, "sheep")
    recorder.open(2, "sheep")
    recorder.add_look(1, 0, "sheep")
    recorder.add_look(1, 16, None)
    recorder.add_look(1, 32, "dog")
    supports = recorder.supports()
    assert set(supports) == {1}
    assert_array_equal(supports[1].frame_indices, [0, 16, 32])
    assert_array_equal(supports[1].matched, [True, False, True])
    assert supports[1].phrases == ("sheep", "", "dog")


def test_median_area_is_of_the_latest_frames() -> None:
    recorder = Recorder("colour")
    recorder.open(1, "sheep")
    assert recorder.median_area(1) == 0
    add(recorder, 1, 0)
    assert recorder.median_area(1) == 30
