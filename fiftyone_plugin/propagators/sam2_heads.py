"""The object side of SAM 2: masks from conditioned features, masks from seeds, and memories from masks.

Works on K objects of one frame in one batch. Knows nothing of tracks, slots or earlier frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from fiftyone_plugin.propagators.sam2_image import FrameFeatures

__all__ = ["ABSENT_LOGIT", "ObjectHeads", "Prediction"]

ABSENT_LOGIT = -1024.0
"""Mask logit of an object that is not visible (`NO_OBJ_SCORE` in sam2_base.py)."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the heads say of K objects in one frame."""

    mask_logits: Tensor
    """float32 (K, 4h, 4w), above 0 on the object."""
    mask_scores: Tensor
    """float32 (K,): predicted IoU."""
    object_logits: Tensor
    """float32 (K,): above 0 where the object is visible."""
    pointers: Tensor
    """(K, D)."""

    def first(self, count: int) -> Prediction:
        """The first rows."""
        return Prediction(
            self.mask_logits[:count], self.mask_scores[:count], self.object_logits[:count], self.pointers[:count]
        )

    @classmethod
    def join(cls, parts: list[Prediction]) -> Prediction:
        """Stack the rows of several predictions."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            torch.cat([p.mask_logits for p in parts]),
            torch.cat([p.mask_scores for p in parts]),
            torch.cat([p.object_logits for p in parts]),
            torch.cat([p.pointers for p in parts]),
        )


class ObjectHeads:
    """Prompt encoder, mask decoder and memory encoder of a model.

    Args:
        model: A `SAM2Base` whose switches were checked by `sam2_model.check_switches`.
        dtype: In which this computes. In bfloat16 the modules are turned into it, all but the prompt encoder, which
            needs float32 for where a point lies; in float16 autocast chooses.
    """

    def __init__(self, model: Any, *, dtype: torch.dtype = torch.float32) -> None:
        self._model = model
        self._dtype = dtype
        decoder, prompts = model.sam_mask_decoder, model.sam_prompt_encoder
        if dtype == torch.bfloat16:
            for module in (decoder, model.memory_encoder, model.obj_ptr_proj):
                module.to(dtype)
        self._dense_position = prompts.get_dense_pe().to(dtype)
        if dtype == torch.bfloat16:
            # What it gives goes to modules that are in bfloat16.
            prompts.register_forward_hook(lambda _module, _inputs, outputs: tuple(x.to(dtype) for x in outputs))
            prompts.get_dense_pe = lambda: self._dense_position
        self._no_memory = model.no_mem_embed.reshape(1, -1, 1, 1).to(dtype)
        # Without a prompt the package feeds one empty point and one for padding (prompt_encoder.py, lines 78-93).
        no_point = prompts.not_a_point_embed.weight
        self._tokens = torch.cat(
            [
                w.to(dtype)
                for w in (
                    decoder.obj_score_token.weight,
                    decoder.iou_token.weight,
                    decoder.mask_tokens.weight,
                    no_point,
                    no_point,
                )
            ]
        )[None]
        self._no_mask = prompts.no_mask_embed.weight.reshape(1, -1, 1, 1).to(dtype)
        self._no_pointer = model.no_obj_ptr.to(dtype)
        no_map = model.no_obj_embed_spatial
        self._no_map = None if no_map is None else no_map.to(dtype)

    def track(self, conditioned: Tensor, features: FrameFeatures) -> Prediction:
        """Decode masks without a prompt.

        The same as the package's `_forward_sam_heads` with several candidate masks, but only the candidate with the
        highest predicted IoU is ever drawn.

        Args:
            conditioned: (K, D, h, w) from the memory attention.
            features: The frame's.
        """
        decoder = self._model.sam_mask_decoder
        count = len(conditioned)
        hidden, image = decoder.transformer(
            conditioned + self._no_mask, self._dense_position, self._tokens.expand(count, -1, -1)
        )
        object_logits = decoder.pred_obj_score_head(hidden[:, 0]).float()
        ious = decoder.iou_prediction_head(hidden[:, 1])[:, 1:]
        best = ious.argmax(dim=1)
        rows = torch.arange(count, device=best.device)
        # Tokens: object score, IoU, the mask for clear prompts, then three candidates.
        candidates = hidden[:, 3:6]
        weights = torch.stack([decoder.output_hypernetworks_mlps[i + 1](candidates[:, i]) for i in range(3)], dim=1)
        dc1, norm, act1, dc2, act2 = decoder.output_upscaling
        image = image.transpose(1, 2).reshape(conditioned.shape)
        image = act1(norm(dc1(image) + features.stride_8))
        image = act2(dc2(image) + features.stride_4)
        logits = (weights[rows, best][:, None] @ image.flatten(2)).float().reshape(count, *image.shape[2:])
        is_visible = object_logits > 0
        logits = torch.where(is_visible[:, :, None], logits, ABSENT_LOGIT)
        pointers = self._model.obj_ptr_proj(candidates[rows, best])
        pointers = torch.where(is_visible, pointers, self._no_pointer)
        return Prediction(logits, ious[rows, best].float(), object_logits[:, 0], pointers)

    def seed_points(self, features: FrameFeatures, points_xy: Tensor, labels: Tensor) -> Prediction:
        """Segment K objects from points, without memory.

        Args:
            features: The frame's.
            points_xy: float32 (K, P, 2), pixels of the square image that the model sees.
            labels: int32 (K, P): 1 on the object, 0 beside it, 2 and 3 for the corners of a box.
        """
        count = len(points_xy)
        prompt = {"point_coords": points_xy, "point_labels": labels}
        return _from_package(
            self._model._forward_sam_heads(
                backbone_features=(features.embedding + self._no_memory).expand(count, -1, -1, -1),
                point_inputs=prompt,
                high_res_features=_high_resolution(features, count),
                multimask_output=self._model._use_multimask(True, prompt),
            )
        )

    def seed_masks(self, features: FrameFeatures, masks: Tensor) -> Prediction:
        """Take K masks as they are: float32 (K, S, S) of 0 and 1 in the square image that the model sees."""
        count = len(masks)
        return _from_package(
            self._model._use_mask_as_output(
                features.embedding.expand(count, -1, -1, -1), _high_resolution(features, count), masks[:, None]
            )
        )

    def remember(self, features: FrameFeatures, prediction: Prediction, *, is_seed: bool) -> Tensor:
        """Encode what was seen of K objects into spatial memories: (K, T, C).

        Args:
            features: The frame's.
            prediction: What the heads said.
            is_seed: Masks of seeds are made binary first, as the package does with masks that a person prompted.
        """
        model, encoder = self._model, self._model.memory_encoder
        size = (model.image_size, model.image_size)
        logits = F.interpolate(prediction.mask_logits[:, None], size=size, mode="bilinear", align_corners=False)
        weights = (logits > 0).float() if is_seed else logits.sigmoid()
        weights = weights * model.sigmoid_scale_for_mem_enc + model.sigmoid_bias_for_mem_enc
        x = encoder.pix_feat_proj(features.embedding) + encoder.mask_downsampler(weights.to(self._dtype))
        x = encoder.out_proj(encoder.fuser(x)).flatten(2).transpose(1, 2)
        if self._no_map is not None:
            x = torch.where((prediction.object_logits > 0)[:, None, None], x, x + self._no_map)
        return cast(Tensor, x)


def _high_resolution(features: FrameFeatures, count: int) -> list[Tensor]:
    return [features.stride_4.expand(count, -1, -1, -1), features.stride_8.expand(count, -1, -1, -1)]


def _from_package(outputs: Any) -> Prediction:
    """The seven outputs of the package's heads (sam2_base.py, lines 395-403) to ours."""
    _, _, ious, mask_logits, _, pointers, object_logits = outputs
    return Prediction(mask_logits[:, 0], ious.amax(dim=1).float(), object_logits[:, 0].float(), pointers)
