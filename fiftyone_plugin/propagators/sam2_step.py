"""One frame for a batch of objects, from the features of the frame and their memories to masks and new memories.

Everything between what the memory bank gathers and what it stores: on a GPU this is recorded as one CUDA graph for each
number of rows. Knows nothing of tracks, slots or videos.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fiftyone_plugin.propagators.cuda_graphs import GraphCache
from fiftyone_plugin.propagators.memory_bank import SEED_AGE, MemoryView, upload
from fiftyone_plugin.propagators.sam2_attention import MemoryAttention, MemoryTokens
from fiftyone_plugin.propagators.sam2_heads import ObjectHeads, Prediction
from fiftyone_plugin.propagators.sam2_image import FrameFeatures
from fiftyone_plugin.propagators.sam2_model import computing_in
from fiftyone_plugin.types import BoolArray

__all__ = ["TrackStep"]


class TrackStep:
    """Carries K objects to the next frame.

    Args:
        model: A `SAM2Base` whose switches were checked by `sam2_model.check_switches`.
        heads: Of this model.
        attention: Of this model.
        device: Where it lies.
        dtype: In which this computes.
        graphs: Where it is recorded; None runs it as it is.
    """

    def __init__(
        self,
        model: Any,
        heads: ObjectHeads,
        attention: MemoryAttention,
        *,
        device: str,
        dtype: torch.dtype,
        graphs: GraphCache | None,
    ) -> None:
        self._heads = heads
        self._attention = attention
        self._device = device
        self._dtype = dtype
        self._max_map_age = model.num_maskmem - 1
        self._partial = self._compute_partial if graphs is None else graphs.wrap("objects", self._compute_partial)

    def run(self, features: FrameFeatures, memory: MemoryView) -> tuple[Prediction, Tensor]:
        """Predict K objects, and encode what they will be remembered by: (K, T, C).

        The results are the caller's own.
        """
        ages = np.clip(memory.map_ages, SEED_AGE, self._max_map_age)
        sizes = [ages.size, len(ages), memory.pointer_ages.size, len(ages)]
        joined = upload(
            np.concatenate(
                [
                    ages.ravel(),
                    _counts(memory.map_mask, ages.shape),
                    memory.pointer_ages.ravel(),
                    _counts(memory.pointer_mask, memory.pointer_ages.shape),
                ]
            ).astype(np.int32),
            self._device,
        )
        numbers = torch.split(joined, sizes)
        inputs = (
            features.embedding,
            features.stride_8,
            features.stride_4,
            memory.maps,
            numbers[0].reshape(ages.shape),
            numbers[1],
            memory.pointers,
            numbers[2].reshape(memory.pointer_ages.shape),
            numbers[3],
        )
        if memory.map_mask is None and memory.pointer_mask is None and self._device == "cpu":
            logits, scores, objects, pointers, maps = self._compute(*inputs, is_whole=True)
        else:
            # What a recording gives is overwritten by the next one.
            logits, scores, objects, pointers, maps = (x.clone() for x in self._partial(*inputs))
        return Prediction(logits, scores, objects, pointers), maps

    def _compute_partial(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return self._compute(*inputs, is_whole=False)

    def _compute(
        self,
        embedding: Tensor,
        stride_8: Tensor,
        stride_4: Tensor,
        maps: Tensor,
        map_ages: Tensor,
        map_counts: Tensor,
        pointers: Tensor,
        pointer_ages: Tensor,
        pointer_counts: Tensor,
        *,
        is_whole: bool,
    ) -> tuple[Tensor, ...]:
        features = FrameFeatures(embedding, stride_8, stride_4)
        memory = MemoryTokens(maps, map_ages, map_counts, pointers, pointer_ages, pointer_counts, is_whole)
        with computing_in(self._device, self._dtype):
            prediction = self._heads.track(self._attention.condition(embedding, memory), features)
            remembered = self._heads.remember(features, prediction, is_seed=False)
        return (
            prediction.mask_logits,
            prediction.mask_scores,
            prediction.object_logits,
            prediction.pointers.to(self._dtype),
            remembered.to(self._dtype),
        )


def _counts(mask: BoolArray | None, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """How many of each row count."""
    return np.full(shape[0], shape[1]) if mask is None else mask.sum(axis=1)
