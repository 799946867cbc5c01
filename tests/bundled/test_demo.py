from __future__ import annotations

import numpy as np
import pytest

from fiftyone_plugin.bundled.demo import demo_ground_truth, demo_video_path
from fiftyone_plugin.geometry import decode_mask
from fiftyone_plugin.synthetic.truth import absences, contacts
from fiftyone_plugin.types import Track
from fiftyone_plugin.video import open_source


@pytest.fixture(scope="module")
def truth() -> tuple[Track, ...]:
    return demo_ground_truth()


def test_demo_has_four_sheep_and_a_dog_but_no_tree(truth: tuple[Track, ...]) -> None:
    assert [track.track_id for track in truth] == [1, 2, 3, 4, 5]
    assert sorted(track.phrase for track in truth) == ["dog", "sheep", "sheep", "sheep", "sheep"]


def test_demo_truth_lies_on_the_pictures(truth: tuple[Track, ...]) -> None:
    frames = list(open_source(demo_video_path()).frames())
    assert len(frames) == 120
    for track in truth:
        assert track.masks is not None
        assert track.frame_indices[-1] < 120
        for row in range(0, len(track), 9):
            mask, image = decode_mask(track.masks[row]), frames[int(track.frame_indices[row])].image_rgb.astype(int)
            assert mask.shape == image.shape[:2] == (256, 320)
            # grass is much greener than red and blue; wool, coats and marks are not
            greenness = image[..., 1] - (image[..., 0] + image[..., 2]) / 2
            grass = np.median(greenness[100:, :])
            assert np.median(greenness[mask]) < grass - 15


def test_demo_boxes_are_tight_and_inside(truth: tuple[Track, ...]) -> None:
    for track in truth:
        assert np.all(track.boxes_xyxy[:, :2] >= 0)
        assert np.all(track.boxes_xyxy[:, 2:] <= [320, 256])
        assert np.all(track.boxes_xyxy[:, 2:] > track.boxes_xyxy[:, :2])


def test_demo_sheep_cross_leave_and_return(truth: tuple[Track, ...]) -> None:
    assert len({c.track_ids for c in contacts(truth)}) >= 2
    assert sum(a.has_return and a.stop - a.start > 3 for a in absences(truth, frame_count=120)) >= 2
