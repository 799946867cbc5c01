"""What others do about identity while masks are propagated: Grounded-SAM-2's re-matching, and SAM2MOT's gates.

Both are written anew from their descriptions, on the same detector and propagator as ours, and both keep their ids
online: nothing is revised afterwards. Where a constant of theirs is changed, it is to their advantage, and said.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from scipy.optimize import linear_sum_assignment

from fiftyone_plugin.detectors.prompted import PromptedDetector
from fiftyone_plugin.geometry import box_iou, mask_boxes, mask_iou
from fiftyone_plugin.interfaces import FrameSource, PropagationSession, Propagator
from fiftyone_plugin.pipeline.recorder import Recorder
from fiftyone_plugin.types import BoolArray, Detections, FloatArray, Frame, FrameMasks, Seed, Source, Track

__all__ = ["rematching_walk", "sam2mot_walk"]

_MIN_REMATCH_IOU = 0.5
"""Grounded-SAM-2 has 0.8, at which the small bundled propagator loses most ids: its masks are looser."""

_RELIABLE, _PENDING, _SUSPICIOUS = 8.0, 6.0, 2.0
"""Object-score logits from which SAM2MOT trusts a track, might re-prompt it, and takes it for lost."""
_LOST_FRAMES = 25
_MIN_UNTRACKED = 0.5
_MIN_MATCH_IOU = 0.5
_MIN_LEAD = 0.3
"""A detection re-prompts a track only if it overlaps no other one nearly as well."""
_INTERACTION_IOU = 0.8
_SCORE_GAP = 2.0
_MEMORY_FRAMES = 10


def rematching_walk(
    source: FrameSource, detector: PromptedDetector, propagator: Propagator, *, every_frames: int = 16
) -> tuple[Track, ...]:
    """Detect anew every so many frames, hand ids over by mask overlap, and propagate from the new masks.

    Objects that the detector misses are dropped, those that overlap nobody get a new id, as there. Matching is one to
    one and optimal; theirs takes the first one above its gate.

    Reference: IDEA-Research/Grounded-SAM-2, the demo with continuous id.
    """
    recorder = Recorder("")
    session: PropagationSession | None = None
    ids: dict[int, int] = {}
    next_id = 1
    for n, frame in enumerate(source.frames()):
        seen = None if session is None else session.advance(frame)
        if n % every_frames == 0:
            found = detector.detect([frame])[0]
            session = propagator.open(height_px=frame.height_px, width_px=frame.width_px)
            session.advance(frame)
            if not len(found):
                ids, session = {}, None
                continue
            born = session.seed([Seed(k + 1, box_xyxy=box) for k, box in enumerate(found.boxes_xyxy)])
            old_ids = [] if seen is None else [ids[int(t)] for t in seen.track_ids]
            old_masks = np.zeros((0, *born.masks.shape[1:]), np.bool_) if seen is None else seen.masks
            pairs = _best_pairs(mask_iou(old_masks, born.masks), _MIN_REMATCH_IOU)
            ids = {}
            for k, slot in enumerate(born.track_ids.tolist()):
                if k in pairs:
                    ids[slot] = old_ids[pairs[k]]
                else:
                    ids[slot] = next_id
                    recorder.open(next_id, found.phrases[slot - 1])
                    next_id += 1
            seen = born
        if seen is not None:
            _record(recorder, seen, ids, Source.SEED if n % every_frames == 0 else Source.PROPAGATED)
    return recorder.tracks()


def sam2mot_walk(
    source: FrameSource, detector: PromptedDetector, propagator: Propagator, *, every_frames: int = 8
) -> tuple[Track, ...]:
    """Propagate with SAM2MOT's trajectory manager and cross-object interaction.

    New objects need half of their mask where no track is; a track whose object score is middling is re-prompted by a
    detection that is clearly its own; one that is lost for 25 frames ends; and of two tracks whose masks coincide, the
    one whose score is lower, or less steady, does not remember the frame.

    The detector looks every eighth frame, as often as ours does in an encounter; theirs looks at every frame.

    Reference: Jiang et al., "SAM2MOT: A Novel Paradigm of Multi-Object Tracking by Segmentation", arXiv 2504.04519,
    sections 3.2 and 3.3; the constants are those of its public re-implementations.
    """
    recorder = Recorder("")
    session: PropagationSession | None = None
    scores: dict[int, deque[float]] = {}
    lost: dict[int, int] = {}
    next_id = 1
    for n, frame in enumerate(source.frames()):
        session = session or propagator.open(height_px=frame.height_px, width_px=frame.width_px)
        seen = session.advance(frame)
        for track_id, value in zip(seen.track_ids.tolist(), seen.object_scores.tolist(), strict=True):
            scores.setdefault(track_id, deque(maxlen=_MEMORY_FRAMES)).append(value)
            lost[track_id] = lost.get(track_id, 0) + 1 if value <= _SUSPICIOUS else 0
        gone = [t for t in seen.track_ids.tolist() if lost[t] > _LOST_FRAMES]
        forgetful = [t for t in _occluded(seen, scores) if t not in gone]
        if forgetful:
            session.forget(forgetful)
        _record(recorder, seen, {t: t for t in seen.track_ids.tolist()}, Source.PROPAGATED)
        if gone:
            session.drop(gone)
        if n % every_frames == 0:
            found = detector.detect([frame])[0]
            rows = [k for k, t in enumerate(seen.track_ids.tolist()) if t not in gone]
            next_id = _manage(frame, found, seen, rows, session, recorder, next_id)
    return recorder.tracks()


def _manage(
    frame: Frame,
    found: Detections,
    seen: FrameMasks,
    rows: list[int],
    session: PropagationSession,
    recorder: Recorder,
    next_id: int,
) -> int:
    """Re-prompt tracks that need it, and start new ones; returns the next free id."""
    masks = seen.masks[rows]
    iou = box_iou(mask_boxes(masks), found.boxes_xyxy)
    pairs = _best_pairs(iou, _MIN_MATCH_IOU)
    for column, row in pairs.items():
        value = float(seen.object_scores[rows[row]])
        others = np.delete(iou[:, column], row)
        if _PENDING < value <= _RELIABLE and iou[row, column] - others.max(initial=0.0) >= _MIN_LEAD:
            track_id = int(seen.track_ids[rows[row]])
            again = session.seed([Seed(track_id, box_xyxy=found.boxes_xyxy[column])])
            _record(recorder, again, {track_id: track_id}, Source.REDETECTED)
    covered: BoolArray = np.asarray(masks.any(axis=0), np.bool_)
    for column in range(len(found)):
        if column in pairs:
            continue
        born = session.seed([Seed(next_id, box_xyxy=found.boxes_xyxy[column])])
        area = int(born.masks[0].sum())
        if area == 0 or int((born.masks[0] & ~covered).sum()) <= _MIN_UNTRACKED * area:
            session.drop([next_id])
            continue
        covered = np.asarray(covered | born.masks[0], np.bool_)
        recorder.open(next_id, found.phrases[column])
        _record(recorder, born, {next_id: next_id}, Source.SEED)
        next_id += 1
    return next_id


def _occluded(seen: FrameMasks, scores: dict[int, deque[float]]) -> list[int]:
    """Of every two tracks whose masks coincide, the one that is most likely behind."""
    iou = mask_iou(seen.masks, seen.masks)
    ids = seen.track_ids.tolist()
    behind: list[int] = []
    for i, j in np.argwhere(np.triu(iou > _INTERACTION_IOU, 1)).tolist():
        a, b = scores[ids[i]], scores[ids[j]]
        if abs(a[-1] - b[-1]) > _SCORE_GAP:
            behind.append(ids[i] if a[-1] < b[-1] else ids[j])
        else:
            behind.append(ids[i] if np.var(a) > np.var(b) else ids[j])
    return sorted(set(behind))


def _best_pairs(values: FloatArray, minimum: float) -> dict[int, int]:
    """Column to row of the best one-to-one matching above a gate."""
    if not values.size:
        return {}
    rows, columns = linear_sum_assignment(np.where(values >= minimum, values, 0.0), maximize=True)
    return {c: r for r, c in zip(rows.tolist(), columns.tolist(), strict=True) if values[r, c] >= minimum}


def _record(recorder: Recorder, seen: FrameMasks, ids: dict[int, int], source: Source) -> None:
    boxes = mask_boxes(seen.masks)
    for k, slot in enumerate(seen.track_ids.tolist()):
        if boxes[k, 2] > boxes[k, 0]:
            recorder.add(
                ids[slot],
                seen.frame_index,
                seen.masks[k],
                boxes[k],
                mask_score=float(seen.mask_scores[k]),
                object_score=float(seen.object_scores[k]),
                source=source,
            )
