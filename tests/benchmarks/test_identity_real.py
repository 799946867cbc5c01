from __future__ import annotations

import numpy as np
import pytest

from fiftyone_plugin.benchmarks.identity_real import _joined
from fiftyone_plugin.types import Source, Track


def track(track_id: int, frames: range) -> Track:
    ones = np.ones(len(frames), np.float32)
    boxes = np.tile(np.array([0, 0, 10, 20], np.float32), (len(frames), 1))
    return Track(track_id, "person", np.array(frames), boxes, None, ones, ones, ones, (Source.SEED,) * len(frames))


def test_one_person_under_two_ids_is_one_track() -> None:
    known = _joined((track(1, range(30, 40)), track(2, range(5)), track(19, range(10))), [(19, 1)])
    assert [t.track_id for t in known] == [2, 19]
    assert known[1].frame_indices.tolist() == [*range(10), *range(30, 40)]


def test_ids_that_are_seen_at_once_are_not_one_person() -> None:
    with pytest.raises(ValueError, match="increasing"):
        _joined((track(1, range(5, 15)), track(19, range(10))), [(19, 1)])
