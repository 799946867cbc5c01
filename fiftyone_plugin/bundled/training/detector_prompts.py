"""The language of the synthetic world: phrases, a WordPiece vocabulary, and random prompts to train a detector with.

Knows nothing of pixels or models; ids of special tokens are BERT's, since transformers' Grounding DINO expects these.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fiftyone_plugin.synthetic.vocabulary import class_named, sprite_classes
from fiftyone_plugin.types import BoolArray, FloatArray, IntArray

__all__ = [
    "CLASS_TOKEN",
    "END_TOKEN",
    "PERIOD_TOKEN",
    "PromptBatch",
    "Prompter",
    "TextEncoder",
    "build_vocabulary",
    "phrase_table",
    "plural",
]

CLASS_TOKEN, END_TOKEN, PERIOD_TOKEN = 101, 102, 1012
_FIXED_IDS = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]", 1012: ".", 1029: "?"}

_MORE_HYPERNYMS: Mapping[str, tuple[str, ...]] = {
    "boat": ("ship", "speedboat", "sailboat", "motorboat", "canoe", "ferry"),
    "train": ("steam train", "bullet train", "railway car", "metro", "monorail", "tram"),
    "truck": ("delivery truck", "fire truck", "pickup truck", "lorry"),
    "car": ("car", "taxi", "police car", "suv", "race car"),
    "apple": ("red apple", "green apple"),
    "dinosaur": ("brontosaurus", "tyrannosaurus"),
    "shoe": ("sneaker", "high heel", "flat shoe", "boot"),
    "scooter": ("motor scooter", "kick scooter"),
    "pepper": ("hot pepper", "bell pepper"),
    "camera": ("camera", "video camera"),
    "camel": ("camel", "bactrian camel"),
    "bottle": ("champagne bottle", "baby bottle"),
    "bus": ("bus", "trolleybus", "minibus"),
    "cake": ("cake", "birthday cake", "cupcake"),
    "hat": ("top hat", "cap"),
    "furniture": ("chair", "couch", "bed"),
    "bag": ("handbag", "backpack", "money bag"),
    "clock": ("clock", "alarm clock"),
    "lamp": ("lantern", "light bulb", "flashlight"),
}
_IRREGULAR_PLURALS = {
    "sheep": "sheep",
    "fish": "fish",
    "mouse": "mice",
    "goose": "geese",
    "wolf": "wolves",
    "knife": "knives",
    "deer": "deer",
    "ox": "oxen",
    "bison": "bison",
    "person": "people",
    "leaf": "leaves",
    "scarf": "scarves",
}
_OTHER_WORDS = (
    "a an the some many all every of in on with and red green blue yellow white black brown pink purple grey gray big "
    "small large little left right"
)
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_PUNCTUATION = ",-'!:;/()"
_ENDINGS = ("##s", "##es", "##ing", "##ed", "##er")


class TextEncoder(Protocol):
    """The part of a transformers tokenizer that is used here."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Ids of the tokens of a text."""
        ...


def plural(phrase: str) -> str:
    """The English plural of a phrase's last word."""
    *before, word = phrase.split(" ")
    if word in _IRREGULAR_PLURALS:
        word = _IRREGULAR_PLURALS[word]
    elif word.endswith("s"):
        word += "es" if word.endswith("ss") else ""
    elif re.search("(x|ch|sh)$", word):
        word += "es"
    elif re.search("[^aeiou]y$", word):
        word = word[:-1] + "ies"
    else:
        word += "s"
    return " ".join([*before, word])


def phrase_table(*, held_out: bool = False) -> dict[str, frozenset[int]]:
    """Names, synonyms and hypernyms, each with the classes it means; classes that training never sees on request."""
    classes = sprite_classes()
    table: dict[str, set[int]] = {}
    for index, entry in enumerate(classes):
        for phrase in (*entry.names, *entry.hypernyms):
            table.setdefault(phrase, set()).add(index)
    for phrase, names in _MORE_HYPERNYMS.items():
        table.setdefault(phrase, set()).update(class_named(name) for name in names)
    if not held_out:
        table = {phrase: {i for i in known if not classes[i].is_held_out} for phrase, known in table.items()}
    return {phrase: frozenset(known) for phrase, known in table.items() if known}


def build_vocabulary() -> dict[str, int]:
    """WordPiece tokens and their ids: the words of all phrases and plurals, some others, and single letters."""
    words: list[str] = []
    for phrase in phrase_table(held_out=True):
        words += [*phrase.split(), *plural(phrase).split()]
    words += [*_OTHER_WORDS.split(), *_LETTERS, *_PUNCTUATION, *(f"##{letter}" for letter in _LETTERS), *_ENDINGS]
    waiting = iter(dict.fromkeys(words))
    vocabulary: dict[str, int] = {}
    word = next(waiting, None)
    while word is not None or len(vocabulary) <= max(_FIXED_IDS):
        index = len(vocabulary)
        if index in _FIXED_IDS:
            vocabulary[_FIXED_IDS[index]] = index
        elif word is None:
            vocabulary[f"[unused{index}]"] = index
        else:
            vocabulary[word] = index
            word = next(waiting, None)
    return vocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptBatch:
    """Prompts of B scenes with K slots: at most P phrases and L tokens each."""

    token_ids: IntArray
    """int64 (B, L)."""
    attention: IntArray
    """int64 (B, L), 1 where there is a token."""
    phrase_of_slot: IntArray
    """int64 (B, K): the phrase that means the object, -1 where none does."""
    phrase_tokens: FloatArray
    """float32 (B, P, L), 1 at the tokens of each phrase."""


