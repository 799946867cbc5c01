from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiftyone_plugin.identity import apply_repairs, resolve
from fiftyone_plugin.identity.repair import trace
from fiftyone_plugin.types import Repair, RepairKind, Source, Track


def exchange(a: int, b: int, frame: int, *, repair_id: int = 1) -> Repair:
    return Repair(
        repair_id, RepairKind.EXCHANGE, frame, None, {a: (b, frame - 1), b: (a, frame - 1)}, {}, 5.0, "exchanged"
    )


def trim(track_id: int, start: int, stop: int | None) -> Repair:
    return Repair(2, RepairKind.TRIM, start, stop, {track_id: None}, {track_id: None}, 5.0, "nothing there")


def shown(tracks: tuple[Track, ...]) -> dict[int, dict[int, float]]:
    """Track id to frame to the left edge of its box, which tells the propagated tracks apart."""
    return {t.track_id: dict(zip(t.frame_indices.tolist(), t.boxes_xyxy[:, 0].tolist(), strict=True)) for t in tracks}


@pytest.fixture(scope="module")
def three(make_track: Any) -> tuple[Track, ...]:
    """Tracks 1, 2 and 3 of 30 frames; their boxes begin at x = 100, 200 and 300."""
    return tuple(make_track(i, range(30), start_xy=(100 * i + 10, 10)) for i in (1, 2, 3))


def test_without_repairs_the_very_same_tracks_come_out(three: Any) -> None:
    result = apply_repairs(three[::-1], ())
    assert all(a is b for a, b in zip(result, three, strict=True))


def test_exchange_swaps_futures_and_marks_them_repaired(three: Any) -> None:
    result = apply_repairs(three, [exchange(1, 2, 12)])
    assert [t.track_id for t in result] == [1, 2, 3]
    assert shown(result)[1] == {f: 100.0 if f < 12 else 200.0 for f in range(30)}
    assert shown(result)[2] == {f: 200.0 if f < 12 else 100.0 for f in range(30)}
    assert result[2] is three[2]
    assert [s is Source.REPAIRED for s in result[0].sources] == [f >= 12 for f in range(30)]


def test_second_exchange_undoes_the_first_from_there_on(three: Any) -> None:
    result = shown(apply_repairs(three, [exchange(1, 2, 12), exchange(1, 2, 20, repair_id=2)]))
    assert result[1] == {f: 200.0 if 12 <= f < 20 else 100.0 for f in range(30)}


def test_order_of_repairs_does_not_matter(three: Any) -> None:
    repairs = [exchange(1, 2, 12), exchange(2, 3, 20), trim(3, 4, 8)]
    assert shown(apply_repairs(three, repairs)) == shown(apply_repairs(three, repairs[::-1]))


def test_leaving_a_repair_out_undoes_it_and_keeps_what_the_others_mean(three: Any) -> None:
    both = [exchange(1, 2, 10), exchange(2, 3, 20)]
    # Propagated track 3 shows, from frame 20 on, whatever propagated track 2 showed on frame 19.
    assert shown(apply_repairs(three, both))[1] == {
        f: 100.0 if f < 10 else 200.0 if f < 20 else 300.0 for f in range(30)
    }
    assert shown(apply_repairs(three, both[1:]))[1] == dict.fromkeys(range(30), 100.0)
    assert shown(apply_repairs(three, both[1:]))[2] == {f: 200.0 if f < 20 else 300.0 for f in range(30)}
    assert apply_repairs(three, []) == three


def test_trim_takes_out_exactly_its_frames(three: Any) -> None:
    result = shown(apply_repairs(three, [trim(2, 5, 9), trim(3, 25, None)]))
    assert set(result[2]) == set(range(30)) - {5, 6, 7, 8}
    assert set(result[3]) == set(range(25))
    assert set(result[1]) == set(range(30))


def test_track_that_is_trimmed_away_is_gone(three: Any) -> None:
    assert [t.track_id for t in apply_repairs(three, [trim(2, 0, 30)])] == [1, 3]


def test_trim_of_an_empty_track_is_nothing(make_track: Any) -> None:
    tracks = (make_track(1, []), make_track(2, range(5)))
    assert [t.track_id for t in apply_repairs(tracks, [trim(1, 0, None)])] == [2]


def test_split_gets_the_next_free_id(three: Any) -> None:
    split = Repair(1, RepairKind.SPLIT, 15, None, {2: None}, {2: 4}, 1.0, "another object")
    result = shown(apply_repairs(three, [split]))
    assert {i: (min(f), max(f)) for i, f in result.items()} == {1: (0, 29), 2: (0, 14), 3: (0, 29), 4: (15, 29)}


def test_reassigned_return_goes_on_under_the_first_id(make_track: Any) -> None:
    tracks = (make_track(1, range(10)), make_track(2, range(20, 30)))
    back = Repair(1, RepairKind.REASSIGN, 20, None, {2: (1, 9)}, {2: 1}, 3.0, "returned")
    (only,) = apply_repairs(tracks, [back])
    assert only.track_id == 1
    assert only.frame_indices.tolist() == [*range(10), *range(20, 30)]


