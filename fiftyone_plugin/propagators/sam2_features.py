"""Appearance out of SAM 2's image encoder: its features, averaged under the masks of objects.

An embedder that needs no network of its own. Where a propagator of the same weights is at work, its session has encoded
the frame already, and nothing is encoded twice; elsewhere (an audit, a frame that a stride leaves out) the frame is
encoded once for all objects on it. It lives beside the propagator because the two share an encoder.

A feature has seen what lies around its place, also beyond the object: other than embedders of crops, this one is not
blind to the background. Knows nothing of identities: SAM 2 was never taught to tell individuals apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fiftyone_plugin.errors import BackendError
from fiftyone_plugin.interfaces import FeaturePool, Propagator
from fiftyone_plugin.propagators.sam2_image import FrameFeatures, ImageEncoder
from fiftyone_plugin.propagators.sam2_model import HUB_MODELS, best_dtype, load_model
from fiftyone_plugin.propagators.stride import StridedPropagator
from fiftyone_plugin.types import Crop, FloatArray, Frame
from fiftyone_plugin.weights import resolve_device

__all__ = ["FramePooler", "Sam2Features", "cell_shares", "make"]

_NAME = "sam2-features"
_MODELS_OF = ("sam2", "sam2-reference")
"""Propagators whose variants are SAM 2.1 models."""
_MEAN_RGB = (124, 116, 104)
"""ImageNet's: nothing, to the network."""


def cell_shares(crop: Crop, *, rows: int, columns: int) -> FloatArray:
    """How much of an object lies in each cell of a grid over the whole frame.

    Args:
        crop: With its frame.
        rows: Of the grid.
        columns: Of the grid.

    Returns:
        float32 (rows, columns), sums to 1. Of an empty mask, the whole crop counts.
    """
    assert crop.frame is not None
    mask = crop.mask if crop.mask.any() else np.ones_like(crop.mask)
    down = _overlap(rows, crop.frame.height_px, start_px=crop.top_px, count_px=mask.shape[0])
    across = _overlap(columns, crop.frame.width_px, start_px=crop.left_px, count_px=mask.shape[1])
    shares = down @ mask.astype(np.float32) @ across.T
    return np.asarray(shares / shares.sum(), np.float32)


def _overlap(cells: int, length_px: int, *, start_px: int, count_px: int) -> FloatArray:
    """Part of each of some pixels that lies in each of some equal cells along a side: float32 (cells, count)."""
    edges = np.arange(cells + 1) * (length_px / cells)
    pixels = start_px + np.arange(count_px)
    shared = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.asarray(shared.clip(0, None), np.float32)


class FramePooler:
    """Averages features of one frame at a time; a `interfaces.FeaturePool` by itself.

    Args:
        encoder: Encodes a frame where nobody has.
        channels: D of `FrameFeatures`.
    """

    def __init__(self, encoder: ImageEncoder, *, channels: int) -> None:
        self._encoder = encoder
        self._channels = channels
        self._latest: tuple[Frame, FrameFeatures] | None = None

    @property
    def feature_size(self) -> int:
        """Channels of all levels."""
        return self._channels + self._channels // 4 + self._channels // 8

    @torch.inference_mode()
    def pool(self, frame: Frame, crops: Sequence[Crop], *, known: FrameFeatures | None = None) -> FloatArray:
        """Average features under masks: float32 (M, feature_size), unit length.

        Args:
            frame: Is encoded, unless it is the one that was encoded last.
            crops: Of this frame.
            known: Its features, where somebody has encoded it.
        """
        if not crops:
            return np.zeros((0, self.feature_size), np.float32)
        features = self._encoded(frame) if known is None else known
        levels = (features.stride_4, features.stride_8, features.embedding)
        rows, columns = features.stride_4.shape[2:]
        shares = torch.from_numpy(np.stack([cell_shares(crop, rows=rows, columns=columns) for crop in crops]))
        shares = shares.to(features.stride_4.device)
        # Each level counts the same, however many channels it has.
        means = [F.normalize(_means(level[0].float(), shares), dim=1) for level in levels]
        return np.asarray(F.normalize(torch.cat(means, dim=1), dim=1).cpu().numpy(), np.float32)

    def _encoded(self, frame: Frame) -> FrameFeatures:
        latest = self._latest
        if latest is None or latest[0] is not frame:
            latest = frame, self._encoder.encode([frame.image_rgb])[0]
            self._latest = latest
        return latest[1]


