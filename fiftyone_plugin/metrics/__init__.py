"""Measuring tracks against ground truth: HOTA, CLEAR, identity F1, and what happened at encounters.

What asks a special question is a module of its own: `encounters` (swaps, returns, what a repair changed), `decisions`
(were repairs right, is confidence calibrated) and `consistency` (without ground truth).

    scores = evaluate(ground_truth, predictions)
    print(scores.as_dict()["HOTA"])

The numbers equal those of TrackEval, the reference implementation (tests compare them to 1e-6). Knows nothing of
videos, models or file formats.
"""

from __future__ import annotations

from fiftyone_plugin.metrics.clear import ClearScores
from fiftyone_plugin.metrics.hota import HotaScores
from fiftyone_plugin.metrics.id_measures import IdScores
from fiftyone_plugin.metrics.identity import IdentityReport, identity_report
from fiftyone_plugin.metrics.scores import Scores, combine, evaluate

__all__ = [
    "ClearScores",
    "HotaScores",
    "IdScores",
    "IdentityReport",
    "Scores",
    "combine",
    "evaluate",
    "identity_report",
]
