"""Paths that go on in another track: handovers inside a contact, and fragments.

Looks cannot speak while two objects cover each other, but their boxes go on: each has a place, a speed and a size of
its own. Where what comes fits the other track's past, and its own past far worse, by what boxes of this video
ordinarily do from one frame to the next, the track was handed over there: two to each other's object (an exchange), or
one to the object of another that ends (a takeover). Only such breaks are told. That a path goes on evenly proves
nothing, because a mask can flow over from one object to the other.

Where a track ends in plain sight and another one begins a few frames later just where, as fast and as large as the
first would have been, one object was given two ids (a fragment). What hides behind another track's box can be somebody
else, so there nothing is told. Knows nothing of looks or masks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from fiftyone_plugin.geometry import box_areas
from fiftyone_plugin.identity.encounters import Contact, Handover
from fiftyone_plugin.types import IntArray, Track

__all__ = ["Continuation", "find_continuations", "find_handovers"]

_WINDOW = 6
"""Frames on each side over which place, speed and size are measured."""
_MIN_ROWS = 3
"""Fewer boxes in a window tell no speed."""
_MAX_STEP = 3
"""Frames from the one side to the other; across a longer gap a straight path says little."""
_REACH = 3
"""Frames around a contact in which a handover is looked for."""
_FREEDOM = 4.0
"""Degrees of freedom of Student's t: boxes stray by a multiple of the usual far more often than a normal would."""
_PEAK = 0.375
"""Density of Student's t with so much freedom at 0, for a spread of 1."""
_RANGES = np.array([2.0, 2.0, 1.2, 1.2, 1.0, 1.0])
"""Over so much, in the units of `_FLOORS`, somebody else's path is spread evenly where it begins within one object size
of the end of another one. Set by hand. In two street scenes, how often paths of two people fitted each other was within
about one nat of the odds that follow; where a car drives and all boxes leap, the odds are two nats too low."""
_FLOORS = np.array([0.02, 0.02, 0.05, 0.05, 0.02, 0.02])
"""Least spread that is believed: of place (object sizes), speed (object sizes in a window), log width and height."""


@dataclass(frozen=True, slots=True)
class _Path:
    """Where a track of T rows is and goes: [0] told from the rows up to each one, [1] from those from it on.

    Not a number where there are too few rows.
    """

    frames: IntArray
    places: NDArray[np.float64]
    """(2, T, 2), pixels."""
    speeds: NDArray[np.float64]
    """(2, T, 2), pixels per frame."""
    sides: NDArray[np.float64]
    """(2, T, 2), logs of width and height."""
    sizes: NDArray[np.float64]
    """(T,), pixels: square root of the area."""


def find_handovers(
    tracks: Sequence[Track], contacts: Sequence[Contact], *, min_log_odds: float = 10.0, max_misfit: float = 15.0
) -> list[Contact]:
    """Find where tracks that touch were handed over.

    Args:
        tracks: The tracks, the motion of the camera taken out.
        contacts: Of these tracks.
        min_log_odds: Smallest advantage of the other path (nats), of both tracks together in an exchange. No track of
            the real sequences that stayed on its object reached 8 (`docs/benchmark-identity.md`).
        max_misfit: Largest misfit of the other path (nats); 0 goes on as if nothing happened, much leaps to nowhere.

    Returns:
        The same contacts, with `Contact.handovers` filled in; contacts with duplicates as they are.
    """
    paths = {t.track_id: _follow(t) for t in tracks if len(t)}
    judge = _Judge(_usual_stray(paths.values()), min_log_odds, max_misfit)
    found: list[Contact] = []
    for contact in contacts:
        told: list[Handover] = []
        if not contact.duplicates:
            told += _exchanges(contact, paths, judge)
            told += _takeovers(contact, paths, judge, target=contact.track_ids[0], source=contact.track_ids[1])
            told += _takeovers(contact, paths, judge, target=contact.track_ids[1], source=contact.track_ids[0])
        found.append(replace(contact, handovers=tuple(sorted(told, key=lambda h: (h.frame, h.target)))))
    return found


