"""One walk forward through the video: propagate, look again, start what is new, keep what was seen.

Propagated tracks are carriers here: nothing in this module says who is who. With repair on, a walk may end a carrier
that shows the same object as another one, and one that has been away for long; identity is settled afterwards from
the views. With repair off, it does plain propagation and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fiftyone_plugin.config import TrackingOptions
from fiftyone_plugin.detectors.prompted import PromptedDetector
from fiftyone_plugin.embedders.evidence import crop_objects
from fiftyone_plugin.geometry import box_iou, box_overlap, ellipse_mask, mask_boxes
from fiftyone_plugin.interfaces import Embedder, PropagationSession
from fiftyone_plugin.pipeline.associate import match
from fiftyone_plugin.pipeline.camera import CameraWatch
from fiftyone_plugin.pipeline.recorder import Recorder
from fiftyone_plugin.pipeline.views import collect_views
from fiftyone_plugin.types import BoolArray, Detections, FloatArray, Frame, FrameMasks, IntArray, Seed, Source

__all__ = ["STATE_CLASSES", "Birth", "Walk"]

SAME_OBJECT_IOU = 0.7
"""Two masks whose boxes overlap more than this show one object."""
_DUPLICATE_FRAMES = 12
"""A carrier that shows another one's object for so many frames is ended."""
_CONTACT_OVERLAP = 0.1
"""Boxes that cover each other by more than this part of the smaller one touch."""
_MAX_MISSES = 2
"""A carrier that the detector missed so often in a row, and that lies on what others show, is ended."""
_COVERED = 0.5
"""A mask lies on what others show if they cover more than this part of it."""
_MAX_REDUNDANT = 2
"""A carrier whose detection another one took so often in a row is ended."""
_LOOK_IN_CONTACT_FRAMES = 8
"""While two carriers touch, the detector looks at least this often."""
_LOOK_AFTER_FRAMES = 2
"""The detector looks again so many frames after an encounter or a reappearance."""
_MIN_LOOK_GAP = 4
"""But not within so many frames of the last look."""


@dataclass(frozen=True, slots=True)
class Birth:
    """A carrier that began after the first frame: its object may have been there before."""

    track_id: int
    frame_index: int


@dataclass(frozen=True, slots=True)
class _Tentative:
    frame_index: int
    phrase: str
    box_xyxy: FloatArray


STATE_CLASSES = (Birth, CameraWatch, _Tentative)
"""What the state of a walk is made of, besides plain values and arrays."""
_COLLABORATORS = frozenset({"_detector", "_session", "_embedder", "_recorder", "_options"})
"""What a walk is given, not what it knows."""


