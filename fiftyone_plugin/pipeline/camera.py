"""How the camera moved from frame to frame, told from the background.

Corners outside the tracked objects are followed with pyramidal Lucas-Kanade, and a shift, turn and scale is fitted to
them with RANSAC (OpenCV's `calcOpticalFlowPyrLK` and `estimateAffinePartial2D`), on a small grey copy of the frame.
Where too few corners agree, the camera is taken to stand still for that frame.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from fiftyone_plugin.identity.camera import CameraPath
from fiftyone_plugin.types import FloatArray, Frame

__all__ = ["CameraWatch"]

_WIDTH_PX = 320
"""Of the grey copy; smaller frames are taken as they are."""
_MAX_CORNERS = 200
_CORNER_QUALITY = 0.01
_CORNER_DISTANCE_PX = 8
_ERROR_PX = 1.5
_MIN_CORNERS = 12
_MIN_INLIERS = 0.5
"""Of the corners that were followed."""
_MARGIN = 0.1
"""Boxes are enlarged by this part before they are left out."""
_STILL = 0.001
"""A motion that moves no corner of the frame by more than this part of its width is none: a shadow wanders, too."""


@dataclass(slots=True)
class CameraWatch:
    """Follows the camera; holds one small grey frame and six numbers for every frame seen."""

    _first: int | None = None
    _grey: NDArray[np.uint8] | None = None
    _corners: NDArray[np.float32] | None = None
    _to_first: list[NDArray[np.float64]] = field(default_factory=list)

    @property
    def path(self) -> CameraPath | None:
        """All that was seen so far; None if nothing was, or the camera never moved."""
        if self._first is None or all(np.array_equal(m, np.eye(2, 3)) for m in self._to_first):
            return None
        return CameraPath(self._first, np.stack(self._to_first))

    def see(self, frame: Frame, boxes_xyxy: FloatArray) -> None:
        """Take the next frame.

        Args:
            frame: Follows the one before.
            boxes_xyxy: float32 (K, 4), what moves by itself, in this frame.
        """
        if self._first is None:
            self._first = frame.index
            self._to_first.append(np.eye(2, 3))
        else:
            step = self._step(grey := _grey(frame), frame)
            self._to_first.append(_chained(self._to_first[-1], step))
            self._grey = grey
        if self._grey is None:
            self._grey = _grey(frame)
        self._corners = self._find_corners(frame, boxes_xyxy)

    def _step(self, grey: NDArray[np.uint8], frame: Frame) -> NDArray[np.float64]:
        """From the pixels of this frame to those of the one before: (2, 3)."""
        still = np.eye(2, 3)
        if self._grey is None or self._corners is None or len(self._corners) < _MIN_CORNERS:
            return still
        followed, found, _ = cv2.calcOpticalFlowPyrLK(self._grey, grey, self._corners, None)
        good = found.ravel() == 1
        if int(good.sum()) < _MIN_CORNERS:
            return still
        matrix, inliers = cv2.estimateAffinePartial2D(
            followed[good], self._corners[good], method=cv2.RANSAC, ransacReprojThreshold=_ERROR_PX
        )
        if matrix is None or float(np.mean(inliers)) < _MIN_INLIERS:
            return still
        step = np.asarray(matrix, np.float64)
        step[:, 2] *= frame.width_px / grey.shape[1]
        corners = np.array([[0, 0, 1], [frame.width_px, frame.height_px, 1]], np.float64)
        return still if float(np.abs(corners @ step.T - corners[:, :2]).max()) < _STILL * frame.width_px else step

    def _find_corners(self, frame: Frame, boxes_xyxy: FloatArray) -> NDArray[np.float32] | None:
        assert self._grey is not None
        height, width = self._grey.shape
        background = np.full((height, width), 255, np.uint8)
        scale = width / frame.width_px
        for x0, y0, x1, y1 in boxes_xyxy.tolist():
            dx, dy = (x1 - x0) * _MARGIN, (y1 - y0) * _MARGIN
            left, top = max(0, int((x0 - dx) * scale)), max(0, int((y0 - dy) * scale))
            background[top : int((y1 + dy) * scale) + 1, left : int((x1 + dx) * scale) + 1] = 0
        corners = cv2.goodFeaturesToTrack(
            self._grey, _MAX_CORNERS, _CORNER_QUALITY, _CORNER_DISTANCE_PX, mask=background
        )
        return None if corners is None else np.asarray(corners, np.float32)


def _grey(frame: Frame) -> NDArray[np.uint8]:
    grey = cv2.cvtColor(frame.image_rgb, cv2.COLOR_RGB2GRAY)
    if frame.width_px > _WIDTH_PX:
        height = max(1, round(frame.height_px * _WIDTH_PX / frame.width_px))
        grey = cv2.resize(grey, (_WIDTH_PX, height), interpolation=cv2.INTER_AREA)
    return np.asarray(grey, np.uint8)


def _chained(outer: NDArray[np.float64], inner: NDArray[np.float64]) -> NDArray[np.float64]:
    """The affine map that goes through `inner` first."""
    square = np.vstack([inner, [0.0, 0.0, 1.0]])
    return np.asarray(outer @ square)
