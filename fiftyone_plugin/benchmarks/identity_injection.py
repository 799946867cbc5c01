"""Failures of trackers, put into true tracks where trackers make them: what a repair has to find and mend.

Everything is drawn from a seed. Boxes and masks stay as they are; only which id they have, and whether they are there,
changes, so that whatever is measured afterwards is identity. Knows nothing of pictures or embeddings.

======================  ==============================================================================================
kind                    what happens to the true tracks
======================  ==============================================================================================
``swap``                two objects exchange their ids at the moment they overlap most, for the rest of the video
``drop``                a track is missing for 5 to 30 frames and goes on under its own id: nothing to repair
``fragment``            a track goes on under a new id, at once or after a gap of at most 2 frames
``merge``               where two objects touch, the id of the one moves on to the other, whose own id ends; the first
                        object is missed for up to 10 frames and goes on under a new id
``blank``               an object is missed for 15 to 60 frames and comes back under a new id
======================  ==============================================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from fiftyone_plugin.geometry import box_areas, box_iou
from fiftyone_plugin.types import BoolArray, IntArray, Track

__all__ = ["KINDS", "inject", "take"]

KINDS = ("swap", "drop", "fragment", "merge", "blank")
_MIN_SIDE_FRAMES = 12
"""Every object is seen for so long on both sides of a failure; else nobody could say who it is."""
_MAX_FAILURES = 3
"""In one version of a sequence."""
_APART_FRAMES = 24
"""Two failures of one object are so far apart."""


@dataclass(frozen=True, slots=True)
class _Contact:
    first: int
    second: int
    """Positions in the sequence of tracks."""
    deepest: int
    """Frame."""


def inject(truth: Sequence[Track], kind: str, seed: int) -> tuple[Track, ...] | None:
    """Put failures of one kind into true tracks.

    Args:
        truth: The objects as they are.
        kind: One of `KINDS`.
        seed: Draws places and lengths.

    Returns:
        The tracks with up to three failures, or None where there is no place for any.
    """
    rng = np.random.default_rng((seed, KINDS.index(kind)))
    pool = _Pool(truth)
    done = 0
    if kind in ("swap", "merge"):
        places = _contacts(truth)
        for n in rng.permutation(len(places)).tolist():
            contact = places[n]
            at = contact.deepest + int(rng.integers(-2, 3))
            if done < _MAX_FAILURES and pool.is_free((contact.first, contact.second), at):
                if kind == "swap":
                    pool.exchange(contact.first, contact.second, at)
                else:
                    one, other = (contact.first, contact.second)[:: int(rng.choice([1, -1]))]
                    pool.move_on(one, other, at, gap=int(rng.integers(0, 11)))
                done += 1
    else:
        low, high, is_renamed = {"drop": (5, 30, False), "fragment": (0, 2, True), "blank": (15, 60, True)}[kind]
        for number in rng.permutation(len(truth)).tolist():
            frames = truth[number].frame_indices
            gap = int(rng.integers(low, high + 1))
            room = len(frames) - gap - 2 * _MIN_SIDE_FRAMES
            if done < _MAX_FAILURES and room > 0:
                at = int(frames[_MIN_SIDE_FRAMES + int(rng.integers(0, room))])
                pool.interrupt(number, at, gap=gap, is_renamed=is_renamed)
                done += 1
    return pool.tracks() if done else None


class _Pool:
    """Ids of every row of every true track while failures are put in; 0 is missing."""

    def __init__(self, truth: Sequence[Track]) -> None:
        self._truth = truth
        self._ids: list[IntArray] = [np.full(len(t), t.track_id, np.int64) for t in truth]
        self._next = max(t.track_id for t in truth) + 1
        self._taken: list[list[int]] = [[] for _ in truth]

    def is_free(self, objects: Sequence[int], frame: int) -> bool:
        """Whether these objects are seen long enough on both sides, and have no other failure near."""
        for n in objects:
            frames = self._truth[n].frame_indices
            if min((frames < frame).sum(), (frames >= frame).sum()) < _MIN_SIDE_FRAMES:
                return False
            if any(abs(frame - other) < _APART_FRAMES for other in self._taken[n]):
                return False
        return True

    def exchange(self, a: int, b: int, frame: int) -> None:
        """Both objects go on under the id of the other."""
        id_a, id_b = self._id_at(a, frame), self._id_at(b, frame)
        self._rename({id_a: id_b, id_b: id_a}, frame)
        self._note((a, b), frame)

    def move_on(self, a: int, b: int, frame: int, *, gap: int) -> None:
        """The id of `a` moves on to `b`, and `a` goes on under a new one after a gap."""
        id_a, id_b = self._id_at(a, frame), self._id_at(b, frame)
        self._rename({id_a: self._next, id_b: id_a}, frame)
        self._next += 1
        self._remove(a, frame, gap)
        self._note((a, b), frame)

    def interrupt(self, a: int, frame: int, *, gap: int, is_renamed: bool) -> None:
        """Object `a` is missing for a while, and perhaps goes on under a new id."""
        if is_renamed:
            self._rename({self._id_at(a, frame): self._next}, frame)
            self._next += 1
        self._remove(a, frame, gap)
        self._note((a,), frame)

    def tracks(self) -> tuple[Track, ...]:
        """One track for every id."""
        parts: dict[int, list[tuple[Track, IntArray]]] = {}
        for track, ids in zip(self._truth, self._ids, strict=True):
            for track_id in np.unique(ids[ids > 0]).tolist():
                parts.setdefault(track_id, []).append((track, np.flatnonzero(ids == track_id)))
        return tuple(take(track_id, pieces) for track_id, pieces in sorted(parts.items()))

    def _from(self, n: int, frame: int) -> BoolArray:
        return np.asarray(self._truth[n].frame_indices >= frame, np.bool_)

    def _id_at(self, n: int, frame: int) -> int:
        ids = self._ids[n]
        later = np.flatnonzero(self._from(n, frame) & (ids > 0))
        return int(ids[later[0]]) if len(later) else self._truth[n].track_id

    def _rename(self, names: dict[int, int], frame: int) -> None:
        """Of all objects: failures are drawn in any order of time, and a later one may have passed an id on."""
        for track, ids in zip(self._truth, self._ids, strict=True):
            before = ids.copy()
            for old, new in names.items():
                ids[(track.frame_indices >= frame) & (before == old)] = new

    def _remove(self, n: int, frame: int, count: int) -> None:
        later = np.flatnonzero(self._from(n, frame))
        self._ids[n][later[:count]] = 0

    def _note(self, objects: Sequence[int], frame: int) -> None:
        for n in objects:
            self._taken[n].append(frame)


def take(track_id: int, pieces: Sequence[tuple[Track, IntArray]]) -> Track:
    """One track of some rows of others, no two of one frame; the phrase is that of the first piece."""
    first = min(pieces, key=lambda piece: int(piece[0].frame_indices[piece[1][0]]))[0]
    rows = sorted((int(t.frame_indices[r]), k, int(r)) for k, (t, of) in enumerate(pieces) for r in of.tolist())
    picks = [(pieces[k][0], r) for _, k, r in rows]
    has_masks = all(t.masks is not None for t, _ in picks)
    return replace(
        first,
        track_id=track_id,
        frame_indices=np.array([f for f, _, _ in rows], np.int64),
        boxes_xyxy=np.stack([t.boxes_xyxy[r] for t, r in picks]),
        masks=tuple(t.masks[r] for t, r in picks if t.masks is not None) if has_masks else None,
        scores=np.stack([t.scores[r] for t, r in picks]),
        mask_scores=np.stack([t.mask_scores[r] for t, r in picks]),
        identity_confidence=np.stack([t.identity_confidence[r] for t, r in picks]),
        sources=tuple(t.sources[r] for t, r in picks),
    )


def _contacts(truth: Sequence[Track], *, min_overlap: float = 0.1) -> list[_Contact]:
    """Moments of largest overlap of any two objects of one phrase, one for each time that they touch."""
    found = []
    for a, b in combinations(range(len(truth)), 2):
        if truth[a].phrase != truth[b].phrase:
            continue
        frames, in_a, in_b = np.intersect1d(
            truth[a].frame_indices, truth[b].frame_indices, assume_unique=True, return_indices=True
        )
        if not len(frames):
            continue
        boxes_a, boxes_b = truth[a].boxes_xyxy[in_a], truth[b].boxes_xyxy[in_b]
        iou = np.array([box_iou(p[None], q[None])[0, 0] for p, q in zip(boxes_a, boxes_b, strict=True)])
        smaller = np.minimum(box_areas(boxes_a), box_areas(boxes_b))
        both = iou * (box_areas(boxes_a) + box_areas(boxes_b)) / (1 + iou)
        overlap = both / np.maximum(smaller, 1e-6)
        touching = np.flatnonzero(overlap >= min_overlap)
        for run in np.split(touching, np.flatnonzero(np.diff(frames[touching]) > 6) + 1):
            if len(run):
                found.append(_Contact(a, b, int(frames[run[np.argmax(overlap[run])]])))
    return found
