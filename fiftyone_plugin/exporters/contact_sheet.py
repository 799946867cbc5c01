"""One picture of a whole video before and after repair: chosen frames, and a timeline of who carried which id.

Frames are chosen around the encounters. In the timeline, every lane is one track after repair; its upper half shows the
ids that the same object carried without repair, its lower half its id with repair, both in the colours of the frames.
Knows nothing of ground truth: "changed" means that the repair changed it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from fiftyone_plugin.errors import OptionError
from fiftyone_plugin.exporters.atomic import write_file
from fiftyone_plugin.exporters.colours import Colour, track_colour
from fiftyone_plugin.exporters.overlay import Image8, Mark, draw_tracks, load_font, mark_of, marks_by_frame
from fiftyone_plugin.interfaces import FrameSource
from fiftyone_plugin.metrics.clear import match_frames
from fiftyone_plugin.metrics.similarity import pair_tracks
from fiftyone_plugin.types import Encounter, Track

__all__ = ["choose_frames", "contact_sheet"]

_PAPER = (250, 250, 248)
_INK = (24, 27, 32)
_FAINT = (108, 114, 124)
_LINE = (222, 223, 220)
_BAND = (255, 232, 186)
_BAND_EDGE = (226, 150, 20)

_MARGIN = 40
_GAP = 10
_SUPERSAMPLING = 2
"""The timeline is drawn larger and reduced, for smooth edges."""

Carried = dict[int, dict[int, int]]
"""Track id with repair -> frame index -> id of the track that covers the same object there without repair."""


@dataclass(frozen=True, slots=True)
class _Tile:
    """One chosen frame."""

    frame_index: int
    seconds: float
    without: Image8
    repaired: Image8


def contact_sheet(
    source: FrameSource,
    without: Sequence[Track],
    repaired: Sequence[Track],
    encounters: Sequence[Encounter],
    path: str | Path,
    *,
    title: str = "Without and with repair",
    captions: tuple[str, str] = ("without repair", "with repair"),
    notes: tuple[str, str] = ("", ""),
    frame_count: int = 6,
    width_px: int = 1800,
) -> None:
    """Write a PNG that shows what the repair did.

    Args:
        source: The video.
        without: Tracks as they were propagated.
        repaired: The same after repair.
        encounters: Marked in the timeline; frames are chosen around them.
        path: The PNG, replaced if it is there.
        title: First line of the picture.
        captions: Name of each row.
        notes: One short remark for each row, such as its scores.
        frame_count: Frames to show, 1 or more; fewer where the video has fewer.
        width_px: Width of the picture, 600 or more.

    Raises:
        OptionError: `frame_count` or `width_px` is too small.
        OutputError: The file cannot be written; nothing of it is left behind.
    """
    if frame_count < 1 or width_px < 600:
        raise OptionError(f"frame_count = {frame_count}, width_px = {width_px}: must be at least 1 and 600")
    carried = _carried_ids(without, repaired)
    chosen = choose_frames(encounters, source.info.frame_count, count=frame_count, carried=carried)
    tile_width = (width_px - 2 * _MARGIN - (len(chosen) - 1) * _GAP) // max(1, len(chosen))
    tiles = _draw_tiles(source, without, repaired, chosen, carried, tile_width)
    timeline = _draw_timeline(
        carried,
        repaired,
        encounters,
        chosen,
        frame_count=source.info.frame_count,
        frames_per_second=source.info.frames_per_second,
        width_px=width_px - 2 * _MARGIN,
        captions=captions,
    )
    sheet = _assemble(tiles, timeline, encounters, title=title, captions=captions, notes=notes, width_px=width_px)
    with write_file(path) as part:
        sheet.save(part, format="PNG", optimize=True)


def choose_frames(
    encounters: Sequence[Encounter], frame_total: int, *, count: int, carried: Carried | None = None
) -> list[int]:
    """Frames that tell the story: before, in and after encounters, those that the repair changed first.

    Args:
        encounters: Where identities were in doubt.
        frame_total: Frames in the video.
        count: Frames to choose, 1 or more.
        carried: See `Carried`; says which encounters changed anything.

    Returns:
        At most `count` frame indices, increasing.
    """
    if frame_total <= 0:
        return []
    spacing = max(1, frame_total // (4 * count))
    ordered = sorted(encounters, key=lambda e: (not _is_changed(e, carried or {}), e.start))
    margin = max(1, spacing // 2)
    wanted = [0]
    for moment in range(3):
        for e in ordered:
            wanted.append(((e.start + e.stop - 1) // 2, e.stop - 1 + margin, e.start - margin)[moment])
    chosen: list[int] = []
    for frame in wanted:
        frame = min(max(frame, 0), frame_total - 1)
        if len(chosen) < count and all(abs(frame - other) >= spacing for other in chosen):
            chosen.append(frame)
    while len(chosen) < min(count, frame_total):
        distance = np.abs(np.arange(frame_total)[:, None] - np.array(chosen)[None]).min(axis=1)
        chosen.append(int(distance.argmax()))
    return sorted(set(chosen))


def _is_changed(encounter: Encounter, carried: Carried) -> bool:
    """Whether an object leaves the encounter with another id, without repair, than it came with."""
    for history in carried.values():
        before = [i for f, i in history.items() if f < encounter.start]
        after = [i for f, i in history.items() if f >= encounter.stop]
        if before and after and before[-1] != after[0] and {before[-1], after[0]} & set(encounter.track_ids):
            return True
    return False


def _carried_ids(without: Sequence[Track], repaired: Sequence[Track]) -> Carried:
    pairing = pair_tracks(repaired, without)
    carried: Carried = {track_id: {} for track_id in pairing.object_ids}
    for found in match_frames(pairing):
        for row, column in zip(found.objects.tolist(), found.predictions.tolist(), strict=True):
            carried[pairing.object_ids[row]][found.frame.frame_index] = pairing.prediction_ids[column]
    return carried


def _draw_tiles(
    source: FrameSource,
    without: Sequence[Track],
    repaired: Sequence[Track],
    chosen: list[int],
    carried: Carried,
    tile_width: int,
) -> list[_Tile]:
    top, bottom = _rows_of_interest([*without, *repaired], source.info.height_px)
    size = (tile_width, round((bottom - top) * tile_width / source.info.width_px))
    sides = marks_by_frame(without), marks_by_frame(repaired)
    tiles = []
    for index in chosen:
        frame = next(source.frames(index, index + 1), None)
        if frame is None:  # the video ends before it was said to
            break
        pictures = []
        for side, flagged in zip(sides, (_changed_ids(carried, index), frozenset()), strict=True):
            picture = draw_tracks(
                frame.image_rgb[top:bottom],
                [_shift(mark_of(*found), top, bottom) for found in side.get(index, ())],
                scale=_SUPERSAMPLING * tile_width / source.info.width_px,
                with_phrases=False,
                label_height_px=_SUPERSAMPLING * max(13, round(tile_width / 12)),
                flagged=flagged,
            )
            pictures.append(np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS)))
        tiles.append(_Tile(index, frame.pts_seconds, *pictures))
    return tiles


def _shift(mark: Mark, top: int, bottom: int) -> Mark:
    """The mark in a picture of the rows from `top` to `bottom`."""
    track_id, phrase, shape = mark
    if shape.ndim == 2:
        return track_id, phrase, shape[top:bottom]
    return track_id, phrase, np.asarray(shape - np.array([0, top, 0, top]), np.float32)


def _changed_ids(carried: Carried, frame: int) -> frozenset[int]:
    """Ids without repair that sit, in this frame, on another object than the one they began with."""
    return frozenset(
        history[frame]
        for history in carried.values()
        if frame in history and history[frame] != next(iter(history.values()))
    )


def _rows_of_interest(tracks: Sequence[Track], height_px: int) -> tuple[int, int]:
    """The part of the frames, from row to row, in which anything is tracked, with a margin."""
    boxes = [t.boxes_xyxy for t in tracks if len(t)]
    if not boxes:
        return 0, height_px
    every = np.concatenate(boxes)
    margin = height_px / 10
    top = int(np.clip(every[:, 1].min() - margin, 0, height_px * 0.4))
    bottom = int(np.clip(every[:, 3].max() + margin / 2, height_px * 0.6, height_px))
    return top, bottom


def _assemble(
    tiles: list[_Tile],
    timeline: Image.Image,
    encounters: Sequence[Encounter],
    *,
    title: str,
    captions: tuple[str, str],
    notes: tuple[str, str],
    width_px: int,
) -> Image.Image:
    tile_height, tile_width = tiles[0].without.shape[:2] if tiles else (0, 0)
    unit = max(16, round(width_px / 72))
    title_px, caption_px, label_px = round(unit * 1.7), unit, round(unit * 0.82)
    row = caption_px * 2 + tile_height
    height = _MARGIN + round(title_px * 1.9) + 2 * row + _GAP + label_px * 2 + timeline.height + round(_MARGIN * 1.2)
    sheet = Image.new("RGB", (width_px, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    y = _MARGIN
    draw.text((_MARGIN, y), title, font=load_font(title_px, is_bold=True), fill=_INK)
    y += round(title_px * 1.9)
    for caption, note, side in zip(captions, notes, ("without", "repaired"), strict=True):
        draw.text((_MARGIN, y), caption, font=load_font(caption_px, is_bold=True), fill=_INK)
        draw.text((width_px - _MARGIN, y), note, font=load_font(caption_px), fill=_FAINT, anchor="ra")
        y += round(caption_px * 1.55)
        for k, tile in enumerate(tiles):
            sheet.paste(_rounded(getattr(tile, side), sheet), (round(_MARGIN + k * (tile_width + _GAP)), y))
        y += tile_height + round(caption_px * 0.45)
    y += round(label_px * 0.2)
    for k, tile in enumerate(tiles):
        x = _MARGIN + k * (tile_width + _GAP)
        draw.text(
            (x + tile_width / 2, y),
            f"frame {tile.frame_index} · {tile.seconds:.1f} s",
            font=load_font(label_px),
            fill=_BAND_EDGE if any(e.start <= tile.frame_index < e.stop for e in encounters) else _FAINT,
            anchor="ma",
        )
    y += round(label_px * 2.0)
    sheet.paste(timeline, (_MARGIN, y))
    return sheet


def _rounded(picture: Image8, sheet: Image.Image) -> Image.Image:
    """The picture with slightly rounded corners on the colour of the sheet."""
    height, width = picture.shape[:2]
    cover = Image.new("L", (width * 2, height * 2), 0)
    ImageDraw.Draw(cover).rounded_rectangle((0, 0, 2 * width - 1, 2 * height - 1), 16, fill=255)
    ground = Image.new(sheet.mode, (width, height), _PAPER)
    ground.paste(Image.fromarray(picture), (0, 0), cover.resize((width, height), Image.Resampling.LANCZOS))
    return ground


def _draw_timeline(
    carried: Carried,
    repaired: Sequence[Track],
    encounters: Sequence[Encounter],
    chosen: list[int],
    *,
    frame_count: int,
    frames_per_second: float,
    width_px: int,
    captions: tuple[str, str],
) -> Image.Image:
    s = _SUPERSAMPLING
    unit = max(14, round(width_px / 86)) * s
    lanes = sorted((t for t in repaired if len(t)), key=lambda t: (t.phrase, t.track_id))
    font, bold = load_font(round(unit * 0.85)), load_font(round(unit * 0.85), is_bold=True)
    names = [f"{t.phrase} {t.track_id}" for t in lanes]
    left: int = max([round(bold.getlength(n)) for n in names] + [unit * 4]) + unit
    lane_height, lane_gap = round(unit * 1.15), round(unit * 0.75)
    head = round(unit * 1.9)
    bottom = head + len(lanes) * (lane_height + lane_gap)
    image = Image.new("RGB", (width_px * s, bottom + round(unit * 2.6)), _PAPER)
    draw = ImageDraw.Draw(image)
    right = width_px * s - unit

    def x_of(frame: float) -> float:
        return left + (right - left) * frame / max(1, frame_count)

    for e in encounters:
        draw.rounded_rectangle((x_of(e.start), head - unit * 0.4, x_of(e.stop), bottom), unit * 0.2, fill=_BAND)
    for frame in chosen:
        x = x_of(frame + 0.5)
        draw.line((x, head - unit * 0.4, x, bottom), fill=_LINE, width=s)
        draw.polygon(
            [(x - unit * 0.32, head - unit * 0.95), (x + unit * 0.32, head - unit * 0.95), (x, head - unit * 0.45)],
            fill=_INK,
        )
    for k, track in enumerate(lanes):
        y = head + k * (lane_height + lane_gap) + lane_gap / 2
        draw.text((left - unit * 0.6, y + lane_height / 2), names[k], font=bold, fill=_INK, anchor="rm")
        middle = y + lane_height * 0.5
        for track_id, first, last in _spans(carried.get(track.track_id, {})):
            _bar(draw, x_of(first), y, x_of(last + 1), middle - s, track_colour(track_id))
        for _, first, last in _spans(dict.fromkeys(track.frame_indices.tolist(), track.track_id)):
            _bar(draw, x_of(first), middle + s, x_of(last + 1), y + lane_height, track_colour(track.track_id))
    _draw_axis(draw, x_of, bottom, unit, frame_count, frames_per_second)
    parts = (
        f"upper half: id {captions[0]}",
        f"lower half: id {captions[1]}",
        "shaded: encounters",
        "× on a label: the id has moved to another object",
    )
    draw.text((right, bottom + unit * 1.5), "   ·   ".join(parts), font=font, fill=_FAINT, anchor="ra")
    return image.resize((width_px, round(image.height / s)), Image.Resampling.LANCZOS)


def _spans(history: dict[int, int]) -> list[tuple[int, int, int]]:
    """Maximal stretches of one id without a gap: id, first frame, last frame."""
    runs = groupby(enumerate(sorted(history.items())), key=lambda item: (item[1][1], item[1][0] - item[0]))
    found = []
    for (track_id, _), members in runs:
        frames = [frame for _, (frame, _) in members]
        found.append((track_id, frames[0], frames[-1]))
    return found


def _bar(draw: ImageDraw.ImageDraw, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
    x1 = max(x1, x0 + 2)
    draw.rounded_rectangle((x0, y0, x1, y1), min((y1 - y0) * 0.3, (x1 - x0) / 2), fill=colour)


def _draw_axis(
    draw: ImageDraw.ImageDraw,
    x_of: Callable[[float], float],
    bottom: float,
    unit: int,
    frame_count: int,
    frames_per_second: float,
) -> None:
    seconds = frame_count / frames_per_second
    step = next((s for s in (0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600) if seconds / s <= 12), 3600)
    font = load_font(round(unit * 0.75))
    draw.line((x_of(0), bottom, x_of(frame_count), bottom), fill=_LINE, width=_SUPERSAMPLING)
    for k in range(int(seconds / step) + 1):
        x = x_of(k * step * frames_per_second)
        draw.line((x, bottom, x, bottom + unit * 0.3), fill=_FAINT, width=_SUPERSAMPLING)
        draw.text((x, bottom + unit * 0.4), f"{k * step:g} s", font=font, fill=_FAINT, anchor="ma")
