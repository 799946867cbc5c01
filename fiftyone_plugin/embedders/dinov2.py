"""DINOv2 features of the masked crop, through transformers.

The crop is scaled to a square without changing its proportions; what is not the object is replaced by the mean colour
of the training images, which is zero for the network. Two readings are joined: the class token (what it is, as a whole)
and the mean of the patch tokens over the mask (what it is made of). Knows nothing of identities: it was trained on
images, without any labels (Oquab et al., arXiv 2304.07193).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Dinov2Model

from fiftyone_plugin.types import Crop, FloatArray
from fiftyone_plugin.weights import HubModel, first_existing, load_quietly, locate, resolve_device

__all__ = ["HUB", "Dinov2Embedder", "make", "prepare_crop"]

_NAME = "dinov2"
_FILES = ("config.json", "model.safetensors")
HUB = {
    "small": HubModel("facebook/dinov2-small", "ed25f3a31f01632728cabb09d1542f84ab7b0056", _FILES),
    "base": HubModel("facebook/dinov2-base", "f9e44c814b77203eaa57a6bdbbd535f21ede1415", _FILES),
}

_MEAN_RGB = (0.485, 0.456, 0.406)
_STD_RGB = (0.229, 0.224, 0.225)
_SIDE_PX = 224
"""Side of the square input, rounded to whole patches."""
_BATCH = 32


def prepare_crop(crop: Crop, *, side_px: int) -> Tensor:
    """Turn a crop into float32 (4, side, side): normalised RGB, zero off the object, and the mask in [0, 1]."""
    image = torch.from_numpy(np.ascontiguousarray(crop.image_rgb)).permute(2, 0, 1).float() / 255
    mask = torch.from_numpy(np.ascontiguousarray(crop.mask)).float()[None]
    mean, std = (torch.tensor(values)[:, None, None] for values in (_MEAN_RGB, _STD_RGB))
    planes = torch.cat([(image - mean) / std * mask, mask])

    height, width = crop.mask.shape
    scale = side_px / max(height, width)
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    scaled = F.interpolate(planes[None], size, mode="bilinear", align_corners=False, antialias=True)[0]
    top, left = (side_px - size[0]) // 2, (side_px - size[1]) // 2
    return F.pad(scaled, (left, side_px - size[1] - left, top, side_px - size[0] - top))


class Dinov2Embedder:
    """The embedder backend; made by `make`."""

    def __init__(self, directory: Path, *, variant: str, device: str) -> None:
        self.name = f"{_NAME}:{variant}"
        self._device = device
        with load_quietly(directory, used_by=_NAME):
            model, report = Dinov2Model.from_pretrained(
                directory, dtype=torch.float32, use_safetensors=True, local_files_only=True, output_loading_info=True
            )
            # transformers fills gaps with random numbers and only warns.
            if report["missing_keys"]:
                raise ValueError(f"{len(report['missing_keys'])} tensors are missing")
        self._model = model.to(device).eval()
        self._patch_px = int(model.config.patch_size)

    @property
    def dimension(self) -> int:
        """Twice the width of the network."""
        return 2 * int(self._model.config.hidden_size)

    @torch.inference_mode()
    def embed(self, crops: Sequence[Crop]) -> FloatArray:
        """Embed crops: float32 (M, D), unit length."""
        embeddings = np.zeros((len(crops), self.dimension), np.float32)
        side = max(1, round(_SIDE_PX / self._patch_px)) * self._patch_px
        for start in range(0, len(crops), _BATCH):
            batch = torch.stack([prepare_crop(crop, side_px=side) for crop in crops[start : start + _BATCH]])
            embeddings[start : start + _BATCH] = self._embed_batch(batch.to(self._device)).cpu().numpy()
        return embeddings

    def _embed_batch(self, batch: Tensor) -> Tensor:
        tokens = self._model(pixel_values=batch[:, :3]).last_hidden_state
        # An object smaller than a patch, or an empty mask, still gets some weight everywhere.
        cover = F.avg_pool2d(batch[:, 3:], self._patch_px).flatten(1) + 1e-6
        patches = torch.einsum("mp,mpd->md", cover / cover.sum(dim=1, keepdim=True), tokens[:, 1:])
        return F.normalize(torch.cat([F.normalize(tokens[:, 0], dim=-1), F.normalize(patches, dim=-1)], dim=-1), dim=-1)


def make(variant: str | None, device: str) -> Dinov2Embedder:
    """Make the backend: ``small``, ``base``, or a directory in transformers' format.

    Raises:
        BackendError: The variant is neither known nor a directory.
        ModelUnavailableError: The weights are neither on disk nor reachable.
    """
    variant = variant or "small"
    directory = locate(variant, bundled=None, hub=HUB, used_by=_NAME)
    for name in _FILES:
        first_existing(directory, [name], used_by=_NAME)
    return Dinov2Embedder(directory, variant=variant, device=resolve_device(device))
