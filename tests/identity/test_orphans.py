from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from fiftyone_plugin.identity import apply_repairs, resolve
from fiftyone_plugin.identity.links import Link, Links
from fiftyone_plugin.identity.orphans import _insert, leave_out_strays
from fiftyone_plugin.identity.proposals import propose
from fiftyone_plugin.identity.tracklets import Tracklet, cut_tracks
from fiftyone_plugin.types import Outcome, RepairKind, Support, Track

KEEP = Link(5.0, 1.0, 2.0, 2.0, is_keep=True)


def lanes(make_track: Any, make_gallery: Any, boxes: np.ndarray | None = None) -> tuple[tuple[Track, ...], dict]:
    """Track 1 looks like somebody unknown from frame 60 on; 2 and 3 walk far from it."""
    tracks = (
        make_track(1, range(120), start_xy=(20, 20), step_xy=(1, 0), boxes=boxes),
        make_track(2, range(120), start_xy=(20, 120), step_xy=(1, 0)),
        make_track(3, range(120), start_xy=(20, 220), step_xy=(1, 0)),
    )
    galleries = {i: make_gallery(i, range(120), i) for i in (2, 3)}
    galleries[1] = make_gallery(1, range(120), [1] * 60 + [9] * 60)
    return tracks, galleries


def test_other_look_alone_makes_no_new_identity(make_track: Any, make_gallery: Any) -> None:
    tracks, galleries = lanes(make_track, make_gallery)
    result = resolve(tracks, galleries)
    assert result.repairs == ()
    doubtful = [d for d in result.decisions if d.outcome is Outcome.ABSTAIN]
    assert [(d.encounter.track_ids, d.margin) for d in doubtful] == [((1,), 0.0)]
    assert 0.5 < doubtful[0].confidence < 0.75  # tracks of others are mostly right
    assert abs(doubtful[0].encounter.start - 60) <= 5


def test_other_look_at_another_place_is_a_new_identity(make_track: Any, make_gallery: Any) -> None:
    boxes = np.tile([10.0, 10, 30, 30], (120, 1))
    boxes[60:] += [400, 0, 400, 0]
    tracks, galleries = lanes(make_track, make_gallery, boxes)
    result = resolve(tracks, galleries)
    (repair,) = result.repairs
    assert (repair.kind, repair.start, dict(repair.relabels)) == (RepairKind.SPLIT, 60, {1: 4})


def test_short_stretch_with_another_look_is_not_taken_out_without_a_detector(
    make_track: Any, make_gallery: Any
) -> None:
    tracks, galleries = lanes(make_track, make_gallery)
    galleries[1] = make_gallery(1, range(120), [1] * 108 + [9] * 12)
    assert resolve(tracks, galleries).repairs == ()


@pytest.mark.parametrize("is_found", [True, False], ids=["found", "never-found"])
def test_track_that_the_detector_never_finds_is_taken_out(make_track: Any, make_gallery: Any, is_found: bool) -> None:
    tracks, galleries = lanes(make_track, make_gallery)
    galleries[1] = make_gallery(1, range(120), 1)
    looks = np.arange(8, 120, 16)

    def support(track_id: int, matched: bool) -> Support:
        return Support(track_id, looks, np.full(len(looks), matched), ("sheep" if matched else "",) * len(looks))

    supports = {1: support(1, is_found), 2: support(2, True), 3: support(3, True)}
    result = resolve(tracks, galleries, supports)
    assert [r.kind for r in result.repairs] == ([] if is_found else [RepairKind.TRIM])
    assert len(apply_repairs(tracks, result.repairs)) == (3 if is_found else 2)


def test_stretch_put_between_two_leaves_the_doubt_where_it_was() -> None:
    """What spoke for the link speaks for what lies behind it; the stretch itself is as doubtful as the link was."""
    links = Links({0: 2}, {(0, 2): Link(5.0, 1.0, 2.0, 2.0, True)}, {(0, 2): 3.0}, {(0, 2): 4.0}, {2: 6.0})
    _insert(links, 0, [1], 2)
    assert links.successor == {0: 1, 1: 2}
    assert links.behind == {(1, 2): 4.0}
    assert links.alone == {1: 3.0, 2: 6.0}


