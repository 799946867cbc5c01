"""Whose labels are in a field: ours are marked and recorded, those of others are never touched.

A field is ours when its own `info` names the run that made it *and* that run is still registered with the dataset. The
mark dies with the field, so a field that somebody makes later under the same name is not taken for ours. The run is
registered before the first label is written, so an interrupted write stays ours too.

One process writes to a field at a time; the record of a run is read, changed and written back.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Any

import fiftyone as fo
from pymongo.errors import PyMongoError

from fiftyone_plugin.errors import FieldConflictError, OptionError
from fiftyone_plugin.labels.events import as_plain

__all__ = [
    "FieldState",
    "claim",
    "default_run_key",
    "events_field",
    "field_state",
    "finish",
    "labels_path",
    "load_summaries",
    "load_summary",
    "make_sortable",
    "measured_seconds_per_frame",
    "require_writable",
    "save_summary",
    "stats_field",
]

METHOD = "shepherd"
MARK = "shepherd_run"
"""Key in a field's `info` whose value is the run that made it."""

RESERVED = frozenset(
    {"id", "filepath", "tags", "metadata", "media_type", "group", "support", "created_at", "last_modified_at"}
    | {"frames", "frame_number", "sample_id"}
)
"""Fields with a meaning of their own in FiftyOne, on samples or on frames; some are made only when they are needed."""

DETECTION_ATTRIBUTES: Mapping[str, Any] = {
    "source": fo.StringField,
    "mask_score": fo.FloatField,
    "identity_confidence": fo.FloatField,
}
EVENT_ATTRIBUTES: Mapping[str, Any] = {
    "decision": fo.StringField,
    "margin": fo.FloatField,
    "reason": fo.StringField,
    "encounter_id": fo.IntField,
    "repair_id": fo.IntField,
    "review": fo.StringField,
}


STATS: Mapping[str, Any] = {
    "tracks": fo.IntField,
    "repairs": fo.IntField,
    "returns": fo.IntField,
    "needs_review": fo.IntField,
    "reviewed": fo.IntField,
    "min_identity_confidence": fo.FloatField,
}


SORTED_STATS = ("needs_review", "repairs", "min_identity_confidence")
"""Those that the App can sort by. Each takes an index, and a collection of MongoDB has at most 64."""


@dataclass(frozen=True, slots=True)
class FieldState:
    """What is known of a label field before something is written to it."""

    field: str
    run_key: str
    exists: bool
    """The field, or its events field, is in the dataset."""
    is_ours: bool
    """This plugin made all of what exists, under this run."""
    prompt: str | None = None
    """Of the run's last write, where the field is ours."""
    settings: Mapping[str, Any] = dataclass_field(default_factory=dict)
    """Likewise: `TrackingResult.settings`, so prompt, options and versions."""
    started: frozenset[str] = frozenset()
    """Ids of the targets that the run has begun to write."""
    finished: frozenset[str] = frozenset()
    """Ids of the targets that are completely written."""


def default_run_key(field: str) -> str:
    """The run that belongs to a field unless another is named."""
    return f"{METHOD}_{field}"


def events_field(field: str) -> str:
    """The sample field with the events of a label field."""
    return f"{field}_events"


def stats_field(field: str) -> str:
    """The sample field with the numbers of a label field: how many tracks, repairs, doubts."""
    return f"{field.removeprefix('frames.')}_stats"


def labels_path(dataset: Any, field: str) -> str:
    """Where the labels lie: ``frames.<field>`` in datasets with videos, else ``<field>``.

    Raises:
        OptionError: It cannot be the name of a field.
    """
    name = field.removeprefix("frames.")
    if not name.isidentifier() or name.startswith("_"):
        raise OptionError(f"field {field!r}: must be letters, digits and underscores, and begin with a letter")
    return f"frames.{name}" if dataset._contains_videos(any_slice=True) else name


