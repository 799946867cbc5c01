"""Cutting crops, and judging how much each view says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fiftyone_plugin.config import EvidenceOptions
from fiftyone_plugin.embedders.evidence import MIN_WEIGHT, coverage, crop_objects, judge_views
from fiftyone_plugin.types import Frame

OPTIONS = EvidenceOptions()
GOOD = {"box": (20, 20, 40, 40), "covered": 0.0, "area": 300.0, "score": 5.0, "median": 300.0, "expected": None}


def judge(**changes: object) -> tuple[bool, float]:
    """A view that is clean in every respect, but for what is changed; nobody scored its mask."""
    view = GOOD | changes
    clean, weights = judge_views(
        np.array([view["box"]], np.float32),
        covered=np.array([view["covered"]], np.float32),
        areas_px=np.array([view["area"]], np.float32),
        object_scores=np.array([view["score"]], np.float32),
        mask_scores=None if view["expected"] is None else np.array([view["expected"]], np.float32),
        median_areas_px=np.array([view["median"]], np.float32),
        height_px=80,
        width_px=100,
        options=OPTIONS,
    )
    return bool(clean[0]), float(weights[0])


def test_judge_views_accepts_a_good_view_with_nearly_full_weight() -> None:
    clean, weight = judge()
    assert clean
    assert weight == pytest.approx(1 / (1 + np.exp(-5.0)), abs=1e-6)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"score": -0.1}, id="probably-absent"),
        pytest.param({"covered": 0.06}, id="covered"),
        pytest.param({"box": (1, 20, 40, 40)}, id="cut-off-left"),
        pytest.param({"box": (20, 0, 40, 40)}, id="cut-off-top"),
        pytest.param({"box": (20, 20, 99, 40)}, id="cut-off-right"),
        pytest.param({"box": (20, 20, 40, 79)}, id="cut-off-bottom"),
        pytest.param({"area": 63.0, "median": 63.0}, id="tiny"),
        pytest.param({"area": 170.0}, id="shrunk"),
        pytest.param({"area": 510.0}, id="grown"),
        pytest.param({"box": (0, 0, 0, 0), "area": 0.0}, id="no-mask"),
    ],
)
def test_judge_views_rejects_a_view(changes: dict[str, object]) -> None:
    assert not judge(**changes)[0]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"score": 0.0}, id="score"),
        pytest.param({"covered": 0.05}, id="covered"),
        pytest.param({"box": (2, 2, 98, 78)}, id="border"),
        pytest.param({"area": 64.0, "median": 64.0}, id="area"),
        pytest.param({"area": 180.0}, id="shrunk"),
        pytest.param({"area": 500.0}, id="grown"),
        pytest.param({"median": float("nan")}, id="no-median"),
        pytest.param({"median": 0.0}, id="median-zero"),
    ],
)
def test_judge_views_accepts_a_view_on_the_limit(changes: dict[str, object]) -> None:
    assert judge(**changes)[0]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"covered": 1.0}, id="covered"),
        pytest.param({"box": (0, 0, 100, 80), "covered": 0.1}, id="border"),
        pytest.param({"area": 100.0}, id="shrunk"),
        pytest.param({"expected": 0.1}, id="doubted"),
    ],
)
def test_a_poor_view_of_a_scored_mask_counts_for_less_and_not_for_nothing(changes: dict[str, object]) -> None:
    counts, weight = judge(**{"expected": 1.0} | changes)
    assert counts
    assert 0.01 < weight < judge(expected=1.0)[1]


@pytest.mark.parametrize(
    ("term", "beyond", "factor"),
    [({"covered": 0.5}, {"covered": 0.9}, np.exp(-0.8)), ({"expected": 0.7}, {"expected": 0.2}, np.exp(-1.89))],
)
def test_weight_is_the_product_of_what_was_fitted_and_stops_there(
    term: dict[str, float], beyond: dict[str, float], factor: float
) -> None:
    best = judge(expected=1.0)[1]
    assert judge(**{"expected": 1.0} | term)[1] == pytest.approx(best * factor, rel=1e-5)
    assert judge(**{"expected": 1.0} | beyond)[1] == pytest.approx(best * factor, rel=1e-5)


@given(
    st.floats(-1e4, 1e4),
    st.floats(0, 1, width=32),
    st.floats(0, 1e6, width=32),
    st.floats(0, 1e6, width=32),
    st.floats(0, 1.25, width=32),
)
def test_weights_lie_in_the_unit_interval_and_fall_with_coverage_and_doubt(
    score: float, covered: float, area: float, median: float, expected: float
) -> None:
    _, weight = judge(score=score, covered=covered, area=area, median=median, expected=expected)
    assert MIN_WEIGHT <= weight + 1e-9 <= 1 + 1e-6
    assert weight <= judge(score=score, covered=0.0, area=area, median=median, expected=expected)[1]
    assert weight <= judge(score=score, covered=covered, area=area, median=median, expected=1.0)[1]


def test_judge_views_of_no_track_is_empty() -> None:
    nothing = np.zeros(0, np.float32)
    clean, weights = judge_views(
        np.zeros((0, 4), np.float32),
        covered=nothing,
        areas_px=nothing,
        object_scores=nothing,
        mask_scores=nothing,
        median_areas_px=nothing,
        height_px=80,
        width_px=100,
        options=OPTIONS,
    )
    assert clean.shape == weights.shape == (0,)


def squares(*corners: tuple[int, int], side: int = 24) -> tuple[np.ndarray, np.ndarray]:
    masks = np.zeros((len(corners), 80, 100), np.bool_)
    boxes = np.zeros((len(corners), 4), np.float32)
    for k, (x, y) in enumerate(corners):
        masks[k, y : y + side, x : x + side] = True
        boxes[k] = x, y, x + side, y + side
    return masks, boxes


def test_coverage_is_the_part_of_the_own_mask_that_others_claim() -> None:
    masks, boxes = squares((0, 0), (12, 0), (60, 40))
    np.testing.assert_allclose(coverage(masks, boxes), [0.5, 0.5, 0.0])


def test_coverage_counts_boxes_that_overlap_without_their_masks_a_little() -> None:
    masks, boxes = squares((0, 0), (12, 0))
    masks[0, :, 12:] = False
    assert 0 < coverage(masks, boxes)[0] < 0.5


def test_coverage_leaves_out_masks_on_nothing() -> None:
    masks, boxes = squares((0, 0), (12, 0))
    founded = np.array([True, False])
    np.testing.assert_allclose(coverage(masks, boxes, is_founded=founded), [0.0, 0.5])


def test_crop_objects_cuts_image_and_mask_at_the_box() -> None:
    image = np.arange(80 * 100 * 3, dtype=np.uint32).astype(np.uint8).reshape(80, 100, 3)
    masks, boxes = squares((10, 20), (60, 40))
    first, second = crop_objects(Frame(0, 0.0, image), masks, boxes)
    np.testing.assert_array_equal(first.image_rgb, image[20:44, 10:34])
    assert first.mask.all()
    assert second.mask.shape == (24, 24)
