"""Identity F1: each object is given the one predicted track that serves it best over the whole video.

Reference: Ristani et al., "Performance Measures and a Data Set for Multi-Target, Multi-Camera Tracking", 2016,
arXiv 1609.01775, section 3. Knows nothing of boxes or masks, only of similarities.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from fiftyone_plugin.metrics.similarity import Pairing

__all__ = ["IdScores", "id_measures"]


@dataclass(frozen=True, slots=True)
class IdScores:
    """Detections by identity; the ratios are properties."""

    true_positives: int
    """Detections of objects that are covered by the track assigned to the object."""
    false_negatives: int
    false_positives: int

    @property
    def f1(self) -> float:
        """IDF1, in [0, 1]."""
        return self.true_positives / max(
            1.0, self.true_positives + 0.5 * self.false_positives + 0.5 * self.false_negatives
        )

    @property
    def recall(self) -> float:
        """IDR, in [0, 1]."""
        return self.true_positives / max(1, self.true_positives + self.false_negatives)

    @property
    def precision(self) -> float:
        """IDP, in [0, 1]."""
        return self.true_positives / max(1, self.true_positives + self.false_positives)


def id_measures(pairing: Pairing, *, min_similarity: float = 0.5) -> IdScores:
    """Measure a video; a detection is covered by a similarity of at least `min_similarity`.

    The paper's assignment with one dummy per object and per track gives the same numbers: leaving both sides
    unassigned costs what assigning two that never meet costs, so the best assignment is the one that covers most.
    """
    together = np.zeros((len(pairing.object_ids), len(pairing.prediction_ids)), np.int64)
    for frame in pairing.frames:
        rows, columns = np.nonzero(frame.similarity >= min_similarity)
        together[frame.objects[rows], frame.predictions[columns]] += 1
    best = together[linear_sum_assignment(together, maximize=True)].sum()
    matched = int(best)
    return IdScores(
        true_positives=matched,
        false_negatives=int(pairing.object_counts.sum()) - matched,
        false_positives=int(pairing.prediction_counts.sum()) - matched,
    )
