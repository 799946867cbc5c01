"""What the review panel says of an item, in words that need no knowledge of how identities are decided.

Knows nothing of FiftyOne or of pictures. Frames are 1-based and inclusive in here, as everywhere in the App.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = [
    "CANNOT_SEEK",
    "balance",
    "evidence",
    "frames_text",
    "heading",
    "names_of",
    "per_cent",
    "question",
    "state_text",
    "strength",
    "title",
    "verdict",
    "way_back",
]

CANNOT_SEEK = "The player under **Sample** cannot be moved to a frame of a video: **Film** plays this moment here."

_KINDS = {
    "crossing": "Crossing",
    "occlusion": "Hidden for a moment",
    "return": "Gone and back",
    "trim": "Frames taken out",
    "split": "Track cut in two",
    "exchange": "Identities exchanged back",
    "reassign": "Joined to an earlier track",
    "reseed": "Gap filled",
}
_OUTCOMES = {
    "abstain": "left as it was, because the evidence is too weak",
    "keep": "kept: nothing was exchanged",
    "exchange": "repaired: the two had exchanged identities",
    "reassign": "repaired: joined to the track it was before",
    "split": "repaired: cut, because it went on with something new",
    "trim": "repaired: frames without an object were taken out",
    "reseed": "repaired: a gap was filled",
}
_STATES = {"accepted": "accepted", "edited": "edited by you", "undone": "repair undone"}
_TERMS = {
    "appearance": "How they look",
    "motion": "How they move",
    "size": "How large they are",
    "prior": "What is usual",
    "entry": "Where they come in",
    "detector": "What the detector said",
    "human": "What you said",
}
"""Names of the parts of a margin; others are shown as they are called."""

SLIGHT, CLEAR, STRONG = 0.3, 1.5, 4.0
"""Log-odds (nats) from which a part is said to speak slightly, clearly, strongly: odds of about 4:3, 9:2 and 55:1."""


def names_of(track_ids: Iterable[int], tracks: Iterable[Mapping[str, Any]]) -> list[str]:
    """What tracks are called, such as ``sheep 3``; a track that is no longer there is called by its number."""
    phrases = {int(line["track_id"]): str(line["phrase"]) for line in tracks}
    return [f"{phrases[i]} {i}" if i in phrases else f"track {i}" for i in track_ids]


def frames_text(start: int, stop: int) -> str:
    """A half-open range of 0-based frames as people write it."""
    return f"frame {stop}" if stop - start <= 1 else f"frames {start + 1} to {stop}"


def heading(item: Any, names: list[str]) -> str:
    """What, and who."""
    return f"{_KINDS.get(item.kind, item.kind.capitalize())}: {_listed(names)}"


def title(item: Any, names: list[str]) -> str:
    """What, who, and when."""
    return f"{heading(item, names)}, {frames_text(item.start, item.stop)}"


def per_cent(probability: float) -> str:
    """A probability for people: never 100 % where it is only nearly certain."""
    return "over 99 %" if 0.99 < probability < 1 else f"{100 * probability:.0f} %"


def question(item: Any, names: list[str]) -> str:
    """What a person has to look at."""
    if item.kind == "trim":
        return f"Was {names[0] if names else 'it'} really not there in between?"
    if len(names) >= 2:
        return f"Is each of them the same before and after? Compare {_listed(names)}, row by row."
    return f"Is {names[0] if names else 'it'} the same before and after?"


def verdict(item: Any) -> str:
    """What was decided, how sure that is, and what an error would cost."""
    cost = item.expected_error / (1 - item.confidence) if item.confidence < 1 else 0.0
    at_stake = f"; if it is wrong, about {round(cost)} frames carry the wrong identity" if cost >= 1 else ""
    if item.state == "undone":
        return f"You took this repair back; the run had been {per_cent(item.confidence)} sure of it."
    text = _OUTCOMES.get(item.outcome, str(item.outcome))
    return f"{text[:1].upper()}{text[1:]}. {per_cent(item.confidence)} sure{at_stake}."


def way_back(edits_since_undo: int | None) -> str:
    """How a repair that was taken back is had again, where no button does it; else empty."""
    if not edits_since_undo:
        return ""
    times = "once" if edits_since_undo == 1 else f"{edits_since_undo} times"
    return f"To have it again, press **Undo last edit** {times}: you made other edits since. Then **Redo repair**."


def strength(term: str, nats: float) -> str:
    """What one part of the margin says."""
    name = _TERMS.get(term, term.capitalize())
    how = _how_much(nats)
    return f"{name}: {how} {'in favour' if nats > 0 else 'against'}" if how else f"{name}: undecided"


def balance(terms: Mapping[str, float]) -> tuple[str, str]:
    """What speaks in favour, and what against, the strongest first; each empty where nothing does."""
    sides: tuple[list[str], list[str]] = ([], [])
    for term, nats in sorted(terms.items(), key=lambda item: -abs(item[1])):
        if how := _how_much(nats):
            sides[nats < 0].append(f"{_TERMS.get(term, term).lower()} ({how})")
    return ", ".join(sides[0]), ", ".join(sides[1])


def evidence(terms: Mapping[str, float]) -> str:
    """What all parts of the margin say, in one line; empty where nothing was weighed."""
    return " · ".join(strength(term, nats) for term, nats in terms.items())


def state_text(item: Any) -> str:
    """What became of an item."""
    if item.state == "open":
        return "to review" if item.outcome == "abstain" else "repaired"
    return _STATES.get(item.state, item.state)


def _how_much(nats: float) -> str:
    """Empty where a part says nothing."""
    size = abs(nats)
    if not math.isfinite(nats) or size < SLIGHT:
        return ""
    return "strongly" if size >= STRONG else "clearly" if size >= CLEAR else "slightly"


def _listed(names: list[str]) -> str:
    if len(names) <= 1:
        return names[0] if names else "nothing that is left"
    return f"{', '.join(names[:-1])} and {names[-1]}"
