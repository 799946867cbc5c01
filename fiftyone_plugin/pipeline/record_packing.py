"""The long columns of a recorder's tracks, as a few large arrays: what grows with the video.

Rows and looks are only ever added, so a checkpoint holds the new ones; views are thinned, so a gallery is held whole.
Knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fiftyone_plugin.pipeline.packing import pack
from fiftyone_plugin.pipeline.recorder import Record
from fiftyone_plugin.types import FloatArray, Rle, Source

__all__ = ["LONG_COLUMNS", "pack_rows", "pack_views", "unpack_rows", "unpack_views", "views_mark"]

LONG_COLUMNS = frozenset(
    {"frames", "boxes", "masks", "scores", "mask_scores", "sources", "look_frames", "look_phrases"}
    | {"view_frames", "views", "view_weights"}
)
"""Columns of a record that are kept in here; all others are short."""
_SOURCES = tuple(Source)


def views_mark(record: Record) -> tuple[int, int]:
    """Changes with every view that is added."""
    return len(record.views), record.view_frames[-1]


def pack_rows(records: Mapping[int, Record], saved: Mapping[int, tuple[int, int]]) -> tuple[Any, dict[str, Any]]:
    """The rows and looks that are not saved yet, of all tracks together; ready for a file (see `packing`).

    Args:
        records: The tracks.
        saved: By track, how many rows and looks are saved already; none where it is missing.
    """
    ids: list[int] = []
    masks: list[Rle] = []
    boxes: list[FloatArray] = []
    frames: list[int] = []
    scores: list[tuple[float, float]] = []
    sources: list[int] = []
    looks: list[list[int | str]] = []
    for track_id, r in records.items():
        rows_from, looks_from = saved.get(track_id, (0, 0))
        ids += [track_id] * (len(r.frames) - rows_from)
        frames += r.frames[rows_from:]
        boxes += r.boxes[rows_from:]
        masks += r.masks[rows_from:]
        scores += zip(r.scores[rows_from:], r.mask_scores[rows_from:], strict=True)
        sources += [_SOURCES.index(s) for s in r.sources[rows_from:]]
        looks += [[track_id, r.look_frames[k], r.look_phrases[k]] for k in range(looks_from, len(r.look_frames))]
    return pack(
        {
            "track_ids": np.array(ids, np.int64),
            "frames": np.array(frames, np.int64),
            "boxes": np.array(boxes, np.float32).reshape(-1, 4),
            "scores": np.array(scores, np.float64).reshape(-1, 2),
            "sources": np.array(sources, np.uint8),
            "mask_sizes": np.array([(m.height_px, m.width_px, len(m.counts)) for m in masks], np.int64).reshape(-1, 3),
            "mask_counts": b"".join(m.counts for m in masks),
            "looks": looks,
        }
    )


def unpack_rows(found: Mapping[str, Any], records: Mapping[int, Record]) -> None:
    """Add what `pack_rows` kept to records that hold everything before it."""
    for row, mask in enumerate(_masks_of(found["mask_sizes"], found["mask_counts"])):
        record = records[int(found["track_ids"][row])]
        record.frames.append(int(found["frames"][row]))
        record.boxes.append(found["boxes"][row])
        record.masks.append(mask)
        record.scores.append(float(found["scores"][row, 0]))
        record.mask_scores.append(float(found["scores"][row, 1]))
        record.sources.append(_SOURCES[int(found["sources"][row])])
    for track_id, frame_index, phrase in found["looks"]:
        records[track_id].look_frames.append(frame_index)
        records[track_id].look_phrases.append(phrase)


def _masks_of(sizes: NDArray[np.int64], counts: bytes) -> Iterator[Rle]:
    begin = 0
    for height_px, width_px, length in sizes.tolist():
        yield Rle(height_px, width_px, counts[begin : begin + length])
        begin += length


def pack_views(record: Record) -> tuple[Any, dict[str, Any]]:
    """The gallery of a track that has one."""
    return pack(
        {
            "frames": np.array(record.view_frames, np.int64),
            "views": np.stack(record.views),
            "weights": np.array(record.view_weights, np.float64),
        }
    )


def unpack_views(found: Mapping[str, Any], record: Record) -> None:
    """Give a track the gallery that `pack_views` kept."""
    record.view_frames = found["frames"].tolist()
    record.views = list(found["views"])
    record.view_weights = found["weights"].tolist()
