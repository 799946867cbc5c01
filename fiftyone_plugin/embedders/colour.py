"""A colour histogram of the masked crop: no weights, no network, only pixels of the object.

Two histograms in hue, saturation and value are joined: a fine one of the whole object, and a coarse one that also knows
how high on the object a pixel lies (jacket or trousers). Both are soft (a pixel counts for all bins around it, so a
small change of colour is a small change of the vector) and enter with the square root of their counts, which makes the
dot product of two vectors the Bhattacharyya coefficient of two distributions.

Knows nothing of shape. Its variant ``relative`` divides colours by their mean over the object (grey world), which
survives changing light and loses what the overall colour says; ``adapted`` divides them by what lies around the object
(`adapted`), and keeps that. Same against different individual, ROC-AUC of the dot
product on crops by ground truth (ellipses in boxes for people and flies):

=========================  ========  ========
crops                      absolute  relative
=========================  ========  ========
synthetic, random scenes       .986      .929
flock, steady light           1.000      .981
flock, alike to 0.7            .986      .903
flock, changing light          .502      .851
pedestrians from above         .889      .888
pedestrians, street            .817      .814
flies                          .796      .858
=========================  ========  ========
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import cv2
import numpy as np
from numpy.typing import NDArray

from fiftyone_plugin.embedders.adapted import AdaptedEmbedder
from fiftyone_plugin.errors import BackendError
from fiftyone_plugin.interfaces import Embedder
from fiftyone_plugin.types import Crop, FloatArray

__all__ = ["VARIANTS", "ColourHistogram", "make"]

VARIANTS = ("absolute", "relative", "adapted")

_WHOLE_BINS = (16, 6, 8)
"""Hue, saturation, value."""
_HEIGHT_BINS = (3, 8, 3, 4)
"""Height on the object, hue, saturation, value."""
_HEIGHT_WEIGHT = 0.7
"""Of the second histogram relative to the first."""
_HUE_CIRCLE_DEG = 360.0
_GREY = 0.45
"""Mean of every channel after `relative`, in [0, 1]."""
_MAX_PIXELS = 16_384
"""Of larger objects every n-th pixel is looked at."""


class ColourHistogram:
    """Two of the backend's variants; made by `make`."""

    def __init__(self, *, is_relative: bool = False) -> None:
        self.name = "colour:relative" if is_relative else "colour"
        self._is_relative = is_relative

    @property
    def dimension(self) -> int:
        """Size of the vector."""
        return int(np.prod(_WHOLE_BINS) + np.prod(_HEIGHT_BINS))

    def embed(self, crops: Sequence[Crop]) -> FloatArray:
        """Embed crops: float32 (M, D), unit length; a crop with an empty mask gets the vector of no colour at all."""
        embeddings = np.zeros((len(crops), self.dimension), np.float32)
        for row, crop in enumerate(crops):
            embeddings[row] = self._embed_one(crop)
        return embeddings

    def _embed_one(self, crop: Crop) -> FloatArray:
        rows, columns = np.nonzero(crop.mask)
        if not len(rows):
            return np.full(self.dimension, self.dimension**-0.5, np.float32)
        heights = (rows - rows.min() + 0.5) / (rows.max() - rows.min() + 1)
        step = -(-len(rows) // _MAX_PIXELS)
        rgb = crop.image_rgb[rows[::step], columns[::step]].astype(np.float32) / 255
        if self._is_relative:
            rgb = np.clip(rgb * (_GREY / np.maximum(rgb.mean(axis=0), 1 / 255)), 0, 1)
        hsv = cv2.cvtColor(rgb[None], cv2.COLOR_RGB2HSV)[0] / (_HUE_CIRCLE_DEG, 1, 1)
        whole = _soft_histogram(hsv, _WHOLE_BINS, circular=0)
        by_height = _soft_histogram(np.column_stack([heights[::step], hsv]), _HEIGHT_BINS, circular=1)
        # Each part of the object counts the same, however many pixels it has.
        by_height = _normalised(by_height.reshape(_HEIGHT_BINS[0], -1)).ravel() / _HEIGHT_BINS[0]
        joined = np.sqrt(np.concatenate([_normalised(whole[None])[0], _HEIGHT_WEIGHT**2 * by_height]))
        return np.asarray(joined / np.linalg.norm(joined), np.float32)


def _normalised(histograms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows that sum to 1; empty ones stay empty."""
    totals = histograms.sum(axis=1, keepdims=True)
    shares: NDArray[np.float64] = np.divide(histograms, totals, out=np.zeros_like(histograms), where=totals > 0)
    return shares


def _soft_histogram(values: NDArray[np.floating], bins: tuple[int, ...], *, circular: int) -> NDArray[np.float64]:
    """Count values, shared linearly between the two nearest bins of every axis.

    Args:
        values: (N, A), each in [0, 1].
        bins: A numbers of bins.
        circular: The axis on which 0 and 1 are the same.

    Returns:
        float64, flat; sums to N.
    """
    counts = np.asarray(bins)
    position = values * counts - 0.5
    low = np.floor(position).astype(np.int64)
    share = position - low
    neighbours = np.stack([low, low + 1])
    edge = np.clip(neighbours, 0, counts - 1)
    edge[..., circular] = neighbours[..., circular] % counts[circular]
    shares = np.stack([1 - share, share])
    histogram = np.zeros(int(counts.prod()))
    axes = np.arange(len(bins))
    for corner in product((0, 1), repeat=len(bins)):
        flat = np.ravel_multi_index(tuple(edge[corner, :, axes]), bins)
        histogram += np.bincount(flat, weights=shares[corner, :, axes].prod(axis=0), minlength=len(histogram))
    return histogram


def make(variant: str | None, device: str) -> Embedder:
    """Make the backend: ``absolute`` (also None), ``relative`` or ``adapted``; the device does not matter.

    Raises:
        BackendError: No such variant.
    """
    if variant not in (None, *VARIANTS):
        raise BackendError(f"colour:{variant}: must be one of {', '.join(VARIANTS)}")
    if variant == "adapted":
        return AdaptedEmbedder(ColourHistogram(), name="colour:adapted")
    return ColourHistogram(is_relative=variant == "relative")
