"""What is kept beside the labels of a target, so that edits and repairs can be taken back: the edit log, the lineage.

In FiftyOne's execution store of the dataset, which lives and dies with it, compressed and cut into parts that fit a
database document. Knows nothing of what an edit does.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fiftyone.operators.store import ExecutionStore

from fiftyone_plugin.labels.lineage import Lineage
from fiftyone_plugin.labels.media import dataset_of, target_id

__all__ = ["Entry", "Journal", "forget_edits", "load_journal", "load_lineage", "save_journal", "save_lineage"]

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
    plain = _load(target, name, "log")
    if plain is None:
        return Journal()
    done, undone = (
        tuple(Entry(**{**entry, "constraints": tuple(entry["constraints"])}) for entry in plain[key])
        for key in ("done", "undone")
    )
    return Journal(done, undone, plain["last_id"], plain["highest_track_id"])


def save_journal(target: Any, name: str, journal: Journal) -> None:
    """Replace the edit log of a target and field."""
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
    plain = _load(target, name, "lineage")
    return None if plain is None else Lineage.from_dict(plain)


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


def _load(target: Any, name: str, what: str) -> Any:
    store, key = _store(target), _key(target, name, what)
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
