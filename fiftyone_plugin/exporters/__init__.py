"""Track files and pictures: MOT, YouTube-VIS, DAVIS and CVAT, each written and read back exactly, and overlays.

Files appear whole or not at all. `overlay` and `contact_sheet` draw. Nothing here knows of models or datasets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fiftyone_plugin.errors import OptionError, TrackFileError
from fiftyone_plugin.exporters.atomic import check_writable, write_atomically
from fiftyone_plugin.exporters.coco import read_coco, write_coco
from fiftyone_plugin.exporters.cvat import read_cvat, write_cvat
from fiftyone_plugin.exporters.davis import read_davis, write_davis
from fiftyone_plugin.exporters.instances import write_instances
from fiftyone_plugin.exporters.mot import read_mot, write_mot
from fiftyone_plugin.types import Track, TrackingResult, VideoInfo

__all__ = [
    "FORMATS",
    "TrackFormat",
    "check_writable",
    "export_tracks",
    "guess_format",
    "import_tracks",
    "read_coco",
    "read_cvat",
    "read_davis",
    "read_mot",
    "write_atomically",
    "write_coco",
    "write_cvat",
    "write_davis",
    "write_instances",
    "write_mot",
]


@dataclass(frozen=True, slots=True)
class TrackFormat:
    """One line of the table of formats."""

    write: Callable[[Path, Sequence[Track], VideoInfo], None]
    read: Callable[[Path, VideoInfo | None], tuple[Track, ...]]
    suffix: str
    """Usual end of the name; empty for a folder."""
    has_masks: bool
    about: str


def _size(video: VideoInfo | None) -> dict[str, int | None]:
    return {"height_px": video.height_px if video else None, "width_px": video.width_px if video else None}


FORMATS: Mapping[str, TrackFormat] = {
    "mot": TrackFormat(
        lambda path, tracks, _: write_mot(path, tracks),
        lambda path, _: read_mot(path),
        ".txt",
        False,
        "MOTChallenge text: boxes and ids",
    ),
    "coco": TrackFormat(
        write_coco,
        lambda path, _: read_coco(path),
        ".json",
        True,
        "YouTube-VIS JSON: boxes, masks, scores",
    ),
    "davis": TrackFormat(
        write_davis,
        lambda path, _: read_davis(path),
        "",
        True,
        "folder of palette PNGs: masks and ids up to 255",
    ),
    "cvat": TrackFormat(
        write_cvat,
        lambda path, video: read_cvat(path, **_size(video)),
        ".xml",
        True,
        "CVAT for video 1.1: boxes or masks",
    ),
}
"""Formats by the name that ``--format`` takes."""


def _format(name: str) -> TrackFormat:
    try:
        return FORMATS[name]
    except KeyError:
        raise OptionError(f"format {name!r}: must be one of {', '.join(FORMATS)}") from None


def guess_format(path: str | Path) -> str:
    """The format that a path looks like: a folder is davis, ``.json`` coco, ``.xml`` cvat, anything else mot."""
    location = Path(path)
    suffix = location.suffix.lower()
    if location.is_dir():
        return "davis"
    return {".json": "coco", ".xml": "cvat"}.get(suffix, "mot")


def export_tracks(
    tracks: TrackingResult | Sequence[Track], video: VideoInfo | None, path: str | Path, format: str
) -> None:
    """Write tracks in one of the `FORMATS`.

    Args:
        tracks: A result, or tracks.
        video: The video they belong to; None takes that of the result.
        path: File, or folder for davis; replaced if it is there.
        format: A key of `FORMATS`.

    Raises:
        OptionError: No such format, or no video.
        OutputError: The tracks do not fit the format, or it cannot be written; nothing of it is left behind.
    """
    if isinstance(tracks, TrackingResult):
        video = video or tracks.video
        tracks = tracks.tracks
    if video is None:
        raise OptionError("video = None: must be given with plain tracks")
    _format(format).write(Path(path).expanduser(), tracks, video)


def import_tracks(path: str | Path, format: str | None = None, *, video: VideoInfo | None = None) -> tuple[Track, ...]:
    """Read tracks in one of the `FORMATS`, sorted by id.

    Args:
        path: File, or folder for davis.
        format: A key of `FORMATS`; None guesses from the path.
        video: The video they belong to; says the frame size where the file does not, and is checked against the masks.

    Raises:
        OptionError: No such format.
        TrackFileError: The file cannot be used, or holds masks of another frame size than the video's.
    """
    location = Path(path).expanduser()
    tracks = _format(format or guess_format(location)).read(location, video)
    if video is not None:
        _check_size(tracks, video, path)
    return tracks


def _check_size(tracks: Sequence[Track], video: VideoInfo, path: str | Path) -> None:
    sizes = {(rle.width_px, rle.height_px) for t in tracks for rle in (t.masks or ())[:1]}
    for width, height in sizes - {(video.width_px, video.height_px)}:
        raise TrackFileError(
            f"{path}: masks are {width}x{height}, the video is {video.width_px}x{video.height_px}: "
            f"they belong to another video"
        )