@dataclass(frozen=True, slots=True)
class Continuation:
    """A track is on its object for the last time, and another one begins along the same path."""

    source: int
    """Track on the object until `last_frame`."""
    last_frame: int
    target: int
    """Track that begins."""
    log_odds: float
    """What boxes say for one object (nats)."""


def find_continuations(
    tracks: Sequence[Track],
    contacts: Sequence[Contact] = (),
    *,
    max_gap_frames: int = 3,
    max_covered: float = 1 / 3,
    max_log_odds: float = 6.0,
) -> list[Continuation]:
    """Find where one object was given two ids: one track ends, or leaves it, and a new one goes on along its path.

    The odds compare one object, which strays as all do in this video, with somebody else who comes from anywhere near.
    Whoever else could go on, or have gone before, takes his share: tracks that end or begin then, and those that are
    there all the time. So boxes that tremble, and crowds, tell little by themselves.

    Args:
        tracks: Of any phrase, the motion of the camera taken out.
        contacts: Of these tracks, with handovers: a track that takes another one's object over leaves its own.
        max_gap_frames: Most frames without the object.
        max_covered: Largest part of the last box before, or of the first box after, that any third track covers, in
            [0, 1].
        max_log_odds: The most that boxes say (nats).

    Returns:
        Those whose log-odds are above 0, by the order of the tracks.
    """
    tracks = [t for t in tracks if len(t)]
    paths = {t.track_id: _follow(t) for t in tracks}
    judge = _Judge(_usual_stray(paths.values()), 0.0, np.inf)
    sharpness = float(np.log(_PEAK * _RANGES / judge.usual).sum())
    crowd = _Crowd(tracks)
    max_step = max_gap_frames + 1
    first, found = np.zeros(1, np.int64), []
    for source, row in _ends(tracks, contacts):
        a, last = paths[source], np.array([row])
        frame = int(a.frames[row])
        for target in crowd.beginning(frame + 1, frame + max_step + 1):
            b = paths[target]
            odds = sharpness - judge.misfit(a, last, b, first)
            is_hidden = max(crowd.covered(source, row, target), crowd.covered(target, 0, source)) > max_covered
            if is_hidden or not odds[0] > 0:
                continue
            # Somebody who was never seen before is one more, at odds of 1.
            rivals = [np.zeros(1)]
            for c in (paths[i] for i in crowd.present(frame - max_step, int(b.frames[0]) + max_step)):
                after = np.searchsorted(c.frames, [frame], side="right")
                if c is not b and after[0] < len(c.frames) and c.frames[after[0]] - frame <= max_step:
                    rivals.append(sharpness - judge.misfit(a, last, c, after))
                before = np.searchsorted(c.frames, b.frames[:1]) - 1
                if c is not a and before[0] >= 0 and b.frames[0] - c.frames[before[0]] <= max_step:
                    rivals.append(sharpness - judge.misfit(c, before, b, first))
            against = np.concatenate(rivals)
            value = float(odds[0] - logsumexp(against[np.isfinite(against)]))
            if value > 0:
                found.append(Continuation(source, frame, target, min(value, max_log_odds)))
    return found


def _ends(tracks: Sequence[Track], contacts: Sequence[Contact]) -> Iterator[tuple[int, int]]:
    """Ids and last rows of tracks on their objects: where they end, and where they take another one's object over."""
    frames = {t.track_id: t.frame_indices for t in tracks}
    for track_id, at in frames.items():
        yield track_id, len(at) - 1
    for contact in contacts:
        moments = [h.frame for h in contact.handovers]
        for h in contact.handovers:
            if moments.count(h.frame) == 1:
                yield h.target, int(np.searchsorted(frames[h.target], h.frame)) - 1


