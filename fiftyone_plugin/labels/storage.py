"""Writes tracks as labels of a dataset, in chunks, and reads them back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any

import fiftyone as fo
from mongoengine.errors import OperationError
from pymongo.errors import BulkWriteError, PyMongoError

from fiftyone_plugin.errors import FieldConflictError, OutputError, TrackFileError
from fiftyone_plugin.identity.constraints import Constraint, as_dict, from_dict
from fiftyone_plugin.labels.conversion import detections_of, tracks_of
from fiftyone_plugin.labels.curation import write_stats
from fiftyone_plugin.labels.events import Event, as_plain, events_of_summary, frame_range, summary_of
from fiftyone_plugin.labels.journal import forget_edits, load_journal, save_lineage
from fiftyone_plugin.labels.lineage import lineage_of
from fiftyone_plugin.labels.media import collection_of, dataset_of, describe, frame_size_px, is_group, target_id
from fiftyone_plugin.labels.ownership import (
    claim,
    default_run_key,
    events_field,
    finish,
    labels_path,
    load_summaries,
    load_summary,
    require_writable,
)
from fiftyone_plugin.types import Track, TrackingResult

__all__ = [
    "classes_of",
    "color_by_instance",
    "read_constraints",
    "read_summaries",
    "read_summary",
    "read_tracks",
    "write_events",
    "write_tracks",
]

CHUNK_FRAMES = 200
"""Frames written at once: bounds the memory that dense masks take, at no measurable cost in time."""


def write_tracks(
    target: Any,
    field: str,
    result: TrackingResult,
    *,
    run_key: str | None = None,
    overwrite: bool = False,
    is_complete: bool = True,
) -> None:
    """Write the tracks of a result as labels, its events, and its summary into the run of the field.

    Labels of others are never touched, nor are those of other videos. A video that was not written completely may be
    written again without `overwrite`.

    Args:
        target: A video sample of a dataset, or the view of one image sequence.
        field: Name of the label field, without ``frames.``.
        result: Tracks on the frames of this target.
        run_key: The run that owns the field; `default_run_key` unless given.
        overwrite: Replace what an earlier run with this key wrote for this target.
        is_complete: False for a run that was stopped in the middle of the video.

    Raises:
        FieldConflictError: The field is not ours, or is finished for this target and `overwrite` was not given.
        OptionError: It cannot be the name of a field.
        OutputError: The database refused; what was written so far is ours and may be written again.
    """
    dataset, key = dataset_of(target), target_id(target)
    state = require_writable(dataset, field, [key], run_key=run_key, overwrite=overwrite)
    collection = collection_of(target)
    path = labels_path(dataset, state.field)
    if state.exists and key not in state.started:
        _require_unlabelled(collection, path, describe(target))
    with _database_errors(f"tracks of {describe(target)}"):
        claim(dataset, state, key, result.settings, is_video=not is_group(target))
        if key in state.started:
            _clear(collection, path, events_field(state.field))
        _write_detections(target, collection, path, result, instances_of(result, state.field))
        # What a person said of an earlier run still holds; the labels that it was said of are gone.
        summary = {**summary_of(result), "constraints": [as_dict(c) for c in read_constraints(target, field, key)]}
        forget_edits(target, state.field)
        save_lineage(target, state.field, lineage_of(result))
        write_events(target, state.field, events_of_summary(summary))
        write_stats(target, state.field, summary)
        finish(dataset, state, key, summary, is_complete=is_complete)


def read_tracks(target: Any, field: str) -> tuple[Track, ...]:
    """Read tracks from a label field: ours, or detections of anybody that have an `index` or an `instance`.

    What `write_tracks` wrote comes back exactly: ids, frames, masks, and boxes and scores to float32.

    Args:
        target: A video sample of a dataset, or the view of one image sequence.
        field: Name of the label field, without ``frames.``.

    Raises:
        TrackFileError: There is no such field of detections, or its detections have no identity.
        VideoError: The size of the frames is in no metadata, and the video cannot be opened.
    """
    dataset = dataset_of(target)
    path = labels_path(dataset, field)
    if not _holds_detections(dataset.get_field(path)):
        schema = dataset.get_frame_field_schema() or dataset.get_field_schema()
        known = [name for name, found in schema.items() if _holds_detections(found)]
        raise TrackFileError(
            f"dataset {dataset.name!r} has no detections in {path!r}; it has them in {', '.join(known) or 'no field'}"
        )
    summary = read_summary(target, field)
    width_px, height_px = frame_size_px(target) if summary is None else (summary["width_px"], summary["height_px"])
    collection, items = collection_of(target), f"{path}.detections"
    if is_group(target):
        frames: Iterator[tuple[int, Any]] = enumerate(collection.values(items))
    else:
        numbers, found = collection.values(["frames[].frame_number", items])
        frames = ((number - 1, labels) for number, labels in zip(numbers, found[0], strict=True))
    return tracks_of(((index, labels) for index, labels in frames if labels), height_px=height_px, width_px=width_px)


def classes_of(dataset_or_view: Any, field: str) -> tuple[str, ...]:
    """The classes of the labels in a field, as they are written there; none where it holds no detections."""
    dataset = dataset_or_view._dataset
    path = labels_path(dataset, field)
    if not _holds_detections(dataset.get_field(path)):
        return ()
    return tuple(dataset_or_view.distinct(f"{path}.detections.label"))


def read_summary(target: Any, field: str, *, run_key: str | None = None) -> dict[str, Any] | None:
    """The summary that the field's run keeps of a target (see `summary_of`), or None."""
    key = run_key or default_run_key(field.removeprefix("frames."))
    return load_summary(dataset_of(target), key, target_id(target))


