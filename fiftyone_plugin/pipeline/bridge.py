"""Gaps inside a track, filled: the object is propagated into each from both sides, and shown where that is convincing.

When a person says that two tracks are one object, the frames between them have no mask, although the object may be
visible there all the time. Where both walks agree, it is; where only one of them has something to show, that must move
and grow as an object does and lie on nobody else; where neither does, or the two disagree, the object stays absent.

Gaps that lie near each other in time are walked together, since most of a walk is spent on the frames and not on the
objects. Knows nothing of why there is a gap. Decodes frames twice, a few at a time, and holds masks as RLE.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from fiftyone_plugin.geometry import area_px, box_overlap, decode_mask, encode_mask, mask_boxes, rle_iou
from fiftyone_plugin.interfaces import FrameSource, PropagationSession, Propagator
from fiftyone_plugin.pipeline.backwards import backwards
from fiftyone_plugin.types import BoolArray, FloatArray, Frame, FrameMasks, Rle, Seed, Source, Track

__all__ = ["REACH_FRAMES", "BridgeOptions", "Gap", "Witness", "bridge", "walked_together"]

Witness: TypeAlias = Callable[[int, Frame, BoolArray, FloatArray], bool]
"""Whether a mask (H, W) with its box (4,) may show a track in a frame."""

REACH_FRAMES = 12
"""Seeds lie no further from the gap; a track must be given so far to both sides."""
_MAX_TOGETHER = 16
"""Gaps of one walk: bounds the memory of a session, and the work that is lost when somebody stops it."""
_SEEDS = 3
"""Clean masks that a walk begins with, where there are so many."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Frames ``[start, stop)`` on which a track has no mask, between two of its frames."""

    track_id: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class BridgeOptions:
    """When a mask in a gap is believed; set by hand, not fitted to anything."""

    min_mask_score: float = 0.3
    """Smallest mask score, in [0, 1]: a mask that has slid off its object on to something else has next to none."""
    min_agreement: float = 0.5
    """Mask IoU from which both walks show the same, in [0, 1]."""
    max_on_others: float = 0.5
    """Largest part of a mask that lies on masks of other tracks, in [0, 1]."""
    max_size_ratio: float = 2.5
    """Largest ratio of a mask's area, either way, to what lies between the areas at both ends of the gap."""
    max_step: float = 0.5
    """Longest way of an object from one frame to the next, in sizes (roots of its box's area)."""
    max_clean_overlap: float = 0.05
    """A mask is a clean seed if no more of its box lies in others' boxes, in [0, 1]."""
    min_clean_area: float = 0.6
    """And if it has at least this part of the object's median area."""


@dataclass(frozen=True, slots=True)
class _Carried:
    """What one walk shows in one frame."""

    mask: Rle
    box: FloatArray
    object_score: float
    mask_score: float


def bridge(
    source: FrameSource,
    propagator: Propagator,
    tracks: Sequence[Track],
    gaps: Sequence[Gap],
    *,
    options: BridgeOptions | None = None,
    witness: Witness | None = None,
) -> tuple[Track, ...]:
    """Propagate tracks into their gaps.

    Args:
        source: The video.
        propagator: Opens two sessions for all gaps that are `walked_together`.
        tracks: All tracks with masks near the gaps, `REACH_FRAMES` to both sides; ids are unique.
        gaps: Of these tracks; those that come first have the first say where two want the same pixels.
        options: When a mask is believed.
        witness: Is asked about every mask besides.

    Returns:
        Per gap that anything was found for, a track of the same id on the frames that get a mask; it takes no pixel
        that another track, or an earlier one of these, has there. Identity confidence is the lower one of both ends.
    """
    options = options or BridgeOptions()
    known = {t.track_id: t for t in tracks if t.masks is not None}
    everybody = list(known.values())
    found: list[Track] = []
    for together in walked_together([g for g in gaps if g.track_id in known]):
        bridges = [_Bridge(known[g.track_id], g, everybody, options, witness) for g in together]
        bridges = [b for b in bridges if b.has_both_ends]
        _walk_all(source, propagator, bridges)
        for b in bridges:
            others = [t for t in (*everybody, *found) if t.track_id != b.gap.track_id]
            piece = b.build(_masks_by_frame(others, b.gap))
            if piece is not None:
                found.append(piece)
    return tuple(found)


def walked_together(gaps: Sequence[Gap]) -> list[list[Gap]]:
    """Gaps whose surroundings overlap in time, in the order given; no group has two gaps of one track."""
    groups: list[list[Gap]] = []
    for gap in sorted(gaps, key=lambda g: (g.start, g.stop, g.track_id)):
        group = groups[-1] if groups else []
        is_near = any(gap.start - REACH_FRAMES < g.stop + REACH_FRAMES for g in group)
        if is_near and len(group) < _MAX_TOGETHER and all(g.track_id != gap.track_id for g in group):
            group.append(gap)
        else:
            groups.append([gap])
    order = {gap: place for place, gap in enumerate(gaps)}
    return [sorted(group, key=lambda g: order[g]) for group in groups]


