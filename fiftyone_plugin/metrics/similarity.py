"""Which objects and which predictions are there in each frame, and how alike they are.

Everything is float64: the thresholds of the metrics are compared with ratios of whole numbers, and single precision
would fall on the wrong side of some. Knows nothing of what is computed from it.

Letters: G objects and P predicted tracks in the whole video, n and m of them in one frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from fiftyone_plugin.errors import OptionError, TrackFileError
from fiftyone_plugin.types import IntArray, Rle, Track

__all__ = ["FramePair", "Pairing", "Similarity", "pair_tracks"]

Similarity = Literal["auto", "box", "mask"]

Float64Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FramePair:
    """What is there in one frame."""

    frame_index: int
    objects: IntArray
    """int64 (n,): rows of the ground truth, each once."""
    predictions: IntArray
    """int64 (m,): rows of the predictions, each once."""
    similarity: Float64Array
    """float64 (n, m) in [0, 1]."""


@dataclass(frozen=True, slots=True)
class Pairing:
    """Ground truth and predictions of a video, frame by frame. A row is a position in the sequence that was given."""

    object_ids: tuple[int, ...]
    """`track_id` of the G objects by row."""
    prediction_ids: tuple[int, ...]
    """`track_id` of the P predicted tracks by row."""
    frames: tuple[FramePair, ...]
    """Frames in which there is anything, in order."""

    @property
    def object_counts(self) -> IntArray:
        """int64 (G,): frames in which each object is there."""
        return _count([f.objects for f in self.frames], len(self.object_ids))

    @property
    def prediction_counts(self) -> IntArray:
        """int64 (P,): frames in which each predicted track is there."""
        return _count([f.predictions for f in self.frames], len(self.prediction_ids))


def _count(rows: list[IntArray], size: int) -> IntArray:
    return np.bincount(np.concatenate([np.zeros(0, np.int64), *rows]), minlength=size).astype(np.int64)


def pair_tracks(
    ground_truth: Sequence[Track],
    predictions: Sequence[Track],
    *,
    similarity: Similarity = "auto",
    per_class: bool = False,
) -> Pairing:
    """Compute the similarity of everything that is there in the same frame.

    Args:
        ground_truth: The objects, with unique ids. Tracks without frames are left out.
        predictions: The tracks to be measured, with unique ids.
        similarity: ``mask`` is mask IoU, ``box`` is box IoU; ``auto`` takes masks where all tracks have them.
        per_class: Give pairs of different phrases similarity 0.

    Raises:
        OptionError: An unknown similarity, or ``mask`` where a track has none.
        TrackFileError: Two tracks of one side share an id, or masks differ in frame size.
    """
    objects = [t for t in ground_truth if len(t)]
    tracks = [t for t in predictions if len(t)]
    for side, members in (("ground truth", objects), ("predictions", tracks)):
        if len({t.track_id for t in members}) != len(members):
            raise TrackFileError(f"{side}: two tracks have one id: ids must be unique within a video")
    with_masks = _uses_masks(objects, tracks, similarity)
    if per_class:
        phrases_a = np.array([t.phrase for t in objects], np.str_)
        phrases_b = np.array([t.phrase for t in tracks], np.str_)
        is_allowed = phrases_a[:, None] == phrases_b[None]
    else:
        is_allowed = np.ones((len(objects), len(tracks)), np.bool_)

    left, right = _by_frame(objects), _by_frame(tracks)
    nothing = np.zeros((0, 2), np.int64)
    frames = []
    for index in sorted(left.keys() | right.keys()):
        a, b = left.get(index, nothing), right.get(index, nothing)
        if with_masks:
            values = _mask_iou(_masks(objects, a), _masks(tracks, b))
        else:
            values = _box_iou(_boxes(objects, a), _boxes(tracks, b))
        values *= is_allowed[np.ix_(a[:, 0], b[:, 0])]
        frames.append(FramePair(index, a[:, 0], b[:, 0], values))
    return Pairing(tuple(t.track_id for t in objects), tuple(t.track_id for t in tracks), tuple(frames))


def _uses_masks(objects: list[Track], tracks: list[Track], similarity: str) -> bool:
    if similarity not in ("auto", "box", "mask"):
        raise OptionError(f"similarity = {similarity!r}: must be auto, box or mask")
    have_masks = all(t.masks is not None for t in [*objects, *tracks])
    if similarity == "mask" and not have_masks:
        raise OptionError("similarity = 'mask': every track must have masks; use 'box', or 'auto'")
    return similarity == "mask" or (similarity == "auto" and have_masks)


def _by_frame(tracks: list[Track]) -> dict[int, IntArray]:
    """Frame index to int64 (n, 2): row of the track, and position in it."""
    if not tracks:
        return {}
    frames = np.concatenate([t.frame_indices for t in tracks])
    rows = np.concatenate([np.full(len(t), k) for k, t in enumerate(tracks)])
    places = np.concatenate([np.arange(len(t)) for t in tracks])
    order = np.lexsort((rows, frames))
    members = np.stack([rows, places], axis=1)[order].astype(np.int64)
    numbers, starts = np.unique(frames[order], return_index=True)
    return dict(zip(numbers.tolist(), np.split(members, starts[1:]), strict=True))


def _boxes(tracks: list[Track], members: IntArray) -> Float64Array:
    return np.array([tracks[row].boxes_xyxy[place] for row, place in members.tolist()], np.float64).reshape(-1, 4)


def _masks(tracks: list[Track], members: IntArray) -> list[Rle]:
    return [(tracks[row].masks or ())[place] for row, place in members.tolist()]


def _box_iou(a: Float64Array, b: Float64Array) -> Float64Array:
    """Every pair: (n, 4), (m, 4) to (n, m)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    both = np.clip(high - low, 0, None).prod(axis=2)
    areas_a, areas_b = (np.clip(v[:, 2:] - v[:, :2], 0, None).prod(axis=1) for v in (a, b))
    union = areas_a[:, None] + areas_b[None] - both
    return np.asarray(np.divide(both, union, out=np.zeros_like(both), where=union > 0), np.float64)


def _mask_iou(a: list[Rle], b: list[Rle]) -> Float64Array:
    """Every pair: n and m masks to (n, m)."""
    sizes = {(r.height_px, r.width_px) for r in [*a, *b]}
    if len(sizes) > 1:
        raise TrackFileError(
            f"masks of {' and '.join(f'{w}x{h}' for h, w in sorted(sizes))}: must be of one frame size"
        )
    if not a or not b:
        return np.zeros((len(a), len(b)))
    values: Any = coco.iou([_as_coco(r) for r in a], [_as_coco(r) for r in b], [0] * len(b))
    return np.nan_to_num(np.asarray(values, np.float64))


def _as_coco(rle: Rle) -> dict[str, Any]:
    return {"size": [rle.height_px, rle.width_px], "counts": rle.counts}