def test_of_two_stretches_on_one_frame_the_better_mask_stays(make_track: Any) -> None:
    tracks = (
        make_track(1, range(12), start_xy=(110, 10), mask_score=0.5),
        make_track(2, range(9, 20), start_xy=(210, 10), mask_score=0.9),
    )
    back = Repair(1, RepairKind.REASSIGN, 9, None, {2: (1, 9)}, {2: 1}, 3.0, "the same")
    (only,) = apply_repairs(tracks, [back])
    assert shown((only,))[1] == {f: 100.0 if f < 9 else 200.0 for f in range(20)}


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_exchanges_lose_and_invent_no_frame(make_track: Any, data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 5))
    tracks = tuple(make_track(i, range(40), start_xy=(100 * i + 10, 10)) for i in range(1, count + 1))
    moments = data.draw(st.lists(st.integers(1, 39), max_size=6, unique=True))
    repairs, carries = [], {i: {} for i in range(1, count + 1)}
    for n, frame in enumerate(moments):
        a, b = data.draw(st.permutations(range(1, count + 1)))[:2]
        repairs.append(exchange(a, b, frame, repair_id=n))
    result = apply_repairs(tracks, repairs)
    # Independently: identities walk through the frames and change places at every exchange.
    place = {i: i for i in carries}
    for frame in range(40):
        for repair in repairs:
            if repair.start == frame:
                a, b = repair.continues
                place[a], place[b] = place[b], place[a]
        for track_id, identity in place.items():
            carries[identity][frame] = 100.0 * track_id
    assert shown(result) == carries
    for t in result:
        moved = t.boxes_xyxy[:, 0] != 100 * t.track_id
        assert [s is Source.REPAIRED for s in t.sources] == moved.tolist()


def test_any_repairs_of_the_layer_keep_every_frame_that_is_not_taken_out(chaos: Any) -> None:
    for seed in range(60):
        tracks, galleries = chaos(seed)
        repairs = resolve(tracks, galleries).repairs
        result = apply_repairs(tracks, repairs)
        assert len({t.track_id for t in result}) == len(result)
        gone = {
            (i, f)
            for r in repairs
            if r.kind is RepairKind.TRIM
            for i in r.continues
            for f in range(r.start, r.stop if r.stop is not None else 200)
        }
        before = {
            (f, tuple(b))
            for t in tracks
            for f, b in zip(t.frame_indices.tolist(), t.boxes_xyxy.tolist(), strict=True)
            if (t.track_id, f) not in gone
        }
        after = {
            (f, tuple(b)) for t in result for f, b in zip(t.frame_indices.tolist(), t.boxes_xyxy.tolist(), strict=True)
        }
        assert after <= before
        # What is missing lost against another stretch of the same object: at most the four frames that links may share.
        assert len(before - after) <= 4 * len(repairs)
        for t in result:
            assert np.all(np.diff(t.frame_indices) > 0)


def reseed(patch: Track, track_id: int, *, start: int, stop: int) -> Repair:
    return Repair(9, RepairKind.RESEED, start, stop, {patch.track_id: (track_id, start - 1)}, {}, 0.0, "a gap filled")


def test_masks_of_a_gap_are_shown_with_the_rest(three: Any, make_track: Any, part: Any, joined: Any) -> None:
    patch = replace(make_track(9, range(10, 14), start_xy=(510, 10)), sources=(Source.RESEEDED,) * 4)
    everything = (joined(part(three[0], 0, 10), part(three[0], 14)), *three[1:], patch)
    result = apply_repairs(everything, [reseed(patch, 1, start=10, stop=14)])
    assert [t.track_id for t in result] == [1, 2, 3]
    assert shown(result)[1] == {f: 500.0 if 10 <= f < 14 else 100.0 for f in range(30)}
    assert {result[0].sources[f] for f in range(10, 14)} == {Source.REPAIRED}
    assert result[1] is three[1]


def test_masks_of_a_gap_are_gone_without_their_repair(three: Any, make_track: Any) -> None:
    patch = replace(make_track(9, range(10, 14), start_xy=(510, 10)), sources=(Source.RESEEDED,) * 4)
    assert shown(apply_repairs((*three, patch), ())) == shown(three)
    assert shown(apply_repairs((*three, patch), [exchange(2, 3, 20)])) == shown(
        apply_repairs(three, [exchange(2, 3, 20)])
    )


def test_trace_names_the_propagated_track_of_every_mask(three: Any) -> None:
    origins = trace(three, [exchange(1, 2, 12)])
    assert origins[1] == {f: 1 if f < 12 else 2 for f in range(30)}
    assert origins[3] == dict.fromkeys(range(30), 3)


def test_masks_of_a_gap_change_nobodys_id(three: Any, make_track: Any) -> None:
    """The one who was first seen in the middle of a track keeps the id it had before any gap was filled."""
    split = Repair(1, RepairKind.SPLIT, 20, None, {2: None}, {2: 4}, 1.0, "somebody else")
    patch = replace(make_track(9, range(10, 14), start_xy=(510, 10)), sources=(Source.RESEEDED,) * 4)
    ids = [t.track_id for t in apply_repairs(three, [split])]
    assert ids == [1, 2, 3, 4]
    assert [t.track_id for t in apply_repairs((*three, patch), [split, reseed(patch, 1, start=10, stop=14)])] == ids
