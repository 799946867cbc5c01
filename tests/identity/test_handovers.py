from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiftyone_plugin.identity import apply_repairs, resolve
from fiftyone_plugin.identity.candidates import AUDIT
from fiftyone_plugin.identity.encounters import Contact, Handover, find_contacts
from fiftyone_plugin.identity.handovers import Continuation, find_continuations, find_handovers
from fiftyone_plugin.types import RepairKind, Track


def told(tracks: Any, **settings: Any) -> list[Handover]:
    return [h for c in find_handovers(tracks, find_contacts(tracks), **settings) for h in c.handovers]


def walkers(make_track: Any, *, speed: float = 2.0, noise: float = 0.0, seed: int = 0) -> tuple[Track, Track]:
    """Two that walk through each other, deepest at frame 40, one of them slightly larger."""
    rng = np.random.default_rng(seed)
    frames = np.arange(80)
    made = []
    for track_id, sign, size in ((1, 1, 20), (2, -1, 24)):
        centres = np.stack([200 + sign * speed * (frames - 40), np.full(80, 50 + 2.0 * track_id)], axis=1)
        centres += rng.normal(0, noise, centres.shape)
        made.append(
            make_track(track_id, frames, boxes=np.concatenate([centres - size / 2, centres + size / 2], axis=1))
        )
    return made[0], made[1]


@pytest.mark.parametrize("frame", [36, 40, 44], ids=["before-the-deepest", "deepest", "after-it"])
def test_exchange_is_told_at_its_frame_in_both_tracks(make_track: Any, exchanged: Any, frame: int) -> None:
    first, second = told(exchanged(walkers(make_track), 1, 2, frame))
    assert (first.frame, first.target, first.source) == (frame, 1, 2)
    assert (second.frame, second.target, second.source) == (frame, 2, 1)
    assert first.log_odds + second.log_odds > 20


def test_tracks_that_keep_their_objects_are_told_nothing(make_track: Any) -> None:
    assert told(walkers(make_track)) == []


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), noise=st.floats(0, 4), speed=st.floats(0.5, 6))
def test_unsteady_boxes_alone_tell_nothing(make_track: Any, seed: int, noise: float, speed: float) -> None:
    """What is usual is learnt from the video: boxes that tremble raise it."""
    assert told(walkers(make_track, speed=speed, noise=noise, seed=seed)) == []


def test_two_exchanges_in_one_contact_are_both_told(make_track: Any, exchanged: Any) -> None:
    tracks = exchanged(exchanged(walkers(make_track, speed=0.5), 1, 2, 34), 1, 2, 48)
    assert sorted({h.frame for h in told(tracks)}) == [34, 48]


def test_exchange_where_nothing_moves_and_all_are_alike_cannot_be_told(make_track: Any, exchanged: Any) -> None:
    tracks = (make_track(1, range(40), start_xy=(50, 50)), make_track(2, range(40), start_xy=(50.2, 50)))
    assert told(exchanged(tracks, 1, 2, 20)) == []


def test_track_that_takes_over_the_path_of_one_that_ends_is_told(make_track: Any, part: Any, joined: Any) -> None:
    a, b = walkers(make_track)
    taken = joined(part(a, 0, 38), part(b, 38))
    (handover,) = told((taken, part(b, 0, 38)))
    assert (handover.frame, handover.target, handover.source) == (38, 1, 2)


def test_track_that_ends_beside_another_is_no_takeover(make_track: Any, part: Any) -> None:
    a, b = walkers(make_track)
    assert told((a, part(b, 0, 38))) == []


def test_duplicates_have_no_handover(make_track: Any) -> None:
    tracks = (make_track(1, range(60)), make_track(2, range(20, 40)))
    (contact,) = find_handovers(tracks, find_contacts(tracks))
    assert contact.duplicates
    assert contact.handovers == ()


def test_few_boxes_tell_nothing(make_track: Any) -> None:
    tracks = (make_track(1, [0, 1]), make_track(2, [1, 2], start_xy=(5, 0)))
    contacts = [Contact((1, 2), 0, 3, 1, 0.5, ())]
    assert find_handovers(tracks, contacts)[0].handovers == ()


