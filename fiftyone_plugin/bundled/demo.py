"""The demo clip: four sheep that cross, hide behind a tree, leave and return, and a dog; with its ground truth.

320 x 256 pixels, 120 frames, 15 a second. Knows nothing of trackers. The tree is scenery and has no track.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from fiftyone_plugin.geometry import decode_mask, mask_boxes
from fiftyone_plugin.types import Rle, Source, Track
from fiftyone_plugin.weights import BUNDLED_DIRECTORY

__all__ = ["DEMO_PROMPT", "demo_ground_truth", "demo_video_path"]

DEMO_PROMPT = "sheep. dog."
"""Finds everybody in the clip."""

_DIRECTORY = BUNDLED_DIRECTORY / "demo"


def demo_video_path() -> Path:
    """The clip, an H.264 file."""
    return _DIRECTORY / "flock.mp4"


def demo_ground_truth() -> tuple[Track, ...]:
    """The true tracks, ids 1 to 5, with the masks of what is seen; frames with fewer than 30 pixels are left out."""
    content = json.loads((_DIRECTORY / "flock.json").read_text(encoding="ascii"))
    height, width = content["height_px"], content["width_px"]
    tracks = []
    for entry in content["tracks"]:
        masks = tuple(Rle(height, width, counts.encode("ascii")) for counts in entry["masks"])
        certain = np.ones(len(masks), np.float32)
        tracks.append(
            Track(
                track_id=entry["track_id"],
                phrase=entry["phrase"],
                frame_indices=np.array(entry["frames"], np.int64),
                boxes_xyxy=mask_boxes(np.stack([decode_mask(mask) for mask in masks])),
                masks=masks,
                scores=certain,
                mask_scores=certain,
                identity_confidence=certain,
                sources=(Source.SEED, *[Source.PROPAGATED] * (len(masks) - 1)),
            )
        )
    return tuple(tracks)
