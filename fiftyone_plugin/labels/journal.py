"""What is kept beside the labels of a target, so that edits and repairs can be taken back: the edit log, the lineage.

In FiftyOne's execution store of the dataset, which lives and dies with it, compressed and cut into parts that fit a
database document. Knows nothing of what an edit does.

A clone of a dataset has the labels, the ids and the runs of the first one, but not its store. So the summary, which
goes along, says which edits its labels have seen (`mark_of`), and where the own store has nothing, a log of another
dataset that begins with exactly these is taken; the first edit then makes it the clone's own.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import fiftyone.core.odm as foodm
from fiftyone.factory.repos.execution_store import MongoExecutionStoreRepo
from fiftyone.operators.store import ExecutionStore

from fiftyone_plugin.labels.lineage import Lineage, repair_from_plain, spans_of
from fiftyone_plugin.labels.media import dataset_of, target_id
from fiftyone_plugin.labels.ownership import default_run_key, load_summary

__all__ = [
    "Entry",
    "Journal",
    "forget_edits",
    "history_note",
    "load_journal",
    "load_lineage",
    "mark_of",
    "save_journal",
    "save_lineage",
]

STORE = "shepherd_edits"
PART_BYTES = 8_000_000
"""A document of the database holds 16 MB."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One edit with all that is needed to take it back and to do it again; plain JSON values."""

    edit: Mapping[str, Any]
    patch: Mapping[str, Any]
    constraints: tuple[Mapping[str, Any], ...]
    state_before: Mapping[str, Any]
    """Parts of the run's summary that the edit replaced, as they were."""
    state_after: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Journal:
    """The edit log of a target and field."""

    done: tuple[Entry, ...] = ()
    """Oldest first."""
    undone: tuple[Entry, ...] = ()
    """The one that `redo` does next first."""
    last_id: int = 0
    """Of all edits there ever were."""
    highest_track_id: int = 0
    """Of all that an edit has met or given out, so that no id is ever given to a second object."""


def load_journal(target: Any, name: str) -> Journal:
    """The edit log of a target and field; empty where there is none."""
    plain = _load(_store(target), _key(target, name, "log"))
    return _inherited_journal(target, name) if plain is None else _journal(plain)


def _journal(plain: Mapping[str, Any]) -> Journal:
    done, undone = (
        tuple(Entry(**{**entry, "constraints": tuple(entry["constraints"])}) for entry in plain[key])
        for key in ("done", "undone")
    )
    return Journal(done, undone, plain["last_id"], plain["highest_track_id"])


def mark_of(entries: Sequence[Entry]) -> dict[str, Any] | None:
    """What a summary says of the edits that its labels have seen, as plain JSON values; None before the first."""
    if not entries:
        return None
    named = json.dumps([[entry.edit["edit_id"], entry.edit["made_at"], entry.edit["text"]] for entry in entries])
    return {"edits": len(entries), "digest": blake2b(named.encode(), digest_size=12).hexdigest()}


def history_note(target: Any, name: str) -> str:
    """Why edits that the labels have seen cannot be taken back, in one line; empty where they can, or are none."""
    if _seen_edits(target, name) is None or load_journal(target, name).done:
        return ""
    return (
        "this dataset is a clone, and the history of its edits is gone: what was edited before it was cloned cannot be "
        "undone here, and later runs do not know of it; everything else works"
    )


def _seen_edits(target: Any, name: str) -> Mapping[str, Any] | None:
    found: Mapping[str, Any] | None = (_summary(target, name) or {}).get("history")
    return found


def _summary(target: Any, name: str) -> dict[str, Any] | None:
    return load_summary(dataset_of(target), default_run_key(name.removeprefix("frames.")), target_id(target))


def _inherited_journal(target: Any, name: str) -> Journal:
    """The log that a clone's labels have come with: of another dataset, up to where they were cloned."""
    seen = _seen_edits(target, name)
    if seen is None:
        return Journal()
    for plain in _elsewhere(target, _key(target, name, "log")):
        journal = _journal(plain)
        if mark_of(journal.done) == seen:
            return journal
        # Edits that were made, or taken back, there since then are no business of the clone.
        done = (*journal.done, *journal.undone)[: seen["edits"]]
        if mark_of(done) == seen:
            return replace(journal, done=done, undone=())
    return Journal()


