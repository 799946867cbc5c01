from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fiftyone_plugin.config import IdentityOptions
from fiftyone_plugin.errors import OptionError
from fiftyone_plugin.identity import apply_repairs, resolve
from fiftyone_plugin.identity.constraints import Anchor, CannotLink, Constraint, Lock, MustLink, Remove, SplitAt
from fiftyone_plugin.identity.counts import Solution, solve_counted
from fiftyone_plugin.identity.links import Links
from fiftyone_plugin.identity.repair import trace
from fiftyone_plugin.identity.tracklets import cut_tracks
from fiftyone_plugin.types import Track


def anchor(track: Track, frame: int) -> Anchor:
    row = int(np.searchsorted(track.frame_indices, frame))
    x0, y0, x1, y1 = track.boxes_xyxy[row].tolist()
    return Anchor(track.track_id, frame, (x0, y0, x1, y1))


def owners(tracks: Any, galleries: Any, *constraints: Constraint, **options: Any) -> dict[tuple[int, int], int]:
    """Which object every mask of every propagated track is said to show."""
    found = resolve(tracks, galleries, options=IdentityOptions(**options), constraints=constraints)
    assert apply_repairs(tracks, found.repairs)
    return {
        (carrier, frame): track_id
        for track_id, frames in trace(tracks, found.repairs).items()
        for frame, carrier in frames.items()
    }


@pytest.fixture(scope="module")
def away(make_track: Any, make_gallery: Any) -> Any:
    """Three animals of which one leaves as track 1; somebody comes as track 3, and `who` says who."""

    def build(who: int, *, spread: float = 1.0) -> Any:
        tracks = (
            make_track(1, range(40), start_xy=(60, 40)),
            make_track(2, range(120), start_xy=(300, 40)),
            make_track(3, range(80, 120), start_xy=(200, 200)),
            make_track(4, range(120), start_xy=(500, 40)),
        )
        galleries = {
            1: make_gallery(1, range(40), 1, spread=spread),
            2: make_gallery(2, range(120), 2, spread=spread),
            3: make_gallery(3, range(80, 120), who, spread=spread),
            4: make_gallery(4, range(120), 4, spread=spread),
        }
        return tracks, galleries

    return build


def test_without_a_word_looks_decide(away: Any) -> None:
    assert owners(*away(1))[3, 90] == 1
    assert owners(*away(5))[3, 90] == 3


def test_must_link_joins_what_looks_keep_apart(away: Any) -> None:
    tracks, galleries = away(5)
    shown = owners(tracks, galleries, MustLink(anchor(tracks[0], 10), anchor(tracks[2], 100)))
    assert {shown[3, f] for f in range(80, 120)} == {1}
    assert {shown[2, f] for f in range(120)} == {2}


def test_cannot_link_parts_what_looks_join(away: Any) -> None:
    tracks, galleries = away(1)
    shown = owners(tracks, galleries, CannotLink(anchor(tracks[2], 100), anchor(tracks[0], 10)))
    assert shown[3, 90] == 3


def test_split_begins_another_object_where_a_person_said_so(away: Any) -> None:
    tracks, galleries = away(5)
    shown = owners(tracks, galleries, SplitAt(anchor(tracks[1], 59), anchor(tracks[1], 60)))
    assert {shown[2, f] for f in range(60)} == {2}
    later = {shown[2, f] for f in range(60, 120)}
    assert len(later) == 1
    assert later.isdisjoint({1, 2, 3, 4})


def test_lock_holds_against_the_looks(crossing: Any) -> None:
    tracks, galleries = crossing(is_exchanged=True)
    last = int(tracks[0].frame_indices[-1])
    locked = tuple(anchor(tracks[0], f) for f in (0, last))
    assert owners(tracks, galleries)[1, last] == 2
    assert owners(tracks, galleries, Lock(locked))[1, last] == 1


def test_removed_stretch_is_taken_out_and_the_rest_goes_on(away: Any) -> None:
    tracks, galleries = away(5)
    shown = owners(tracks, galleries, Remove(anchor(tracks[1], 50), anchor(tracks[1], 69)))
    assert not any((2, f) in shown for f in range(50, 70))
    assert {shown[2, f] for f in (*range(50), *range(70, 120))} == {2}


def test_anchor_that_no_track_shows_changes_nothing(away: Any) -> None:
    tracks, galleries = away(5)
    nowhere = Anchor(1, 10, (500.0, 500.0, 520.0, 520.0))
    assert owners(tracks, galleries, MustLink(nowhere, anchor(tracks[2], 100))) == owners(tracks, galleries)


def test_known_count_joins_look_alikes_that_would_stay_apart(away: Any) -> None:
    tracks, galleries = away(1, spread=0.0)
    assert owners(tracks, galleries)[3, 90] == 3
    assert owners(tracks, galleries, counts={"sheep": 3})[3, 90] == 1
    assert owners(tracks, galleries, counts={"sheep": 4}) == owners(tracks, galleries)


def test_known_count_keeps_apart_what_would_be_joined(away: Any) -> None:
    tracks, galleries = away(1)
    assert owners(tracks, galleries, counts={"sheep": 4})[3, 90] == 3


def test_count_of_objects_seen_at_one_time_takes_nobody_out(away: Any) -> None:
    tracks, galleries = away(5)
    shown = owners(tracks, galleries, counts={"sheep": 1})
    assert {shown[2, 10], shown[1, 10]} == {1, 2}


def test_count_of_nothing_is_refused() -> None:
    with pytest.raises(OptionError, match="count of 'sheep' = 0"):
        IdentityOptions(counts={"sheep": 0})


def test_count_is_compared_with_what_is_left_after_tracklets_were_taken_out(make_track: Any) -> None:
    tracklets = [
        replace(cut_tracks([make_track(k + 1, range(20))], {}, [], {})[0], index=k, phrase="sheep") for k in range(3)
    ]
    asked: list[dict[str, float]] = []

    def solve(bonuses: Mapping[str, float]) -> Solution:
        asked.append(dict(bonuses))
        return Solution(Links({}, {}), {}, {2})

    solve_counted(solve, tracklets, [0, 1, 2], {"sheep": 2})
    assert asked == [{}]  # two are left, as many as there should be: nothing is asked for
