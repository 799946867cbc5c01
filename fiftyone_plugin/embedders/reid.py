"""The tiny re-identification network as an embedder.

Prepares crops as the network was trained (see `reid_network`) and runs them in batches. Knows only the synthetic world
unless a directory with other weights of the same network is given.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from fiftyone_plugin.embedders.adapted import AdaptedEmbedder
from fiftyone_plugin.embedders.reid_network import DIMENSION, MEAN_RGB, SIDE_PX, STD_RGB, WINDOW_SCALE, ReidNetwork
from fiftyone_plugin.geometry import mask_boxes
from fiftyone_plugin.types import Crop, FloatArray
from fiftyone_plugin.weights import first_existing, load_quietly, locate, resolve_device

__all__ = ["ReidEmbedder", "make", "make_adapted", "prepare_crop"]

_BATCH = 64
_MIN_WINDOW_PX = 4.0


def prepare_crop(crop: Crop) -> Tensor:
    """Turn a crop into the network's input, float32 (4, 64, 64).

    The window is laid around the mask's own tight box, so it does not matter how generously the crop was cut.
    """
    image = torch.from_numpy(np.ascontiguousarray(crop.image_rgb)).permute(2, 0, 1).float() / 255
    mask = torch.from_numpy(np.ascontiguousarray(crop.mask)).float()[None]
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN_RGB, STD_RGB))
    planes = torch.cat([(image - mean) / std * mask, mask])

    x0, y0, x1, y1 = mask_boxes(crop.mask[None])[0].tolist()
    side = WINDOW_SCALE * max(x1 - x0, y1 - y0, _MIN_WINDOW_PX)
    height, width = crop.mask.shape
    # Pixel centres of the input, in pixels of the crop; grid_sample wants them in [-1, 1] from edge to edge.
    steps = torch.linspace(-0.5, 0.5, SIDE_PX) * side
    x = ((x0 + x1) / 2 + steps) / width * 2 - 1
    y = ((y0 + y1) / 2 + steps) / height * 2 - 1
    grid = torch.stack([x[None].expand(SIDE_PX, -1), y[:, None].expand(-1, SIDE_PX)], dim=-1)
    return F.grid_sample(planes[None], grid[None], align_corners=False)[0]


class ReidEmbedder:
    """The embedder backend; made by `make`."""

    def __init__(self, network: ReidNetwork, *, variant: str, device: str) -> None:
        self.name = f"reid:{variant}"
        self._network = network.to(device).eval()
        self._device = device

    @property
    def dimension(self) -> int:
        """Size of the embedding."""
        return DIMENSION

    @torch.inference_mode()
    def embed(self, crops: Sequence[Crop]) -> FloatArray:
        """Embed crops: float32 (M, 96), unit length."""
        embeddings = np.zeros((len(crops), DIMENSION), np.float32)
        for start in range(0, len(crops), _BATCH):
            batch = torch.stack([prepare_crop(crop) for crop in crops[start : start + _BATCH]]).to(self._device)
            # An animal that turns round is the same animal: both ways round, and the mean of that.
            both = self._network(batch) + self._network(batch.flip(-1))
            embeddings[start : start + _BATCH] = F.normalize(both, dim=-1).cpu().numpy()
        return embeddings


def make_adapted(variant: str | None, device: str) -> AdaptedEmbedder:
    """Make ``reid-adapted``: the same network on crops without the light of their surroundings; see `make`."""
    inner = make(variant, device)
    return AdaptedEmbedder(inner, name=inner.name.replace("reid", "reid-adapted", 1))


def make(variant: str | None, device: str) -> ReidEmbedder:
    """Make the backend: ``bundled``, or a directory with ``model.safetensors`` of the same network.

    Raises:
        BackendError: The variant is neither known nor a directory.
        ModelUnavailableError: The directory holds no weights of this network.
    """
    variant = variant or "bundled"
    directory = locate(variant, bundled="reid", hub={}, used_by="reid")
    file = first_existing(directory, ["model.safetensors"], used_by="reid")
    network = ReidNetwork()
    with load_quietly(directory, used_by="reid"):
        network.load_state_dict({name: tensor.float() for name, tensor in load_file(file).items()})
    return ReidEmbedder(network, variant=variant, device=resolve_device(device))
