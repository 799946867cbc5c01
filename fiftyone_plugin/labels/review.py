"""What a person should look at, read from the stored summary of a run: ranked, with what became of each.

Reads no labels and no frames, so that it costs the same for any video.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fiftyone_plugin.labels.events import current_id, ids_of_encounter, marks_of
from fiftyone_plugin.types import Outcome

__all__ = ["ReviewItem", "review_items", "review_progress"]


@dataclass(frozen=True, slots=True)
class ReviewItem:
    """One doubt, or one repair, as it stands."""

    encounter_id: int | None
    repair_id: int | None
    """Set where the run repaired something; `edits.undo_repair` takes it."""
    kind: str
    """``crossing``, ``occlusion``, ``return``; the kind of the repair where there is no encounter."""
    outcome: str
    """``abstain`` (a doubt), or the kind of the repair: ``exchange``, ``reassign``, ``split``, ``trim``."""
    state: str
    """``open``, ``accepted``, ``edited`` or ``undone``."""
    phrase: str
    start: int
    stop: int
    """0-based, half-open."""
    track_ids: tuple[int, ...]
    """The tracks as they are called now, after all edits."""
    margin: float
    """Log-odds (nats)."""
    confidence: float
    """Probability in [0, 1] that the identities are right as they stand."""
    expected_error: float
    """Frames that are expected to be wrong: (1 - confidence) times the frames of these tracks from `start` on."""
    terms: Mapping[str, float]
    """Parts of the margin."""
    reason: str

    @property
    def is_open(self) -> bool:
        """Whether nobody has settled it yet."""
        return self.state == "open"


def review_items(summary: Mapping[str, Any]) -> tuple[ReviewItem, ...]:
    """Doubts, then repairs, each with the most frames at stake first; what is settled comes last.

    Args:
        summary: As `storage.read_summary` gives it.
    """
    found = [*_doubts(summary), *_repairs(summary)]
    return tuple(
        sorted(
            found,
            key=lambda i: (
                not i.is_open,
                i.outcome != Outcome.ABSTAIN,
                -i.expected_error,
                i.start,
                i.encounter_id or 0,
            ),
        )
    )


def review_progress(summary: Mapping[str, Any]) -> tuple[int, int]:
    """How many of the doubts are settled, and how many there are."""
    doubts = _doubts(summary)
    return sum(not item.is_open for item in doubts), len(doubts)


def _doubts(summary: Mapping[str, Any]) -> list[ReviewItem]:
    reviews = marks_of(summary)["reviews"]
    items = []
    for decision in summary["decisions"]:
        if decision["outcome"] != Outcome.ABSTAIN:
            continue
        encounter = decision["encounter"]
        track_ids = ids_of_encounter(summary, encounter)
        items.append(
            ReviewItem(
                encounter_id=encounter["encounter_id"],
                repair_id=None,
                kind=encounter["kind"],
                outcome=decision["outcome"],
                state=reviews.get(str(encounter["encounter_id"]), "open"),
                phrase=encounter["phrase"],
                start=encounter["start"],
                stop=encounter["stop"],
                track_ids=track_ids,
                margin=decision["margin"],
                confidence=decision["confidence"],
                expected_error=_at_stake(summary, track_ids, encounter["start"]) * (1 - decision["confidence"]),
                terms=decision["terms"],
                reason="the evidence is too weak to decide",
            )
        )
    return items


def _repairs(summary: Mapping[str, Any]) -> list[ReviewItem]:
    marks = marks_of(summary)
    decisions = {d["encounter"]["encounter_id"]: d for d in summary["decisions"]}
    items = []
    for repair in summary["repairs"]:
        decision = decisions.get(repair["encounter_id"])
        encounter = decision["encounter"] if decision else None
        called = {current_id(summary, int(carrier), repair["start"]) for carrier in repair["continues"]}
        # Once it is undone, the object it was joined to is another track again.
        called |= {current_id(summary, *origin) for origin in repair["continues"].values() if origin is not None}
        track_ids = tuple(sorted(i for i in called if i is not None))
        if not summary.get("carriers") or not track_ids:
            track_ids = tuple(sorted(i for i in repair["relabels"].values() if i is not None))
        confidence = decision["confidence"] if decision else 1.0
        is_undone = repair["repair_id"] in marks["undone_repairs"]
        items.append(
            ReviewItem(
                encounter_id=repair["encounter_id"],
                repair_id=repair["repair_id"],
                kind=encounter["kind"] if encounter else repair["kind"],
                outcome=repair["kind"],
                state="undone" if is_undone else marks["repairs"].get(str(repair["repair_id"]), "open"),
                phrase=encounter["phrase"] if encounter else _phrase(summary, track_ids),
                start=encounter["start"] if encounter else repair["start"],
                stop=encounter["stop"] if encounter else (repair["stop"] or repair["start"] + 1),
                track_ids=track_ids,
                margin=repair["margin"],
                confidence=confidence,
                expected_error=_at_stake(summary, track_ids, repair["start"]) * (1 - confidence),
                terms=decision["terms"] if decision else {},
                reason=repair["reason"],
            )
        )
    return items


def _phrase(summary: Mapping[str, Any], track_ids: tuple[int, ...]) -> str:
    return next((line["phrase"] for line in summary["tracks"] if line["track_id"] in track_ids), "")


def _at_stake(summary: Mapping[str, Any], track_ids: tuple[int, ...], start: int) -> float:
    """Frames from `start` on that these tracks have, gaps left out in proportion."""
    frames = 0.0
    for line in summary["tracks"]:
        if line["track_id"] in track_ids:
            length = line["stop"] - line["start"]
            frames += line["frames"] * max(0, line["stop"] - max(start, line["start"])) / length
    return frames
