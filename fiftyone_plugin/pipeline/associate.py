"""Which detection belongs to which live track on a redetect frame: one to one, gated by overlap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from fiftyone_plugin.geometry import box_iou
from fiftyone_plugin.types import FloatArray

__all__ = ["match"]

_OTHER_PHRASE_COST = 0.3
"""A detection of another class is matched only where none of the own class fits: masks do move on to other classes,
and that must be noticed, but two classes that stand close must not be mixed up."""
_APPEARANCE_WEIGHT = 0.3
"""Overlap says where, appearance says who: it settles which of two overlapping tracks a box belongs to."""


def match(
    track_boxes: FloatArray,
    track_phrases: Sequence[str],
    boxes: FloatArray,
    phrases: Sequence[str],
    *,
    min_iou: float,
    likeness: FloatArray | None = None,
) -> list[tuple[int, int]]:
    """Match K tracks with N detections by the Hungarian method.

    Args:
        track_boxes: float32 (K, 4), boxes of the masks on this frame.
        track_phrases: K.
        boxes: float32 (N, 4).
        phrases: N.
        min_iou: Gate, in [0, 1].
        likeness: float32 (K, N) in [-1, 1], appearance of each detection against each track's gallery; NaN is unknown.

    Returns:
        Pairs (track row, detection row), by track row.
    """
    if not len(track_boxes) or not len(boxes):
        return []
    iou = box_iou(track_boxes, boxes)
    gain = iou.astype(np.float64).copy()
    if likeness is not None:
        gain += _APPEARANCE_WEIGHT * np.nan_to_num(likeness, nan=0.0)
    gain -= _OTHER_PHRASE_COST * np.array([[a != b for b in phrases] for a in track_phrases], np.float64)
    # A gated pair must cost more than any allowed one could bring, or it would displace a good match.
    gain[iou < min_iou] = -10.0
    rows, columns = linear_sum_assignment(gain, maximize=True)
    return [(r, c) for r, c in zip(rows.tolist(), columns.tolist(), strict=True) if iou[r, c] >= min_iou]
