"""Tracks cut into tracklets: stretches in which a track is believed to show one object.

Cutting too often costs little, because every cut between two stretches of one track carries the odds that nothing
happened there; not cutting where two objects were exchanged cannot be mended later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from fiftyone_plugin.geometry import box_areas
from fiftyone_plugin.identity.appearance import MAX_LOG_ODDS, Calibration, Views, views_between
from fiftyone_plugin.identity.encounters import (
    Contact,
    Cut,
    CutKind,
    find_dips,
    find_gaps,
    find_jumps,
    frames_to_mask,
    merge_cuts,
)
from fiftyone_plugin.types import FloatArray, Gallery, Support, Track

__all__ = ["Motion", "Tracklet", "cut_tracks", "find_changes"]

_BLUR_FRAMES = 4
"""A change of looks is found to within so many frames."""


@dataclass(frozen=True, slots=True)
class Motion:
    """Where an object was, and where it was going, at one end of a tracklet."""

    frame: int
    centre_xy: FloatArray
    """float32 (2,), pixels."""
    velocity_xy: FloatArray
    """float32 (2,), pixels per frame, forward in time."""
    size_px: float
    """Square root of the box area."""


@dataclass(frozen=True, slots=True)
class Tracklet:
    """A stretch of one propagated track."""

    index: int
    track_id: int
    start: int
    """First frame with a mask."""
    stop: int
    """Frame after the last one with a mask."""
    phrase: str
    cut: Cut | None
    """Why it begins; None where the track does."""
    views: Views
    before: Motion
    """At its first frame outside contacts."""
    after: Motion
    """At its last frame outside contacts."""
    looks: int
    """How often the detector looked while it had a mask."""
    matches: int
    """How often it found something there."""
    copy_of: int | None
    """Index of the tracklet of another track that shows the same object at the same time."""


def find_changes(
    gallery: Gallery, calibration: Calibration, *, window: int = 5, max_log_odds: float = -1.0
) -> list[Cut]:
    """Cut a track where the views after a moment do not look like the views before it.

    Args:
        gallery: All clean views of the track.
        calibration: Of this video.
        window: Views on each side that are compared.
        max_log_odds: Cut where the log-odds for one object fall below this (nats); only the lowest point is taken.
    """
    known = np.flatnonzero(gallery.weights > 0)
    if len(known) < 2 * window:
        return []
    views = Views(gallery.embeddings[known].astype(np.float32), gallery.weights[known], gallery.frame_indices[known])
    odds = np.clip(calibration.log_odds_along(views, window=window), -MAX_LOG_ODDS, MAX_LOG_ODDS)
    cuts: list[Cut] = []
    while True:
        i = int(np.argmin(odds))
        if odds[i] >= max_log_odds:
            return cuts
        cuts.append(Cut(gallery.track_id, int(views.frames[i]), CutKind.CHANGE, 1.0))
        odds[max(0, i - window) : i + window + 1] = np.inf


def cut_tracks(
    tracks: Sequence[Track],
    galleries: Mapping[int, Gallery],
    contacts: Sequence[Contact],
    supports: Mapping[int, Support],
    *,
    changes: Sequence[Cut] = (),
    said: Sequence[Cut] = (),
) -> list[Tracklet]:
    """Cut every track at contacts, handovers, duplicates, gaps, dips, jumps and changes, and where a person said so.

    Returns:
        Tracklets by track, then time; `Tracklet.index` is the position in the list.
    """
    cuts: dict[int, list[Cut]] = {t.track_id: [*find_gaps(t), *find_jumps(t)] for t in tracks}
    for track in tracks:
        # A score is a propagator's where a detector looked; that of another tool's track can mean anything.
        if track.track_id in supports:
            cuts[track.track_id] += find_dips(track)
    touching: dict[int, list[tuple[int, int]]] = {t.track_id: [] for t in tracks}
    for contact in contacts:
        for track_id in contact.track_ids:
            touching[track_id].append((contact.start, contact.stop))
            if contact.duplicates:
                for start, stop in contact.duplicates:
                    cuts[track_id] += [
                        Cut(track_id, start, CutKind.DUPLICATE, contact.max_iou),
                        Cut(track_id, stop, CutKind.DUPLICATE, contact.max_iou),
                    ]
            else:
                cuts[track_id].append(Cut(track_id, contact.deepest, CutKind.CONTACT, contact.max_iou))
        for handover in contact.handovers:
            cuts[handover.target].append(Cut(handover.target, handover.frame, CutKind.HANDOVER, contact.max_iou))
    for cut in changes:
        if not _explains(cuts[cut.track_id], cut, galleries[cut.track_id]):
            cuts[cut.track_id].append(cut)
    for cut in said:
        cuts[cut.track_id].append(cut)
    tracklets: list[Tracklet] = []
    for track in tracks:
        if len(track):
            tracklets += _cut_one(
                track,
                merge_cuts(cuts[track.track_id]),
                touching[track.track_id],
                galleries.get(track.track_id),
                supports.get(track.track_id),
                first_index=len(tracklets),
            )
    return _mark_copies(tracklets, contacts)


def _explains(cuts: Sequence[Cut], change: Cut, gallery: Gallery) -> bool:
    """Whether a track is cut already where its looks changed, or where nothing was seen of it meanwhile."""
    seen = gallery.frame_indices[gallery.weights > 0]
    last_seen = int(seen[max(int(np.searchsorted(seen, change.frame)) - 1, 0)])
    return any(
        c.kind is not CutKind.CHANGE and last_seen - _BLUR_FRAMES < c.frame <= change.frame + _BLUR_FRAMES for c in cuts
    )


def _cut_one(
    track: Track,
    cuts: Sequence[Cut],
    touching: Sequence[tuple[int, int]],
    gallery: Gallery | None,
    support: Support | None,
    *,
    first_index: int,
) -> list[Tracklet]:
    frames = track.frame_indices
    inner = [c for c in cuts if frames[0] < c.frame <= frames[-1]]
    edges = [int(frames[0]), *(c.frame for c in inner), int(frames[-1]) + 1]
    result: list[Tracklet] = []
    for k, (low, high) in enumerate(pairwise(edges)):
        rows = np.flatnonzero((frames >= low) & (frames < high))
        if not len(rows):
            continue
        free = rows[~frames_to_mask(frames[rows], touching)]
        core = free if len(free) >= 2 else rows
        phrase, looks, matches = _support_between(track, support, low, high)
        empty = Views(np.zeros((0, 1), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
        result.append(
            Tracklet(
                index=first_index + len(result),
                track_id=track.track_id,
                start=int(frames[rows[0]]),
                stop=int(frames[rows[-1]]) + 1,
                phrase=phrase,
                cut=inner[k - 1] if k else None,
                views=empty if gallery is None else views_between(gallery, low, high),
                before=_motion(track, core[:6], at=0),
                after=_motion(track, core[-6:], at=-1),
                looks=looks,
                matches=matches,
                copy_of=None,
            )
        )
    return result


def _support_between(track: Track, support: Support | None, low: int, high: int) -> tuple[str, int, int]:
    if support is None:
        return track.phrase, 0, 0
    inside = (support.frame_indices >= low) & (support.frame_indices < high)
    heard = [support.phrases[i] for i in np.flatnonzero(inside & support.matched).tolist()]
    phrase = track.phrase
    if heard and heard.count(track.phrase) * 2 < len(heard):
        phrase = max(sorted(set(heard)), key=heard.count)
    return phrase, int(inside.sum()), len(heard)


def _motion(track: Track, rows: np.ndarray, *, at: int) -> Motion:
    boxes = track.boxes_xyxy[rows]
    frames = track.frame_indices[rows].astype(np.float32)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    velocity = np.zeros(2, np.float32)
    if len(rows) >= 3:
        steps = np.diff(frames)[:, None]
        velocity = np.median(np.diff(centres, axis=0) / steps, axis=0).astype(np.float32)
    size = float(np.sqrt(max(float(np.median(box_areas(boxes))), 1.0)))
    return Motion(int(frames[at]), centres[at].astype(np.float32), velocity, size)


def _mark_copies(tracklets: list[Tracklet], contacts: Sequence[Contact]) -> list[Tracklet]:
    """Of two tracklets that show one object at the same time, that with less support (then the younger) is a copy."""
    by_track: dict[int, list[Tracklet]] = {}
    for t in tracklets:
        by_track.setdefault(t.track_id, []).append(t)
    copy_of: dict[int, int] = {}

    def root(i: int) -> int:
        while i in copy_of:
            i = copy_of[i]
        return i

    for contact in contacts:
        for start, stop in contact.duplicates:
            a, b = (_covering(by_track[i], start, stop) for i in contact.track_ids)
            if a is None or b is None:
                continue
            i, j = root(a.index), root(b.index)
            if i != j:
                keep, copy = sorted((i, j), key=lambda n: (-tracklets[n].matches, tracklets[n].track_id))
                copy_of[copy] = keep
    return [replace(t, copy_of=root(t.index)) if t.index in copy_of else t for t in tracklets]


def _covering(tracklets: Sequence[Tracklet], start: int, stop: int) -> Tracklet | None:
    """The tracklet that lies mostly inside a range and covers most of it."""
    for t in tracklets:
        both = min(t.stop, stop) - max(t.start, start)
        if both > 0.6 * (stop - start) and both > 0.6 * (t.stop - t.start):
            return t
    return None
