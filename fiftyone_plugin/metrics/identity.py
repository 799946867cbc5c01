"""What a repair did to identities, measured against ground truth: links repaired and harmed, encounters, returns.

The metrics of the literature say how good tracks are; these say what changed between two versions of them, and where.
All of them look at *matches*: in each frame, objects and predicted tracks are paired one to one as CLEAR does it
(similarity of at least 0.5, pairs of the frame before are kept). Knows nothing of how repairs are decided.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations, pairwise

import numpy as np

from fiftyone_plugin.metrics.clear import match_frames
from fiftyone_plugin.metrics.similarity import Similarity, pair_tracks
from fiftyone_plugin.types import Track

__all__ = [
    "History",
    "IdentityReport",
    "Interval",
    "Matches",
    "absence_intervals",
    "identity_report",
    "match_histories",
    "touching_intervals",
]


@dataclass(frozen=True, slots=True)
class History:
    """The matches of one object."""

    frames: list[int] = field(default_factory=list)
    """Frame indices, increasing."""
    track_ids: list[int] = field(default_factory=list)
    """Predicted ids, one a frame."""


Matches = dict[int, History]
"""By object id."""


@dataclass(frozen=True, slots=True)
class IdentityReport:
    """Identities before and after a repair.

    A *link* joins two successive frames in which an object is matched both before and after the repair; it is right
    when the object carries one predicted id in both frames, and wrong when it carries two.

    An *encounter* is a maximal stretch of frames in which two objects of one phrase touch (their similarity, by boxes,
    is above `max_apart_iou`), with interruptions of at most `max_interruption_frames`. It is judged when both objects
    are matched at least once before it and at least once after it. It is *swapped* when one of them carries, at its
    first match after the encounter, the id that the other carried at its last match before it.

    A *return* is an object's first frame after an absence of at least `min_absence_frames` from the ground truth; it is
    judged when the object was matched before the absence. It is *recalled* when the first match after it (and before
    the next such absence) has the id of the last match before it. An object that is not matched again is not recalled.
    """

    id_switches_before: int
    """CLEAR's IDSW."""
    id_switches_after: int
    links: int
    repaired: int
    """Links wrong before and right after."""
    harmed: int
    """Links right before and wrong after."""
    still_wrong: int
    """Links wrong before and after."""
    encounters: int
    """Encounters in the ground truth."""
    encounters_judged_before: int
    encounters_judged_after: int
    swaps_before: int
    swaps_after: int
    returns: int
    """Returns in the ground truth."""
    returns_judged_before: int
    returns_judged_after: int
    recalled_before: int
    recalled_after: int

    @property
    def swaps_per_encounter_before(self) -> float | None:
        """In [0, 1]; None where no encounter can be judged."""
        return _share(self.swaps_before, self.encounters_judged_before)

    @property
    def swaps_per_encounter_after(self) -> float | None:
        """In [0, 1]; None where no encounter can be judged."""
        return _share(self.swaps_after, self.encounters_judged_after)

    @property
    def reentry_recall_before(self) -> float | None:
        """Part of the returns that is recalled, in [0, 1]; None where none can be judged."""
        return _share(self.recalled_before, self.returns_judged_before)

    @property
    def reentry_recall_after(self) -> float | None:
        """Part of the returns that is recalled, in [0, 1]; None where none can be judged."""
        return _share(self.recalled_after, self.returns_judged_after)

    @property
    def repair_recall(self) -> float | None:
        """Part of the wrong links that was repaired, in [0, 1]; None where none was wrong."""
        return _share(self.repaired, self.repaired + self.still_wrong)

    @property
    def repair_precision(self) -> float | None:
        """Part of the changed links that was changed for the better, in [0, 1]; None where none was changed."""
        return _share(self.repaired, self.repaired + self.harmed)

    def as_dict(self) -> dict[str, int | float | None]:
        """Counts and shares by name, ready for JSON."""
        shares = (
            "swaps_per_encounter_before",
            "swaps_per_encounter_after",
            "reentry_recall_before",
            "reentry_recall_after",
            "repair_recall",
            "repair_precision",
        )
        return {**asdict(self), **{name: getattr(self, name) for name in shares}}


def identity_report(
    ground_truth: Sequence[Track],
    before: Sequence[Track],
    after: Sequence[Track],
    *,
    similarity: Similarity = "auto",
    per_class: bool = False,
    min_absence_frames: int = 10,
    max_apart_iou: float = 0.0,
    max_interruption_frames: int = 5,
) -> IdentityReport:
    """Compare two versions of the tracks of one video; `IdentityReport` defines what is counted.

    Args:
        ground_truth: The objects as they are.
        before: Predicted tracks without repair.
        after: The same with repair.
        similarity: As in `evaluate`.
        per_class: Match only tracks of one phrase.
        min_absence_frames: Shortest absence that makes a return, 1 or more.
        max_apart_iou: Box IoU up to which two objects count as apart, in [0, 1).
        max_interruption_frames: Frames apart that do not end an encounter, 0 or more.
    """
    first, switches_before = match_histories(ground_truth, before, similarity, per_class)
    second, switches_after = match_histories(ground_truth, after, similarity, per_class)
    repaired, harmed, still_wrong, links = _compare_links(first, second)
    encounters = touching_intervals(ground_truth, max_apart_iou, max_interruption_frames)
    judged_before, swaps_before = _count_swaps(encounters, first)
    judged_after, swaps_after = _count_swaps(encounters, second)
    absences = absence_intervals(ground_truth, min_absence_frames)
    returns_before, recalled_before = _count_recalled(absences, first)
    returns_after, recalled_after = _count_recalled(absences, second)
    return IdentityReport(
        id_switches_before=switches_before,
        id_switches_after=switches_after,
        links=links,
        repaired=repaired,
        harmed=harmed,
        still_wrong=still_wrong,
        encounters=len(encounters),
        encounters_judged_before=judged_before,
        encounters_judged_after=judged_after,
        swaps_before=swaps_before,
        swaps_after=swaps_after,
        returns=len(absences),
        returns_judged_before=returns_before,
        returns_judged_after=returns_after,
        recalled_before=recalled_before,
        recalled_after=recalled_after,
    )


