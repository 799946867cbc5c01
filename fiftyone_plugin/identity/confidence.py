"""How sure identities are: of every stretch of a track, and of every decision.

Two things can be wrong with a stretch: somewhere before it, everything went over to another object, or just this
stretch shows another one and the track goes on as it was. They are told apart, or one unclear moment would make all
that follows doubtful although what follows is clear. Decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from fiftyone_plugin.identity.links import Links
from fiftyone_plugin.identity.tracklets import Tracklet
from fiftyone_plugin.types import Decision, Outcome

__all__ = ["doubt", "frame_confidences", "probability", "with_joint_confidence"]

_UNSEEN, _UNDECIDED, _TOLD, _ALIKE = 0.967, 1.0, 0.35, 2.4
"""Probability that no mask left its object unseen; log-odds (nats) of being right where nothing was told; what a nat of
margin tells, less than one because masks err in ways that views do not show; and by how much less is right where all
look alike (`lookalikes.alikeness`), since the looks that a margin rests on then were nobody's own. For masks that we
propagated. Fitted (maximum likelihood) to 1,646 encounters of 93 drawn clips (seeds 313 to 321, every condition of the
benchmark counting the same) to which no other constant was: on those that others were chosen with, more is right than
elsewhere. (That alikeness counts was decided on seeds 301 to 318.) Calibration error 0.025 where nine tenths of the
clips were fitted and the rest asked."""
_UNDERSTATED = 0.7
"""Log-odds (nats) by which margins understate decisions about tracks of others: fitted on injected failures and on true
tracks (seeds 11 to 13 of the benchmark, which reports others)."""


def probability(log_odds: float) -> float:
    """The logistic function."""
    return float(1 / (1 + np.exp(-np.clip(log_odds, -60, 60))))


def doubt(links: Links, doubts: Mapping[int, float]) -> None:
    """Let what was doubted count against what was left in its place.

    Args:
        links: The last solution; is changed.
        doubts: By tracklet, the margin (nats) of the link that was not made because it was too weak.
    """
    for index, margin in doubts.items():
        links.alone[index] = min(links.alone.get(index, np.inf), -margin)


def frame_confidences(tracklets: Sequence[Tracklet], links: Links) -> tuple[tuple[int, int, int, float], ...]:
    """Probability that a tracklet shows the object its chain began with; links are taken as independent.

    Returns:
        (propagated track, start, stop, probability) of every tracklet.
    """
    predecessor = links.predecessor()
    behind: dict[int, float] = {}
    for t in sorted(tracklets, key=lambda t: (t.start, t.track_id)):
        before = predecessor.get(t.index)
        behind[t.index] = 1.0
        if before is not None:
            margin = links.behind.get((before, t.index), np.inf)
            behind[t.index] = behind.get(before, 1.0) * probability(margin)
    return tuple(
        (t.track_id, t.start, t.stop, behind[t.index] * probability(links.alone.get(t.index, np.inf)))
        for t in tracklets
    )


def with_joint_confidence(
    decisions: Sequence[Decision],
    tracklets: Sequence[Tracklet],
    links: Links,
    *,
    reach_frames: int,
    alikeness: float = 0.0,
) -> tuple[Decision, ...]:
    """Decisions with the probability that *every* track of the encounter is right after it.

    The weakest of the links made there counts: what would break one of them mostly breaks the others too. Of an
    abstention it is the probability that things are right as they stand.

    Args:
        decisions: One an encounter.
        tracklets: All, by index.
        links: The solution they follow from.
        reach_frames: A tracklet that begins so near to an encounter begins in it.
        alikeness: How alike those look that are known to be different, in [0, 1]; counts in masks of our own.
    """
    predecessor = links.predecessor()
    by_track: dict[int, list[Tracklet]] = {}
    for t in tracklets:
        if t.index in predecessor:
            by_track.setdefault(t.track_id, []).append(t)
    is_audit = not any(t.looks for t in tracklets)
    result = []
    for decision in decisions:
        e = decision.encounter
        margins = [
            min(links.behind.get((predecessor[t.index], t.index), np.inf), links.alone.get(t.index, np.inf))
            for track_id in e.track_ids
            for t in by_track.get(track_id, ())
            if e.start - reach_frames <= t.start <= e.stop + reach_frames
        ]
        confidence = decision.confidence
        is_decided = decision.outcome is not Outcome.ABSTAIN and bool(np.isfinite(margins).any())
        if is_audit:
            log_odds = min(margins) if is_decided else _log_odds(confidence)
            confidence = probability(log_odds + _UNDERSTATED)
        elif is_decided:
            confidence = _UNSEEN * probability(_UNDECIDED + _TOLD * min(margins) - _ALIKE * alikeness)
        result.append(replace(decision, confidence=confidence))
    return tuple(result)


def _log_odds(confidence: float) -> float:
    low = np.clip(confidence, 1e-12, 1 - 1e-12)
    return float(np.log(low / (1 - low)))
