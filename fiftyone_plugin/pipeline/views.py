"""Views of the objects of one frame, embedded and recorded: the evidence that identity rests on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fiftyone_plugin.config import EvidenceOptions
from fiftyone_plugin.embedders.evidence import coverage, crop_objects, judge_views
from fiftyone_plugin.interfaces import Embedder
from fiftyone_plugin.pipeline.recorder import Recorder
from fiftyone_plugin.types import BoolArray, FloatArray, Frame, FrameMasks

__all__ = ["collect_views"]


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
