"""Edits that a person makes to the tracks of a field: merge, split, swap, relabel, delete, lock, accept, undo.

A *target* is a video sample, or the view of one image sequence; the field must be one that this plugin wrote. Frames
are 0-based in arguments and 1-based in messages, as the App shows them. A `track_id` is the `index` of the detections;
it is never given to a second object.

Each edit is planned in here: what it changes, and what it says about identities to later runs. `desk` carries it out;
where an edit leaves frames without a mask, or with doubtful ones, `refill` may have them tracked anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import fiftyone as fo
import numpy as np

from fiftyone_plugin.errors import EditError
from fiftyone_plugin.identity.constraints import (
    Anchor,
    Constraint,
    Lock,
    MustLink,
    Named,
    Remove,
    SplitAt,
)
from fiftyone_plugin.labels.desk import Desk, Edit, EditKind, decision_of, edit_of, track_of
from fiftyone_plugin.labels.events import gaps_of, ids_of_encounter
from fiftyone_plugin.labels.journal import history_note, load_journal, load_lineage
from fiftyone_plugin.labels.lineage import spans_of
from fiftyone_plugin.labels.refill import MAX_GAP_FRAMES, Repropagator, fill_gaps, rechoose_masks, windows_of_swap
from fiftyone_plugin.labels.table import Change, Naming, Patch, items_of
from fiftyone_plugin.labels.undo_words import undo_words
from fiftyone_plugin.labels.undone import plan_undo
from fiftyone_plugin.types import IntArray

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


def merge(
    target: Any,
    field: str,
    keep: int,
    other: int,
    *,
    encounter_id: int | None = None,
    anew: Repropagator | None = None,
    max_gap_frames: int = MAX_GAP_FRAMES,
) -> Edit:
    """Give all frames of one track to another, whose id and label they get.

    Args:
        target: A video sample, or the view of one image sequence.
        field: A field that this plugin wrote.
        keep: Id that stays.
        other: Id that ends.
        encounter_id: The doubt that this answers; it counts as reviewed.
        anew: Tracks the object through the frames between the two, where neither has a mask
            (`repropagate.models_of_run`); without it these stay empty. Where it cannot, `Edit.note` says why.
        max_gap_frames: Longer gaps stay empty, 1 or more.

    Raises:
        EditError: There is no such track, one is locked, or both are on one frame.
        FieldConflictError: The field is not ours.
    """
    desk = Desk(target, field)
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
    note = ""
    if anew is not None:
        patch, note = fill_gaps(desk, patch, keep, other, anew, max_frames=max_gap_frames)
    return desk.commit(
        EditKind.MERGE,
        (keep, other),
        f"merged {desk.name(other)} into {desk.name(keep)}",
        patch=patch,
        constraints=seams,
        encounter_id=encounter_id,
        note=note,
    )


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
    desk = Desk(target, field)
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
    target: Any,
    field: str,
    a: int,
    b: int,
    frame: int,
    stop: int | None = None,
    *,
    encounter_id: int | None = None,
    anew: Repropagator | None = None,
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
        anew: Chooses the masks of both anew inside the encounter that `frame`, or `stop`, falls in
            (`repropagate.models_of_run`); without it every mask stays as it is. Where it cannot, `Edit.note` says why.

    Raises:
        EditError: There is no such track, one is locked, or neither is on these frames.
        FieldConflictError: The field is not ours.
    """
    desk = Desk(target, field)
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
    seams = _seams(desk, rows, inside, frame, end)
    note = ""
    if anew is not None:
        edges = [frame] if stop is None else [frame, stop]
        patch, note = rechoose_masks(desk, patch, windows_of_swap(desk.summary, a, b, edges), anew)
    return desk.commit(
        EditKind.SWAP,
        (a, b),
        text,
        patch=patch,
        constraints=seams,
        encounter_id=encounter_id,
        frame=frame,
        stop=stop,
        note=note,
    )


