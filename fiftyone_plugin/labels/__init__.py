"""Tracks to FiftyOne labels and back: the only part of the library that imports FiftyOne.

Knows nothing of models. Importing this package imports FiftyOne, so the rest of the library imports it only where a
dataset is at hand. FiftyOne's frame numbers are 1-based, our frame indices 0-based; the shift happens in here.

`media` finds what can be tracked in a dataset, `conversion` turns tracks into detections and back, `events` says what
happened to the tracks, `ownership` guards the labels of others, `storage` writes and reads, `fingerprint` tells whether
labels have changed, `field_report` says what runs concluded. `edits` is what a person changes (`desk`, `refill`,
`table`, `journal`, `lineage`, `undo_words` and `undone` are its parts), `review` what they should look at.
"""

from __future__ import annotations

from fiftyone_plugin.labels.curation import save_views
from fiftyone_plugin.labels.edits import (
    Edit,
    EditKind,
    accept,
    delete,
    history,
    lock,
    merge,
    redo,
    relabel,
    split,
    swap,
    undo,
    undo_repair,
)
from fiftyone_plugin.labels.evaluation import Evaluation, evaluate_field
from fiftyone_plugin.labels.events import Event, as_plain, events_of, summary_of
from fiftyone_plugin.labels.exchange import Exchanged, export_field, import_field
from fiftyone_plugin.labels.field_report import field_report
from fiftyone_plugin.labels.fingerprint import fingerprint
from fiftyone_plugin.labels.journal import history_note
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
from fiftyone_plugin.labels.prompts import has_prompts, object_prompts, prompt_fields
from fiftyone_plugin.labels.review import ReviewItem, review_items, review_progress
from fiftyone_plugin.labels.storage import (
    classes_of,
    color_by_instance,
    read_constraints,
    read_summaries,
    read_summary,
    read_tracks,
    write_tracks,
)

__all__ = [
    "Edit",
    "EditKind",
    "Evaluation",
    "Event",
    "Exchanged",
    "FieldState",
    "FrameCount",
    "ReviewItem",
    "accept",
    "as_plain",
    "classes_of",
    "color_by_instance",
    "count_frames",
    "dataset_of",
    "default_run_key",
    "delete",
    "describe",
    "evaluate_field",
    "events_field",
    "events_of",
    "export_field",
    "field_report",
    "field_state",
    "fingerprint",
    "has_prompts",
    "history",
    "history_note",
    "import_field",
    "load_dataset",
    "lock",
    "measured_seconds_per_frame",
    "merge",
    "object_prompts",
    "open_group",
    "open_sample",
    "open_target",
    "prompt_fields",
    "read_constraints",
    "read_summaries",
    "read_summary",
    "read_tracks",
    "redo",
    "relabel",
    "require_writable",
    "review_items",
    "review_progress",
    "save_views",
    "sources",
    "split",
    "summary_of",
    "swap",
    "target_id",
    "targets",
    "undo",
    "undo_repair",
    "video_target",
    "write_tracks",
]
