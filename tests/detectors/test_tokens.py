"""Which tokens belong to which phrase."""

from __future__ import annotations

import numpy as np

from fiftyone_plugin.detectors.tokens import fold_token_scores, phrase_token_mask

# [CLS] red car . blue car . [SEP]
OFFSETS = np.array([[0, 0], [0, 3], [4, 7], [7, 8], [9, 13], [14, 17], [17, 18], [0, 0]])


def test_phrase_token_mask_gives_shared_words_to_their_own_phrase() -> None:
    mask = phrase_token_mask(("red car", "blue car"), OFFSETS)
    assert mask.tolist() == [
        [False, True, True, False, False, False, False, False],
        [False, False, False, False, True, True, False, False],
    ]


def test_phrase_token_mask_takes_word_pieces_and_inner_punctuation() -> None:
    # [CLS] t - shi ##rt . [SEP]
    offsets = np.array([[0, 0], [0, 1], [1, 2], [2, 5], [5, 7], [7, 8], [0, 0]])
    assert phrase_token_mask(("t-shirt",), offsets)[0].tolist() == [False, True, True, True, True, False, False]


def test_fold_token_scores_is_the_best_token_of_each_phrase() -> None:
    tokens = np.array([[0.9, 0.2, 0.6, 0.9, 0.1, 0.5, 0.9, 0.9]], np.float32)
    scores = fold_token_scores(tokens, phrase_token_mask(("red car", "blue car"), OFFSETS))
    # Special tokens and periods score highest here, and count for nothing.
    np.testing.assert_allclose(scores, [[0.6, 0.5]])
    assert scores.dtype == np.float32


def test_fold_token_scores_of_a_phrase_without_tokens_is_zero() -> None:
    scores = fold_token_scores(np.ones((2, 3, 4), np.float32), np.zeros((1, 4), np.bool_))
    np.testing.assert_array_equal(scores, np.zeros((2, 3, 1)))
