"""The timeline of the review panel: every track as a bar in its colour, with gaps, doubts and repairs.

Knows nothing of FiftyOne: a stored summary and review items in, the `data` and `layout` of a Plotly chart out. Frames
are 1-based in the chart, as everywhere in the App.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fiftyone_plugin.exporters.colours import track_colour

__all__ = ["spans_of", "timeline"]

ROW_PX = 22
EDGES_PX = 62
MIN_HEIGHT_PX, MAX_HEIGHT_PX = 130, 420
INK, FAINT, GRID = "#d6d6d6", "#8c8c8c", "#303030"
DOUBT, REPAIR = "#ffb020", "#7bd88f"


def spans_of(track: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Ranges ``[start, stop)`` of frames on which a track of the summary is there."""
    edges = [int(track["start"]), *(int(edge) for gap in track["gaps"] for edge in gap), int(track["stop"])]
    return [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if b > a]


def timeline(
    summary: Mapping[str, Any], items: Sequence[Any], *, chosen: Any | None = None
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The chart of one video.

    Args:
        summary: As `labels.read_summary` gives it; its tracks are the rows.
        items: Review items, marked at the middle of their frames on the rows of their tracks.
        chosen: The item that is looked at: its frames are shaded.

    Returns:
        Plotly's `data` and `layout`. The `ids` of points that stand for items are those of encounter and repair with a
        slash between them, then an @ and the row: of points with one id, Plotly draws only one.
    """
    tracks = sorted(summary["tracks"], key=lambda line: (str(line["phrase"]), int(line["track_id"])))
    rows = {int(line["track_id"]): number for number, line in enumerate(tracks)}
    data = [_bars(tracks, rows), _weak(tracks, rows), *_marks(items, rows)]
    names = [f"{line['phrase']} {line['track_id']}" for line in tracks]
    height = min(max(EDGES_PX + ROW_PX * len(tracks), MIN_HEIGHT_PX), MAX_HEIGHT_PX)
    layout = {
        "height": height,
        "barmode": "overlay",
        "bargap": 0.35,
        "showlegend": True,
        "legend": {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom", "font": {"color": FAINT, "size": 11}},
        "margin": {"l": 74, "r": 14, "t": 24, "b": 30},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": INK, "size": 11},
        "hovermode": "closest",
        "xaxis": {
            "range": [int(summary["start"]) + 0.5, int(summary["stop"]) + 0.5],
            "gridcolor": GRID,
            "zeroline": False,
            "title": {"text": "frame", "font": {"size": 11, "color": FAINT}, "standoff": 2},
        },
        "yaxis": {
            "tickvals": list(range(len(tracks))),
            "ticktext": names,
            "range": [len(tracks) - 0.5, -0.5],
            "gridcolor": "rgba(0,0,0,0)",
            "zeroline": False,
            "fixedrange": True,
        },
        "shapes": [] if chosen is None else [_band(chosen)],
    }
    return data, layout


def _bars(tracks: Iterable[Mapping[str, Any]], rows: Mapping[int, int]) -> dict[str, Any]:
    """One trace for all tracks; a bar for every stretch without a gap."""
    base, length, row, colour, text = [], [], [], [], []
    for line in tracks:
        track_id = int(line["track_id"])
        for start, stop in spans_of(line):
            base.append(start + 0.5)
            length.append(stop - start)
            row.append(rows[track_id])
            colour.append("rgb({},{},{})".format(*track_colour(track_id)))
            text.append(_about(line, start, stop))
    return {
        "type": "bar",
        "orientation": "h",
        "name": "seen",
        "showlegend": False,
        "base": base,
        "x": length,
        "y": row,
        "marker": {"color": colour, "opacity": 0.85},
        "hovertext": text,
        "hoverinfo": "text",
    }


def _about(line: Mapping[str, Any], start: int, stop: int) -> str:
    return (
        f"{line['phrase']} {line['track_id']}, frames {start + 1} to {stop}<br>"
        f"seen on {line['frames']} frames, score {line['mean_score']:.2f} (lowest {line['min_score']:.2f})<br>"
        f"identity at least {100 * line['min_identity_confidence']:.0f} % sure"
    )


def _weak(tracks: Iterable[Mapping[str, Any]], rows: Mapping[int, int]) -> dict[str, Any]:
    """Gaps, as thin lines that join the bars of one track."""
    x: list[float | None] = []
    y: list[int | None] = []
    for line in tracks:
        for start, stop in line["gaps"]:
            row = rows[int(line["track_id"])]
            x += [start + 0.5, stop + 0.5, None]
            y += [row, row, None]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "not seen",
        "x": x,
        "y": y,
        "line": {"color": FAINT, "width": 1, "dash": "dot"},
        "hoverinfo": "skip",
    }


def _marks(items: Sequence[Any], rows: Mapping[int, int]) -> list[dict[str, Any]]:
    groups: dict[str, list[Any]] = {"to review": [], "repaired": [], "reviewed": []}
    for item in items:
        name = "reviewed" if item.state != "open" else "to review" if item.outcome == "abstain" else "repaired"
        groups[name].append(item)
    styles = {
        "to review": {"symbol": "diamond", "color": DOUBT, "size": 12, "line": {"color": "#111", "width": 1}},
        "repaired": {"symbol": "triangle-up", "color": REPAIR, "size": 10, "line": {"color": "#111", "width": 1}},
        "reviewed": {"symbol": "circle", "color": "#e8e8e8", "size": 7, "line": {"color": "#111", "width": 1}},
    }
    traces = []
    for name, members in groups.items():
        points = [(item, rows[track_id]) for item in members for track_id in item.track_ids if track_id in rows]
        if not points:
            continue
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": name,
                "x": [(item.start + item.stop + 1) / 2 for item, _ in points],
                "y": [row for _, row in points],
                "ids": [f"{item.encounter_id}/{item.repair_id}@{row}" for item, row in points],
                "hovertext": [f"{item.kind}, frames {item.start + 1} to {item.stop}: click" for item, _ in points],
                "hoverinfo": "text",
                "marker": styles[name],
            }
        )
    return traces


def _band(item: Any) -> dict[str, Any]:
    return {
        "type": "rect",
        "xref": "x",
        "yref": "paper",
        "x0": item.start + 0.5,
        "x1": item.stop + 0.5,
        "y0": 0,
        "y1": 1,
        "fillcolor": DOUBT,
        "opacity": 0.18,
        "line": {"width": 0},
        "layer": "below",
    }
