"""What taking one repair back changes in labels that a person may have edited since: plans, which `edits` carries out.

Two answers of `apply_repairs` are compared, with and without the repair. A propagated mask whose track differs is
moved, unless a person has moved it meanwhile: their word stands. Where a track was renamed meanwhile, its new name is
used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fiftyone as fo
import numpy as np

from fiftyone_plugin import geometry
from fiftyone_plugin.errors import EditError
from fiftyone_plugin.labels.lineage import Cell, Lineage, TakenOut, repair_from_plain
from fiftyone_plugin.labels.table import Change, Item, LabelTable, Naming, Patch

__all__ = ["UndoPlan", "plan_undo"]


@dataclass(frozen=True, slots=True)
class UndoPlan:
    """How the labels get to where they would be without a repair."""

    patch: Patch
    """Without what is taken out, whose documents only the database has."""
    removed_label_ids: tuple[str, ...]
    cells: Mapping[Cell, int]
    """Every propagated mask that is then a label, and what its track is called."""
    touched: tuple[int, ...]
    """Tracks that change, old and new names."""
    seams: tuple[tuple[str, str], ...]
    """Label ids before and after the repair's start on each propagated track that it cut."""


def plan_undo(
    summary: Mapping[str, Any],
    table: LabelTable,
    lineage: Lineage,
    edits: Sequence[Patch],
    repair_id: int,
    *,
    undone: Sequence[int],
    withdrawn: Mapping[str, Item],
    new_id: int,
    name: str,
) -> UndoPlan:
    """Compare the tracks with and without a repair.

    Args:
        summary: Of the run.
        table: Labels as they are now.
        lineage: What the run's tracks were made of.
        edits: All patches since the run, oldest first.
        repair_id: The repair to leave out.
        undone: Repairs that are left out already.
        withdrawn: By label id, what leaving those out has taken out of the labels.
        new_id: The smallest id that no object ever had.
        name: Of target and field, to name labels that come back.

    Raises:
        EditError: Later edits stand in the way.
    """
    repairs = [repair_from_plain(plain) for plain in summary["repairs"]]
    active = [r for r in repairs if r.repair_id not in undone]
    chosen = next(r for r in active if r.repair_id == repair_id)
    before = lineage.assign(active)
    after = lineage.assign([r for r in active if r is not chosen])
    labels = {cell: _restored_id(name, cell) for cell in lineage.taken_out}
    labels |= _labels_as_written(table, lineage.assign(repairs), edits, set(labels.values()))
    rows = table.row_by_label()
    now = {cell: int(table.track_ids[rows[i]]) for cell, i in labels.items() if i in rows}
    names = _Names(before, after, now, lineage, new_id, table)

    moves: dict[tuple[int, int], list[str]] = {}
    sources: dict[tuple[str, str], list[str]] = {}
    removed: list[str] = []
    added: list[Cell] = []
    for cell in sorted({*before, *after}, key=lambda c: (c[1], c[0])):
        old, new = before.get(cell), after.get(cell)
        if old == new:
            continue
        if old is None:
            assert new is not None
            if labels[cell] not in rows and (cell in lineage.taken_out or labels[cell] in withdrawn):
                added.append(cell)
                now[cell] = names.of(new)
            continue
        if cell not in now or now[cell] != names.of_before(old):
            continue  # a person deleted or moved it meanwhile
        label_id = labels[cell]
        if new is None:
            removed.append(label_id)
            del now[cell]
            continue
        moves.setdefault((now[cell], names.of(new)), []).append(label_id)
        source = "repaired" if new != cell[0] else str(lineage.source(cell))
        if table.sources[rows[label_id]] != source:
            sources.setdefault((table.sources[rows[label_id]], source), []).append(label_id)
        now[cell] = names.of(new)
    # Labels that stand for no propagated mask, since an edit put them in, keep their tracks.
    ours, gone = set(labels.values()), set(removed)
    others = [(frame, i) for frame, i, label_id in _rows(table) if label_id not in ours and label_id not in gone]
    _check(now, others, repair_id)

    touched = {i for pair in moves for i in pair} | {now[c] for c in added}
    touched |= {int(table.track_ids[rows[i]]) for i in removed}
    left = {*now.values(), *(i for _, i in others), *(int(i) for i in table.track_ids if int(i) not in touched)}
    patch = Patch(
        moves=tuple(Change(a, b, tuple(ids)) for (a, b), ids in moves.items() if a != b),
        sources=tuple(Change(a, b, tuple(ids)) for (a, b), ids in sources.items()),
        added=_items(added, labels, withdrawn, lineage, now, names, table, set(removed), summary),
        before={i: table.namings[i] for i in touched if i in table.namings},
        after={i: names.naming(i) for i in touched if i in left},
    )
    return UndoPlan(
        patch,
        tuple(removed),
        now,
        tuple(sorted(touched)),
        tuple(_seams(chosen.start, chosen.continues, labels, now)),
    )


