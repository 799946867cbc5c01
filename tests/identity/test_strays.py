from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from fiftyone_plugin.geometry import encode_mask
from fiftyone_plugin.identity.links import Link, Links
from fiftyone_plugin.identity.proposals import propose
from fiftyone_plugin.identity.strays import leave_out_strays
from fiftyone_plugin.identity.tracklets import Tracklet, cut_tracks
from fiftyone_plugin.types import RepairKind, Rle, Track

KEEP = Link(5.0, 1.0, 2.0, 2.0, is_keep=True)
SIDE = 20


def square(left_px: int, *, side_px: int = SIDE) -> Rle:
    mask = np.zeros((120, 240), np.bool_)
    mask[10 : 10 + side_px, left_px : left_px + side_px] = True
    return encode_mask(mask)


def masked(track: Track, left_px: int) -> Track:
    """The track with squares that stand still in place of its boxes and masks."""
    box = [left_px, 10, left_px + SIDE, 10 + SIDE]
    boxes = np.tile(np.array(box, np.float32), (len(track), 1))
    return replace(track, boxes_xyxy=boxes, masks=(square(left_px),) * len(track))


class Chain:
    """Three stretches of one object, each carried by a track of its own; the one in the middle is short."""

    def __init__(
        self, make_track: Any, *, worth: float, frames: int = 8, looks: int = 1, own: tuple[int, int, int] = (1, 2, 3)
    ) -> None:
        edges = [0, 40, 40 + frames, 100]
        whole = {i: masked(make_track(i, range(100)), 50) for i in set(own)}
        self.tracks = list(whole.values())
        self.tracklets: list[Tracklet] = []
        for k, (a, b) in enumerate(pairwise(edges)):
            piece = cut_tracks([make_track(own[k], range(a, b))], {}, [], {})[0]
            self.tracklets.append(replace(piece, index=k, looks=looks, matches=looks))
        self.links = Links(
            {0: 1, 1: 2}, {(0, 1): KEEP, (1, 2): KEEP}, {(0, 1): 3.0, (1, 2): 5.0}, {(0, 1): 4.0}, {1: worth}
        )

    def strays(self, *, gone: frozenset[int] = frozenset(), vouched_for: frozenset[int] = frozenset()) -> set[int]:
        return leave_out_strays(self.tracks, [0, 1, 2], self.tracklets, self.links, gone, vouched_for)

    def reshape(self, track_id: int, mask: Rle) -> None:
        """In the frames of the stretch in the middle."""
        for k, track in enumerate(self.tracks):
            if track.track_id == track_id:
                t = self.tracklets[1]
                assert track.masks is not None
                masks = (*track.masks[: t.start], *(mask,) * (t.stop - t.start), *track.masks[t.stop :])
                self.tracks[k] = replace(track, masks=masks)

    def accompany(self, track: Track) -> None:
        """Another track is shown beside the chain."""
        other = replace(self.tracklets[0], index=3, track_id=track.track_id, start=0, stop=100)
        self.tracks.append(track)
        self.tracklets.append(other)


def test_short_stretch_whose_place_is_worth_little_is_nobodys(make_track: Any) -> None:
    chain = Chain(make_track, worth=3.5)
    assert chain.strays() == {1}
    assert chain.links.successor == {0: 2}
    assert (chain.links.margins[0, 2], chain.links.behind[0, 2]) == (3.0, 4.0)


@pytest.mark.parametrize(
    ("given", "spoken"),
    [
        pytest.param({"worth": 5.0}, {}, id="certain"),
        pytest.param({"worth": 3.5, "frames": 13}, {}, id="long"),
        pytest.param({"worth": 3.5, "looks": 0}, {}, id="tracks-of-others"),
        pytest.param({"worth": 3.5, "own": (1, 1, 1)}, {}, id="between-stretches-of-its-own-track"),
        pytest.param({"worth": 3.5}, {"gone": frozenset({1})}, id="gone-already"),
        pytest.param({"worth": 3.5}, {"vouched_for": frozenset({1})}, id="a-person-spoke-of-it"),
    ],
)
def test_other_stretches_stay_as_they_are(make_track: Any, given: dict[str, Any], spoken: dict[str, Any]) -> None:
    chain = Chain(make_track, **given)
    assert chain.strays(**spoken) == set()
    assert chain.links.successor == {0: 1, 1: 2}


def test_boxes_alone_make_no_strays(make_track: Any) -> None:
    chain = Chain(make_track, worth=0.0)
    chain.tracks[0] = replace(chain.tracks[0], masks=None)
    assert chain.strays() == set()


def test_doubt_between_stretches_of_its_own_track_must_be_greater(make_track: Any) -> None:
    assert Chain(make_track, worth=2.5, own=(1, 1, 1)).strays() == {1}
    assert Chain(make_track, worth=2.5, own=(1, 1, 2)).strays() == {1}
    assert Chain(make_track, worth=3.5, own=(1, 1, 2)).strays() == {1}


def test_mask_of_another_size_is_more_doubtful(make_track: Any) -> None:
    """One on two animals is larger, one on half of one smaller."""
    for side_px in (30, 14):
        chain = Chain(make_track, worth=5.0)
        chain.reshape(2, square(50, side_px=side_px))
        assert chain.strays() == {1}


def test_what_another_track_shows_as_well_does_no_harm(make_track: Any) -> None:
    chain = Chain(make_track, worth=2.0)
    chain.accompany(masked(make_track(9, range(100)), 52))
    assert chain.strays() == set()
    beside = Chain(make_track, worth=2.0)
    beside.accompany(masked(make_track(9, range(100)), 66))
    assert beside.strays() == {1}


def test_what_is_taken_out_shows_nothing(make_track: Any) -> None:
    chain = Chain(make_track, worth=2.0)
    chain.accompany(masked(make_track(9, range(100)), 52))
    assert chain.strays(gone=frozenset({3})) == {1}


def test_worth_of_the_last_stretch_is_that_of_its_only_link(make_track: Any) -> None:
    """No step takes the end of a chain out alone: that is the same as breaking its link."""
    chain = Chain(make_track, worth=np.inf)
    chain.links.successor = {0: 1}
    chain.links.margins[0, 1] = 9.0
    assert chain.strays() == set()
    chain.links.margins[0, 1] = 1.0
    assert chain.strays() == {1}


def test_strays_at_the_ends_of_a_chain_leave_the_rest(make_track: Any) -> None:
    chain = Chain(make_track, worth=1.0)
    chain.links.successor = {1: 2}
    assert chain.strays() == {1}
    assert chain.links.successor == {}
    chain.links.successor = {0: 1}
    assert chain.strays() == {1}
    assert chain.links.successor == {}


def test_stray_is_taken_out_and_the_repair_says_why(make_track: Any) -> None:
    chain = Chain(make_track, worth=1.0)
    strays = chain.strays()
    found = propose(chain.tracklets, chain.links, {}, [], [], set(), strays, min_margin=0.5)
    (trim,) = (r for r in found.repairs if r.kind is RepairKind.TRIM)
    assert (trim.start, trim.stop, dict(trim.continues)) == (40, 48, {2: None})
    assert "could as well show another object" in trim.reason
