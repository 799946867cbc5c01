"""What a walk through the video leaves behind: masks as RLE, views, and what the detector said.

Everything dense is dropped with its frame. Views are thinned, so that a gallery never holds more than a fixed number.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fiftyone_plugin.geometry import encode_mask
from fiftyone_plugin.types import BoolArray, FloatArray, Gallery, Rle, Source, Support, Track

__all__ = ["MAX_VIEWS", "Record", "Recorder"]

MAX_VIEWS = 1024
"""Views kept of one track; when there are more, every other one of the older half goes."""


@dataclass(slots=True)
class Record:
    """What is known of one propagated track, column by column."""

    phrase: str
    frames: list[int] = field(default_factory=list)
    boxes: list[FloatArray] = field(default_factory=list)
    masks: list[Rle] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    mask_scores: list[float] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    recent_areas: deque[int] = field(default_factory=lambda: deque(maxlen=32))
    view_frames: list[int] = field(default_factory=list)
    views: list[NDArray[np.float16]] = field(default_factory=list)
    view_weights: list[float] = field(default_factory=list)
    look_frames: list[int] = field(default_factory=list)
    look_phrases: list[str] = field(default_factory=list)


class Recorder:
    """Collects observations of propagated tracks, in any order of frames."""

    def __init__(self, embedder_name: str, part_sizes: tuple[int, ...] = ()) -> None:
        """Begin empty, for views of an embedder of that name and `embedders.combined.part_sizes`."""
        self._embedder_name = embedder_name
        self._part_sizes = part_sizes
        self._records: dict[int, Record] = {}

    @property
    def records(self) -> dict[int, Record]:
        """The columns themselves, by track in the order they were opened, for `checkpoint`; changes go through."""
        return self._records

    def open(self, track_id: int, phrase: str) -> None:
        """Begin a track."""
        self._records[track_id] = Record(phrase)

    def phrase(self, track_id: int) -> str:
        """Phrase a track was seeded with."""
        return self._records[track_id].phrase

    def median_area(self, track_id: int) -> float:
        """Median mask area of the latest frames, square pixels; 0 before the first."""
        areas = self._records[track_id].recent_areas
        return float(np.median(areas)) if areas else 0.0

    def add(
        self,
        track_id: int,
        frame_index: int,
        mask: BoolArray,
        box_xyxy: FloatArray,
        *,
        mask_score: float,
        object_score: float,
        source: Source,
    ) -> None:
        """Record one mask; a second one for the same frame replaces the first (a seed after the propagation)."""
        record = self._records[track_id]
        if record.frames and record.frames[-1] == frame_index:
            for column in (
                record.frames,
                record.boxes,
                record.masks,
                record.scores,
                record.mask_scores,
                record.sources,
            ):
                column.pop()
        record.frames.append(frame_index)
        record.boxes.append(box_xyxy.astype(np.float32))
        record.masks.append(encode_mask(mask))
        record.scores.append(float(1 / (1 + np.exp(-np.clip(object_score, -60, 60)))))
        record.mask_scores.append(float(mask_score))
        record.sources.append(source)
        record.recent_areas.append(int(np.count_nonzero(mask)))

    def add_view(self, track_id: int, frame_index: int, embedding: FloatArray, weight: float) -> None:
        """Record one view; kept in half precision, since views are the largest thing that is held."""
        record = self._records[track_id]
        record.view_frames.append(frame_index)
        record.views.append(embedding.astype(np.float16))
        record.view_weights.append(weight)
        if len(record.views) > MAX_VIEWS:
            for column in (record.view_frames, record.views, record.view_weights):
                # The first view stays: it is what the track began with.
                del column[1 : MAX_VIEWS // 2 : 2]

    def add_look(self, track_id: int, frame_index: int, phrase: str | None) -> None:
        """Record what the detector said where the track was: a phrase, or None for nothing."""
        record = self._records[track_id]
        record.look_frames.append(frame_index)
        record.look_phrases.append(phrase or "")

    def recent_views(self, track_id: int, *, before: int | None = None, count: int = 24) -> FloatArray:
        """The latest embeddings of a track, float32 (M, D), optionally only those before a frame; (0, 0) if none."""
        record = self._records[track_id]
        views = [v for f, v in zip(record.view_frames, record.views, strict=True) if before is None or f < before]
        return np.stack(views[-count:]).astype(np.float32) if views else np.zeros((0, 0), np.float32)

    def tracks(self) -> tuple[Track, ...]:
        """All tracks that have a mask anywhere, by id, frames in order."""
        result = []
        for track_id, r in sorted(self._records.items()):
            if not r.frames:
                continue
            order = np.argsort(r.frames, kind="stable")
            result.append(
                Track(
                    track_id=track_id,
                    phrase=r.phrase,
                    frame_indices=np.asarray(r.frames, np.int64)[order],
                    boxes_xyxy=np.stack(r.boxes)[order],
                    masks=tuple(r.masks[i] for i in order),
                    scores=np.asarray(r.scores, np.float32)[order],
                    mask_scores=np.asarray(r.mask_scores, np.float32)[order],
                    identity_confidence=np.ones(len(order), np.float32),
                    sources=tuple(r.sources[i] for i in order),
                )
            )
        return tuple(result)

    def galleries(self) -> dict[int, Gallery]:
        """Clean views of every track that has any, in order of time."""
        result = {}
        for track_id, r in self._records.items():
            if r.views:
                order = np.argsort(r.view_frames, kind="stable")
                stacked = np.stack(r.views)
                r.views = list(stacked)  # the rows of one array: the views are the largest thing held, and not twice
                result[track_id] = Gallery(
                    track_id,
                    np.asarray(r.view_frames, np.int64)[order],
                    stacked if bool(np.all(np.diff(order) == 1)) else stacked[order],
                    np.asarray(r.view_weights, np.float32)[order],
                    self._embedder_name,
                    self._part_sizes,
                )
        return result

    def supports(self) -> dict[int, Support]:
        """What the detector said of every track it looked at."""
        return {
            track_id: Support(
                track_id,
                np.asarray(r.look_frames, np.int64),
                np.array([p != "" for p in r.look_phrases], np.bool_),
                tuple(r.look_phrases),
            )
            for track_id, r in self._records.items()
            if r.look_frames
        }
