"""Which tokens of a text belong to which phrase, and what a phrase scores from them. NumPy only.

The spans come from the character offsets of a tokenizer, never from token ids: in ``"red car. blue car."`` the two
tokens "car" have one id, but each belongs to its own phrase (and, through the detector's own block masks, has its own
meaning).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fiftyone_plugin.types import BoolArray, FloatArray

__all__ = ["fold_token_scores", "phrase_token_mask"]

_BETWEEN = ". "  # what `prompt.join_phrases` puts between two phrases


def phrase_token_mask(phrases: Sequence[str], offsets: NDArray[np.int64]) -> BoolArray:
    """Find the tokens of every phrase in the text that `prompt.join_phrases` makes of them.

    Args:
        phrases: P phrases.
        offsets: int64 (L, 2), first and last-plus-one character of each token; equal for special tokens.

    Returns:
        bool (P, L). No token belongs to two phrases; periods and special tokens belong to none.
    """
    mask = np.zeros((len(phrases), len(offsets)), np.bool_)
    has_text = offsets[:, 1] > offsets[:, 0]
    start = 0
    for p, phrase in enumerate(phrases):
        stop = start + len(phrase)
        mask[p] = has_text & (offsets[:, 0] >= start) & (offsets[:, 1] <= stop)
        start = stop + len(_BETWEEN)
    return mask


def fold_token_scores(token_scores: FloatArray, mask: BoolArray) -> FloatArray:
    """Scores of phrases from scores of tokens: (..., L) and bool (P, L) to (..., P).

    A phrase scores as much as its best token, ``max over l in phrase of sigmoid(logit_l)``. So the score of a box, the
    best of its phrases, is what Grounding DINO's own post-processing calls the score of a box (the maximum over all
    tokens; transformers, processing_grounding_dino.py, `post_process_grounded_object_detection`), except that periods
    and special tokens, which name nothing, cannot give it. A phrase without any token scores 0.
    """
    scores = np.zeros((*token_scores.shape[:-1], len(mask)), np.float32)
    for p, row in enumerate(mask):
        if row.any():
            scores[..., p] = token_scores[..., row].max(axis=-1)
    return scores
