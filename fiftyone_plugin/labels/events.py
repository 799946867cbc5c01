"""What happened to the tracks of a result: events on the timeline, and the summary that is kept with the run.

Knows nothing of FiftyOne; `storage` writes both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum, StrEnum
from typing import Any

import numpy as np

from fiftyone_plugin.labels.lineage import lineage_of, spans_of
from fiftyone_plugin.types import EncounterKind, Outcome, RepairKind, Track, TrackingResult

__all__ = [
    "Event",
    "EventKind",
    "as_plain",
    "current_id",
    "events_of",
    "events_of_summary",
    "frame_range",
    "gaps_of",
    "ids_of_encounter",
    "marks_of",
    "summary_of",
    "track_line",
]


class EventKind(StrEnum):
    """Labels of events, as users filter them."""

    BIRTH = "birth"
    """A track begins after the first frame."""
    LOSS = "loss"
    """A track is absent, for a while or to the end."""
    SWAP_REPAIRED = "swap_repaired"
    RETURN_RECOGNISED = "return_recognised"
    REASSIGNED = "reassigned"
    """The future of a track was given to another one without a return: a takeover was undone."""
    SPLIT = "split"
    TRIMMED = "trimmed"
    MASKS_REPAIRED = "masks_repaired"
    NEEDS_REVIEW = "needs_review"
    """The evidence was too weak to decide: a person should look."""
    REVIEWED = "reviewed"
    """A person looked, and settled it."""
    REPAIR_UNDONE = "repair_undone"
    """A person took a repair back."""


REPAIR_EVENTS: Mapping[RepairKind, EventKind] = {
    RepairKind.EXCHANGE: EventKind.SWAP_REPAIRED,
    RepairKind.REASSIGN: EventKind.REASSIGNED,
    RepairKind.SPLIT: EventKind.SPLIT,
    RepairKind.TRIM: EventKind.TRIMMED,
    RepairKind.RESEED: EventKind.MASKS_REPAIRED,
}


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to tracks."""

    kind: EventKind
    start: int
    """0-based first frame."""
    stop: int
    """Frame after the last; more than `start`."""
    track_ids: tuple[int, ...]
    decision: Outcome | None = None
    """What the identity layer concluded, where it was asked."""
    margin: float | None = None
    """Log-odds (nats) in favour of the decision."""
    confidence: float | None = None
    """Probability in [0, 1] that the identities are right, as they stand."""
    reason: str = ""
    encounter_id: int | None = None
    repair_id: int | None = None
    review: str | None = None
    """What a person said: ``accepted``, ``edited`` or ``undone``."""


def frame_range(result: TrackingResult) -> tuple[int, int]:
    """The frames ``[start, stop)`` that a result speaks of: those processed, and all that its tracks are on."""
    start = int(result.settings.get("start", 0))
    stop = start + result.frames_processed
    for track in result.tracks:
        if len(track):
            start, stop = min(start, int(track.frame_indices[0])), max(stop, int(track.frame_indices[-1]) + 1)
    return start, stop


def gaps_of(track: Track) -> list[tuple[int, int]]:
    """Ranges ``[start, stop)`` of frames inside a track where its object is absent."""
    at = np.flatnonzero(np.diff(track.frame_indices) > 1)
    return [(int(track.frame_indices[i]) + 1, int(track.frame_indices[i + 1])) for i in at]


def events_of(result: TrackingResult) -> tuple[Event, ...]:
    """Everything worth a mark on the timeline, in the order of time."""
    return events_of_summary(summary_of(result))


def events_of_summary(summary: Mapping[str, Any]) -> tuple[Event, ...]:
    """The same from what is kept with a run, so also after a person's edits (see `edits`)."""
    found = [*_comings_and_goings(summary), *_repairs(summary), *_reviews(summary)]
    return tuple(sorted(found, key=lambda event: (event.start, event.stop, event.kind)))