def test_exchange_is_repaired_although_nobody_was_seen(make_track: Any, exchanged: Any) -> None:
    truth = walkers(make_track)
    tracks = exchanged(truth, 1, 2, 42)
    result = resolve(tracks, {})
    (repair,) = result.repairs
    assert (repair.kind, repair.start) == (RepairKind.EXCHANGE, 42)
    (decision,) = [d for d in result.decisions if d.encounter.encounter_id == repair.encounter_id]
    assert decision.terms["motion"] > 3
    for mended, true in zip(apply_repairs(tracks, result.repairs), truth, strict=True):
        assert np.array_equal(mended.boxes_xyxy, true.boxes_xyxy)


def test_takeover_is_repaired_although_nobody_was_seen(make_track: Any, part: Any, joined: Any) -> None:
    a, b = walkers(make_track)
    tracks = (joined(part(a, 0, 38), part(b, 38)), part(b, 0, 38), part(a, 41, track_id=3))
    by_id = {t.track_id: t for t in apply_repairs(tracks, resolve(tracks, {}).repairs)}
    assert np.array_equal(by_id[2].boxes_xyxy, b.boxes_xyxy)


def test_looks_that_say_otherwise_outweigh_a_handover(make_track: Any, make_gallery: Any) -> None:
    """Two that meet and turn round leap along each other's path, but remain who they are."""
    frames = np.arange(80)
    towards = np.minimum(frames, 79 - frames) * 2.0
    tracks = []
    for i, sign in ((1, 1), (2, -1)):
        x = 100 + sign * (towards - 82)
        tracks.append(make_track(i, frames, boxes=np.stack([x - 10, x * 0 + 40, x + 10, x * 0 + 60], axis=1)))
    assert told(tracks) != []
    seen = [f for f in frames.tolist() if not 32 <= f < 48]
    galleries = {i: make_gallery(i, seen, i, noise=0.02) for i in (1, 2)}
    assert resolve(tracks, galleries).repairs == ()


def trembling(
    make_track: Any, track_id: int, frames: Any, *, seed: int = 0, y: float = 50, noise: float = 0.3
) -> Track:
    """A square of 20 pixels that walks to the right and trembles, the same way in every call with the same seed."""
    at = np.asarray(list(frames))
    rng = np.random.default_rng(seed)
    tremor = rng.normal(0, noise, (200, 4))
    centres = np.stack([100 + 1.5 * at, np.full(len(at), y)], axis=1)
    return make_track(track_id, at, boxes=np.concatenate([centres - 10, centres + 10], axis=1) + tremor[at])


def fragments(make_track: Any, *, gap: int = 1, seed: int = 0, noise: float = 0.3) -> tuple[Track, Track]:
    """One object as tracks 1 and 2."""
    return (
        trembling(make_track, 1, range(40), seed=seed, noise=noise),
        trembling(make_track, 2, range(40 + gap, 80), seed=seed, noise=noise),
    )


@settings(max_examples=40, deadline=None)
@given(gap=st.integers(0, 3), seed=st.integers(0, 10_000), noise=st.floats(0, 0.5))
def test_track_that_goes_on_as_another_is_told(make_track: Any, gap: int, seed: int, noise: float) -> None:
    (told_once,) = find_continuations(fragments(make_track, gap=gap, seed=seed, noise=noise))
    assert (told_once.source, told_once.last_frame, told_once.target) == (1, 39, 2)
    assert 0 < told_once.log_odds <= 6


def test_longer_gap_is_not_told(make_track: Any) -> None:
    assert find_continuations(fragments(make_track, gap=4)) == []
    assert len(find_continuations(fragments(make_track, gap=4), max_gap_frames=4)) == 1


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), noise=st.floats(0, 2), angle=st.floats(0, 6.3), distance=st.floats(20, 60))
def test_track_that_begins_an_object_away_is_too_weak_to_join(
    make_track: Any, seed: int, noise: float, angle: float, distance: float
) -> None:
    a, b = fragments(make_track, seed=seed, noise=noise)
    shift = np.tile(distance * np.array([np.cos(angle), np.sin(angle)]), 2).astype(np.float32)
    told_odds = [
        c.log_odds for c in find_continuations((a, make_track(2, b.frame_indices, boxes=b.boxes_xyxy + shift)))
    ]
    assert all(odds < -AUDIT.resuming_elsewhere for odds in told_odds)