class _Crowd:
    """Who is there when, and who covers whom."""

    def __init__(self, tracks: Sequence[Track]) -> None:
        self._tracks = {t.track_id: t for t in tracks}
        self._ids = np.array(list(self._tracks), np.int64)
        self._first = np.array([t.frame_indices[0] for t in tracks], np.int64)
        self._last = np.array([t.frame_indices[-1] for t in tracks], np.int64)

    def beginning(self, start: int, stop: int) -> list[int]:
        """Ids of tracks that begin in ``[start, stop)``."""
        return self._chosen((self._first >= start) & (self._first < stop))

    def present(self, start: int, stop: int) -> list[int]:
        """Ids of tracks that begin no later than `stop` and end no earlier than `start`."""
        return self._chosen((self._first <= stop) & (self._last >= start))

    def covered(self, track_id: int, row: int, but_not_by: int) -> float:
        """Largest part of a box that another track's box covers, in [0, 1]."""
        track = self._tracks[track_id]
        frame, box = int(track.frame_indices[row]), track.boxes_xyxy[row].astype(np.float64)
        worst = 0.0
        for other in (self._tracks[i] for i in self.present(frame, frame) if i not in (track_id, but_not_by)):
            at = int(np.searchsorted(other.frame_indices, frame))
            if other.frame_indices[at] == frame:
                corners = other.boxes_xyxy[at]
                sides = np.clip(np.minimum(box[2:], corners[2:]) - np.maximum(box[:2], corners[:2]), 0, None)
                worst = max(worst, float(np.prod(sides) / max(np.prod(box[2:] - box[:2]), 1e-6)))
        return worst

    def _chosen(self, which: NDArray[np.bool_]) -> list[int]:
        return [int(i) for i in self._ids[which]]


@dataclass(frozen=True, slots=True)
class _Judge:
    """What is usual in this video, and what is asked for."""

    usual: NDArray[np.float64]
    """(6,), of `_stray`."""
    min_log_odds: float
    max_misfit: float

    def misfit(self, a: _Path, before: IntArray, b: _Path, after: IntArray) -> NDArray[np.float64]:
        """How badly rows `after` of b go on from rows `before` of a: (N,), nats against a step that strays nowhere."""
        stray = _stray(a, before, b, after) / self.usual
        return np.asarray((_FREEDOM + 1) / 2 * np.log1p(stray**2 / _FREEDOM).sum(axis=1))


def _exchanges(contact: Contact, paths: Mapping[int, _Path], judge: _Judge) -> Iterator[Handover]:
    """Two handovers at every moment from which both tracks go on along each other's path."""
    id_a, id_b = contact.track_ids
    a, b = paths[id_a], paths[id_b]
    frames, in_a, in_b = np.intersect1d(a.frames, b.frames, assume_unique=True, return_indices=True)
    rows = np.flatnonzero(_is_near(contact, frames[1:]) & (np.diff(frames) <= _MAX_STEP))
    a0, a1, b0, b1 = in_a[rows], in_a[rows + 1], in_b[rows], in_b[rows + 1]
    to_a, to_b = judge.misfit(b, b0, a, a1), judge.misfit(a, a0, b, b1)
    odds_a, odds_b = judge.misfit(a, a0, a, a1) - to_a, judge.misfit(b, b0, b, b1) - to_b
    # Not a number compares as False: where a path is not known, nothing is told.
    is_told = (np.minimum(odds_a, odds_b) > 0) & (np.maximum(to_a, to_b) <= judge.max_misfit)
    odds = np.where(is_told, odds_a + odds_b, 0.0)
    while len(odds) and odds.max() >= judge.min_log_odds:
        k = int(np.argmax(odds))
        frame = int(frames[rows[k] + 1])
        yield Handover(frame, source=id_b, target=id_a, log_odds=float(odds_a[k]))
        yield Handover(frame, source=id_a, target=id_b, log_odds=float(odds_b[k]))
        odds[np.abs(frames[rows + 1] - frame) <= _WINDOW] = 0.0


