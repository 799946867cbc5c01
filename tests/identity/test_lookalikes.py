from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fiftyone_plugin.identity import resolve
from fiftyone_plugin.identity.appearance import calibrate
from fiftyone_plugin.identity.lookalikes import alikeness, are_look_alikes
from fiftyone_plugin.identity.tracklets import Tracklet, cut_tracks
from fiftyone_plugin.types import Gallery, Support, Track

HIDDEN = 9
"""How anybody looks who is half hidden."""


def walkers(
    make_track: Any, make_gallery: Any, *, looks: tuple[int, ...], phrases: tuple[str, ...] = ()
) -> tuple[tuple[Track, ...], dict[int, Gallery]]:
    """Tracks side by side for 160 frames; each is half hidden for 24 of them, at another time than the others."""
    tracks, galleries = [], {}
    for k, who in enumerate(looks):
        phrase = phrases[k] if phrases else "sheep"
        tracks.append(make_track(k + 1, range(160), start_xy=(20, 20 + 100 * k), step_xy=(1, 0), phrase=phrase))
        seen = np.full(160, who)
        seen[16 + 32 * k : 40 + 32 * k] = HIDDEN
        galleries[k + 1] = make_gallery(k + 1, range(160), seen.tolist(), noise=0.3)
    return tuple(tracks), galleries


def cut(tracks: tuple[Track, ...], galleries: dict[int, Gallery]) -> tuple[list[Tracklet], Any]:
    calibration = calibrate(tracks, galleries, is_same_object={})
    assert len(calibration.between)
    return cut_tracks(tracks, galleries, [], {}), calibration


def test_animals_of_one_look_are_recognised_as_look_alikes(make_track: Any, make_gallery: Any) -> None:
    assert are_look_alikes(*cut(*walkers(make_track, make_gallery, looks=(1, 1, 1, 1))))


def test_alikeness_is_the_part_of_different_pairs_that_look_like_one(make_track: Any, make_gallery: Any) -> None:
    alike, some, none = (
        alikeness(*cut(*walkers(make_track, make_gallery, looks=looks)))
        for looks in ((1, 1, 1, 1), (1, 1, 2, 3), (1, 2, 3, 4))
    )
    assert alike > 0.4
    assert 0.05 < some < 0.3
    assert none < 0.05


def test_one_pair_that_looks_alike_says_little(make_track: Any, make_gallery: Any) -> None:
    tracklets, calibration = cut(*walkers(make_track, make_gallery, looks=(1, 1, 1, 1)))
    assert alikeness([], calibration) == 0
    assert 0 < alikeness(tracklets[:2], calibration) <= 0.5


@pytest.mark.parametrize("looks", [(1, 2, 3, 4), (1, 1, 2, 3)], ids=["all-differ", "two-are-alike"])
def test_animals_that_differ_are_none(make_track: Any, make_gallery: Any, looks: tuple[int, ...]) -> None:
    assert not are_look_alikes(*cut(*walkers(make_track, make_gallery, looks=looks)))


def test_pairs_of_two_classes_prove_nothing(make_track: Any, make_gallery: Any) -> None:
    tracklets, calibration = cut(*walkers(make_track, make_gallery, looks=(1, 1, 1, 1)))
    apart = [replace(t, phrase=f"{t.phrase} {t.track_id}") for t in tracklets]
    assert not are_look_alikes(apart, calibration)


def test_nothing_is_concluded_from_few_pairs(make_track: Any, make_gallery: Any) -> None:
    tracklets, calibration = cut(*walkers(make_track, make_gallery, looks=(1, 1, 1, 1)))
    assert not are_look_alikes(tracklets[:2], calibration)
    short = [replace(t, stop=t.start + 15) for t in tracklets]
    assert not are_look_alikes(short, calibration)
    later = [replace(t, start=t.start + 200 * n, stop=t.stop + 200 * n) for n, t in enumerate(tracklets)]
    assert not are_look_alikes(later, calibration)


def test_looks_that_say_nothing_are_not_asked(make_track: Any, make_gallery: Any) -> None:
    tracklets, calibration = cut(*walkers(make_track, make_gallery, looks=(1, 1, 1, 1)))
    silent = calibration.silenced()
    assert not are_look_alikes(tracklets, silent)
    assert silent.log_odds(tracklets[0].views, tracklets[1].views) == 0


@pytest.mark.parametrize("is_ours", [False, True], ids=["tracks-of-others", "our-own"])
def test_true_tracks_of_look_alikes_stay_as_they_are(make_track: Any, make_gallery: Any, is_ours: bool) -> None:
    """Two meet; one was half hidden before, the other one is after it: looks speak for an exchange.

    Of our own tracks they are heard all the same: those change objects so often that wrong looks beat none.
    """
    frames = range(160)
    tracks = (
        make_track(1, frames, start_xy=(20, 50), step_xy=(2, 0)),
        make_track(2, frames, start_xy=(340, 56), step_xy=(-2, 0)),
        make_track(3, frames, start_xy=(20, 200), step_xy=(1, 0)),
        make_track(4, frames, start_xy=(20, 300), step_xy=(1, 0)),
    )
    seen = np.array([f for f in frames if not 74 <= f < 87])
    shown = {
        1: np.where((seen >= 80) & (seen < 120), HIDDEN, 1),
        2: np.where((seen >= 40) & (seen < 80), HIDDEN, 1),
        3: np.full(len(seen), 1),
        4: np.full(len(seen), 1),
    }
    galleries = {i: make_gallery(i, seen.tolist(), who.tolist(), noise=0.3) for i, who in shown.items()}
    every = np.arange(0, 160, 8)
    found = {i: Support(i, every, np.ones(len(every), np.bool_), ("sheep",) * len(every)) for i in galleries}
    result = resolve(tracks, galleries, found if is_ours else {})
    assert bool(result.repairs) is is_ours
    if is_ours:
        # But whoever reads the decision is told that it is hardly more than a guess.
        assert max(d.confidence for d in result.decisions) < 0.8
