from __future__ import annotations

import cv2
import numpy as np
import pytest

from fiftyone_plugin.pipeline.camera import CameraWatch
from fiftyone_plugin.types import Frame

HEIGHT, WIDTH = 120, 160
NOBODY = np.zeros((0, 4), np.float32)


@pytest.fixture(scope="module")
def ground() -> np.ndarray:
    """Grey blobs, larger than a frame by 60 pixels all round."""
    noise = np.random.default_rng(3).random((HEIGHT + 120, WIDTH + 120)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    return np.repeat((smooth * 255).astype(np.uint8)[..., None], 3, axis=2)


def frame(ground: np.ndarray, index: int, x: int, y: int) -> Frame:
    """What a camera sees whose view begins at (60 + x, 60 + y)."""
    return Frame(index, index / 15, np.ascontiguousarray(ground[60 + y : 60 + y + HEIGHT, 60 + x : 60 + x + WIDTH]))


def test_panning_camera_is_followed(ground: np.ndarray) -> None:
    watch = CameraWatch()
    views = [(3 * k, -2 * k) for k in range(12)]
    for k, (x, y) in enumerate(views):
        watch.see(frame(ground, k, x, y), NOBODY)
    assert watch.path is not None
    centre = np.array([WIDTH / 2, HEIGHT / 2, 1.0])
    assert np.abs(watch.path.to_first @ centre - (centre[:2] + np.array(views))).max() < 1.0


def test_still_camera_has_no_path(ground: np.ndarray) -> None:
    watch = CameraWatch()
    for k in range(4):
        watch.see(frame(ground, k, 0, 0), NOBODY)
    assert watch.path is None


@pytest.mark.parametrize("is_left_out", [True, False])
def test_what_moves_by_itself_is_left_out(ground: np.ndarray, is_left_out: bool) -> None:
    """Something that fills most of the picture walks before a camera that stands still."""
    watch = CameraWatch()
    for k in range(6):
        still = frame(ground, k, 0, 0).image_rgb.copy()
        still[10:110, 10:150] = frame(ground, k, 3 * k, 0).image_rgb[10:110, 10:150]
        box = np.array([[8, 8, 152, 112]], np.float32)
        watch.see(Frame(k, k / 15, still), box if is_left_out else NOBODY)
    assert (watch.path is None) == is_left_out


def test_frames_without_anything_to_follow_are_taken_as_still() -> None:
    watch = CameraWatch()
    for k in range(3):
        watch.see(Frame(k, k / 15, np.full((HEIGHT, WIDTH, 3), 90, np.uint8)), NOBODY)
    assert watch.path is None
