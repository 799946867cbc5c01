"""Memory attention for tracks of any age in one batch.

The weights are those of the `sam2` package's `MemoryAttention`; the arithmetic is written anew, for three reasons:

- The package's attention takes no mask, so that there all objects of a batch must look back at equally many frames.
- Values need no projection of their own: attention weights sum to one, so ``P (V Wv + bv) Wo + bo`` is
  ``(P V) (Wv Wo) + (bv Wo + bo)``. Memories have 64 channels where the model has 256, which leaves a quarter of the
  work behind the softmax and drops one projection of every memory of every frame.
- Keys are made in one pass over the memories where Triton is at hand (`sam2_kernels`).

Knows nothing of slots: it is given what each track looks back at.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import torch
import torch.nn.functional as F
from sam2.modeling.sam2_utils import get_1d_sine_pe
from torch import Tensor

from fiftyone_plugin.errors import ModelUnavailableError
from fiftyone_plugin.propagators.warm_up import warming_up

__all__ = ["MemoryAttention", "MemoryTokens", "has_kernels"]

_log = logging.getLogger(__name__)
_KERNELS = "fiftyone_plugin.propagators.sam2_kernels"
_QUERIES_AT_ONCE = 128
"""On a CPU; larger blocks of attention weights fall out of the cache (measured: 10 % slower with all 256 at once)."""


@dataclass(frozen=True, slots=True)
class MemoryTokens:
    """What K tracks look back at, as tensors; of M maps and P pointers the first ones of each row count."""

    maps: Tensor
    """(K, M, T, C)."""
    map_ages: Tensor
    """int32 (K, M): steps back, 0 for seeds."""
    map_counts: Tensor
    """int32 (K,)."""
    pointers: Tensor
    """(K, P, D)."""
    pointer_ages: Tensor
    """int32 (K, P): steps back, for seeds too."""
    pointer_counts: Tensor
    """int32 (K,)."""
    is_whole: bool
    """True where every map and pointer counts, so that nothing needs a mask."""


@dataclass(frozen=True, slots=True)
class _Layer:
    """Weights of one layer; queries and keys in the order of channels that the rotation wants."""

    module: Any
    self_weight: Tensor
    self_bias: Tensor
    query_weight: Tensor
    query_bias: Tensor
    key_weight: Tensor
    key_bias: Tensor
    out_weight: Tensor
    out_bias: Tensor


class MemoryAttention:
    """Conditions the features of a frame on the memories of K tracks.

    Args:
        model: A `SAM2Base` whose switches were checked by `sam2_model.check_switches`, in float32.
        device: Where it lies.
        dtype: In which this computes; the layers of the model are turned into it.
        use_kernels: Use Triton; see `has_kernels`.

    Raises:
        ModelUnavailableError: The model's memory attention has several heads, as no SAM 2.1 has.
    """

    def __init__(
        self, model: Any, *, device: str, dtype: torch.dtype = torch.float32, use_kernels: bool = False
    ) -> None:
        self._model = model
        self._dtype = dtype
        self._kernels: Any = importlib.import_module(_KERNELS) if use_kernels else None
        module = model.memory_attention
        for layer in module.layers:
            for attention in (layer.self_attn, layer.cross_attn_image):
                if attention.num_heads != 1:
                    raise ModelUnavailableError(
                        f"memory attention with {attention.num_heads} heads: the engine is written for 1, as every "
                        "SAM 2.1 has: use sam2-reference"
                    )
        self._layers = [self._prepared(layer) for layer in module.layers]
        module.to(dtype)
        self._norm = module.norm
        side = model.image_size // model.backbone_stride
        self._side = side
        grid = torch.zeros(1, model.hidden_dim, side, side, device=device)
        self._position = (0.1 * _tokens(model.image_encoder.neck.position_encoding(grid))).to(dtype)
        map_grid = torch.zeros(1, model.mem_dim, side, side, device=device)
        map_position = _tokens(model.memory_encoder.position_encoding(map_grid))
        # Row a holds the position code of a map that is `a` steps old; row 0 is for seeds. The package keeps
        # the code of the last step first and that of conditioning frames last (sam2_base.py, lines 545 and 568).
        temporal = model.maskmem_tpos_enc[:, 0].detach()
        self._map_position = (map_position + torch.roll(temporal, 1, dims=0)).to(dtype).contiguous()
        rotation = module.layers[0].cross_attn_image.compute_cis(end_x=side, end_y=side).to(device)
        self._rotation = rotation
        self._cosine, self._sine = rotation.real.float().contiguous(), rotation.imag.float().contiguous()
        is_cuda = torch.device(device).type == "cuda"
        self._multiprocessors = torch.cuda.get_device_properties(device).multi_processor_count if is_cuda else 1
        self._is_cpu = torch.device(device).type == "cpu"

    def condition(self, embedding: Tensor, memory: MemoryTokens) -> Tensor:
        """Fuse the features of one frame (1, D, h, w) with the memories of K tracks: (K, D, h, w)."""
        rows, maps, tokens, channels = memory.maps.shape
        parts = memory.pointers.shape[2] // channels
        pointer_tokens = memory.pointers.shape[1] * parts
        pointers = memory.pointers.to(self._dtype).reshape(rows, pointer_tokens, channels)
        # Pointers follow the maps that count, so that what counts of a row is one stretch.
        first = memory.map_counts * tokens
        at = first[:, None] + torch.arange(pointer_tokens, dtype=torch.int32, device=first.device)
        at = at.long()[:, :, None]
        lengths = None if memory.is_whole else first + memory.pointer_counts * parts
        size = (rows, maps * tokens + pointer_tokens)
        values = torch.empty((*size, channels), dtype=self._dtype, device=pointers.device)
        values[:, : maps * tokens] = memory.maps.flatten(1, 2)
        values[:, maps * tokens :] = 0
        values.scatter_(1, at.expand(-1, -1, channels), pointers)
        pointer_keys = pointers + self._pointer_position(memory.pointer_ages).repeat_interleave(parts, dim=1)
        map_keys = self._map_keys(memory)
        keys = torch.empty((*size, self._model.hidden_dim), dtype=self._dtype, device=pointers.device)
        # Where a mask hides what lies behind the pointers of shorter rows, it must at least be a number.
        keys[:, maps * tokens :] = 0
        # Until the first look back all tracks share one row.
        x = _tokens(embedding).to(self._dtype) + self._position
        for layer in self._layers:
            x = x + self._look_around(layer, layer.module.norm1(x))
            self._write_keys(layer, memory, map_keys, keys)
            projected = F.linear(pointer_keys, layer.key_weight, layer.key_bias.to(pointer_keys.dtype))
            keys.scatter_(1, at.expand(-1, -1, keys.shape[2]), projected.to(keys.dtype))
            x = x + self._look_back(layer, layer.module.norm2(x), keys, values, lengths)
            hidden = layer.module.linear1(layer.module.norm3(x))
            x = x + layer.module.linear2(layer.module.activation(hidden))
        x = self._norm(x)
        return cast(Tensor, x.transpose(1, 2).reshape(len(x), -1, self._side, self._side))

    def _prepared(self, layer: Any) -> _Layer:
        own, other = layer.self_attn, layer.cross_attn_image
        width = own.q_proj.out_features
        order = torch.arange(width)
        if self._kernels is not None:
            order = torch.cat([order[::2], order[1::2]])
        out = other.out_proj

        def made(weight: Tensor) -> Tensor:
            return weight.detach().to(self._dtype).contiguous()

        return _Layer(
            layer,
            made(torch.cat([own.q_proj.weight[order], own.k_proj.weight[order], own.v_proj.weight])),
            made(torch.cat([own.q_proj.bias[order], own.k_proj.bias[order], own.v_proj.bias])),
            made(other.q_proj.weight[order]),
            made(other.q_proj.bias[order]),
            made(other.k_proj.weight[order]),
            other.k_proj.bias[order].detach().float(),
            made(out.weight @ other.v_proj.weight),
            made(out.weight @ other.v_proj.bias + out.bias),
        )

    def _pointer_position(self, ages: Tensor) -> Tensor:
        """Position codes of pointers: ages (K, P) to (K, P, C) (sam2_base.py, lines 628-636)."""
        scaled = ages.float() / (self._model.max_obj_ptrs_in_encoder - 1)
        code = get_1d_sine_pe(scaled, dim=self._model.hidden_dim)
        return cast(Tensor, self._model.obj_ptr_tpos_proj(code)).to(self._dtype)

    def _map_keys(self, memory: MemoryTokens) -> Tensor | None:
        """Maps with their position codes (K, M, T, C); the kernel adds them on its way."""
        if self._kernels is not None:
            return None
        return memory.maps.to(self._dtype) + self._map_position[memory.map_ages.long()]

    def _write_keys(self, layer: _Layer, memory: MemoryTokens, map_keys: Tensor | None, keys: Tensor) -> None:
        maps, tokens = memory.maps.shape[1:3]
        if self._kernels is not None:
            self._kernels.project_keys(
                memory.maps,
                self._map_position,
                memory.map_ages,
                memory.map_counts,
                layer.key_weight,
                layer.key_bias,
                self._cosine,
                self._sine,
                keys,
            )
            return
        assert map_keys is not None
        projected = F.linear(map_keys, layer.key_weight, layer.key_bias.to(map_keys.dtype))
        keys[:, : maps * tokens] = _rotate(projected, self._rotation).flatten(1, 2)

    def _look_around(self, layer: _Layer, x: Tensor) -> Tensor:
        """Self-attention."""
        joint = F.linear(x, layer.self_weight, layer.self_bias)
        width = joint.shape[2] // 3
        if self._kernels is not None:
            self._kernels.rotate(joint[:, :, : 2 * width], self._cosine, self._sine)
        q, k, v = torch.split(joint, width, dim=2)
        if self._kernels is None:
            q, k = _rotate(q, self._rotation), _rotate(k, self._rotation)
        attended = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        return cast(Tensor, layer.module.self_attn.out_proj(attended))

    def _look_back(self, layer: _Layer, x: Tensor, keys: Tensor, values: Tensor, lengths: Tensor | None) -> Tensor:
        """Cross-attention: what lies in the memory."""
        q = F.linear(x, layer.query_weight, layer.query_bias)
        if self._kernels is not None:
            self._kernels.rotate(q, self._cosine, self._sine)
            attended = self._kernels.attend(q, keys, values, lengths, multiprocessors=self._multiprocessors)
        else:
            attended = self._attend(_rotate(q, self._rotation), keys, values, lengths)
        return F.linear(attended, layer.out_weight, layer.out_bias)

    def _attend(self, q: Tensor, keys: Tensor, values: Tensor, lengths: Tensor | None) -> Tensor:
        q = q.expand(len(keys), -1, -1)
        mask = None
        if lengths is not None:
            # Rows that are not used look at something all the same: the softmax of nothing is no number.
            mask = torch.arange(keys.shape[1], device=keys.device) < lengths.clamp(min=1)[:, None]
        if not self._is_cpu:
            # Kernels of torch want narrow values padded, or take the slowest path.
            padded = F.pad(values, (0, keys.shape[2] - values.shape[2]))
            wide = F.scaled_dot_product_attention(
                q[:, None], keys[:, None], padded[:, None], attn_mask=None if mask is None else mask[:, None, None]
            )
            return wide[:, 0, :, : values.shape[2]]
        # On a CPU torch's fused attention asks for values as wide as keys; plain products of blocks are faster.
        transposed = keys.transpose(1, 2)
        found = []
        for block in (q * keys.shape[2] ** -0.5).split(_QUERIES_AT_ONCE, dim=1):
            scores = block @ transposed
            if mask is not None:
                scores = scores.masked_fill_(~mask[:, None], -torch.inf)
            found.append(scores.softmax(dim=-1) @ values)
        return torch.cat(found, dim=1)


@lru_cache
def has_kernels(device: str, dtype: torch.dtype) -> bool:
    """Whether Triton can be used there: it is installed, the GPU is of the Ampere generation or later, and it works."""
    if torch.device(device).type != "cuda" or dtype == torch.float32 or importlib.util.find_spec("triton") is None:
        return False
    if torch.cuda.get_device_capability(device) < (8, 0):
        return False
    try:
        with warming_up(f"Triton kernels on {device}, compiled and compared with torch"), torch.cuda.device(device):
            importlib.import_module(_KERNELS).check(device, dtype)
    except Exception as error:  # whatever a compiler can throw
        reason = (str(error) or type(error).__name__).splitlines()[0]
        _log.warning("sam2: own kernels are off, torch's are used (%s)", reason)
        return False
    return True


def _tokens(x: Tensor) -> Tensor:
    """(B, D, h, w) to (B, h * w, D)."""
    return x.flatten(2).transpose(1, 2)


def _rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Rotary position code: (..., L, d) by complex (L, d / 2) (position_encoding.py, lines 203-239)."""
    paired = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(paired * rotation).flatten(-2).type_as(x)
