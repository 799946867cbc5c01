"""What can be tracked in a dataset: video samples, and image sequences (ordered dynamic groups).

A *target* is one of them: a video sample, or the view of one group. Knows nothing of labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import fiftyone as fo
from fiftyone.core.stages import GroupBy

from fiftyone_plugin.errors import VideoError
from fiftyone_plugin.interfaces import FrameSource
from fiftyone_plugin.types import VideoInfo
from fiftyone_plugin.video import ImageSequenceSource, open_source

__all__ = [
    "FrameCount",
    "collection_of",
    "count_frames",
    "dataset_of",
    "describe",
    "frame_size_px",
    "is_group",
    "load_dataset",
    "open_group",
    "open_sample",
    "open_target",
    "sources",
    "target_id",
    "targets",
    "video_target",
]

PROBED_TARGETS = 5
"""So many videos without metadata, or sequences, `count_frames` looks into; the others are taken to be as long."""


@dataclass(frozen=True, slots=True)
class FrameCount:
    """How much there is to track."""

    targets: int
    frames: int
    is_estimate: bool
    """True where some lengths are not in the metadata and were inferred from others."""


def load_dataset(name: str) -> Any:
    """The dataset of this name.

    Raises:
        VideoError: There is none.
    """
    if not fo.dataset_exists(name):
        known = fo.list_datasets()
        raise VideoError(f"no dataset {name!r}: must be one of {', '.join(known) or '(there is none yet)'}")
    return fo.load_dataset(name)


def video_target(name: str, path: Path, *, info: VideoInfo) -> Any:
    """The sample of a video file in a persistent dataset; both are made if they are not there.

    Args:
        name: Of the dataset.
        path: The video file.
        info: Of its source, for the metadata: FiftyOne would open the file once more.

    Raises:
        VideoError: The source is no video file, or the dataset holds no videos.
    """
    if not path.is_file():
        raise VideoError(f"{path}: is no video file; make an image dataset of the folder and give dataset:NAME instead")
    exists = fo.dataset_exists(name)
    dataset = fo.load_dataset(name) if exists else fo.Dataset(name, persistent=True)
    if dataset.media_type not in (None, fo.core.media.VIDEO):
        raise VideoError(f"dataset {name!r}: holds {dataset.media_type}s, not videos; give another name")
    filepath = str(path.expanduser().resolve())
    found = dataset.match(fo.ViewField("filepath") == filepath).values("id") if len(dataset) else []
    if found:
        return dataset[found[0]]
    sample = fo.Sample(
        filepath=filepath,
        metadata=fo.VideoMetadata(
            size_bytes=path.stat().st_size,
            frame_width=info.width_px,
            frame_height=info.height_px,
            frame_rate=info.frames_per_second,
            total_frame_count=info.frame_count,
            duration=info.frame_count / info.frames_per_second if info.frames_per_second else None,
        ),
    )
    dataset.add_sample(sample)
    return dataset[sample.id]


def targets(collection: Any) -> Iterator[Any]:
    """Yield the targets of a dataset or view: video samples, or one view per image sequence.

    No database cursor stays open between two of them, however long the work on one takes.

    Raises:
        VideoError: There is nothing in it that can be tracked; the message says what to do.
    """
    if _has_sequences(collection):
        yield from collection.iter_dynamic_groups()
        return
    dataset = collection._root_dataset
    for sample_id in collection.values("id"):
        yield dataset[sample_id]


def sources(collection: Any) -> Iterator[tuple[Any, FrameSource]]:
    """Yield every target with its opened source; the first one that cannot be opened ends it.

    Raises:
        VideoError: Nothing to track, or a source that cannot be read.
    """
    for target in targets(collection):
        yield target, open_target(target)


def open_target(target: Any) -> FrameSource:
    """Open a video sample or an image sequence."""
    return open_group(target) if is_group(target) else open_sample(target)


def open_sample(sample: Any) -> FrameSource:
    """Open the file of a video sample.

    Raises:
        VideoError: It is not a video, or cannot be read.
    """
    if sample.media_type != fo.core.media.VIDEO:
        raise VideoError(f"{sample.filepath}: is not a video sample but {sample.media_type!r}; give a video sample")
    return open_source(sample.filepath)


def open_group(group: Any) -> FrameSource:
    """Open an image sequence: the view of one ordered dynamic group, in its order.

    The frame rate is the dataset's `app_config.dynamic_groups_target_frame_rate`, as the App plays it.

    Raises:
        VideoError: The view is empty or an image cannot be read.
    """
    paths = group.values("filepath")
    if not paths:
        raise VideoError(f"an image sequence of dataset {group.dataset_name!r} is empty: give one with images")
    rate = float(dataset_of(group).app_config.dynamic_groups_target_frame_rate)
    return ImageSequenceSource(paths, frames_per_second=rate)


def count_frames(collection: Any) -> FrameCount:
    """How many targets and frames a dataset or view holds, from metadata where it is there.

    Raises:
        VideoError: There is nothing in it that can be tracked.
    """
    if _has_sequences(collection):
        groups = islice(collection.iter_dynamic_groups(), PROBED_TARGETS)
        return _extrapolate([len(group) for group in groups], total=len(collection))
    paths, counts = collection.values(["filepath", "metadata.total_frame_count"])
    known = [count for count in counts if count]
    missing = [path for path, count in zip(paths, counts, strict=True) if not count]
    for path in missing[:PROBED_TARGETS]:
        try:
            known.append(open_source(path).info.frame_count)
        except VideoError:
            continue  # it is reported when its turn comes
    return _extrapolate(known, total=len(paths))


def _extrapolate(lengths: list[int], *, total: int) -> FrameCount:
    average = sum(lengths) / len(lengths) if lengths else 0.0
    is_estimate = len(lengths) < total
    return FrameCount(total, round(average * total) if is_estimate else sum(lengths), is_estimate)


def is_group(target: Any) -> bool:
    """Whether the target is an image sequence."""
    return isinstance(target, fo.DatasetView)


def dataset_of(target: Any) -> Any:
    """The dataset a target lies in.

    Raises:
        VideoError: The sample was never added to a dataset.
    """
    dataset = target._root_dataset if is_group(target) else target.dataset
    if dataset is None:
        raise VideoError(f"{target.filepath}: is in no dataset yet; add the sample to one first")
    return dataset


def collection_of(target: Any) -> Any:
    """A collection that holds exactly the target's samples, unfiltered, whose values can be read and set."""
    dataset = dataset_of(target)
    if is_group(target):
        return dataset.select(target.values("id"), ordered=True)
    if dataset.media_type == fo.core.media.GROUP:
        dataset = dataset.select_group_slices(target.group.name)
    return dataset.select(target.id)


