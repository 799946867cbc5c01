"""The tiny re-identification network: a masked crop in, a unit vector out.

The network and the shape of its input only. Knows nothing of files, devices or the `Embedder` protocol (`reid.py`), and
nothing of its training (`bundled/training/train_embedder.py`).

Input, float32 (M, 4, 64, 64): a square window around the object's box, `WINDOW_SCALE` times as wide as the longer side
of the box and centred on it, sampled bilinearly to 64 x 64; what lies outside the frame is zero. Channels 0 to 2 are
RGB in [0, 1], normalised with `MEAN_RGB` and `STD_RGB` and *then* multiplied by the mask, so that the background is
exactly 0; channel 3 is the mask itself, in [0, 1]. All four are resampled together, after the multiplication.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["DIMENSION", "MEAN_RGB", "SIDE_PX", "STD_RGB", "WINDOW_SCALE", "ReidNetwork"]

SIDE_PX = 64
"""Side of the square input."""
DIMENSION = 96
"""Size of the embedding."""
WINDOW_SCALE = 1.1
"""Side of the window, relative to the longer side of the object's box."""
MEAN_RGB = (0.485, 0.456, 0.406)
"""Subtracted from RGB in [0, 1]: the usual ImageNet statistics."""
STD_RGB = (0.229, 0.224, 0.225)
"""Divides what is left."""

_WIDTHS = (16, 32, 64, 96)
_GROUPS = 8
_QUADRANTS = 4


class ReidNetwork(nn.Module):
    """Eight convolutions and one linear layer; 0.26 M parameters.

    Two readings of the last feature map are joined: its mean over the mask (what the object looks like) and its means
    over the four quadrants of the window (where on the body a mark sits).
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 4
        for stage, width in enumerate(_WIDTHS):
            kernel = 5 if stage == 0 else 3
            layers += [
                nn.Conv2d(channels, width, kernel, stride=2, padding=kernel // 2),
                nn.GroupNorm(_GROUPS, width),
                nn.GELU(),
                nn.Conv2d(width, width, 3, padding=1),
                nn.GroupNorm(_GROUPS, width),
                nn.GELU(),
            ]
            channels = width
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(channels * (1 + _QUADRANTS), DIMENSION)

    def forward(self, crops: Tensor) -> Tensor:
        """Embed crops: float (M, 4, 64, 64) as the module's header says, to float (M, 96) of unit length."""
        features = self.body(crops)
        mask = F.adaptive_avg_pool2d(crops[:, 3:], features.shape[-2:])
        over_mask = (features * mask).sum((2, 3)) / (mask.sum((2, 3)) + 1e-3)
        over_quadrants = F.adaptive_avg_pool2d(features, 2).flatten(1)
        return F.normalize(self.head(torch.cat([over_mask, over_quadrants], 1)), dim=-1)