def _elsewhere(target: Any, key: str) -> Iterator[Any]:
    """What other datasets keep under a key: it has the target's id in it, which only its clones share."""
    own = dataset_of(target)._doc.id
    stores = foodm.get_db_conn()[MongoExecutionStoreRepo.COLLECTION_NAME]
    for found in stores.find({"store_name": STORE, "key": f"{key}/0"}, {"dataset_id": True}):
        if found.get("dataset_id") not in (None, own):
            value = _load(ExecutionStore.create(STORE, found["dataset_id"]), key)
            if value is not None:
                yield value


def save_journal(target: Any, name: str, journal: Journal) -> None:
    """Replace the edit log of a target and field."""
    if not _store(target).has(f"{_key(target, name, 'lineage')}/0"):
        inherited = load_lineage(target, name)
        if inherited is not None:
            save_lineage(target, name, inherited)
    lists = {
        key: [
            {
                "edit": dict(e.edit),
                "patch": dict(e.patch),
                "constraints": [dict(c) for c in e.constraints],
                "state_before": dict(e.state_before),
                "state_after": dict(e.state_after),
            }
            for e in entries
        ]
        for key, entries in (("done", journal.done), ("undone", journal.undone))
    }
    _save(target, name, "log", {**lists, "last_id": journal.last_id, "highest_track_id": journal.highest_track_id})


def load_lineage(target: Any, name: str) -> Lineage | None:
    """What the tracks of a target and field were made of, if the run kept it."""
    plain = _load(_store(target), _key(target, name, "lineage"))
    return _inherited_lineage(target, name) if plain is None else Lineage.from_dict(plain)


def _inherited_lineage(target: Any, name: str) -> Lineage | None:
    """The origin that a clone's tracks have come with: one of another dataset that leads to what this run wrote."""
    summary = _summary(target, name)
    if summary is None or not summary["repairs"]:
        return None
    done = load_journal(target, name).done
    written = (done[0].state_before if done else summary).get("carriers", {})
    repairs = [repair_from_plain(plain) for plain in summary["repairs"]]
    for plain in _elsewhere(target, _key(target, name, "lineage")):
        lineage = Lineage.from_dict(plain)
        if json.loads(json.dumps(spans_of(lineage.assign(repairs)))) == written:
            return lineage
    return None


def save_lineage(target: Any, name: str, lineage: Lineage | None) -> None:
    """Replace what is known of the origin of a field's tracks."""
    if lineage is None:
        _delete(_store(target), _key(target, name, "lineage"))
    else:
        _save(target, name, "lineage", lineage.as_dict())


def forget_edits(target: Any, name: str) -> None:
    """Drop the edit log: the labels that it speaks of are gone."""
    _delete(_store(target), _key(target, name, "log"))


def _store(target: Any) -> Any:
    return ExecutionStore.create(STORE, dataset_of(target)._doc.id)


def _key(target: Any, name: str, what: str) -> str:
    return f"{name.removeprefix('frames.')}/{target_id(target)}/{what}"


def _load(store: Any, key: str) -> Any:
    parts: list[bytes] = []
    while (part := store.get(f"{key}/{len(parts)}")) is not None:
        parts.append(part["data"])
        if part["is_last"]:
            return json.loads(zlib.decompress(b"".join(parts)))
    return None


def _save(target: Any, name: str, what: str, value: Any) -> None:
    store, key = _store(target), _key(target, name, what)
    data = zlib.compress(json.dumps(value).encode())
    starts = range(0, len(data), PART_BYTES)
    for number, start in enumerate(starts):
        part = {"data": data[start : start + PART_BYTES], "is_last": number == len(starts) - 1}
        store.set(f"{key}/{number}", part)


def _delete(store: Any, key: str) -> None:
    number = 0
    while store.delete(f"{key}/{number}"):
        number += 1
