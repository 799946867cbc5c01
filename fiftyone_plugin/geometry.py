"""Boxes, masks and run-length encodings: pure functions on arrays.

Boxes are ``xyxy`` pixels, origin top left, right and bottom exclusive. RLE is COCO's, through pycocotools, so that
every other tool reads what we write.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from fiftyone_plugin.types import BoolArray, Crop, FloatArray, Rle

__all__ = [
    "area_px",
    "box_areas",
    "box_iou",
    "box_overlap",
    "clip_boxes",
    "crop",
    "crop_to_box",
    "decode_mask",
    "ellipse_mask",
    "encode_mask",
    "mask_boxes",
    "mask_iou",
    "median_area_px",
    "non_maximum_suppression",
    "paste_mask",
    "rle_iou",
    "rle_overlap",
]


def box_areas(boxes_xyxy: FloatArray) -> FloatArray:
    """Areas in square pixels: (N, 4) to (N,); inside-out boxes have area 0."""
    sides = np.clip(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], 0, None)
    return np.asarray(sides[:, 0] * sides[:, 1], np.float32)


def _intersections(a: FloatArray, b: FloatArray) -> FloatArray:
    top_left = np.maximum(a[:, None, :2], b[None, :, :2])
    bottom_right = np.minimum(a[:, None, 2:], b[None, :, 2:])
    sides = np.clip(bottom_right - top_left, 0, None)
    return np.asarray(sides[..., 0] * sides[..., 1], np.float32)


def _ratio(part: FloatArray, whole: FloatArray) -> FloatArray:
    return np.asarray(np.divide(part, whole, out=np.zeros_like(part), where=whole > 0), np.float32)


def box_iou(a: FloatArray, b: FloatArray) -> FloatArray:
    """Intersection over union of every pair: (N, 4), (M, 4) to (N, M) in [0, 1]; 0 where both areas are 0."""
    both = _intersections(a, b)
    union = box_areas(a)[:, None] + box_areas(b)[None] - both
    return _ratio(both, union)


def box_overlap(a: FloatArray, b: FloatArray) -> FloatArray:
    """Part of each box of `a` that a box of `b` covers: (N, 4), (M, 4) to (N, M) in [0, 1]."""
    both = _intersections(a, b)
    area = np.broadcast_to(box_areas(a)[:, None], both.shape)
    return _ratio(both, np.asarray(area))


def clip_boxes(boxes_xyxy: FloatArray, *, height_px: int, width_px: int) -> FloatArray:
    """Boxes cut to the frame: (N, 4) to (N, 4)."""
    limits = np.array([width_px, height_px, width_px, height_px], np.float32)
    return np.asarray(np.clip(boxes_xyxy, 0, limits), np.float32)


def non_maximum_suppression(boxes_xyxy: FloatArray, scores: FloatArray, *, max_iou: float) -> NDArray[np.int64]:
    """Indices of the boxes that stay, best score first; ties keep the earlier one."""
    order = np.argsort(-scores, kind="stable")
    iou = box_iou(boxes_xyxy, boxes_xyxy)
    keep: list[int] = []
    for i in order.tolist():
        if all(iou[i, j] <= max_iou for j in keep):
            keep.append(i)
    return np.asarray(keep, np.int64)


def mask_boxes(masks: BoolArray) -> FloatArray:
    """Tightest boxes: bool (K, H, W) to float32 (K, 4); zeros for an empty mask."""
    return np.array([_extent(mask) for mask in masks], np.float32).reshape(len(masks), 4)


def mask_iou(a: BoolArray, b: BoolArray) -> FloatArray:
    """Intersection over union of every pair of dense masks: (N, H, W), (M, H, W) to (N, M); 0 for two empty ones."""
    # The number of pixels is spelt out: NumPy cannot infer it where there is no mask.
    flat_a = a.reshape(len(a), a.shape[1] * a.shape[2]).astype(np.float32)
    flat_b = b.reshape(len(b), b.shape[1] * b.shape[2]).astype(np.float32)
    both = flat_a @ flat_b.T
    union = flat_a.sum(axis=1)[:, None] + flat_b.sum(axis=1)[None] - both
    return _ratio(both, union)


def encode_mask(mask: BoolArray) -> Rle:
    """Dense bool (H, W) to RLE: byte for byte what `pycocotools.mask.encode` makes of it.

    Only the mask's box is turned round and searched, so that a small object costs little in a large frame.
    """
    height_px, width_px = mask.shape
    left, top, right, bottom = _extent(mask)
    runs = np.array([mask.size])
    if right > left:
        wide, tall = right - left, bottom - top
        # A blank pixel before the first column and, where the frame goes on, under each, ends what is set.
        step = tall + (tall < height_px)
        pixels = np.zeros(wide * step + 2, np.bool_)
        pixels[1:-1].reshape(wide, step)[:, :tall] = mask[top:bottom, left:right].T
        column, row = np.divmod(np.flatnonzero(pixels[1:] != pixels[:-1]), step)
        ends = (left + column) * height_px + top + row
        # The last pixel of the frame ends its run by itself; no empty run follows.
        runs = np.diff(ends if ends[-1] == mask.size else np.append(ends, mask.size), prepend=0)
    coded = coco.frPyObjects({"size": [height_px, width_px], "counts": runs}, height_px, width_px)
    return Rle(height_px, width_px, coded["counts"])


def decode_mask(rle: Rle) -> BoolArray:
    """RLE to dense bool (H, W)."""
    return np.ascontiguousarray(coco.decode(_as_coco(rle)), dtype=np.bool_)


def area_px(rle: Rle) -> int:
    """Number of pixels that are set."""
    return int(coco.area(_as_coco(rle)))


def median_area_px(masks: Sequence[Rle], *, count: int = 64) -> float:
    """Median number of set pixels of about `count` masks, evenly spread."""
    return float(np.median([area_px(m) for m in masks[:: max(1, len(masks) // count)]]))


def rle_iou(a: Sequence[Rle], b: Sequence[Rle]) -> FloatArray:
    """Intersection over union of every pair, without decoding: N and M masks to (N, M)."""
    if not a or not b:
        return np.zeros((len(a), len(b)), np.float32)
    values = coco.iou([_as_coco(r) for r in a], [_as_coco(r) for r in b], [0] * len(b))
    return np.nan_to_num(np.asarray(values, np.float32))


def rle_overlap(a: Sequence[Rle], b: Sequence[Rle]) -> FloatArray:
    """Intersection over the smaller of every pair, without decoding: N and M masks to (N, M)."""
    iou = rle_iou(a, b)
    ours, theirs = (np.array([area_px(r) for r in group], np.float32) for group in (a, b))
    both = iou / (1 + iou) * (ours[:, None] + theirs)
    return _ratio(both, np.minimum(ours[:, None], theirs))


def crop_to_box(mask: BoolArray, box_xyxy: FloatArray) -> BoolArray:
    """The part of a dense mask inside the whole-pixel hull of a box, at least 1 x 1."""
    x0, y0, x1, y1 = _hull(box_xyxy, mask.shape[0], mask.shape[1])
    return mask[y0:y1, x0:x1]


def paste_mask(part: BoolArray, box_xyxy: FloatArray, *, height_px: int, width_px: int) -> BoolArray:
    """Undo `crop_to_box`: put `part` back at its box in an empty frame."""
    x0, y0, _, _ = _hull(box_xyxy, height_px, width_px)
    full = np.zeros((height_px, width_px), np.bool_)
    target = full[y0 : y0 + part.shape[0], x0 : x0 + part.shape[1]]
    target |= part[: target.shape[0], : target.shape[1]]
    return full


def crop(image_rgb: NDArray[np.uint8], mask: BoolArray, box_xyxy: FloatArray) -> Crop:
    """Cut one object out of a frame: image (H, W, 3), mask (H, W) and its box to a `Crop`, copied."""
    x0, y0, x1, y1 = _hull(box_xyxy, mask.shape[0], mask.shape[1])
    return Crop(image_rgb[y0:y1, x0:x1].copy(), mask[y0:y1, x0:x1].copy(), left_px=x0, top_px=y0)


def ellipse_mask(box_xyxy: FloatArray, *, height_px: int, width_px: int) -> BoolArray:
    """The ellipse inscribed in a box: bool (H, W)."""
    x0, y0, x1, y1 = box_xyxy.tolist()
    y, x = np.ogrid[:height_px, :width_px]
    across = (x + 0.5 - (x0 + x1) / 2) / max((x1 - x0) / 2, 0.5)
    down = (y + 0.5 - (y0 + y1) / 2) / max((y1 - y0) / 2, 0.5)
    return np.asarray(across**2 + down**2 <= 1.0, np.bool_)


def _extent(mask: BoolArray) -> tuple[int, int, int, int]:
    """The tightest box, xyxy in whole pixels; zeros for an empty mask."""
    columns = np.flatnonzero(mask.any(axis=0))
    if not len(columns):
        return 0, 0, 0, 0
    left, right = int(columns[0]), int(columns[-1]) + 1
    rows = np.flatnonzero(mask[:, left:right].any(axis=1))
    return left, int(rows[0]), right, int(rows[-1]) + 1


def _hull(box_xyxy: FloatArray, height_px: int, width_px: int) -> tuple[int, int, int, int]:
    x0 = int(np.clip(np.floor(box_xyxy[0]), 0, width_px - 1))
    y0 = int(np.clip(np.floor(box_xyxy[1]), 0, height_px - 1))
    x1 = int(np.clip(np.ceil(box_xyxy[2]), x0 + 1, width_px))
    y1 = int(np.clip(np.ceil(box_xyxy[3]), y0 + 1, height_px))
    return x0, y0, x1, y1


def _as_coco(rle: Rle) -> dict[str, Any]:
    return {"size": [rle.height_px, rle.width_px], "counts": rle.counts}
