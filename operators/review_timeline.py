"""The timeline of the review panel: every track as a bar in its colour, with gaps, doubts and repairs.

Says what is to be drawn; `assets/timeline.js` draws it in the browser. Knows nothing of FiftyOne: a stored summary and
review items in, plain values out. Frames are 1-based and ranges inclusive in what comes out, as everywhere in the App.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fiftyone_plugin.exporters.colours import track_colour

__all__ = ["COMPONENT", "spans_of", "timeline"]

COMPONENT = "ShepherdTimeline"
"""As which `assets/timeline.js` registers itself with the App."""


def spans_of(track: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Ranges ``[start, stop)`` of 0-based frames on which a track of the summary is there."""
    edges = [int(track["start"]), *(int(edge) for gap in track["gaps"] for edge in gap), int(track["stop"])]
    return [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if b > a]


def timeline(summary: Mapping[str, Any], items: Sequence[Any], *, chosen: Any | None = None) -> dict[str, Any]:
    """The chart of one video.

    Args:
        summary: As `labels.read_summary` gives it; its tracks are the rows.
        items: Review items, marked at the middle of their frames on the rows of their tracks.
        chosen: The item that is looked at: its frames are shaded.

    Returns:
        ``first`` and ``last`` frame; ``rows`` with ``name``, ``colour``, ``spans`` (each ``first``, ``last`` and lines
        ``about`` it) and ``gaps``; ``marks`` with ``key`` (encounter and repair with a slash between), ``row``, ``at``
        (a frame, perhaps half), ``kind``, ``about`` and ``is_chosen``; and the ``band`` of frames that is shaded.
    """
    tracks = sorted(summary["tracks"], key=lambda line: (str(line["phrase"]), int(line["track_id"])))
    rows = {int(line["track_id"]): number for number, line in enumerate(tracks)}
    return {
        "first": int(summary["start"]) + 1,
        "last": int(summary["stop"]),
        "rows": [_row(line) for line in tracks],
        "marks": [mark for item in items for mark in _marks(item, rows, is_chosen=_key(item) == _key(chosen))],
        "band": None if chosen is None else [chosen.start + 1, max(chosen.stop, chosen.start + 1)],
    }


def _row(line: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": f"{line['phrase']} {line['track_id']}",
        "colour": "rgb({},{},{})".format(*track_colour(int(line["track_id"]))),
        "spans": [{"first": a + 1, "last": b, "about": _about(line, a, b)} for a, b in spans_of(line)],
        "gaps": [[int(a) + 1, int(b)] for a, b in line["gaps"]],
    }


def _about(line: Mapping[str, Any], start: int, stop: int) -> list[str]:
    return [
        f"{line['phrase']} {line['track_id']}, frames {start + 1} to {stop}",
        f"seen on {line['frames']} frames, score {line['mean_score']:.2f} (lowest {line['min_score']:.2f})",
        f"identity at least {100 * line['min_identity_confidence']:.0f} % sure",
    ]


def _key(item: Any | None) -> str:
    return "" if item is None else f"{item.encounter_id}/{item.repair_id}"


def _marks(item: Any, rows: Mapping[int, int], *, is_chosen: bool) -> list[dict[str, Any]]:
    return [
        {
            "key": _key(item),
            "row": rows[track_id],
            "at": (item.start + item.stop + 1) / 2,
            "kind": "reviewed" if item.state != "open" else "to review" if item.outcome == "abstain" else "repaired",
            "about": f"{item.kind}, frames {item.start + 1} to {item.stop}",
            "is_chosen": is_chosen,
        }
        for track_id in item.track_ids
        if track_id in rows
    ]
