"""Tracks to FiftyOne labels and back: the only part of the library that imports FiftyOne.

Knows nothing of models. Importing this package imports FiftyOne, so the rest of the library imports it only where a
dataset is at hand. FiftyOne's frame numbers are 1-based, our frame indices 0-based; the shift happens in here.

`media` finds what can be tracked in a dataset, `conversion` turns tracks into detections and back, `events` says what
happened to the tracks, `ownership` guards the labels of others, `storage` writes and reads.
"""

from __future__ import annotations

from fiftyone_plugin.labels.events import Event, as_plain, events_of, summary_of
from fiftyone_plugin.labels.media import (
    FrameCount,
    count_frames,
    dataset_of,
    describe,
    load_dataset,
    open_group,
    open_sample,
    open_target,
    sources,
    target_id,
    targets,
    video_target,
)
from fiftyone_plugin.labels.ownership import (
    FieldState,
    default_run_key,
    events_field,
    field_state,
    measured_seconds_per_frame,
    require_writable,
)
from fiftyone_plugin.labels.storage import color_by_instance, read_summary, read_tracks, write_tracks

__all__ = [
    "Event",
    "FieldState",
    "FrameCount",
    "as_plain",
    "color_by_instance",
    "count_frames",
    "dataset_of",
    "default_run_key",
    "describe",
    "events_field",
    "events_of",
    "field_state",
    "load_dataset",
    "measured_seconds_per_frame",
    "open_group",
    "open_sample",
    "open_target",
    "read_summary",
    "read_tracks",
    "require_writable",
    "sources",
    "summary_of",
    "target_id",
    "targets",
    "video_target",
    "write_tracks",
]
