"""Where identities could have been exchanged: contacts, duplicates, gaps, dips and jumps of propagated tracks.

Looks at boxes and frame indices, and at masks only to tell two objects behind each other from one object shown twice.
What happened in an encounter is not decided here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from fiftyone_plugin.geometry import box_areas, rle_iou
from fiftyone_plugin.types import FloatArray, IntArray, Track

__all__ = [
    "MIN_GAP_FRAMES",
    "Contact",
    "Cut",
    "CutKind",
    "Handover",
    "find_contacts",
    "find_dips",
    "find_gaps",
    "find_jumps",
    "frames_to_mask",
    "intervals",
    "merge_cuts",
]


MIN_GAP_FRAMES = 3
"""A shorter absence is a flicker of the mask."""


@dataclass(frozen=True, slots=True)
class Handover:
    """From a frame on, one track goes on along the path of another one; found by `handovers.find_handovers`."""

    frame: int
    source: int
    """Track whose path it was."""
    target: int
    """Track that goes on along it, and is there on this frame."""
    log_odds: float
    """How much better this fits than its own path (nats)."""


@dataclass(frozen=True, slots=True)
class Contact:
    """Two tracks touch in ``[start, stop)``."""

    track_ids: tuple[int, int]
    start: int
    stop: int
    deepest: int
    """Frame of the largest overlap."""
    max_iou: float
    """Largest box IoU, in [0, 1]."""
    duplicates: tuple[tuple[int, int], ...]
    """Ranges in which both tracks show the same object."""
    handovers: tuple[Handover, ...] = ()
    """By frame; two at one frame are an exchange."""


class CutKind(StrEnum):
    """Why a track is cut."""

    CONTACT = "contact"
    DUPLICATE = "duplicate"
    GAP = "gap"
    JUMP = "jump"
    CHANGE = "change"
    DIP = "dip"
    HANDOVER = "handover"
    SAID = "said"
    """A person said so."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A track is cut before `frame`."""

    track_id: int
    frame: int
    kind: CutKind
    depth: float
    """How risky the moment is, in [0, 1]: box IoU of a contact, the share of its allowance that a gap used up, or how
    far the score fell in a dip."""


def intervals(frames: IntArray, *, max_gap: int) -> Iterator[tuple[int, int]]:
    """Runs of increasing frame indices; runs no more than `max_gap` missing frames apart are one."""
    if not len(frames):
        return
    breaks = np.flatnonzero(np.diff(frames) > max_gap + 1)
    first = np.concatenate([[0], breaks + 1])
    last = np.concatenate([breaks, [len(frames) - 1]])
    for a, b in zip(first.tolist(), last.tolist(), strict=True):
        yield int(frames[a]), int(frames[b]) + 1


def _share_masks(a: Track, rows_a: IntArray, b: Track, rows_b: IntArray, *, min_iou: float) -> NDArray[np.bool_]:
    """Row by row, whether two tracks cover the same pixels; True where a track has no masks to tell by."""
    if a.masks is None or b.masks is None:
        return np.ones(len(rows_a), np.bool_)
    pairs = zip(rows_a.tolist(), rows_b.tolist(), strict=True)
    return np.array([rle_iou([a.masks[i]], [b.masks[j]])[0, 0] >= min_iou for i, j in pairs], np.bool_)


