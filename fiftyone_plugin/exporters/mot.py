"""MOTChallenge text files: one line for one object in one frame.

    frame,id,left,top,width,height,confidence,-1,-1,-1

Frames and ids are 1-based in the file, frames 0-based in a `Track`. The format holds boxes only: masks, mask scores,
identity confidence and sources are not kept, and neither are phrases, which therefore go to a small neighbour,
``NAME.phrases.json``. Boxes and confidences are written with as many decimals as it takes to read back the same
float32 values, at least two.

The seventh column is a detector's or tracker's confidence in [0, 1] in result files (-1: not given), and in ground
truth a flag: 0 marks what is to be left out of an evaluation.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fiftyone_plugin.errors import TrackFileError
from fiftyone_plugin.exporters.atomic import write_text
from fiftyone_plugin.types import FloatArray, Source, Track

__all__ = ["DEFAULT_PHRASE", "phrases_path", "read_mot", "write_mot"]

DEFAULT_PHRASE = "object"
"""Phrase of tracks that were read from a file which names none."""

_MIN_COLUMNS = 6
_DECIMALS = range(2, 10)


def phrases_path(path: str | Path) -> Path:
    """The neighbour of a MOT file that keeps the phrases: a JSON object from track id to phrase."""
    return Path(path).with_suffix(".phrases.json")


def write_mot(path: str | Path, tracks: Sequence[Track]) -> None:
    """Write tracks, sorted by frame and id, and their phrases beside them where any is not `DEFAULT_PHRASE`.

    Raises:
        OutputError: The file cannot be written; nothing of it is left behind.
    """
    write_text(path, _lines(tracks))
    neighbour = phrases_path(path)
    phrases = {str(t.track_id): t.phrase for t in sorted(tracks, key=lambda t: t.track_id) if len(t)}
    if any(phrase != DEFAULT_PHRASE for phrase in phrases.values()):
        write_text(neighbour, [json.dumps(phrases, ensure_ascii=False, indent=1), "\n"])
    else:
        neighbour.unlink(missing_ok=True)  # of an earlier run; it would name the wrong tracks


def _lines(tracks: Sequence[Track]) -> Iterator[str]:
    filled = [t for t in tracks if len(t)]
    if not filled:
        return
    frames = np.concatenate([t.frame_indices for t in filled])
    ids = np.concatenate([np.full(len(t), t.track_id) for t in filled])
    boxes = np.concatenate([t.boxes_xyxy for t in filled]).astype(np.float64)
    corners = _shortest(boxes[:, :2].ravel(), np.zeros(2 * len(boxes)))
    starts = np.array([float(c) for c in corners])
    sides = _shortest(boxes[:, 2:].ravel(), starts)
    scores = _shortest(np.concatenate([t.scores for t in filled]).astype(np.float64), np.zeros(len(boxes)))
    for i in np.lexsort((ids, frames)).tolist():
        left, top, width, height = corners[2 * i], corners[2 * i + 1], sides[2 * i], sides[2 * i + 1]
        yield f"{frames[i] + 1},{ids[i]},{left},{top},{width},{height},{scores[i]},-1,-1,-1\n"


def _shortest(targets: NDArray[np.float64], bases: NDArray[np.float64]) -> list[str]:
    """For each target the shortest decimal that, added to the base, is the target again in float32."""
    differences = targets - bases
    wanted = targets.astype(np.float32)
    texts = [repr(d) for d in differences.tolist()]
    is_open = np.ones(len(targets), np.bool_)
    for decimals in _DECIMALS:
        rounded = np.round(differences, decimals)
        fits = is_open & ((bases + rounded).astype(np.float32) == wanted)
        for i in np.flatnonzero(fits).tolist():
            texts[i] = f"{rounded[i]:.{decimals}f}"
        is_open &= ~fits
    return texts


def read_mot(
    path: str | Path,
    *,
    height_px: int | None = None,
    width_px: int | None = None,
    phrase: str | None = None,
    is_ground_truth: bool = False,
) -> tuple[Track, ...]:
    """Read a MOT file; columns are separated by commas or white space, and those after the sixth may be missing.

    Args:
        path: The file.
        height_px: Frame height; with `width_px`, boxes are cut to the frame, and those wholly outside are left out.
        width_px: Frame width.
        phrase: Phrase of all tracks. By default the one in the neighbour that `write_mot` leaves, or `DEFAULT_PHRASE`.
        is_ground_truth: Leave out the rows whose seventh column is 0, as the MOTChallenge evaluation does. Otherwise
            that column is the score of the row, cut to [0, 1], where -1 (not given) becomes 1.

    Returns:
        Tracks sorted by id. Ids are those of the file; if the smallest is 0, all are raised by 1.

    Raises:
        TrackFileError: The file or one of its rows cannot be used; the message names the line.
    """
    rows = _read_rows(Path(path))
    if is_ground_truth:
        rows = rows[rows[:, 6] != 0]
    if len(rows) and rows[:, 1].min() == 0:
        rows[:, 1] += 1
    boxes = _corners(rows)
    if height_px is not None and width_px is not None:
        limits = np.array([width_px, height_px, width_px, height_px], np.float32)
        boxes = np.clip(boxes, 0, limits).astype(np.float32)
        is_inside = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        rows, boxes = rows[is_inside], boxes[is_inside]
    phrases = _read_phrases(Path(path)) if phrase is None else {}
    scores = np.where(rows[:, 6] == -1, 1.0, np.clip(rows[:, 6], 0.0, 1.0)).astype(np.float32)
    tracks = []
    for track_id in np.unique(rows[:, 1]).astype(int).tolist():
        mine = np.flatnonzero(rows[:, 1] == track_id)
        mine = mine[np.argsort(rows[mine, 0], kind="stable")]
        given = np.ones(len(mine), np.float32)
        tracks.append(
            Track(
                track_id=track_id,
                phrase=phrases.get(str(track_id), DEFAULT_PHRASE) if phrase is None else phrase,
                frame_indices=rows[mine, 0].astype(np.int64) - 1,
                boxes_xyxy=boxes[mine],
                masks=None,
                scores=scores[mine],
                mask_scores=given,
                identity_confidence=given.copy(),
                sources=(Source.SEED,) * len(mine),
            )
        )
    return tuple(tracks)


def _corners(rows: NDArray[np.float64]) -> FloatArray:
    return np.concatenate([rows[:, 2:4], rows[:, 2:4] + rows[:, 4:6]], axis=1).astype(np.float32)


def _read_rows(path: Path) -> NDArray[np.float64]:
    """float64 (R, 7): frame and id as in the file, left, top, width, height, seventh column (1 where missing)."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise TrackFileError(f"{path}: is not text: give a MOT file (frame,id,left,top,width,height,...)") from None
    except OSError as error:
        raise TrackFileError(f"{path}: cannot be read ({error.strerror or error})") from None
    rows: list[list[float]] = []
    seen: dict[tuple[float, float], int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        cells = [c.strip() for c in line.rstrip(", \t").split(",")] if "," in line else line.split()
        if (
            not any(cells)
            or cells[0].startswith("#")
            or (not rows and cells[0].lower().strip('"') in ("frame", "frame_id"))
        ):
            continue
        row = _parse(cells, f"{path}:{number}")
        first = seen.setdefault((row[0], row[1]), number)
        if first != number:
            raise TrackFileError(
                f"{path}:{number}: frame {row[0]:.0f}, id {row[1]:.0f} was there already in line {first}: an object "
                f"can be in a frame only once"
            )
        rows.append(row)
    return np.array(rows, np.float64).reshape(-1, 7)


def _parse(cells: list[str], place: str) -> list[float]:
    if len(cells) < _MIN_COLUMNS:
        raise TrackFileError(f"{place}: {len(cells)} columns: need at least frame,id,left,top,width,height")
    try:
        row = [float(c) for c in cells[:7]]
    except ValueError:
        raise TrackFileError(f"{place}: {','.join(cells[:7])!r}: must be numbers") from None
    if not all(math.isfinite(v) for v in row):
        raise TrackFileError(f"{place}: {','.join(cells[:7])!r}: must be finite numbers")
    frame, track_id, _, _, width, height = row[:6]
    if frame < 1 or frame != int(frame):
        raise TrackFileError(f"{place}: frame {frame:g}: must be a whole number, 1 or more (frames are 1-based here)")
    if track_id < 0 or track_id != int(track_id):
        raise TrackFileError(
            f"{place}: id {track_id:g}: must be a whole number, 0 or more; -1 marks detections, which have no identity"
        )
    if width < 0 or height < 0:
        raise TrackFileError(f"{place}: size {width:g} x {height:g}: must not be negative")
    return row if len(row) == 7 else [*row, 1.0]


def _read_phrases(path: Path) -> dict[str, str]:
    neighbour = phrases_path(path)
    if not neighbour.is_file():
        return {}
    try:
        phrases = json.loads(neighbour.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrackFileError(f"{neighbour}: cannot be read as JSON ({error})") from None
    if not isinstance(phrases, dict) or not all(isinstance(v, str) for v in phrases.values()):
        raise TrackFileError(f"{neighbour}: must be a JSON object from track id to phrase")
    return phrases
