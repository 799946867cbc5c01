from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fiftyone_plugin.geometry import box_iou
from fiftyone_plugin.pipeline.associate import match


def boxes(*rows: tuple[float, float, float, float]) -> np.ndarray:
    return np.array(rows, np.float32).reshape(-1, 4)


LEFT, RIGHT = (0, 0, 20, 20), (40, 0, 60, 20)


def test_match_pairs_by_overlap_whatever_the_order() -> None:
    pairs = match(boxes(LEFT, RIGHT), ["sheep"] * 2, boxes(RIGHT, LEFT), ["sheep"] * 2, min_iou=0.5)
    assert sorted(pairs) == [(0, 1), (1, 0)]


def test_match_of_nothing_is_nothing() -> None:
    assert match(boxes(), [], boxes(LEFT), ["sheep"], min_iou=0.5) == []
    assert match(boxes(LEFT), ["sheep"], boxes(), [], min_iou=0.5) == []


def test_match_below_the_gate_is_left_out_and_costs_nobody_a_partner() -> None:
    """The second detection overlaps both tracks a little; forcing it in must not displace the good pair."""
    near = (10, 0, 30, 20)
    pairs = match(boxes(LEFT, RIGHT), ["sheep"] * 2, boxes(LEFT, near), ["sheep"] * 2, min_iou=0.5)
    assert pairs == [(0, 0)]


def test_match_is_the_best_sum_not_greedy() -> None:
    """Greedy takes the 0.82 pair and leaves the other track below the gate."""
    tracks = boxes((0, 0, 20, 20), (6, 0, 26, 20))
    found = boxes((2, 0, 22, 20), (-4, 0, 16, 20))
    assert sorted(match(tracks, ["sheep"] * 2, found, ["sheep"] * 2, min_iou=0.5)) == [(0, 1), (1, 0)]


def test_match_prefers_the_own_class_and_takes_another_where_none_fits() -> None:
    found = boxes((0, 0, 20, 20), (3, 0, 23, 20))
    assert match(boxes(LEFT), ["sheep"], found, ["dog", "sheep"], min_iou=0.5) == [(0, 1)]
    assert match(boxes(LEFT), ["sheep"], found[:1], ["dog"], min_iou=0.5) == [(0, 0)]


def test_match_appearance_settles_equal_overlap() -> None:
    tracks = boxes((0, 0, 20, 20), (2, 0, 22, 20))
    found = boxes((1, 0, 21, 20), (1, 0, 21, 20))
    likeness = np.array([[0.1, 0.9], [0.9, 0.1]], np.float32)
    pairs = match(tracks, ["sheep"] * 2, found, ["sheep"] * 2, min_iou=0.5, likeness=likeness)
    assert sorted(pairs) == [(0, 1), (1, 0)]
    unknown = np.full((2, 2), np.nan, np.float32)
    assert len(match(tracks, ["sheep"] * 2, found, ["sheep"] * 2, min_iou=0.5, likeness=unknown)) == 2


side = st.floats(0, 30, width=32)
some_boxes = st.lists(st.tuples(side, side), max_size=5).map(
    lambda corners: np.array([[x, y, x + 20, y + 20] for x, y in corners], np.float32).reshape(-1, 4)
)


@given(some_boxes, some_boxes, st.sampled_from([0.1, 0.5, 0.9]))
def test_match_is_one_to_one_and_inside_the_gate(a: np.ndarray, b: np.ndarray, min_iou: float) -> None:
    pairs = match(a, ["sheep"] * len(a), b, ["sheep"] * len(b), min_iou=min_iou)
    assert len({r for r, _ in pairs}) == len({c for _, c in pairs}) == len(pairs)
    iou = box_iou(a, b)
    assert all(iou[r, c] >= min_iou for r, c in pairs)