def _walk_all(source: FrameSource, propagator: Propagator, bridges: Sequence[_Bridge]) -> None:
    """Carry every object into its gap, from before it and from after it."""
    if bridges:
        first, last = min(min(b.ahead) for b in bridges), max(max(b.back) for b in bridges)
        stop, start = max(b.gap.stop for b in bridges), min(b.gap.start for b in bridges)
        _walk(source.frames(first, stop), propagator, {b: b.ahead for b in bridges}, is_backward=False)
        _walk(backwards(source, start, last + 1), propagator, {b: b.back for b in bridges}, is_backward=True)


def _walk(
    frames: Iterable[Frame],
    propagator: Propagator,
    seeds: Mapping[_Bridge, Mapping[int, BoolArray]],
    *,
    is_backward: bool,
) -> None:
    session: PropagationSession | None = None
    for frame in frames:
        session = session or propagator.open(height_px=frame.height_px, width_px=frame.width_px)
        seen = session.advance(frame)
        rows = {track_id: row for row, track_id in enumerate(seen.track_ids.tolist())}
        for b in seeds:
            if frame.index not in seeds[b] and b.gap.track_id in rows:
                b.take(frame, seen, rows[b.gap.track_id], is_backward=is_backward)
        over = [b.gap.track_id for b in seeds if frame.index == (b.gap.start if is_backward else b.gap.stop - 1)]
        session.drop([track_id for track_id in over if track_id in rows])
        begun = [Seed(b.gap.track_id, mask=masks[frame.index]) for b, masks in seeds.items() if frame.index in masks]
        if begun:
            session.seed(begun)


def _masks_by_frame(tracks: Sequence[Track], gap: Gap) -> dict[int, list[Rle]]:
    found: dict[int, list[Rle]] = {}
    for track in tracks:
        first, last = np.searchsorted(track.frame_indices, [gap.start, gap.stop])
        for row in range(first, last):
            if track.masks is not None:
                found.setdefault(int(track.frame_indices[row]), []).append(track.masks[row])
    return found


