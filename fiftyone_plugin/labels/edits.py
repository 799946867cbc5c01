"""Edits that a person makes to the tracks of a field: merge, split, swap, relabel, delete, lock, accept, undo.

A *target* is a video sample, or the view of one image sequence; the field must be one that this plugin wrote. Frames
are 0-based in arguments and 1-based in messages, as the App shows them. A `track_id` is the `index` of the detections;
it is never given to a second object.

Every edit changes only the detections that it must, brings events and summary up to date, and is kept in a log: with
the patch that takes it back exactly, and as constraints (`identity.constraints`) that later runs obey. The log is
written first and patches may be applied twice, so an edit that was cut short is whole again after `undo` or `redo`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from itertools import pairwise
from typing import Any

import fiftyone as fo
import numpy as np

from fiftyone_plugin.errors import EditError, FieldConflictError
from fiftyone_plugin.identity.constraints import (
    Anchor,
    Constraint,
    Lock,
    MustLink,
    Named,
    Remove,
    SplitAt,
    as_dict,
)
from fiftyone_plugin.labels.curation import write_stats
from fiftyone_plugin.labels.events import (
    as_plain,
    events_of_summary,
    gaps_of,
    ids_of_encounter,
    marks_of,
    track_line,
)
from fiftyone_plugin.labels.journal import Entry, Journal, load_journal, load_lineage, save_journal
from fiftyone_plugin.labels.lineage import spans_of
from fiftyone_plugin.labels.media import dataset_of, describe, target_id
from fiftyone_plugin.labels.ownership import field_state, load_summary, save_summary, stats_field
from fiftyone_plugin.labels.storage import write_events
from fiftyone_plugin.labels.table import Change, LabelTable, Naming, Patch, apply_patch, items_of, read_table
from fiftyone_plugin.labels.undone import plan_undo
from fiftyone_plugin.types import IntArray, Source, Track

__all__ = [
    "Edit",
    "EditKind",
    "accept",
    "delete",
    "history",
    "lock",
    "merge",
    "redo",
    "relabel",
    "split",
    "swap",
    "undo",
    "undo_repair",
]

MAX_LOCK_ANCHORS = 32
"""Frames at which a locked track is pointed at; besides its ends and gaps, evenly spread."""


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


class _Desk:
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
            _decision(self.summary, encounter_id)
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
        touched = {*patch.before, *patch.after}
        lines = [line for line in self.summary["tracks"] if line["track_id"] not in touched]
        lines += [_line(self.table, track_id) for track_id in touched if len(self.table.rows_of(track_id))]
        self.summary["tracks"] = sorted(lines, key=lambda line: line["track_id"])
        save_summary(self.dataset, self.run_key, self.key, self.summary)
        write_events(self.target, self.field, events_of_summary(self.summary))
        if self.dataset.get_field(stats_field(self.field)) is not None:  # fields of version 0.1 have none
            write_stats(self.target, self.field, self.summary)


def merge(target: Any, field: str, keep: int, other: int, *, encounter_id: int | None = None) -> Edit:
    """Give all frames of one track to another, whose id and label they get.

    Args:
        target: A video sample, or the view of one image sequence.
        field: A field that this plugin wrote.
        keep: Id that stays.
        other: Id that ends.
        encounter_id: The doubt that this answers; it counts as reviewed.

    Raises:
        EditError: There is no such track, one is locked, or both are on one frame.
        FieldConflictError: The field is not ours.
    """
    desk = _Desk(target, field)
    if keep == other:
        raise EditError(f"{desk.name(keep)} cannot be merged with itself: give two tracks")
    kept, moved = desk.rows(keep), desk.rows(other)
    table = desk.table
    shared = np.intersect1d(table.frames[kept], table.frames[moved])
    if len(shared):
        raise EditError(
            f"{desk.name(keep)} and {desk.name(other)} are both on frames {_ranges(shared)}: one object cannot be in "
            "two places; delete or split off one of them there, or swap them, and merge then"
        )
    patch = Patch(
        moves=(Change(other, keep, table.label_ids_of(moved)),),
        before={i: table.namings[i] for i in (keep, other)},
        after={keep: table.namings[keep]},
    )
    in_time = sorted(np.concatenate([kept, moved]).tolist(), key=lambda row: table.frames[row])
    seams = [
        MustLink(desk.anchor(a), desk.anchor(b))
        for a, b in pairwise(in_time)
        if table.track_ids[a] != table.track_ids[b]
    ]
    text = f"merged {desk.name(other)} into {desk.name(keep)}"
    return desk.commit(EditKind.MERGE, (keep, other), text, patch=patch, constraints=seams, encounter_id=encounter_id)


def split(target: Any, field: str, track_id: int, frame: int, *, encounter_id: int | None = None) -> Edit:
    """Make the part of a track from a frame on a new track.

    Args:
        target: A video sample, or the view of one image sequence.
        field: A field that this plugin wrote.
        track_id: Which.
        frame: First of the new track, 0-based; the track must have frames before it and from it on.
        encounter_id: The doubt that this answers.

    Returns:
        The edit; ``track_ids[1]`` is the id of the new track.

    Raises:
        EditError: There is no such track, it is locked, or nothing would be on one side.
        FieldConflictError: The field is not ours.
    """
    desk = _Desk(target, field)
    rows = desk.rows(track_id)
    table = desk.table
    before, after = rows[table.frames[rows] < frame], rows[table.frames[rows] >= frame]
    if not len(before) or not len(after):
        first, last = int(table.frames[rows[0]]) + 1, int(table.frames[rows[-1]]) + 1
        raise EditError(
            f"{desk.name(track_id)} is on frames {first} to {last}: it can be split at frames {first + 1} to {last}, "
            f"not at {frame + 1}"
        )
    new_id, naming = desk.new_id(), table.namings[track_id]
    patch = Patch(
        moves=(Change(track_id, new_id, table.label_ids_of(after)),),
        before={track_id: naming},
        after={track_id: naming, new_id: Naming(naming.phrase, str(fo.Instance().id))},
    )
    text = f"split {desk.name(track_id)} at frame {frame + 1}: from there on it is {naming.phrase} {new_id}"
    constraint = SplitAt(desk.anchor(int(before[-1])), desk.anchor(int(after[0])))
    return desk.commit(
        EditKind.SPLIT,
        (track_id, new_id),
        text,
        patch=patch,
        constraints=[constraint],
        encounter_id=encounter_id,
        frame=frame,
    )


def swap(
    target: Any, field: str, a: int, b: int, frame: int, stop: int | None = None, *, encounter_id: int | None = None
) -> Edit:
    """Exchange two tracks from a frame on.

    Args:
        target: A video sample, or the view of one image sequence.
        field: A field that this plugin wrote.
        a: One track.
        b: The other.
        frame: First exchanged frame, 0-based.
        stop: Frame after the last exchanged one; to the end by default.
        encounter_id: The doubt that this answers.

    Raises:
        EditError: There is no such track, one is locked, or neither is on these frames.
        FieldConflictError: The field is not ours.
    """
    desk = _Desk(target, field)
    if a == b:
        raise EditError(f"{desk.name(a)} cannot be swapped with itself: give two tracks")
    table = desk.table
    rows = {i: desk.rows(i) for i in (a, b)}
    end = int(table.frames.max()) + 1 if stop is None else stop
    inside = {i: r[(table.frames[r] >= frame) & (table.frames[r] < end)] for i, r in rows.items()}
    if not len(inside[a]) and not len(inside[b]):
        raise EditError(f"neither {desk.name(a)} nor {desk.name(b)} is on frames {frame + 1} to {end}: choose others")
    namings = {i: table.namings[i] for i in (a, b)}
    # One that gives all of its frames away and gets none is no more.
    left = {i: len(rows[i]) - len(inside[i]) + len(inside[j]) for i, j in ((a, b), (b, a))}
    patch = Patch(
        moves=tuple(Change(i, j, table.label_ids_of(inside[i])) for i, j in ((a, b), (b, a)) if len(inside[i])),
        before=namings,
        after={i: naming for i, naming in namings.items() if left[i]},
    )
    where = f"from frame {frame + 1} on" if stop is None else f"on frames {frame + 1} to {stop}"
    text = f"swapped {desk.name(a)} and {desk.name(b)} {where}"
    return desk.commit(
        EditKind.SWAP,
        (a, b),
        text,
        patch=patch,
        constraints=_seams(desk, rows, inside, frame, end),
        encounter_id=encounter_id,
        frame=frame,
        stop=stop,
    )


def relabel(target: Any, field: str, track_id: int, phrase: str) -> Edit:
    """Give a track another label.

    Raises:
        EditError: There is no such track, it is locked, or the label is empty.
        FieldConflictError: The field is not ours.
    """
    desk = _Desk(target, field)
    rows = desk.rows(track_id)
    name = " ".join(phrase.split())
    naming = desk.table.namings[track_id]
    if not name or name == naming.phrase:
        raise EditError(f"label {phrase!r}: must be another one than {naming.phrase!r}, and not empty")
    patch = Patch(before={track_id: naming}, after={track_id: replace(naming, phrase=name)})
    text = f"relabelled {desk.name(track_id)} as {name}"
    constraint = Named(desk.anchor(int(rows[len(rows) // 2])), name)
    return desk.commit(EditKind.RELABEL, (track_id,), text, patch=patch, constraints=[constraint], phrase=name)


def delete(target: Any, field: str, track_id: int, *, encounter_id: int | None = None) -> Edit:
    """Take a track out of the field.

    Raises:
        EditError: There is no such track, or it is locked.
        FieldConflictError: The field is not ours.
    """
    desk = _Desk(target, field)
    rows = desk.rows(track_id)
    table = desk.table
    patch = Patch(
        removed=items_of(target, desk.field, table, rows),
        before={track_id: table.namings[track_id]},
    )
    constraint = Remove(desk.anchor(int(rows[0])), desk.anchor(int(rows[-1])))
    text = f"deleted {desk.name(track_id)}"
    return desk.commit(
        EditKind.DELETE, (track_id,), text, patch=patch, constraints=[constraint], encounter_id=encounter_id
    )


def lock(target: Any, field: str, track_ids: Sequence[int], locked: bool = True) -> Edit:
    """Fix the identity of tracks, so that neither edits nor later repairs change it; or let go of them.

    Raises:
        EditError: There is no such track, or nothing would change.
        FieldConflictError: The field is not ours.
    """
    desk = _Desk(target, field)
    held = desk.marks["locked"]
    chosen = sorted({i for i in track_ids if (i in held) != locked})
    if locked:
        for track_id in chosen:
            desk.rows(track_id)
    if not chosen:
        what = "locked already" if locked else "not locked"
        raise EditError(f"tracks {', '.join(map(str, track_ids)) or '(none)'}: {what}; give others")
    desk.marks["locked"] = sorted({*held, *chosen} if locked else set(held) - set(chosen))
    constraints = [Lock(_along(desk, track_id)) for track_id in chosen] if locked else []
    text = f"{'locked' if locked else 'unlocked'} {', '.join(desk.name(i) for i in chosen)}"
    kind = EditKind.LOCK if locked else EditKind.UNLOCK
    return desk.commit(kind, chosen, text, constraints=constraints)


def accept(target: Any, field: str, *, encounter_id: int | None = None, repair_id: int | None = None) -> Edit:
    """Confirm that the identities after an encounter, or after a repair, are right as they stand.

    Args:
        target: A video sample, or the view of one image sequence.
        field: A field that this plugin wrote.
        encounter_id: A doubt; or
        repair_id: a repair. Exactly one of the two.

    Raises:
        EditError: There is no such encounter or repair, or it was undone.
        FieldConflictError: The field is not ours.
    """
    desk = _Desk(target, field)
    if (encounter_id is None) == (repair_id is None):
        raise EditError("give either an encounter or a repair to accept")
    if repair_id is not None:
        repair = _repair(desk.summary, repair_id)
        if repair_id in desk.marks["undone_repairs"]:
            raise EditError(f"repair {repair_id} was undone: redo it before you accept it")
        encounter_id = repair["encounter_id"]
        desk.marks["repairs"][str(repair_id)] = "accepted"
        what, start, stop = f"repair {repair_id}", repair["start"], repair["start"]
    if encounter_id is not None:
        encounter = _decision(desk.summary, encounter_id)["encounter"]
        desk.marks["reviews"][str(encounter_id)] = "accepted"
        for line in desk.summary["repairs"]:
            if line["encounter_id"] == encounter_id and line["repair_id"] not in desk.marks["undone_repairs"]:
                desk.marks["repairs"][str(line["repair_id"])] = "accepted"
        start, stop = encounter["start"], encounter["stop"]
        track_ids = ids_of_encounter(desk.summary, encounter)
        what = f"{encounter['kind']} of {encounter['phrase']} {' and '.join(map(str, track_ids))}"
    else:
        track_ids = tuple(i for i in map(int, repair["relabels"]) if i in desk.table.namings)
    constraints = [c for i in track_ids if (c := _across(desk, i, start, stop)) is not None]
    return desk.commit(
        EditKind.ACCEPT,
        track_ids,
        f"accepted {what} at frame {start + 1}",
        constraints=constraints,
        encounter_id=encounter_id,
        repair_id=repair_id,
        frame=start,
    )


def undo_repair(target: Any, field: str, repair_id: int) -> Edit:
    """Take one repair of the run back: the tracks become what they would be without it, later edits kept.

    Args:
        target: A video sample, or the view of one image sequence.
        field: A field that this plugin wrote.
        repair_id: Of the run's summary.

    Raises:
        EditError: There is no such repair, it was undone already, the run did not keep what is needed, a track is
            locked, or a later edit stands in the way.
        FieldConflictError: The field is not ours.
    """
    desk = _Desk(target, field)
    repair = _repair(desk.summary, repair_id)
    lineage = load_lineage(target, desk.field)
    if repair_id in desk.marks["undone_repairs"]:
        raise EditError(f"repair {repair_id} was undone already")
    if lineage is None:
        raise EditError(f"repair {repair_id}: the run did not keep what it was made of; swap, split or merge instead")
    plan = plan_undo(
        desk.summary,
        desk.table,
        lineage,
        [Patch.from_dict(entry.patch) for entry in desk.journal.done],
        repair_id,
        undone=desk.marks["undone_repairs"],
        withdrawn={
            item.label_id: item
            for entry in desk.journal.done
            if entry.edit["kind"] == EditKind.UNDO_REPAIR
            for item in Patch.from_dict(entry.patch).removed
        },
        new_id=desk.new_id(),
        name=f"{desk.key}/{desk.field}",
    )
    for track_id in plan.touched:
        if track_id in desk.marks["locked"]:
            raise EditError(f"{desk.name(track_id)} is locked: unlock it before undoing repair {repair_id}")
    gone = plan.removed_label_ids
    if gone:
        by_label = desk.table.row_by_label()
        rows = np.array([by_label[i] for i in gone], np.int64)
        plan = replace(plan, patch=replace(plan.patch, removed=items_of(target, desk.field, desk.table, rows)))
    desk.marks["undone_repairs"] = sorted({*desk.marks["undone_repairs"], repair_id})
    desk.marks["repairs"][str(repair_id)] = "undone"
    if repair["encounter_id"] is not None:
        desk.marks["reviews"][str(repair["encounter_id"])] = "undone"
    return desk.commit(
        EditKind.UNDO_REPAIR,
        plan.touched,
        f"undid repair {repair_id} at frame {repair['start'] + 1}: {repair['reason']}",
        patch=plan.patch,
        constraints=_as_carried(desk, plan.seams),
        encounter_id=repair["encounter_id"],
        repair_id=repair_id,
        carriers=spans_of(plan.cells),
        frame=repair["start"],
    )


def undo(target: Any, field: str) -> Edit:
    """Take back the newest edit: labels, events and summary are then what they were, byte for byte.

    Raises:
        EditError: There is no edit left.
        FieldConflictError: The field is not ours.
    """
    desk = _Desk(target, field)
    if not desk.journal.done:
        raise EditError(f"field {desk.field!r}: there is no edit to undo here")
    *done, entry = desk.journal.done
    journal = replace(desk.journal, done=tuple(done), undone=(entry, *desk.journal.undone))
    desk.carry_out(journal, Patch.from_dict(entry.patch).inverse(), entry.state_before)
    return _edit(entry)


def redo(target: Any, field: str) -> Edit:
    """Do the edit that was undone last again; a new edit ends that possibility.

    Raises:
        EditError: There is none.
        FieldConflictError: The field is not ours.
    """
    desk = _Desk(target, field)
    if not desk.journal.undone:
        raise EditError(f"field {desk.field!r}: there is no edit to redo here")
    entry, *undone = desk.journal.undone
    journal = replace(desk.journal, done=(*desk.journal.done, entry), undone=tuple(undone))
    desk.carry_out(journal, Patch.from_dict(entry.patch), entry.state_after)
    return _edit(entry)


def history(target: Any, field: str) -> tuple[tuple[Edit, ...], tuple[Edit, ...]]:
    """Edits that hold, oldest first, and edits that can be redone, next first."""
    journal = load_journal(target, field)
    return tuple(map(_edit, journal.done)), tuple(map(_edit, journal.undone))


def _edit(entry: Entry) -> Edit:
    plain = dict(entry.edit)
    return Edit(**{**plain, "kind": EditKind(plain["kind"]), "track_ids": tuple(plain["track_ids"])})


def _decision(summary: dict[str, Any], encounter_id: int) -> dict[str, Any]:
    for decision in summary["decisions"]:
        if decision["encounter"]["encounter_id"] == encounter_id:
            return dict(decision)
    known = ", ".join(str(d["encounter"]["encounter_id"]) for d in summary["decisions"]) or "none"
    raise EditError(f"encounter {encounter_id}: the run has {known}")


def _repair(summary: dict[str, Any], repair_id: int) -> dict[str, Any]:
    for repair in summary["repairs"]:
        if repair["repair_id"] == repair_id:
            return dict(repair)
    known = ", ".join(str(r["repair_id"]) for r in summary["repairs"]) or "none"
    raise EditError(f"repair {repair_id}: the run has {known}")


def _line(table: LabelTable, track_id: int) -> dict[str, Any]:
    return track_line(_track(table, track_id))


def _track(table: LabelTable, track_id: int) -> Track:
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


def _ranges(frames: IntArray, *, most: int = 3) -> str:
    """Frames as people read them, 1-based: ``3 to 7, 9``."""
    breaks = np.flatnonzero(np.diff(frames) > 1) + 1
    parts = [part + 1 for part in np.split(frames, breaks)]
    text = [str(part[0]) if len(part) == 1 else f"{part[0]} to {part[-1]}" for part in parts[:most]]
    return ", ".join(text) + (f" and in {len(parts) - most} more places" if len(parts) > most else "")


def _seams(
    desk: _Desk, rows: dict[int, IntArray], inside: dict[int, IntArray], frame: int, end: int
) -> list[Constraint]:
    """What a swap says at its edges: who goes on as whom."""
    frames = desk.table.frames
    (a, b), found = rows, list[Constraint]()
    for mine, other in ((a, b), (b, a)):
        before, within = rows[mine][frames[rows[mine]] < frame], inside[other]
        if len(before) and len(within):
            found.append(MustLink(desk.anchor(int(before[-1])), desk.anchor(int(within[0]))))
        after = rows[mine][frames[rows[mine]] >= end]
        if len(within) and len(after):
            found.append(MustLink(desk.anchor(int(within[-1])), desk.anchor(int(after[0]))))
        own = inside[mine]
        if len(before) and len(own) and not len(within):
            found.append(SplitAt(desk.anchor(int(before[-1])), desk.anchor(int(own[0]))))
    return found


def _along(desk: _Desk, track_id: int) -> tuple[Anchor, ...]:
    """Anchors along a track: its ends, both sides of its gaps, and some between."""
    rows = desk.table.rows_of(track_id)
    frames = desk.table.frames[rows]
    picks = set(np.linspace(0, len(rows) - 1, min(len(rows), MAX_LOCK_ANCHORS)).round().astype(int).tolist())
    for start, stop in gaps_of(_track(desk.table, track_id)):
        picks |= {int(np.searchsorted(frames, start)) - 1, int(np.searchsorted(frames, stop))}
    return tuple(desk.anchor(int(rows[pick])) for pick in sorted(picks))


def _across(desk: _Desk, track_id: int, start: int, stop: int) -> Lock | None:
    """One object on both sides of some frames; None where the track is on one side only."""
    rows = desk.table.rows_of(track_id)
    before, after = rows[desk.table.frames[rows] < start], rows[desk.table.frames[rows] >= stop]
    if not len(before) or not len(after):
        return None
    return Lock((desk.anchor(int(before[-1])), desk.anchor(int(after[0]))))


def _as_carried(desk: _Desk, seams: Sequence[tuple[str, str]]) -> list[Constraint]:
    """Propagation was right: what follows on a propagated track is the object that went before."""
    rows = desk.table.row_by_label()
    return [MustLink(desk.anchor(rows[a]), desk.anchor(rows[b])) for a, b in seams if a in rows and b in rows]