def _means(level: Tensor, shares: Tensor) -> Tensor:
    """Weighted means of a level (C, h, w) with shares (M, a * h, a * w) of cells that are finer by a factor: (M, C)."""
    step = shares.shape[1] // level.shape[1]
    coarse = F.avg_pool2d(shares[:, None], step, divisor_override=1)[:, 0]
    return torch.einsum("mhw,chw->mc", coarse, level)


class Sam2Features:
    """The embedder backend; made by `make`.

    Args:
        pool: A propagator, or a `FramePooler`.
        variant: Whose features they are, for the name.
    """

    def __init__(self, pool: FeaturePool, *, variant: str) -> None:
        self.name = f"{_NAME}:{variant}"
        self._pool = pool

    @property
    def dimension(self) -> int:
        """Channels of the encoder's levels."""
        return self._pool.feature_size

    def embed(self, crops: Sequence[Crop]) -> FloatArray:
        """Embed crops: float32 (M, D), unit length.

        A crop without its frame is looked at as a frame of its own, without what is not the object.
        """
        placed = [crop if crop.frame is not None else _alone(crop) for crop in crops]
        by_frame: dict[int, list[int]] = {}
        for row, crop in enumerate(placed):
            by_frame.setdefault(id(crop.frame), []).append(row)
        embeddings = np.zeros((len(crops), self.dimension), np.float32)
        for rows in by_frame.values():
            frame = placed[rows[0]].frame
            assert frame is not None
            embeddings[rows] = self._pool.pool(frame, [placed[row] for row in rows])
        return embeddings


def _alone(crop: Crop) -> Crop:
    picture = np.where(crop.mask[..., None], crop.image_rgb, np.array(_MEAN_RGB, np.uint8))
    return Crop(crop.image_rgb, crop.mask, Frame(0, 0.0, picture))


def make(variant: str | None, device: str, propagator: Propagator | str | None = None) -> Sam2Features:
    """Make the backend, with the encoder of the run's propagator where that has these weights.

    Args:
        variant: One of `sam2_model.VARIANTS`, or a local directory; None is that of the propagator, or ``bundled``
            where there is none.
        device: Where an encoder of its own computes.
        propagator: That of the run, or its ``NAME:VARIANT``.

    Raises:
        BackendError: The variant is neither known nor a directory, or none is given and the propagator has none.
        ModelUnavailableError: The weights are neither on disk nor reachable.
    """
    carrier = propagator.propagator if isinstance(propagator, StridedPropagator) else propagator
    named = carrier if isinstance(carrier, str) else "sam2:bundled" if carrier is None else carrier.name
    name, _, of_carrier = named.partition(":")
    offered: object = carrier
    if isinstance(offered, FeaturePool) and variant in (None, of_carrier):
        return Sam2Features(offered, variant=of_carrier or name)
    if variant is None and name not in _MODELS_OF:
        raise BackendError(
            f"{_NAME}: the propagator {named!r} has no image features to share: "
            f"name a variant, such as {_NAME}:{next(iter(HUB_MODELS))}"
        )
    variant = variant or of_carrier or "bundled"
    device = resolve_device(device)
    model = load_model(variant, device=device, used_by=_NAME)
    encoder = ImageEncoder(model, device=device, dtype=best_dtype(device))
    return Sam2Features(FramePooler(encoder, channels=model.hidden_dim), variant=variant)
