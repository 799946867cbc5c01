"""Pictures of one review item: each track just before and just after the encounter, side by side; one frame; a film.

Knows nothing of forms. A few frames are decoded for a picture, never the video.
"""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from fiftyone_plugin.errors import VideoError
from fiftyone_plugin.exporters.colours import ink_on, track_colour
from fiftyone_plugin.exporters.overlay import draw_tracks, load_font, mark_of, marks_by_frame, write_video
from fiftyone_plugin.interfaces import FrameSource
from fiftyone_plugin.types import Frame, Track

from .review_timeline import spans_of

__all__ = ["Row", "draw_frame", "draw_strips", "film", "pick_frames", "read_frames", "rows_of"]

Image8 = NDArray[np.uint8]

VIEWS = 3
"""Crops of a track on either side."""
STEP_FRAMES = 3
"""Between two of them, so that they are not all alike."""
REACH_FRAMES = 90
"""A track that was last seen longer ago is said not to be there."""

TILE_PX = 190
GAP_PX = 6
NAME_PX = 132
MIDDLE_PX = 84
HEAD_PX = 34
FOOT_PX = 22
CONTEXT = 1.35
"""Side of a crop relative to the larger side of the object's box."""

PAPER, EMPTY, INK, FAINT = (33, 33, 33), (46, 46, 46), (226, 226, 226), (150, 150, 150)

FILM_MARGIN_FRAMES = 12
FILM_MAX_FRAMES = 150
FRAME_WIDTH_PX = 960


@dataclass(frozen=True, slots=True)
class Row:
    """One track in the picture of an item."""

    track_id: int
    name: str
    before: tuple[int, ...]
    """0-based frames, in the order of time."""
    after: tuple[int, ...]


