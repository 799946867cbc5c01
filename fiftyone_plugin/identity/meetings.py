"""Encounters without contact: two tracks that come near each other, and two that are away at the same time.

In both, identities can be exchanged although no box ever lies on another one: between two frames, where objects are
fast or frames few; and behind something that both come back from. What happened is not decided here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from fiftyone_plugin.geometry import box_areas
from fiftyone_plugin.identity.encounters import MIN_GAP_FRAMES, Contact, intervals
from fiftyone_plugin.types import FloatArray, Track

__all__ = ["JointAbsence", "find_approaches", "find_joint_absences"]


@dataclass(frozen=True, slots=True)
class JointAbsence:
    """Two tracks of one phrase are away, for a while at the same time, and both come back."""

    track_ids: tuple[int, int]
    starts: tuple[int, int]
    """For each of them, the first frame without it."""
    stops: tuple[int, int]
    """For each of them, the frame in which it is back."""


def find_joint_absences(tracks: Sequence[Track], *, min_gap: int = MIN_GAP_FRAMES) -> list[JointAbsence]:
    """Find where two tracks of one phrase were absent at the same time and both came back.

    Args:
        tracks: Tracks as they were propagated.
        min_gap: Shortest absence, in frames.

    Returns:
        One for every pair of absences that share a frame, by the start of the earlier one.
    """
    away: list[tuple[int, int, Track]] = []
    for track in tracks:
        frames = track.frame_indices
        rows = np.flatnonzero(np.diff(frames) > min_gap).tolist()
        away += [(int(frames[row]) + 1, int(frames[row + 1]), track) for row in rows]
    away.sort(key=lambda a: (a[0], a[2].track_id))
    found: list[JointAbsence] = []
    for k, (start, stop, track) in enumerate(away):
        for later_start, later_stop, other in away[k + 1 :]:
            if later_start >= stop:
                break
            if other is not track and other.phrase == track.phrase:
                ids = (track.track_id, other.track_id)
                found.append(JointAbsence(ids, (start, later_start), (stop, later_stop)))
    return found


def find_approaches(
    tracks: Sequence[Track],
    contacts: Sequence[Contact],
    *,
    max_reach: float = 0.6,
    min_closing: float = 0.25,
    window: int = 6,
    max_gap: int = 4,
) -> list[Contact]:
    """Find where two tracks that do not touch came so near that they could have been exchanged between two frames.

    That is where they would have come within `max_reach` of each other, at or between two frames, had both gone on as
    before. Whether they then passed or turned round, nobody saw.

    Args:
        tracks: Tracks of any phrase, the motion of the camera taken out.
        contacts: Of the same tracks; what is part of one is no encounter of its own.
        max_reach: Largest distance of their centres on the way, in object sizes (square root of the area).
        min_closing: By how much their distance must have shrunk in the last `window` frames, in object sizes: two that
            walk side by side do not approach.
        window: Frames over which velocity and approach are measured.
        max_gap: Approaches no more than this many frames apart are one.

    Returns:
        Contacts of no overlap, by start frame.
    """
    known: dict[tuple[int, int], list[Contact]] = {}
    for contact in contacts:
        known.setdefault(contact.track_ids, []).append(contact)
    paths = {t.track_id: _path(t, window) for t in tracks if len(t) > window}
    found: list[Contact] = []
    for a, b in combinations([t for t in tracks if t.track_id in paths], 2):
        if a.frame_indices[0] > b.frame_indices[-1] or b.frame_indices[0] > a.frame_indices[-1]:
            continue
        frames, in_a, in_b = np.intersect1d(a.frame_indices, b.frame_indices, assume_unique=True, return_indices=True)
        if len(frames) <= window:
            continue
        (at_a, speed_a, size_a), (at_b, speed_b, size_b) = (
            tuple(column[rows] for column in paths[t.track_id]) for t, rows in ((a, in_a), (b, in_b))
        )
        size, steps, frames = (size_a[1:] + size_b[1:]) / 2, np.diff(frames), frames[1:]
        nearest = _nearest((at_b - at_a)[:-1], (speed_b - speed_a)[:-1] * steps[:, None])
        distance = np.linalg.norm(at_a - at_b, axis=1)
        earlier = np.concatenate([np.full(window, distance[0]), distance[:-window]])
        is_closing = (earlier - distance)[1:] >= min_closing * size
        is_near = (nearest <= max_reach * size) & (steps <= max_gap)
        for start, stop in intervals(frames[is_near], max_gap=max_gap):
            inside = (frames >= start) & (frames < stop)
            is_told = any(
                c.start - max_gap < stop and c.stop + max_gap > start for c in known.get((a.track_id, b.track_id), ())
            )
            if is_closing[inside].any() and not is_told:
                deepest = int(frames[inside][np.argmin(nearest[inside])])
                found.append(Contact((a.track_id, b.track_id), start, stop, deepest, 0.0, ()))
    return sorted(found, key=lambda c: (c.start, c.track_ids))


def _nearest(apart: FloatArray, change: FloatArray) -> NDArray[np.float64]:
    """Smallest length (N,) of vectors (N, 2) on their straight way to `apart + change`."""
    length = np.maximum((change.astype(np.float64) ** 2).sum(axis=1), 1e-9)
    part = np.clip(-(apart * change).sum(axis=1) / length, 0.0, 1.0)
    return np.asarray(np.linalg.norm(apart + part[:, None] * change, axis=1))


def _path(track: Track, window: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Centres (T, 2), velocities over the last `window` frames (T, 2) and sizes (T,), in pixels."""
    boxes = track.boxes_xyxy
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    back = np.maximum(np.arange(len(boxes)) - window, 0)
    passed = np.maximum(track.frame_indices - track.frame_indices[back], 1)[:, None]
    velocity = (centres - centres[back]) / passed
    size = np.sqrt(np.maximum(box_areas(boxes), 1.0))
    return centres.astype(np.float32), velocity.astype(np.float32), size.astype(np.float32)
