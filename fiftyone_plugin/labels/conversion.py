"""One frame's part of a track to a FiftyOne `Detection`, and detections of many frames back to tracks.

Knows nothing of datasets. A FiftyOne box is ``[x, y, width, height]`` in parts of the frame; its mask covers the box.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import cv2
import fiftyone as fo
import numpy as np

from fiftyone_plugin import geometry
from fiftyone_plugin.errors import TrackFileError
from fiftyone_plugin.types import BoolArray, FloatArray, Rle, Source, Track

__all__ = ["detections_of", "tracks_of"]


def detections_of(
    tracks: Sequence[Track], instances: Mapping[int, Any], *, start: int, stop: int, height_px: int, width_px: int
) -> dict[int, Any]:
    """Detections of the frames ``[start, stop)``, by 0-based frame index; empty ones where nothing was tracked.

    Args:
        tracks: Tracks with unique ids.
        instances: One `fo.Instance` per track id.
        start: First frame.
        stop: Frame after the last.
        height_px: Of the frames.
        width_px: Of the frames.
    """
    frames: dict[int, list[Any]] = {index: [] for index in range(start, stop)}
    for track in tracks:
        first, last = np.searchsorted(track.frame_indices, [start, stop])
        for t in range(first, last):
            detection = _detection(track, t, instances[track.track_id], height_px=height_px, width_px=width_px)
            frames[int(track.frame_indices[t])].append(detection)
    return {index: fo.Detections(detections=found) for index, found in frames.items()}


def _detection(track: Track, t: int, instance: Any, *, height_px: int, width_px: int) -> Any:
    box, mask = track.boxes_xyxy[t], None
    if track.masks is not None:
        box, mask = _crop(geometry.decode_mask(track.masks[t]), box)
    # In double precision, so that reading gives back the very float32 pixels.
    x0, y0, x1, y1 = (float(v) for v in box)
    return fo.Detection(
        label=track.phrase,
        bounding_box=[x0 / width_px, y0 / height_px, (x1 - x0) / width_px, (y1 - y0) / height_px],
        mask=mask,
        confidence=float(track.scores[t]),
        index=track.track_id,
        instance=instance,
        source=str(track.sources[t]),
        mask_score=float(track.mask_scores[t]),
        identity_confidence=float(track.identity_confidence[t]),
    )


def _crop(mask: BoolArray, box: FloatArray) -> tuple[FloatArray, BoolArray]:
    """The mask inside its box; a mask that sticks out of the box widens it, since FiftyOne draws none outside."""
    part = geometry.crop_to_box(mask, box)
    if np.count_nonzero(part) < np.count_nonzero(mask):
        tight = geometry.mask_boxes(mask[None])[0]
        box = np.concatenate([np.minimum(box[:2], tight[:2]), np.maximum(box[2:], tight[2:])])
        part = geometry.crop_to_box(mask, box)
    return box, part.copy()


def tracks_of(frames: Iterable[tuple[int, Sequence[Any]]], *, height_px: int, width_px: int) -> tuple[Track, ...]:
    """Tracks from the detections of many frames.

    Detections belong to one track when they have the same label and `index`, or, without an index, the same
    `instance`; those with neither are left out. The index becomes the track id where that is unique, else tracks are
    numbered from 1 in the order they appear. Tracks are sorted by id. A track has masks only if all of its detections
    have one. What other tools do not write is filled in: scores of 1, and `Source.PROPAGATED`.

    Args:
        frames: 0-based frame index and `fo.Detection`s, in the order of the frames.
        height_px: Of the frames.
        width_px: Of the frames.

    Raises:
        TrackFileError: No detection has an identity, or two of one frame have the same.
    """
    members: dict[Hashable, list[tuple[int, Any]]] = defaultdict(list)
    without_identity = 0
    for frame_index, detections in frames:
        seen = set()
        for detection in detections:
            key = _identity(detection)
            if key is None:
                without_identity += 1
                continue
            if key in seen:
                raise TrackFileError(
                    f"frame {frame_index + 1}: two detections are {key[0]} {key[1]}; an index or instance may appear "
                    "once in a frame"
                )
            seen.add(key)
            members[key].append((frame_index, detection))
    if without_identity and not members:
        raise TrackFileError(
            f"none of {without_identity} detections has an index or an instance, so they make no tracks: track first"
        )
    indices = [found[0][1].index for found in members.values()]
    is_usable = len(set(indices)) == len(indices) and all(index is not None and index >= 1 for index in indices)
    ids = indices if is_usable else range(1, len(indices) + 1)
    return tuple(
        _track(track_id, found, height_px=height_px, width_px=width_px)
        for track_id, found in sorted(zip(ids, members.values(), strict=True), key=lambda pair: pair[0])
    )


def _identity(detection: Any) -> tuple[str, Hashable] | None:
    if detection.index is not None:
        return str(detection.label), detection.index
    instance = _attribute(detection, "instance")
    return None if instance is None else (str(detection.label), str(instance.id))


def _track(track_id: int, members: Sequence[tuple[int, Any]], *, height_px: int, width_px: int) -> Track:
    detections = [detection for _, detection in members]
    size = np.array([width_px, height_px, width_px, height_px], np.float64)
    boxes = np.array([d.bounding_box for d in detections], np.float64)
    boxes[:, 2:] += boxes[:, :2]
    boxes_xyxy = np.asarray(boxes * size, np.float32)
    masks: list[Rle] = []
    for detection, box in zip(detections, boxes_xyxy, strict=True):
        part = detection.get_mask()
        if part is None:
            break
        masks.append(_paste(np.asarray(part) != 0, box, height_px=height_px, width_px=width_px))
    return Track(
        track_id=int(track_id),
        phrase=str(detections[0].label),
        frame_indices=np.array([index for index, _ in members], np.int64),
        boxes_xyxy=boxes_xyxy,
        masks=tuple(masks) if len(masks) == len(detections) else None,
        scores=_values(detections, "confidence"),
        mask_scores=_values(detections, "mask_score"),
        identity_confidence=_values(detections, "identity_confidence"),
        sources=tuple(_source(d) for d in detections),
    )


def _paste(part: BoolArray, box: FloatArray, *, height_px: int, width_px: int) -> Rle:
    """Put a mask back into the frame.

    Ours cover the whole-pixel hull of the box. Other tools round the box, or keep masks of another size that is
    stretched over it.
    """
    empty = np.zeros((height_px, width_px), np.bool_)
    if geometry.crop_to_box(empty, box).shape != part.shape:
        box = np.round(box)
        rows, columns = geometry.crop_to_box(empty, box).shape
        if part.shape != (rows, columns):
            stretched = cv2.resize(part.astype(np.uint8), (columns, rows), interpolation=cv2.INTER_NEAREST)
            part = stretched.astype(np.bool_)
    return geometry.encode_mask(geometry.paste_mask(part, box, height_px=height_px, width_px=width_px))


def _values(detections: Sequence[Any], name: str) -> FloatArray:
    found = [_attribute(detection, name) for detection in detections]
    return np.array([1.0 if value is None else value for value in found], np.float32)


def _source(detection: Any) -> Source:
    value = _attribute(detection, "source")
    return Source(value) if value in set(Source) else Source.PROPAGATED


def _attribute(detection: Any, name: str) -> Any:
    """Value of an attribute that detections of other tools need not have."""
    return detection.get_field(name) if detection.has_field(name) else None
