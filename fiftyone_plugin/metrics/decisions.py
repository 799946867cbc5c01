"""Were the repairs right, and does the reported confidence mean what it says? Judged against ground truth.

A repair is a claim: from here on this propagated track shows the object that that one showed. The claim is compared
with what the two tracks show in the ground truth. Confidence is compared with how often it was right: the expected
calibration error (Naeini, Cooper, Hauskrecht, "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI
2015), with bins of equal count instead of equal width, since most confidences lie close to 1.
Knows nothing of how decisions are made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fiftyone_plugin.metrics.encounters import Share
from fiftyone_plugin.metrics.similarity import Similarity, pair_tracks
from fiftyone_plugin.types import BoolArray, Decision, FloatArray, IntArray, Outcome, Repair, RepairKind, Track

__all__ = [
    "ConfidenceSamples",
    "JudgedRepair",
    "ReliabilityBin",
    "abstention_rate",
    "decision_samples",
    "expected_calibration_error",
    "identity_samples",
    "judge_repairs",
    "precision",
    "reliability",
]

_WINDOW_FRAMES = 12
"""What a track shows on one side of a cut is the object it shows most often in so many frames."""
_MIN_SIMILARITY = 0.5
_IDENTITY = (RepairKind.EXCHANGE, RepairKind.REASSIGN, RepairKind.SPLIT)
"""Repairs that say who is who; the others take masks out, or put some into a gap."""


@dataclass(frozen=True, slots=True)
class JudgedRepair:
    """One repair and whether its claim is true.

    EXCHANGE and REASSIGN are right when every track they speak of shows, in the 12 frames from the repair on (and
    before its next edit), the object that its origin showed in the 12 frames up to the one that is named. SPLIT is
    right when the track shows another object than in the 12 frames before. TRIM is right when at least half of the
    frames it takes out showed no object, or one that a track of the result shows there. RESEED fills a
    gap: it is right when the new masks show the object that its origin showed. What a track shows is the object of
    largest similarity (at least 0.5), also where several tracks show the same one.
    """

    repair: Repair
    is_right: bool | None
    """None where the tracks show no object on one of the sides."""


@dataclass(frozen=True, slots=True)
class ConfidenceSamples:
    """Confidences and whether they were justified."""

    confidences: FloatArray
    """float32 (S,) in [0, 1]."""
    outcomes: BoolArray
    """bool (S,)."""

    def __add__(self, other: ConfidenceSamples) -> ConfidenceSamples:
        return ConfidenceSamples(
            np.concatenate([self.confidences, other.confidences]), np.concatenate([self.outcomes, other.outcomes])
        )

    @classmethod
    def empty(cls) -> ConfidenceSamples:
        """None at all."""
        return cls(np.zeros(0, np.float32), np.zeros(0, np.bool_))


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Samples of similar confidence."""

    count: int
    low: float
    high: float
    """Smallest and largest confidence."""
    mean_confidence: float
    right: float
    """Part of them that was right, in [0, 1]."""


@dataclass(frozen=True, slots=True)
class _Shown:
    """What a track shows."""

    frames: IntArray
    """int64 (F,), only where it shows an object."""
    objects: IntArray
    """int64 (F,), its id in the ground truth."""

    def most(self, start: float, stop: float, *, at_end: bool) -> int | None:
        """The object shown most often in the first, or last, frames of a range; None if none is."""
        inside = self.objects[(self.frames >= start) & (self.frames < stop)]
        near = inside[-_WINDOW_FRAMES:][::-1] if at_end else inside[:_WINDOW_FRAMES]
        return Counter(near.tolist()).most_common(1)[0][0] if len(near) else None


