"""Whom the engine is measured against, behind one interface.

- ``official``: the `sam2` package's video predictor, object by object (the backend `sam2-reference`).
- ``transformers``: `Sam2VideoModel` of transformers, object by object too; only its memory encoder is batched.
- ``plain-batch``: the `sam2` package's modules on all objects of equal age in one batch. Nobody ships it, since it can
  neither start nor restart an object later; it shows what batching alone brings.
- ``engine``: ours.

All have the same weights (`propagation_transformers`). They see the same frames, resized the same way where it is
quickest. Knows nothing of timing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from fiftyone_plugin.benchmarks.propagation_transformers import as_transformers
from fiftyone_plugin.config import PropagationOptions
from fiftyone_plugin.interfaces import Propagator
from fiftyone_plugin.propagators.sam2 import Sam2Propagator
from fiftyone_plugin.propagators.sam2_image import PixelScaler
from fiftyone_plugin.propagators.sam2_model import (
    BASE_CLASS,
    PREDICTOR_CLASS,
    best_dtype,
    inference,
    load_model,
    random_model,
)
from fiftyone_plugin.propagators.sam2_reference import Sam2Reference
from fiftyone_plugin.types import Frame, FrameMasks, Seed
from fiftyone_plugin.weights import resolve_device

__all__ = ["CONTESTANTS", "PlainBatch", "TransformersVideo", "make_contestant"]

CONTESTANTS = ("official", "transformers", "plain-batch", "engine")


def make_contestant(
    name: str, variant: str, *, device: str, is_random: bool, options: PropagationOptions | None = None
) -> Propagator:
    """Make one of `CONTESTANTS`.

    Args:
        name: Which.
        variant: ``bundled``, ``tiny``, ``small``, ``base-plus``, ``large`` or a directory.
        device: Where.
        is_random: Random weights, the same for all; else those of the variant.
        options: Of the engine.
    """
    device = resolve_device(device)
    model_class = PREDICTOR_CLASS if name == "official" else BASE_CLASS
    scale = (options or PropagationOptions()).image_scale
    model = (
        random_model(variant, device=device, image_scale=scale, model_class=model_class)
        if is_random
        else load_model(variant, device=device, used_by=name, image_scale=scale, model_class=model_class)
    )
    if name == "official":
        return Sam2Reference(model, name=name, device=device)
    if name == "plain-batch":
        return PlainBatch(model, device=device)
    if name == "transformers":
        return TransformersVideo(model, device=device)
    return Sam2Propagator(model, name=name, device=device, options=options)


class _Session:
    """What the sessions below share: a frame, and no way to change the objects once they are seeded."""

    def __init__(self, pixels: PixelScaler, *, height_px: int, width_px: int) -> None:
        self._pixels = pixels
        self._size = (height_px, width_px)
        self._track_ids: list[int] = []
        self._frame: Frame | None = None

    @property
    def track_ids(self) -> tuple[int, ...]:
        """Live tracks."""
        return tuple(self._track_ids)

    def forget(self, track_ids: Sequence[int]) -> None:
        """Not offered."""
        raise NotImplementedError

    def drop(self, track_ids: Sequence[int]) -> None:
        """Not offered."""
        raise NotImplementedError

    def _answer(self, frame: Frame, logits: torch.Tensor, scores: torch.Tensor) -> FrameMasks:
        """Logits (K, 1, h, w) and object scores (K,) or (K, 1)."""
        masks = F.interpolate(logits.float(), size=self._size, mode="bilinear", align_corners=False)[:, 0] > 0
        ids = np.array(self._track_ids, np.int64)
        objects = scores.float().reshape(-1).cpu().numpy()
        return FrameMasks(frame.index, ids, masks.cpu().numpy(), np.ones(len(ids), np.float32), objects)

    def _no_masks(self, frame: Frame) -> FrameMasks:
        none = np.zeros(0, np.float32)
        return FrameMasks(frame.index, np.zeros(0, np.int64), np.zeros((0, *self._size), np.bool_), none, none)


class PlainBatch:
    """All objects of equal age in one batch through the package's own `SAM2Base.track_step`.

    Args:
        model: A `SAM2Base` in evaluation mode.
        device: Where it lies.
    """

    name = "plain-batch"

    def __init__(self, model: Any, *, device: str) -> None:
        self.model = model
        self.device = device
        self.pixels = PixelScaler(model.image_size, device=device)

    def open(self, *, height_px: int, width_px: int) -> _PlainBatchSession:
        """Begin a walk."""
        return _PlainBatchSession(self, height_px=height_px, width_px=width_px)


class _PlainBatchSession(_Session):
    def __init__(self, batch: PlainBatch, *, height_px: int, width_px: int) -> None:
        super().__init__(batch.pixels, height_px=height_px, width_px=width_px)
        self._model = batch.model
        self._device = batch.device
        self._outputs: dict[str, dict[int, Any]] = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}

    def advance(self, frame: Frame) -> FrameMasks:
        """Carry all objects to the next frame."""
        self._frame = frame
        if not self._track_ids:
            return self._no_masks(frame)
        output = self._step(frame, None)
        kept = self._outputs["non_cond_frame_outputs"]
        kept[frame.index] = output
        kept.pop(frame.index - self._model.max_obj_ptrs_in_encoder, None)
        return self._answer(frame, output["pred_masks"], output["object_score_logits"])

    def seed(self, seeds: Sequence[Seed]) -> FrameMasks:
        """Start all objects by their boxes."""
        assert self._frame is not None
        height, width = self._size
        side = self._model.image_size
        boxes = np.stack([s.box_xyxy.reshape(2, 2) for s in seeds if s.box_xyxy is not None])
        points = torch.from_numpy(boxes / np.array([width, height]) * side).float().to(self._device)
        labels = torch.tensor([[2, 3]], dtype=torch.int32, device=self._device).repeat(len(seeds), 1)
        self._track_ids = [s.track_id for s in seeds]
        output = self._step(self._frame, {"point_coords": points, "point_labels": labels})
        self._outputs["cond_frame_outputs"][self._frame.index] = output
        return self._answer(self._frame, output["pred_masks"], output["object_score_logits"])

    def _step(self, frame: Frame, points: dict[str, torch.Tensor] | None) -> dict[str, Any]:
        model, count = self._model, len(self._track_ids)
        with inference(self._device):
            image = model.forward_image(self._pixels.scale([frame.image_rgb]))
            image["backbone_fpn"] = [x.expand(count, -1, -1, -1) for x in image["backbone_fpn"]]
            image["vision_pos_enc"] = [x.expand(count, -1, -1, -1) for x in image["vision_pos_enc"]]
            _, features, positions, sizes = model._prepare_backbone_features(image)
            output: dict[str, Any] = model.track_step(
                frame_idx=frame.index,
                is_init_cond_frame=points is not None,
                current_vision_feats=features,
                current_vision_pos_embeds=positions,
                feat_sizes=sizes,
                point_inputs=points,
                mask_inputs=None,
                output_dict=self._outputs,
                num_frames=10**9,
            )
            output["maskmem_features"] = output["maskmem_features"].to(torch.bfloat16)
        return output


class TransformersVideo:
    """`Sam2VideoModel` of transformers with the weights of a `SAM2Base`, fed frame by frame.

    Args:
        model: The `SAM2Base`, in float32.
        device: Where.
    """

    name = "transformers"

    def __init__(self, model: Any, *, device: str) -> None:
        self.dtype = best_dtype(device)
        self.device = device
        self.image_size: int = model.image_size
        self.model = as_transformers(model).to(device, self.dtype)
        self.pixels = PixelScaler(model.image_size, device=device)

    def open(self, *, height_px: int, width_px: int) -> _TransformersSession:
        """Begin a walk."""
        return _TransformersSession(self, height_px=height_px, width_px=width_px)


class _TransformersSession(_Session):
    def __init__(self, video: TransformersVideo, *, height_px: int, width_px: int) -> None:
        from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

        super().__init__(video.pixels, height_px=height_px, width_px=width_px)
        self._video = video
        self._state = Sam2VideoInferenceSession(
            video=None,
            video_height=height_px,
            video_width=width_px,
            inference_device=video.device,
            inference_state_device=video.device,
            video_storage_device=video.device,
            dtype=video.dtype,
        )

    def advance(self, frame: Frame) -> FrameMasks:
        """Carry all objects to the next frame."""
        self._frame = frame
        if not self._track_ids:
            return self._no_masks(frame)
        with torch.inference_mode():
            found = self._video.model(inference_session=self._state, frame=self._scaled(frame))
        return self._answer(frame, found.pred_masks, found.object_score_logits)

    def seed(self, seeds: Sequence[Seed]) -> FrameMasks:
        """Start all objects by their boxes."""
        assert self._frame is not None
        height, width = self._size
        scale = np.array([width, height]) / self._video.image_size
        at = self._state.add_new_frame(self._scaled(self._frame))
        for seed in seeds:
            assert seed.box_xyxy is not None
            points = torch.from_numpy(seed.box_xyxy.reshape(1, 1, 2, 2) / scale).float()
            labels = torch.tensor([[[2, 3]]], dtype=torch.int32)
            row = self._state.obj_id_to_idx(seed.track_id)
            self._state.add_point_inputs(row, at, {"point_coords": points, "point_labels": labels})
        self._track_ids = [s.track_id for s in seeds]
        self._state.obj_with_new_inputs = list(self._track_ids)
        with torch.inference_mode():
            found = self._video.model(inference_session=self._state, frame_idx=at)
        return self._answer(self._frame, found.pred_masks, found.object_score_logits)

    def _scaled(self, frame: Frame) -> torch.Tensor:
        pixels = self._pixels.scale([frame.image_rgb])[0].to(self._video.dtype)
        # What was seen is never looked at again, and would fill the memory of the GPU.
        for index in list(self._state.processed_frames or {})[:-1]:
            self._state.processed_frames[index] = pixels[:, :1, :1]
        return pixels
