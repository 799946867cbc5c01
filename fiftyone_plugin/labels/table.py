"""The detections of one target and field as columns, without their masks, and exact changes to them.

A `Patch` names every detection that it changes, so that it can be applied and taken back, any number of times, and
leaves all others alone. Knows nothing of what an edit means.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import fiftyone as fo
import numpy as np
from bson import ObjectId
from numpy.typing import NDArray
from pymongo import UpdateOne

from fiftyone_plugin.labels.media import collection_of, dataset_of, is_group
from fiftyone_plugin.labels.ownership import labels_path
from fiftyone_plugin.types import FloatArray, IntArray

__all__ = ["Change", "Item", "LabelTable", "Naming", "Patch", "apply_patch", "read_table"]

CHUNK_LABELS = 2000
"""Detections that are read with their masks at once."""


@dataclass(frozen=True, slots=True)
class Naming:
    """How a track appears in its labels."""

    phrase: str
    instance_id: str | None
    """Of its `fo.Instance`."""


@dataclass(frozen=True, slots=True)
class LabelTable:
    """One row per detection, L rows, by frame and then as they stand in it."""

    frames: IntArray
    """int64 (L,), 0-based."""
    positions: IntArray
    """int64 (L,): place in the frame's list."""
    label_ids: tuple[str, ...]
    document_ids: tuple[str, ...]
    """L: the frame (in videos) or image that holds the detection."""
    track_ids: IntArray
    """int64 (L,)."""
    boxes: NDArray[np.float64]
    """float64 (L, 4): x, y, width, height in parts of the frame."""
    confidences: FloatArray
    mask_scores: FloatArray
    identity_confidences: FloatArray
    """float32 (L,) each; 1 where there is none."""
    sources: tuple[str, ...]
    namings: Mapping[int, Naming]
    """By track id."""

    def rows_of(self, track_id: int) -> IntArray:
        """Rows of a track, in the order of the frames."""
        return np.flatnonzero(self.track_ids == track_id)

    def label_ids_of(self, rows: IntArray) -> tuple[str, ...]:
        """Label ids of some rows."""
        return tuple(self.label_ids[row] for row in rows.tolist())

    def row_by_label(self) -> dict[str, int]:
        """Row of every label id."""
        return {label_id: row for row, label_id in enumerate(self.label_ids)}


@dataclass(frozen=True, slots=True)
class Change:
    """The same new value for the same old one, of some detections."""

    before: Any
    after: Any
    label_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Item:
    """A detection that is put in or taken out."""

    frame: int
    position: int
    """In the frame's list: when it is put in, after all earlier items of the frame; when taken out, before any is."""
    document: Mapping[str, Any]
    """The whole label, as FiftyOne's extended JSON."""

    @property
    def label_id(self) -> str:
        """Id of the detection."""
        return str(self.document["_id"]["$oid"])


@dataclass(frozen=True, slots=True)
class Patch:
    """Everything that one edit changes in the labels."""

    moves: tuple[Change, ...] = ()
    """Of track ids."""
    sources: tuple[Change, ...] = ()
    removed: tuple[Item, ...] = ()
    added: tuple[Item, ...] = ()
    before: Mapping[int, Naming] = field(default_factory=dict)
    """Tracks that the edit touches, as they were; one that it makes is missing."""
    after: Mapping[int, Naming] = field(default_factory=dict)
    """The same as they are then; one that it ends is missing."""

    def inverse(self) -> Patch:
        """The patch that takes this one back."""
        moves, sources = (
            tuple(Change(c.after, c.before, c.label_ids) for c in changes) for changes in (self.moves, self.sources)
        )
        return Patch(moves, sources, removed=self.added, added=self.removed, before=self.after, after=self.before)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        namings = {
            name: {str(track_id): [n.phrase, n.instance_id] for track_id, n in found.items()}
            for name, found in (("before", self.before), ("after", self.after))
        }
        changes = {
            name: [[c.before, c.after, list(c.label_ids)] for c in found]
            for name, found in (("moves", self.moves), ("sources", self.sources))
        }
        items = {
            name: [[item.frame, item.position, dict(item.document)] for item in found]
            for name, found in (("removed", self.removed), ("added", self.added))
        }
        return {**changes, **items, **namings}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Patch:
        """Undo `as_dict`."""

        def changes(name: str) -> tuple[Change, ...]:
            return tuple(Change(before, after, tuple(ids)) for before, after, ids in plain[name])

        def items(name: str) -> tuple[Item, ...]:
            return tuple(Item(*item) for item in plain[name])

        def namings(name: str) -> dict[int, Naming]:
            return {int(track_id): Naming(*naming) for track_id, naming in plain[name].items()}

        return cls(
            changes("moves"), changes("sources"), items("removed"), items("added"), namings("before"), namings("after")
        )


