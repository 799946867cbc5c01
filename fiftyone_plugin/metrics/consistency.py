"""How far identities can be trusted where there is no ground truth: agreement, purity, margins.

None of these says that a track is right; each says that something is wrong when it is low. Knows nothing of videos or
models: it compares tracks with tracks, views with views, and looks at margins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fiftyone_plugin.errors import EmbeddingMismatchError
from fiftyone_plugin.metrics.id_measures import id_measures
from fiftyone_plugin.metrics.similarity import Similarity, pair_tracks
from fiftyone_plugin.types import Decision, FloatArray, Gallery, Outcome, Track

__all__ = ["Margins", "exchange_margins", "forward_backward_agreement", "gallery_purity"]


def forward_backward_agreement(
    forward: Sequence[Track], backward: Sequence[Track], *, similarity: Similarity = "auto"
) -> float:
    """How much two runs over one video agree on who is who: one from its beginning, one from its end.

    A swap in an encounter is a matter of chance to a propagator, and the two runs come into it from different sides;
    where they agree the encounter was most likely harmless. It is the identity F1 of one run against the other, which
    does not depend on which of them is called the truth, nor on how either numbers its tracks.

    Args:
        forward: Tracks of one run.
        backward: Tracks of the other one, with frame indices of the same video (not counted from its end).
        similarity: As in `metrics.evaluate`.

    Returns:
        In [0, 1]; 1 where both runs are empty.
    """
    if not any(map(len, forward)) and not any(map(len, backward)):
        return 1.0
    return id_measures(pair_tracks(forward, backward, similarity=similarity)).f1


def gallery_purity(galleries: Mapping[int, Gallery], phrases: Mapping[int, str] | None = None) -> dict[int, float]:
    """How many views of each gallery look more like their own gallery than like any other one.

    A view is compared, by cosine, with the mean of the other views of its gallery and with the means of all other
    galleries of its phrase. A gallery that two individuals share loses the views of the one that has a gallery of its
    own; look-alikes lower the purity of both, so that it says where appearance cannot be trusted, too.

    Args:
        galleries: By track id; two views or more, others are left out.
        phrases: Phrase by track id; by default all are of one.

    Returns:
        By track id, in [0, 1]; 1 for a gallery that has nothing to be compared with.

    Raises:
        EmbeddingMismatchError: Galleries of different embedders.
    """
    names = {(g.embedder_name, g.embeddings.shape[1]) for g in galleries.values() if len(g)}
    if len(names) > 1:
        raise EmbeddingMismatchError(f"galleries of {sorted(names)}: use one embedder for all tracks")
    known = {i: g for i, g in galleries.items() if len(g) >= 2}
    sums = {i: (g.embeddings * g.weights[:, None]).sum(axis=0) for i, g in known.items()}
    purity = {}
    for track_id, gallery in known.items():
        others = [s for i, s in sums.items() if i != track_id and (phrases is None or phrases[i] == phrases[track_id])]
        if not others:
            purity[track_id] = 1.0
            continue
        rest = sums[track_id] - gallery.embeddings * gallery.weights[:, None]
        own = (gallery.embeddings * _unit(rest)).sum(axis=1)
        other = gallery.embeddings @ _unit(np.stack(others)).T
        purity[track_id] = float((own > other.max(axis=1)).mean())
    return purity


@dataclass(frozen=True, slots=True)
class Margins:
    """By how much encounters were decided, in log-odds (nats)."""

    decided: int
    abstained: int
    lowest: float
    """Of the decided ones; 0 where there is none."""
    median: float
    expected_errors: float
    """Sum over all encounters of one minus the confidence: how many are wrong if confidence means what it says."""


def exchange_margins(decisions: Sequence[Decision]) -> Margins:
    """Sum up the margins of decisions; abstentions are counted, and their doubt goes into the expected errors."""
    margins = [d.margin for d in decisions if d.outcome is not Outcome.ABSTAIN]
    return Margins(
        decided=len(margins),
        abstained=len(decisions) - len(margins),
        lowest=min(margins, default=0.0),
        median=float(np.median(margins)) if margins else 0.0,
        expected_errors=sum(1.0 - d.confidence for d in decisions),
    )


def _unit(rows: FloatArray) -> FloatArray:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), np.float32)
