"""Mask logits of the model's resolution to masks of the frame's size, computed only around each object.

SAM 2 gives logits on a grid a quarter as fine as its picture. Enlarging the whole grid costs as much as the frame is
large, for objects that cover little of it. A pixel can only be set where one of the up to four grid points around it is
above 0, so the box of these, and the grid points next to it, decide everything.

The masks are those of ``F.interpolate(logits, mode="bilinear", align_corners=False) > 0`` on the whole grid, bit for
bit, on every machine: weights are read off torch itself, and where a value lies so close to 0 that the order of
rounding could decide, torch is asked for the whole grid of that object. Knows nothing of models or tracks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F

from fiftyone_plugin.types import BoolArray, FloatArray, IntArray

__all__ = ["enlarge_masks"]

_MAX_BOX_SHARE = 0.4
"""Of the frame; above it the whole grid is enlarged at once. Measured with discs on a grid of 64 x 64, 360p to 1080p: a
box of 0.36 takes 0.7 to 0.9 of the time that the whole grid takes, one of 0.49 takes 1.1 to 1.3 of it."""

_MAX_ROUNDING = 8 * float(np.finfo(np.float32).eps)
"""Two ways to round one bilinear value differ by less, relative to the largest of the four logits around it: either
rounds four times by half an epsilon at most, which makes 4."""

_SMALLEST = float(np.finfo(np.float32).tiny)
"""Below it rounding is no longer relative."""


@dataclass(frozen=True, slots=True)
class _Axis:
    """Which two of S grid points each of N pixels lies between, along one axis."""

    lower: IntArray
    """(N,), not decreasing."""
    upper: IntArray
    """(N,)."""
    lower_weights: FloatArray
    """float32 (N,)."""
    upper_weights: FloatArray
    """float32 (N,)."""

    def touched_by(self, first: int, last: int) -> slice:
        """Pixels that depend on a grid point of ``[first, last]``."""
        start = int(np.searchsorted(self.upper, first))
        return slice(start, int(np.searchsorted(self.lower, last, side="right")))


def enlarge_masks(logits: FloatArray, *, height_px: int, width_px: int) -> BoolArray:
    """Enlarge mask logits bilinearly and cut them off at 0.

    Args:
        logits: float32 (K, h, w), above 0 on the object.
        height_px: H.
        width_px: W.

    Returns:
        bool (K, H, W).
    """
    masks: BoolArray = np.zeros((len(logits), height_px, width_px), np.bool_)
    vertical, horizontal = _axis(logits.shape[1], height_px), _axis(logits.shape[2], width_px)
    is_set: BoolArray = np.asarray(logits > 0)
    rows: BoolArray = np.asarray(is_set.any(axis=2))
    columns: BoolArray = np.asarray(is_set.any(axis=1))
    for k in np.flatnonzero(rows.any(axis=1)).tolist():
        down, across = np.flatnonzero(rows[k]), np.flatnonzero(columns[k])
        at = vertical.touched_by(down[0], down[-1]), horizontal.touched_by(across[0], across[-1])
        share = (at[0].stop - at[0].start) * (at[1].stop - at[1].start) / (height_px * width_px)
        inside = None if share > _MAX_BOX_SHARE else _inside(logits[k], vertical, horizontal, at)
        if inside is None:
            masks[k] = _whole(logits[k], height_px, width_px)
        else:
            masks[k][at] = inside
    return masks


def _inside(grid: FloatArray, vertical: _Axis, horizontal: _Axis, at: tuple[slice, slice]) -> BoolArray | None:
    """The mask in a box of pixels; None where rounding could decide."""
    left, right = horizontal.lower[at[1]], horizontal.upper[at[1]]
    above, below = vertical.lower[at[0]], vertical.upper[at[0]]
    if not len(left) or not len(above):
        # A frame with fewer pixels than the grid has points may have none near the object.
        return np.zeros((len(above), len(left)), np.bool_)
    margin = _MAX_ROUNDING * float(np.abs(grid).max()) + _SMALLEST
    if not np.isfinite(margin):
        return None
    # First across, then down, as torch does it.
    part, first = grid[above[0] : below[-1] + 1], above[0]
    lines = part[:, left] * horizontal.lower_weights[at[1]] + part[:, right] * horizontal.upper_weights[at[1]]
    values = lines[above - first] * vertical.lower_weights[at[0], None]
    values += lines[below - first] * vertical.upper_weights[at[0], None]
    i, j = np.nonzero(np.abs(values) <= margin)
    around = [np.abs(grid[y[i], x[j]]) for y in (above, below) for x in (left, right)]
    if np.any(np.abs(values[i, j]) <= _MAX_ROUNDING * np.maximum.reduce(around) + _SMALLEST):
        return None
    return np.asarray(values > 0)


def _whole(grid: FloatArray, height_px: int, width_px: int) -> BoolArray:
    logits = torch.from_numpy(np.ascontiguousarray(grid))[None, None]
    values = F.interpolate(logits, size=(height_px, width_px), mode="bilinear", align_corners=False)
    return np.asarray((values[0, 0] > 0).numpy())


@lru_cache(maxsize=32)
def _axis(points: int, pixels: int) -> _Axis:
    """Read the weights of S grid points for N pixels off torch: what it makes of each grid point alone."""
    alone = torch.eye(points)[:, None, :, None]
    weights = F.interpolate(alone, size=(pixels, 1), mode="bilinear", align_corners=False)[:, 0, :, 0].numpy()
    lower = (weights > 0).argmax(axis=0)
    upper = np.minimum(lower + 1, points - 1)
    at = np.arange(pixels)
    upper_weights = np.where(upper > lower, weights[upper, at], np.float32(0))
    return _Axis(lower, upper, weights[lower, at], upper_weights)
