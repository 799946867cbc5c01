"""Repairs applied: propagated tracks and a list of edits in, tracks with identities out.

Leaving a repair out of the list undoes it. Frames that no repair speaks of come out byte for byte as they went in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fiftyone_plugin.types import Repair, RepairKind, Source, Track

__all__ = ["apply_repairs", "trace"]


@dataclass(frozen=True, slots=True)
class _Segment:
    """A stretch of a propagated track between two edits."""

    track_id: int
    rows: NDArray[np.int64]
    begins: int
    """Frame of the edit, or the track's first one; the first frame that is left may be later."""
    start: int
    last: int
    origin: tuple[int, int] | None
    """(track, frame) it continues, None for a new object."""
    is_edited: bool


def apply_repairs(tracks: Sequence[Track], repairs: Sequence[Repair]) -> tuple[Track, ...]:
    """Give every frame of every propagated track to the object it shows.

    Args:
        tracks: Propagated tracks.
        repairs: Edits, in any order.

    Returns:
        One track per object, by id. An object keeps the id of the propagated track that it was first seen with; an
        object that was first seen in the middle of one gets the next free id. Where two stretches of one object share
        a frame, the one with the better mask score there is kept.
    """
    by_id = {t.track_id: t for t in tracks}
    segments = [s for t in tracks for s in _segments(t, repairs)]
    if not repairs:
        return tuple(t for t in sorted(tracks, key=lambda t: t.track_id) if not _is_patch(t))
    roots = [_root(k, segments) for k in range(len(segments))]
    ids: dict[int, int] = {}
    # Tracks that fill gaps come later than the ids that were given without them, and must not change those.
    next_id = max((t.track_id for t in tracks if not _is_patch(t)), default=0) + 1
    for k in sorted(set(roots), key=lambda k: (segments[k].start, segments[k].track_id)):
        segment = segments[k]
        if segment.origin is None and not segment.is_edited:
            ids[k] = segment.track_id
        else:
            ids[k] = next_id
            next_id += 1
    pieces: dict[int, list[_Segment]] = {}
    for k, segment in enumerate(segments):
        pieces.setdefault(ids[roots[k]], []).append(segment)
    return tuple(_join(track_id, parts, by_id) for track_id, parts in sorted(pieces.items()))


def trace(tracks: Sequence[Track], repairs: Sequence[Repair]) -> dict[int, dict[int, int]]:
    """Which propagated track each object's masks come from: object id to frame to propagated track."""
    marked = [
        replace(
            t,
            boxes_xyxy=np.full((len(t), 4), t.track_id, np.float32),
            masks=None,
        )
        for t in tracks
    ]
    return {
        t.track_id: dict(zip(t.frame_indices.tolist(), t.boxes_xyxy[:, 0].astype(int).tolist(), strict=True))
        for t in apply_repairs(marked, repairs)
    }


def _segments(track: Track, repairs: Sequence[Repair]) -> list[_Segment]:
    if not len(track):
        return []
    keep = np.ones(len(track), np.bool_)
    edits: dict[int, tuple[int, int] | None] = {}
    frames = track.frame_indices
    for repair in repairs:
        if track.track_id not in repair.continues:
            continue
        if repair.kind is RepairKind.TRIM:
            stop = repair.stop if repair.stop is not None else int(frames[-1]) + 1
            keep &= ~((frames >= repair.start) & (frames < stop))
        else:
            edits[repair.start] = repair.continues[track.track_id]
    if _is_patch(track) and not edits:
        return []  # its repair was left out
    rows = np.flatnonzero(keep)
    segments: list[_Segment] = []
    starts = sorted(edits)
    edges = [None, *starts]
    for k, edge in enumerate(edges):
        low = -1 if edge is None else edge
        high = starts[k] if k < len(starts) else np.inf
        part = rows[(frames[rows] >= low) & (frames[rows] < high)]
        if not len(part):
            continue
        origin = edits[edge] if edge is not None else None
        segments.append(
            _Segment(
                track_id=track.track_id,
                rows=part,
                begins=int(frames[0]) if edge is None else edge,
                start=int(frames[part[0]]),
                last=int(frames[part[-1]]),
                origin=origin,
                is_edited=edge is not None,
            )
        )
    return segments


def _is_patch(track: Track) -> bool:
    return bool(track.sources) and track.sources[0] is Source.RESEEDED


def _root(k: int, segments: Sequence[_Segment]) -> int:
    """Follow the origins of a segment to the one its object was first seen with."""
    seen: set[int] = set()
    while segments[k].origin is not None and k not in seen:
        seen.add(k)
        track_id, frame = segments[k].origin  # type: ignore[misc]
        of_track = [n for n, s in enumerate(segments) if s.track_id == track_id and s.begins <= frame]
        if not of_track:
            break
        k = max(of_track, key=lambda n: segments[n].begins)
    return k


def _join(track_id: int, parts: Sequence[_Segment], by_id: dict[int, Track]) -> Track:
    owner = {id(p): by_id[p.track_id] for p in parts}
    if len(parts) == 1 and len(parts[0].rows) == len(owner[id(parts[0])]) and parts[0].track_id == track_id:
        return owner[id(parts[0])]
    chosen: dict[int, tuple[float, int, Track, bool]] = {}
    for part in parts:
        track = owner[id(part)]
        edited = part.track_id != track_id
        for row in part.rows.tolist():
            frame = int(track.frame_indices[row])
            score = float(track.mask_scores[row])
            if frame not in chosen or score > chosen[frame][0]:
                chosen[frame] = (score, row, track, edited)
    frames = sorted(chosen)
    picks = [chosen[f] for f in frames]
    first = min(parts, key=lambda p: p.start)
    has_masks = all(t.masks is not None for _, _, t, _ in picks)
    return Track(
        track_id=track_id,
        phrase=by_id[first.track_id].phrase,
        frame_indices=np.asarray(frames, np.int64),
        boxes_xyxy=np.stack([t.boxes_xyxy[r] for _, r, t, _ in picks]),
        masks=tuple(t.masks[r] for _, r, t, _ in picks if t.masks is not None) if has_masks else None,
        scores=np.stack([t.scores[r] for _, r, t, _ in picks]),
        mask_scores=np.stack([t.mask_scores[r] for _, r, t, _ in picks]),
        identity_confidence=np.stack([t.identity_confidence[r] for _, r, t, _ in picks]),
        sources=tuple(Source.REPAIRED if edited else t.sources[r] for _, r, t, edited in picks),
    )
