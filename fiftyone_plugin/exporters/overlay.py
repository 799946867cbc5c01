"""Tracks drawn over frames: translucent masks with a crisp contour, a label chip, one colour for one identity.

Knows nothing of how tracks came about; `contact_sheet` puts such pictures side by side.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fiftyone_plugin.errors import OutputError
from fiftyone_plugin.exporters.atomic import write_file
from fiftyone_plugin.exporters.colours import Colour, ink_on, track_colour
from fiftyone_plugin.geometry import decode_mask
from fiftyone_plugin.interfaces import FrameSource
from fiftyone_plugin.types import BoolArray, FloatArray, Track

__all__ = ["Mark", "draw_tracks", "load_font", "mark_of", "marks_by_frame", "write_video"]

Image8 = NDArray[np.uint8]

Mark = tuple[int, str, BoolArray | FloatArray]
"""Track id, phrase, and either a mask, bool (H, W), or a box, xyxy (4,)."""

FILL_OPACITY = 0.42
_DARK = (14, 16, 20)
_WARNING = (200, 16, 32)
_CHIP_SUPERSAMPLING = 4
_VIDEO_MIN_SIDE_PX = 540
"""Smaller frames are enlarged in videos, so that labels can be read."""


@lru_cache(maxsize=64)
def load_font(size_px: int, *, is_bold: bool = False) -> Any:
    """DejaVu Sans where the system has it, else the font that comes with Pillow."""
    name = "DejaVuSans-Bold.ttf" if is_bold else "DejaVuSans.ttf"
    try:
        return ImageFont.truetype(name, size_px)
    except OSError:
        return ImageFont.load_default(size_px)


def draw_tracks(
    image_rgb: Image8,
    marks: Sequence[Mark],
    *,
    scale: float = 1.0,
    with_phrases: bool = True,
    label_height_px: int | None = None,
    flagged: Collection[int] = (),
) -> Image8:
    """Draw tracks over a copy of one frame.

    Args:
        image_rgb: uint8 (H, W, 3).
        marks: What to draw, in pixels of the image; empty masks are left out.
        scale: The picture is enlarged by this factor first, so that contours and labels stay crisp.
        with_phrases: Label with phrase and id; False: the id alone.
        label_height_px: Height of a label in the enlarged picture; by default a twenty-sixth of its height.
        flagged: Ids whose label gets a warning badge.

    Returns:
        uint8 (round(scale * H), round(scale * W), 3).
    """
    height, width = (round(scale * side) for side in image_rgb.shape[:2])
    way = cv2.INTER_CUBIC if scale >= 1 else cv2.INTER_AREA
    canvas = image_rgb.copy() if scale == 1 else cv2.resize(image_rgb, (width, height), interpolation=way)
    line_px = round(0.8 + min(height, width) / 330)
    places = []
    for track_id, phrase, shape in marks:
        colour = track_colour(track_id)
        if shape.ndim == 2:
            box = _draw_mask(canvas, shape, colour, line_px)
        else:
            box = _draw_box(canvas, np.asarray(shape, np.float64) * scale, colour, line_px)
        if box is not None:
            places.append((track_id, phrase, box))
    tall = label_height_px or max(11, round(height / 26))
    _draw_labels(canvas, places, tall, with_phrases, flagged)
    return np.asarray(canvas, np.uint8)


def _draw_mask(canvas: Image8, mask: NDArray[Any], colour: Colour, line_px: int) -> tuple[float, ...] | None:
    """Draw in place; the box of what was drawn, or None where the mask is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    # Only the part around the object is enlarged and blended; a pixel more, for the curve of the edge.
    top, bottom = max(0, int(rows[0]) - 1), min(mask.shape[0], int(rows[-1]) + 2)
    left, right = max(0, int(columns[0]) - 1), min(mask.shape[1], int(columns[-1]) + 2)
    tall, wide = canvas.shape[0] / mask.shape[0], canvas.shape[1] / mask.shape[1]
    y0, y1, x0, x1 = round(top * tall), round(bottom * tall), round(left * wide), round(right * wide)
    part = canvas[y0:y1, x0:x1]
    if not part.size:
        return None
    # Enlarged as a smooth surface and cut at a half: steps of the pixel grid become curves.
    surface = mask[top:bottom, left:right].astype(np.float32)
    shown = cv2.resize(surface, (x1 - x0, y1 - y0), interpolation=cv2.INTER_LINEAR) >= 0.5
    part[shown] = ((1 - FILL_OPACITY) * part[shown] + FILL_OPACITY * np.array(colour)).astype(np.uint8)
    contours, _ = cv2.findContours(shown.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE, offset=(x0, y0))
    cv2.drawContours(canvas, contours, -1, _DARK, line_px + 1, cv2.LINE_AA)
    cv2.drawContours(canvas, contours, -1, colour, line_px, cv2.LINE_AA)
    return float(x0), float(y0), float(x1), float(y1)


