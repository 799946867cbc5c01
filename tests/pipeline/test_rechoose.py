"""Masks inside a window, chosen anew after a swap that a person made a few frames too early or too late."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fiftyone_plugin.benchmarks.identity_injection import take
from fiftyone_plugin.geometry import decode_mask, rle_iou
from fiftyone_plugin.pipeline.rechoose import Rechosen, Window, rechoose
from fiftyone_plugin.synthetic.fakes import ScriptedEmbedder, ScriptedPropagator
from fiftyone_plugin.types import Source, Track

WINDOW = Window((1, 2), 24, 37)
"""The two of `crossing` touch in frames 25 to 35."""


def exchanged(tracks: tuple[Track, ...], start: int, stop: int) -> tuple[Track, ...]:
    """The first two tracks with each other's masks in ``[start, stop)``."""
    a, b, *rest = tracks
    rows = {t.track_id: {f: (t, k) for k, f in enumerate(t.frame_indices.tolist())} for t in (a, b)}
    made = []
    for mine, other in ((a, b), (b, a)):
        found = [
            (frame, *rows[(other if start <= frame < stop else mine).track_id][frame])
            for frame in range(60)
            if frame in rows[(other if start <= frame < stop else mine).track_id]
        ]
        made.append(
            replace(
                mine,
                frame_indices=np.array([f for f, _, _ in found], np.int64),
                boxes_xyxy=np.stack([t.boxes_xyxy[k] for _, t, k in found]),
                masks=tuple(t.masks[k] for _, t, k in found if t.masks is not None),
                scores=np.ones(len(found), np.float32),
                mask_scores=np.ones(len(found), np.float32),
                identity_confidence=np.ones(len(found), np.float32),
                sources=(Source.PROPAGATED,) * len(found),
            )
        )
    return (*made, *rest)


def only(track: Track, keep: np.ndarray) -> Track:
    """A track on some of its frames."""
    return take(track.track_id, [(track, np.flatnonzero(keep))])


def beside(track: Track) -> Track:
    """A track outside the window."""
    return only(track, (track.frame_indices < WINDOW.start) | (track.frame_indices >= WINDOW.stop))


def after(tracks: tuple[Track, ...], found: Rechosen) -> dict[tuple[int, int], Any]:
    cells = {(t.track_id, f): m for t in tracks for f, m in zip(t.frame_indices.tolist(), t.masks or (), strict=True)}
    for piece in found.masks:
        cells |= {(piece.track_id, f): m for f, m in zip(piece.frame_indices.tolist(), piece.masks or (), strict=True)}
    return {cell: mask for cell, mask in cells.items() if cell not in found.hidden}


def wrong(cells: dict[tuple[int, int], Any], truth: tuple[Track, ...]) -> list[tuple[int, int]]:
    right = after(truth, Rechosen())
    return [c for c in right.keys() | cells.keys() if c not in right or c not in cells or not alike(right[c], cells[c])]


def alike(a: Any, b: Any) -> bool:
    return bool(rle_iou([a], [b])[0, 0] > 0.5)


@pytest.mark.parametrize(("start", "stop"), [(26, 30), (30, 35)], ids=["too_late", "too_early"])
def test_frames_on_the_wrong_side_of_a_swap_are_put_right(crossing: Any, start: int, stop: int) -> None:
    truth = crossing.truth()
    tracks = exchanged(truth, start, stop)
    assert len(wrong(after(tracks, Rechosen()), truth)) >= 6
    found = rechoose(crossing, ScriptedPropagator(truth), ScriptedEmbedder(), tracks, WINDOW)
    assert wrong(after(tracks, found), truth) == []
    assert {s for piece in found.masks for s in piece.sources} == {Source.REPAIRED}
    changed = {f for piece in found.masks for f in piece.frame_indices.tolist()} | {f for _, f in found.hidden}
    assert min(changed) >= WINDOW.start
    assert max(changed) < WINDOW.stop


@pytest.mark.parametrize(("start", "stop"), [(26, 30), (30, 35)], ids=["too_late", "too_early"])
def test_masks_that_the_other_one_has_are_enough_where_both_are_lost_on_the_way_back(
    crossing: Any, start: int, stop: int
) -> None:
    truth = crossing.truth()
    propagator = ScriptedPropagator([beside(t) for t in truth])
    found = rechoose(crossing, propagator, ScriptedEmbedder(), exchanged(truth, start, stop), WINDOW)
    assert wrong(after(exchanged(truth, start, stop), found), truth) == []


def test_masks_that_are_right_stay(crossing: Any) -> None:
    truth = crossing.truth()
    assert rechoose(crossing, ScriptedPropagator(truth), ScriptedEmbedder(), truth, WINDOW) == Rechosen()


def test_tracks_that_nobody_spoke_of_are_never_changed_nor_covered(flock: Any) -> None:
    green, yellow, red, blue = flock.truth()
    pair = exchanged((replace(red, track_id=1), replace(blue, track_id=2)), 26, 30)
    # A third one has the very masks that would be put right.
    claimed = only(replace(red, track_id=9), (red.frame_indices >= 26) & (red.frame_indices < 30))
    others = (replace(green, track_id=3), replace(yellow, track_id=4))
    propagator = ScriptedPropagator(flock.truth())
    found = rechoose(flock, propagator, ScriptedEmbedder(), (*pair, *others), WINDOW)
    assert {piece.track_id for piece in found.masks} == {1, 2}
    found = rechoose(flock, propagator, ScriptedEmbedder(), (*pair, *others, claimed), WINDOW)
    theirs = dict(zip(claimed.frame_indices.tolist(), claimed.masks or (), strict=True))
    assert found.masks
    for piece in found.masks:
        for frame, mask in zip(piece.frame_indices.tolist(), piece.masks or (), strict=True):
            mine = decode_mask(mask)
            assert frame not in theirs or (mine & decode_mask(theirs[frame])).sum() <= 0.5 * mine.sum()


def test_track_that_ends_in_the_window_has_nothing_to_begin_from(crossing: Any) -> None:
    truth = crossing.truth()
    short = [only(t, t.frame_indices < WINDOW.stop) for t in exchanged(truth, 26, 30)]
    assert rechoose(crossing, ScriptedPropagator(truth), ScriptedEmbedder(), short, WINDOW) == Rechosen()


def test_track_whose_partner_is_not_near_is_looked_at_alone(crossing: Any) -> None:
    truth = crossing.truth()
    found = rechoose(crossing, ScriptedPropagator(truth), ScriptedEmbedder(), truth[:1], WINDOW)
    assert wrong(after(truth, found), truth) == []
    assert rechoose(crossing, ScriptedPropagator(truth), ScriptedEmbedder(), (), WINDOW) == Rechosen()
