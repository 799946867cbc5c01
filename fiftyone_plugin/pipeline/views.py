"""Views of the objects of one frame, embedded and recorded: the evidence that identity rests on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import percentile_filter

from fiftyone_plugin.config import EvidenceOptions
from fiftyone_plugin.embedders.evidence import coverage, crop_objects, judge_views
from fiftyone_plugin.geometry import area_px, box_areas
from fiftyone_plugin.interfaces import Embedder
from fiftyone_plugin.pipeline.recorder import Recorder
from fiftyone_plugin.types import BoolArray, FloatArray, Frame, FrameMasks, Track

__all__ = ["collect_views", "usual_by_own_area"]

_USUAL_REACH_ROWS = 48
_USUAL_PERCENTILE = 90
"""What hides an object makes it smaller, never larger, and it may be half hidden for longer than it is whole. With the
median of 32 rows to both sides instead, the true tracks of 6 in 57 drawn clips were changed; with this, those of 4 in
88, all of animals that nobody can tell apart."""


def collect_views(
    frame: Frame,
    seen: FrameMasks,
    boxes_xyxy: FloatArray,
    usual_areas: Sequence[float],
    *,
    recorder: Recorder,
    embedder: Embedder,
    options: EvidenceOptions,
    wanted: BoolArray | None = None,
    is_founded: BoolArray | None = None,
    is_scored: bool = True,
) -> None:
    """Embed and record whatever says something.

    Args:
        frame: The frame.
        seen: K masks.
        boxes_xyxy: float32 (K, 4), their boxes.
        usual_areas: K areas to compare with, square pixels; 0 is unknown.
        recorder: Is added to.
        embedder: Makes the embeddings.
        options: What counts.
        wanted: bool (K,), rows to consider; all by default. The others still make views unclean.
        is_founded: bool (K,), False for masks that the detector disagrees with: they make no other view unclean.
        is_scored: Whether the propagator made these masks, and its scores mean something.
    """
    if not len(seen) or frame.index % options.every_frames:
        return
    is_seen, weights = judge_views(
        boxes_xyxy,
        covered=coverage(seen.masks, boxes_xyxy, is_founded=is_founded),
        areas_px=np.array([np.count_nonzero(mask) for mask in seen.masks], np.float32),
        object_scores=seen.object_scores,
        mask_scores=seen.mask_scores if is_scored else None,
        median_areas_px=np.asarray(usual_areas, np.float32),
        height_px=frame.height_px,
        width_px=frame.width_px,
        options=options,
    )
    clean = np.flatnonzero(is_seen if wanted is None else is_seen & wanted)
    if not len(clean):
        return
    embeddings = embedder.embed(crop_objects(frame, seen.masks[clean], boxes_xyxy[clean]))
    for k, row in enumerate(clean.tolist()):
        recorder.add_view(int(seen.track_ids[row]), frame.index, embeddings[k], float(weights[row]))


def usual_by_own_area(track: Track) -> FloatArray:
    """How much larger an object usually is around each row of a track, where all rows are known: float32 (N,).

    Areas are those of masks, or of boxes where there are none.
    """
    own = box_areas(track.boxes_xyxy)
    if track.masks is not None:
        own = np.array([area_px(m) for m in track.masks], np.float32)
    if not len(own):
        return own
    usual = percentile_filter(own, _USUAL_PERCENTILE, size=2 * _USUAL_REACH_ROWS + 1, mode="reflect")
    return np.asarray(usual / np.maximum(own, 1.0), np.float32)
