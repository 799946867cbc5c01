from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from fiftyone_plugin.identity.appearance import calibrate
from fiftyone_plugin.identity.encounters import CutKind, find_contacts
from fiftyone_plugin.identity.handovers import find_handovers
from fiftyone_plugin.identity.tracklets import cut_tracks, find_changes
from fiftyone_plugin.types import Support


def test_track_is_cut_at_the_deepest_frame_of_its_contact(crossing: Any) -> None:
    tracks, galleries = crossing(is_exchanged=False)
    contacts = find_contacts(tracks)
    tracklets = cut_tracks(tracks, galleries, contacts, {})
    assert [(t.track_id, t.start, t.stop) for t in tracklets] == [
        (1, 0, 40),
        (1, 40, 80),
        (2, 0, 40),
        (2, 40, 80),
        (3, 0, 80),
    ]
    assert [t.index for t in tracklets] == [0, 1, 2, 3, 4]
    assert tracklets[0].cut is None
    cut = tracklets[1].cut
    assert cut is not None
    assert (cut.kind, cut.depth) == (CutKind.CONTACT, contacts[0].max_iou)


def test_tracklets_hold_every_frame_once(chaos: Any) -> None:
    for seed in range(20):
        tracks, galleries = chaos(seed)
        tracklets = cut_tracks(tracks, galleries, find_contacts(tracks), {})
        for track in tracks:
            own = [t for t in tracklets if t.track_id == track.track_id]
            assert all(a.stop <= b.start for a, b in pairwise(own))
            assert all(sum(t.start <= f < t.stop for t in own) == 1 for f in track.frame_indices.tolist())


def test_views_of_a_tracklet_lie_inside_it(crossing: Any) -> None:
    tracks, galleries = crossing(is_exchanged=False)
    for t in cut_tracks(tracks, galleries, find_contacts(tracks), {}):
        assert len(t.views)
        assert ((t.views.frames >= t.start) & (t.views.frames < t.stop)).all()


def test_motion_is_taken_outside_the_contact(crossing: Any) -> None:
    tracks, galleries = crossing(is_exchanged=False)
    (contact,) = find_contacts(tracks)
    first = cut_tracks(tracks, galleries, [contact], {})[0]
    assert first.after.frame == contact.start - 1
    assert first.after.velocity_xy.tolist() == pytest.approx([2, 0])
    assert first.after.size_px == pytest.approx(20)
    assert first.before.frame == 0


def test_duplicate_is_a_copy_of_the_better_supported_track(make_track: Any) -> None:
    tracks = [make_track(1, range(60)), make_track(2, range(20, 40))]
    contacts = find_contacts(tracks)
    by_age = cut_tracks(tracks, {}, contacts, {})
    assert [t.copy_of for t in by_age if t.track_id == 2] == [1]
    assert all(t.copy_of is None for t in by_age if t.track_id == 1)
    seen = Support(2, np.array([24, 32]), np.array([True, True]), ("sheep", "sheep"))
    by_support = cut_tracks(tracks, {}, contacts, {2: seen})
    (of_second,) = (t for t in by_support if t.track_id == 2)
    assert of_second.copy_of is None
    assert [t.copy_of for t in by_support if t.track_id == 1] == [None, of_second.index, None]


def test_support_is_counted_and_outvotes_the_phrase(make_track: Any) -> None:
    support = Support(1, np.array([4, 8, 12, 16]), np.array([True, True, False, True]), ("dog", "dog", "", "sheep"))
    (t,) = cut_tracks([make_track(1, range(30))], {}, [], {1: support})
    assert (t.phrase, t.looks, t.matches) == ("dog", 4, 3)


@pytest.mark.parametrize("has_detector", [True, False], ids=["ours", "of-another-tool"])
def test_track_is_cut_at_a_dip_where_the_score_is_a_propagators(make_track: Any, has_detector: bool) -> None:
    track = make_track(1, range(30))
    scores = np.full(30, 0.99, np.float32)
    scores[15] = 0.6
    support = {1: Support(1, np.array([4]), np.array([True]), ("sheep",))} if has_detector else {}
    tracklets = cut_tracks([replace(track, scores=scores)], {}, [], support)
    assert [(t.start, t.stop) for t in tracklets] == ([(0, 15), (15, 30)] if has_detector else [(0, 30)])
    if has_detector:
        assert tracklets[1].cut is not None
        assert tracklets[1].cut.kind is CutKind.DIP


def test_track_is_cut_at_a_handover_and_at_none_of_its_neighbours(make_track: Any, exchanged: Any) -> None:
    truth = [make_track(1, range(80), start_xy=(120, 50), step_xy=(2, 0))]
    truth.append(make_track(2, range(80), start_xy=(280, 56), step_xy=(-2, 0)))
    tracks = exchanged(truth, 1, 2, 41)
    tracklets = cut_tracks(tracks, {}, find_handovers(tracks, find_contacts(tracks)), {})
    assert [(t.track_id, t.start) for t in tracklets] == [(1, 0), (1, 41), (2, 0), (2, 41)]
    assert {t.cut.kind for t in tracklets if t.cut is not None} == {CutKind.HANDOVER}


def test_change_of_looks_is_found_where_it_happens(make_track: Any, make_gallery: Any) -> None:
    tracks = [make_track(i, range(100), start_xy=(0, 50 * i)) for i in (1, 2, 3)]
    galleries = {i: make_gallery(i, range(100), i) for i in (2, 3)}
    galleries[1] = make_gallery(1, range(100), [1] * 60 + [4] * 40)
    calibration = calibrate(tracks, galleries, is_same_object={})
    cuts = find_changes(galleries[1], calibration)
    # A change so clear that the odds stay at their limit for some views is bracketed by two cuts.
    assert 1 <= len(cuts) <= 2
    assert all(c.kind is CutKind.CHANGE and abs(c.frame - 60) <= 4 for c in cuts)
    assert find_changes(galleries[2], calibration) == []


def test_few_views_show_no_change(make_track: Any, make_gallery: Any) -> None:
    tracks = [make_track(i, range(100), start_xy=(0, 50 * i)) for i in (1, 2)]
    galleries = {i: make_gallery(i, range(100), i) for i in (1, 2)}
    calibration = calibrate(tracks, galleries, is_same_object={})
    assert find_changes(make_gallery(1, range(9), [1] * 4 + [2] * 5), calibration) == []


def test_empty_track_has_no_tracklet(make_track: Any) -> None:
    assert cut_tracks([make_track(1, [])], {}, [], {}) == []