def judge_repairs(
    ground_truth: Sequence[Track],
    propagated: Sequence[Track],
    repairs: Sequence[Repair],
    result: Sequence[Track],
    *,
    similarity: Similarity = "auto",
) -> tuple[JudgedRepair, ...]:
    """Judge every repair; `JudgedRepair` says how.

    Args:
        ground_truth: The objects as they are.
        propagated: The tracks that the repairs speak of.
        repairs: All that were applied.
        result: The tracks after them.
        similarity: As in `evaluate`.
    """
    shown = _shown(ground_truth, propagated, similarity)
    kept = {
        (int(f), int(o))
        for s in _shown(ground_truth, result, similarity).values()
        for f, o in zip(s.frames, s.objects, strict=True)
    }
    edits = {
        t.track_id: sorted({r.start for r in repairs if t.track_id in r.continues and r.kind in _IDENTITY})
        for t in propagated
    }
    frames_of = {t.track_id: t.frame_indices for t in propagated}
    judged = []
    for repair in repairs:
        verdicts = [
            _is_claim_right(shown, edits, k, repair)
            if repair.kind is not RepairKind.TRIM
            else _is_trim_right(shown[k], frames_of[k], repair, kept)
            for k in repair.continues
        ]
        is_known = bool(verdicts) and None not in verdicts
        judged.append(JudgedRepair(repair, all(verdicts) if is_known else None))
    return tuple(judged)


def precision(judged: Sequence[JudgedRepair]) -> Share:
    """Part of the repairs of identity (EXCHANGE, REASSIGN, SPLIT) that are right, of those that can be judged."""
    known = [j for j in judged if j.is_right is not None and j.repair.kind in _IDENTITY]
    return Share(sum(bool(j.is_right) for j in known), len(known))


def abstention_rate(decisions: Sequence[Decision]) -> Share:
    """Part of the decisions that were left to a person."""
    return Share(sum(d.outcome is Outcome.ABSTAIN for d in decisions), len(decisions))


def identity_samples(
    ground_truth: Sequence[Track], tracks: Sequence[Track], *, similarity: Similarity = "auto"
) -> ConfidenceSamples:
    """`Track.identity_confidence` of every frame in which a track shows an object, and whether it is the first one.

    "First" is the object that the track shows most often in its first 12 frames.
    """
    shown = _shown(ground_truth, tracks, similarity)
    total = ConfidenceSamples.empty()
    for track in tracks:
        seen = shown[track.track_id]
        first = seen.most(-np.inf, np.inf, at_end=False)
        if first is not None:
            rows = np.searchsorted(track.frame_indices, seen.frames)
            total += ConfidenceSamples(track.identity_confidence[rows], seen.objects == first)
    return total


def decision_samples(
    ground_truth: Sequence[Track],
    result: Sequence[Track],
    propagated: Sequence[Track],
    decisions: Sequence[Decision],
    *,
    similarity: Similarity = "auto",
) -> ConfidenceSamples:
    """`Decision.confidence`, and whether the identities after the encounter are right in the result.

    They are right when every object that a track of the encounter shows in the 12 frames after it carries the id that
    it carried at last before the encounter. An object that carried none is not asked; a decision without any is left
    out.
    """
    before = _shown(ground_truth, propagated, similarity)
    carried = _carried(_shown(ground_truth, result, similarity))
    confidences, outcomes = [], []
    for decision in decisions:
        start, stop = decision.encounter.start, decision.encounter.stop
        verdicts = []
        for track_id in decision.encounter.track_ids:
            seen = before.get(track_id)
            object_id = None if seen is None else seen.most(stop, np.inf, at_end=False)
            if object_id is None or object_id not in carried:
                continue
            old = carried[object_id].most(-np.inf, start + 1, at_end=True)
            new = carried[object_id].most(stop, np.inf, at_end=False)
            if old is not None and new is not None:
                verdicts.append(old == new)
        if verdicts:
            confidences.append(decision.confidence)
            outcomes.append(all(verdicts))
    return ConfidenceSamples(np.asarray(confidences, np.float32), np.asarray(outcomes, np.bool_))


