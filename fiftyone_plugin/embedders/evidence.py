"""Evidence: cutting crops out of frames, and saying which of them are clean enough to tell who somebody is.

NumPy only, and the same for every embedder. Knows nothing of embeddings.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fiftyone_plugin.config import EvidenceOptions
from fiftyone_plugin.geometry import box_overlap, crop
from fiftyone_plugin.types import BoolArray, Crop, FloatArray, Frame

__all__ = ["MIN_WEIGHT", "coverage", "crop_objects", "is_clean"]

MIN_WEIGHT = 1e-3
"""Even the poorest clean view counts for something."""


def crop_objects(frame: Frame, masks: BoolArray, boxes_xyxy: FloatArray) -> list[Crop]:
    """Cut objects out of a frame: bool (K, H, W) and float32 (K, 4) to K crops, copied; each knows the frame."""
    cut = (crop(frame.image_rgb, mask, box) for mask, box in zip(masks, boxes_xyxy, strict=True))
    return [replace(each, frame=frame) for each in cut]


def is_clean(
    boxes_xyxy: FloatArray,
    *,
    covered: FloatArray,
    areas_px: FloatArray,
    object_scores: FloatArray,
    median_areas_px: FloatArray,
    height_px: int,
    width_px: int,
    options: EvidenceOptions,
) -> tuple[BoolArray, FloatArray]:
    """Judge the views of all tracks in one frame.

    A view is clean if the object is visible, no other track in the frame covers it, it is not cut off by the frame's
    border, and its area is neither tiny nor unlike what it usually is.

    Args:
        boxes_xyxy: float32 (K, 4), of *all* tracks in the frame, whatever their class; zeros where there is no mask.
        covered: float32 (K,) in [0, 1], how much of each view others cover; see `coverage`.
        areas_px: (K,) mask areas.
        object_scores: (K,) logits.
        median_areas_px: (K,) running medians of each track's area; not a number, or 0, where there is none yet.
        height_px: Of the frame.
        width_px: Of the frame.
        options: Limits.

    Returns:
        Which views are clean, bool (K,), and how much each should count, float32 (K,) in (0, 1]:
        ``sigmoid(object score) * (1 - covered) * (smaller / larger of area and median)``.
    """
    areas = np.asarray(areas_px, np.float64)
    has_median = np.nan_to_num(median_areas_px) > 0
    medians = np.where(has_median, median_areas_px, areas).astype(np.float64)
    likeness = np.minimum(areas, medians) / np.maximum(np.maximum(areas, medians), 1)

    limits = np.array([width_px, height_px], np.float32) - options.border_px
    is_inside = ((boxes_xyxy[:, :2] >= options.border_px) & (boxes_xyxy[:, 2:] <= limits)).all(axis=1)
    clean = (
        (object_scores >= options.min_object_score)
        & (covered <= options.max_overlap)
        & is_inside
        & (areas >= options.min_area_px)
        & (likeness >= options.min_area_ratio)
    )
    # Written with tanh, the logistic function cannot overflow.
    certainty = 0.5 * (1 + np.tanh(np.asarray(object_scores, np.float64) / 2))
    weights = np.clip(certainty * (1 - np.asarray(covered, np.float64)) * likeness, MIN_WEIGHT, 1)
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
