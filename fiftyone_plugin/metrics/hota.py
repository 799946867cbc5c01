"""HOTA: how well objects are found, and how well they are kept apart, in one number and in its parts.

Reference: Luiten et al., "HOTA: A Higher Order Metric for Evaluating Multi-Object Tracking", IJCV 2021,
arXiv 2009.07736, equations (1) to (17). Special cases (nothing there, nothing predicted) as in TrackEval 1.3.0.
Knows nothing of boxes or masks, only of similarities.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from fiftyone_plugin.metrics.similarity import Pairing
from fiftyone_plugin.types import IntArray

__all__ = ["ALPHAS", "HotaScores", "hota"]

Float64Array = NDArray[np.float64]

ALPHAS: Float64Array = np.arange(0.05, 0.99, 0.05)
"""Similarity thresholds, 0.05 to 0.95 (the paper's section 3.7)."""

_EPSILON = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, slots=True)
class HotaScores:
    """Sums over all frames, one per threshold in `ALPHAS`: float64 (19,) each. The ratios are properties."""

    true_positives: Float64Array
    false_negatives: Float64Array
    false_positives: Float64Array
    similarity_sum: Float64Array
    """Similarity of the true positives."""
    association_sum: Float64Array
    """Association accuracy of the true positives, each in [0, 1]."""
    association_recall_sum: Float64Array
    association_precision_sum: Float64Array

    @property
    def det_a(self) -> Float64Array:
        """Detection accuracy, in [0, 1]."""
        return self.true_positives / np.maximum(1, self.true_positives + self.false_negatives + self.false_positives)

    @property
    def det_re(self) -> Float64Array:
        """Detection recall, in [0, 1]."""
        return self.true_positives / np.maximum(1, self.true_positives + self.false_negatives)

    @property
    def det_pr(self) -> Float64Array:
        """Detection precision, in [0, 1]."""
        return self.true_positives / np.maximum(1, self.true_positives + self.false_positives)

    @property
    def ass_a(self) -> Float64Array:
        """Association accuracy, in [0, 1]."""
        return self.association_sum / np.maximum(1, self.true_positives)

    @property
    def ass_re(self) -> Float64Array:
        """Association recall, in [0, 1]."""
        return self.association_recall_sum / np.maximum(1, self.true_positives)

    @property
    def ass_pr(self) -> Float64Array:
        """Association precision, in [0, 1]."""
        return self.association_precision_sum / np.maximum(1, self.true_positives)

    @property
    def loc_a(self) -> Float64Array:
        """Localisation accuracy, in [0, 1]; 1 where nothing was found."""
        return np.maximum(1e-10, self.similarity_sum) / np.maximum(1e-10, self.true_positives)

    @property
    def hota(self) -> Float64Array:
        """Geometric mean of detection and association accuracy, in [0, 1]."""
        return np.sqrt(self.det_a * self.ass_a)


def hota(pairing: Pairing) -> HotaScores:
    """Measure a video."""
    object_counts = pairing.object_counts
    prediction_counts = pairing.prediction_counts
    objects, predictions, similarity = _match(pairing, object_counts, prediction_counts)

    shape = (len(object_counts), len(prediction_counts))
    cells = objects * shape[1] + predictions
    sums = np.zeros((7, len(ALPHAS)))
    for a, alpha in enumerate(ALPHAS):
        is_match = similarity >= alpha - _EPSILON
        together = np.bincount(cells[is_match], minlength=shape[0] * shape[1]).reshape(shape)
        apart = object_counts[:, None] + prediction_counts[None] - together
        matched = int(is_match.sum())
        sums[:, a] = (
            matched,
            object_counts.sum() - matched,
            prediction_counts.sum() - matched,
            similarity[is_match].sum(),
            (together * (together / np.maximum(1, apart))).sum(),
            (together * (together / np.maximum(1, object_counts[:, None]))).sum(),
            (together * (together / np.maximum(1, prediction_counts[None]))).sum(),
        )
    return HotaScores(*sums)


def _match(
    pairing: Pairing, object_counts: IntArray, prediction_counts: IntArray
) -> tuple[IntArray, IntArray, Float64Array]:
    """Match every frame so that HOTA becomes largest (section 3.6 of the paper).

    Returns:
        Row of the object, row of the prediction and similarity of all matches of all frames, (M,) each.
    """
    alignment = np.zeros((len(object_counts), len(prediction_counts)))
    for frame in pairing.frames:
        values = frame.similarity
        union = values.sum(axis=0)[None] + values.sum(axis=1)[:, None] - values
        share = np.divide(values, union, out=np.zeros_like(values), where=union > _EPSILON)
        alignment[frame.objects[:, None], frame.predictions[None]] += share
    alignment /= np.maximum(1, object_counts[:, None] + prediction_counts[None] - alignment)

    objects, predictions, similarity = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0)]
    for frame in pairing.frames:
        score = alignment[frame.objects[:, None], frame.predictions[None]] * frame.similarity
        rows, columns = linear_sum_assignment(score, maximize=True)
        objects.append(frame.objects[rows])
        predictions.append(frame.predictions[columns])
        similarity.append(frame.similarity[rows, columns])
    return np.concatenate(objects), np.concatenate(predictions), np.concatenate(similarity)