class Walk:
    """The state between two frames; its size depends on the live carriers only, the recorder's on what was found."""

    def __init__(
        self,
        detector: PromptedDetector,
        session: PropagationSession,
        embedder: Embedder,
        recorder: Recorder,
        options: TrackingOptions,
    ) -> None:
        self._detector = detector
        self._session = session
        self._embedder = embedder
        self._recorder = recorder
        self._options = options
        self._next_id = 1
        self._first: int | None = None
        self._last_look = -1
        self._pending_looks: set[int] = set()
        self._tentative: list[_Tentative] = []
        self._touching: set[tuple[int, int]] = set()
        self._absent_since: dict[int, int] = {}
        self._doubled_since: dict[tuple[int, int], int] = {}
        self._misses: dict[int, int] = {}
        self._redundant: dict[int, int] = {}
        self.births: list[Birth] = []
        self.camera = CameraWatch()
        """Where the camera went; nothing is seen of it with repair off."""
        self.warnings: list[str] = []

    def state(self) -> dict[str, Any]:
        """All that the next frames depend on, besides the session and the recorder."""
        return {name: value for name, value in vars(self).items() if name not in _COLLABORATORS}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on where another walk with the same collaborators was."""
        vars(self).update(state)

    @property
    def live_tracks(self) -> int:
        """Number of carriers now."""
        return len(self._session.track_ids)

    def step(self, frame: Frame) -> None:
        """Take the next frame."""
        if self._first is None:
            self._first = frame.index
        seen = self._session.advance(frame)
        boxes = mask_boxes(seen.masks)
        self._record(seen, boxes, Source.PROPAGATED)
        self._watch(frame.index, seen, boxes)
        self._forget_overlapped(seen, boxes)
        if self._options.identity.repair:
            self.camera.see(frame, boxes[boxes[:, 2] > boxes[:, 0]])
        if self._is_redetect_frame(frame.index):
            seen, boxes = self._look(frame, seen, boxes)
        self._collect_views(frame, seen, boxes)
        if self._options.identity.repair:
            self._end_doubles(frame, seen, boxes)
            self._release_absent(frame.index)

    def _record(self, seen: FrameMasks, boxes: FloatArray, source: Source) -> None:
        for k, track_id in enumerate(seen.track_ids.tolist()):
            if boxes[k, 2] > boxes[k, 0]:
                self._recorder.add(
                    track_id,
                    seen.frame_index,
                    seen.masks[k],
                    boxes[k],
                    mask_score=float(seen.mask_scores[k]),
                    object_score=float(seen.object_scores[k]),
                    source=source,
                )

    def _watch(self, frame_index: int, seen: FrameMasks, boxes: FloatArray) -> None:
        """Note contacts and absences; where one ends, the detector looks soon."""
        visible = boxes[:, 2] > boxes[:, 0]
        ids = seen.track_ids.tolist()
        overlap = box_overlap(boxes, boxes)
        overlap = np.maximum(overlap, overlap.T)
        touching = {
            (ids[i], ids[j])
            for i, j in np.argwhere(np.triu(overlap > _CONTACT_OVERLAP, 1)).tolist()
            if visible[i] and visible[j]
        }
        returned = [t for k, t in enumerate(ids) if visible[k] and t in self._absent_since]
        if touching and frame_index - self._last_look >= _LOOK_IN_CONTACT_FRAMES:
            self._pending_looks.add(frame_index)
        if self._touching - touching or returned:
            self._pending_looks.add(frame_index + _LOOK_AFTER_FRAMES)
        self._touching = touching
        for k, track_id in enumerate(ids):
            if visible[k]:
                self._absent_since.pop(track_id, None)
            else:
                self._absent_since.setdefault(track_id, frame_index)

    def _forget_overlapped(self, seen: FrameMasks, boxes: FloatArray) -> None:
        """Keep frames out of memory in which somebody else may be under the mask."""
        limit = self._options.propagation.max_memory_overlap
        if limit < 1:
            overlap = box_overlap(boxes, boxes)
            np.fill_diagonal(overlap, 0.0)
            self._session.forget(seen.track_ids[(overlap > limit).any(axis=1)].tolist())

    def _is_redetect_frame(self, frame_index: int) -> bool:
        every = self._options.association.redetect_every_frames
        first = self._first if self._first is not None else frame_index
        if frame_index == first:
            return True
        stride = self._options.propagation.frame_stride
        # New objects can be started only on frames that objects are carried to.
        if every == 0 or (frame_index - first) % stride:
            return False
        due = (frame_index - first) % every < stride
        called = any(f <= frame_index for f in self._pending_looks)
        if called:
            self._pending_looks = {f for f in self._pending_looks if f > frame_index}
        return due or (called and frame_index - self._last_look >= _MIN_LOOK_GAP)

    def _look(self, frame: Frame, seen: FrameMasks, boxes: FloatArray) -> tuple[FrameMasks, FloatArray]:
        """Let the detector look, match what it found, and start what is new."""
        self._last_look = frame.index
        found = self._detector.detect([frame])[0]
        visible = np.flatnonzero(boxes[:, 2] > boxes[:, 0])
        ids = seen.track_ids[visible].tolist()
        phrases = [self._recorder.phrase(t) for t in ids]
        pairs = match(
            boxes[visible],
            phrases,
            found.boxes_xyxy,
            found.phrases,
            min_iou=self._options.association.min_match_iou,
            likeness=self._likeness(frame, found, boxes[visible], ids),
        )
        matched = dict(pairs)
        for row, track_id in enumerate(ids):
            column = matched.get(row)
            shared = box_iou(boxes[visible][row : row + 1], found.boxes_xyxy)[0]
            if column is None and shared.max(initial=0.0) >= SAME_OBJECT_IOU:
                # Another carrier has this detection: it says nothing about this one, but that one of them is too many.
                self._redundant[track_id] = self._redundant.get(track_id, 0) + 1
                continue
            self._redundant[track_id] = 0
            self._recorder.add_look(track_id, frame.index, None if column is None else found.phrases[column])
            self._misses[track_id] = 0 if column is not None else self._misses.get(track_id, 0) + 1
        taken = {column for _, column in pairs}
        fresh = [n for n in range(len(found)) if n not in taken and not self._is_explained(found, n, boxes[visible])]
        seen, boxes = self._start(frame, found, fresh, seen, boxes)
        if self._options.identity.repair:
            self._end_unfounded(seen)
        return seen, boxes

    def _query(self, frame: Frame, box_xyxy: FloatArray) -> FloatArray:
        """Embedding of what lies in a box, of which there is no mask yet: an ellipse is more object than a box."""
        mask = ellipse_mask(box_xyxy, height_px=frame.height_px, width_px=frame.width_px)
        return np.asarray(self._embedder.embed(crop_objects(frame, mask[None], box_xyxy[None]))[0], np.float32)

    def _is_explained(self, found: Detections, n: int, boxes: FloatArray) -> bool:
        """A carrier already shows what this detection shows."""
        return bool(len(boxes)) and float(box_iou(found.boxes_xyxy[n : n + 1], boxes).max()) >= SAME_OBJECT_IOU

    def _likeness(self, frame: Frame, found: Detections, boxes: FloatArray, ids: list[int]) -> FloatArray | None:
        """Appearance of detections against galleries, only where overlap alone leaves a choice."""
        if not self._options.identity.repair or not len(found) or not len(ids):
            return None
        candidates = box_iou(boxes, found.boxes_xyxy) >= self._options.association.min_match_iou
        unclear = np.flatnonzero(candidates.sum(axis=0) > 1)
        if not len(unclear):
            return None
        result = np.full(candidates.shape, np.nan, np.float32)
        queries = [self._query(frame, found.boxes_xyxy[n]) for n in unclear.tolist()]
        for row, track_id in enumerate(ids):
            views = self._recorder.recent_views(track_id)
            if len(views):
                for k, n in enumerate(unclear.tolist()):
                    if candidates[row, n]:
                        result[row, n] = float(np.sort(views @ queries[k])[-3:].mean())
        return result

    def _start(
        self, frame: Frame, found: Detections, fresh: list[int], seen: FrameMasks, boxes: FloatArray
    ) -> tuple[FrameMasks, FloatArray]:
        """Start carriers on detections that nothing explains: at once on the first frame, later when seen twice."""
        association = self._options.association
        is_first = frame.index == self._first
        confirmed: list[int] = []
        waiting: list[_Tentative] = []
        for n in fresh:
            candidate = _Tentative(frame.index, found.phrases[n], found.boxes_xyxy[n])
            if is_first or association.confirm_within_frames == 0 or self._was_seen(candidate):
                confirmed.append(n)
            else:
                waiting.append(candidate)
        self._tentative = waiting
        if waiting:
            self._pending_looks.add(frame.index + association.confirm_within_frames)
        room = association.max_tracks - self.live_tracks
        if len(confirmed) > room:
            self.warnings.append(
                f"frame {frame.index}: {len(confirmed) - max(room, 0)} objects left out, "
                f"more than max_tracks = {association.max_tracks} at once"
            )
            confirmed = confirmed[: max(room, 0)]
        if not confirmed:
            return seen, boxes
        ids = list(range(self._next_id, self._next_id + len(confirmed)))
        born = self._session.seed([Seed(i, box_xyxy=found.boxes_xyxy[n]) for i, n in zip(ids, confirmed, strict=True)])
        rows = {track_id: k for k, track_id in enumerate(born.track_ids.tolist())}
        accepted: list[int] = []
        covered = self._founded_area(seen)
        for track_id, n in zip(ids, confirmed, strict=True):
            mask = born.masks[rows[track_id]]
            area = int(mask.sum())
            free = int((mask & ~covered).sum())
            if area == 0 or free < association.min_untracked_fraction * area:
                self._session.drop([track_id])
                continue
            covered |= mask
            accepted.append(track_id)
            self._recorder.open(track_id, found.phrases[n])
            self._recorder.add_look(track_id, frame.index, found.phrases[n])
            if not is_first:
                self.births.append(Birth(track_id, frame.index))
        self._next_id = ids[-1] + 1
        if not accepted:
            return seen, boxes
        keep = np.array([rows[t] for t in accepted])
        new = FrameMasks(
            frame.index,
            born.track_ids[keep],
            born.masks[keep],
            born.mask_scores[keep],
            born.object_scores[keep],
        )
        new_boxes = mask_boxes(new.masks)
        self._record(new, new_boxes, Source.SEED)
        return _joined(seen, new), np.concatenate([boxes, new_boxes])

    def _founded_area(self, seen: FrameMasks) -> BoolArray:
        """Union of the masks that the detector agreed with: a mask that ran over two animals covers neither of them."""
        return np.asarray(seen.masks[self._is_founded(seen)].any(axis=0), np.bool_)

    def _is_founded(self, seen: FrameMasks, *, max_misses: int = 1) -> BoolArray:
        """bool (K,): the detector has not missed the carrier so often in a row."""
        return np.array([self._misses.get(t, 0) < max_misses for t in seen.track_ids.tolist()], np.bool_)

    def _end_unfounded(self, seen: FrameMasks) -> None:
        """End carriers that have no detection of their own and lie on what others show."""
        area = self._founded_area(seen)
        gone = []
        for track_id, mask in zip(seen.track_ids.tolist(), seen.masks, strict=True):
            is_covered = (mask & area).sum() > _COVERED * mask.sum() > 0 and self._misses.get(track_id, 0) > 0
            if self._redundant.get(track_id, 0) >= _MAX_REDUNDANT or (
                is_covered and self._misses[track_id] >= _MAX_MISSES
            ):
                gone.append(track_id)
        if gone:
            self._drop(gone)

    def _was_seen(self, candidate: _Tentative) -> bool:
        """Whether an earlier look saw the same thing about here."""
        for earlier in self._tentative:
            if earlier.phrase == candidate.phrase:
                iou = float(box_iou(earlier.box_xyxy[None], candidate.box_xyxy[None])[0, 0])
                if iou > 0.2:
                    return True
        return False

    def _collect_views(self, frame: Frame, seen: FrameMasks, boxes: FloatArray) -> None:
        if self._options.identity.repair:
            collect_views(
                frame,
                seen,
                boxes,
                [self._recorder.median_area(t) for t in seen.track_ids.tolist()],
                recorder=self._recorder,
                embedder=self._embedder,
                options=self._options.evidence,
                is_founded=self._is_founded(seen, max_misses=_MAX_MISSES),
            )

    def _end_doubles(self, frame: Frame, seen: FrameMasks, boxes: FloatArray) -> None:
        """End the carrier that has been showing another one's object, the one that looked less like it before."""
        ids = seen.track_ids.tolist()
        iou = box_iou(boxes, boxes)
        now = {(ids[i], ids[j]) for i, j in np.argwhere(np.triu(iou >= SAME_OBJECT_IOU, 1)).tolist()}
        self._doubled_since = {pair: self._doubled_since.get(pair, frame.index) for pair in now}
        ended: set[int] = set()
        for pair, since in self._doubled_since.items():
            if frame.index - since >= _DUPLICATE_FRAMES and not ended & set(pair):
                row = ids.index(pair[0])
                query = self._embedder.embed(crop_objects(frame, seen.masks[[row]], boxes[[row]]))[0]
                likeness = {t: self._likeness_before(t, query, since) for t in pair}
                ended.add(min(pair, key=lambda t: (likeness[t], -t)))
        if ended:
            self._drop(sorted(ended))

    def _likeness_before(self, track_id: int, query: FloatArray, since: int) -> float:
        """How much a view resembles what a carrier showed before a moment; -1 where that was never seen clearly."""
        before = self._recorder.recent_views(track_id, before=since)
        return float(np.sort(before @ query)[-3:].mean()) if len(before) else -1.0

    def _release_absent(self, frame_index: int) -> None:
        limit = self._options.association.release_after_frames
        if limit:
            gone = [t for t, since in self._absent_since.items() if frame_index - since >= limit]
            if gone:
                self._drop(gone)

    def _drop(self, track_ids: list[int]) -> None:
        self._session.drop(track_ids)
        for track_id in track_ids:
            self._absent_since.pop(track_id, None)
        self._doubled_since = {p: s for p, s in self._doubled_since.items() if not set(p) & set(track_ids)}
        self._touching = {p for p in self._touching if not set(p) & set(track_ids)}


def _joined(a: FrameMasks, b: FrameMasks) -> FrameMasks:
    ids: IntArray = np.concatenate([a.track_ids, b.track_ids])
    return FrameMasks(
        a.frame_index,
        ids,
        np.concatenate([a.masks, b.masks]),
        np.concatenate([a.mask_scores, b.mask_scores]),
        np.concatenate([a.object_scores, b.object_scores]),
    )