class _Names:
    """What the tracks of the run are called now."""

    def __init__(
        self,
        before: Mapping[Cell, int],
        after: Mapping[Cell, int],
        now: Mapping[Cell, int],
        lineage: Lineage,
        new_id: int,
        table: LabelTable,
    ) -> None:
        self._table = table
        self._next = new_id
        # Masks that keep their track say what it is called now; the earliest speaks, since there identities begin.
        self._called: dict[int, int] = {}
        for cell in sorted(now, key=lambda c: c[1]):
            if cell in before and before[cell] == after.get(cell):
                self._called.setdefault(before[cell], now[cell])
        self._was = dict(self._called)
        for cell in sorted(now, key=lambda c: c[1]):
            if cell in before:
                self._was.setdefault(before[cell], now[cell])
        self._fresh: dict[int, Naming] = {}
        self._phrases = {track_id: lineage.phrase(cell[0]) for cell, track_id in sorted(after.items(), reverse=True)}

    def of_before(self, track_id: int) -> int:
        """Name of a track of the labels as they are."""
        return self._was.get(track_id, track_id)

    def of(self, track_id: int) -> int:
        """Name of a track of the labels as they will be."""
        if track_id not in self._called:
            free = track_id not in self._table.namings and track_id not in self._called.values()
            self._called[track_id] = track_id if free else self._next
            self._next += not free
            self._fresh[self._called[track_id]] = Naming(self._phrases[track_id], str(fo.Instance().id))
        return self._called[track_id]

    def naming(self, track_id: int) -> Naming:
        """How a track appears in labels."""
        return self._table.namings.get(track_id) or self._fresh[track_id]


def _labels_as_written(
    table: LabelTable, written: Mapping[Cell, int], edits: Sequence[Patch], came_back: set[str]
) -> dict[Cell, str]:
    """The label of every propagated mask that the run wrote: frame and first id name it, also if it is gone now."""
    ids = {label_id: int(track_id) for label_id, track_id in zip(table.label_ids, table.track_ids, strict=True)}
    frames = {label_id: int(frame) for label_id, frame in zip(table.label_ids, table.frames, strict=True)}
    for patch in reversed(edits):
        for item in patch.removed:
            ids[item.label_id], frames[item.label_id] = int(item.document["index"]), item.frame
        for move in patch.moves:
            ids.update(dict.fromkeys(move.label_ids, move.before))
    put_in = came_back | _put_in(edits)
    by_place = {(frames[i], track_id): i for i, track_id in ids.items() if i not in put_in}
    return {cell: by_place[cell[1], i] for cell, i in written.items() if (cell[1], i) in by_place}


def _put_in(edits: Sequence[Patch]) -> set[str]:
    """Labels that an edit made; one that was taken out before it is put in came from the run."""
    taken_out: set[str] = set()
    made: set[str] = set()
    for patch in edits:
        taken_out |= {item.label_id for item in patch.removed}
        made |= {item.label_id for item in patch.added} - taken_out
    return made