def _takeovers(
    contact: Contact, paths: Mapping[int, _Path], judge: _Judge, *, target: int, source: int
) -> Iterator[Handover]:
    """A handover wherever one track ends, for good or for a while, and the other one goes on along its path."""
    a, b = paths[target], paths[source]
    ends = np.flatnonzero(np.append(np.diff(b.frames) > _MAX_STEP, True))
    ends = ends[_is_near(contact, b.frames[ends] + 1)]
    after = np.searchsorted(a.frames, b.frames[ends], side="right")
    is_inside = (after > 0) & (after < len(a.frames))
    ends, after = ends[is_inside], after[is_inside]
    is_at_once = (b.frames[ends] - a.frames[after - 1] < _MAX_STEP) & (a.frames[after] - b.frames[ends] <= _MAX_STEP)
    ends, after = ends[is_at_once], after[is_at_once]
    misfits = judge.misfit(b, ends, a, after)
    odds = judge.misfit(a, after - 1, a, after) - misfits
    for k in np.flatnonzero((odds >= judge.min_log_odds) & (misfits <= judge.max_misfit)).tolist():
        yield Handover(int(a.frames[after[k]]), source=source, target=target, log_odds=float(odds[k]))


def _is_near(contact: Contact, frames: IntArray) -> NDArray[np.bool_]:
    return np.asarray((frames >= contact.start - _REACH) & (frames < contact.stop + _REACH), np.bool_)


def _follow(track: Track) -> _Path:
    """Lines through the boxes of each window, by least squares; sizes are averaged."""
    boxes = track.boxes_xyxy.astype(np.float64)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    sides = np.log(np.maximum(boxes[:, 2:] - boxes[:, :2], 1.0))
    values = np.concatenate([centres, sides], axis=1)
    places, speeds, spans = (np.full((2, len(track), 2), np.nan) for _ in range(3))
    for way, direction in enumerate((-1, 1)):
        rows = np.arange(len(track))[:, None] + direction * np.arange(_WINDOW)
        inside = np.clip(rows, 0, len(track) - 1)
        times = (track.frame_indices[inside] - track.frame_indices[:, None]).astype(np.float64)
        counts = (rows == inside) & (np.abs(times) < _WINDOW + _MAX_STEP)
        total = np.maximum(counts.sum(axis=1), 1)
        centre = (counts * times).sum(axis=1) / total
        means = (counts[:, :, None] * values[inside]).sum(axis=1) / total[:, None]
        lean = counts * (times - centre[:, None])
        spread = np.maximum((lean**2).sum(axis=1), 1e-9)
        slopes = (lean[:, :, None] * values[inside][:, :, :2]).sum(axis=1) / spread[:, None]
        known = counts.sum(axis=1) >= _MIN_ROWS
        places[way, known] = (means[:, :2] - slopes * centre[:, None])[known]
        speeds[way, known] = slopes[known]
        spans[way, known] = means[known, 2:]
    sizes = np.sqrt(np.maximum(box_areas(track.boxes_xyxy), 1.0)).astype(np.float64)
    return _Path(track.frame_indices, places, speeds, spans, sizes)


def _stray(a: _Path, before: IntArray, b: _Path, after: IntArray) -> NDArray[np.float64]:
    """How rows `after` of b differ from how rows `before` of a would go on: (N, 6), units of `_FLOORS`."""
    step = (b.frames[after] - a.frames[before])[:, None]
    size = np.maximum(a.sizes[before], b.sizes[after])[:, None]
    speed_a, speed_b = a.speeds[0, before], b.speeds[1, after]
    # The two lines are compared half-way.
    apart = (b.places[1, after] - speed_b * step / 2) - (a.places[0, before] + speed_a * step / 2)
    turned = (speed_b - speed_a) * _WINDOW
    return np.concatenate([apart / size, turned / size, b.sides[1, after] - a.sides[0, before]], axis=1)


def _usual_stray(paths: Iterable[_Path]) -> NDArray[np.float64]:
    """Spread (6,) of what tracks stray by from themselves: by medians, so that the handovers among it do not count."""
    found = [np.zeros((0, 6))]
    for path in paths:
        rows = np.flatnonzero(np.diff(path.frames) <= _MAX_STEP)
        found.append(_stray(path, rows, path, rows + 1))
    strays = np.concatenate(found)
    strays = strays[np.isfinite(strays).all(axis=1)]
    if not len(strays):
        return _FLOORS
    # 1.4826 times the median of absolute values is the standard deviation of a normal.
    return np.asarray(np.maximum(1.4826 * np.median(np.abs(strays), axis=0), _FLOORS))