def field_state(dataset: Any, field: str, *, run_key: str | None = None) -> FieldState:
    """Look at a field and its run, without changing anything.

    Raises:
        OptionError: It cannot be the name of a field.
        FieldConflictError: FiftyOne uses the name, or it holds something else of ours.
    """
    path = labels_path(dataset, field)
    name = path.removeprefix("frames.")
    if name in RESERVED:
        raise FieldConflictError(f"field {field!r}: is a name that FiftyOne uses itself; give another name")
    beside = dataset.get_field(name) if path != name else None
    if beside is not None and MARK in (beside.info or {}):
        raise FieldConflictError(f"field {field!r}: holds events or numbers of other tracks; give another name")
    key = run_key or default_run_key(name)
    existing = [found for found in map(dataset.get_field, (path, events_field(name))) if found is not None]
    stats = dataset.get_field(stats_field(name))
    is_marked = all((found.info or {}).get(MARK) == key for found in (*existing, stats) if found is not None)
    if not existing or not is_marked or not dataset.has_run(key):
        return FieldState(name, key, exists=bool(existing) or not is_marked, is_ours=False)
    config = dataset.get_run_info(key).config
    return FieldState(
        field=name,
        run_key=key,
        exists=True,
        is_ours=True,
        prompt=config.prompt,
        settings=json.loads(config.settings),
        started=frozenset(config.started),
        finished=frozenset(config.finished),
    )


def require_writable(
    dataset: Any, field: str, target_ids: Iterable[str], *, run_key: str | None = None, overwrite: bool = False
) -> FieldState:
    """Make sure that nothing of others, and nothing finished unless asked, would be overwritten.

    Raises:
        FieldConflictError: The field is not ours, or it is finished for one of the targets and `overwrite` is False.
        OptionError: It cannot be the name of a field.
    """
    state = field_state(dataset, field, run_key=run_key)
    if state.exists and not state.is_ours:
        raise FieldConflictError(
            f"field {state.field!r} (or {events_field(state.field)!r}, {stats_field(state.field)!r}) of dataset "
            f"{dataset.name!r} exists and was not made by this run; labels of others are never overwritten: give "
            "another field name"
        )
    done = state.finished.intersection(target_ids)
    if done and not overwrite:
        raise FieldConflictError(
            f"field {state.field!r} of dataset {dataset.name!r} already holds tracks of {len(done)} of these videos "
            f"(prompt {state.prompt!r}): give overwrite=True to replace them, or another field name"
        )
    return state


def claim(dataset: Any, state: FieldState, target_id: str, settings: Mapping[str, Any], *, is_video: bool) -> None:
    """Record that a target is about to be written, and make the fields if they are missing."""
    _register(dataset, state, target_id, settings)
    mark = {"info": {MARK: state.run_key}}
    add = dataset.add_frame_field if is_video else dataset.add_sample_field
    about = "Tracks with masks by Shepherd; one index and one instance per object"
    add(state.field, fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections, description=about, **mark)
    for name, kind in DETECTION_ATTRIBUTES.items():
        add(f"{state.field}.detections.{name}", kind)
    add(f"{state.field}.detections.instance", fo.EmbeddedDocumentField, embedded_doc_type=fo.Instance)

    events, about = events_field(state.field), f"What happened to the tracks of {state.field!r}"
    kind, items = (fo.TemporalDetections, "detections") if is_video else (fo.Classifications, "classifications")
    dataset.add_sample_field(events, fo.EmbeddedDocumentField, embedded_doc_type=kind, description=about, **mark)
    for name, kind in EVENT_ATTRIBUTES.items():
        dataset.add_sample_field(f"{events}.{items}.{name}", kind)
    dataset.add_sample_field(f"{events}.{items}.track_ids", fo.ListField, subfield=fo.IntField)

    stats, about = stats_field(state.field), f"What became of the tracks of {state.field!r}, to filter and sort by"
    kind = fo.DynamicEmbeddedDocument
    dataset.add_sample_field(stats, fo.EmbeddedDocumentField, embedded_doc_type=kind, description=about, **mark)
    for name, kind in STATS.items():
        dataset.add_sample_field(f"{stats}.{name}", kind)
    if not state.is_ours:
        make_sortable(dataset, [f"{stats}.{name}" for name in SORTED_STATS])