def pick_frames(track: Mapping[str, Any], start: int, stop: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Frames of a track of the summary that show it just before and just after ``[start, stop)``, in order of time."""
    spans = spans_of(track)
    before = _nearest(spans, range(start - 1, max(start - 1 - REACH_FRAMES, -1), -1))
    after = _nearest(spans, range(stop, stop + REACH_FRAMES))
    return tuple(reversed(before)), after


def _nearest(spans: Sequence[tuple[int, int]], frames: Iterable[int]) -> tuple[int, ...]:
    chosen: list[int] = []
    for frame in frames:
        is_there = any(a <= frame < b for a, b in spans)
        if is_there and (not chosen or abs(frame - chosen[-1]) >= STEP_FRAMES):
            chosen.append(frame)
            if len(chosen) == VIEWS:
                break
    return tuple(chosen)


def rows_of(item: Any, summary: Mapping[str, Any], names: Sequence[str]) -> tuple[Row, ...]:
    """The tracks of an item with the frames to be shown of each; tracks that are no longer there are left out."""
    lines = {int(line["track_id"]): line for line in summary["tracks"]}
    rows = []
    for track_id, name in zip(item.track_ids, names, strict=True):
        if track_id in lines:
            rows.append(Row(track_id, name, *pick_frames(lines[track_id], item.start, item.stop)))
    return tuple(rows)


def read_frames(source: FrameSource, indices: Iterable[int]) -> dict[int, Frame]:
    """Decode chosen frames; neighbours are read in one go. Frames behind the end of a damaged video are missing."""
    found: dict[int, Frame] = {}
    for start, stop in _windows(sorted(set(indices))):
        frames = source.frames(start, stop)
        try:
            found.update({frame.index: frame for frame in frames})
        finally:
            getattr(frames, "close", lambda: None)()
    return found


def _windows(indices: Sequence[int], *, max_gap: int = 24) -> list[tuple[int, int]]:
    windows: list[tuple[int, int]] = []
    for index in indices:
        if windows and index - windows[-1][1] <= max_gap:
            windows[-1] = (windows[-1][0], index + 1)
        else:
            windows.append((index, index + 1))
    return windows


def draw_strips(
    rows: Sequence[Row], frames: Mapping[int, Frame], tracks: Sequence[Track], *, middle: tuple[str, str]
) -> Image8:
    """One row a track: its crops before, the gap, its crops after.

    Args:
        rows: What to show.
        frames: The decoded frames by index.
        tracks: The tracks on these frames (`labels.read_tracks_at`).
        middle: Two short lines for the column between: what lies there.

    Returns:
        uint8 (h, w, 3) RGB.
    """
    side = VIEWS * TILE_PX + (VIEWS - 1) * GAP_PX
    width = NAME_PX + side + MIDDLE_PX + side + GAP_PX
    step = TILE_PX + FOOT_PX + GAP_PX
    image = Image.new("RGB", (width, HEAD_PX + max(len(rows), 1) * step + GAP_PX), PAPER)
    draw = ImageDraw.Draw(image)
    left, right = NAME_PX, NAME_PX + side + MIDDLE_PX
    head = load_font(18, is_bold=True)
    draw.text((left + side / 2, HEAD_PX / 2), "before", font=head, fill=INK, anchor="mm")
    draw.text((right + side / 2, HEAD_PX / 2), "after", font=head, fill=INK, anchor="mm")
    centre = (left + side + right) / 2
    bottom = HEAD_PX + len(rows) * step
    draw.line((centre, HEAD_PX, centre, bottom - GAP_PX), fill=(255, 176, 32), width=2)
    for number, line in enumerate(middle):
        draw.rectangle((centre - 38, bottom / 2 - 22 + 22 * number, centre + 38, bottom / 2 + 22 * number), fill=PAPER)
        draw.text((centre, bottom / 2 - 11 + 22 * number), line, font=load_font(14), fill=(255, 176, 32), anchor="mm")
    by_id = {track.track_id: track for track in tracks}
    for number, row in enumerate(rows):
        top = HEAD_PX + number * step
        _draw_name(draw, row, top)
        side_px = _side_px(by_id.get(row.track_id), (*row.before, *row.after))
        # The views next to the encounter stand next to it: those before to the right, those after to the left.
        before = [None] * (VIEWS - len(row.before)) + list(row.before)
        after = list(row.after) + [None] * (VIEWS - len(row.after))
        for place, index in enumerate((*before, *after)):
            x = (left if place < VIEWS else right) + place % VIEWS * (TILE_PX + GAP_PX)
            tile = _tile(frames.get(index) if index is not None else None, by_id.get(row.track_id), side_px)
            if tile is None:
                draw.rectangle((x, top, x + TILE_PX - 1, top + TILE_PX - 1), fill=EMPTY)
                draw.text((x + TILE_PX / 2, top + TILE_PX / 2), "not seen", font=load_font(15), fill=FAINT, anchor="mm")
                continue
            image.paste(Image.fromarray(tile), (x, top))
            text = f"frame {index + 1}" if index is not None else ""
            draw.text((x + TILE_PX / 2, top + TILE_PX + FOOT_PX / 2), text, font=load_font(13), fill=FAINT, anchor="mm")
    return np.asarray(image)


def _draw_name(draw: ImageDraw.ImageDraw, row: Row, top: int) -> None:
    colour = track_colour(row.track_id)
    font = load_font(18, is_bold=True)
    text = row.name
    while font.getlength(text) > NAME_PX - 30 and len(text) > 4:
        text = f"{text[:-2]}…"
    y = top + TILE_PX / 2
    half = min((font.getlength(text) + 18) / 2, NAME_PX / 2 - 4)
    draw.rounded_rectangle((NAME_PX / 2 - half, y - 17, NAME_PX / 2 + half, y + 17), 9, fill=colour)
    draw.text((NAME_PX / 2, y), text, font=font, fill=ink_on(colour), anchor="mm")


def _side_px(track: Track | None, indices: Sequence[int]) -> float:
    """One side for all crops of a row, so that sizes can be compared."""
    if track is None:
        return 0.0
    boxes = track.boxes_xyxy[np.isin(track.frame_indices, indices)]
    return float((boxes[:, 2:] - boxes[:, :2]).max()) * CONTEXT if len(boxes) else 0.0


def _tile(frame: Frame | None, track: Track | None, side_px: float) -> Image8 | None:
    """A square around the object, enlarged, with its outline; None where there is nothing to show."""
    if frame is None or track is None or side_px <= 0:
        return None
    at = np.flatnonzero(track.frame_indices == frame.index)
    if not len(at):
        return None
    _, _, shape = mark_of(track, int(at[0]))
    x0, y0, x1, y1 = (float(v) for v in track.boxes_xyxy[int(at[0])])
    scale = TILE_PX / side_px
    # Maps the crop onto the tile; what lies outside the frame stays dark.
    matrix = np.array(
        [[scale, 0, TILE_PX / 2 - scale * (x0 + x1) / 2], [0, scale, TILE_PX / 2 - scale * (y0 + y1) / 2]], np.float64
    )
    way = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    size = (TILE_PX, TILE_PX)
    tile = cv2.warpAffine(frame.image_rgb, matrix, size, flags=way, borderMode=cv2.BORDER_CONSTANT, borderValue=EMPTY)
    colour = track_colour(track.track_id)
    if shape.ndim == 2:
        mask = cv2.warpAffine(shape.astype(np.float32), matrix, size, flags=cv2.INTER_LINEAR) >= 0.5
        outline, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(tile, outline, -1, (14, 16, 20), 3, cv2.LINE_AA)
        cv2.drawContours(tile, outline, -1, colour, 2, cv2.LINE_AA)
    else:
        corners = [tuple(np.round(matrix @ (x, y, 1)).astype(int).tolist()) for x, y in ((x0, y0), (x1, y1))]
        cv2.rectangle(tile, corners[0], corners[1], colour, 2, cv2.LINE_AA)
    return np.asarray(tile, np.uint8)


def draw_frame(frame: Frame, tracks: Sequence[Track], *, chosen: Sequence[int] = ()) -> Image8:
    """One whole frame with its tracks; those of the item are marked.

    Args:
        frame: The frame.
        tracks: The tracks that are on it, and perhaps on others.
        chosen: Ids whose label gets a badge.

    Returns:
        uint8 (h, w, 3) RGB.
    """
    marks = [mark_of(*found) for found in marks_by_frame(tracks).get(frame.index, ())]
    return draw_tracks(frame.image_rgb, marks, scale=FRAME_WIDTH_PX / frame.width_px, flagged=chosen)


def film_range(item: Any, frame_count: int) -> tuple[int, int]:
    """The frames ``[start, stop)`` of an item's film: the encounter and a little on both sides, but not too much."""
    start = max(item.start - FILM_MARGIN_FRAMES, 0)
    stop = min(item.stop + FILM_MARGIN_FRAMES, frame_count)
    return start, min(stop, start + FILM_MAX_FRAMES)


def film(source: FrameSource, tracks: Sequence[Track], start: int, stop: int) -> str:
    """A short H.264 film of frames ``[start, stop)`` with tracks, as text that a browser plays.

    Raises:
        VideoError: The frames cannot be read.
    """
    if stop <= start:
        raise VideoError(f"frames {start + 1} to {stop}: there is nothing to show")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        write_video(path, source, tracks, start=start, stop=stop)
        coded = base64.b64encode(path.read_bytes()).decode()
    return f"data:video/mp4;base64,{coded}"
