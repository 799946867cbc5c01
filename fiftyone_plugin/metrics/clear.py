"""CLEAR MOT: MOTA, MOTP, ID switches, fragmentations.

Reference: Bernardin and Stiefelhagen, "Evaluating Multiple Object Tracking Performance: The CLEAR MOT Metrics", 2008,
section 2; matching prefers the pairs of the frame before, as in TrackEval 1.3.0, whose special cases are kept too.
Knows nothing of boxes or masks, only of similarities.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from fiftyone_plugin.metrics.similarity import FramePair, Pairing
from fiftyone_plugin.types import IntArray

__all__ = ["ClearScores", "FrameMatches", "clear", "match_frames"]

_EPSILON = float(np.finfo(np.float64).eps)

_CONTINUITY = 1000.0
"""Weight of keeping a pair: far above any sum of similarities in one frame."""

_NOBODY = -1


@dataclass(frozen=True, slots=True)
class ClearScores:
    """Counts over all frames; the ratios are properties."""

    true_positives: int
    false_negatives: int
    false_positives: int
    id_switches: int
    """Times that an object is matched by another prediction than the last time it was matched."""
    fragmentations: int
    """Times that an object, matched before, is matched again after frames in which it was not."""
    mostly_tracked: int
    """Objects matched in more than 80 % of their frames."""
    partly_tracked: int
    mostly_lost: int
    """Objects matched in less than 20 % of their frames."""
    similarity_sum: float
    """Similarity of the true positives."""

    @property
    def mota(self) -> float:
        """At most 1; below 0 where errors outnumber the objects. 0 where there is no object."""
        there = self.true_positives + self.false_negatives
        return (self.true_positives - self.false_positives - self.id_switches) / there if there else 0.0

    @property
    def motp(self) -> float:
        """Mean similarity of the true positives, in [0, 1]."""
        return self.similarity_sum / max(1, self.true_positives)

    @property
    def recall(self) -> float:
        """Part of the objects that is matched, in [0, 1]."""
        return self.true_positives / max(1, self.true_positives + self.false_negatives)

    @property
    def precision(self) -> float:
        """Part of the predictions that is matched, in [0, 1]."""
        return self.true_positives / max(1, self.true_positives + self.false_positives)


@dataclass(frozen=True, slots=True)
class FrameMatches:
    """The pairs of one frame: rows of objects and predictions, and their similarity, (M,) each."""

    frame: FramePair
    objects: IntArray
    predictions: IntArray
    similarity: NDArray[np.float64]


def match_frames(pairing: Pairing, *, min_similarity: float = 0.5) -> Iterator[FrameMatches]:
    """Match objects and predictions in every frame; pairs of the frame before are kept while they are similar enough.

    A frame without objects or without predictions counts as no frame here: the pairs before it are still remembered.

    Args:
        pairing: The video.
        min_similarity: Smallest similarity of a pair, in [0, 1].
    """
    nothing = np.zeros(0, np.int64)
    partner = np.full(len(pairing.object_ids), _NOBODY, np.int64)
    for frame in pairing.frames:
        if not len(frame.objects) or not len(frame.predictions):
            yield FrameMatches(frame, nothing, nothing, np.zeros(0))
            continue
        is_kept = frame.predictions[None] == partner[frame.objects][:, None]
        score = _CONTINUITY * is_kept + frame.similarity
        score[frame.similarity < min_similarity - _EPSILON] = 0
        rows, columns = linear_sum_assignment(score, maximize=True)
        is_match = score[rows, columns] > _EPSILON
        rows, columns = rows[is_match], columns[is_match]
        partner[:] = _NOBODY
        partner[frame.objects[rows]] = frame.predictions[columns]
        yield FrameMatches(frame, frame.objects[rows], frame.predictions[columns], frame.similarity[rows, columns])


def clear(pairing: Pairing, *, min_similarity: float = 0.5) -> ClearScores:
    """Measure a video."""
    size = len(pairing.object_ids)
    last_partner = np.full(size, _NOBODY, np.int64)
    is_matched_now = np.zeros(size, np.bool_)
    runs = np.zeros(size, np.int64)
    matched_frames = np.zeros(size, np.int64)
    matches = switches = 0
    similarity_sum = 0.0
    for found in match_frames(pairing, min_similarity=min_similarity):
        if not len(found.frame.objects) or not len(found.frame.predictions):
            continue
        before = last_partner[found.objects]
        switches += int(((before != _NOBODY) & (before != found.predictions)).sum())
        last_partner[found.objects] = found.predictions
        was_matched = is_matched_now
        is_matched_now = np.zeros(size, np.bool_)
        is_matched_now[found.objects] = True
        runs += is_matched_now & ~was_matched
        matched_frames[found.objects] += 1
        matches += len(found.objects)
        similarity_sum += float(found.similarity.sum())
    share = matched_frames / np.maximum(1, pairing.object_counts)
    mostly = int((share > 0.8).sum())
    partly = int((share >= 0.2).sum()) - mostly
    return ClearScores(
        true_positives=matches,
        false_negatives=int(pairing.object_counts.sum()) - matches,
        false_positives=int(pairing.prediction_counts.sum()) - matches,
        id_switches=switches,
        fragmentations=int(np.maximum(0, runs - 1).sum()),
        mostly_tracked=mostly,
        partly_tracked=partly,
        mostly_lost=size - mostly - partly,
        similarity_sum=similarity_sum,
    )
