"""The image side of SAM 2: frames in, features out, once per frame whatever the number of objects.

Knows nothing of objects, prompts or memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

__all__ = ["FrameFeatures", "ImageEncoder", "PixelScaler"]

_MEAN_RGB = (0.485, 0.456, 0.406)
_DEVIATION_RGB = (0.229, 0.224, 0.225)
"""ImageNet's, as in `sam2.utils.misc.load_video_frames`."""


@dataclass(frozen=True, slots=True)
class FrameFeatures:
    """Features of one frame, shared by all objects. h, w: the image size divided by 16; D: channels of the model."""

    embedding: Tensor
    """(1, D, h, w)."""
    stride_8: Tensor
    """(1, D / 4, 2h, 2w), projected for the mask decoder."""
    stride_4: Tensor
    """(1, D / 8, 4h, 4w), projected for the mask decoder."""


class PixelScaler:
    """Brings frames into the form the model was trained with.

    Args:
        side_px: Side S of the square image that the model sees.
        device: Where the result shall lie.
    """

    def __init__(self, side_px: int, *, device: str) -> None:
        self._side_px = side_px
        self._device = device
        deviation = torch.tensor(_DEVIATION_RGB).view(3, 1, 1)
        self._factor = (1 / (255 * deviation)).to(device)
        self._shift = (torch.tensor(_MEAN_RGB).view(3, 1, 1) / deviation).to(device)

    def scale(self, images_rgb: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Resize and normalise: uint8 (H, W, 3) each to float32 (B, 3, S, S).

        Frames become squares, bicubic with antialiasing by Pillow, as the package resizes folders of frames.
        """
        squares = torch.stack([self._resize(image) for image in images_rgb]).to(self._device, non_blocking=True)
        return squares.permute(0, 3, 1, 2) * self._factor - self._shift

    def _resize(self, image_rgb: NDArray[np.uint8]) -> Tensor:
        side = self._side_px
        if image_rgb.shape[:2] != (side, side):
            image_rgb = np.array(Image.fromarray(image_rgb).resize((side, side)))
        return torch.from_numpy(np.ascontiguousarray(image_rgb))


class ImageEncoder:
    """Encodes frames, in batches of any size.

    Args:
        model: A `SAM2Base`.
        device: Where it lies.
    """

    def __init__(self, model: Any, *, device: str) -> None:
        self._model = model
        self._pixels = PixelScaler(model.image_size, device=device)
        trunk = model.image_encoder.trunk
        cells = model.image_size // 4
        position = trunk._get_pos_embed((cells, cells))
        # The package interpolates this code anew for every frame, though it depends on the weights alone.
        trunk._get_pos_embed = lambda _size: position

    def encode(self, images_rgb: Sequence[NDArray[np.uint8]]) -> list[FrameFeatures]:
        """Encode frames in one batch: uint8 (H, W, 3) each."""
        stride_4, stride_8, embedding = self._model.forward_image(self._pixels.scale(images_rgb))["backbone_fpn"]
        return [
            FrameFeatures(embedding[i : i + 1], stride_8[i : i + 1], stride_4[i : i + 1])
            for i in range(len(images_rgb))
        ]