def make_sortable(dataset: Any, paths: Iterable[str]) -> None:
    """Index sample fields: the App offers to sort by those that have an index, and by no others.

    Where the database has no room for more indexes, the fields can be filtered all the same.
    """
    with suppress(PyMongoError):
        for path in paths:
            dataset.create_index(path)


def _register(dataset: Any, state: FieldState, target_id: str, settings: Mapping[str, Any]) -> None:
    values = {
        "prompt": settings.get("prompt"),
        # As text, because keys that are fine in JSON ("$5 note") are not in a database document.
        "settings": json.dumps(as_plain(settings)),
        "started": sorted(state.started | {target_id}),
        "finished": sorted(state.finished - {target_id}),
    }
    if state.is_ours:
        _update(dataset, state.run_key, values)
        return
    if dataset.has_run(state.run_key):
        # Its fields are gone, and with them what it recorded.
        dataset.delete_run(state.run_key)
    about = {"field": state.field, "events_field": events_field(state.field)}
    config = dataset.init_run(**about, **values)
    config.method = METHOD
    dataset.register_run(state.run_key, config)


def finish(
    dataset: Any, state: FieldState, target_id: str, summary: Mapping[str, Any], *, is_complete: bool = True
) -> None:
    """Record the summary of a target, and that it is completely written unless the run was stopped in its middle."""
    if summary["frames"]:
        _update(dataset, state.run_key, {"seconds_per_frame": summary["seconds"] / summary["frames"]})
    save_summary(dataset, state.run_key, target_id, summary)
    if not is_complete:
        return
    config = dataset.get_run_info(state.run_key).config
    _update(dataset, state.run_key, {"finished": sorted({*config.finished, target_id})})


def save_summary(dataset: Any, run_key: str, target_id: str, summary: Mapping[str, Any]) -> None:
    """Replace what a run keeps of one target."""
    # With the run, because FiftyOne takes runs along when a dataset is cloned or exported; packed, because the results
    # of a run are rewritten as a whole, and FiftyOne walks over every value in them.
    packed = base64.b64encode(zlib.compress(json.dumps(summary).encode())).decode("ascii")
    results = dataset.init_run_results(run_key, summaries={**_packed_summaries(dataset, run_key), target_id: packed})
    dataset.save_run_results(run_key, results, cache=False)


def measured_seconds_per_frame(dataset: Any, models: Mapping[str, str]) -> float | None:
    """How long a frame took in the newest run on this dataset with these models, or None if there was none."""
    infos = [dataset.get_run_info(key) for key in dataset.list_runs(method=METHOD)]
    for info in sorted(infos, key=lambda i: i.timestamp, reverse=True):
        measured = getattr(info.config, "seconds_per_frame", None)
        if measured and json.loads(info.config.settings).get("models") == dict(models):
            return float(measured)
    return None


def load_summary(dataset: Any, run_key: str, target_id: str) -> dict[str, Any] | None:
    """What a run keeps of one target, as `events.summary_of` made it; None where there is no such run or target."""
    return next(load_summaries(dataset, run_key, [target_id]))


def load_summaries(dataset: Any, run_key: str, target_ids: Iterable[str]) -> Iterator[dict[str, Any] | None]:
    """The same of many targets, one after another: the database has all of a run in one piece, which is read once."""
    packed = _packed_summaries(dataset, run_key)
    for target_id in target_ids:
        found = packed.get(target_id)
        yield None if found is None else json.loads(zlib.decompress(base64.b64decode(found)))


def _packed_summaries(dataset: Any, run_key: str) -> dict[str, str]:
    if not dataset.has_run(run_key):
        return {}
    try:
        results = dataset.load_run_results(run_key, cache=False, load_view=False)
    except AttributeError:
        # FiftyOne remembers which file the results are in, and trips over it when another process has replaced them.
        dataset.reload()
        results = dataset.load_run_results(run_key, cache=False, load_view=False)
    return {} if results is None else dict(results.summaries)


def _update(dataset: Any, run_key: str, values: Mapping[str, Any]) -> None:
    config = dataset.get_run_info(run_key).config
    for name, value in values.items():
        setattr(config, name, value)
    dataset.update_run_config(run_key, config)
