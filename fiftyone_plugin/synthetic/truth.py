"""What happens in a clip of known identities: who touches whom, and who is away when.

Works on ground-truth tracks from anywhere; knows nothing of how they were made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.ndimage import binary_dilation

from fiftyone_plugin.geometry import box_iou, decode_mask
from fiftyone_plugin.types import IntArray, Track

__all__ = ["Absence", "Contact", "absences", "contacts"]


@dataclass(frozen=True, slots=True)
class Contact:
    """Two objects of one class touch, or one of them vanishes behind the other."""

    track_ids: tuple[int, int]
    start: int
    """0-based first frame."""
    stop: int
    """Frame after the last."""


@dataclass(frozen=True, slots=True)
class Absence:
    """An object is hidden or outside the picture, and was seen before."""

    track_id: int
    start: int
    """0-based first frame without it."""
    stop: int
    """Frame of its return, or the length of the clip."""
    has_return: bool


def contacts(tracks: Sequence[Track], *, reach_px: int = 2) -> tuple[Contact, ...]:
    """Every contact of two tracks of one phrase, in the order of time.

    Two contacts between which one of the two is never seen are one: it was hidden by the other.

    Args:
        tracks: Ground truth with masks.
        reach_px: Masks whose gap is at most so wide touch.
    """
    found: list[Contact] = []
    for a, b in combinations(tracks, 2):
        if a.phrase == b.phrase:
            found += _contacts_of(a, b, reach_px)
    return tuple(sorted(found, key=lambda c: (c.start, c.track_ids)))


def absences(tracks: Sequence[Track], *, frame_count: int) -> tuple[Absence, ...]:
    """Every absence of every track, in the order of time."""
    found: list[Absence] = []
    for track in tracks:
        seen = track.frame_indices.tolist()
        for a, b in zip(seen, [*seen[1:], frame_count], strict=True):
            if b > a + 1:
                found.append(Absence(track.track_id, a + 1, b, b < frame_count))
    return tuple(sorted(found, key=lambda x: (x.start, x.track_id)))


def _contacts_of(a: Track, b: Track, reach_px: int) -> list[Contact]:
    common, rows_a, rows_b = np.intersect1d(a.frame_indices, b.frame_indices, return_indices=True)
    touching = [
        f for f, i, j in zip(common.tolist(), rows_a, rows_b, strict=True) if _touch(a, int(i), b, int(j), reach_px)
    ]
    return [Contact((a.track_id, b.track_id), start, stop) for start, stop in _runs(touching, common)]


def _touch(a: Track, row_a: int, b: Track, row_b: int, reach_px: int) -> bool:
    if a.masks is None or b.masks is None:
        raise ValueError(f"tracks {a.track_id} and {b.track_id}: contacts need masks")
    margin = np.array([-reach_px, -reach_px, reach_px, reach_px], np.float32)
    if box_iou(a.boxes_xyxy[row_a : row_a + 1] + margin, b.boxes_xyxy[row_b : row_b + 1])[0, 0] == 0:
        return False
    mask_a, mask_b = decode_mask(a.masks[row_a]), decode_mask(b.masks[row_b])
    return bool((binary_dilation(mask_a, iterations=reach_px) & mask_b).any())


def _runs(touching: Sequence[int], both_seen: IntArray) -> list[tuple[int, int]]:
    """Join touching frames unless both are seen apart in between."""
    runs: list[tuple[int, int]] = []
    for frame in touching:
        if runs:
            start, stop = runs[-1]
            if not np.any((both_seen >= stop) & (both_seen < frame)):
                runs[-1] = (start, frame + 1)
                continue
        runs.append((frame, frame + 1))
    return runs
