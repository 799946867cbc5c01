from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fiftyone_plugin.geometry import encode_mask
from fiftyone_plugin.identity.encounters import (
    Cut,
    CutKind,
    find_contacts,
    find_dips,
    find_gaps,
    find_jumps,
    frames_to_mask,
    intervals,
    merge_cuts,
)


def pair(make_track: Any, offsets: list[float], *, other: float = 0.0) -> tuple[Any, Any]:
    """A square of 20 that stands still, and one that is `offsets[f]` pixels to the right of it on frame f."""
    frames = range(len(offsets))
    boxes = np.array([[x, other, x + 20, other + 20] for x in offsets])
    return make_track(1, frames, start_xy=(10, 10)), make_track(2, frames, boxes=boxes)


def test_intervals_joins_runs_over_small_gaps() -> None:
    frames = np.array([3, 4, 5, 8, 9, 20], np.int64)
    assert list(intervals(frames, max_gap=2)) == [(3, 10), (20, 21)]
    assert list(intervals(frames, max_gap=1)) == [(3, 6), (8, 10), (20, 21)]


def test_intervals_of_nothing_is_nothing() -> None:
    assert list(intervals(np.zeros(0, np.int64), max_gap=3)) == []


@given(st.sets(st.integers(0, 60), min_size=1), st.integers(0, 6))
def test_intervals_cover_every_frame_and_lie_apart(frames: set[int], max_gap: int) -> None:
    found = list(intervals(np.array(sorted(frames), np.int64), max_gap=max_gap))
    assert all(sum(a <= f < b for a, b in found) == 1 for f in frames)
    assert all(a in frames and b - 1 in frames for a, b in found)
    assert all(later[0] - earlier[1] > max_gap for earlier, later in pairwise(found))


def test_contact_has_its_range_and_its_deepest_frame(make_track: Any) -> None:
    offsets = [60, 40, 19, 15, 8, 12, 17, 19, 40, 60]
    (contact,) = find_contacts(pair(make_track, offsets))
    assert contact.track_ids == (1, 2)
    # At 19 pixels the boxes share a twentieth: less than the tenth that counts.
    assert (contact.start, contact.stop, contact.deepest) == (3, 7, 4)
    assert contact.max_iou == pytest.approx(12 / 28, abs=1e-5)
    assert contact.duplicates == ()


def test_contacts_of_one_pair_near_in_time_are_one(make_track: Any) -> None:
    far, near = [60.0] * 4, [10.0] * 3
    assert len(find_contacts(pair(make_track, [*near, *far, *near]))) == 1
    assert len(find_contacts(pair(make_track, [*near, *far, 60.0, *near]))) == 2


def test_tracks_that_never_share_a_frame_have_no_contact(make_track: Any) -> None:
    assert find_contacts([make_track(1, range(10)), make_track(2, range(10, 20))]) == []
    assert find_contacts([make_track(1, range(0, 20, 2)), make_track(2, range(1, 20, 2))]) == []
    assert find_contacts([make_track(1, []), make_track(2, range(10))]) == []


def test_box_inside_another_is_a_contact_though_its_iou_is_small(make_track: Any) -> None:
    tracks = [make_track(1, range(5), size=100), make_track(2, range(5), size=10)]
    (contact,) = find_contacts(tracks)
    assert contact.max_iou < 0.02


def test_track_born_on_another_one_is_a_duplicate(make_track: Any) -> None:
    (contact,) = find_contacts([make_track(1, range(30)), make_track(2, range(10, 15))])
    assert contact.duplicates == ((10, 15),)


def test_boxes_that_coincide_for_less_than_three_frames_are_no_duplicate(make_track: Any) -> None:
    (contact,) = find_contacts([make_track(1, range(30)), make_track(2, range(10, 12))])
    assert contact.duplicates == ()


def test_boxes_that_pass_each_other_are_no_duplicate(make_track: Any) -> None:
    """Two boxes alone look like one object for a moment; both live on, apart, so they were two."""
    (contact,) = find_contacts(pair(make_track, [40, 10, 2, 0, 0, 0, 2, 10, 40]))
    assert contact.max_iou == 1.0
    assert contact.duplicates == ()
    (lasting,) = find_contacts(pair(make_track, [40, 10, *[0] * 12, 10, 40]))
    assert lasting.duplicates == ((2, 14),)


@pytest.mark.parametrize(("is_same", "expected"), [(True, ((2, 7),)), (False, ())], ids=["one-object", "one-behind"])
def test_masks_tell_a_duplicate_from_an_object_behind(
    make_track: Any, is_same: bool, expected: tuple[tuple[int, int], ...]
) -> None:
    first, second = pair(make_track, [40, 10, 2, 0, 0, 0, 2, 10, 40])
    upper, lower = np.zeros((40, 80), np.bool_), np.zeros((40, 80), np.bool_)
    upper[0:12, 0:20] = True
    lower[12:20, 0:20] = True
    masks = [encode_mask(m) for m in (upper, upper if is_same else lower)]
    masked = [replace(t, masks=(masks[k],) * len(t)) for k, t in enumerate((first, second))]
    (contact,) = find_contacts(masked)
    assert contact.duplicates == expected


