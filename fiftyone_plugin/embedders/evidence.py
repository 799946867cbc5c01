"""Evidence: cutting crops out of frames, and saying how much each of them tells of who somebody is.

NumPy only, and the same for every embedder. Knows nothing of embeddings.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fiftyone_plugin.config import EvidenceOptions
from fiftyone_plugin.geometry import box_overlap, crop
from fiftyone_plugin.types import BoolArray, Crop, FloatArray, Frame

__all__ = ["MIN_WEIGHT", "coverage", "crop_objects", "judge_views"]

MIN_WEIGHT = 1e-3
"""Even the poorest view counts for something."""

_GROWTH = 1.3
_COVERED = 1.6
_MAX_COVERED = 0.5
_UNSURE = 6.3
_MAX_UNSURE = 0.3
"""Fitted (gamma regression, logarithmic link) to how far, squared, 13,700 views lie from the mean of their animal, in
the coordinates of `identity.appearance.Calibration`: 25 drawn clips, tracks as they were carried. Of all that is known
of a view the propagator's own score for the mask tells most: at 0.9 or above the distance is 0.6, below 0.7 it is 5 to
10. What a mask cut off by the frame's border shows is as good as any other of its area."""


def crop_objects(frame: Frame, masks: BoolArray, boxes_xyxy: FloatArray) -> list[Crop]:
    """Cut objects out of a frame: bool (K, H, W) and float32 (K, 4) to K crops, copied; each knows the frame."""
    cut = (crop(frame.image_rgb, mask, box) for mask, box in zip(masks, boxes_xyxy, strict=True))
    return [replace(each, frame=frame) for each in cut]


def judge_views(
    boxes_xyxy: FloatArray,
    *,
    covered: FloatArray,
    areas_px: FloatArray,
    object_scores: FloatArray,
    mask_scores: FloatArray | None,
    median_areas_px: FloatArray,
    height_px: int,
    width_px: int,
    options: EvidenceOptions,
) -> tuple[BoolArray, FloatArray]:
    """Judge the views of all tracks in one frame.

    Where the propagator scored its masks, every view counts whose object is visible and not tiny, the less the more it
    is covered, unlike its usual size, or doubted: a poor view of somebody who is seldom seen well is better than none.
    Where nobody scored them, as in tracks of others, a view must also be clean: not covered by another track, not cut
    off by the frame's border, of about the usual area. Without that, true tracks of people in boxes were harmed.

    Args:
        boxes_xyxy: float32 (K, 4), of *all* tracks in the frame, whatever their class; zeros where there is no mask.
        covered: float32 (K,) in [0, 1], how much of each view others cover; see `coverage`.
        areas_px: (K,) mask areas.
        object_scores: (K,) logits.
        mask_scores: (K,) in [0, 1], overlap with the object that the propagator expects; None where nobody did.
        median_areas_px: (K,) each track's usual area, a running median or, in audits, `usual_by_own_area` of
            `pipeline.views`; not a number, or 0, where there is none yet.
        height_px: Of the frame.
        width_px: Of the frame.
        options: Limits.

    Returns:
        Which views count, bool (K,), and how much, float32 (K,) in (0, 1]: inverse variance around the object's mean
        look, relative to a perfect view: ``sigmoid(object score) * likeness ** 1.3 * exp(-1.6 * covered - 6.3 * (1 -
        mask score))``, where likeness is the smaller of area and median by the larger, and the last two terms stop at
        0.5 and 0.3.
    """
    areas = np.asarray(areas_px, np.float64)
    has_median = np.nan_to_num(median_areas_px) > 0
    medians = np.where(has_median, median_areas_px, areas).astype(np.float64)
    likeness = np.minimum(areas, medians) / np.maximum(np.maximum(areas, medians), 1)

    clean = (object_scores >= options.min_object_score) & (areas >= options.min_area_px)
    doubt = _COVERED * np.clip(np.asarray(covered, np.float64), 0, _MAX_COVERED)
    if mask_scores is None:
        limits = np.array([width_px, height_px], np.float32) - options.border_px
        clean &= (covered <= options.max_overlap) & (likeness >= options.min_area_ratio)
        clean &= ((boxes_xyxy[:, :2] >= options.border_px) & (boxes_xyxy[:, 2:] <= limits)).all(axis=1)
    else:
        doubt += _UNSURE * np.clip(1 - np.asarray(mask_scores, np.float64), 0, _MAX_UNSURE)
    # Written with tanh, the logistic function cannot overflow.
    certainty = 0.5 * (1 + np.tanh(np.asarray(object_scores, np.float64) / 2))
    weights = np.clip(certainty * likeness**_GROWTH * np.exp(-doubt), MIN_WEIGHT, 1)
    return np.asarray(clean, np.bool_), weights.astype(np.float32)


def coverage(
    masks: BoolArray,
    boxes_xyxy: FloatArray,
    *,
    is_founded: BoolArray | None = None,
    box_share: float = 0.25,
) -> FloatArray:
    """How much of each object others cover: float32 (K,) in [0, 1].

    The larger of two parts: pixels of the mask that another mask claims too, and `box_share` of the box that another
    box covers. Boxes alone would be too strict: the boxes of two animals that walk side by side overlap for long.

    Args:
        masks: bool (K, H, W).
        boxes_xyxy: float32 (K, 4).
        is_founded: bool (K,), False for masks that sit on nothing and cover nobody; by default all are True.
        box_share: Weight of box overlap, in [0, 1].
    """
    if not len(masks):
        return np.zeros(0, np.float32)
    # Every fourth pixel each way: this is a share, not a mask, and full frames would cost more than the propagation.
    flat = masks[:, ::4, ::4].reshape(len(masks), -1).astype(np.float32)
    shared = (flat @ flat.T) / np.maximum(flat.sum(axis=1), 1.0)[:, None]
    part = np.maximum(shared, box_share * box_overlap(boxes_xyxy, boxes_xyxy))
    if is_founded is not None:
        part[:, ~is_founded] = 0.0
    np.fill_diagonal(part, 0.0)
    return np.asarray(part.max(axis=1), np.float32)
