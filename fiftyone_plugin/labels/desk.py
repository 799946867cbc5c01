"""The desk at which edits are made: all that one reads of a target, and the one place where it is carried out.

Every edit changes only the detections that it must, brings events and summary up to date, and is kept in a log: with
the patch that takes it back exactly, and as constraints (`identity.constraints`) that later runs obey. The log is
written first and patches may be applied twice, so an edit that was cut short is whole again after `undo` or `redo`.

Knows nothing of what single edits do; that is in `edits`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import numpy as np

from fiftyone_plugin.errors import EditError, FieldConflictError
from fiftyone_plugin.identity.constraints import Anchor, Constraint, as_dict
from fiftyone_plugin.labels.curation import write_stats
from fiftyone_plugin.labels.events import as_plain, events_of_summary, marks_of, track_line
from fiftyone_plugin.labels.journal import Entry, Journal, load_journal, mark_of, save_journal
from fiftyone_plugin.labels.lineage import spans_of
from fiftyone_plugin.labels.media import dataset_of, describe, target_id
from fiftyone_plugin.labels.ownership import field_state, load_summary, save_summary, stats_field
from fiftyone_plugin.labels.storage import write_events
from fiftyone_plugin.labels.table import LabelTable, Patch, apply_patch, read_table
from fiftyone_plugin.types import IntArray, Source, Track

__all__ = ["Desk", "Edit", "EditKind", "decision_of", "edit_of", "track_of"]


class EditKind(StrEnum):
    """What a person did."""

    MERGE = "merge"
    SPLIT = "split"
    SWAP = "swap"
    RELABEL = "relabel"
    DELETE = "delete"
    LOCK = "lock"
    UNLOCK = "unlock"
    ACCEPT = "accept"
    UNDO_REPAIR = "undo_repair"


@dataclass(frozen=True, slots=True)
class Edit:
    """One entry of the edit log of a target and field."""

    edit_id: int
    kind: EditKind
    made_at: str
    """UTC, ISO 8601."""
    track_ids: tuple[int, ...]
    """merge: (keep, other); split: (track, new id); swap: (a, b); otherwise the tracks it was about."""
    frame: int | None = None
    """0-based."""
    stop: int | None = None
    phrase: str | None = None
    encounter_id: int | None = None
    """The doubt that this edit answered; it counts as reviewed."""
    repair_id: int | None = None
    text: str = ""
    """One line for people, such as ``merged sheep 7 into sheep 3``."""
    note: str = ""
    """What became of masks that the edit made necessary; a sentence, empty where nobody asked for them."""


class Desk:
    """A target with everything that an edit reads, and the one place where edits are carried out."""

    def __init__(self, target: Any, field: str) -> None:
        self.target = target
        self.field = field.removeprefix("frames.")
        self.dataset = dataset_of(target)
        self.key = target_id(target)
        state = field_state(self.dataset, self.field)
        self.run_key = state.run_key
        summary = load_summary(self.dataset, state.run_key, self.key) if state.is_ours else None
        if summary is None:
            raise FieldConflictError(
                f"field {field!r} of {describe(target)}: holds no tracks of this plugin, and labels of others are "
                "never changed; copy them with repair_tracks or import_tracks, and edit the copy"
            )
        self.summary = summary
        self.marks = marks_of(summary)
        self.journal = load_journal(target, self.field)
        self.table = read_table(target, self.field)

    def rows(self, track_id: int) -> IntArray:
        """Rows of a track that may be changed.

        Raises:
            EditError: There is no such track, or it is locked.
        """
        rows = self.table.rows_of(track_id)
        if not len(rows):
            known = ", ".join(str(i) for i in sorted(self.table.namings)) or "none"
            raise EditError(f"track {track_id}: field {self.field!r} has no such track here; it has {known}")
        if track_id in self.marks["locked"]:
            raise EditError(f"{self.name(track_id)} is locked: unlock it first")
        return rows

    def name(self, track_id: int) -> str:
        """What a person calls a track."""
        naming = self.table.namings.get(track_id)
        return f"track {track_id}" if naming is None else f"{naming.phrase} {track_id}"

    def anchor(self, row: int) -> Anchor:
        """Points at the object of a detection."""
        x, y, w, h = self.table.boxes[row].tolist()
        width, height = self.summary["width_px"], self.summary["height_px"]
        box = (x * width, y * height, (x + w) * width, (y + h) * height)
        return Anchor(int(self.table.track_ids[row]), int(self.table.frames[row]), box)

    def new_id(self) -> int:
        """An id that no object ever had here."""
        met = [*self.table.namings, *(int(carrier) for carrier in self.summary.get("carriers", {})), 0]
        return max(self.journal.highest_track_id, *met) + 1

    def commit(
        self,
        kind: EditKind,
        track_ids: Sequence[int],
        text: str,
        *,
        patch: Patch | None = None,
        constraints: Sequence[Constraint] = (),
        encounter_id: int | None = None,
        carriers: dict[str, list[list[int]]] | None = None,
        **about: Any,
    ) -> Edit:
        """Log an edit, carry it out, and bring the rest up to date."""
        patch = patch or Patch()
        if encounter_id is not None:
            decision_of(self.summary, encounter_id)
            self.marks["reviews"].setdefault(str(encounter_id), "edited")
        edit = Edit(
            self.journal.last_id + 1,
            kind,
            datetime.now(UTC).isoformat(timespec="seconds"),
            tuple(track_ids),
            encounter_id=encounter_id,
            text=text,
            **about,
        )
        if carriers is None:
            carriers = _moved_spans(self.summary.get("carriers", {}), self.table, patch)
        entry = Entry(
            edit=as_plain(edit),
            patch=patch.as_dict(),
            constraints=tuple(as_dict(c) for c in constraints),
            state_before={name: self.summary.get(name, {}) for name in ("marks", "carriers")},
            state_after={"marks": self.marks, "carriers": carriers},
        )
        met = max(self.journal.highest_track_id, self.new_id() - 1, *patch.after, 0)
        journal = Journal((*self.journal.done, entry), (), edit.edit_id, met)
        self.carry_out(journal, patch, entry.state_after)
        return edit

    def carry_out(self, journal: Journal, patch: Patch, state: Any) -> None:
        """The log first, then labels, then what is derived from them."""
        save_journal(self.target, self.field, journal)
        if patch != Patch():
            self.table = apply_patch(self.target, self.field, self.table, patch)
        self.summary.update(state)
        # Goes along with a clone of the dataset, as the log does not.
        self.summary.pop("history", None)
        if (history := mark_of(journal.done)) is not None:
            self.summary["history"] = history
        touched = {*patch.before, *patch.after}
        lines = [line for line in self.summary["tracks"] if line["track_id"] not in touched]
        lines += [_line(self.table, track_id) for track_id in touched if len(self.table.rows_of(track_id))]
        self.summary["tracks"] = sorted(lines, key=lambda line: line["track_id"])
        save_summary(self.dataset, self.run_key, self.key, self.summary)
        write_events(self.target, self.field, events_of_summary(self.summary))
        if self.dataset.get_field(stats_field(self.field)) is not None:  # fields of version 0.1 have none
            write_stats(self.target, self.field, self.summary)


def edit_of(entry: Entry) -> Edit:
    """The edit of an entry of the log."""
    plain = dict(entry.edit)
    return Edit(**{**plain, "kind": EditKind(plain["kind"]), "track_ids": tuple(plain["track_ids"])})


def decision_of(summary: dict[str, Any], encounter_id: int) -> dict[str, Any]:
    """The line of a summary on what was concluded about an encounter.

    Raises:
        EditError: There is no such encounter.
    """
    for decision in summary["decisions"]:
        if decision["encounter"]["encounter_id"] == encounter_id:
            return dict(decision)
    known = ", ".join(str(d["encounter"]["encounter_id"]) for d in summary["decisions"]) or "none"
    raise EditError(f"encounter {encounter_id}: the run has {known}")


def _line(table: LabelTable, track_id: int) -> dict[str, Any]:
    return track_line(track_of(table, track_id))


def track_of(table: LabelTable, track_id: int) -> Track:
    """A track as far as the table knows it: boxes in parts of the frame, no masks."""
    rows = table.rows_of(track_id)
    return Track(
        track_id=track_id,
        phrase=table.namings[track_id].phrase,
        frame_indices=table.frames[rows],
        boxes_xyxy=table.boxes[rows].astype(np.float32),
        masks=None,
        scores=table.confidences[rows],
        mask_scores=table.mask_scores[rows],
        identity_confidence=table.identity_confidences[rows],
        sources=tuple(Source.PROPAGATED for _ in rows),
    )


def _moved_spans(carriers: dict[str, list[list[int]]], table: LabelTable, patch: Patch) -> dict[str, list[list[int]]]:
    """How propagated tracks are called after a patch: an id is on a frame once, so frame and id name the mask."""
    rows = table.row_by_label()
    calls = {
        (int(table.frames[rows[label_id]]), move.before): move.after
        for move in patch.moves
        for label_id in move.label_ids
        if label_id in rows
    }
    gone = {(item.frame, int(item.document["index"])) for item in patch.removed}
    if not calls and not gone:
        return carriers
    return spans_of(
        {
            (int(carrier), frame): calls.get((frame, track_id), track_id)
            for carrier, spans in carriers.items()
            for start, stop, track_id in spans
            for frame in range(start, stop)
            if (frame, track_id) not in gone
        }
    )