class _Bridge:
    """One gap."""

    def __init__(
        self, track: Track, gap: Gap, tracks: Sequence[Track], options: BridgeOptions, witness: Witness | None
    ) -> None:
        self.gap = gap
        self._track, self._options, self._witness = track, options, witness
        self._others: Mapping[int, Sequence[Rle]] = {}
        self._forward: dict[int, _Carried] = {}
        self._backward: dict[int, _Carried] = {}
        frames = track.frame_indices
        low, high = gap.start - REACH_FRAMES, gap.stop + REACH_FRAMES
        self._before = np.flatnonzero((frames >= low) & (frames < gap.start))
        self._after = np.flatnonzero((frames >= gap.stop) & (frames < high))
        self._is_clean = {int(r): self._judge_seed(int(r), tracks) for r in (*self._before, *self._after)}
        self.ahead = self._seeds(self._before[::-1])
        self.back = self._seeds(self._after)

    @property
    def has_both_ends(self) -> bool:
        """Whether it lies inside the track: there is something to propagate from before it and after it."""
        return bool(self.ahead and self.back)

    def take(self, frame: Frame, seen: FrameMasks, row: int, *, is_backward: bool) -> None:
        """Remember what a walk shows, where it shows something; frames where the object is absent are missing."""
        mask, score = seen.masks[row], float(seen.mask_scores[row])
        if not self.gap.start <= frame.index < self.gap.stop or not mask.any():
            return
        if seen.object_scores[row] > 0 and score >= self._options.min_mask_score:
            box = mask_boxes(mask[None])[0]
            if self._witness is None or self._witness(self.gap.track_id, frame, mask, box):
                walk = self._backward if is_backward else self._forward
                walk[frame.index] = _Carried(encode_mask(mask), box, float(seen.object_scores[row]), score)

    def build(self, others: Mapping[int, Sequence[Rle]]) -> Track | None:
        """The masks of the gap, once it was walked from both sides; None where there are none.

        Args:
            others: Masks of other tracks, by frame.
        """
        self._others = others
        forward, backward = self._forward, self._backward
        trusted = (self._trusted(forward, is_backward=False), self._trusted(backward, is_backward=True))
        shown = [
            (frame, carried)
            for frame in range(self.gap.start, self.gap.stop)
            if (carried := self._choose(frame, forward.get(frame), backward.get(frame), trusted)) is not None
        ]
        return self._piece(shown) if shown else None

    def _judge_seed(self, row: int, tracks: Sequence[Track]) -> bool:
        assert self._track.masks is not None
        frame, box = int(self._track.frame_indices[row]), self._track.boxes_xyxy[row : row + 1]
        boxes = [t.boxes_xyxy[k] for t in tracks if t is not self._track and (k := _row_at(t, frame)) is not None]
        if boxes and float(box_overlap(box, np.stack(boxes)).max()) > self._options.max_clean_overlap:
            return False
        side = self._before if row in self._before else self._after
        usual = float(np.median([area_px(self._track.masks[r]) for r in side.tolist()]))
        return area_px(self._track.masks[row]) >= self._options.min_clean_area * usual

    def _seeds(self, rows: Sequence[int] | np.ndarray) -> dict[int, BoolArray]:
        """Masks by frame to begin with; `rows` begin at the gap. Where none is clean, the one at the gap has to do."""
        assert self._track.masks is not None
        clean = [int(r) for r in rows if self._is_clean[int(r)]] or [int(r) for r in rows[:1]]
        picks = np.unique(np.linspace(0, len(clean) - 1, min(len(clean), _SEEDS)).round().astype(int))
        chosen = [clean[k] for k in picks.tolist()]
        return {int(self._track.frame_indices[r]): decode_mask(self._track.masks[r]) for r in chosen}

    def _trusted(self, walk: Mapping[int, _Carried], *, is_backward: bool) -> set[int]:
        """Frames on which a walk by itself is convincing: on nobody else, and of the size and on the way of the object.

        The way is followed from the last mask that was believed, and must still lead to the other end of the gap.
        """
        own, far = (self._after[0], self._before[-1]) if is_backward else (self._before[-1], self._after[0])
        last_frame, last_box = int(self._track.frame_indices[own]), self._track.boxes_xyxy[own]
        end_frame, end_box = int(self._track.frame_indices[far]), self._track.boxes_xyxy[far]
        believed = set()
        for frame in sorted(walk, reverse=is_backward):
            here = walk[frame]
            if (
                self._on_others(frame, here.mask) <= self._options.max_on_others
                and self._is_of_size(frame, here.mask)
                and self._can_reach(here.box, last_box, abs(frame - last_frame))
                and self._can_reach(here.box, end_box, abs(frame - end_frame))
            ):
                believed.add(frame)
                last_frame, last_box = frame, here.box
        return believed

    def _is_of_size(self, frame: int, mask: Rle) -> bool:
        assert self._track.masks is not None
        ends = (self._before[-1], self._after[0])
        times = [int(self._track.frame_indices[r]) for r in ends]
        sizes = [np.log(max(area_px(self._track.masks[r]), 1)) for r in ends]
        expected = float(np.interp(frame, times, sizes))
        return bool(abs(np.log(max(area_px(mask), 1)) - expected) <= np.log(self._options.max_size_ratio))

    def _can_reach(self, a: FloatArray, b: FloatArray, frames: int) -> bool:
        apart = float(np.linalg.norm((a[:2] + a[2:] - b[:2] - b[2:]) / 2))
        sides = [float(np.sqrt(max((box[2] - box[0]) * (box[3] - box[1]), 1.0))) for box in (a, b)]
        return apart <= self._options.max_step * max(sides) * (frames + 1)

    def _on_others(self, frame: int, mask: Rle) -> float:
        others = self._others.get(frame)
        if not others:
            return 0.0
        # The union matters: two neighbours may cover half of it each.
        taken = np.any([decode_mask(other) for other in others], axis=0)
        return float((decode_mask(mask) & taken).sum()) / max(area_px(mask), 1)

    def _choose(
        self, frame: int, forward: _Carried | None, backward: _Carried | None, trusted: tuple[set[int], set[int]]
    ) -> _Carried | None:
        walks = [(c, frame in sure) for c, sure in zip((forward, backward), trusted, strict=True)]
        free = [
            (c, is_sure)
            for c, is_sure in walks
            if c is not None and self._on_others(frame, c.mask) <= self._options.max_on_others
        ]
        if len(free) == 2:
            (first, _), (second, _) = free
            if float(rle_iou([first.mask], [second.mask])[0, 0]) >= self._options.min_agreement:
                return self._cut_free(frame, max(first, second, key=lambda c: c.mask_score))
        sure = [c for c, is_sure in free if is_sure]
        return self._cut_free(frame, sure[0]) if len(sure) == 1 else None

    def _cut_free(self, frame: int, carried: _Carried) -> _Carried:
        """Without the pixels that others have."""
        others = self._others.get(frame)
        if not others:
            return carried
        mask = decode_mask(carried.mask) & ~np.any([decode_mask(other) for other in others], axis=0)
        return _Carried(encode_mask(mask), mask_boxes(mask[None])[0], carried.object_score, carried.mask_score)

    def _piece(self, shown: Sequence[tuple[int, _Carried]]) -> Track:
        ends = [self._before[-1], self._after[0]]
        scores = np.array([c.object_score for _, c in shown], np.float32)
        return Track(
            track_id=self._track.track_id,
            phrase=self._track.phrase,
            frame_indices=np.array([frame for frame, _ in shown], np.int64),
            boxes_xyxy=np.stack([c.box for _, c in shown]),
            masks=tuple(c.mask for _, c in shown),
            scores=np.asarray(1 / (1 + np.exp(-np.clip(scores, -60, 60))), np.float32),
            mask_scores=np.array([c.mask_score for _, c in shown], np.float32),
            identity_confidence=np.full(len(shown), self._track.identity_confidence[ends].min(), np.float32),
            sources=(Source.PROPAGATED,) * len(shown),
        )


def _row_at(track: Track, frame: int) -> int | None:
    row = int(np.searchsorted(track.frame_indices, frame))
    return row if row < len(track) and track.frame_indices[row] == frame else None