def stray(
    make_track: Any, *, margin: float, frames: int = 8, looks: int = 1, matches: int = 1
) -> tuple[list[Tracklet], Links]:
    """Three stretches of one chain, of which the one in the middle is short; what its place is worth is `margin`."""
    edges = [0, 40, 40 + frames, 100]
    tracklets = [
        replace(cut_tracks([make_track(k + 1, range(a, b))], {}, [], {})[0], index=k, looks=looks, matches=matches)
        for k, (a, b) in enumerate(pairwise(edges))
    ]
    links = Links({0: 1, 1: 2}, {(0, 1): KEEP, (1, 2): KEEP}, {(0, 1): 3.0, (1, 2): 5.0}, {(0, 1): 4.0}, {1: margin})
    return tracklets, links


def test_short_stretch_that_could_be_anybodys_is_nobodys(make_track: Any) -> None:
    tracklets, links = stray(make_track, margin=1.5)
    assert leave_out_strays([0, 1, 2], tracklets, links, set(), set()) == {1}
    assert links.successor == {0: 2}
    assert (links.margins[0, 2], links.behind[0, 2]) == (3.0, 4.0)


@pytest.mark.parametrize(
    ("given", "gone", "vouched_for"),
    [
        pytest.param({"margin": 2.5}, set(), set(), id="certain"),
        pytest.param({"margin": 4.5, "matches": 0}, set(), set(), id="certain-without-a-detection"),
        pytest.param({"margin": 1.5, "frames": 13}, set(), set(), id="long"),
        pytest.param({"margin": 1.5, "looks": 0}, set(), set(), id="tracks-of-others"),
        pytest.param({"margin": 1.5}, {1}, set(), id="gone-already"),
        pytest.param({"margin": 1.5}, set(), {1}, id="a-person-spoke-of-it"),
    ],
)
def test_other_stretches_stay_as_they_are(
    make_track: Any, given: dict[str, Any], gone: set[int], vouched_for: set[int]
) -> None:
    tracklets, links = stray(make_track, **given)
    assert leave_out_strays([0, 1, 2], tracklets, links, gone, vouched_for) == set()
    assert links.successor == {0: 1, 1: 2}


def test_stretch_in_which_the_detector_found_nothing_must_be_worth_more(make_track: Any) -> None:
    tracklets, links = stray(make_track, margin=3.0, matches=0)
    assert leave_out_strays([0, 1, 2], tracklets, links, set(), set()) == {1}


def test_worth_of_the_last_stretch_is_that_of_its_only_link(make_track: Any) -> None:
    """No step takes the end of a chain out alone: that is the same as breaking its link."""
    tracklets, links = stray(make_track, margin=np.inf)
    links.successor = {0: 1}
    assert leave_out_strays([0, 1, 2], tracklets, links, set(), set()) == set()
    links.margins[0, 1] = 1.0
    assert leave_out_strays([0, 1, 2], tracklets, links, set(), set()) == {1}


def test_strays_at_the_ends_of_a_chain_leave_the_rest(make_track: Any) -> None:
    tracklets, links = stray(make_track, margin=1.0)
    links.successor = {1: 2}
    assert leave_out_strays([0, 1, 2], tracklets, links, set(), set()) == {1}
    assert links.successor == {}
    links.successor = {0: 1}
    assert leave_out_strays([0, 1, 2], tracklets, links, set(), set()) == {1}
    assert links.successor == {}


def test_stray_is_taken_out_and_the_repair_says_why(make_track: Any) -> None:
    tracklets, links = stray(make_track, margin=1.0)
    strays = leave_out_strays([0, 1, 2], tracklets, links, set(), set())
    found = propose(tracklets, links, {}, [], [], set(), strays, min_margin=0.5)
    (trim,) = (r for r in found.repairs if r.kind is RepairKind.TRIM)
    assert (trim.start, trim.stop, dict(trim.continues)) == (40, 48, {2: None})
    assert "could as well show another object" in trim.reason