_COLUMNS = ("id", "index", "label", "bounding_box", "confidence", "mask_score", "identity_confidence", "source")


def read_table(target: Any, name: str) -> LabelTable:
    """The detections of a target in one of our fields.

    Args:
        target: A video sample, or the view of one image sequence.
        name: Of the field, without ``frames.``.
    """
    dataset, collection = dataset_of(target), collection_of(target)
    items = f"{labels_path(dataset, name)}.detections"
    known = dataset.get_frame_field_schema(flat=True) if not is_group(target) else dataset.get_field_schema(flat=True)
    path = items.removeprefix("frames.")
    columns = [column for column in _COLUMNS if column == "id" or f"{path}.{column}" in known]
    paths = [f"{items}.{column}" for column in columns] + [f"{items}.instance._id"]
    if is_group(target):
        documents, *found = collection.values(["id", *paths])
        numbers: Sequence[int] = range(len(documents))
    else:
        frame_numbers, frame_ids, *nested = collection.values(["frames.frame_number", "frames.id", *paths])
        numbers, documents = [n - 1 for n in frame_numbers[0]], frame_ids[0]
        found = [values[0] for values in nested]
    counts = [len(ids or ()) for ids in found[0]]
    flat = {
        column: [value for values in by_frame for value in values or ()]
        for column, by_frame in zip([*columns, "instance"], found, strict=True)
    }
    total = len(flat["id"])
    track_ids = np.array(flat["index"] if total else [], np.int64)
    return LabelTable(
        frames=np.repeat(np.asarray(numbers, np.int64), counts),
        positions=np.array([k for n in counts for k in range(n)], np.int64),
        label_ids=tuple(flat["id"]),
        document_ids=tuple(d for d, n in zip(documents, counts, strict=True) for _ in range(n)),
        track_ids=track_ids,
        boxes=np.array(flat["bounding_box"], np.float64).reshape(total, 4),
        confidences=_scores(flat, "confidence", total),
        mask_scores=_scores(flat, "mask_score", total),
        identity_confidences=_scores(flat, "identity_confidence", total),
        sources=tuple(flat.get("source") or [""] * total),
        namings={
            int(track_ids[row]): Naming(flat["label"][row], None if instance is None else str(instance))
            for row, instance in reversed(list(enumerate(flat["instance"])))
        },
    )


def _scores(flat: Mapping[str, list[Any]], name: str, total: int) -> FloatArray:
    return np.array([1.0 if v is None else v for v in flat.get(name) or [None] * total], np.float32)


def apply_patch(target: Any, name: str, table: LabelTable, patch: Patch) -> LabelTable:
    """Change the labels of a target; what is changed already stays, so that a patch cut short can be applied again.

    Args:
        target: A video sample, or the view of one image sequence.
        name: Of the field, without ``frames.``.
        table: As `read_table` gives it now.
        patch: What to change.

    Returns:
        The table as it is then.
    """
    path = labels_path(dataset_of(target), name)
    if patch.removed or patch.added:
        _exchange_items(target, path, patch)
        table = read_table(target, name)
    rows = table.row_by_label()
    wanted: dict[str, dict[int, Any]] = {"index": {}, "label": {}, "instance": {}, "source": {}}
    for move in patch.moves:
        for label_id in move.label_ids:
            if label_id in rows:
                _name(wanted, rows[label_id], move.after, patch.after[move.after])
    for track_id, naming in patch.after.items():
        if track_id in patch.before and patch.before[track_id] != naming:
            for row in table.rows_of(track_id).tolist():
                if row not in wanted["index"]:
                    _name(wanted, row, track_id, naming)
    for change in patch.sources:
        wanted["source"].update({rows[i]: change.after for i in change.label_ids if i in rows})
    _set_attributes(target, path, table, wanted)
    return _changed(table, wanted, patch)


