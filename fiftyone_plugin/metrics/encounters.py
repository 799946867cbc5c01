"""Metrics of identity beyond ID switches: what became of every encounter and every return, and what a repair changed.

ID switches count every flicker of a mask; what a user asks is "is sheep 3 still sheep 3 on the other side?". So all of
this looks at *runs*: stretches in which an object carries one predicted id, where runs shorter than a few frames, a
mask that ran over and back, are passed over. Definitions are in `JudgedEvent` and `IdentityChange`. Knows nothing of
how tracks were made or repaired; decisions and confidences are judged in `decisions.py`.

Letters: *object* is an identity of the ground truth, *id* the `track_id` of a predicted track.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations, pairwise

from fiftyone_plugin.metrics.identity import (
    History,
    Interval,
    absence_intervals,
    match_histories,
    touching_intervals,
)
from fiftyone_plugin.metrics.similarity import Similarity
from fiftyone_plugin.types import Track

__all__ = [
    "Break",
    "EventKind",
    "IdentityChange",
    "JudgedEvent",
    "Share",
    "TrueEvent",
    "compare_identities",
    "find_events",
    "judge_events",
    "recalled",
    "swapped",
]

_MIN_RUN_FRAMES = 6
"""An id that an object carries for fewer matched frames is a flicker."""
_WINDOW_FRAMES = 12
"""The id on one side of an event is the one carried most often in so many matched frames."""


@dataclass(frozen=True, slots=True)
class Share:
    """So many of so many; shares of several videos are added before they are divided."""

    part: int = 0
    whole: int = 0

    def __add__(self, other: Share) -> Share:
        return Share(self.part + other.part, self.whole + other.whole)

    @property
    def value(self) -> float | None:
        """In [0, 1]; None where there is nothing to judge."""
        return self.part / self.whole if self.whole else None


class EventKind(StrEnum):
    """Where identities can get lost in the ground truth."""

    CONTACT = "contact"
    JOINT_ABSENCE = "joint absence"
    RETURN = "return"


@dataclass(frozen=True, slots=True)
class TrueEvent:
    """An encounter of two objects, or the return of one."""

    kind: EventKind
    windows: tuple[Interval, ...]
    """For each object: the frames of the event, and how far beyond it the outcome may be looked for."""


@dataclass(frozen=True, slots=True)
class JudgedEvent:
    """What became of the identities in one event.

    On each side of its window an object carries the id that it is matched with most often in the 12 matched frames next
    to the window; of two that are as frequent, the nearer one.

    A contact or joint absence is judged when both objects carry an id on both sides. It is *wrong* (a swap) when one of
    them carries afterwards the id that the other one carried before. That either carries a new id is a broken link but
    no swap.

    A return is judged when the object carried an id before. It is *right* (recalled) when it carries the same one
    afterwards; not being found again is wrong.
    """

    event: TrueEvent
    before: tuple[int | None, ...]
    after: tuple[int | None, ...]
    is_right: bool | None
    """None where it cannot be judged."""


@dataclass(frozen=True, slots=True)
class Break:
    """An object carries one id up to a frame, and another one from a later frame on."""

    object_id: int
    last_frame: int
    old_id: int
    frame: int
    new_id: int


@dataclass(frozen=True, slots=True)
class IdentityChange:
    """Identities before and after a repair, by `Break`.

    An *error* is a break before the repair. It is *mended* when no break of the same object is left within 6 frames of
    it, although the object is found on both sides. A break afterwards that has none near it before is *harm*.
    A *false join* is an id whose successive runs lie on two different objects; those that were not there before are
    counted too, because a wrong join breaks no object's link and would otherwise go unseen.
    """

    errors: tuple[Break, ...]
    mended: tuple[Break, ...]
    remaining: tuple[Break, ...]
    """Breaks afterwards, harm included."""
    harmed: tuple[Break, ...]
    new_false_joins: tuple[tuple[int, int], ...]
    """Pairs of objects that one id passes between, in this order."""

    @property
    def recall(self) -> Share:
        """Part of the errors that is mended."""
        return Share(len(self.mended), len(self.errors))

    @property
    def precision(self) -> Share:
        """Part of what changed that changed for the better."""
        good = len(self.mended)
        return Share(good, good + len(self.harmed) + len(self.new_false_joins))


def find_events(
    ground_truth: Sequence[Track], *, min_absence_frames: int = 10, max_interruption_frames: int = 5
) -> tuple[TrueEvent, ...]:
    """All encounters and returns of the ground truth.

    Args:
        ground_truth: The objects as they are.
        min_absence_frames: Shortest absence, 1 or more.
        max_interruption_frames: Frames apart that do not end a contact, 0 or more.

    Returns:
        Contacts (boxes of two objects of one phrase touch), joint absences (two objects of one phrase are absent for so
        long each, and at the same time for a while), and returns (of every such absence), by kind.
    """
    contacts = touching_intervals(ground_truth, 0.0, max_interruption_frames)
    absences = absence_intervals(ground_truth, min_absence_frames)
    phrase = {t.track_id: t.phrase for t in ground_truth}
    joint = [
        (a, b)
        for a, b in combinations(absences, 2)
        if a.object_ids != b.object_ids
        and phrase[a.object_ids[0]] == phrase[b.object_ids[0]]
        and max(a.start, b.start) < min(a.stop, b.stop)
    ]
    return (
        *(
            TrueEvent(EventKind.CONTACT, tuple(Interval((i,), c.start, c.stop, c.until) for i in c.object_ids))
            for c in contacts
        ),
        *(TrueEvent(EventKind.JOINT_ABSENCE, pair) for pair in joint),
        *(TrueEvent(EventKind.RETURN, (a,)) for a in absences),
    )


def judge_events(
    ground_truth: Sequence[Track],
    tracks: Sequence[Track],
    events: Sequence[TrueEvent] | None = None,
    *,
    similarity: Similarity = "auto",
) -> tuple[JudgedEvent, ...]:
    """Judge what became of every event in a version of the tracks; `JudgedEvent` says how."""
    matches, _ = match_histories(ground_truth, tracks, similarity, False)
    result = []
    for event in find_events(ground_truth) if events is None else events:
        sides = [_sides(matches.get(w.object_ids[0], History()), w) for w in event.windows]
        before, after = tuple(s[0] for s in sides), tuple(s[1] for s in sides)
        result.append(JudgedEvent(event, before, after, _is_right(event.kind, before, after)))
    return tuple(result)


def swapped(judged: Sequence[JudgedEvent]) -> Share:
    """Swaps per encounter: contacts and joint absences that ended wrong, of those that can be judged."""
    met = [e for e in judged if e.event.kind is not EventKind.RETURN and e.is_right is not None]
    return Share(sum(not e.is_right for e in met), len(met))


def recalled(judged: Sequence[JudgedEvent]) -> Share:
    """Re-entry recall: returns under the old id, of those that can be judged."""
    back = [e for e in judged if e.event.kind is EventKind.RETURN and e.is_right is not None]
    return Share(sum(bool(e.is_right) for e in back), len(back))


def compare_identities(
    ground_truth: Sequence[Track],
    before: Sequence[Track],
    after: Sequence[Track],
    *,
    similarity: Similarity = "auto",
    min_run_frames: int = _MIN_RUN_FRAMES,
) -> IdentityChange:
    """Compare two versions of the tracks of one video; `IdentityChange` says what is counted.

    Args:
        ground_truth: The objects as they are.
        before: Predicted tracks without repair; their ids need not be those of `after`.
        after: The same with repair.
        similarity: As in `evaluate`.
        min_run_frames: Runs of fewer matched frames are passed over, 1 or more; an object that is never seen for so
            long keeps its longest run.
    """
    old, _ = match_histories(ground_truth, before, similarity, False)
    new, _ = match_histories(ground_truth, after, similarity, False)
    runs_before = {i: _runs(h, min_run_frames) for i, h in old.items()}
    runs_after = {i: _runs(h, min_run_frames) for i, h in new.items()}
    errors: list[Break] = []
    mended: list[Break] = []
    remaining: list[Break] = []
    harmed: list[Break] = []
    for object_id in sorted(runs_before):
        first, second = _breaks(object_id, runs_before[object_id]), _breaks(object_id, runs_after[object_id])
        errors += first
        remaining += second
        unmatched = list(second)
        for error in first:
            same = next((b for b in unmatched if _is_near(error, b, min_run_frames)), None)
            if same is not None:
                unmatched.remove(same)
            elif _is_found_around(runs_after[object_id], error, min_run_frames):
                mended.append(error)
        harmed += unmatched
    joins = Counter(_joins(runs_after)) - Counter(_joins(runs_before))
    return IdentityChange(
        tuple(errors), tuple(mended), tuple(remaining), tuple(harmed), tuple(sorted(joins.elements()))
    )


@dataclass(slots=True)
class _Run:
    """An object carries one id from one matched frame to another."""

    track_id: int
    first: int
    last: int
    frames: int


def _runs(history: History, min_frames: int) -> list[_Run]:
    runs: list[_Run] = []
    for frame, track_id in zip(history.frames, history.track_ids, strict=True):
        if runs and runs[-1].track_id == track_id:
            runs[-1].last = frame
            runs[-1].frames += 1
        else:
            runs.append(_Run(track_id, frame, frame, 1))
    if not runs:
        return []
    kept = [r for r in runs if r.frames >= min_frames] or [max(runs, key=lambda r: r.frames)]
    joined = [kept[0]]
    for run in kept[1:]:
        if run.track_id == joined[-1].track_id:
            joined[-1].last = run.last
            joined[-1].frames += run.frames
        else:
            joined.append(run)
    return joined


def _breaks(object_id: int, runs: Sequence[_Run]) -> list[Break]:
    return [Break(object_id, a.last, a.track_id, b.first, b.track_id) for a, b in pairwise(runs)]


def _is_near(a: Break, b: Break, tolerance: int) -> bool:
    return a.last_frame - tolerance <= b.frame and b.last_frame - tolerance <= a.frame


def _is_found_around(runs: Sequence[_Run], error: Break, tolerance: int) -> bool:
    return bool(runs) and runs[0].first <= error.last_frame + tolerance and runs[-1].last >= error.frame - tolerance


def _joins(runs: dict[int, list[_Run]]) -> list[tuple[int, int]]:
    """Pairs of objects on which an id lies one after the other."""
    by_id: dict[int, list[tuple[int, int]]] = {}
    for object_id, of_object in runs.items():
        for run in of_object:
            by_id.setdefault(run.track_id, []).append((run.first, object_id))
    return [(a, b) for seen in by_id.values() for (_, a), (_, b) in pairwise(sorted(seen)) if a != b]


def _sides(history: History, window: Interval) -> tuple[int | None, int | None]:
    stop = bisect_left(history.frames, window.start)
    start = bisect_left(history.frames, window.stop)
    end = bisect_right(history.frames, window.until - 1)
    earlier = history.track_ids[max(0, stop - _WINDOW_FRAMES) : stop][::-1]
    return _most_frequent(earlier), _most_frequent(history.track_ids[start : min(end, start + _WINDOW_FRAMES)])


def _most_frequent(ids: Sequence[int]) -> int | None:
    """Of equals the first: Counter keeps the order of insertion."""
    return Counter(ids).most_common(1)[0][0] if ids else None


def _is_right(kind: EventKind, before: tuple[int | None, ...], after: tuple[int | None, ...]) -> bool | None:
    if kind is EventKind.RETURN:
        return None if before[0] is None else after[0] == before[0]
    if None in before or None in after:
        return None
    return not (before[0] != before[1] and (after[0] == before[1] or after[1] == before[0]))