def _draw_box(canvas: Image8, box: NDArray[np.float64], colour: Colour, line_px: int) -> tuple[float, ...]:
    x0, y0, x1, y1 = (round(v) for v in np.clip(box, -10_000, 10_000).tolist())
    cv2.rectangle(canvas, (x0, y0), (x1 - 1, y1 - 1), _DARK, line_px + 2, cv2.LINE_AA)
    cv2.rectangle(canvas, (x0, y0), (x1 - 1, y1 - 1), colour, line_px, cv2.LINE_AA)
    return float(x0), float(y0), float(x1), float(y1)


def _draw_labels(
    canvas: Image8,
    places: list[tuple[int, str, tuple[float, ...]]],
    tall: int,
    with_phrases: bool,
    flagged: Collection[int],
) -> None:
    """Put a chip above each object, inside the picture and off the other chips."""
    height, width = canvas.shape[:2]
    taken: list[tuple[float, float, float, float]] = []
    # From top to bottom, so that a chip that must move finds the room above it settled.
    for track_id, phrase, (x0, y0, x1, _y1) in sorted(places, key=lambda p: p[2][1]):
        text = f"{phrase} {track_id}" if with_phrases else str(track_id)
        chip = _chip(text, tall, track_colour(track_id), is_flagged=track_id in flagged)
        high, wide = chip.shape[:2]
        left = float(np.clip((x0 + x1 - wide) / 2, 0, max(0, width - wide)))
        top = float(np.clip(y0 - high * 1.1, 0, max(0, height - high)))
        for step in range(8):
            moved = float(np.clip(top + step * (high + 1), 0, max(0, height - high)))
            if not any(_touch((left, moved, left + wide, moved + high), other) for other in taken):
                top = moved
                break
        taken.append((left, top, left + wide, top + high))
        _paste(canvas, chip, round(left), round(top))


def _touch(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


@lru_cache(maxsize=512)
def _chip(text: str, tall: int, colour: Colour, *, is_flagged: bool = False) -> Image8:
    """A rounded label, with a warning badge beside the text if it is flagged: uint8 (h, w, 4)."""
    big = tall * _CHIP_SUPERSAMPLING
    font = load_font(round(big * 0.72), is_bold=True)
    left, _, right, _ = font.getbbox(text)
    plain = max(round(right - left + big * 0.55), big)
    wide = plain + (round(big * 0.78) if is_flagged else 0)
    image = Image.new("RGBA", (wide, big), (*_DARK, 0))
    draw = ImageDraw.Draw(image)
    draw.rounded_rectangle((0, 0, wide - 1, big - 1), big * 0.32, fill=(*_DARK, 235))
    rim = max(1, round(big * 0.07))
    draw.rounded_rectangle((rim, rim, wide - 1 - rim, big - 1 - rim), big * 0.27, fill=(*colour, 255))
    draw.text((plain / 2, big / 2), text, font=font, fill=ink_on(colour), anchor="mm")
    if is_flagged:
        radius, x, y = big * 0.33, plain + big * 0.24, big / 2
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(*_WARNING, 255), outline=(255, 255, 255))
        arm = radius * 0.42
        for turn in (-1, 1):
            draw.line((x - arm, y - turn * arm, x + arm, y + turn * arm), fill=(255, 255, 255), width=round(big * 0.1))
    return np.asarray(image.resize((round(wide / _CHIP_SUPERSAMPLING), tall), Image.Resampling.LANCZOS))