def _changed(table: LabelTable, wanted: Mapping[str, Mapping[int, Any]], patch: Patch) -> LabelTable:
    """The table after the changes, without asking the database again."""
    track_ids, sources = table.track_ids.copy(), list(table.sources)
    for row, track_id in wanted["index"].items():
        track_ids[row] = track_id
    for row, source in wanted["source"].items():
        sources[row] = source
    there = set(track_ids.tolist())
    namings = {i: naming for i, naming in {**table.namings, **patch.after}.items() if i in there}
    return replace(table, track_ids=track_ids, sources=tuple(sources), namings=namings)


def _name(wanted: dict[str, dict[int, Any]], row: int, track_id: int, naming: Naming) -> None:
    wanted["index"][row] = track_id
    wanted["label"][row] = naming.phrase
    wanted["instance"][row] = None if naming.instance_id is None else fo.Instance(id=naming.instance_id)


def _set_attributes(target: Any, path: str, table: LabelTable, wanted: Mapping[str, Mapping[int, Any]]) -> None:
    collection = collection_of(target)
    key = "sample_id" if is_group(target) else "frame_id"
    for attribute, values in wanted.items():
        if values:
            changes = [
                {key: table.document_ids[row], "label_id": table.label_ids[row], "value": value}
                for row, value in values.items()
            ]
            collection.set_label_values(f"{path}.detections.{attribute}", changes, validate=False)


def items_of(target: Any, name: str, table: LabelTable, rows: IntArray) -> tuple[Item, ...]:
    """Detections as they could be put back in: with their place, and all that they hold.

    Args:
        target: A video sample, or the view of one image sequence.
        name: Of the field, without ``frames.``.
        table: Of the target and field.
        rows: Which.
    """
    path, collection = labels_path(dataset_of(target), name), collection_of(target)
    items: list[Item] = []
    for first in range(0, len(rows), CHUNK_LABELS):
        chunk = {table.label_ids[row]: row for row in rows[first : first + CHUNK_LABELS].tolist()}
        found = collection.select_labels(ids=list(chunk), fields=path).values(f"{path}.detections", unwind=True)
        for detection in found:
            row = chunk[detection.id]
            document = json.loads(json.dumps(detection.to_dict(extended=True)))
            items.append(Item(int(table.frames[row]), int(table.positions[row]), document))
    return tuple(items)


def _exchange_items(target: Any, path: str, patch: Patch) -> None:
    """Take detections out of their frames, then put others in at their places.

    FiftyOne's own calls replace whole frames, masks and all: on 20 tracks half a minute instead of half a second.
    """
    dataset, collection = dataset_of(target), collection_of(target)
    if is_group(target):
        documents = dict(enumerate(collection.values("id")))
    else:
        numbers, ids = collection.values(["frames.frame_number", "frames.id"])
        documents = {number - 1: frame_id for number, frame_id in zip(numbers[0], ids[0], strict=True)}
    items = f"{path.removeprefix('frames.')}.detections"
    now = {"last_modified_at": datetime.now(UTC).replace(tzinfo=None)}
    changes = []
    for item in patch.removed:
        where = {"_id": ObjectId(documents[item.frame])}
        changes.append(UpdateOne(where, {"$pull": {items: {"_id": ObjectId(item.label_id)}}, "$set": now}))
    for item in sorted(patch.added, key=lambda item: (item.frame, item.position)):
        # One that is there already stays where it is.
        where = {"_id": ObjectId(documents[item.frame]), f"{items}._id": {"$ne": ObjectId(item.label_id)}}
        document = fo.Detection.from_dict(dict(item.document), extended=True).to_dict()
        push = {items: {"$each": [document], "$position": item.position}}
        changes.append(UpdateOne(where, {"$push": push, "$set": now}))
    touched = sorted({documents[item.frame] for item in (*patch.removed, *patch.added)})
    dataset._bulk_write(changes, ids=touched, frames=not is_group(target), ordered=True)
