"""What a person reads and ticks where an edit leaves masks to be tracked anew: the same words in form and panel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import fiftyone.operators.types as types

from fiftyone_plugin.jobs import duration

__all__ = ["add_inputs", "effort", "message", "offer_of", "tick_label"]

ANY_GAP = 1_000_000_000
"""Frames: a gap of any length."""


def offer_of(
    action: str,
    summary: Mapping[str, Any],
    track: int | None,
    other: int | None,
    *,
    frame: int | None = None,
    last_frame: int | None = None,
    max_gap_frames: int | None = None,
) -> Any:
    """What could be tracked anew after a merge or swap (`repropagate.Offer`), or None.

    Args:
        action: merge or swap; others leave nothing to do.
        summary: Of the run.
        track: One track, if one is chosen.
        other: The other.
        frame: Of a swap, 1-based.
        last_frame: Of a swap, 1-based, included.
        max_gap_frames: Of a merge; the library's limit by default.
    """
    if action not in ("merge", "swap") or track is None or other is None:
        return None
    from fiftyone_plugin import repropagate

    if action == "merge":
        limit = max_gap_frames or repropagate.MAX_GAP_FRAMES
        return repropagate.offer_merge(summary, track, other, max_gap_frames=limit)
    return None if frame is None else repropagate.offer_swap(summary, track, other, frame - 1, last_frame)


def tick_label(action: str) -> str:
    """Beside the checkbox."""
    return "Track the gap anew" if action == "merge" else "Choose masks anew around it"


def effort(action: str, offer: Any) -> str:
    """How much there is to do, how long it takes, and what stands in the way."""
    count = f"{offer.frames} frames" if offer.frames != 1 else "1 frame"
    place = f"{count} between the two have no mask" if action == "merge" else f"The encounter has {count}"
    if offer.missing:
        return f"{place}; they stay as they are: {offer.missing}"
    time = f", perhaps {duration(offer.seconds)}" if offer.seconds else ""
    return f"{place}, which the models of the run can track anew{time}"


def add_inputs(inputs: types.Object, action: str, params: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
    """Ask whether masks are tracked anew, where the chosen merge or swap leaves something to do."""
    from fiftyone_plugin import repropagate

    given = {name: params.get(name) for name in ("track", "other", "frame", "last_frame")}
    offer = offer_of(action, summary, **given, max_gap_frames=ANY_GAP)
    if offer is None:
        return
    inputs.bool("repropagate", label=tick_label(action), description=effort(action, offer), default=not offer.why_not)
    if action == "merge" and params.get("repropagate", not offer.why_not):
        inputs.int(
            "max_gap_frames",
            label="Longest gap",
            description="In frames; longer ones stay empty",
            default=repropagate.MAX_GAP_FRAMES,
            min=1,
        )


def message(edit: Any, note: str = "") -> str:
    """An edit in words, with what became of the masks."""
    return ". ".join(part for part in (edit.text, edit.note or note) if part)
