"""DAVIS-style masks: a folder with one palette PNG for one frame, in which the value of a pixel is a track id.

Files are named by frame, 0-based (``00000.png``). 0 is the background. A pixel belongs to one track only: where masks
overlap, the smaller one lies on top. Boxes, scores and empty masks are not kept; phrases go to ``phrases.json`` in the
folder, which tools that look for images do not see.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from fiftyone_plugin.errors import OutputError, TrackFileError
from fiftyone_plugin.exporters.atomic import write_folder
from fiftyone_plugin.exporters.colours import track_colour
from fiftyone_plugin.geometry import area_px, decode_mask, encode_mask, mask_boxes
from fiftyone_plugin.types import Rle, Source, Track, VideoInfo

__all__ = ["MAX_TRACK_ID", "read_davis", "write_davis"]

MAX_TRACK_ID = 255

_PHRASES = "phrases.json"
_DEFAULT_PHRASE = "object"


def write_davis(path: str | Path, tracks: Sequence[Track], video: VideoInfo) -> None:
    """Write a PNG for every frame of the video, also for those without a track.

    An existing folder is replaced if it holds nothing but the files of an earlier run.

    Raises:
        OutputError: A track has no masks or an id above 255, a mask has another size than the video, or the folder
            cannot be written; nothing of it is left behind.
    """
    filled = [t for t in tracks if len(t)]
    for t in filled:
        if t.masks is None:
            raise OutputError(f"{path}: track {t.track_id} has no masks: write boxes with the format mot, coco or cvat")
        if t.track_id > MAX_TRACK_ID:
            raise OutputError(
                f"{path}: track id {t.track_id}: a palette PNG holds 1 to {MAX_TRACK_ID}: use the format coco"
            )
    by_frame: dict[int, list[tuple[int, Rle]]] = {}
    for t in filled:
        for frame, rle in zip(t.frame_indices.tolist(), t.masks or (), strict=True):
            if (rle.height_px, rle.width_px) != (video.height_px, video.width_px):
                raise OutputError(
                    f"{path}: a mask of track {t.track_id} is {rle.width_px}x{rle.height_px}, the video "
                    f"{video.width_px}x{video.height_px}: they must agree"
                )
            by_frame.setdefault(frame, []).append((t.track_id, rle))
    palette = [v for k in range(256) for v in (track_colour(k) if k else (0, 0, 0))]
    length = max(video.frame_count, max(by_frame, default=-1) + 1)
    with write_folder(path, is_ours=_is_ours) as part:
        for frame in range(length):
            ids = np.zeros((video.height_px, video.width_px), np.uint8)
            for track_id, rle in sorted(by_frame.get(frame, ()), key=lambda m: -area_px(m[1])):
                ids[decode_mask(rle)] = track_id
            image = Image.fromarray(ids)
            image.putpalette(palette)
            image.save(part / f"{frame:05d}.png")
        phrases = {str(t.track_id): t.phrase for t in sorted(filled, key=lambda t: t.track_id)}
        (part / _PHRASES).write_text(json.dumps(phrases, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _is_ours(path: Path) -> bool:
    return path.name == _PHRASES or (path.suffix == ".png" and path.stem.isascii() and path.stem.isdigit())


def read_davis(path: str | Path, *, phrase: str | None = None) -> tuple[Track, ...]:
    """Read the tracks of a folder, sorted by id; boxes are the tightest ones round the masks.

    Args:
        path: The folder. Names that are numbers are frames; otherwise files count in the order of their names.
        phrase: Phrase of all tracks. By default the one in ``phrases.json``, or ``object``.

    Raises:
        TrackFileError: The folder holds no PNG, or one that is not a palette or grey image, or of another size.
    """
    folder = Path(path)
    files = sorted(folder.glob("*.png")) if folder.is_dir() else []
    if not files:
        raise TrackFileError(f"{path}: holds no PNG: give a folder with one palette image a frame")
    are_numbered = all(_is_ours(f) for f in files)
    found: dict[int, list[tuple[int, Rle]]] = {}
    size: tuple[int, int] | None = None
    for place, file in enumerate(files):
        ids = _read_ids(file)
        if size is not None and ids.shape != size:
            raise TrackFileError(f"{file}: is {ids.shape[1]}x{ids.shape[0]}, the first image {size[1]}x{size[0]}")
        size = ids.shape
        frame = int(file.stem) if are_numbered else place
        for track_id in np.unique(ids[ids > 0]).tolist():
            found.setdefault(track_id, []).append((frame, encode_mask(ids == track_id)))
    phrases = _read_phrases(folder / _PHRASES) if phrase is None else {}
    return tuple(
        _track(k, phrases.get(str(k), _DEFAULT_PHRASE) if phrase is None else phrase, sorted(rows, key=lambda r: r[0]))
        for k, rows in sorted(found.items())
    )


def _read_ids(file: Path) -> np.ndarray:
    try:
        with Image.open(file) as image:
            if image.mode not in ("P", "L", "1"):
                raise TrackFileError(f"{file}: mode {image.mode}: must be a palette or grey image whose values are ids")
            return np.asarray(image, np.uint8)
    except OSError as error:
        raise TrackFileError(f"{file}: cannot be read ({error.strerror or error})") from None


def _read_phrases(file: Path) -> dict[str, str]:
    if not file.is_file():
        return {}
    try:
        phrases = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrackFileError(f"{file}: cannot be read as JSON ({error})") from None
    if not isinstance(phrases, dict) or not all(isinstance(v, str) for v in phrases.values()):
        raise TrackFileError(f"{file}: must be a JSON object from track id to phrase")
    return phrases


def _track(track_id: int, phrase: str, rows: list[tuple[int, Rle]]) -> Track:
    ones = np.ones(len(rows), np.float32)
    return Track(
        track_id=track_id,
        phrase=phrase,
        frame_indices=np.array([frame for frame, _ in rows], np.int64),
        boxes_xyxy=np.concatenate([mask_boxes(decode_mask(rle)[None]) for _, rle in rows]),
        masks=tuple(rle for _, rle in rows),
        scores=ones,
        mask_scores=ones.copy(),
        identity_confidence=ones.copy(),
        sources=(Source.SEED,) * len(rows),
    )