def _paste(canvas: Image8, chip: Image8, left: int, top: int) -> None:
    part = canvas[max(0, top) : top + chip.shape[0], max(0, left) : left + chip.shape[1]]
    seen = chip[: part.shape[0], : part.shape[1]]
    opacity = seen[:, :, 3:].astype(np.float32) / 255
    part[:] = (part * (1 - opacity) + seen[:, :, :3] * opacity).astype(np.uint8)


def marks_by_frame(tracks: Sequence[Track]) -> dict[int, list[tuple[Track, int]]]:
    """Frame index to the tracks that are there, each with its row; `mark_of` makes a `Mark` of such a pair."""
    found: dict[int, list[tuple[Track, int]]] = {}
    for track in tracks:
        for row, frame in enumerate(track.frame_indices.tolist()):
            found.setdefault(frame, []).append((track, row))
    return found


def mark_of(track: Track, row: int) -> Mark:
    """What to draw of a track in one of its frames: its mask where it has masks, else its box."""
    shape = decode_mask(track.masks[row]) if track.masks is not None else track.boxes_xyxy[row]
    return track.track_id, track.phrase, shape


def write_video(
    path: str | Path,
    source: FrameSource,
    tracks: Sequence[Track],
    *,
    beside: Sequence[Track] | None = None,
    captions: tuple[str, str] = ("without repair", "with repair"),
    start: int = 0,
    stop: int | None = None,
) -> None:
    """Write an H.264 video of the frames with tracks drawn over them, at the times of the source.

    Args:
        path: An ``.mp4`` file, replaced if it is there.
        source: The frames.
        tracks: Drawn over the whole picture, or over its left half.
        beside: A second version of the tracks: drawn over the same frames, on the right.
        captions: What the two halves are called, where there are two.
        start: 0-based first frame.
        stop: Frame after the last; None is the end.

    Raises:
        FrameRangeError: The frames lie outside the video.
        OutputError: The file cannot be written; nothing of it is left behind.
    """
    frames = source.frames(start, stop)
    info = source.info
    scale = max(1, round(_VIDEO_MIN_SIDE_PX / min(info.height_px, info.width_px)))
    sides = [marks_by_frame(tracks)] if beside is None else [marks_by_frame(tracks), marks_by_frame(beside)]

    def pictures() -> Iterator[tuple[float, Image8]]:
        for frame in frames:
            halves = []
            for here, caption in zip(sides, captions, strict=False):
                marks = [mark_of(*found) for found in here.get(frame.index, ())]
                picture = draw_tracks(frame.image_rgb, marks, scale=scale)
                if len(sides) == 2:
                    chip = _chip(caption, max(14, round(picture.shape[0] / 20)), (244, 245, 247))
                    _paste(picture, chip, 8, picture.shape[0] - chip.shape[0] - 8)
                halves.append(picture)
            whole = np.concatenate(halves, axis=1)
            # H.264 with halved colour wants even sides.
            yield frame.pts_seconds, whole[: whole.shape[0] // 2 * 2, : whole.shape[1] // 2 * 2]

    try:
        with write_file(path) as part:
            _encode(part, pictures(), info.frames_per_second)
    except av.error.FFmpegError as error:
        raise OutputError(f"{path}: cannot be written as a video ({error.strerror or error})") from None
    finally:
        getattr(frames, "close", lambda: None)()


_CLOCK = Fraction(1, 90_000)
"""Ticks fine enough for every usual frame rate."""


def _encode(path: Path, pictures: Iterator[tuple[float, Image8]], rate: float) -> None:
    with av.open(f"file:{path}", "w", format="mp4", options={"movflags": "+faststart"}) as out:
        stream: Any = None
        begin = 0.0
        for seconds, picture in pictures:
            if stream is None:
                begin = seconds
                stream = out.add_stream(
                    "libx264", rate=Fraction(rate).limit_denominator(1001), options={"crf": "18", "preset": "veryfast"}
                )
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.codec_context.time_base = _CLOCK
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = round((seconds - begin) / _CLOCK), _CLOCK
            out.mux(stream.encode(frame))
        if stream is not None:
            out.mux(stream.encode())
