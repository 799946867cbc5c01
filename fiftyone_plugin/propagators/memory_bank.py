"""The memory of all live tracks: tensors of fixed size, one slot per track.

A slot holds, for one track, the memories of its seeds and a ring of its most recent steps, once as spatial maps and
once as object pointers. Births, restarts, forgetting and drops change masks and indices, never shapes; only when all
slots are taken does the bank double. So its size depends on the number of live tracks, never on the length of the
video.

Time is counted in steps of the walk, not in frame indices: the step before the current one has age 1, whichever way
the walk goes. This module knows nothing of networks: a memory is a (T, C) map, a pointer a (D,) vector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fiftyone_plugin.types import BoolArray, IntArray

__all__ = ["BankShape", "MemoryBank", "MemoryEntries", "MemoryView", "upload"]

SEED_AGE = 0
"""Age under which `MemoryView.map_ages` lists the map of a seed: seeds do not age there."""


@dataclass(frozen=True, slots=True)
class BankShape:
    """Sizes that never change."""

    tokens: int
    """T, positions of a spatial map."""
    map_channels: int
    pointer_channels: int
    max_seeds: int
    """Seeds kept per track: the first, and the most recent ones. At least 2."""
    max_recent_maps: int
    max_recent_pointers: int


@dataclass(frozen=True, slots=True)
class MemoryView:
    """What K tracks look back at; rows are padded to the longest, and `None` masks mean that nothing was padded."""

    maps: Tensor
    """(K, M, T, C)."""
    map_ages: IntArray
    """int64 (K, M): steps back, or `SEED_AGE`."""
    map_mask: BoolArray | None
    """bool (K, M), False where padded."""
    pointers: Tensor
    """(K, P, D)."""
    pointer_ages: IntArray
    """int64 (K, P): steps back, for seeds too."""
    pointer_mask: BoolArray | None
    """bool (K, P), False where padded."""


def upload(array: NDArray[Any], device: str | torch.device) -> Tensor:
    """Bring a small array to a device without waiting for what the device is doing."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if torch.device(device).type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