@settings(max_examples=40, deadline=None)
@given(
    gap=st.integers(0, 3),
    seed=st.integers(0, 10_000),
    noise=st.floats(0.1, 2),
    scale=st.floats(0.5, 8),
    shift=st.floats(-300, 300),
)
def test_odds_do_not_depend_on_the_direction_of_time_or_the_size_of_the_picture(
    make_track: Any, gap: int, seed: int, noise: float, scale: float, shift: float
) -> None:
    tracks = fragments(make_track, gap=gap, seed=seed, noise=noise)
    # Without the limit, so that the odds themselves are compared.
    usual = {(c.source, c.target): c.log_odds for c in find_continuations(tracks, max_log_odds=100)}
    back = [make_track(t.track_id, 100 - t.frame_indices[::-1], boxes=t.boxes_xyxy[::-1]) for t in tracks]
    large = [make_track(t.track_id, t.frame_indices, boxes=scale * t.boxes_xyxy + shift) for t in tracks]
    in_reverse = {(c.target, c.source): c.log_odds for c in find_continuations(back, max_log_odds=100)}
    enlarged = {(c.source, c.target): c.log_odds for c in find_continuations(large, max_log_odds=100)}
    assert in_reverse == pytest.approx(usual, abs=0.05)
    assert enlarged == pytest.approx(usual, abs=0.05)


@pytest.mark.parametrize("noise", [0.05, 4.0], ids=["steady", "unsteady"])
def test_boxes_that_tremble_tell_less(make_track: Any, noise: float) -> None:
    """The same step says less the more all boxes of the video stray."""
    others = [trembling(make_track, 10 + k, range(80), seed=k, y=200 + 60.0 * k, noise=noise) for k in range(4)]
    told_odds = [
        c.log_odds for c in find_continuations((*fragments(make_track, noise=0.05), *others), max_log_odds=100)
    ]
    assert (told_odds[0] > 14) if noise < 1 else (told_odds == [] or told_odds[0] < 8)


def test_two_tracks_that_could_go_on_are_both_left(make_track: Any) -> None:
    a, b = fragments(make_track)
    rival = make_track(3, b.frame_indices, boxes=b.boxes_xyxy + np.float32(0.4))
    assert all(c.log_odds < 1 for c in find_continuations((a, b, rival)))


def test_two_tracks_that_could_have_been_before_are_both_left(make_track: Any) -> None:
    a, b = fragments(make_track)
    rival = make_track(3, a.frame_indices, boxes=a.boxes_xyxy + np.float32(0.4))
    assert all(c.log_odds < 1 for c in find_continuations((a, rival, b)))


def test_track_that_is_there_all_the_time_is_a_rival(make_track: Any) -> None:
    """Of a track on the same object that does not end, either could be the one that goes on."""
    a, b = fragments(make_track)
    stays = trembling(make_track, 3, range(80), seed=5)
    assert all(c.log_odds < 1 for c in find_continuations((a, b, stays)))


@pytest.mark.parametrize(("offset", "is_told"), [(4.0, False), (16.0, True)], ids=["mostly-hidden", "in-sight"])
def test_nothing_is_told_of_what_is_behind_another_track(make_track: Any, offset: float, is_told: bool) -> None:
    a, b = fragments(make_track, noise=0.1)
    stands = make_track(3, range(80), start_xy=(160, 50 + offset), size=24)
    assert bool(find_continuations((a, b, stands))) is is_told


@pytest.mark.parametrize("rows", [1, 2], ids=["one-box", "two-boxes"])
def test_fragment_too_short_to_have_a_speed_is_not_told(make_track: Any, rows: int) -> None:
    a, _ = fragments(make_track)
    assert find_continuations((a, trembling(make_track, 2, range(41, 41 + rows)))) == []


def test_track_without_boxes_is_passed_over(make_track: Any) -> None:
    assert find_continuations(()) == []
    assert len(find_continuations((*fragments(make_track), make_track(3, [])))) == 1


def test_object_that_a_takeover_left_is_told_to_go_on(make_track: Any, part: Any, joined: Any) -> None:
    """Track 1 takes over the object of track 2, which ends; the object that 1 was on goes on as track 3."""
    a = make_track(1, range(80), start_xy=(40, 50), step_xy=(2, 0))
    b = make_track(2, range(80), start_xy=(200, 64), step_xy=(-2, 0))
    tracks = (joined(part(a, 0, 39), part(b, 39)), part(b, 0, 39), part(a, 41, track_id=3))
    contacts = find_handovers(tracks, find_contacts(tracks))
    assert find_continuations(tracks) == []
    (told_once,) = find_continuations(tracks, contacts)
    assert (told_once.source, told_once.last_frame, told_once.target) == (1, 38, 3)
    assert isinstance(told_once, Continuation)
