from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiftyone_plugin.identity import apply_repairs, resolve
from fiftyone_plugin.identity.encounters import Contact, Handover, find_contacts
from fiftyone_plugin.identity.handovers import find_handovers
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
