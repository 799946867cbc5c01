from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiftyone_plugin.metrics.encounters import (
    EventKind,
    Share,
    compare_identities,
    find_events,
    judge_events,
    recalled,
    swapped,
)
from fiftyone_plugin.types import Source, Track

LENGTH = 60


def build(track_id: int, frames: Sequence[int], y: float, *, x0: float = 0.0, speed: float = 0.0) -> Track:
    """A box of 10 pixels that moves along a line."""
    at = np.asarray(list(frames), np.int64)
    left = (x0 + speed * at).astype(np.float32)
    boxes = np.stack([left, np.full_like(left, y), left + 10, np.full_like(left, y + 10)], axis=1)
    ones = np.ones(len(at), np.float32)
    return Track(track_id, "sheep", at, boxes, None, ones, ones, ones, (Source.SEED,) * len(at))


def relabelled(truth: Sequence[Track], ids: dict[int, list[tuple[int, int, int]]]) -> list[Track]:
    """The boxes of the truth under other ids: object to [(id, start, stop)]; frames that nobody names are lost."""
    rows: dict[int, list[tuple[int, np.ndarray]]] = {}
    for track in truth:
        for track_id, start, stop in ids[track.track_id]:
            inside = (track.frame_indices >= start) & (track.frame_indices < stop)
            rows.setdefault(track_id, []).extend(
                zip(track.frame_indices[inside].tolist(), track.boxes_xyxy[inside], strict=True)
            )
    tracks = []
    for track_id, of in rows.items():
        of.sort(key=lambda row: row[0])
        ones = np.ones(len(of), np.float32)
        boxes = np.stack([b for _, b in of])
        frames = np.array([f for f, _ in of], np.int64)
        tracks.append(Track(track_id, "sheep", frames, boxes, None, ones, ones, ones, (Source.SEED,) * len(of)))
    return tracks


@pytest.fixture
def crossing() -> list[Track]:
    """Objects 1 and 2 pass through each other: they touch in the frames 26 to 34."""
    return [build(1, range(LENGTH), 0, x0=0, speed=1), build(2, range(LENGTH), 0, x0=60, speed=-1)]


def test_shares_are_added_before_they_are_divided() -> None:
    assert (Share(1, 2) + Share(3, 3)).value == 4 / 5
    assert Share().value is None


def test_find_events_contact(crossing: list[Track]) -> None:
    (event,) = find_events(crossing)
    assert event.kind is EventKind.CONTACT
    assert [(w.object_ids, w.start, w.stop) for w in event.windows] == [((1,), 26, 35), ((2,), 26, 35)]


def test_find_events_joint_absence_and_returns() -> None:
    truth = [build(1, [*range(20), *range(40, 60)], 0), build(2, [*range(30), *range(50, 60)], 50)]
    kinds = [e.kind for e in find_events(truth)]
    assert kinds == [EventKind.JOINT_ABSENCE, EventKind.RETURN, EventKind.RETURN]
    # absences that follow each other are two returns, but nobody is away together
    apart = [build(1, [*range(10), *range(20, 60)], 0), build(2, [*range(30), *range(50, 60)], 50)]
    assert [e.kind for e in find_events(apart)] == [EventKind.RETURN, EventKind.RETURN]


def test_a_swap_at_a_contact_is_counted_once(crossing: list[Track]) -> None:
    swap = relabelled(crossing, {1: [(1, 0, 30), (2, 30, 60)], 2: [(2, 0, 30), (1, 30, 60)]})
    assert swapped(judge_events(crossing, swap)) == Share(1, 1)
    assert swapped(judge_events(crossing, crossing)) == Share(0, 1)


def test_a_new_id_after_a_contact_is_no_swap(crossing: list[Track]) -> None:
    broken = relabelled(crossing, {1: [(1, 0, 30), (3, 30, 60)], 2: [(2, 0, 60)]})
    assert swapped(judge_events(crossing, broken)) == Share(0, 1)


def test_a_flicker_beside_a_contact_does_not_decide_it(crossing: list[Track]) -> None:
    # for three frames right after the contact the masks sit on the other one
    flicker = relabelled(
        crossing, {1: [(1, 0, 35), (2, 35, 38), (1, 38, 60)], 2: [(2, 0, 35), (1, 35, 38), (2, 38, 60)]}
    )
    assert swapped(judge_events(crossing, flicker)) == Share(0, 1)


def test_a_swap_while_both_are_away_is_a_swap() -> None:
    truth = [build(1, [*range(20), *range(40, 60)], 0), build(2, [*range(20), *range(40, 60)], 50)]
    swap = relabelled(truth, {1: [(1, 0, 30), (2, 30, 60)], 2: [(2, 0, 30), (1, 30, 60)]})
    judged = judge_events(truth, swap)
    assert swapped(judged) == Share(1, 1)
    assert recalled(judged) == Share(0, 2)