def _rows(table: LabelTable) -> Iterator[tuple[int, int, str]]:
    """Frame, track and id of every label."""
    yield from zip(table.frames.tolist(), table.track_ids.tolist(), table.label_ids, strict=True)


def _restored_id(name: str, cell: Cell) -> str:
    """The id of a label that an undone repair brings back: always the same, so that it is recognised later."""
    return hashlib.sha256(f"{name}/{cell[0]}/{cell[1]}".encode()).hexdigest()[:24]


def _check(now: Mapping[Cell, int], others: Iterable[tuple[int, int]], repair_id: int) -> None:
    """No track may be in two places on one frame; `others` are the frame and track of labels outside `now`."""
    seen: dict[tuple[int, int], Cell | None] = dict.fromkeys(others)
    for cell, track_id in now.items():
        if seen.setdefault((cell[1], track_id), cell) != cell:
            raise EditError(
                f"undoing repair {repair_id} would put track {track_id} on frame {cell[1] + 1} twice, because of edits "
                "made since: undo those first"
            )


def _items(
    added: Sequence[Cell],
    labels: Mapping[Cell, str],
    withdrawn: Mapping[str, Item],
    lineage: Lineage,
    now: Mapping[Cell, int],
    names: _Names,
    table: LabelTable,
    removed: set[str],
    summary: Mapping[str, Any],
) -> tuple[Item, ...]:
    """Labels for masks that come back, to stand behind the others of their frame."""
    wanted = {cell[1] for cell in added}
    ends = dict.fromkeys(wanted, 0)
    for frame, label_id in zip(table.frames.tolist(), table.label_ids, strict=True):
        if frame in wanted and label_id not in removed:
            ends[frame] += 1
    items = []
    for cell in added:
        naming, source = names.naming(now[cell]), str(lineage.source(cell))
        if labels[cell] in withdrawn:
            detection = fo.Detection.from_dict(dict(withdrawn[labels[cell]].document), extended=True)
            detection.index, detection.label, detection.source = now[cell], naming.phrase, source
            detection.instance = None if naming.instance_id is None else fo.Instance(id=naming.instance_id)
        else:
            detection = _detection(lineage.taken_out[cell], naming, now[cell], source, summary)
        document = {**detection.to_dict(extended=True), "_id": {"$oid": labels[cell]}}
        items.append(Item(cell[1], ends[cell[1]], document))
        ends[cell[1]] += 1
    return tuple(items)


def _detection(found: TakenOut, naming: Naming, track_id: int, source: str, summary: Mapping[str, Any]) -> Any:
    width, height = summary["width_px"], summary["height_px"]
    x0, y0, x1, y1 = found.box_xyxy
    mask = None
    if found.mask is not None:
        mask = geometry.crop_to_box(geometry.decode_mask(found.mask), np.array(found.box_xyxy, np.float32)).copy()
    return fo.Detection(
        label=naming.phrase,
        bounding_box=[x0 / width, y0 / height, (x1 - x0) / width, (y1 - y0) / height],
        mask=mask,
        confidence=found.score,
        index=track_id,
        instance=None if naming.instance_id is None else fo.Instance(id=naming.instance_id),
        source=source,
        mask_score=found.mask_score,
        identity_confidence=found.identity_confidence,
    )


def _seams(
    start: int, cut: Mapping[int, Any], labels: Mapping[Cell, str], now: Mapping[Cell, int]
) -> list[tuple[str, str]]:
    found = []
    for carrier in cut:
        frames = sorted(frame for c, frame in now if c == carrier)
        at = int(np.searchsorted(frames, start))
        if 0 < at < len(frames):
            a, b = (carrier, frames[at - 1]), (carrier, frames[at])
            if a in labels and b in labels:
                found.append((labels[a], labels[b]))
    return found
