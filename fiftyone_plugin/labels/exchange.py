"""Tracks of a dataset to files and back: one file or folder per video, in the formats of `exporters`.

Files are named after the videos, so that a folder written here is read back by the same names. What is read becomes a
field of ours, with a run like any other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fiftyone_plugin import __version__, exporters
from fiftyone_plugin.errors import InputError, OptionError, OutputError, TrackFileError
from fiftyone_plugin.labels.media import dataset_of, describe, frame_size_px, is_group, open_target, target_id, targets
from fiftyone_plugin.labels.ownership import require_writable
from fiftyone_plugin.labels.storage import read_tracks, write_tracks
from fiftyone_plugin.types import TrackingResult, VideoInfo

__all__ = ["Exchanged", "export_field", "file_names", "import_field"]


@dataclass(frozen=True, slots=True)
class Exchanged:
    """What was written or read of one video."""

    video: str
    path: str
    tracks: int
    error: str = ""
    """One line; empty if it worked."""


def file_names(collection: Any, format: str) -> dict[str, str]:
    """Name of the file, or folder, of every target by its id: as the video is called, numbered where two share a name.

    Raises:
        OptionError: No such format.
        VideoError: There is nothing to track in the collection.
    """
    if format not in exporters.FORMATS:
        raise OptionError(f"format {format!r}: must be one of {', '.join(exporters.FORMATS)}")
    found = [(target_id(target), _stem(target)) for target in targets(collection)]
    shared = Counter(stem for _, stem in found)
    given: Counter[str] = Counter()
    names = {}
    for key, stem in found:
        given[stem] += 1
        number = f"_{given[stem]}" if shared[stem] > 1 else ""
        names[key] = f"{stem}{number}{exporters.FORMATS[format].suffix}"
    return names


def _stem(target: Any) -> str:
    path = Path(describe(target))
    return path.name if is_group(target) else path.stem


def export_field(
    collection: Any, field: str, folder: str | Path, format: str, *, on_video: Callable[[int, int], None] | None = None
) -> tuple[Exchanged, ...]:
    """Write the tracks of every video of a collection.

    Args:
        collection: A dataset or view.
        field: With detections that have an `index` or an `instance`; of anybody.
        folder: Made if it is not there; files of the same names are replaced.
        format: A key of `exporters.FORMATS`.
        on_video: Called with the number of the video, from 1, and how many there are.

    Returns:
        One entry per video; those without tracks are left out.

    Raises:
        OptionError: No such format.
        VideoError: There is nothing in the collection.
        OutputError: The folder cannot be written to.
    """
    names = file_names(collection, format)
    place = Path(folder).expanduser()
    exporters.check_writable(place)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{place}: cannot be made ({error.strerror}): give another folder") from None
    outcomes = []
    for number, target in enumerate(targets(collection), start=1):
        if on_video is not None:
            on_video(number, len(names))
        path = place / names[target_id(target)]
        try:
            tracks = read_tracks(target, field)
            if tracks:
                exporters.export_tracks(tracks, _info(target), path, format)
                outcomes.append(Exchanged(describe(target), str(path), len(tracks)))
        except InputError as error:
            outcomes.append(Exchanged(describe(target), str(path), 0, str(error)))
    return tuple(outcomes)


def import_field(
    collection: Any,
    source: str | Path,
    field: str,
    *,
    format: str | None = None,
    overwrite: bool = False,
    on_video: Callable[[int, int], None] | None = None,
) -> tuple[Exchanged, ...]:
    """Read tracks into a field of ours.

    Args:
        collection: A dataset or view.
        source: A file, for a collection of one video; or a folder that holds one per video, named after it.
        field: To be written; labels of others are never touched.
        format: A key of `exporters.FORMATS`; by default told from each name.
        overwrite: Replace what this plugin wrote to the field before.
        on_video: Called with the number of the video, from 1, and how many there are.

    Returns:
        One entry per video that has a file.

    Raises:
        FieldConflictError: The field is not ours, or holds tracks and `overwrite` was not given.
        TrackFileError: There is no such file, or none for any of the videos.
        VideoError: There is nothing in the collection.
    """
    found = list(targets(collection))
    paths = _paths(collection, found, Path(source).expanduser(), format)
    require_writable(dataset_of(found[0]), field, paths, overwrite=overwrite)
    outcomes = []
    chosen = [target for target in found if target_id(target) in paths]
    for number, target in enumerate(chosen, start=1):
        if on_video is not None:
            on_video(number, len(chosen))
        path = paths[target_id(target)]
        try:
            video = open_target(target).info
            tracks = exporters.import_tracks(path, format, video=video)
            last = max((int(t.frame_indices[-1]) for t in tracks if len(t)), default=-1)
            if last >= video.frame_count:
                raise TrackFileError(
                    f"{path}: reaches frame {last + 1}, but {describe(target)} has {video.frame_count} frames: "
                    "give the tracks of this video"
                )
            settings = {"prompt": "", "imported_from": str(path), "shepherd": __version__}
            result = TrackingResult(video, tracks, frames_processed=video.frame_count, settings=settings)
            write_tracks(target, field, result, overwrite=overwrite)
            outcomes.append(Exchanged(describe(target), str(path), len(tracks)))
        except InputError as error:
            outcomes.append(Exchanged(describe(target), str(path), 0, str(error)))
    return tuple(outcomes)


def _paths(collection: Any, found: Sequence[Any], source: Path, format: str | None) -> dict[str, Path]:
    """The file, or folder of masks, of every target that has one."""
    if not source.exists():
        raise TrackFileError(f"{source}: there is no such file or folder")
    kinds = [format] if format is not None else list(exporters.FORMATS)
    if source.is_dir():
        paths: dict[str, Path] = {}
        for kind in kinds:
            for key, name in file_names(collection, kind).items():
                if (source / name).exists():
                    paths.setdefault(key, source / name)
        if paths:
            return paths
    if len(found) == 1:
        return {target_id(found[0]): source}
    example = next(iter(file_names(collection, kinds[0]).values()))
    raise TrackFileError(
        f"{source}: holds a file for none of the {len(found)} videos: name them as the videos are named, such as "
        f"{example}, or choose one video"
    )


def _info(target: Any) -> VideoInfo:
    """Of a target, from metadata where it is there; the frames are not opened unless they must be."""
    metadata = None if is_group(target) else target.metadata
    count = getattr(metadata, "total_frame_count", None)
    if not count:
        return open_target(target).info
    width_px, height_px = frame_size_px(target)
    rate = float(np.nan_to_num(getattr(metadata, "frame_rate", None) or 0.0))
    return VideoInfo(describe(target), width_px, height_px, int(count), rate)