@dataclass(frozen=True, slots=True)
class Interval:
    """Frames ``[start, stop)`` of one or two objects."""

    object_ids: tuple[int, ...]
    start: int
    stop: int
    until: int
    """End of the frames in which the outcome may be looked for."""


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def match_histories(
    ground_truth: Sequence[Track], predictions: Sequence[Track], similarity: Similarity, per_class: bool
) -> tuple[Matches, int]:
    """Who is matched with whom, and CLEAR's number of ID switches."""
    pairing = pair_tracks(ground_truth, predictions, similarity=similarity, per_class=per_class)
    matches: Matches = {object_id: History() for object_id in pairing.object_ids}
    switches = 0
    for found in match_frames(pairing):
        for row, column in zip(found.objects.tolist(), found.predictions.tolist(), strict=True):
            history = matches[pairing.object_ids[row]]
            track_id = pairing.prediction_ids[column]
            switches += bool(history.track_ids) and history.track_ids[-1] != track_id
            history.frames.append(found.frame.frame_index)
            history.track_ids.append(track_id)
    return matches, switches


def _compare_links(before: Matches, after: Matches) -> tuple[int, int, int, int]:
    """Number of links repaired, harmed and still wrong, and of all links."""
    repaired = harmed = still_wrong = links = 0
    for object_id, first in before.items():
        second = after[object_id]
        _, rows, others = np.intersect1d(first.frames, second.frames, assume_unique=True, return_indices=True)
        carried = [(first.track_ids[i], second.track_ids[k]) for i, k in zip(rows, others, strict=True)]
        for (old, new), (next_old, next_new) in pairwise(carried):
            was_right, is_right = old == next_old, new == next_new
            links += 1
            repaired += is_right and not was_right
            harmed += was_right and not is_right
            still_wrong += not was_right and not is_right
    return repaired, harmed, still_wrong, links


def touching_intervals(ground_truth: Sequence[Track], max_apart_iou: float, max_interruption: int) -> list[Interval]:
    """When two objects of one phrase overlap by more than `max_apart_iou`, interruptions of so many frames included."""
    found = []
    for a, b in combinations(ground_truth, 2):
        if a.phrase != b.phrase:
            continue
        frames, rows_a, rows_b = np.intersect1d(a.frame_indices, b.frame_indices, return_indices=True)
        touching = frames[_paired_iou(a.boxes_xyxy[rows_a], b.boxes_xyxy[rows_b]) > max_apart_iou]
        if not len(touching):
            continue
        last = int(max(a.frame_indices[-1], b.frame_indices[-1])) + 1
        cuts = np.flatnonzero(np.diff(touching) > max_interruption + 1) + 1
        stretches = np.split(touching, cuts)
        ends = [*(int(s[0]) for s in stretches[1:]), last]
        for stretch, until in zip(stretches, ends, strict=True):
            found.append(Interval((a.track_id, b.track_id), int(stretch[0]), int(stretch[-1]) + 1, until))
    return found


def _paired_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Box IoU row by row: (N, 4), (N, 4) to (N,)."""
    low, high = np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:])
    both = np.clip(high - low, 0, None).prod(axis=1)
    union = sum(np.clip(v[:, 2:] - v[:, :2], 0, None).prod(axis=1) for v in (a, b)) - both
    return np.asarray(np.divide(both, union, out=np.zeros_like(both), where=union > 0))


def absence_intervals(ground_truth: Sequence[Track], min_frames: int) -> list[Interval]:
    """When an object that comes back is not there, for so many frames at least."""
    found = []
    for track in ground_truth:
        gaps = np.flatnonzero(np.diff(track.frame_indices) > min_frames)
        starts = (track.frame_indices[gaps] + 1).tolist()
        stops = track.frame_indices[gaps + 1].tolist()
        untils = [*starts[1:], int(track.frame_indices[-1]) + 1] if len(gaps) else []
        found += [Interval((track.track_id,), *limits) for limits in zip(starts, stops, untils, strict=True)]
    return found


def _around(interval: Interval, history: History) -> tuple[int | None, int | None]:
    """The predicted ids at the last match before an interval and at the first one after it."""
    before = bisect_left(history.frames, interval.start) - 1
    after = bisect_left(history.frames, interval.stop)
    is_matched_after = after < len(history.frames) and history.frames[after] < interval.until
    return (
        history.track_ids[before] if before >= 0 else None,
        history.track_ids[after] if is_matched_after else None,
    )


def _count_swaps(encounters: list[Interval], matches: Matches) -> tuple[int, int]:
    """Number of encounters judged, and of those swapped."""
    judged = swapped = 0
    for encounter in encounters:
        (a0, a1), (b0, b1) = (_around(encounter, matches.get(i, History())) for i in encounter.object_ids)
        if None in (a0, a1, b0, b1):
            continue
        judged += 1
        swapped += a0 != b0 and (a1 == b0 or b1 == a0)
    return judged, swapped


def _count_recalled(absences: list[Interval], matches: Matches) -> tuple[int, int]:
    """Number of returns judged, and of those recalled."""
    judged = recalled = 0
    for absence in absences:
        before, after = _around(absence, matches.get(absence.object_ids[0], History()))
        judged += before is not None
        recalled += before is not None and after == before
    return judged, recalled
