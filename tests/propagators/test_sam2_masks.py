"""Masks enlarged around their objects against torch's enlargement of the whole grid: bit for bit the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fiftyone_plugin.propagators import sam2_masks
from fiftyone_plugin.propagators.sam2_masks import enlarge_masks
from fiftyone_plugin.types import BoolArray, FloatArray

ABSENT_LOGIT = -1024.0


def by_torch(logits: FloatArray, height_px: int, width_px: int) -> BoolArray:
    values = torch.from_numpy(np.ascontiguousarray(logits))[:, None]
    return (F.interpolate(values, size=(height_px, width_px), mode="bilinear", align_corners=False)[:, 0] > 0).numpy()


def assert_same(logits: FloatArray, height_px: int, width_px: int) -> None:
    found = enlarge_masks(logits, height_px=height_px, width_px=width_px)
    assert found.dtype == np.bool_
    np.testing.assert_array_equal(found, by_torch(logits, height_px, width_px))


@pytest.fixture
def whole_grids(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Counts how often torch is asked for a whole grid."""
    calls: list[tuple[int, int]] = []
    original = sam2_masks._whole

    def counting(grid: FloatArray, height_px: int, width_px: int) -> BoolArray:
        calls.append(grid.shape)  # type: ignore[arg-type]
        return original(grid, height_px, width_px)

    monkeypatch.setattr(sam2_masks, "_whole", counting)
    return calls


def blob(side: int, *, row: float, column: float, radius: float) -> FloatArray:
    """(1, side, side), above 0 in a disc; all in parts of the side."""
    y, x = np.mgrid[:side, :side] / side
    noise = np.random.default_rng(0).normal(0, 0.3, (side, side))
    return np.asarray((40 * (radius - np.hypot(y - row, x - column)) + noise).clip(-20, 20), np.float32)[None]


SIZES = st.integers(1, 97)
FINITE = st.floats(-30, 30, width=32)
STEPS = st.sampled_from([-3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0])
"""Few values, so that sums which are 0, or a rounding away from it, are frequent."""
ANY = st.floats(width=32, allow_nan=True, allow_infinity=True, allow_subnormal=True)


def grids(values: Any, fill: float) -> st.SearchStrategy[FloatArray]:
    shapes = st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12))
    return arrays.arrays(np.float32, shapes, elements=values, fill=st.just(fill))


@given(grids(FINITE, -8.0), SIZES, SIZES)
@settings(deadline=None, max_examples=200)
def test_random_logits_give_the_masks_of_the_whole_grid(logits: FloatArray, height: int, width: int) -> None:
    assert_same(logits, height, width)


@given(grids(STEPS, -1.0), SIZES, SIZES)
@settings(deadline=None, max_examples=200)
def test_logits_that_cancel_out_give_the_masks_of_the_whole_grid(logits: FloatArray, height: int, width: int) -> None:
    assert_same(logits, height, width)


@given(grids(ANY, -1.0), SIZES, SIZES)
@settings(deadline=None, max_examples=200)
def test_numbers_of_any_kind_give_the_masks_of_the_whole_grid(logits: FloatArray, height: int, width: int) -> None:
    """Infinities, numbers that are none and the smallest there are: half precision overflows into them."""
    assert_same(logits, height, width)


@given(st.integers(0, 2**32 - 1), st.sampled_from([16, 64, 256]), st.integers(9, 700), st.integers(9, 700))
@settings(deadline=None, max_examples=60)
def test_objects_anywhere_give_the_masks_of_the_whole_grid(seed: int, side: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    # Beyond the borders too, and down to nothing.
    objects = [
        blob(side, row=rng.uniform(-0.1, 1.1), column=rng.uniform(-0.1, 1.1), radius=rng.uniform(0, 0.4))
        for _ in range(3)
    ]
    assert_same(np.concatenate(objects), height, width)


@pytest.mark.parametrize("place", [(0, 0), (0, 15), (15, 0), (15, 15), (0, 7), (7, 0)], ids=str)
@pytest.mark.parametrize("size", [(45, 81), (360, 640), (7, 5)], ids=["odd", "even", "smaller than the grid"])
def test_object_at_a_border_is_whole(place: tuple[int, int], size: tuple[int, int]) -> None:
    logits = np.full((1, 16, 16), -4, np.float32)
    logits[0, place[0], place[1]] = 5
    assert_same(logits, *size)


def test_absent_and_no_objects_have_empty_masks() -> None:
    assert enlarge_masks(np.zeros((0, 16, 16), np.float32), height_px=45, width_px=81).shape == (0, 45, 81)
    for value in (ABSENT_LOGIT, 0.0):
        masks = enlarge_masks(np.full((2, 16, 16), value, np.float32), height_px=45, width_px=81)
        assert masks.shape == (2, 45, 81)
        assert not masks.any()


def test_small_objects_are_enlarged_inside_their_boxes_only(whole_grids: list[tuple[int, int]]) -> None:
    """Proves that the comparisons above are not of torch with itself."""
    for step in range(10):
        enlarge_masks(blob(64, row=0.3 + step / 50, column=0.6, radius=0.1), height_px=360, width_px=640)
    assert len(whole_grids) <= 1
    enlarge_masks(np.full((1, 64, 64), 3, np.float32), height_px=360, width_px=640)
    assert len(whole_grids) in (1, 2)


def test_value_that_rounding_could_turn_is_left_to_torch(whole_grids: list[tuple[int, int]]) -> None:
    logits = np.full((1, 16, 16), -1, np.float32)
    # Enlarged threefold, a pixel beside the grid point has a third of it: 2 / 3 - 1 / 3 * 2 is 0, if rounded so.
    logits[0, 8, 8] = 1
    enlarge_masks(logits, height_px=48, width_px=48)
    assert whole_grids == []
    logits[0, 8, 8] = 2
    enlarge_masks(logits, height_px=48, width_px=48)
    assert whole_grids == [(16, 16)]
