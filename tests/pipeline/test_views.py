"""How large an object usually is where all of its track is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fiftyone_plugin.config import EvidenceOptions
from fiftyone_plugin.geometry import encode_mask
from fiftyone_plugin.pipeline.views import usual_by_own_area
from fiftyone_plugin.types import Source, Track

LIMIT = 1 / EvidenceOptions().min_area_ratio
"""Views of an object that is usually larger than this are not clean."""


def track_of(heights_px: np.ndarray, *, has_masks: bool = True) -> Track:
    """An object 40 pixels wide of so many pixels height, one row each."""
    masks = []
    for height in heights_px.tolist():
        mask = np.zeros((100, 60), np.bool_)
        mask[:height, 10:50] = True
        masks.append(encode_mask(mask))
    count = len(heights_px)
    ones = np.ones(count, np.float32)
    boxes = np.array([[10, 0, 50, h] for h in heights_px.tolist()], np.float32).reshape(count, 4)
    sources = (Source.SEED, *(Source.PROPAGATED,) * (count - 1))[:count]
    frames = np.arange(count, dtype=np.int64)
    return Track(1, "sheep", frames, boxes, tuple(masks) if has_masks else None, ones, ones, ones, sources)


@pytest.mark.parametrize("has_masks", [True, False], ids=["masks", "boxes"])
def test_object_that_is_half_hidden_for_long_is_usually_larger(has_masks: bool) -> None:
    """Longer than any window of a running median: 40 rows, while it is whole for 30 before and 30 after."""
    heights = np.full(100, 80)
    heights[30:70] = 30
    ratio = usual_by_own_area(track_of(heights, has_masks=has_masks))
    np.testing.assert_allclose(ratio[:30], 1.0)
    np.testing.assert_allclose(ratio[70:], 1.0)
    assert ratio[30:70].min() > LIMIT


def test_object_that_comes_nearer_is_as_large_as_usual() -> None:
    ratio = usual_by_own_area(track_of(np.linspace(50, 90, 200).astype(int)))
    assert ratio.max() < LIMIT
    assert ratio.min() > 1 / LIMIT


def test_masks_speak_where_there_are_some() -> None:
    track = track_of(np.full(20, 80))
    assert track.masks is not None
    holed = np.zeros((100, 60), np.bool_)
    holed[0:80:4, 10:50] = True
    spoilt = replace(track, masks=(*track.masks[:10], encode_mask(holed), *track.masks[11:]))
    assert usual_by_own_area(spoilt)[10] == pytest.approx(4.0)


def test_track_without_rows_has_no_sizes() -> None:
    assert usual_by_own_area(track_of(np.zeros(0, np.int64))).shape == (0,)
