"""Which edits of the review panel can be made on what is in the hands, told from the stored summary alone.

A button that would only be refused is greyed out, and says why. The edits themselves (`labels.edits`) look at the
labels and have the last word. Knows nothing of FiftyOne; frames are 1-based where a person reads them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from .review_timeline import spans_of
from .review_words import frames_text, names_of

__all__ = ["why_not"]


def why_not(
    action: str,
    tracks: Sequence[Mapping[str, Any]],
    *,
    track: int | None,
    other: int | None,
    frame: int,
    locked: Collection[int] = (),
) -> str:
    """Why an edit cannot be made, in one line; empty where it can.

    Args:
        action: ``swap``, ``merge``, ``split`` or ``lock``.
        tracks: Of the summary.
        track: What is edited.
        other: The second one of swap and merge.
        frame: From which on, 1-based.
        locked: Tracks that may not change.
    """
    lines = {int(line["track_id"]): line for line in tracks}
    takes_two = action in ("swap", "merge")
    wanted = [track, other] if takes_two else [track]
    chosen = [track_id for track_id in wanted if track_id in lines]
    if len(set(chosen)) < len(wanted):
        return "choose two different tracks" if takes_two else "choose a track"
    if action == "lock":
        return ""
    names = names_of(chosen, tracks)
    for track_id, name in zip(chosen, names, strict=True):
        if track_id in locked:
            return f"{name} is locked: unlock it first"
    spans = [spans_of(lines[track_id]) for track_id in chosen]
    if action == "merge":
        shared = [(max(a, c), min(b, d)) for a, b in spans[0] for c, d in spans[1] if max(a, c) < min(b, d)]
        return f"both are on {frames_text(*shared[0])}: one object cannot be in two places" if shared else ""
    first, last = min(s[0][0] for s in spans) + 1, max(s[-1][1] for s in spans)
    if action == "swap":
        return "" if frame <= last else f"neither is there from frame {frame} on"
    return (
        ""
        if first < frame <= last
        else f"{names[0]} is on {frames_text(first - 1, last)}: choose a frame after its first"
    )
