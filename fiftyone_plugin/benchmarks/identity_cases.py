"""One case of the identity benchmark: tracks to repair, what is known of them, the truth; and the score of an answer.

A *method* is a function from a case to an `Answer`. Everything that costs time (models, crops) is done before a case
exists, so that methods can be measured again in seconds. Knows nothing of where cases come from.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fiftyone_plugin import metrics
from fiftyone_plugin.config import IdentityOptions
from fiftyone_plugin.metrics import decisions as judging
from fiftyone_plugin.metrics import encounters
from fiftyone_plugin.metrics.encounters import Break, IdentityChange, JudgedEvent, Share, TrueEvent
from fiftyone_plugin.metrics.id_measures import id_measures
from fiftyone_plugin.metrics.similarity import pair_tracks
from fiftyone_plugin.pipeline.settle import Evidence, settle
from fiftyone_plugin.types import Decision, Gallery, Repair, Track

__all__ = ["Answer", "Case", "Method", "Row", "no_repair", "run", "score", "shepherd", "total"]


@dataclass(frozen=True, slots=True)
class Case:
    """Tracks to repair and what is known of them."""

    name: str
    group: str
    """Cases of one group are added up."""
    truth: tuple[Track, ...]
    evidence: Evidence
    """What a method starts from."""
    plain: tuple[Track, ...] | None = None
    """What the result without repair is, where it is not the tracks of the evidence."""
    plain_views: Mapping[int, Gallery] | None = None
    """Views of `plain` in every frame, clean or not, for methods that make no choice among them."""

    @property
    def baseline(self) -> tuple[Track, ...]:
        """The result without repair."""
        return self.evidence.tracks if self.plain is None else self.plain


@dataclass(frozen=True, slots=True)
class Answer:
    """What a method makes of a case."""

    tracks: tuple[Track, ...]
    repairs: tuple[Repair, ...] = ()
    decisions: tuple[Decision, ...] = ()
    edited: tuple[Track, ...] = ()
    """The tracks that the repairs speak of."""


Method = Callable[[Case], Answer]


def no_repair(case: Case) -> Answer:
    """The tracks as they are."""
    return Answer(case.baseline)


def shepherd(case: Case, options: IdentityOptions | None = None) -> Answer:
    """The identity layer, exactly as `pipeline.track` and `pipeline.repair` call it."""
    settled = settle(case.evidence, options)
    return Answer(settled.tracks, settled.resolution.repairs, settled.resolution.decisions, settled.carried)


@dataclass(frozen=True, slots=True)
class Row:
    """Scores of one method on one case, or the sum of several."""

    case: str
    group: str
    method: str
    scores: metrics.Scores
    swaps: Share
    returns: Share
    mended: Share
    changed_well: Share
    """Changes of identity for the better, of all changes; needs no list of repairs, so that methods can be compared."""
    harm: Share
    """Broken links and new false joins, per encounter and return of the ground truth."""
    repairs: Share
    """Decided repairs that were right; 0 of 0 for methods that list none."""
    abstained: Share
    frame_samples: judging.ConfidenceSamples
    decision_samples: judging.ConfidenceSamples
    idf1_change: float
    """Against no repair, in percentage points; of a sum, the lowest of any case."""
    seconds: float
    remaining: tuple[Break, ...] = ()
    lost_returns: tuple[JudgedEvent, ...] = ()
    false_joins: tuple[tuple[int, int], ...] = ()
    wrong_repairs: tuple[Repair, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain numbers, ready for JSON."""
        scores = self.scores.as_dict()
        return {
            "case": self.case,
            "group": self.group,
            "method": self.method,
            **{k: scores[k] for k in ("HOTA", "AssA", "DetA", "IDF1", "MOTA", "IDSW", "Frag")},
            **{
                name: {"part": share.part, "whole": share.whole, "share": share.value}
                for name, share in (
                    ("swaps_per_encounter", self.swaps),
                    ("reentry_recall", self.returns),
                    ("repair_recall", self.mended),
                    ("change_precision", self.changed_well),
                    ("repair_precision", self.repairs),
                    ("harm", self.harm),
                    ("abstention_rate", self.abstained),
                )
            },
            "calibration_error": judging.expected_calibration_error(self.frame_samples),
            "decision_calibration_error": judging.expected_calibration_error(self.decision_samples),
            "idf1_change": self.idf1_change,
            "seconds": self.seconds,
            "remaining": [[b.object_id, b.last_frame, b.old_id, b.frame, b.new_id] for b in self.remaining],
            "lost_returns": [
                [e.event.windows[0].object_ids[0], e.event.windows[0].start, e.event.windows[0].stop, e.before, e.after]
                for e in self.lost_returns
            ],
            "false_joins": [list(pair) for pair in self.false_joins],
            "wrong_repairs": [r.reason for r in self.wrong_repairs],
        }