def _pairwise(a: FloatArray, b: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Row-wise IoU, and intersection over the smaller box."""
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    sides = np.clip(sides, 0, None)
    both = sides[:, 0] * sides[:, 1]
    area_a, area_b = box_areas(a), box_areas(b)
    iou = both / np.maximum(area_a + area_b - both, 1e-6)
    return np.asarray(iou, np.float32), np.asarray(both / np.maximum(np.minimum(area_a, area_b), 1e-6), np.float32)


def find_contacts(
    tracks: Sequence[Track],
    *,
    min_overlap: float = 0.1,
    min_duplicate_iou: float = 0.7,
    min_duplicate_mask_iou: float = 0.5,
    min_duplicate_frames: int = 3,
    min_passing_frames: int = 12,
    min_one_box_iou: float = 0.9,
    max_gap: int = 4,
) -> list[Contact]:
    """Find where boxes of two tracks overlap.

    Args:
        tracks: Propagated tracks of any phrase: a mask can move on to an object of another class too.
        min_overlap: Smallest intersection over the smaller box that is a contact, in [0, 1].
        min_duplicate_iou: Box IoU from which two tracks show one object, in [0, 1].
        min_duplicate_mask_iou: Mask IoU that they must have besides, where both have masks, in [0, 1].
        min_duplicate_frames: Shortest run of such frames that counts.
        min_passing_frames: Shortest run that counts between tracks without masks: boxes of two objects that pass each
            other, or leave side by side, coincide for a while, too.
        min_one_box_iou: Median box IoU of a shorter run between those, where one of them begins or ends, in [0, 1].
        max_gap: Contacts no more than this many frames apart are one.

    Returns:
        Contacts by start frame.
    """
    found: list[Contact] = []
    for i, a in enumerate(tracks):
        for b in tracks[i + 1 :]:
            if not len(a) or not len(b):
                continue
            if a.frame_indices[0] > b.frame_indices[-1] or b.frame_indices[0] > a.frame_indices[-1]:
                continue
            frames, in_a, in_b = np.intersect1d(
                a.frame_indices, b.frame_indices, assume_unique=True, return_indices=True
            )
            iou, overlap = _pairwise(a.boxes_xyxy[in_a], b.boxes_xyxy[in_b])
            touching = overlap >= min_overlap
            close = np.flatnonzero(iou >= min_duplicate_iou)
            same = frames[close[_share_masks(a, in_a[close], b, in_b[close], min_iou=min_duplicate_mask_iou)]]
            has_masks = a.masks is not None and b.masks is not None
            edges = [int(t.frame_indices[k]) for t in (a, b) for k in (0, -1)]

            for start, stop in intervals(frames[touching], max_gap=max_gap):
                inside = (frames >= start) & (frames < stop)
                deepest = int(frames[inside][np.argmax(overlap[inside])])
                doubles = tuple(
                    (s, e)
                    for s, e in intervals(same[(same >= start) & (same < stop)], max_gap=2)
                    if e - s >= min_passing_frames
                    or (
                        e - s >= min_duplicate_frames
                        and (has_masks or _is_one_box(edges, frames, iou, s, e, min_one_box_iou))
                    )
                )
                found.append(Contact((a.track_id, b.track_id), start, stop, deepest, float(iou[inside].max()), doubles))
    return sorted(found, key=lambda c: (c.start, c.track_ids))


def _is_one_box(edges: Sequence[int], frames: IntArray, iou: FloatArray, start: int, stop: int, min_iou: float) -> bool:
    """Whether two tracks have one box in a range, and one of them begins or ends in it."""
    inside = (frames >= start) & (frames < stop)
    return any(start <= e < stop for e in edges) and bool(np.median(iou[inside]) >= min_iou)


def find_gaps(track: Track, *, min_gap: int = MIN_GAP_FRAMES, allowance: int = 30) -> Iterator[Cut]:
    """Cut a track where it is absent for `min_gap` frames or more; `allowance` frames make the cut fully risky."""
    missing = np.diff(track.frame_indices) - 1
    for i in np.flatnonzero(missing >= min_gap).tolist():
        depth = min(1.0, float(missing[i]) / allowance)
        yield Cut(track.track_id, int(track.frame_indices[i + 1]), CutKind.GAP, depth)


def find_dips(
    track: Track, *, max_score: float = 0.9, min_drop: float = 0.1, max_gap: int = 4, window: int = 8
) -> Iterator[Cut]:
    """Cut a track at the lowest point of every stretch in which its propagator doubted that the object is there.

    Args:
        track: One whose scores are a propagator's: those of other tools mean other things.
        max_score: Scores below this are doubts, in [0, 1].
        min_drop: How far the score must fall below those before and after, in [0, 1].
        max_gap: Doubts no more than this many frames apart are one.
        window: Rows on each side that the doubt is compared with; without any, there is nothing to part.
    """
    for start, stop in intervals(track.frame_indices[track.scores < max_score], max_gap=max_gap):
        first, last = (int(r) for r in np.searchsorted(track.frame_indices, [start, stop]))
        before, after = track.scores[max(0, first - window) : first], track.scores[last : last + window]
        if not len(before) or not len(after):
            continue
        row = first + int(np.argmin(track.scores[first:last]))
        drop = float(min(np.median(before), np.median(after)) - track.scores[row])
        if drop >= min_drop:
            yield Cut(track.track_id, int(track.frame_indices[row]), CutKind.DIP, min(1.0, 2 * drop))


def find_jumps(track: Track, *, max_step: float = 0.6, max_growth: float = 2.0, window: int = 4) -> Iterator[Cut]:
    """Cut a track where its box leaps, or changes its area, and stays so: a flicker of one frame is no event.

    Args:
        track: The track.
        max_step: Largest move of the centre from one frame to the next, in box sizes (square root of the area).
        max_growth: Largest ratio of the median areas before and after, either way.
        window: Frames on each side that the medians are taken over.
    """
    if len(track) < 2:
        return
    boxes = track.boxes_xyxy
    step = np.diff(track.frame_indices)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    area = np.maximum(box_areas(boxes), 1.0)
    size = np.sqrt(np.minimum(area[1:], area[:-1]))
    leap = np.linalg.norm(np.diff(centres, axis=0), axis=1) / size / step
    growth = np.exp(np.abs(np.diff(np.log(area))))
    for i in np.flatnonzero((step <= 2) & ((leap > max_step) | (growth > max_growth))).tolist():
        before, after = slice(max(0, i + 1 - window), i + 1), slice(i + 1, i + 1 + window)
        moved = float(np.linalg.norm(np.median(centres[after], axis=0) - np.median(centres[before], axis=0)))
        grown = float(np.exp(abs(np.log(np.median(area[after]) / np.median(area[before])))))
        if moved > max_step * float(size[i]) or grown > max_growth:
            yield Cut(track.track_id, int(track.frame_indices[i + 1]), CutKind.JUMP, 1.0)


def merge_cuts(cuts: Iterable[Cut], *, min_frames: int = 3) -> list[Cut]:
    """Of cuts of one track closer than `min_frames`, keep the riskiest, and every one that a person made.

    A handover is known to the frame, so it goes before what is only near it.
    """
    kept: list[Cut] = []
    for cut in sorted(cuts, key=lambda c: (c.track_id, c.frame)):
        if kept and kept[-1].track_id == cut.track_id and cut.frame - kept[-1].frame < min_frames:
            both_said = cut.kind is kept[-1].kind is CutKind.SAID and cut.frame > kept[-1].frame
            if not both_said:
                if _strength(cut) > _strength(kept[-1]):
                    kept[-1] = cut
                continue
        kept.append(cut)
    return kept


def _strength(cut: Cut) -> tuple[int, float]:
    return {CutKind.SAID: 2, CutKind.HANDOVER: 1}.get(cut.kind, 0), cut.depth


def frames_to_mask(frames: IntArray, ranges: Sequence[tuple[int, int]]) -> NDArray[np.bool_]:
    """Which of `frames` lie in any of the half-open `ranges`: bool of the same length."""
    inside = np.zeros(len(frames), np.bool_)
    for start, stop in ranges:
        inside |= (frames >= start) & (frames < stop)
    return inside
