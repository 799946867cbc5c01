"""Any embedder, on crops from which the light of their surroundings is taken out.

Clouds, exposure and white balance colour an object and the ground around it alike. Every channel of a crop is divided
by its median around the object: the coefficient rule of von Kries, with the surroundings as its reference as in Land
and McCann, "Lightness and Retinex Theory", JOSA 61 (1971). On ground of many colours, and under steady light, that says
less than the crop as it is, so it stands best beside the same embedder without it: ``colour+colour:adapted``.

Knows nothing of what the embedder makes of a crop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from fiftyone_plugin.interfaces import Embedder
from fiftyone_plugin.types import Crop, FloatArray

__all__ = ["AdaptedEmbedder", "adapt"]

_REACH = 0.5
"""How far the surroundings reach beyond the object's box, in its longer side."""
_MIN_REACH_PX = 6
_RIM = np.ones((5, 5), np.uint8)
"""Masks are a little off: what lies next to one may be the object."""
_MIN_PIXELS = 30
"""Of fewer nothing is concluded: the crop stays as it is."""
_MAX_PIXELS = 16_384
"""Of larger surroundings every n-th pixel is looked at."""
_REFERENCE = 115.0
"""What the surroundings are made to be, in [0, 255]: a middle grey."""
_MIN_LEVEL = 8.0
"""Darker surroundings say nothing of the light."""


def adapt(crop: Crop) -> Crop:
    """The crop as if its surroundings in the frame were grey, and without the frame, which is not.

    A crop that does not know its frame, or fills it, stays as it is.
    """
    if crop.frame is None:
        return crop
    around = _surroundings(crop, crop.frame.image_rgb)
    if len(around) < _MIN_PIXELS:
        return replace(crop, frame=None)
    light = np.maximum(np.median(around, axis=0), _MIN_LEVEL)
    image = np.clip(crop.image_rgb * (_REFERENCE / light), 0, 255).astype(np.uint8)
    return replace(crop, image_rgb=image, frame=None)


def _surroundings(crop: Crop, frame_rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pixels around the object, and not on it: uint8 (P, 3)."""
    height, width = crop.mask.shape
    covered = np.zeros(frame_rgb.shape[:2], np.uint8)
    covered[crop.top_px : crop.top_px + height, crop.left_px : crop.left_px + width] = crop.mask
    x, y, wide, high = cv2.boundingRect(covered)
    reach = max(_MIN_REACH_PX, round(_REACH * max(wide, high)))
    window = np.s_[max(0, y - reach) : y + high + reach, max(0, x - reach) : x + wide + reach]
    free = cv2.dilate(covered[window], _RIM) == 0
    pixels: NDArray[np.uint8] = frame_rgb[window][free]
    return pixels[:: max(1, -(-len(pixels) // _MAX_PIXELS))]


class AdaptedEmbedder:
    """An embedder that sees adapted crops.

    Args:
        inner: What embeds them.
        name: Of both together.
    """

    def __init__(self, inner: Embedder, *, name: str) -> None:
        self._inner = inner
        self.name = name

    @property
    def dimension(self) -> int:
        """Size of the embedding."""
        return self._inner.dimension

    def embed(self, crops: Sequence[Crop]) -> FloatArray:
        """Embed crops: float32 (M, D), unit length."""
        return self._inner.embed([adapt(crop) for crop in crops])
