"""Triton kernels for the two places where SAM 2's memory attention spends its time on a GPU.

`attend` is FlashAttention (Dao, "FlashAttention-2", ICLR 2024, algorithm 1) with two differences that memory attention
asks for and that torch's own kernels lack: values may be narrower than keys, and every row of a batch has its own
number of keys, read on the device. So rows that look back at little cost little, rows that are not used cost nothing,
and shapes never change. `project_keys` reads the maps of the memory once and writes finished keys: position code,
projection and rotation in one pass. `rotate` turns queries and keys in place.

Channels that a rotation pairs lie half a head apart here, not side by side as in the `sam2` package; the caller
permutes the weights accordingly. Knows nothing of SAM 2 otherwise. Import it only where Triton is installed.
"""

# ruff: noqa: N803 - Triton's constants of a kernel are written in capitals
from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["attend", "check", "project_keys", "rotate"]

_QUERIES_PER_PROGRAM = 128
_LARGE_STEPS = (64, 3)
"""Keys at once, and steps under way at once: 144 KiB of shared memory on an A100, 184 on an H100."""
_SMALL_STEPS = (32, 2)
"""84 KiB, for GPUs that have 99: GeForce RTX 30 to 50, A10, L4, L40."""
_LARGE_STEPS_NEED_BYTES = 160 * 1024
_MAX_PARTS = 8
_LOG2_E = 1.4426950408889634


@triton.jit  # type: ignore[untyped-decorator]
def _attend_kernel(  # type: ignore[no-untyped-def]
    queries, keys, values, lengths, sums, maxima, weights_sums, key_count, scale_log2, query_stride_row, key_stride_row,
    value_stride_row, rows, query_count,
    D: tl.constexpr, C: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, PARTS: tl.constexpr,
    IS_WHOLE: tl.constexpr,
):  # fmt: skip
    # One program: a block of queries of one row, against one of PARTS stretches of the row's keys.
    row = tl.program_id(1)
    part = tl.program_id(2)
    length = key_count
    if not IS_WHOLE:
        length = tl.load(lengths + row)
    steps = tl.cdiv(length, BLOCK_K)
    steps_per_part = tl.cdiv(steps, PARTS)
    first = part * steps_per_part * BLOCK_K
    last = tl.minimum(first + steps_per_part * BLOCK_K, length)
    query_at = tl.program_id(0) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    is_query = query_at < query_count
    channel = tl.arange(0, D)
    value_channel = tl.arange(0, C)
    step_at = tl.arange(0, BLOCK_K)
    query = tl.load(
        queries + row * query_stride_row + query_at[:, None] * D + channel[None, :], mask=is_query[:, None], other=0.0
    )
    key_start = keys + row.to(tl.int64) * key_stride_row
    value_start = values + row.to(tl.int64) * value_stride_row
    maximum = tl.full([BLOCK_Q], -1e30, tl.float32)
    weights_sum = tl.zeros([BLOCK_Q], tl.float32)
    total = tl.zeros([BLOCK_Q, C], tl.float32)
    full = first + tl.maximum(last - first, 0) // BLOCK_K * BLOCK_K
    for at in range(first, full, BLOCK_K):
        key = tl.load(key_start + (at + step_at)[None, :] * D + channel[:, None])
        value = tl.load(value_start + (at + step_at)[:, None] * C + value_channel[None, :])
        scores = tl.dot(query, key) * scale_log2
        higher = tl.maximum(maximum, tl.max(scores, 1))
        weights = tl.exp2(scores - higher[:, None])
        shrink = tl.exp2(maximum - higher)
        weights_sum = weights_sum * shrink + tl.sum(weights, 1)
        total = tl.dot(weights.to(value.dtype), value, total * shrink[:, None])
        maximum = higher
    if full < last:
        is_key = full + step_at < last
        key = tl.load(key_start + (full + step_at)[None, :] * D + channel[:, None], mask=is_key[None, :], other=0.0)
        value = tl.load(
            value_start + (full + step_at)[:, None] * C + value_channel[None, :], mask=is_key[:, None], other=0.0
        )
        scores = tl.where(is_key[None, :], tl.dot(query, key) * scale_log2, -1e30)
        higher = tl.maximum(maximum, tl.max(scores, 1))
        weights = tl.exp2(scores - higher[:, None])
        shrink = tl.exp2(maximum - higher)
        weights_sum = weights_sum * shrink + tl.sum(weights, 1)
        total = tl.dot(weights.to(value.dtype), value, total * shrink[:, None])
        maximum = higher
    place = (part * rows + row).to(tl.int64) * query_count + query_at
    if PARTS == 1:
        total = total / tl.maximum(weights_sum, 1e-30)[:, None]
    else:
        tl.store(maxima + place, maximum, mask=is_query)
        tl.store(weights_sums + place, weights_sum, mask=is_query)
    tl.store(sums + place[:, None] * C + value_channel[None, :], total, mask=is_query[:, None])


