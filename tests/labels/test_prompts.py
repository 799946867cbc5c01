"""Labels that point at objects: what becomes of boxes, masks, outlines and clicks."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

from fiftyone_plugin.errors import EditError, TrackFileError

pytestmark = pytest.mark.fiftyone


def mark(sample: Any, frame: int, field: str, labels: Any) -> None:
    sample.frames[frame][field] = labels
    sample.save()


def test_prompts_boxes_with_one_index_are_one_object(fo: ModuleType, labels: ModuleType, dataset: Any) -> None:
    sample = dataset.first()
    box = {"bounding_box": [0.25, 0.25, 0.5, 0.5]}
    mark(sample, 9, "m", fo.Detections(detections=[fo.Detection(label="cow", index=7, **box)]))
    both = [fo.Detection(label="cow", index=7, **box), fo.Detection(**box)]
    mark(sample, 2, "m", fo.Detections(detections=both))
    found = labels.object_prompts(sample, "m", phrase="thing")
    assert [(p.frame_index, p.seed.track_id, p.phrase) for p in found] == [
        (1, 1, "cow"),
        (1, 2, "thing"),
        (8, 1, "cow"),
    ]
    np.testing.assert_array_equal(found[0].seed.box_xyxy, [16, 12, 48, 36])


def test_prompts_masks_and_outlines_prompt_with_their_shape(fo: ModuleType, labels: ModuleType, dataset: Any) -> None:
    sample = dataset.first()
    part = np.zeros((12, 16), bool)
    part[:6] = True
    mark(sample, 1, "m", fo.Detections(detections=[fo.Detection(bounding_box=[0.25, 0.25, 0.25, 0.25], mask=part)]))
    (masked,) = labels.object_prompts(sample, "m")
    assert (int(masked.seed.mask.sum()), masked.seed.mask[12, 16], masked.seed.mask[18, 16]) == (96, True, False)
    triangle = fo.Polyline(label="tent", points=[[(0.25, 0.25), (0.75, 0.25), (0.5, 0.75)]], closed=True, filled=True)
    mark(sample, 3, "p", fo.Polylines(polylines=[triangle]))
    (outlined,) = labels.object_prompts(sample, "p")
    assert (outlined.frame_index, outlined.phrase) == (2, "tent")
    assert outlined.seed.mask[14, 32]
    assert not outlined.seed.mask[34, 18]


def test_prompts_clicks_on_and_beside_one_object(fo: ModuleType, labels: ModuleType, dataset: Any) -> None:
    sample = dataset.first()
    instance = fo.Instance()
    on = fo.Keypoint(label="cow", points=[(0.5, 0.5), (float("nan"), float("nan"))], instance=instance)
    beside = fo.Keypoint(label="cow", points=[(0.1, 0.1)], instance=instance, negative=True)
    mark(sample, 4, "k", fo.Keypoints(keypoints=[on, beside]))
    (clicked,) = labels.object_prompts(sample, "k")
    np.testing.assert_allclose(clicked.seed.points_xy, [[32, 24], [6.4, 4.8]], rtol=1e-6)
    assert clicked.seed.point_labels.tolist() == [1, 0]
    assert clicked.phrase == "cow"


def test_prompts_background_clicks_belong_to_the_object_of_their_index_or_to_all(
    fo: ModuleType, labels: ModuleType, dataset: Any
) -> None:
    sample = dataset.first()
    clicks = [
        fo.Keypoint(label="background", points=[(0.1, 0.1)], index=2),
        fo.Keypoint(label="cow", points=[(0.5, 0.5)], index=1),
        fo.Keypoint(label="dog", points=[(0.75, 0.5)], index=2),
        fo.Keypoint(label="Background", points=[(0.9, 0.9)]),
    ]
    mark(sample, 4, "k", fo.Keypoints(keypoints=clicks))
    mark(sample, 6, "k", fo.Keypoints(keypoints=[fo.Keypoint(label="background", points=[(0.1, 0.1)], index=1)]))
    cow, dog = labels.object_prompts(sample, "k")
    assert [(p.frame_index, p.seed.track_id, p.phrase) for p in (cow, dog)] == [(3, 1, "cow"), (3, 2, "dog")]
    assert (cow.seed.point_labels.tolist(), dog.seed.point_labels.tolist()) == ([1, 0], [1, 0, 0])
    np.testing.assert_allclose(dog.seed.points_xy[1], [6.4, 4.8], rtol=1e-6)


def test_prompts_background_alone_points_at_nothing(fo: ModuleType, labels: ModuleType, dataset: Any) -> None:
    sample = dataset.first()
    mark(sample, 4, "k", fo.Keypoints(keypoints=[fo.Keypoint(label="background", points=[(0.1, 0.1)], index=1)]))
    with pytest.raises(EditError, match="draw boxes, masks or points"):
        labels.object_prompts(sample, "k")
    assert not labels.has_prompts(sample, "k")


def test_prompts_of_an_image_sequence(fo: ModuleType, labels: ModuleType, sequences: Any) -> None:
    (target, other) = labels.targets(sequences.group_by("scene", order_by="frame_number"))
    image = sequences[target.values("id")[6]]
    image["m"] = fo.Detections(detections=[fo.Detection(label="cow", bounding_box=[0, 0, 0.5, 0.5])])
    image.save()
    assert [p.frame_index for p in labels.object_prompts(target, "m")] == [6]
    assert labels.has_prompts(target, "m")
    assert not labels.has_prompts(other, "m")


def test_prompts_that_are_not_there_say_so(fo: ModuleType, labels: ModuleType, dataset: Any) -> None:
    sample = dataset.first()
    mark(sample, 1, "m", fo.Detections(detections=[fo.Detection(label="x", bounding_box=[2, 2, 0.1, 0.1])]))
    with pytest.raises(EditError, match="holds no label here"):  # outside the frame
        labels.object_prompts(sample, "m")
    with pytest.raises(TrackFileError, match="holds no boxes, outlines or keypoints; there are some in m"):
        labels.object_prompts(sample, "other")
