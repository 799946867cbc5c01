"""Masks that an edit makes necessary: in the gap between two tracks that become one, and around a swap.

What they look like is found out by a `Repropagator`, which has the video and the models; in here is what it is asked,
and how its answer becomes a part of the edit's patch, so that undo and redo need no model. Knows nothing of models.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import fiftyone as fo
import numpy as np

from fiftyone_plugin.errors import InputError, OptionError
from fiftyone_plugin.labels.browse import read_tracks_at
from fiftyone_plugin.labels.conversion import detections_of
from fiftyone_plugin.labels.desk import Desk
from fiftyone_plugin.labels.events import ids_of_encounter
from fiftyone_plugin.labels.table import Item, LabelTable, Naming, Patch, items_of
from fiftyone_plugin.pipeline.bridge import REACH_FRAMES, Gap
from fiftyone_plugin.pipeline.rechoose import VIEW_FRAMES, Rechosen, Window
from fiftyone_plugin.types import EncounterKind, IntArray, Track

__all__ = [
    "MAX_GAP_FRAMES",
    "Repropagator",
    "fill_gaps",
    "frames_of_line",
    "gaps_between",
    "rechoose_masks",
    "windows_of_swap",
]

MAX_GAP_FRAMES = 64
"""Longer gaps are left empty by default: the longer an object was away, the less a propagated mask means."""
MAX_WINDOW_FRAMES = 96
"""Longer encounters are left alone: masks carried back so far are no better than those carried forward."""

_OURS = (
    *("_id", "label", "bounding_box", "mask", "confidence", "index", "instance"),
    *("source", "mask_score", "identity_confidence"),
)
"""What a label of ours says of a mask."""


class Repropagator(Protocol):
    """Finds masks in the video of a target."""

    def fill(self, tracks: Sequence[Track], gaps: Sequence[Gap]) -> Sequence[Track]:
        """Masks inside gaps; see `pipeline.bridge`.

        Raises:
            InputError: The models or the video are not there; the line says why.
        """
        ...

    def rechoose(self, tracks: Sequence[Track], window: Window) -> Rechosen:
        """Other masks inside a window; see `pipeline.rechoose`.

        Raises:
            InputError: As above.
        """
        ...


def frames_of_line(line: Mapping[str, Any]) -> IntArray:
    """The frames that a track is on, from its line in a summary: int64 (T,)."""
    frames = np.ones(line["stop"] - line["start"], np.bool_)
    for start, stop in line["gaps"]:
        frames[start - line["start"] : stop - line["start"]] = False
    return np.asarray(np.flatnonzero(frames) + line["start"], np.int64)


def gaps_between(kept: IntArray, moved: IntArray, track_id: int) -> tuple[Gap, ...]:
    """The gaps where one of two tracks ends and the other goes on.

    Args:
        kept: int64 (T,), frames of one track.
        moved: int64 (T,), frames of the other; none of the first.
        track_id: What they are called when they are one.
    """
    frames = np.concatenate([kept, moved])
    owner = np.repeat([0, 1], [len(kept), len(moved)])
    order = np.argsort(frames, kind="stable")
    frames, owner = frames[order], owner[order]
    seams = np.flatnonzero((np.diff(frames) > 1) & (np.diff(owner) != 0))
    return tuple(Gap(track_id, int(frames[k]) + 1, int(frames[k + 1])) for k in seams.tolist())


def windows_of_swap(summary: Mapping[str, Any], a: int, b: int, edges: Iterable[int]) -> tuple[Window, ...]:
    """The encounters of two tracks in which they are swapped, no longer than `MAX_WINDOW_FRAMES`.

    Args:
        summary: Of the run, before the edit.
        a: One track.
        b: The other.
        edges: Frames at which they exchange identities, 0-based.
    """
    found = set()
    for encounter in summary["encounters"]:
        start, stop = encounter["start"], encounter["stop"]
        if encounter["kind"] == EncounterKind.RETURN or stop - start > MAX_WINDOW_FRAMES:
            continue
        if any(start <= edge < stop for edge in edges) and {a, b} <= set(ids_of_encounter(summary, encounter)):
            found.add((start, stop))
    windows: list[Window] = []
    for start, stop in sorted(found):
        if (
            windows
            and start < windows[-1].stop
            and max(stop, windows[-1].stop) - windows[-1].start <= MAX_WINDOW_FRAMES
        ):
            windows[-1] = replace(windows[-1], stop=max(stop, windows[-1].stop))
        elif not windows or start >= windows[-1].stop:
            windows.append(Window((a, b), start, stop))
    return tuple(windows)


def fill_gaps(
    desk: Desk, patch: Patch, keep: int, other: int, by: Repropagator, *, max_frames: int = MAX_GAP_FRAMES
) -> tuple[Patch, str]:
    """The patch of a merge with masks for the frames between its parts.

    Args:
        desk: Of the target.
        patch: That gives the frames of `other` to `keep`.
        keep: Id that stays.
        other: Id that ends.
        by: Finds the masks.
        max_frames: Longer gaps are left empty.

    Returns:
        The patch, and a line on what became of the gaps; empty where there is none.

    Raises:
        OptionError: `max_frames` is not 1 or more.
    """
    if max_frames < 1:
        raise OptionError(f"max_gap_frames = {max_frames}: must be 1 or more")
    table = desk.table
    gaps = gaps_between(table.frames[table.rows_of(keep)], table.frames[table.rows_of(other)], keep)
    chosen = [gap for gap in gaps if gap.stop - gap.start <= max_frames]
    long = [gap for gap in gaps if gap.stop - gap.start > max_frames]
    notes = [f"the gap of {g.stop - g.start} frames is longer than {max_frames} and stays empty" for g in long]
    wanted = sum(gap.stop - gap.start for gap in chosen)
    if chosen:
        around = {f for g in chosen for f in range(max(g.start - REACH_FRAMES, 0), g.stop + REACH_FRAMES)}
        try:
            pieces = by.fill(_near(desk, patch, around), chosen)
        except InputError as error:
            return patch, _failed(error)
        filled = sum(len(piece) for piece in pieces)
        if filled:
            patch = _with_masks(desk, patch, pieces)
            notes.insert(0, f"{filled} of the {wanted} frames between them were tracked anew")
        else:
            notes.insert(0, f"the object was not found in the {wanted} frames between them, which stay empty")
    return patch, _sentence(notes)


def rechoose_masks(desk: Desk, patch: Patch, windows: Sequence[Window], by: Repropagator) -> tuple[Patch, str]:
    """The patch of a swap with other masks inside the encounters that it falls in.

    Args:
        desk: Of the target.
        patch: That swaps.
        windows: Of `windows_of_swap`.
        by: Finds the masks.

    Returns:
        The patch, and a line on what became of the masks; empty where there is no window.
    """
    notes = []
    pieces: list[Track] = []
    hidden: set[tuple[int, int]] = set()
    for window in windows:
        around = range(max(window.start - VIEW_FRAMES, 0), window.stop + VIEW_FRAMES)
        try:
            found = by.rechoose(_near(desk, patch, around), window)
        except InputError as error:
            return patch, _failed(error)
        pieces += found.masks
        hidden |= found.hidden
        changed = len({frame for _, frame in found.hidden} | {f for t in found.masks for f in t.frame_indices.tolist()})
        where = f"in frames {window.start + 1} to {window.stop}"
        notes.append(
            f"masks {where} were chosen anew, and differ on {changed} of them"
            if changed
            else f"masks {where} were tracked anew and stay as they are"
        )
    if pieces or hidden:
        patch = _with_masks(desk, patch, pieces, hidden)
    return patch, _sentence(notes)


def _failed(error: InputError) -> str:
    return _sentence([f"masks were not tracked anew: {error}"])


def _sentence(parts: Sequence[str]) -> str:
    text = "; ".join(parts)
    return text[:1].upper() + text[1:]


def _near(desk: Desk, patch: Patch, frames: Iterable[int]) -> tuple[Track, ...]:
    """The tracks on some frames, masks included, as they will be called after a patch."""
    calls = _calls(desk.table, patch)
    rows: dict[int, list[tuple[int, Track, int]]] = {}
    for track in read_tracks_at(desk.target, desk.field, frames):
        for row, frame in enumerate(track.frame_indices.tolist()):
            rows.setdefault(calls.get((frame, track.track_id), track.track_id), []).append((frame, track, row))
    namings = {**desk.table.namings, **patch.after}
    return tuple(_joined(i, namings[i].phrase, sorted(found, key=lambda r: r[0])) for i, found in rows.items())


def _calls(table: LabelTable, patch: Patch) -> dict[tuple[int, int], int]:
    """(frame, id) of what a patch moves, to the new id."""
    rows = table.row_by_label()
    return {
        (int(table.frames[rows[label_id]]), move.before): move.after
        for move in patch.moves
        for label_id in move.label_ids
    }


def _joined(track_id: int, phrase: str, rows: Sequence[tuple[int, Track, int]]) -> Track:
    """One track of rows of several."""
    masks = tuple(track.masks[row] for _, track, row in rows if track.masks is not None)
    return Track(
        track_id=track_id,
        phrase=phrase,
        frame_indices=np.array([frame for frame, _, _ in rows], np.int64),
        boxes_xyxy=np.stack([track.boxes_xyxy[row] for _, track, row in rows]),
        masks=masks if len(masks) == len(rows) else None,
        scores=np.array([track.scores[row] for _, track, row in rows], np.float32),
        mask_scores=np.array([track.mask_scores[row] for _, track, row in rows], np.float32),
        identity_confidence=np.array([track.identity_confidence[row] for _, track, row in rows], np.float32),
        sources=tuple(track.sources[row] for _, track, row in rows),
    )


def _with_masks(desk: Desk, patch: Patch, pieces: Sequence[Track], hidden: Iterable[tuple[int, int]] = ()) -> Patch:
    """The patch with masks put in, and those that they take the place of, or that are hidden, taken out."""
    table, calls = desk.table, _calls(desk.table, patch)
    now = {
        (calls.get((int(f), int(i)), int(i)), int(f)): row
        for row, (f, i) in enumerate(zip(table.frames, table.track_ids, strict=True))
    }
    new = _documents(desk, {**table.namings, **patch.after}, pieces)
    gone = {now[cell]: cell for cell in {*new, *hidden} if cell in now}
    rows = np.array(sorted(gone), np.int64)
    removed = items_of(desk.target, desk.field, table, rows)
    old = {gone[table.row_by_label()[item.label_id]]: item for item in removed}
    added = []
    for frame in sorted({frame for _, frame in new}):
        here = np.flatnonzero(table.frames == frame)
        # What takes a place stands in it; the rest goes to the end. Those that are hidden make room.
        lost = [int(table.positions[row]) for row in here.tolist() if row in gone and gone[row] not in new]
        end = len(here) - len(lost)
        for cell in sorted(c for c in new if c[1] == frame):
            if cell in old:
                place = old[cell].position - sum(position < old[cell].position for position in lost)
                # Tags and whatever else a person gave to the object stay.
                ours = {name: new[cell][name] for name in _OURS if name in new[cell]}
                added.append(Item(frame, place, {**old[cell].document, **ours}))
            else:
                added.append(Item(frame, end, new[cell]))
                end += 1
    return replace(patch, removed=(*patch.removed, *removed), added=(*patch.added, *added))


def _documents(
    desk: Desk, namings: Mapping[int, Naming], pieces: Sequence[Track]
) -> dict[tuple[int, int], dict[str, Any]]:
    """(track id, frame) to the label of a mask, as FiftyOne's extended JSON, under an id of its own."""
    found = {}
    for piece in pieces:
        naming = namings[piece.track_id]
        instance = None if naming.instance_id is None else fo.Instance(id=naming.instance_id)
        labels = detections_of(
            [replace(piece, phrase=naming.phrase)],
            {piece.track_id: instance},
            start=int(piece.frame_indices[0]),
            stop=int(piece.frame_indices[-1]) + 1,
            height_px=desk.summary["height_px"],
            width_px=desk.summary["width_px"],
        )
        for frame, here in labels.items():
            for detection in here.detections:
                found[piece.track_id, frame] = json.loads(json.dumps(detection.to_dict(extended=True)))
    return found
