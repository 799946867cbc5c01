"""Labels are known again: what changes them is seen, what others note on them is not."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.fiftyone


@pytest.fixture
def sample(fo: ModuleType, dataset: Any) -> Any:
    """Two boxes, of which one has a mask, and a click."""
    found = dataset.first()
    mask = np.ones((10, 10), np.bool_)
    found.frames[2]["theirs"] = fo.Detections(
        detections=[
            fo.Detection(label="sheep", bounding_box=[0.1, 0.2, 0.3, 0.4], index=1, mask=mask),
            fo.Detection(label="dog", bounding_box=[0.5, 0.2, 0.3, 0.4], instance=fo.Instance()),
        ]
    )
    found.frames[5]["clicks"] = fo.Keypoints(keypoints=[fo.Keypoint(label="sheep", points=[[0.2, 0.3]])])
    found.save()
    return found


def test_fingerprint_is_the_same_for_the_same_labels(labels: ModuleType, sample: Any) -> None:
    dataset = sample.dataset
    before = labels.fingerprint(sample, "theirs")
    assert len(before) == 32
    sample.frames[3]["other"] = sample.frames[2].theirs.copy()
    sample.frames[2].theirs.detections[0].tags.append("nice")
    sample.frames[2].theirs.detections[0]["eval"] = "tp"
    sample.save()
    assert labels.fingerprint(dataset[sample.id], "theirs") == before
    clone = dataset.clone()
    try:
        assert labels.fingerprint(clone.first(), "theirs") == before
    finally:
        clone.delete()


@pytest.mark.parametrize("change", ["box", "mask", "label", "index", "frame", "removed", "click"])
def test_fingerprint_differs_where_labels_do(labels: ModuleType, sample: Any, change: str) -> None:
    field = "clicks" if change == "click" else "theirs"
    before = labels.fingerprint(sample, field)
    sheep = sample.frames[2].theirs.detections[0]
    if change == "box":
        sheep.bounding_box = [0.1, 0.2, 0.3, 0.41]
    elif change == "mask":
        mask = np.ones((10, 10), np.bool_)
        mask[3, 4] = False
        sheep.mask = mask
    elif change == "label":
        sheep.label = "goat"
    elif change == "index":
        sheep.index = 4
    elif change == "frame":
        sample.frames[3]["theirs"] = sample.frames[2].theirs.copy()
        sample.frames[2]["theirs"] = None
    elif change == "removed":
        sample.frames[2].theirs.detections.pop()
    else:
        sample.frames[5].clicks.keypoints[0].points = [[0.2, 0.4]]
    sample.save()
    assert labels.fingerprint(sample.dataset[sample.id], field) not in ("", before)


def test_fingerprint_of_chosen_labels_knows_no_others(labels: ModuleType, sample: Any) -> None:
    sheep, dog = sample.frames[2].theirs.detections
    before = labels.fingerprint(sample, "theirs", label_ids=[sheep.id])
    dog.label = "wolf"
    sample.save()
    assert labels.fingerprint(sample.dataset[sample.id], "theirs", label_ids=[sheep.id]) == before
    assert labels.fingerprint(sample, "theirs", label_ids=["nobody"]) == ""


def test_fingerprint_of_nothing_is_empty(labels: ModuleType, sample: Any) -> None:
    assert labels.fingerprint(sample.dataset.last(), "theirs") == ""
    assert labels.fingerprint(sample, "nothing") == ""


def test_fingerprint_of_an_image_sequence(fo: ModuleType, labels: ModuleType) -> None:
    dataset = fo.Dataset()
    try:
        for number in (1, 2):
            box = fo.Detection(label="sheep", bounding_box=[0.1 * number, 0.2, 0.3, 0.4], index=1)
            dataset.add_sample(
                fo.Sample(filepath=f"/{number}.png", scene="a", number=number, theirs=fo.Detections(detections=[box]))
            )
        target = next(labels.targets(dataset.group_by("scene", order_by="number")))
        before = labels.fingerprint(target, "theirs")
        turned = next(labels.targets(dataset.group_by("scene", order_by="number", reverse=True)))
        assert before not in ("", labels.fingerprint(turned, "theirs"))
    finally:
        dataset.delete()