def read_summaries(targets: Sequence[Any], field: str) -> Iterator[dict[str, Any] | None]:
    """The summaries of several targets of one dataset, in their order; read in one go."""
    if targets:
        key = default_run_key(field.removeprefix("frames."))
        yield from load_summaries(dataset_of(targets[0]), key, map(target_id, targets))


def read_constraints(target: Any, field: str, target_key: str | None = None) -> tuple[Constraint, ...]:
    """What a person said about the identities in a field of ours, in all edits that were not undone, oldest first.

    Args:
        target: A video sample of a dataset, or the view of one image sequence.
        field: Name of the label field, without ``frames.``.
        target_key: The target's id, where it is known already.
    """
    name = field.removeprefix("frames.")
    key = target_key or target_id(target)
    summary = load_summary(dataset_of(target), default_run_key(name), key) or {}
    said = [constraint for entry in load_journal(target, name).done for constraint in entry.constraints]
    return tuple(from_dict(plain) for plain in (*summary.get("constraints", ()), *said))


def color_by_instance(dataset: Any) -> None:
    """Make the App give every track its own colour; without it all labels of a field have one."""
    scheme = dataset.app_config.color_scheme or fo.ColorScheme()
    scheme.color_by = "instance"
    dataset.app_config.color_scheme = scheme
    dataset.save()


def _holds_detections(field: Any) -> bool:
    return getattr(field, "document_type", None) is fo.Detections


def _require_unlabelled(collection: Any, path: str, name: str) -> None:
    found = collection.count(f"{path}.detections")
    if found:
        raise FieldConflictError(
            f"{name}: field {path!r} holds {found} labels there that this run did not write; labels of others are "
            "never overwritten: give another field name"
        )


def _clear(collection: Any, path: str, events: str) -> None:
    if path.startswith("frames."):
        collection.clear_frame_field(path.removeprefix("frames."))
    else:
        collection.clear_sample_field(path)
    collection.clear_sample_field(events)


def instances_of(result: TrackingResult, field: str) -> dict[int, Any]:
    """One `fo.Instance` per track id; its id follows from the video, the field, the settings and the track.

    So a run that was cut short and went on later has the very labels of one that was not.
    """
    run = json.dumps([result.video.source, field, as_plain(result.settings)], sort_keys=True)
    return {
        track.track_id: fo.Instance(id=blake2b(f"{run}{track.track_id}".encode(), digest_size=12).hexdigest())
        for track in result.tracks
    }


def _write_detections(
    target: Any, collection: Any, path: str, result: TrackingResult, instances: Mapping[int, Any]
) -> None:
    start, stop = frame_range(result)
    sample_ids: Sequence[str] = collection.values("id")
    for chunk_start in range(start, stop, CHUNK_FRAMES):
        labels = detections_of(
            result.tracks,
            instances,
            start=chunk_start,
            stop=min(chunk_start + CHUNK_FRAMES, stop),
            height_px=result.video.height_px,
            width_px=result.video.width_px,
        )
        if is_group(target):
            values = {sample_ids[index]: found for index, found in labels.items()}
        else:
            values = {sample_ids[0]: {index + 1: found for index, found in labels.items()}}
        # The schema was declared when the fields were made; validating again doubles the time.
        collection.set_values(path, values, key_field="id", validate=False, dynamic=False, expand_schema=False)


def write_events(target: Any, field: str, events: Sequence[Event]) -> None:
    """Replace the events of a target; the same events get the same ids again."""
    collection, path = collection_of(target), events_field(field)
    sample_ids: Sequence[str] = collection.values("id")
    if not is_group(target):
        marks = [
            _mark(fo.TemporalDetection, event, sample_ids[0], path, support=[event.start + 1, event.stop])
            for event in events
        ]
        collection.set_values(path, {sample_ids[0]: fo.TemporalDetections(detections=marks)}, key_field="id")
        return
    # An image has no timeline: each carries what happens on it, so that the sidebar can filter for it.
    values: dict[str, list[Any]] = {}
    for event in events:
        for sample_id in sample_ids[event.start : event.stop]:
            values.setdefault(sample_id, []).append(_mark(fo.Classification, event, sample_id, path))
    collection.clear_sample_field(path)
    if values:
        marks_by_id = {sample_id: fo.Classifications(classifications=marks) for sample_id, marks in values.items()}
        collection.set_values(path, marks_by_id, key_field="id")


def _mark(kind: Any, event: Event, sample_id: str, path: str, **position: Any) -> Any:
    place = (event.start, event.stop, *event.track_ids, event.encounter_id, event.repair_id)
    # Named by what it says, so that an edit that is taken back leaves the very labels that were there before.
    name = blake2b(f"{sample_id}/{path}/{event.kind}/{place}".encode(), digest_size=12).hexdigest()
    return kind(
        id=name,
        label=str(event.kind),
        confidence=event.confidence,
        track_ids=list(event.track_ids),
        decision=None if event.decision is None else str(event.decision),
        margin=event.margin,
        reason=event.reason,
        encounter_id=event.encounter_id,
        repair_id=event.repair_id,
        review=event.review,
        **position,
    )


@contextmanager
def _database_errors(what: str) -> Iterator[None]:
    try:
        yield
    except (PyMongoError, OperationError, ValueError) as error:
        # FiftyOne turns a failed bulk write into a ValueError; any other is a bug of ours.
        if isinstance(error, ValueError) and not isinstance(error.__cause__, BulkWriteError):
            raise
        raise OutputError(
            f"{what}: the database refused ({error}); free some space or check it, then run again"
        ) from error
