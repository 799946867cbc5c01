"""Prompts: what the user typed to phrases, and phrases to the texts that a detector is given.

Knows nothing of models: how long a text is, the caller's tokenizer says.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence

from fiftyone_plugin.errors import PromptError

__all__ = ["join_phrases", "parse_prompt", "split_into_passes"]

# A question mark also ends a phrase for Grounding DINO's own masks, so a phrase cannot hold one.
_SEPARATORS = re.compile(r"[.,;?\n\r\u2028\u2029。．，、；？]+")
# List bullets, quotes and brackets around a class are not part of its name; inside it they are kept.
_AROUND = " \t\"'`“”‘’«»()[]{}<>-–—*•·:!¡¿"


def parse_prompt(text: str) -> tuple[str, ...]:
    """Read the classes out of a prompt.

    Classes are separated by periods, commas, semicolons, question marks or new lines, and may have several words. They
    come back in lower case, with single spaces, each once, in the order they were typed. Words are kept as typed
    ("a cat" stays "a cat"), and so are hyphens, apostrophes, digits, accents and every script.

    Raises:
        PromptError: The text names no class.
    """
    phrases: dict[str, str] = {}
    for part in _SEPARATORS.split(text):
        phrase = " ".join(unicodedata.normalize("NFC", part.lower()).split()).strip(_AROUND)
        if any(character.isalnum() for character in phrase):
            phrases.setdefault(phrase.casefold(), phrase)
    if not phrases:
        shown = text if len(text) <= 40 else text[:37] + "..."
        raise PromptError(f"prompt {shown!r} names no class: give one or more, such as 'sheep. dog.'")
    return tuple(phrases.values())


def join_phrases(phrases: Sequence[str]) -> str:
    """The text for a detector: ``"sheep. dog."``. Grounding DINO finds nothing for a phrase without its period."""
    return " ".join(f"{phrase}." for phrase in phrases)


def split_into_passes(
    phrases: Sequence[str], count_tokens: Callable[[str], int], *, max_tokens: int
) -> list[tuple[str, ...]]:
    """Distribute phrases, in their order, over as few texts as fit.

    Args:
        phrases: From `parse_prompt`.
        count_tokens: Number of tokens of a text, special tokens included.
        max_tokens: Largest number of tokens of one text.

    Returns:
        The phrases of each pass; `join_phrases` makes its text.

    Raises:
        PromptError: A single phrase is longer than that.
    """
    passes: list[tuple[str, ...]] = []
    current: tuple[str, ...] = ()
    for phrase in phrases:
        longer = (*current, phrase)
        if count_tokens(join_phrases(longer)) <= max_tokens:
            current = longer
            continue
        alone = count_tokens(join_phrases((phrase,)))
        if alone > max_tokens:
            raise PromptError(
                f"class {phrase!r} has {alone} tokens, the detector reads at most {max_tokens}: name it in fewer words"
            )
        passes.append(current)
        current = (phrase,)
    return [*passes, current] if current else passes