def marks_of(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What a person said about a run's conclusions.

    Returns:
        ``reviews``: encounter id (as text) to what became of it, ``accepted``, ``edited`` or ``undone``; ``repairs``:
        the same by repair id; ``locked``: ids of the tracks that may not change; ``undone_repairs``: ids. Always new.
    """
    marks = summary.get("marks", {})
    return {
        "reviews": dict(marks.get("reviews", {})),
        "repairs": dict(marks.get("repairs", {})),
        "locked": list(marks.get("locked", [])),
        "undone_repairs": list(marks.get("undone_repairs", [])),
    }


def current_id(summary: Mapping[str, Any], carrier: int, frame: int) -> int | None:
    """What a propagated track is called now, on a frame or on the nearest one where it is among the labels.

    Args:
        summary: Of `summary_of`, kept up to date by `edits`.
        carrier: Id of a propagated track, as encounters and `Repair.continues` name it.
        frame: 0-based.
    """
    spans = summary.get("carriers", {}).get(str(carrier), [])
    if not spans:
        known = {line["track_id"] for line in summary["tracks"]}
        return carrier if carrier in known and not summary.get("carriers") else None
    nearest = min(spans, key=lambda s: 0 if s[0] <= frame < s[1] else min(abs(s[0] - frame), abs(s[1] - 1 - frame)))
    return int(nearest[2])


def _comings_and_goings(summary: Mapping[str, Any]) -> Iterator[Event]:
    start, stop = summary["start"], summary["stop"]
    for line in summary["tracks"]:
        ids = (line["track_id"],)
        if line["start"] > start:
            yield Event(EventKind.BIRTH, line["start"], line["start"] + 1, ids)
        for gap_start, gap_stop in line["gaps"]:
            yield Event(EventKind.LOSS, gap_start, gap_stop, ids)
        if line["stop"] < stop:
            yield Event(EventKind.LOSS, line["stop"], stop, ids)


def _repairs(summary: Mapping[str, Any]) -> Iterator[Event]:
    decisions = {decision["encounter"]["encounter_id"]: decision for decision in summary["decisions"]}
    marks = marks_of(summary)
    for repair in summary["repairs"]:
        decision = None if repair["encounter_id"] is None else decisions.get(repair["encounter_id"])
        encounter = None if decision is None else decision["encounter"]
        kind = REPAIR_EVENTS[RepairKind(repair["kind"])]
        if kind is EventKind.REASSIGNED and encounter and encounter["kind"] == EncounterKind.RETURN:
            kind = EventKind.RETURN_RECOGNISED
        if repair["repair_id"] in marks["undone_repairs"]:
            kind = EventKind.REPAIR_UNDONE
        end = summary["stop"] if repair["stop"] is None else repair["stop"]
        yield Event(
            kind=kind,
            start=encounter["start"] if encounter else repair["start"],
            stop=encounter["stop"] if encounter else max(end, repair["start"] + 1),
            track_ids=_ids_of_repair(summary, repair),
            decision=Outcome(decision["outcome"]) if decision else None,
            margin=repair["margin"],
            confidence=decision["confidence"] if decision else None,
            reason=repair["reason"],
            encounter_id=encounter["encounter_id"] if encounter else None,
            repair_id=repair["repair_id"],
            review=marks["repairs"].get(str(repair["repair_id"])),
        )


def _reviews(summary: Mapping[str, Any]) -> Iterator[Event]:
    marks = marks_of(summary)
    doubtful = [d for d in summary["decisions"] if d["outcome"] == Outcome.ABSTAIN]
    for decision in sorted(doubtful, key=lambda d: d["confidence"]):
        encounter = decision["encounter"]
        review = marks["reviews"].get(str(encounter["encounter_id"]))
        yield Event(
            kind=EventKind.NEEDS_REVIEW if review is None else EventKind.REVIEWED,
            start=encounter["start"],
            stop=encounter["stop"],
            track_ids=ids_of_encounter(summary, encounter),
            decision=Outcome.ABSTAIN,
            margin=decision["margin"],
            confidence=decision["confidence"],
            reason=f"{encounter['kind']} of {encounter['phrase']}: the evidence is too weak to decide",
            encounter_id=encounter["encounter_id"],
            review=review,
        )


def ids_of_encounter(summary: Mapping[str, Any], encounter: Mapping[str, Any]) -> tuple[int, ...]:
    """The tracks of an encounter as they are called now, before it and after it."""
    edges = (encounter["start"], encounter["stop"])
    found = {current_id(summary, carrier, frame) for carrier in encounter["track_ids"] for frame in edges}
    return tuple(sorted(i for i in found if i is not None)) or tuple(encounter["track_ids"])


def _ids_of_repair(summary: Mapping[str, Any], repair: Mapping[str, Any]) -> tuple[int, ...]:
    """The tracks that a repair touched, as they are called now; as they came out of the run where that is not known."""
    carriers = summary.get("carriers")
    if carriers:
        found = {current_id(summary, int(carrier), repair["start"]) for carrier in repair["continues"]}
        return tuple(sorted(i for i in found if i is not None))
    relabels = {int(before): after for before, after in repair["relabels"].items()}
    return tuple(sorted({after if after is not None else before for before, after in relabels.items()}))


def summary_of(result: TrackingResult) -> dict[str, Any]:
    """What is kept of a result with the run, in plain JSON values: per track a line, and every decision and repair.

    Frames are 0-based and ranges half-open in here. Keys of mappings are text, as JSON wants it.
    """
    start, stop = frame_range(result)
    return {
        "source": result.video.source,
        "width_px": result.video.width_px,
        "height_px": result.video.height_px,
        "frames_per_second": result.video.frames_per_second,
        "start": start,
        "stop": stop,
        "frames": result.frames_processed,
        "seconds": result.seconds,
        "settings": as_plain(result.settings),
        "tracks": [track_line(track) for track in result.tracks if len(track)],
        "encounters": as_plain(result.encounters),
        "decisions": as_plain(result.decisions),
        "repairs": as_plain(result.repairs),
        "carriers": _carriers(result),
        "warnings": list(result.warnings),
    }


def _carriers(result: TrackingResult) -> dict[str, list[list[int]]]:
    """How the propagated tracks are called in the result, stretch by stretch; empty where nobody kept them."""
    if not result.carried:
        return {}
    lineage = lineage_of(result)
    if lineage is not None:
        return spans_of(lineage.assign(result.repairs))
    return {str(t.track_id): [[*_ends(t), t.track_id]] for t in result.carried if len(t)}


def _ends(track: Track) -> tuple[int, int]:
    return int(track.frame_indices[0]), int(track.frame_indices[-1]) + 1


def track_line(track: Track) -> dict[str, Any]:
    """What a summary says of one track with at least one frame."""
    return {
        "track_id": track.track_id,
        "phrase": track.phrase,
        "start": int(track.frame_indices[0]),
        "stop": int(track.frame_indices[-1]) + 1,
        "frames": len(track),
        "gaps": [list(gap) for gap in gaps_of(track)],
        "mean_score": float(track.scores.mean()),
        "min_score": float(track.scores.min()),
        "mean_mask_score": float(track.mask_scores.mean()),
        "min_identity_confidence": float(track.identity_confidence.min()),
    }


def as_plain(value: Any) -> Any:
    """Data classes, enums, arrays and mappings to what JSON can hold; keys of mappings become text."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: as_plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): as_plain(item) for key, item in value.items()}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [as_plain(item) for item in value]
    return value