class Prompter:
    """Random prompts: things that are there and things that are not, with articles, plurals, synonyms, hypernyms."""

    def __init__(self, encoder: TextEncoder, *, max_tokens: int = 40, max_phrases: int = 5) -> None:
        self._encoder = encoder
        self._max_tokens = max_tokens
        self._max_phrases = max_phrases
        self._ids: dict[str, list[int]] = {}
        self._classes = sprite_classes()
        self._table = phrase_table()
        self._phrases = list(self._table)
        self._hypernyms = [p for p, known in self._table.items() if len(known) > 1]
        self._hypernyms_of = [
            [p for p in self._phrases if i in self._table[p] and p not in entry.names]
            for i, entry in enumerate(self._classes)
        ]
        self._relatives_of = [self._relatives(entry.hypernyms) for entry in self._classes]

    def prompt(self, rng: np.random.Generator, class_indices: IntArray, is_active: BoolArray) -> PromptBatch:
        """Prompts for scenes whose slots hold these classes: both arrays (B, K)."""
        batch, slots = class_indices.shape
        ids = np.zeros((batch, self._max_tokens), np.int64)
        phrase_of_slot = np.full((batch, slots), -1, np.int64)
        phrase_tokens = np.zeros((batch, self._max_phrases, self._max_tokens), np.float32)
        longest = 0
        for row in range(batch):
            present = class_indices[row][is_active[row]].tolist()
            tokens = [CLASS_TOKEN]
            for number, (phrase, known) in enumerate(self._choose(rng, present)):
                words = self._encode(self._in_a_sentence(rng, phrase))
                if len(tokens) + len(words) + 2 > self._max_tokens:
                    break
                phrase_tokens[row, number, len(tokens) : len(tokens) + len(words)] = 1
                tokens += [*words, PERIOD_TOKEN]
                is_meant = is_active[row] & np.isin(class_indices[row], list(known))
                phrase_of_slot[row, is_meant] = number
            tokens.append(END_TOKEN)
            ids[row, : len(tokens)] = tokens
            longest = max(longest, len(tokens))
        # id 0 is padding, and nothing else
        return PromptBatch(
            token_ids=ids[:, :longest],
            attention=(ids[:, :longest] != 0).astype(np.int64),
            phrase_of_slot=phrase_of_slot,
            phrase_tokens=phrase_tokens[:, :, :longest],
        )

    def _relatives(self, hypernyms: Iterable[str]) -> list[str]:
        """Names of single classes that share a hypernym with these: the hard negatives."""
        wanted = set(hypernyms)
        return [
            phrase
            for phrase, known in self._table.items()
            if len(known) == 1 and wanted & set(self._classes[next(iter(known))].hypernyms)
        ]

    def _encode(self, text: str) -> list[int]:
        if text not in self._ids:
            self._ids[text] = self._encoder.encode(text, add_special_tokens=False)
        return self._ids[text]

    def _in_a_sentence(self, rng: np.random.Generator, phrase: str) -> str:
        draw = rng.random()
        if draw < 0.15:
            return plural(phrase)
        if draw < 0.5:
            return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"
        return f"the {phrase}" if draw < 0.57 else phrase

    def _choose(self, rng: np.random.Generator, classes: list[int]) -> list[tuple[str, frozenset[int]]]:
        """Phrases that do not overlap, some of which mean one of the classes."""
        present = list(dict.fromkeys(classes))
        rng.shuffle(present)
        chosen: list[tuple[str, frozenset[int]]] = []
        used: set[int] = set()
        for index in present[: rng.choice(4, p=[0.15, 0.35, 0.3, 0.2])]:
            phrase = self._phrase_for(rng, index)
            known = self._table.get(phrase, frozenset())
            if index in known and not known & used:
                used |= known
                chosen.append((phrase, known))
        for _ in range(int(rng.integers(0 if chosen else 1, self._max_phrases - len(chosen) + 1))):
            phrase = self._phrase_beside(rng, present)
            known = self._table[phrase]
            if not known & used and not known & set(present):
                used |= known
                chosen.append((phrase, known))
        if not chosen:
            name = self._classes[present[0]].name
            chosen = [(name, self._table[name])]
        order = rng.permutation(len(chosen))
        return [chosen[i] for i in order]

    def _phrase_for(self, rng: np.random.Generator, index: int) -> str:
        hypernyms = self._hypernyms_of[index]
        if hypernyms and rng.random() < 0.15:
            return hypernyms[rng.integers(len(hypernyms))]
        names = self._classes[index].names
        return names[0] if rng.random() < 0.75 else names[rng.integers(len(names))]

    def _phrase_beside(self, rng: np.random.Generator, present: list[int]) -> str:
        """A phrase that is probably not there; half of them are relatives of what is."""
        if present and rng.random() < 0.5:
            pool = self._relatives_of[present[rng.integers(len(present))]] or self._phrases
        else:
            pool = self._phrases if rng.random() < 0.9 else self._hypernyms
        return pool[rng.integers(len(pool))]