def test_recalled_needs_the_old_id_and_to_be_found_again() -> None:
    truth = [build(1, [*range(20), *range(40, 60)], 0)]
    assert recalled(judge_events(truth, truth)) == Share(1, 1)
    renamed = relabelled(truth, {1: [(1, 0, 20), (2, 40, 60)]})
    assert recalled(judge_events(truth, renamed)) == Share(0, 1)
    lost = relabelled(truth, {1: [(1, 0, 20)]})
    assert recalled(judge_events(truth, lost)) == Share(0, 1)
    unseen = relabelled(truth, {1: [(1, 40, 60)]})
    assert recalled(judge_events(truth, unseen)) == Share(0, 0)


def test_compare_a_swap_that_was_mended_some_frames_late(crossing: list[Track]) -> None:
    before = relabelled(crossing, {1: [(1, 0, 30), (2, 30, 60)], 2: [(2, 0, 30), (1, 30, 60)]})
    late = relabelled(crossing, {1: [(1, 0, 30), (2, 30, 33), (1, 33, 60)], 2: [(2, 0, 30), (1, 30, 33), (2, 33, 60)]})
    change = compare_identities(crossing, before, late)
    assert (len(change.errors), len(change.mended), len(change.remaining), len(change.harmed)) == (2, 2, 0, 0)
    assert change.recall == Share(2, 2)
    assert change.precision == Share(2, 2)


def test_compare_a_repair_in_the_wrong_place_is_harm(crossing: list[Track]) -> None:
    before = relabelled(crossing, {1: [(1, 0, 30), (2, 30, 60)], 2: [(2, 0, 30), (1, 30, 60)]})
    misplaced = relabelled(
        crossing, {1: [(1, 0, 30), (2, 30, 45), (1, 45, 60)], 2: [(2, 0, 30), (1, 30, 45), (2, 45, 60)]}
    )
    change = compare_identities(crossing, before, misplaced)
    assert (len(change.mended), len(change.remaining), len(change.harmed)) == (0, 4, 2)


def test_compare_breaking_what_was_right_is_harm(crossing: list[Track]) -> None:
    broken = relabelled(crossing, {1: [(1, 0, 40), (3, 40, 60)], 2: [(2, 0, 60)]})
    change = compare_identities(crossing, crossing, broken)
    (harm,) = change.harmed
    assert (harm.object_id, harm.last_frame, harm.old_id, harm.frame, harm.new_id) == (1, 39, 1, 40, 3)
    assert change.precision == Share(0, 1)


def test_compare_a_join_of_two_objects_is_seen_although_no_link_breaks() -> None:
    truth = [build(1, range(20), 0), build(2, range(30, 60), 50)]
    joined = relabelled(truth, {1: [(1, 0, 60)], 2: [(1, 0, 60)]})
    change = compare_identities(truth, truth, joined)
    assert change.harmed == ()
    assert change.new_false_joins == ((1, 2),)
    # ... and one that was there before is no new one
    assert compare_identities(truth, joined, joined).new_false_joins == ()


def test_compare_an_object_that_is_lost_is_not_mended() -> None:
    truth = [build(1, range(60), 0)]
    before = relabelled(truth, {1: [(1, 0, 30), (2, 30, 60)]})
    after = relabelled(truth, {1: [(1, 0, 20)]})
    change = compare_identities(truth, before, after)
    assert change.recall == Share(0, 1)


def _renamed(tracks: Sequence[Track], names: dict[int, int]) -> list[Track]:
    return [replace(t, track_id=names[t.track_id]) for t in tracks]


@given(
    cuts=st.lists(st.integers(1, LENGTH - 1), max_size=6, unique=True),
    names=st.permutations(range(1, 9)),
)
@settings(max_examples=40, deadline=None)
def test_no_change_is_no_harm_and_names_do_not_matter(cuts: list[int], names: list[int]) -> None:
    truth = [build(1, range(LENGTH), 0), build(2, range(LENGTH), 50)]
    edges = [0, *sorted(cuts), LENGTH]
    pieces = list(pairwise(edges))
    tracks = relabelled(truth, {1: [(k + 1, a, b) for k, (a, b) in enumerate(pieces)], 2: [(8, 0, LENGTH)]})
    other = _renamed(tracks, dict(zip(range(1, 9), names, strict=True)))
    change = compare_identities(truth, tracks, other)
    assert change.mended == change.harmed == change.new_false_joins == ()
    assert len(change.errors) == len(change.remaining)
    assert swapped(judge_events(truth, tracks)) == swapped(judge_events(truth, other))


@given(cut=st.integers(12, LENGTH - 12))
@settings(max_examples=20, deadline=None)
def test_undoing_a_swap_mends_all_and_doing_it_harms_as_much(cut: int) -> None:
    truth = [build(1, range(LENGTH), 0), build(2, range(LENGTH), 50)]
    swap = relabelled(truth, {1: [(1, 0, cut), (2, cut, 60)], 2: [(2, 0, cut), (1, cut, 60)]})
    there, back = compare_identities(truth, truth, swap), compare_identities(truth, swap, truth)
    assert len(there.harmed) == len(back.mended) == 2
    assert len(there.new_false_joins) == 2
    assert back.new_false_joins == back.harmed == ()