def target_id(target: Any) -> str:
    """The id that stands for a target: the sample's, or that of a sequence's first image."""
    return str(target.first().id if is_group(target) else target.id)


def describe(target: Any) -> str:
    """What a person calls a target: the file, or the folder of a sequence's first image."""
    return str(Path(target.first().filepath).parent if is_group(target) else target.filepath)


def frame_size_px(target: Any) -> tuple[int, int]:
    """Width and height of the target's frames, from the metadata if it is there, else from the file."""
    metadata = (target.first() if is_group(target) else target).metadata
    names = ("width", "height") if is_group(target) else ("frame_width", "frame_height")
    width, height = (getattr(metadata, name, None) for name in names)
    if width and height:
        return int(width), int(height)
    info = open_target(target).info
    return info.width_px, info.height_px


def _has_sequences(collection: Any) -> bool:
    """True for ordered dynamic groups of images, False for videos; raises `VideoError` for all else."""
    name = collection._root_dataset.name
    if collection._is_generated:
        raise VideoError(f"dataset {name!r}: a view of frames, patches or clips was given; give the videos themselves")
    if len(collection) == 0:
        raise VideoError(f"dataset {name!r}: nothing to track, the dataset or view is empty; add videos to it")
    if collection.media_type == fo.core.media.VIDEO:
        return False
    if collection._is_dynamic_groups:
        ordered = any(isinstance(s, GroupBy) and s.order_by for s in collection._all_stages)
        if collection._root_dataset.media_type == fo.core.media.IMAGE and ordered:
            return True
        raise VideoError(
            f"dataset {name!r}: its groups are not image sequences; group images with an order, such as "
            "dataset.group_by('scene', order_by='frame_number')"
        )
    if collection.media_type == fo.core.media.GROUP:
        raise VideoError(
            f"dataset {name!r}: is grouped; give one video slice of it, such as dataset.select_group_slices('left')"
        )
    raise VideoError(
        f"dataset {name!r}: holds {collection.media_type or 'nothing'}, not videos; give videos, or images grouped "
        "into sequences with dataset.group_by('scene', order_by='frame_number')"
    )
