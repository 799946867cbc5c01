"""SAM 2.1 as a streaming engine: frames come one by one, all live tracks move in one batch, memory is bounded.

The networks are those of the `sam2` package; its video predictor, which loads a whole video, keeps every output and
loops over the objects, is not used (it is the backend `sam2-reference`). From the same seeds both give the same masks,
with these differences, all on purpose:

- A restart of a live track is a conditioning frame without memory, as its first seed was. The official predictor
  treats a prompt on a frame that it has already tracked as a correction: it mixes it with the memory and the earlier
  mask, and files the frame as non-conditioning.
- Of the conditioning frames of a track the first and the most recent ones are kept; the official predictor keeps all.
- Pointers are always scaled for a window of 16 frames; the official predictor shrinks the window for shorter clips.

Knows nothing of why tracks are seeded, restarted or dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fiftyone_plugin.propagators.memory_bank import BankShape, MemoryBank
from fiftyone_plugin.propagators.sam2_attention import MemoryAttention
from fiftyone_plugin.propagators.sam2_heads import ObjectHeads, Prediction
from fiftyone_plugin.propagators.sam2_image import FrameFeatures, ImageEncoder
from fiftyone_plugin.propagators.sam2_model import check_switches, inference, load_model
from fiftyone_plugin.propagators.walk import Walk
from fiftyone_plugin.types import Frame, FrameMasks, Seed
from fiftyone_plugin.weights import resolve_device

__all__ = ["Sam2Propagator", "Sam2Session", "make"]

_NAME = "sam2"


def make(variant: str | None, device: str) -> Sam2Propagator:
    """Make the engine for a variant of `sam2_model.VARIANTS` or a local directory."""
    chosen = variant or "bundled"
    device = resolve_device(device)
    return Sam2Propagator(load_model(chosen, device=device, used_by=_NAME), name=f"{_NAME}:{chosen}", device=device)


class Sam2Propagator:
    """Carries masks with SAM 2.1.

    Args:
        model: A `SAM2Base` in evaluation mode.
        name: Name in reports.
        device: Where the model lies.
        max_seed_memories: Conditioning frames that a track looks back at, 2 or more: the first and the latest ones.
        objects_per_batch: Objects that go through the networks at once; more are run in groups.
    """

    def __init__(
        self, model: Any, *, name: str, device: str, max_seed_memories: int = 4, objects_per_batch: int = 16
    ) -> None:
        check_switches(model, used_by=name)
        self._name = name
        self.device = device
        self.objects_per_batch = objects_per_batch
        self.image_size: int = model.image_size
        self.encoder = ImageEncoder(model, device=device)
        self.attention = MemoryAttention(model, device=device)
        self.heads = ObjectHeads(model)
        self.bank_shape = BankShape(
            tokens=(model.image_size // model.backbone_stride) ** 2,
            map_channels=model.mem_dim,
            pointer_channels=model.hidden_dim,
            max_seeds=max_seed_memories,
            max_recent_maps=model.num_maskmem - 1,
            max_recent_pointers=model.max_obj_ptrs_in_encoder - 1,
        )

    @property
    def name(self) -> str:
        """``sam2:VARIANT``."""
        return self._name

    def open(self, *, height_px: int, width_px: int) -> Sam2Session:
        """Begin a walk through a video of this size."""
        return Sam2Session(self, height_px=height_px, width_px=width_px)


class Sam2Session:
    """One walk; see `interfaces.PropagationSession` for the order of calls.

    On a CPU, tracks that look back at equally many frames share a batch, which needs no padding; elsewhere all tracks
    do, padded to a fixed length.
    """

    def __init__(self, propagator: Sam2Propagator, *, height_px: int, width_px: int) -> None:
        self._propagator = propagator
        self._walk = Walk(height_px=height_px, width_px=width_px)
        self._is_padded = propagator.device.startswith("cuda")
        self._features: FrameFeatures | None = None
        with torch.inference_mode():
            self.bank = MemoryBank(propagator.bank_shape, dtype=torch.bfloat16, device=propagator.device)

    @property
    def track_ids(self) -> tuple[int, ...]:
        """Live tracks, in the order they were first seeded."""
        return self.bank.track_ids

    def advance(self, frame: Frame) -> FrameMasks:
        """Go to the next frame and carry all live tracks there.

        The image is encoded only if a track is live, or else when a seed is given on it.

        Raises:
            ValueError: The frame has another size than the session, or goes against the direction of the walk.
        """
        self._walk.advance(frame)
        self._features = None
        track_ids = self.bank.track_ids
        if not track_ids:
            return self._walk.no_masks()
        with inference(self._propagator.device):
            features = self._current_features()
            size = self._propagator.objects_per_batch
            batches = [track_ids[i : i + size] for i in range(0, len(track_ids), size)]
            return self._to_masks(track_ids, Prediction.join([self._carry(features, batch) for batch in batches]))

    def seed(self, seeds: Sequence[Seed]) -> FrameMasks:
        """Start tracks, or restart live ones, on the current frame, and return the masks of exactly these.

        Raises:
            ValueError: No frame yet, one track twice, or a mask of another size than the frame.
        """
        track_ids = self._walk.check_seeds(seeds)
        if not seeds:
            return self._walk.no_masks()
        with inference(self._propagator.device):
            features = self._current_features()
            parts: list[Prediction] = []
            for seed in seeds:
                parts.append(self._segment(features, seed))
                if seed.track_id not in self.bank.track_ids:
                    self.bank.add(seed.track_id)
            prediction = Prediction.join(parts)
            maps = self._propagator.heads.remember(features, prediction, is_seed=True)
            self.bank.write_seeds(track_ids, self._walk.step, maps, prediction.pointers)
            return self._to_masks(track_ids, prediction)

    def forget(self, track_ids: Sequence[int]) -> None:
        """Keep the current frame out of the memory of these tracks.

        The only seed of a track is kept even so: without one it could not be carried on.

        Raises:
            ValueError: A track is not live.
        """
        self._walk.check_live(track_ids, self.bank.track_ids)
        self.bank.forget(track_ids, self._walk.step)

    def drop(self, track_ids: Sequence[int]) -> None:
        """End these tracks and free their slots.

        Raises:
            ValueError: A track is not live.
        """
        self._walk.check_live(track_ids, self.bank.track_ids)
        for track_id in track_ids:
            self.bank.drop(track_id)

    def _current_features(self) -> FrameFeatures:
        if self._features is None:
            (self._features,) = self._propagator.encoder.encode([self._walk.frame.image_rgb])
        return self._features

    def _carry(self, features: FrameFeatures, track_ids: Sequence[int]) -> Prediction:
        """Predict and remember the current frame of one batch of tracks."""
        heads = self._propagator.heads
        prediction = heads.track(self._condition(features, track_ids), features)
        maps = heads.remember(features, prediction, is_seed=False)
        self.bank.write_recent(track_ids, self._walk.step, maps, prediction.pointers)
        return prediction

    def _condition(self, features: FrameFeatures, track_ids: Sequence[int]) -> Tensor:
        attention = self._propagator.attention
        if self._is_padded:
            return attention.condition(features, self.bank.read(track_ids, self._walk.step, is_padded=True))
        groups = self.bank.layouts(track_ids, self._walk.step)
        parts = [attention.condition(features, self.bank.read(g, self._walk.step, is_padded=False)) for g in groups]
        if len(parts) == 1:
            return parts[0]
        row = {track_id: i for i, track_id in enumerate(t for group in groups for t in group)}
        return torch.cat(parts)[[row[track_id] for track_id in track_ids]]

    def _segment(self, features: FrameFeatures, seed: Seed) -> Prediction:
        """Predict one seeded object from this frame alone."""
        heads, side = self._propagator.heads, self._propagator.image_size
        device = self._propagator.device
        if seed.mask is not None:
            mask = torch.from_numpy(seed.mask)[None, None].float().to(device)
            if seed.mask.shape != (side, side):
                mask = F.interpolate(mask, size=(side, side), mode="bilinear", align_corners=False, antialias=True)
            return heads.seed_masks(features, (mask >= 0.5).float()[:, 0])
        if seed.box_xyxy is not None:
            points, labels = seed.box_xyxy.reshape(2, 2), np.array([2, 3])
        else:
            assert seed.points_xy is not None
            assert seed.point_labels is not None
            points, labels = seed.points_xy, seed.point_labels
        scaled = torch.from_numpy(np.asarray(points, np.float32)) / torch.tensor(
            [self._walk.width_px, self._walk.height_px]
        )
        return heads.seed_points(
            features, (scaled * side)[None].to(device), torch.from_numpy(labels.astype(np.int32))[None].to(device)
        )

    def _to_masks(self, track_ids: Sequence[int], prediction: Prediction) -> FrameMasks:
        return FrameMasks(
            self._walk.frame.index,
            np.array(track_ids, np.int64),
            self._upsample(prediction.mask_logits).cpu().numpy(),
            prediction.mask_scores.clamp(0, 1).cpu().numpy(),
            prediction.object_logits.cpu().numpy(),
        )

    def _upsample(self, logits: Tensor) -> Tensor:
        """Mask logits to bool masks of the frame's size: (K, 4h, 4w) to (K, H, W)."""
        size = (self._walk.height_px, self._walk.width_px)
        return F.interpolate(logits[:, None], size=size, mode="bilinear", align_corners=False)[:, 0] > 0