def reliability(samples: ConfidenceSamples, *, bins: int = 10) -> tuple[ReliabilityBin, ...]:
    """Sort by confidence and cut into bins of equal count; equal confidences stay in one bin, so there may be fewer."""
    order = np.argsort(samples.confidences, kind="stable")
    values, right = samples.confidences[order].astype(np.float64), samples.outcomes[order]
    edges = {0, len(values)}
    for k in range(1, bins):
        at = round(k * len(values) / bins)
        if 0 < at < len(values):
            edges.add(int(np.searchsorted(values, values[at], side="left")))
    places = sorted(edges)
    return tuple(
        ReliabilityBin(
            b - a, float(values[a]), float(values[b - 1]), float(values[a:b].mean()), float(right[a:b].mean())
        )
        for a, b in pairwise(places)
        if b > a
    )


def expected_calibration_error(samples: ConfidenceSamples, *, bins: int = 10) -> float | None:
    """Mean difference of confidence and the part that is right, over bins, by count: in [0, 1]; None for no sample."""
    table = reliability(samples, bins=bins)
    total = sum(b.count for b in table)
    return sum(b.count * abs(b.mean_confidence - b.right) for b in table) / total if total else None


def _shown(ground_truth: Sequence[Track], tracks: Sequence[Track], similarity: Similarity) -> dict[int, _Shown]:
    pairing = pair_tracks(ground_truth, tracks, similarity=similarity)
    rows: dict[int, list[tuple[int, int]]] = {t.track_id: [] for t in tracks}
    for frame in pairing.frames:
        if not len(frame.objects):
            continue
        best = frame.similarity.argmax(axis=0)
        for column, (row, p) in enumerate(zip(best.tolist(), frame.predictions.tolist(), strict=True)):
            if frame.similarity[row, column] >= _MIN_SIMILARITY:
                rows[pairing.prediction_ids[p]].append((frame.frame_index, pairing.object_ids[int(frame.objects[row])]))
    return {i: _as_shown(r) for i, r in rows.items()}


def _as_shown(rows: list[tuple[int, int]]) -> _Shown:
    table: NDArray[np.int64] = np.asarray(sorted(rows), np.int64).reshape(-1, 2)
    return _Shown(table[:, 0], table[:, 1])


def _carried(shown: dict[int, _Shown]) -> dict[int, _Shown]:
    """The other way round: object to the ids it carries."""
    rows: dict[int, list[tuple[int, int]]] = {}
    for track_id, seen in shown.items():
        for frame, object_id in zip(seen.frames.tolist(), seen.objects.tolist(), strict=True):
            rows.setdefault(object_id, []).append((frame, track_id))
    return {object_id: _as_shown(r) for object_id, r in rows.items()}


def _is_claim_right(
    shown: dict[int, _Shown], edits: dict[int, list[int]], track_id: int, repair: Repair
) -> bool | None:
    until = next((e for e in edits[track_id] if e > repair.start), np.inf)
    since = max((e for e in edits[track_id] if e < repair.start), default=-np.inf)
    now = shown[track_id].most(repair.start, until, at_end=False)
    origin = repair.continues[track_id]
    if origin is None:
        then = shown[track_id].most(since, repair.start, at_end=True)
        return None if now is None or then is None else now != then
    source, frame = origin
    since = max((e for e in edits.get(source, []) if e <= frame), default=-np.inf)
    then = shown[source].most(since, frame + 1, at_end=True) if source in shown else None
    return None if now is None or then is None else now == then


def _is_trim_right(seen: _Shown, frames: IntArray, repair: Repair, kept: set[tuple[int, int]]) -> bool | None:
    stop = np.inf if repair.stop is None else repair.stop
    gone = int(((frames >= repair.start) & (frames < stop)).sum())
    inside = (seen.frames >= repair.start) & (seen.frames < stop)
    lost = sum((int(f), int(o)) not in kept for f, o in zip(seen.frames[inside], seen.objects[inside], strict=True))
    return None if gone == 0 else 2 * lost <= gone