class MemoryEntries:
    """Entries of one kind for all slots: `max_seeds` seeds, then a ring of `max_recent` steps.

    Args:
        capacity: Slots.
        entry_shape: Shape of one entry.
        max_seeds: Entries for seeds.
        max_recent: Entries of the ring.
    """

    def __init__(
        self,
        capacity: int,
        entry_shape: tuple[int, ...],
        *,
        max_seeds: int,
        max_recent: int,
        dtype: torch.dtype,
        device: str,
    ) -> None:
        self._max_seeds = max_seeds
        self._max_recent = max_recent
        entries = max_seeds + max_recent
        self.values = torch.zeros((capacity, entries, *entry_shape), dtype=dtype, device=device)
        self.steps: IntArray = np.zeros((capacity, entries), np.int64)
        self.is_valid: BoolArray = np.zeros((capacity, entries), np.bool_)

    def grow(self, capacity: int) -> None:
        """Add empty slots."""
        values = self.values.new_zeros((capacity, *self.values.shape[1:]))
        values[: len(self.values)] = self.values
        added = ((0, capacity - len(self.steps)), (0, 0))
        self.values, self.steps, self.is_valid = values, np.pad(self.steps, added), np.pad(self.is_valid, added)

    def write_recent(self, slots: IntArray, step: int, values: Tensor) -> None:
        """Put one step of several slots into their rings: (K,), (K, ...)."""
        position = self._max_seeds + step % self._max_recent
        self._write(slots, np.full(len(slots), position), step, values)

    def write_seeds(self, slots: IntArray, positions: IntArray, step: int, values: Tensor) -> None:
        """Put seeds at the given positions, and whatever the rings held of this step out: (K,), (K,), (K, ...)."""
        self.forget(slots, step)
        self._write(slots, positions, step, values)

    def forget(self, slots: IntArray, step: int) -> None:
        """Make the entries of one step invalid."""
        self.is_valid[slots] &= self.steps[slots] != step

    def clear(self, slot: int) -> None:
        """Make every entry of a slot invalid."""
        self.is_valid[slot] = False

    def visible(self, slots: IntArray, step: int) -> BoolArray:
        """Which entries slots look back at from a step: (K, E). Seeds always, the ring as far as it reaches."""
        visible = self.is_valid[slots]
        visible[:, self._max_seeds :] &= step - self.steps[slots, self._max_seeds :] <= self._max_recent
        return visible

    def gather(
        self, slots: IntArray, step: int, *, length: int | None, rows: int
    ) -> tuple[Tensor, IntArray, BoolArray, BoolArray]:
        """Visible entries first, in rows of one length: values (R, L, ...), ages, seed flags and mask, each (R, L).

        Args:
            slots: (K,).
            step: The current step.
            length: L; None takes the longest row's.
            rows: R, K or more; rows beyond K have nothing that is visible.
        """
        visible = self.visible(slots, step)
        count = int(visible.sum(axis=1).max(initial=0)) if length is None else length
        order = np.argsort(~visible, axis=1, kind="stable")[:, :count]
        mask = np.take_along_axis(visible, order, axis=1)
        ages = step - self.steps[slots[:, None], order]
        flat = slots[:, None] * self.values.shape[1] + order
        flat, order, mask, ages = (np.pad(a, ((0, rows - len(slots)), (0, 0))) for a in (flat, order, mask, ages))
        gathered = self.values.flatten(0, 1).index_select(0, upload(flat.ravel(), self.values.device))
        return gathered.reshape(rows, count, *self.values.shape[2:]), ages, order < self._max_seeds, mask

    def state(self) -> dict[str, Any]:
        """A copy in NumPy arrays; values of 16 bits as integers, since NumPy has no bfloat16."""
        values = self.values.cpu().clone()
        bits = values.view(torch.int16) if values.element_size() == 2 else values
        return {"values": bits.numpy(), "steps": self.steps.copy(), "is_valid": self.is_valid.copy()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Become what `state` was taken of; numbers of another type, from another device, become those of this one."""
        values = torch.from_numpy(np.array(state["values"]))
        if values.dtype == torch.int16:
            values = values.view(self.values.dtype if self.values.element_size() == 2 else torch.bfloat16)
        self.values = values.to(self.values)
        self.steps, self.is_valid = np.array(state["steps"]), np.array(state["is_valid"])

    def _write(self, slots: IntArray, positions: NDArray[np.int64], step: int, values: Tensor) -> None:
        flat = upload(slots * self.values.shape[1] + positions, self.values.device)
        self.values.flatten(0, 1).index_copy_(0, flat, values.to(self.values.dtype))
        self.steps[slots, positions] = step
        self.is_valid[slots, positions] = True


class MemoryBank:
    """Slots for all live tracks.

    The identity invariant: a `track_id` owns one slot from `add` to `drop`, and nobody else reads or writes it; which
    slot that is means nothing.
    """

    def __init__(
        self,
        shape: BankShape,
        *,
        map_dtype: torch.dtype,
        pointer_dtype: torch.dtype,
        device: str,
        capacity: int = 1,
    ) -> None:
        self.shape = shape
        self._slots: dict[int, int] = {}
        self._free = list(range(capacity - 1, -1, -1))
        self._seeds_written = np.zeros(capacity, np.int64)
        self._maps = MemoryEntries(
            capacity,
            (shape.tokens, shape.map_channels),
            max_seeds=shape.max_seeds,
            max_recent=shape.max_recent_maps,
            dtype=map_dtype,
            device=device,
        )
        self._pointers = MemoryEntries(
            capacity,
            (shape.pointer_channels,),
            max_seeds=shape.max_seeds,
            max_recent=shape.max_recent_pointers,
            dtype=pointer_dtype,
            device=device,
        )

    @property
    def track_ids(self) -> tuple[int, ...]:
        """Live tracks, in the order they were added."""
        return tuple(self._slots)

    @property
    def capacity(self) -> int:
        """Slots, a power of two times the first capacity."""
        return len(self._seeds_written)

    @property
    def nbytes(self) -> int:
        """Bytes of all memories."""
        return sum(e.values.element_size() * e.values.nelement() for e in (self._maps, self._pointers))

    def add(self, track_id: int) -> None:
        """Give a new track an empty slot."""
        if not self._free:
            self._grow()
        slot = self._free.pop()
        self._slots[track_id] = slot
        self._seeds_written[slot] = 0
        self._maps.clear(slot)
        self._pointers.clear(slot)

    def drop(self, track_id: int) -> None:
        """Free the slot of a track."""
        self._free.append(self._slots.pop(track_id))

    def write_recent(self, track_ids: Sequence[int], step: int, maps: Tensor, pointers: Tensor) -> None:
        """Remember a step of K tracks: maps (K, T, C), pointers (K, D)."""
        slots = self._slots_of(track_ids)
        self._maps.write_recent(slots, step, maps)
        self._pointers.write_recent(slots, step, pointers)

    def write_seeds(self, track_ids: Sequence[int], step: int, maps: Tensor, pointers: Tensor) -> None:
        """Remember seeds of K tracks in place of whatever they had of this step: maps (K, T, C), pointers (K, D).

        The first seed of a track stays for good; of the later ones the most recent ``max_seeds - 1`` do.
        """
        slots = self._slots_of(track_ids)
        positions = np.empty(len(slots), np.int64)
        for row, slot in enumerate(slots.tolist()):
            seeds = slice(0, self.shape.max_seeds)
            same = np.flatnonzero(self._maps.is_valid[slot, seeds] & (self._maps.steps[slot, seeds] == step))
            if len(same):
                positions[row] = same[0]
                continue
            written = int(self._seeds_written[slot])
            positions[row] = written if written == 0 else 1 + (written - 1) % (self.shape.max_seeds - 1)
            self._seeds_written[slot] += 1
        self._maps.write_seeds(slots, positions, step, maps)
        self._pointers.write_seeds(slots, positions, step, pointers)

    def forget(self, track_ids: Sequence[int], step: int) -> None:
        """Take a step out of the memory of tracks, except the only seed of a track, which it needs to go on."""
        slots = self._slots_of(track_ids)
        seeds = self._maps.is_valid[slots, : self.shape.max_seeds]
        other_seeds = (seeds & (self._maps.steps[slots, : self.shape.max_seeds] != step)).any(axis=1)
        slots = slots[other_seeds]
        self._maps.forget(slots, step)
        self._pointers.forget(slots, step)

    def layouts(self, track_ids: Sequence[int], step: int) -> list[list[int]]:
        """Split tracks into groups that look back at equally many entries, so that a group needs no padding."""
        slots = self._slots_of(track_ids)
        maps = self._maps.visible(slots, step).sum(axis=1).tolist()
        pointers = self._pointers.visible(slots, step).sum(axis=1).tolist()
        groups: dict[tuple[int, int], list[int]] = {}
        for track_id, *layout in zip(track_ids, maps, pointers, strict=True):
            groups.setdefault((layout[0], layout[1]), []).append(track_id)
        return list(groups.values())

    def read(self, track_ids: Sequence[int], step: int, *, is_padded: bool, rows: int | None = None) -> MemoryView:
        """What tracks look back at from a step.

        Args:
            track_ids: K tracks.
            step: The current step.
            is_padded: Pad rows to all that a slot can hold, so that shapes never change; else to the longest row.
            rows: Add rows that look back at nothing up to this number; None adds none.
        """
        slots = self._slots_of(track_ids)
        shape, rows = self.shape, len(slots) if rows is None else rows
        maps, ages, is_seed, map_mask = self._maps.gather(
            slots, step, length=shape.max_seeds + shape.max_recent_maps if is_padded else None, rows=rows
        )
        pointers, pointer_ages, _, pointer_mask = self._pointers.gather(
            slots, step, length=shape.max_seeds + shape.max_recent_pointers if is_padded else None, rows=rows
        )
        return MemoryView(
            maps,
            np.where(is_seed, SEED_AGE, ages),
            None if map_mask.all() else map_mask,
            pointers,
            pointer_ages,
            None if pointer_mask.all() else pointer_mask,
        )

    def state(self) -> dict[str, Any]:
        """A copy in plain values and NumPy arrays; see `interfaces.ResumableSession`."""
        return {
            "slots": dict(self._slots),
            "free": list(self._free),
            "seeds_written": self._seeds_written.copy(),
            "maps": self._maps.state(),
            "pointers": self._pointers.state(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Become what `state` was taken of, a bank of the same shape."""
        self._slots, self._free = dict(state["slots"]), list(state["free"])
        self._seeds_written = np.array(state["seeds_written"])
        self._maps.load_state(state["maps"])
        self._pointers.load_state(state["pointers"])

    def _slots_of(self, track_ids: Sequence[int]) -> IntArray:
        return np.array([self._slots[t] for t in track_ids], np.int64)

    def _grow(self) -> None:
        old = self.capacity
        self._free = list(range(2 * old - 1, old - 1, -1))
        self._seeds_written = np.pad(self._seeds_written, (0, old))
        self._maps.grow(2 * old)
        self._pointers.grow(2 * old)
