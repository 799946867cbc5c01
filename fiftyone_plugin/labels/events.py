"""What happened to the tracks of a result: events on the timeline, and the summary that is kept with the run.

Knows nothing of FiftyOne; `storage` writes both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum, StrEnum
from typing import Any

import numpy as np

from fiftyone_plugin.types import EncounterKind, Outcome, Repair, RepairKind, Track, TrackingResult

__all__ = ["Event", "EventKind", "as_plain", "events_of", "frame_range", "gaps_of", "summary_of"]


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
    start, stop = frame_range(result)
    found = [*_comings_and_goings(result, start, stop), *_repairs(result, stop), *_reviews(result)]
    return tuple(sorted(found, key=lambda event: (event.start, event.stop, event.kind)))


def _comings_and_goings(result: TrackingResult, start: int, stop: int) -> Iterator[Event]:
    for track in result.tracks:
        if not len(track):
            continue
        ids = (track.track_id,)
        first, after = int(track.frame_indices[0]), int(track.frame_indices[-1]) + 1
        if first > start:
            yield Event(EventKind.BIRTH, first, first + 1, ids)
        for gap_start, gap_stop in gaps_of(track):
            yield Event(EventKind.LOSS, gap_start, gap_stop, ids)
        if after < stop:
            yield Event(EventKind.LOSS, after, stop, ids)


def _repairs(result: TrackingResult, stop: int) -> Iterator[Event]:
    decisions = {decision.encounter.encounter_id: decision for decision in result.decisions}
    for repair in result.repairs:
        decision = None if repair.encounter_id is None else decisions.get(repair.encounter_id)
        kind = REPAIR_EVENTS[repair.kind]
        if decision is None:
            yield Event(kind, repair.start, _stop(repair, stop), _ids(repair), None, repair.margin, None, repair.reason)
            continue
        encounter = decision.encounter
        if kind is EventKind.REASSIGNED and encounter.kind is EncounterKind.RETURN:
            kind = EventKind.RETURN_RECOGNISED
        yield Event(
            kind=kind,
            start=encounter.start,
            stop=encounter.stop,
            track_ids=_ids(repair),
            decision=decision.outcome,
            margin=repair.margin,
            confidence=decision.confidence,
            reason=repair.reason,
            encounter_id=encounter.encounter_id,
        )


def _reviews(result: TrackingResult) -> Iterator[Event]:
    for decision in result.needs_review:
        encounter = decision.encounter
        yield Event(
            kind=EventKind.NEEDS_REVIEW,
            start=encounter.start,
            stop=encounter.stop,
            track_ids=encounter.track_ids,
            decision=decision.outcome,
            margin=decision.margin,
            confidence=decision.confidence,
            reason=f"{encounter.kind} of {encounter.phrase}: the evidence is too weak to decide",
            encounter_id=encounter.encounter_id,
        )


def _stop(repair: Repair, end: int) -> int:
    return max(end if repair.stop is None else repair.stop, repair.start + 1)


def _ids(repair: Repair) -> tuple[int, ...]:
    """The tracks a repair touched, by the ids they have in the result."""
    return tuple(sorted({after if after is not None else before for before, after in repair.relabels.items()}))


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
        "tracks": [_track_line(track) for track in result.tracks if len(track)],
        "encounters": as_plain(result.encounters),
        "decisions": as_plain(result.decisions),
        "repairs": as_plain(result.repairs),
        "warnings": list(result.warnings),
    }


def _track_line(track: Track) -> dict[str, Any]:
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
