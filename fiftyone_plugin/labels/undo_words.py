"""What taking a repair back has done, in words: of the tracks that a person sees, never of those that were propagated.

Knows nothing of repairs; it reads a change of labels. Frames are 1-based in here, as the App shows them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby

from fiftyone_plugin.labels.table import LabelTable, Patch

__all__ = ["undo_words"]

_MOST_STRETCHES = 3
"""Of frames that are named."""


def undo_words(patch: Patch, table: LabelTable) -> str:
    """What a patch does to the tracks, such as ``sheep 3 is two tracks again, sheep 3 and sheep 9 from frame 41 on``.

    Args:
        patch: That takes a repair back.
        table: The labels before it.
    """
    rows = table.row_by_label()
    names = {i: f"{naming.phrase} {i}" for i, naming in {**table.namings, **patch.before, **patch.after}.items()}
    moved: dict[tuple[int, int], list[int]] = {}
    for move in patch.moves:
        frames = [int(table.frames[rows[label_id]]) for label_id in move.label_ids if label_id in rows]
        moved.setdefault((move.before, move.after), []).extend(frames)
    parts = []
    for (a, b), frames in sorted(moved.items(), key=lambda item: (min(item[1], default=0), item[0])):
        if (b, a) in moved:
            if a < b:
                where = _frames_text([*frames, *moved[b, a]], [*_frames_of(table, a), *_frames_of(table, b)])
                parts.append(f"{names[a]} and {names[b]} are exchanged again {where}")
        elif b not in table.namings:
            where = _frames_text(frames, _frames_of(table, a))
            parts.append(f"{names[a]} is two tracks again, {names[a]} and {names[b]} {where}")
        elif a not in patch.after:
            parts.append(f"{names[a]} is part of {names[b]} again")
        else:
            parts.append(f"{names[a]} is {names[b]} again {_frames_text(frames, _frames_of(table, a))}")
    for what, items in (("is no longer", patch.removed), ("is again", patch.added)):
        found: dict[int, list[int]] = {}
        for item in items:
            found.setdefault(int(item.document["index"]), []).append(item.frame)
        parts += [f"{_name(names, i)} {what} {_frames_text(frames, ())}" for i, frames in sorted(found.items())]
    return "; ".join(parts) or "no label had to change"


def _name(names: Mapping[int, str], track_id: int) -> str:
    return names.get(track_id, f"track {track_id}")


def _frames_of(table: LabelTable, track_id: int) -> list[int]:
    return [int(frame) for frame in table.frames[table.rows_of(track_id)]]


def _frames_text(frames: Iterable[int], whole: Iterable[int]) -> str:
    """``from frame 41 on`` where these are the last ones of the whole, else ``on frames 41 to 60 and 70``."""
    chosen = sorted(set(frames))
    if not chosen:
        return "on no frame"
    if whole and set(chosen) == {frame for frame in whole if frame >= chosen[0]}:
        return f"from frame {chosen[0] + 1} on"
    stretches = []
    for _, group in groupby(enumerate(chosen), key=lambda pair: pair[1] - pair[0]):
        run = [frame + 1 for _, frame in group]
        stretches.append(str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}")
    shown, more = stretches[:_MOST_STRETCHES], len(stretches) - _MOST_STRETCHES
    if more > 0:
        shown.append(f"in {more} more places")
    listed = shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
    return f"on frame{'' if len(chosen) == 1 else 's'} {listed}"
