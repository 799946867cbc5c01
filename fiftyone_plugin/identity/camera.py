"""Camera motion, taken out of tracks: where objects would have been, had the camera stood still.

A shaking camera makes every object jump, a panning one makes walkers stand and posts walk. Motion is judged in the
coordinates of one frame of the video instead. How the motion of the camera is found is not known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fiftyone_plugin.types import FloatArray, IntArray, Track

__all__ = ["CameraPath", "steady"]


@dataclass(frozen=True, slots=True)
class CameraPath:
    """For every frame, how its pixels map onto those of the first one: a shift, a turn and a scale."""

    first_frame: int
    """0-based."""
    to_first: NDArray[np.float64]
    """float64 (F, 2, 3): affine matrices of the frames ``first_frame, first_frame + 1, ...``."""

    def at(self, frame_indices: IntArray) -> NDArray[np.float64]:
        """Matrices (T, 2, 3) of frames; outside the path those of its ends hold."""
        return self.to_first[np.clip(frame_indices - self.first_frame, 0, len(self.to_first) - 1)]

    def move_boxes(self, boxes_xyxy: FloatArray, frame_indices: IntArray) -> FloatArray:
        """Boxes (T, 4) of frames (T,), in the first frame's pixels: centres are moved, sides scaled, nothing turned."""
        matrices = self.at(frame_indices)
        centres = (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]).astype(np.float64) / 2
        moved = np.einsum("tij,tj->ti", matrices[:, :, :2], centres) + matrices[:, :, 2]
        scale = np.sqrt(np.abs(np.linalg.det(matrices[:, :, :2])))[:, None]
        half = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]) / 2 * scale
        return np.concatenate([moved - half, moved + half], axis=1).astype(np.float32)


def steady(tracks: Sequence[Track], camera: CameraPath | None) -> tuple[Track, ...]:
    """Tracks as a camera that stands still would have seen them; without masks, which are not moved."""
    if camera is None or not len(camera.to_first):
        return tuple(tracks)
    return tuple(
        replace(t, boxes_xyxy=camera.move_boxes(t.boxes_xyxy, t.frame_indices), masks=None) if len(t) else t
        for t in tracks
    )
