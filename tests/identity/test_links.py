from __future__ import annotations

from itertools import combinations, permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiftyone_plugin.identity.appearance import calibrate
from fiftyone_plugin.identity.candidates import LinkOptions
from fiftyone_plugin.identity.encounters import find_contacts
from fiftyone_plugin.identity.handovers import find_handovers
from fiftyone_plugin.identity.links import Links, LinkTable, _assign
from fiftyone_plugin.identity.meetings import find_joint_absences
from fiftyone_plugin.identity.tracklets import Tracklet, cut_tracks


def solved(
    tracks: Any, galleries: Any, *, forbidden: frozenset[tuple[int, int]] = frozenset(), **settings: Any
) -> tuple[list[Tracklet], Links]:
    contacts = find_contacts(tracks)
    calibration = calibrate(tracks, galleries, is_same_object={})
    tracklets = cut_tracks(tracks, galleries, contacts, {})
    nodes = [t.index for t in tracklets if t.copy_of is None]
    return tracklets, LinkTable(tracklets, nodes, contacts, calibration, **settings).solve(forbidden=forbidden)


def test_tracks_that_kept_their_objects_keep_their_links(crossing: Any) -> None:
    _, links = solved(*crossing(is_exchanged=False))
    assert links.successor == {0: 1, 2: 3}
    assert all(links.candidates[pair].is_keep for pair in links.successor.items())
    assert min(links.margins.values()) > 3


def test_exchanged_tracks_are_linked_crosswise(crossing: Any) -> None:
    _, links = solved(*crossing(is_exchanged=True))
    assert links.successor == {0: 3, 2: 1}
    assert not any(links.candidates[pair].is_keep for pair in links.successor.items())
    assert min(links.margins.values()) > 3


def test_look_alikes_keep_their_links_where_motion_does_not_speak(make_track: Any, make_gallery: Any) -> None:
    """Two that meet and turn round, or pass: nobody can tell, so nothing changes."""
    frames = range(80)
    towards = np.minimum(np.arange(80), 79 - np.arange(80))
    tracks = []
    for i, sign in ((1, 1), (2, -1)):
        x = 100 + sign * (towards * 2.0 - 84)
        tracks.append(make_track(i, frames, boxes=np.stack([x - 10, x * 0 + 40, x + 10, x * 0 + 60], axis=1)))
    galleries = {i: make_gallery(i, frames, i, spread=0) for i in (1, 2)}
    tracklets, links = solved(tracks, galleries)
    assert len(tracklets) == 4
    assert links.successor == {0: 1, 2: 3}


def test_return_after_absence_is_linked(returning: Any) -> None:
    tracklets, links = solved(*returning())
    own = {t.track_id: t.index for t in tracklets}
    assert links.successor == {own[1]: own[4]}
    assert links.margins[own[1], own[4]] > 1


def test_return_of_look_alikes_is_not_linked(returning: Any) -> None:
    _, links = solved(*returning(spread=0.0))
    assert links.successor == {}


