from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fiftyone_plugin.identity.camera import CameraPath, steady
from fiftyone_plugin.identity.encounters import find_jumps


def shifts(*steps: tuple[float, float]) -> CameraPath:
    path = np.tile(np.eye(2, 3), (len(steps), 1, 1))
    path[:, :, 2] = steps
    return CameraPath(0, path)


def test_shift_of_the_camera_is_taken_out_of_boxes() -> None:
    camera = shifts((0, 0), (10, -4))
    moved = camera.move_boxes(np.array([[0, 0, 4, 2], [0, 0, 4, 2]], np.float32), np.array([0, 1]))
    assert moved.tolist() == [[0, 0, 4, 2], [10, -4, 14, -2]]


def test_zoom_scales_sides_about_the_moved_centre() -> None:
    matrix = np.array([[[2.0, 0, 0], [0, 2.0, 0]]])
    assert CameraPath(0, matrix).move_boxes(np.array([[1, 1, 3, 3]], np.float32), np.array([0])).tolist() == [
        [2, 2, 6, 6]
    ]


def test_frames_outside_the_path_take_its_ends() -> None:
    camera = CameraPath(5, shifts((1, 0), (2, 0)).to_first)
    assert camera.at(np.array([0, 5, 6, 99]))[:, 0, 2].tolist() == [1, 1, 2, 2]


def test_still_camera_leaves_the_very_same_tracks(make_track: Any) -> None:
    track = make_track(1, range(5))
    assert steady([track], None) == (track,)


@given(st.lists(st.tuples(st.floats(-200, 200), st.floats(-200, 200)), min_size=12, max_size=12))
def test_shaking_camera_makes_no_jump(make_track: Any, shake: list[tuple[float, float]]) -> None:
    """An object that stands still, seen by any camera, stands still again."""
    seen = np.array([[-x, -y, 20 - x, 20 - y] for x, y in shake])
    track = make_track(1, range(12), boxes=seen)
    assert not list(find_jumps(steady([track], shifts(*shake))[0]))
