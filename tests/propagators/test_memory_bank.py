"""The memory bank against a plain list of what was written, and its size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fiftyone_plugin.propagators.memory_bank import SEED_AGE, BankShape, MemoryBank

SHAPE = BankShape(tokens=2, map_channels=3, pointer_channels=4, max_seeds=3, max_recent_maps=2, max_recent_pointers=5)


def make_bank() -> MemoryBank:
    return MemoryBank(SHAPE, map_dtype=torch.float32, pointer_dtype=torch.float32, device="cpu")


def entries(value: float, count: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.full((count, 2, 3), value), torch.full((count, 4), value)


def test_bank_looks_back_as_far_as_its_rings_reach() -> None:
    bank = make_bank()
    bank.add(7)
    bank.write_seeds([7], 0, *entries(0))
    for step in range(1, 9):
        bank.write_recent([7], step, *entries(step))
    view = bank.read([7], 9, is_padded=False)
    assert view.map_mask is None
    assert view.pointer_mask is None
    # The seed, which does not age among the maps, and the last two steps; pointers of the last five.
    found = dict(zip(view.map_ages[0].tolist(), view.maps[0, :, 0, 0].tolist(), strict=True))
    assert found == {SEED_AGE: 0.0, 1: 8.0, 2: 7.0}
    pointers = dict(zip(view.pointer_ages[0].tolist(), view.pointers[0, :, 0].tolist(), strict=True))
    assert pointers == {9: 0.0, 1: 8.0, 2: 7.0, 3: 6.0, 4: 5.0, 5: 4.0}


def test_forgotten_step_is_not_read_and_does_not_stretch_the_window() -> None:
    bank = make_bank()
    bank.add(1)
    bank.write_seeds([1], 0, *entries(0))
    for step in (1, 2, 3):
        bank.write_recent([1], step, *entries(step))
    bank.forget([1], 3)
    view = bank.read([1], 4, is_padded=False)
    assert sorted(view.map_ages[0].tolist()) == [SEED_AGE, 2]


def test_only_seed_of_a_track_is_never_forgotten() -> None:
    bank = make_bank()
    bank.add(1)
    bank.write_seeds([1], 0, *entries(5))
    bank.forget([1], 0)
    assert bank.read([1], 1, is_padded=False).maps.shape[1] == 1
    bank.write_seeds([1], 3, *entries(6))
    bank.forget([1], 3)
    assert bank.read([1], 4, is_padded=False).maps[0, :, 0, 0].tolist() == [5.0]


def test_restart_replaces_what_the_step_had() -> None:
    bank = make_bank()
    bank.add(1)
    bank.write_seeds([1], 0, *entries(0))
    bank.write_recent([1], 1, *entries(1))
    bank.write_seeds([1], 1, *entries(10))
    bank.write_seeds([1], 1, *entries(11))
    view = bank.read([1], 2, is_padded=False)
    assert sorted(view.maps[0, :, 0, 0].tolist()) == [0.0, 11.0]
    assert sorted(view.pointer_ages[0].tolist()) == [1, 2]


def test_a_new_track_in_a_used_slot_sees_nothing_of_the_old_one() -> None:
    bank = make_bank()
    bank.add(1)
    bank.write_seeds([1], 0, *entries(1))
    bank.write_recent([1], 1, *entries(2))
    bank.drop(1)
    bank.add(2)
    bank.write_seeds([2], 1, *entries(3))
    assert bank.capacity == 1
    assert bank.read([2], 2, is_padded=False).maps[0, :, 0, 0].tolist() == [3.0]


def test_bank_grows_in_powers_of_two_and_keeps_what_it_holds() -> None:
    bank = make_bank()
    capacities = []
    for track_id in range(1, 6):
        bank.add(track_id)
        bank.write_seeds([track_id], 0, *entries(track_id))
        capacities.append(bank.capacity)
    assert capacities == [1, 2, 4, 4, 8]
    assert bank.track_ids == (1, 2, 3, 4, 5)
    assert bank.read([5, 1, 3], 1, is_padded=False).maps[:, 0, 0, 0].tolist() == [5.0, 1.0, 3.0]


def test_layouts_group_tracks_that_look_back_at_equally_many() -> None:
    bank = make_bank()
    for track_id in (1, 2, 3):
        bank.add(track_id)
    bank.write_seeds([1, 3], 0, *entries(0, 2))
    bank.write_recent([1, 3], 1, *entries(1, 2))
    bank.write_seeds([2], 1, *entries(1))
    assert bank.layouts([1, 2, 3], 2) == [[1, 3], [2]]


def test_padded_rows_mask_what_is_not_there() -> None:
    bank = make_bank()
    bank.add(1)
    bank.write_seeds([1], 0, *entries(4))
    view = bank.read([1], 1, is_padded=True)
    assert view.maps.shape == (1, SHAPE.max_seeds + SHAPE.max_recent_maps, 2, 3)
    assert view.pointers.shape == (1, SHAPE.max_seeds + SHAPE.max_recent_pointers, 4)
    assert view.map_mask is not None
    assert view.map_mask.tolist() == [[True, False, False, False, False]]


@pytest.mark.parametrize(
    ("before", "after"),
    [(torch.float32, torch.float32), (torch.float32, torch.bfloat16), (torch.bfloat16, torch.float32)],
    ids=["same device", "from a CPU to a GPU", "from a GPU to a CPU"],
)
def test_pointers_go_on_where_another_type_is_kept(before: torch.dtype, after: torch.dtype) -> None:
    banks = [MemoryBank(SHAPE, map_dtype=torch.bfloat16, pointer_dtype=each, device="cpu") for each in (before, after)]
    banks[0].add(7)
    banks[0].write_seeds([7], 0, *entries(1.2345))
    banks[1].load_state(banks[0].state())
    old, new = (bank.read([7], 1, is_padded=False) for bank in banks)
    assert new.pointers.dtype == after
    torch.testing.assert_close(new.pointers, old.pointers.to(after), rtol=0, atol=0)
    torch.testing.assert_close(new.maps, old.maps, rtol=0, atol=0)


@given(st.lists(st.tuples(st.sampled_from(["step", "seed", "forget", "add", "drop"]), st.integers(1, 4)), max_size=40))
@settings(deadline=None, max_examples=100)
def test_a_track_reads_what_was_written_for_it_and_nothing_else(actions: list[tuple[str, int]]) -> None:
    """Against a model of the bank: per track a dict of step to value, for seeds and for recent steps."""
    bank = make_bank()
    seeds: dict[int, dict[int, float]] = {}
    recent: dict[int, dict[int, float]] = {}
    step = 0
    for number, (action, track_id) in enumerate(actions, start=1):
        value = float(number)
        if action == "step":
            step += 1
            live = list(seeds)
            if live:
                bank.write_recent(live, step, *entries(value, len(live)))
            for each in live:
                recent[each][step] = value
        elif action == "add" and track_id not in seeds:
            bank.add(track_id)
            bank.write_seeds([track_id], step, *entries(value))
            seeds[track_id], recent[track_id] = {step: value}, {}
        elif action == "seed" and track_id in seeds:
            bank.write_seeds([track_id], step, *entries(value))
            recent[track_id].pop(step, None)
            seeds[track_id][step] = value
            if len(seeds[track_id]) > SHAPE.max_seeds:
                del seeds[track_id][sorted(seeds[track_id])[1]]
        elif action == "forget" and track_id in seeds and step not in seeds[track_id]:
            bank.forget([track_id], step)
            recent[track_id].pop(step, None)
        elif action == "drop" and track_id in seeds:
            bank.drop(track_id)
            del seeds[track_id], recent[track_id]
    assert sorted(bank.track_ids) == sorted(seeds)
    for track_id in seeds:
        view = bank.read([track_id], step + 1, is_padded=False)
        window = {s: v for s, v in recent[track_id].items() if step + 1 - s <= SHAPE.max_recent_maps}
        expected = sorted([*seeds[track_id].values(), *window.values()])
        assert sorted(view.maps[0, :, 0, 0].tolist()) == expected
        far = {s: v for s, v in recent[track_id].items() if step + 1 - s <= SHAPE.max_recent_pointers}
        ages = sorted(step + 1 - s for s in [*seeds[track_id], *far])
        assert np.sort(view.pointer_ages[0]).tolist() == ages