def test_candidates_of_a_long_video_grow_with_its_length_not_its_square(make_track: Any, make_gallery: Any) -> None:
    """Two look-alike herds that come and go: everybody could be the return of everybody before."""
    tracks, galleries = [], {}
    for k in range(120):
        frames = range(20 * (k // 2), 20 * (k // 2) + 15)
        x = 60.0 + 300 * (k % 2)
        boxes = np.tile([x, 40, x + 20, 60], (15, 1))
        tracks.append(make_track(k + 1, frames, boxes=boxes))
        galleries[k + 1] = make_gallery(k + 1, frames, k % 2, spread=1.0)
    _, links = solved(tracks, galleries)
    incoming = [sum(j == t for _, j in links.candidates) for t in range(120)]
    assert max(incoming) <= 24
    # Of many that look the same, the nearest in time is meant.
    assert links.successor[0] == 2


def test_forbidden_link_is_not_made(crossing: Any) -> None:
    _, links = solved(*crossing(is_exchanged=True), forbidden=frozenset({(0, 3)}))
    assert (0, 3) not in links.candidates
    assert links.successor.get(0) != 3


def hidden_together(make_track: Any, make_gallery: Any, *, is_exchanged: bool, spread: float = 0.3) -> Any:
    """Two that are away from 30 to 60 and back at the same places; a third one that stays."""
    frames = [*range(30), *range(60, 90)]
    tracks = [make_track(i, frames, start_xy=(50, 100 * i)) for i in (1, 2)]
    tracks.append(make_track(3, range(90), start_xy=(50, 300)))
    galleries = {3: make_gallery(3, range(90), 3, spread=spread)}
    for i, other in ((1, 2), (2, 1)):
        who = [i] * 30 + [other if is_exchanged else i] * 30
        galleries[i] = make_gallery(i, frames, who, spread=spread)
    return tracks, galleries


def test_two_that_were_away_at_once_may_have_been_exchanged(make_track: Any, make_gallery: Any) -> None:
    """The other's return is as likely as in any encounter, not as rare as a return from anywhere."""
    tracks, galleries = hidden_together(make_track, make_gallery, is_exchanged=False)
    options = LinkOptions()
    for absences, prior in ((find_joint_absences(tracks), options.encounter), ((), None)):
        tracklets, links = solved(tracks, galleries, absences=absences, options=options)
        begin = {(t.track_id, t.start): t.index for t in tracklets}
        link = links.candidates.get((begin[1, 0], begin[2, 60]))
        assert (None if link is None else link.prior) == prior
        assert links.successor == {begin[1, 0]: begin[1, 60], begin[2, 0]: begin[2, 60]}


def test_exchange_behind_something_is_found(make_track: Any, make_gallery: Any) -> None:
    tracks, galleries = hidden_together(make_track, make_gallery, is_exchanged=True)
    tracklets, links = solved(tracks, galleries, absences=find_joint_absences(tracks))
    begin = {(t.track_id, t.start): t.index for t in tracklets}
    assert links.successor == {begin[1, 0]: begin[2, 60], begin[2, 0]: begin[1, 60]}


def test_handover_speaks_only_where_its_link_may_be_made(make_track: Any, exchanged: Any) -> None:
    truth = [make_track(1, range(80), start_xy=(120, 50), step_xy=(2, 0))]
    truth.append(make_track(2, range(80), start_xy=(280, 56), step_xy=(-2, 0)))
    tracks = exchanged(truth, 1, 2, 41)
    contacts = find_handovers(tracks, find_contacts(tracks))
    tracklets = cut_tracks(tracks, {}, contacts, {})
    calibration = calibrate(tracks, {}, is_same_object={})
    nodes = [t.index for t in tracklets]
    table = LinkTable(tracklets, nodes, contacts, calibration)
    links = table.solve()
    assert links.successor == {0: 3, 2: 1}
    assert links.candidates[0, 3].motion == -links.candidates[0, 1].motion > 3
    doubted = table.solve(forbidden={(0, 3), (2, 1)})
    assert doubted.successor == {0: 1, 2: 3}


def test_search_goes_on_from_where_it_was_but_not_over_forbidden_links(crossing: Any) -> None:
    tracks, galleries = crossing(is_exchanged=True)
    contacts = find_contacts(tracks)
    tracklets = cut_tracks(tracks, galleries, contacts, {})
    calibration = calibrate(tracks, galleries, is_same_object={})
    table = LinkTable(tracklets, [t.index for t in tracklets], contacts, calibration)
    found = table.solve()
    assert table.solve(begin=found.successor).margins == found.margins
    assert table.solve(begin={0: 1, 2: 3}).successor == found.successor
    assert (0, 3) not in table.solve(forbidden={(0, 3)}, begin=found.successor).successor.items()
    assert table.changes_into(3) == {(i, j) for i, j in found.candidates if j == 3 and i != 2}


def test_predecessor_is_the_inverse() -> None:
    assert Links({1: 4, 2: 3}, {}).predecessor() == {4: 1, 3: 2}


def test_chains_never_overlap_in_time(chaos: Any) -> None:
    tolerance = LinkOptions().overlap_frames
    for seed in range(60):
        tracklets, links = solved(*chaos(seed))
        assert len(set(links.successor.values())) == len(links.successor)
        for i, j in links.successor.items():
            assert tracklets[i].start < tracklets[j].start
            assert tracklets[i].stop <= tracklets[j].start + tolerance
            assert links.candidates[i, j].total > 0


def test_margins_of_chosen_links_are_never_negative_when_pairs_alone_could_improve(chaos: Any) -> None:
    """The solution is optimal, so no single exchange of two links and no free end can beat a chosen link."""
    for seed in range(60):
        _, links = solved(*chaos(seed))
        assert set(links.margins) == set(links.successor.items())
        assert all(margin >= -1e-9 for margin in links.margins.values())


def brute_force(nodes: list[int], gains: dict[tuple[int, int], float]) -> float:
    """Best sum over every partial matching of ends to beginnings."""
    best = 0.0
    for count in range(1, len(nodes) + 1):
        for ends in combinations(nodes, count):
            for starts in permutations(nodes, count):
                pairs = list(zip(ends, starts, strict=True))
                if all(pair in gains for pair in pairs):
                    best = max(best, sum(gains[pair] for pair in pairs))
    return best


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_assignment_equals_the_best_of_all_matchings(data: st.DataObject) -> None:
    nodes = sorted(data.draw(st.sets(st.integers(0, 20), min_size=1, max_size=5)))
    pairs = [(i, j) for i in nodes for j in nodes if i < j]
    chosen = data.draw(st.sets(st.sampled_from(pairs))) if pairs else set()
    gains = {pair: data.draw(st.floats(-5, 5)) for pair in sorted(chosen)}
    place = {node: k for k, node in enumerate(nodes)}
    table = np.array([(place[i], place[j]) for i, j in gains], np.int64).reshape(-1, 2)
    assigned = _assign(len(nodes), table, np.array(list(gains.values())))
    found = {nodes[i]: nodes[j] for i, j in assigned.items()}
    assert len(set(found.values())) == len(found)
    assert all(gains[pair] > 0 for pair in found.items())
    assert sum(gains[pair] for pair in found.items()) == pytest.approx(brute_force(nodes, gains))
