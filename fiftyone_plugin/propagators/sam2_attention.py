"""Memory attention for tracks of any age in one batch.

The weights are those of the `sam2` package's `MemoryAttention`; the arithmetic is written anew because the package's
attention takes no mask, so that there all objects of a batch must look back at equally many frames. Knows nothing of
slots: it is given what each track looks back at.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from sam2.modeling.sam2_utils import get_1d_sine_pe
from torch import Tensor

from fiftyone_plugin.propagators.memory_bank import SEED_AGE, MemoryView
from fiftyone_plugin.propagators.sam2_image import FrameFeatures
from fiftyone_plugin.types import BoolArray, IntArray

__all__ = ["MemoryAttention"]


class MemoryAttention:
    """Conditions the features of a frame on the memories of K tracks.

    Args:
        model: A `SAM2Base` whose switches were checked by `sam2_model.check_switches`.
        device: Where it lies.
    """

    def __init__(self, model: Any, *, device: str) -> None:
        self._model = model
        self._device = device
        self._layers = list(model.memory_attention.layers)
        side = model.image_size // model.backbone_stride
        self._side = side
        grid = torch.zeros(1, model.hidden_dim, side, side, device=device)
        self._position = _tokens(model.image_encoder.neck.position_encoding(grid))
        map_grid = torch.zeros(1, model.mem_dim, side, side, device=device)
        map_position = _tokens(model.memory_encoder.position_encoding(map_grid))
        # Row a holds the position code of a map that is `a` steps old; row SEED_AGE is for seeds. The package keeps
        # the code of the last step first and that of conditioning frames last (sam2_base.py, lines 545 and 568).
        temporal = model.maskmem_tpos_enc[:, 0].detach()
        self._map_position = map_position + torch.roll(temporal, 1, dims=0)
        attention = self._layers[0].cross_attn_image
        self._rotation = attention.compute_cis(end_x=side, end_y=side).to(device)

    def condition(self, features: FrameFeatures, memory: MemoryView) -> Tensor:
        """Fuse one frame with the memories of K tracks: (K, D, h, w)."""
        values, keys = self._memory_tokens(memory)
        mask = self._key_mask(memory)
        rotation = self._key_rotation(memory.maps.shape[1], keys.shape[1])
        # Until the first cross-attention all tracks share one row.
        x = _tokens(features.embedding) + 0.1 * self._position
        for layer in self._layers:
            x = x + self._self_attention(layer.self_attn, layer.norm1(x))
            x = x + self._cross_attention(layer.cross_attn_image, layer.norm2(x), keys, values, rotation, mask)
            x = x + layer.linear2(layer.activation(layer.linear1(layer.norm3(x))))
        x = self._model.memory_attention.norm(x)
        return cast(Tensor, x.transpose(1, 2).reshape(len(x), -1, self._side, self._side))

    def _memory_tokens(self, memory: MemoryView) -> tuple[Tensor, Tensor]:
        """Values (K, L, C), and keys, which are values plus position codes: maps first, then pointers."""
        age_limit = len(self._map_position) - 1
        ages = self._index(np.clip(memory.map_ages, SEED_AGE, age_limit))
        maps = memory.maps.to(self._map_position.dtype)
        map_keys = maps + self._map_position[ages]
        channels = maps.shape[-1]
        pointers = memory.pointers.to(maps.dtype)
        parts = pointers.shape[-1] // channels
        pointers = pointers.reshape(*pointers.shape[:2], parts, channels)
        pointer_keys = pointers + self._pointer_position(memory.pointer_ages)[:, :, None]
        values = torch.cat([maps.flatten(1, 2), pointers.flatten(1, 2)], dim=1)
        keys = torch.cat([map_keys.flatten(1, 2), pointer_keys.flatten(1, 2)], dim=1)
        return values, keys

    def _pointer_position(self, ages: IntArray) -> Tensor:
        """Position codes of pointers: ages (K, P) to (K, P, C) (sam2_base.py, lines 628-636)."""
        scaled = self._index(ages).float() / (self._model.max_obj_ptrs_in_encoder - 1)
        return cast(Tensor, self._model.obj_ptr_tpos_proj(get_1d_sine_pe(scaled, dim=self._model.hidden_dim)))

    def _key_mask(self, memory: MemoryView) -> Tensor | None:
        """bool (K, 1, 1, L), True where a token counts; None where all do."""
        if memory.map_mask is None and memory.pointer_mask is None:
            return None
        maps = _full(memory.map_mask, memory.map_ages.shape).repeat(memory.maps.shape[2], axis=1)
        parts = memory.pointers.shape[2] // memory.maps.shape[3]
        pointers = _full(memory.pointer_mask, memory.pointer_ages.shape).repeat(parts, axis=1)
        return torch.from_numpy(np.concatenate([maps, pointers], axis=1)).to(self._device)[:, None, None]

    def _self_attention(self, attention: Any, x: Tensor) -> Tensor:
        q = _rotate(_heads(attention.q_proj(x), attention.num_heads), self._rotation)
        k = _rotate(_heads(attention.k_proj(x), attention.num_heads), self._rotation)
        v = _heads(attention.v_proj(x), attention.num_heads)
        return cast(Tensor, attention.out_proj(_merge_heads(F.scaled_dot_product_attention(q, k, v))))

    def _cross_attention(
        self, attention: Any, x: Tensor, keys: Tensor, values: Tensor, key_rotation: Tensor, mask: Tensor | None
    ) -> Tensor:
        q = _rotate(_heads(attention.q_proj(x), attention.num_heads), self._rotation).expand(len(keys), -1, -1, -1)
        k = _rotate(_heads(attention.k_proj(keys), attention.num_heads), key_rotation)
        v = _heads(attention.v_proj(values), attention.num_heads)
        return cast(Tensor, attention.out_proj(_merge_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=mask))))

    def _key_rotation(self, maps: int, tokens: int) -> Tensor:
        """Rotation of every key: the same for each map, none for pointers, which have no place in the image."""
        rotation = torch.ones(tokens, self._rotation.shape[1], dtype=self._rotation.dtype, device=self._rotation.device)
        rotation[: maps * len(self._rotation)] = self._rotation.repeat(maps, 1)
        return rotation

    def _index(self, array: IntArray) -> Tensor:
        return torch.from_numpy(array).to(self._device)


def _full(mask: BoolArray | None, shape: tuple[int, ...]) -> BoolArray:
    return np.ones(shape, np.bool_) if mask is None else mask


def _tokens(x: Tensor) -> Tensor:
    """(B, D, h, w) to (B, h * w, D)."""
    return x.flatten(2).transpose(1, 2)


def _heads(x: Tensor, heads: int) -> Tensor:
    return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)


def _rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Rotary position code: (B, heads, L, d) by complex (L, d / 2) (position_encoding.py, lines 203-239)."""
    paired = torch.view_as_complex(x.float().reshape(*x.shape[:3], -1, 2))
    return torch.view_as_real(paired * rotation).flatten(3).type_as(x)


def _merge_heads(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)
