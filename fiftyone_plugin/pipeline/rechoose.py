"""Masks of two tracks inside one window of time, chosen anew after somebody has said who is who on both sides of it.

The machinery is that of `choices`: per frame a track may keep the mask it has, take the one that the other has, or one
that is carried back into the window from the first clean frame after it. Here the window is given, and the identities
on both sides are a person's, not ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fiftyone_plugin.config import EvidenceOptions
from fiftyone_plugin.embedders.combined import part_sizes
from fiftyone_plugin.geometry import area_px, box_overlap, decode_mask
from fiftyone_plugin.identity.appearance import calibrate, pool, views_between
from fiftyone_plugin.interfaces import Embedder, FrameSource, Propagator
from fiftyone_plugin.pipeline.choices import Choices, Contact
from fiftyone_plugin.pipeline.recorder import Recorder
from fiftyone_plugin.pipeline.views import collect_views
from fiftyone_plugin.types import FrameMasks, Gallery, Rle, Track

__all__ = ["VIEW_FRAMES", "Rechosen", "Window", "rechoose"]

VIEW_FRAMES = 48
"""Looks are gathered so far before and after the window; tracks must be given as far."""
_VIEW_STEP = 4
_ANCHOR_REACH_FRAMES = 12
"""The clean frames beside the window lie no further from it."""
_MAX_OVERLAP = 0.05
"""Boxes that share more than this part of the own one touch: the frame is not clean."""
_MAX_ON_OTHERS = 0.5
"""A mask more of which lies on a third track is not taken."""


@dataclass(frozen=True, slots=True)
class Window:
    """Frames ``[start, stop)`` in which masks of two tracks may change."""

    track_ids: tuple[int, int]
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Rechosen:
    """What is shown anew."""

    masks: tuple[Track, ...] = ()
    """New masks under the ids of their tracks; one id may come several times, never with one frame twice."""
    hidden: frozenset[tuple[int, int]] = frozenset()
    """(track id, frame) where a mask is taken away."""


def rechoose(
    source: FrameSource,
    propagator: Propagator,
    embedder: Embedder,
    tracks: Sequence[Track],
    window: Window,
    *,
    evidence: EvidenceOptions | None = None,
) -> Rechosen:
    """Choose masks anew inside a window.

    Args:
        source: The video.
        propagator: Opens one session, backwards.
        embedder: Tells the tracks apart.
        tracks: All tracks with masks near the window, `VIEW_FRAMES` to both sides; ids are unique.
        window: Where, and whose. A track that has no clean mask soon after it stays as it is.
        evidence: What counts as a clean view.
    """
    usable = [t for t in tracks if t.masks is not None and len(t)]
    contacts = [c for i in window.track_ids if (c := _contact(i, usable, window)) is not None]
    if not contacts:
        return Rechosen()
    galleries = _galleries(source, embedder, usable, window, evidence or EvidenceOptions())
    looks = {i: pool([views_between(g, 0, int(g.frame_indices[-1]) + 1)]) for i, g in galleries.items() if len(g)}
    by_id = {t.track_id: t for t in usable}
    # In a swap, the mask that was carried into the window is the one that the other one has.
    a, b = window.track_ids
    partners = {i: j for i, j in ((a, b), (b, a)) if j in by_id}
    work = Choices(by_id, partners, looks, calibrate(usable, galleries, is_same_object={}), embedder)
    others = [t for t in usable if t.track_id not in window.track_ids]
    masks: list[Track] = []
    hidden: set[tuple[int, int]] = set()
    for contact, stretch in work.choose(source, propagator, contacts):
        free = [c for c in stretch if c.mask is None or not _is_taken(c.mask, c.frame, others)]
        piece = work.piece(contact, free)
        if piece is not None:
            masks.append(piece)
        hidden |= {(contact.track_id, chosen.frame) for chosen in free if chosen.mask is None}
    return Rechosen(tuple(masks), frozenset(hidden))


def _is_taken(mask: Rle, frame: int, others: Sequence[Track]) -> bool:
    """Whether a mask mostly lies on a track that nobody spoke of."""
    theirs = [
        decode_mask(t.masks[row]) for t in others if t.masks is not None and (row := _row_at(t, frame)) is not None
    ]
    if not theirs:
        return False
    return float((decode_mask(mask) & np.any(theirs, axis=0)).sum()) > _MAX_ON_OTHERS * area_px(mask)


def _contact(track_id: int, tracks: Sequence[Track], window: Window) -> Contact | None:
    """The window as one track sees it: with the last mask before it, and the first clean one after it."""
    track = next((t for t in tracks if t.track_id == track_id), None)
    if track is None:
        return None
    frames = track.frame_indices
    before = frames[(frames < window.start) & (frames >= window.start - _ANCHOR_REACH_FRAMES)]
    after = frames[(frames >= window.stop) & (frames < window.stop + _ANCHOR_REACH_FRAMES)]
    clean = next((f for f in after.tolist() if _is_apart(track, f, tracks)), None)
    if clean is None:
        return None
    return Contact(track_id, window.start, window.stop, int(before[-1]) if len(before) else -1, clean)


def _is_apart(track: Track, frame: int, tracks: Sequence[Track]) -> bool:
    box = _box_at(track, frame)
    others = [b for t in tracks if t is not track and (b := _box_at(t, frame)) is not None]
    return box is not None and (not others or float(box_overlap(box[None], np.stack(others)).max()) <= _MAX_OVERLAP)


def _box_at(track: Track, frame: int) -> np.ndarray | None:
    row = _row_at(track, frame)
    return None if row is None else track.boxes_xyxy[row]


def _row_at(track: Track, frame: int) -> int | None:
    row = int(np.searchsorted(track.frame_indices, frame))
    return row if row < len(track) and track.frame_indices[row] == frame else None


def _galleries(
    source: FrameSource, embedder: Embedder, tracks: Sequence[Track], window: Window, options: EvidenceOptions
) -> dict[int, Gallery]:
    """Clean views of all tracks on both sides of the window, from every few frames."""
    recorder = Recorder(embedder.name, part_sizes(embedder))
    areas = {}
    for t in tracks:
        recorder.open(t.track_id, t.phrase)
        areas[t.track_id] = float(np.median([area_px(m) for m in (t.masks or ())[::_VIEW_STEP]]))
    last = max(int(t.frame_indices[-1]) for t in tracks) + 1
    spans = (max(window.start - VIEW_FRAMES, 0), window.start), (window.stop, min(window.stop + VIEW_FRAMES, last))
    for start, stop in spans:
        if start >= stop:
            continue
        for frame in source.frames(start, stop):
            here = [(t, row) for t in tracks if (row := _row_at(t, frame.index)) is not None]
            if not here or (frame.index - start) % _VIEW_STEP:
                continue
            masks = np.stack([decode_mask(t.masks[row]) for t, row in here if t.masks is not None])
            seen = FrameMasks(
                frame.index,
                np.array([t.track_id for t, _ in here], np.int64),
                masks,
                np.ones(len(here), np.float32),
                np.full(len(here), 10.0, np.float32),
            )
            boxes = np.stack([t.boxes_xyxy[row] for t, row in here])
            usual = [areas[t.track_id] for t, _ in here]
            collect_views(
                frame,
                seen,
                boxes,
                usual,
                recorder=recorder,
                embedder=embedder,
                options=replace(options, every_frames=1),
                is_scored=False,
            )
    return recorder.galleries()