def score(
    case: Case, method: str, answer: Answer, *, events: Sequence[TrueEvent], plain_f1: float, seconds: float = 0.0
) -> Row:
    """Measure an answer.

    Args:
        case: The case.
        method: Name for the row.
        answer: What the method made of it.
        events: `encounters.find_events` of the truth.
        plain_f1: IDF1 without repair, in [0, 1].
        seconds: Time the method took.
    """
    scores = metrics.evaluate(case.truth, answer.tracks)
    change: IdentityChange = encounters.compare_identities(case.truth, case.baseline, answer.tracks)
    judged = encounters.judge_events(case.truth, answer.tracks, events)
    edited = answer.edited or case.evidence.tracks
    repairs = judging.judge_repairs(case.truth, edited, answer.repairs, answer.tracks)
    return Row(
        case=case.name,
        group=case.group,
        method=method,
        scores=scores,
        swaps=encounters.swapped(judged),
        returns=encounters.recalled(judged),
        mended=change.recall,
        changed_well=change.precision,
        harm=Share(len(change.harmed) + len(change.new_false_joins), len(events)),
        repairs=judging.precision(repairs),
        abstained=judging.abstention_rate(answer.decisions),
        frame_samples=judging.identity_samples(case.truth, answer.tracks)
        if answer.decisions
        else judging.ConfidenceSamples.empty(),
        decision_samples=judging.decision_samples(case.truth, answer.tracks, edited, answer.decisions),
        idf1_change=100 * (scores.identity.f1 - plain_f1),
        seconds=seconds,
        remaining=change.remaining,
        lost_returns=tuple(e for e in judged if len(e.event.windows) == 1 and e.is_right is False),
        false_joins=change.new_false_joins,
        wrong_repairs=tuple(j.repair for j in repairs if j.is_right is False),
    )


def run(case: Case, methods: Mapping[str, Method]) -> list[Row]:
    """All methods on one case."""
    events = encounters.find_events(case.truth)
    plain_f1 = id_measures(pair_tracks(case.truth, case.baseline)).f1
    rows = []
    for name, method in methods.items():
        began = time.perf_counter()
        answer = method(case)
        rows.append(score(case, name, answer, events=events, plain_f1=plain_f1, seconds=time.perf_counter() - began))
    return rows


def total(rows: Sequence[Row], group: str) -> Row:
    """The rows of one method added up, as if all cases were one video in which no two share an identity."""
    samples, decided = judging.ConfidenceSamples.empty(), judging.ConfidenceSamples.empty()
    for r in rows:
        samples, decided = samples + r.frame_samples, decided + r.decision_samples
    return Row(
        case=f"{len(rows)} cases",
        group=group,
        method=rows[0].method,
        scores=metrics.combine([r.scores for r in rows]),
        swaps=sum((r.swaps for r in rows), Share()),
        returns=sum((r.returns for r in rows), Share()),
        mended=sum((r.mended for r in rows), Share()),
        changed_well=sum((r.changed_well for r in rows), Share()),
        harm=sum((r.harm for r in rows), Share()),
        repairs=sum((r.repairs for r in rows), Share()),
        abstained=sum((r.abstained for r in rows), Share()),
        frame_samples=samples,
        decision_samples=decided,
        idf1_change=min(r.idf1_change for r in rows),
        seconds=sum(r.seconds for r in rows),
    )
