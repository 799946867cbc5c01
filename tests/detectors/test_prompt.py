"""What the user typed, and the texts that detectors are given."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fiftyone_plugin.detectors.prompt import join_phrases, parse_prompt, split_into_passes
from fiftyone_plugin.errors import PromptError


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        pytest.param("sheep", ("sheep",), id="no-period"),
        pytest.param("sheep. dog.", ("sheep", "dog"), id="periods"),
        pytest.param("sheep, dog", ("sheep", "dog"), id="commas"),
        pytest.param("sheep; dog;", ("sheep", "dog"), id="semicolons"),
        pytest.param("sheep\n\r\n dog\n", ("sheep", "dog"), id="new-lines"),
        pytest.param("sheep? dog?", ("sheep", "dog"), id="question-marks-end-a-phrase-for-the-model-too"),
        pytest.param("Sheep. SHEEP. sheep.", ("sheep",), id="case-folded-duplicates"),
        pytest.param("  fire \t truck .. police  car ", ("fire truck", "police car"), id="white-space"),
        pytest.param("a cat. the dog", ("a cat", "the dog"), id="articles-stay"),
        pytest.param("dog. sheep. dog", ("dog", "sheep"), id="order-stays"),
        pytest.param("t-shirt. driver's seat. 4x4", ("t-shirt", "driver's seat", "4x4"), id="inner-punctuation"),
        pytest.param("- sheep\n- dog", ("sheep", "dog"), id="bullet-list"),
        pytest.param('"sheep", (dog)', ("sheep", "dog"), id="quotes-and-brackets"),
        pytest.param("Café. ЁЛКА. 羊。犬、猫", ("café", "ёлка", "羊", "犬", "猫"), id="scripts"),
        pytest.param("cafe\u0301. café", ("café",), id="composed-and-decomposed-are-one"),
        pytest.param("STRASSE. straße", ("strasse",), id="full-case-folding"),
    ],
)
def test_parse_prompt_reads_classes(text: str, phrases: tuple[str, ...]) -> None:
    assert parse_prompt(text) == phrases


@pytest.mark.parametrize("text", ["", "   ", ". , ;\n", "-", "'\u200b'"])
def test_parse_prompt_without_a_class_says_so_in_one_line(text: str) -> None:
    with pytest.raises(PromptError, match=r"names no class: give one or more") as caught:
        parse_prompt(text)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=60))
def test_parse_prompt_of_its_own_text_changes_nothing(text: str) -> None:
    try:
        phrases = parse_prompt(text)
    except PromptError:
        return
    assert parse_prompt(join_phrases(phrases)) == phrases


def test_join_phrases_ends_every_phrase_with_a_period() -> None:
    assert join_phrases(("sheep", "red car")) == "sheep. red car."


def _count_words(text: str) -> int:
    return len(text.replace(".", " .").split()) + 2


@given(st.lists(st.sampled_from(["cat", "red car", "big old house"]), max_size=12), st.integers(6, 20))
def test_split_into_passes_keeps_order_fits_and_wastes_no_pass(phrases: list[str], max_tokens: int) -> None:
    passes = split_into_passes(phrases, _count_words, max_tokens=max_tokens)
    assert [p for texts in passes for p in texts] == phrases
    assert all(_count_words(join_phrases(texts)) <= max_tokens for texts in passes)
    # The first phrase of a pass would not have fitted into the pass before.
    for before, after in pairwise(passes):
        assert _count_words(join_phrases((*before, after[0]))) > max_tokens


@pytest.mark.parametrize("position", [0, 1], ids=["first", "later"])
def test_split_into_passes_names_a_phrase_that_is_too_long(position: int) -> None:
    phrases = ["cat", "dog"]
    phrases.insert(position, "a very very long name")
    with pytest.raises(PromptError, match=r"'a very very long name' has 8 tokens, the detector reads at most 7"):
        split_into_passes(phrases, _count_words, max_tokens=7)
