"""All metrics of a video in one object, by the names under which they are published.

Knows nothing of how the single metrics are computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

from fiftyone_plugin.errors import OptionError
from fiftyone_plugin.metrics.clear import ClearScores, clear
from fiftyone_plugin.metrics.hota import HotaScores, hota
from fiftyone_plugin.metrics.id_measures import IdScores, id_measures
from fiftyone_plugin.metrics.similarity import Similarity, pair_tracks
from fiftyone_plugin.types import Track

__all__ = ["Scores", "combine", "evaluate"]

S = TypeVar("S", HotaScores, ClearScores, IdScores)


@dataclass(frozen=True, slots=True)
class Scores:
    """Everything that is measured in one video, or in several."""

    hota: HotaScores
    clear: ClearScores
    identity: IdScores
    object_count: int
    """Objects in the ground truth."""
    track_count: int
    """Predicted tracks."""

    def as_dict(self) -> dict[str, float | int]:
        """Percentages (float) and counts (int) under their published names, ready for JSON."""
        parts = self.hota
        means = {
            "HOTA": parts.hota,
            "AssA": parts.ass_a,
            "DetA": parts.det_a,
            "LocA": parts.loc_a,
            "AssRe": parts.ass_re,
            "AssPr": parts.ass_pr,
            "DetRe": parts.det_re,
            "DetPr": parts.det_pr,
        }
        return {
            **{name: 100 * float(values.mean()) for name, values in means.items()},
            "IDF1": 100 * self.identity.f1,
            "IDR": 100 * self.identity.recall,
            "IDP": 100 * self.identity.precision,
            "MOTA": 100 * self.clear.mota,
            "MOTP": 100 * self.clear.motp,
            "IDSW": self.clear.id_switches,
            "Frag": self.clear.fragmentations,
            "MT": self.clear.mostly_tracked,
            "PT": self.clear.partly_tracked,
            "ML": self.clear.mostly_lost,
            "TP": self.clear.true_positives,
            "FP": self.clear.false_positives,
            "FN": self.clear.false_negatives,
            "objects": self.object_count,
            "tracks": self.track_count,
        }


def evaluate(
    ground_truth: Sequence[Track],
    predictions: Sequence[Track],
    *,
    similarity: Similarity = "auto",
    per_class: bool = False,
) -> Scores:
    """Measure the predicted tracks of one video.

    Args:
        ground_truth: The objects as they are.
        predictions: The tracks as they were predicted; either side may be empty.
        similarity: ``mask`` (mask IoU), ``box`` (box IoU), or ``auto``: masks where all tracks have them.
        per_class: Match only tracks of one phrase. False leaves phrases out of account, as MOT files have none.

    Raises:
        OptionError: An unknown similarity, or ``mask`` where a track has none.
        TrackFileError: Two tracks of one side share an id, or masks differ in frame size.
    """
    pairing = pair_tracks(ground_truth, predictions, similarity=similarity, per_class=per_class)
    return Scores(
        hota=hota(pairing),
        clear=clear(pairing),
        identity=id_measures(pairing),
        object_count=len(pairing.object_ids),
        track_count=len(pairing.prediction_ids),
    )


def combine(scores: Sequence[Scores]) -> Scores:
    """Scores of several videos as if they were one, with identities that no two videos share.

    Raises:
        OptionError: There is none.
    """
    if not scores:
        raise OptionError("no scores to combine: give those of at least one video")
    return Scores(
        hota=_sum([s.hota for s in scores]),
        clear=_sum([s.clear for s in scores]),
        identity=_sum([s.identity for s in scores]),
        object_count=sum(s.object_count for s in scores),
        track_count=sum(s.track_count for s in scores),
    )


def _sum(parts: Sequence[S]) -> S:
    kind = type(parts[0])
    return kind(**{f.name: sum(getattr(p, f.name) for p in parts) for f in fields(kind)})
