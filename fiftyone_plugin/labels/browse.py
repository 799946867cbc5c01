"""What a person can look at: the fields this plugin wrote, the videos with most to review, tracks on a few frames.

Everything in here is a query whose cost does not grow with the length of a video. Knows nothing of pictures or panels.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from fiftyone import ViewField
from fiftyone.core.stages import GroupBy

from fiftyone_plugin.labels.conversion import tracks_of
from fiftyone_plugin.labels.events import EventKind
from fiftyone_plugin.labels.media import collection_of, dataset_of, frame_size_px, is_group
from fiftyone_plugin.labels.ownership import METHOD, events_field, labels_path
from fiftyone_plugin.types import Track

__all__ = ["own_fields", "read_tracks_at", "target_of", "targets_to_review"]


def own_fields(dataset: Any) -> tuple[str, ...]:
    """Label fields that this plugin wrote: those with most doubts first, then those with most repairs, then by name."""
    fields = {dataset.get_run_info(key).config.field for key in dataset.list_runs(method=METHOD)}
    there = [field for field in fields if dataset.has_field(labels_path(dataset, field))]
    return tuple(sorted(there, key=lambda field: (*_worth_a_look(dataset, field), field)))


def _worth_a_look(dataset: Any, field: str) -> tuple[int, int]:
    """Minus the number of doubts, and of repairs, in all videos of a field."""
    path = _labels_of_events(dataset, field)
    counts = {} if path is None else dataset.count_values(path)
    quiet = (EventKind.NEEDS_REVIEW, EventKind.BIRTH, EventKind.LOSS)
    repairs = sum(count for label, count in counts.items() if label not in quiet)
    return -counts.get(str(EventKind.NEEDS_REVIEW), 0), -repairs


def _labels_of_events(dataset: Any, field: str) -> str | None:
    events = dataset.get_field(events_field(field))
    if events is None:
        return None
    return f"{events.name}.{'detections' if 'detections' in events.document_type._fields else 'classifications'}.label"


def targets_to_review(view: Any, field: str, *, limit: int) -> list[tuple[str, str]]:
    """The videos, or image sequences, of a view that have tracks in a field; those with most doubts first.

    Args:
        view: A dataset or view.
        field: Name of a label field of this plugin, without ``frames.``.
        limit: Largest number that is returned.

    Returns:
        Pairs of the target's id and what a person calls it, with the number of doubts where there are any.
    """
    dataset = view._root_dataset
    keys = [key for key in dataset.list_runs(method=METHOD) if dataset.get_run_info(key).config.field == field]
    started = {target for key in keys for target in dataset.get_run_info(key).config.started}
    path = _labels_of_events(dataset, field)
    if path is None or not started:
        return []
    # Of an image sequence, the id is that of the first image; its doubts lie on other images, and are not counted.
    found = dataset.select(list(started & set(view.values("id")) if not view._is_dynamic_groups else started))
    rows = zip(*found.values(["id", "filepath", path]), strict=True)
    counted = [(sample_id, file, (labels or []).count(str(EventKind.NEEDS_REVIEW))) for sample_id, file, labels in rows]
    counted.sort(key=lambda row: (-row[2], row[1]))
    is_video = dataset.media_type == "video"
    return [
        (sample_id, f"{_short(file, is_video)}{f' ({doubts} to review)' if doubts else ''}")
        for sample_id, file, doubts in counted[:limit]
    ]


def _short(path: str, is_video: bool) -> str:
    parts = path.replace("\\", "/").rsplit("/", 2)
    return parts[-1] if is_video else parts[-2]


def target_of(view: Any, sample_id: str) -> Any | None:
    """The target that a sample stands for: the video itself, or the sequence of an image, as the view groups it.

    Returns:
        What `labels.targets` would yield; None where the sample is neither a video nor in an ordered group.
    """
    dataset = view._root_dataset
    sample = dataset[sample_id]
    if sample.media_type == "video":
        return sample
    groupings = [stage for stage in view._all_stages if isinstance(stage, GroupBy) and stage.order_by]
    if not groupings:
        return None
    by = groupings[-1]
    return dataset.group_by(by.field_or_expr, order_by=by.order_by).get_dynamic_group(sample[by.field_or_expr])


def read_tracks_at(
    target: Any, field: str, frame_indices: Iterable[int], *, track_ids: Collection[int] | None = None
) -> tuple[Track, ...]:
    """The tracks of a field on chosen frames only, as they are in the database now.

    Args:
        target: A video sample of a dataset, or the view of one image sequence.
        field: Name of the label field, without ``frames.``; its detections must have an `index`.
        frame_indices: 0-based; frames that do not exist are passed over.
        track_ids: Only these; all by default.

    Returns:
        Tracks whose `frame_indices` are those of the frames asked for on which they are.
    """
    wanted = sorted(set(frame_indices))
    collection, items = collection_of(target), f"{labels_path(dataset_of(target), field)}.detections"
    if is_group(target):
        ids = collection.values("id")
        wanted = [index for index in wanted if 0 <= index < len(ids)]
        found = collection.select([ids[index] for index in wanted], ordered=True).values(items) if wanted else []
        frames = list(zip(wanted, found, strict=True))
    else:
        view = collection.match_frames(ViewField("frame_number").is_in([index + 1 for index in wanted]))
        numbers, found = view.values(["frames[].frame_number", items])
        frames = [(number - 1, here) for number, here in zip(numbers, found[0], strict=True)] if found else []
    shown = [
        (index, [label for label in here if track_ids is None or label.index in track_ids])
        for index, here in frames
        if here
    ]
    width_px, height_px = frame_size_px(target)
    return tracks_of(shown, height_px=height_px, width_px=width_px)