def relabel(target: Any, field: str, track_id: int, phrase: str) -> Edit:
    """Give a track another label.

    Raises:
        EditError: There is no such track, it is locked, or the label is empty.
        FieldConflictError: The field is not ours.
    """
    desk = Desk(target, field)
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
    desk = Desk(target, field)
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
    desk = Desk(target, field)
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
    desk = Desk(target, field)
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
        encounter = decision_of(desk.summary, encounter_id)["encounter"]
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
    desk = Desk(target, field)
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
        f"undid repair {repair_id}: {undo_words(plan.patch, desk.table)}",
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
    desk = Desk(target, field)
    if not desk.journal.done:
        note = history_note(target, desk.field)
        raise EditError(f"field {desk.field!r}: there is no edit to undo here{note and f'; {note}'}")
    *done, entry = desk.journal.done
    journal = replace(desk.journal, done=tuple(done), undone=(entry, *desk.journal.undone))
    desk.carry_out(journal, Patch.from_dict(entry.patch).inverse(), entry.state_before)
    return edit_of(entry)


def redo(target: Any, field: str) -> Edit:
    """Do the edit that was undone last again; a new edit ends that possibility.

    Raises:
        EditError: There is none.
        FieldConflictError: The field is not ours.
    """
    desk = Desk(target, field)
    if not desk.journal.undone:
        raise EditError(f"field {desk.field!r}: there is no edit to redo here")
    entry, *undone = desk.journal.undone
    journal = replace(desk.journal, done=(*desk.journal.done, entry), undone=tuple(undone))
    desk.carry_out(journal, Patch.from_dict(entry.patch), entry.state_after)
    return edit_of(entry)


def history(target: Any, field: str) -> tuple[tuple[Edit, ...], tuple[Edit, ...]]:
    """Edits that hold, oldest first, and edits that can be redone, next first."""
    journal = load_journal(target, field)
    return tuple(map(edit_of, journal.done)), tuple(map(edit_of, journal.undone))


def _repair(summary: dict[str, Any], repair_id: int) -> dict[str, Any]:
    for repair in summary["repairs"]:
        if repair["repair_id"] == repair_id:
            return dict(repair)
    known = ", ".join(str(r["repair_id"]) for r in summary["repairs"]) or "none"
    raise EditError(f"repair {repair_id}: the run has {known}")


def _ranges(frames: IntArray, *, most: int = 3) -> str:
    """Frames as people read them, 1-based: ``3 to 7, 9``."""
    breaks = np.flatnonzero(np.diff(frames) > 1) + 1
    parts = [part + 1 for part in np.split(frames, breaks)]
    text = [str(part[0]) if len(part) == 1 else f"{part[0]} to {part[-1]}" for part in parts[:most]]
    return ", ".join(text) + (f" and in {len(parts) - most} more places" if len(parts) > most else "")


def _seams(
    desk: Desk, rows: dict[int, IntArray], inside: dict[int, IntArray], frame: int, end: int
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


def _along(desk: Desk, track_id: int) -> tuple[Anchor, ...]:
    """Anchors along a track: its ends, both sides of its gaps, and some between."""
    rows = desk.table.rows_of(track_id)
    frames = desk.table.frames[rows]
    picks = set(np.linspace(0, len(rows) - 1, min(len(rows), MAX_LOCK_ANCHORS)).round().astype(int).tolist())
    for start, stop in gaps_of(track_of(desk.table, track_id)):
        picks |= {int(np.searchsorted(frames, start)) - 1, int(np.searchsorted(frames, stop))}
    return tuple(desk.anchor(int(rows[pick])) for pick in sorted(picks))


def _across(desk: Desk, track_id: int, start: int, stop: int) -> Lock | None:
    """One object on both sides of some frames; None where the track is on one side only."""
    rows = desk.table.rows_of(track_id)
    before, after = rows[desk.table.frames[rows] < start], rows[desk.table.frames[rows] >= stop]
    if not len(before) or not len(after):
        return None
    return Lock((desk.anchor(int(before[-1])), desk.anchor(int(after[0]))))


def _as_carried(desk: Desk, seams: Sequence[tuple[str, str]]) -> list[Constraint]:
    """Propagation was right: what follows on a propagated track is the object that went before."""
    rows = desk.table.row_by_label()
    return [MustLink(desk.anchor(rows[a]), desk.anchor(rows[b])) for a, b in seams if a in rows and b in rows]