def test_contacts_come_by_start(make_track: Any) -> None:
    still = make_track(1, range(40))
    late, early = make_track(2, range(30, 40)), make_track(3, range(5, 10))
    assert [c.start for c in find_contacts([still, late, early])] == [5, 30]


def test_gap_is_cut_at_its_end_and_riskier_the_longer_it_is(make_track: Any) -> None:
    track = make_track(1, [0, 1, 2, 5, 6, 10, 11, 60])
    cuts = list(find_gaps(track))
    assert [(c.frame, c.kind) for c in cuts] == [(10, CutKind.GAP), (60, CutKind.GAP)]
    assert cuts[0].depth == pytest.approx(3 / 30)
    assert cuts[1].depth == 1.0


def test_flicker_of_one_frame_is_no_jump(make_track: Any) -> None:
    boxes = np.tile([100.0, 100, 120, 120], (20, 1))
    boxes[10] += 60
    assert list(find_jumps(make_track(1, range(20), boxes=boxes))) == []


def test_lasting_leap_is_a_jump(make_track: Any) -> None:
    boxes = np.tile([100.0, 100, 120, 120], (20, 1))
    boxes[10:] += 60
    (cut,) = find_jumps(make_track(1, range(20), boxes=boxes))
    assert (cut.frame, cut.kind) == (10, CutKind.JUMP)


def test_lasting_growth_is_a_jump(make_track: Any) -> None:
    boxes = np.tile([100.0, 100, 120, 120], (20, 1))
    boxes[10:, 2:] += 15
    (cut,) = find_jumps(make_track(1, range(20), boxes=boxes))
    assert cut.frame == 10


def test_even_motion_and_short_tracks_have_no_jump(make_track: Any) -> None:
    assert list(find_jumps(make_track(1, range(30), step_xy=(8, 3)))) == []
    assert list(find_jumps(make_track(1, [4]))) == []


def test_leap_across_a_gap_is_left_to_the_gap(make_track: Any) -> None:
    boxes = np.tile([100.0, 100, 120, 120], (20, 1))
    boxes[10:] += 60
    frames = [*range(10), *range(30, 40)]
    assert list(find_jumps(make_track(1, frames, boxes=boxes))) == []


def doubted(make_track: Any, scores: dict[int, float]) -> Any:
    track = make_track(1, range(40))
    values = np.full(40, 0.99, np.float32)
    values[list(scores)] = list(scores.values())
    return replace(track, scores=values)


def test_dip_is_cut_at_its_lowest_point_and_riskier_the_deeper_it_is(make_track: Any) -> None:
    (shallow,) = find_dips(doubted(make_track, {18: 0.89, 19: 0.84, 20: 0.88}))
    (deep,) = find_dips(doubted(make_track, {18: 0.7, 19: 0.52, 21: 0.6}))
    assert (shallow.frame, shallow.kind) == (deep.frame, deep.kind) == (19, CutKind.DIP)
    assert shallow.depth == pytest.approx(2 * 0.15, abs=1e-5)
    assert deep.depth == pytest.approx(2 * 0.47, abs=1e-5)


def test_dips_apart_are_two(make_track: Any) -> None:
    assert [c.frame for c in find_dips(doubted(make_track, {10: 0.6, 30: 0.7}))] == [10, 30]


@pytest.mark.parametrize(
    "scores",
    [{}, {20: 0.95}, {0: 0.5, 1: 0.5}, {39: 0.5}, dict.fromkeys(range(40), 0.6)],
    ids=["sure", "hardly", "beginning", "end", "never-sure"],
)
def test_no_dip_where_there_is_no_clear_before_and_after(make_track: Any, scores: dict[int, float]) -> None:
    assert list(find_dips(doubted(make_track, scores))) == []


def test_merge_cuts_prefers_what_a_person_said_then_a_handover() -> None:
    contact, handover = Cut(1, 10, CutKind.JUMP, 1.0), Cut(1, 12, CutKind.HANDOVER, 0.1)
    said = Cut(1, 14, CutKind.SAID, 1.0)
    assert merge_cuts([contact, handover]) == [handover]
    assert merge_cuts([handover, replace(contact, frame=13)]) == [handover]
    assert merge_cuts([handover, said]) == [said]


def test_merge_cuts_keeps_the_riskiest_of_near_ones() -> None:
    def cut(frame: int, depth: float, track_id: int = 1) -> Cut:
        return Cut(track_id, frame, CutKind.CONTACT, depth)

    assert merge_cuts([cut(12, 0.9), cut(10, 0.2)]) == [cut(12, 0.9)]
    assert merge_cuts([cut(10, 0.9), cut(12, 0.2)]) == [cut(10, 0.9)]
    assert merge_cuts([cut(10, 0.9), cut(13, 0.2)]) == [cut(10, 0.9), cut(13, 0.2)]
    assert merge_cuts([cut(11, 0.9), cut(10, 0.2, 2)]) == [cut(11, 0.9), cut(10, 0.2, 2)]


def test_frames_to_mask_is_half_open() -> None:
    inside = frames_to_mask(np.arange(6), [(1, 3), (4, 5)])
    assert inside.tolist() == [False, True, True, False, True, False]