@triton.jit  # type: ignore[untyped-decorator]
def _project_keys_kernel(  # type: ignore[no-untyped-def]
    maps, positions, ages, counts, weight, bias, cosine, sine, keys, key_stride_row, token_count, map_count,
    C: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    # One program: a block of tokens of one map of one row.
    row = tl.program_id(1) // map_count
    number = tl.program_id(1) % map_count
    if number < tl.load(counts + row):
        age = tl.load(ages + tl.program_id(1))
        token = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        is_token = (token < token_count)[:, None]
        channel = tl.arange(0, C)
        half = tl.arange(0, D // 2)
        place = token[:, None] * C + channel[None, :]
        x = tl.load(maps + tl.program_id(1).to(tl.int64) * token_count * C + place, mask=is_token, other=0.0)
        x += tl.load(positions + age * token_count * C + place, mask=is_token, other=0.0)
        first = tl.dot(x, tl.load(weight + half[None, :] * C + channel[:, None]))
        first += tl.load(bias + half)[None, :]
        second = tl.dot(x, tl.load(weight + (D // 2 + half)[None, :] * C + channel[:, None]))
        second += tl.load(bias + D // 2 + half)[None, :]
        angle = token[:, None] * (D // 2) + half[None, :]
        c = tl.load(cosine + angle, mask=is_token, other=0.0)
        s = tl.load(sine + angle, mask=is_token, other=0.0)
        out = keys + row.to(tl.int64) * key_stride_row + (number * token_count + token)[:, None] * D + half[None, :]
        tl.store(out, (first * c - second * s).to(keys.dtype.element_ty), mask=is_token)
        tl.store(out + D // 2, (first * s + second * c).to(keys.dtype.element_ty), mask=is_token)


@triton.jit  # type: ignore[untyped-decorator]
def _rotate_kernel(  # type: ignore[no-untyped-def]
    x, cosine, sine, token_count, x_stride_row, x_stride_token, D: tl.constexpr, BLOCK: tl.constexpr
):
    token = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_token = (token < token_count)[:, None]
    half = tl.arange(0, D // 2)
    angle = token[:, None] * (D // 2) + half[None, :]
    c = tl.load(cosine + angle, mask=is_token, other=0.0)
    s = tl.load(sine + angle, mask=is_token, other=0.0)
    # The third axis counts queries and keys that lie side by side.
    place = x + tl.program_id(1).to(tl.int64) * x_stride_row + token[:, None] * x_stride_token + tl.program_id(2) * D
    place += half[None, :]
    first = tl.load(place, mask=is_token, other=0.0).to(tl.float32)
    second = tl.load(place + D // 2, mask=is_token, other=0.0).to(tl.float32)
    tl.store(place, (first * c - second * s).to(x.dtype.element_ty), mask=is_token)
    tl.store(place + D // 2, (first * s + second * c).to(x.dtype.element_ty), mask=is_token)


def attend(
    queries: Tensor, keys: Tensor, values: Tensor, lengths: Tensor | None, *, multiprocessors: int, **tuning: Any
) -> Tensor:
    """Softmax attention with one head.

    Args:
        queries: (K, Q, D) or (1, Q, D) for rows that share their queries; D a power of two, 16 or more.
        keys: (K, L, D).
        values: (K, L, C); C a power of two, 16 or more.
        lengths: int32 (K,): keys of each row that count, the first ones; None if all do. Rows of 0 give zeros.
        multiprocessors: Of the GPU; few rows are split up to keep them busy.
        **tuning: Launch settings, for experiments.

    Returns:
        (K, Q, C), in the dtype of the values.
    """
    rows, key_count, width = keys.shape
    query_count, channels = queries.shape[1], values.shape[2]
    block_q = tuning.pop("block_q", _QUERIES_PER_PROGRAM)
    keys_per_step, stages = _steps(keys.device)
    block_k = tuning.pop("block_k", keys_per_step)
    blocks = triton.cdiv(query_count, block_q)
    parts = tuning.pop("parts", max(1, min(multiprocessors // (blocks * rows), _MAX_PARTS)))
    dtype = values.dtype if parts == 1 else torch.float32
    sums = torch.empty((parts, rows, query_count, channels), dtype=dtype, device=keys.device)
    maxima = torch.empty((parts, rows, query_count), dtype=torch.float32, device=keys.device)
    weights = torch.empty_like(maxima)
    _attend_kernel[(blocks, rows, parts)](
        queries, keys, values, keys if lengths is None else lengths, sums, maxima, weights, key_count,
        _LOG2_E * width**-0.5, 0 if len(queries) == 1 else queries.stride(0), keys.stride(0), values.stride(0), rows,
        query_count, D=width, C=channels, BLOCK_Q=block_q, BLOCK_K=block_k, PARTS=parts, IS_WHOLE=lengths is None,
        num_warps=tuning.pop("num_warps", 8), num_stages=tuning.pop("num_stages", stages),
    )  # fmt: skip
    if parts == 1:
        return sums[0]
    factor = torch.exp2(maxima - maxima.amax(dim=0))
    total = (sums * factor[..., None]).sum(dim=0)
    return (total / (weights * factor).sum(dim=0).clamp(min=1e-30)[..., None]).to(values.dtype)


def project_keys(
    maps: Tensor,
    positions: Tensor,
    ages: Tensor,
    counts: Tensor,
    weight: Tensor,
    bias: Tensor,
    cosine: Tensor,
    sine: Tensor,
    out: Tensor,
) -> None:
    """Write the keys of the maps of K rows: position code added, projected, rotated.

    Args:
        maps: (K, M, T, C).
        positions: (A, T, C): position codes by age.
        ages: int32 (K, M), below A.
        counts: int32 (K,): maps of each row that count, the first ones.
        weight: (D, C).
        bias: float32 (D,).
        cosine: float32 (T, D / 2).
        sine: float32 (T, D / 2).
        out: (K, L, D), L of M * T or more, written where maps count.
    """
    rows, count, tokens, channels = maps.shape
    block = 64
    _project_keys_kernel[(triton.cdiv(tokens, block), rows * count)](
        maps, positions, ages, counts, weight, bias, cosine, sine, out, out.stride(0), tokens, count,
        C=channels, D=out.shape[2], BLOCK=block, num_warps=8,
    )  # fmt: skip


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> None:
    """Turn the first channels of x (K, T, ...) in place: groups of D channels, as many as x holds whole.

    Args:
        x: (K, T, n * D), the last axis contiguous.
        cosine: float32 (T, D / 2).
        sine: float32 (T, D / 2).
    """
    tokens, half = cosine.shape
    block = 16
    _rotate_kernel[(triton.cdiv(tokens, block), len(x), x.shape[2] // (2 * half))](
        x, cosine, sine, tokens, x.stride(0), x.stride(1), D=2 * half, BLOCK=block, num_warps=4
    )


def check(device: str | torch.device, dtype: torch.dtype, *, queries: int = 256, width: int = 256) -> None:
    """Compare every kernel with plain torch on a small case.

    A GPU, a driver or a version of Triton that nobody has tried must not answer wrongly in silence.

    Raises:
        RuntimeError: They differ by more than rounding.
    """
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype)

    rows, maps, tokens, channels = 2, 2, queries, width // 4
    counts = torch.tensor([2, 1], dtype=torch.int32, device=device)
    ages = torch.tensor([[0, 1], [2, 0]], dtype=torch.int32, device=device)
    angles = torch.randn((tokens, width // 2), generator=generator).to(device)
    cosine, sine = angles.cos(), angles.sin()
    entries, positions = drawn(rows, maps, tokens, channels), drawn(3, tokens, channels)
    weight, bias = drawn(width, channels) * channels**-0.5, drawn(width).float()
    keys = torch.zeros((rows, maps * tokens, width), dtype=dtype, device=device)
    project_keys(entries, positions, ages, counts, weight, bias, cosine, sine, keys)

    def turned(x: Tensor) -> Tensor:
        first, second = x.float().chunk(2, dim=-1)
        return torch.cat([first * cosine - second * sine, first * sine + second * cosine], dim=-1)

    projected = F.linear((entries + positions[ages.long()]).float(), weight.float(), bias)
    expected = turned(projected).flatten(1, 2)
    expected[1, tokens:] = 0
    _require_close("project_keys", keys, expected)
    pairs = drawn(rows, tokens, 2 * width)
    expected = torch.cat([turned(pairs[..., :width]), turned(pairs[..., width:])], dim=-1)
    rotate(pairs, cosine, sine)
    _require_close("rotate", pairs, expected)
    query, values, lengths = drawn(rows, tokens, width), drawn(rows, maps * tokens, channels), counts * (tokens - 3)
    for multiprocessors in (1, 64):
        found = attend(query, keys, values, lengths, multiprocessors=multiprocessors)
        for row, length in enumerate(lengths.tolist()):
            scores = query[row].float() @ keys[row, :length].float().T * width**-0.5
            _require_close("attend", found[row], scores.softmax(dim=-1) @ values[row, :length].float())


@lru_cache
def _steps(device: torch.device) -> tuple[int, int]:
    """As much as the shared memory of the GPU holds."""
    if device.type != "cuda":
        return _LARGE_STEPS
    has_bytes = triton.runtime.driver.active.utils.get_device_properties(device.index)["max_shared_mem"]
    return _LARGE_STEPS if has_bytes >= _LARGE_STEPS_NEED_BYTES else _SMALL_STEPS


def _require_close(name: str, found: Tensor, expected: Tensor) -> None:
    error = float((found.float() - expected).norm() / expected.norm())
    if not error < 0.02:
        raise RuntimeError(f"{name} is off by {error:.3g} of what plain torch gives")
