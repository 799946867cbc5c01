import json

import numpy as np
import pytest
from pycocotools import mask as coco

from fiftyone_plugin.errors import TrackFileError
from fiftyone_plugin.exporters.coco import read_coco, write_coco
from fiftyone_plugin.geometry import decode_mask, encode_mask, mask_boxes
from fiftyone_plugin.types import Source, Track


@pytest.fixture
def track() -> Track:
    masks = np.zeros((3, 24, 40), np.bool_)
    for k in range(3):
        masks[k, 4 + k : 12 + k, 6 : 16 + k] = True
    return Track(
        track_id=7,
        phrase="sheep",
        frame_indices=np.array([1, 2, 5]),
        boxes_xyxy=mask_boxes(masks),
        masks=tuple(encode_mask(m) for m in masks),
        scores=np.array([0.5, 0.75, 1], np.float32),
        mask_scores=np.array([0.1, 0.2, 0.3], np.float32),
        identity_confidence=np.array([1, 0.9, 0.8], np.float32),
        sources=(Source.SEED, Source.PROPAGATED, Source.REPAIRED),
    )


def test_the_file_is_youtube_vis(tools, tmp_path, track):
    write_coco(tmp_path / "a.json", [track], tools.video)
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["videos"] == [{"id": 1, "name": "clip.mp4", "width": 40, "height": 24, "length": 12, "fps": 25.0}]
    assert content["categories"] == [{"id": 1, "name": "sheep", "supercategory": "object"}]
    (annotation,) = content["annotations"]
    assert (annotation["id"], annotation["video_id"], annotation["category_id"], annotation["iscrowd"]) == (7, 1, 1, 0)
    assert [len(annotation[k]) for k in ("segmentations", "bboxes", "areas")] == [12, 12, 12]
    assert [k for k, b in enumerate(annotation["bboxes"]) if b] == [1, 2, 5]
    assert annotation["bboxes"][1] == [6, 4, 10, 8]
    assert annotation["areas"][1] == 80
    # pycocotools, which everybody reads this format with, sees the same mask.
    assert coco.area(annotation["segmentations"][5]) == 96


def test_everything_about_a_track_comes_back(tools, tmp_path, track):
    write_coco(tmp_path / "a.json", [track], tools.video)
    (read,) = read_coco(tmp_path / "a.json")
    tools.assert_same([read], [track])
    np.testing.assert_array_equal(read.mask_scores, track.mask_scores)
    np.testing.assert_array_equal(read.identity_confidence, track.identity_confidence)
    assert read.sources == track.sources


def foreign(**changes):
    annotation = {
        "id": 3,
        "video_id": 9,
        "category_id": 2,
        "score": 0.5,
        "segmentations": [None, {"size": [4, 6], "counts": [8, 4, 12]}, [[1, 1, 3, 1, 3, 3, 1, 3]]],
        **changes,
    }
    return {
        "videos": [{"id": 9, "name": "v", "width": 6, "height": 4, "length": 3}],
        "categories": [{"id": 2, "name": "cat"}],
        "annotations": [annotation],
    }


def save(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    return path


def test_masks_in_other_codings_and_missing_boxes_are_read(tmp_path):
    (track,) = read_coco(save(tmp_path, foreign()))
    assert (track.track_id, track.phrase, track.frame_indices.tolist()) == (3, "cat", [1, 2])
    assert track.boxes_xyxy.tolist() == [[2, 0, 3, 4], [1, 1, 3, 3]]
    assert decode_mask(track.masks[0])[:, 2].all()
    assert track.scores.tolist() == [0.5, 0.5]


def test_boxes_alone_are_read(tmp_path):
    (track,) = read_coco(save(tmp_path, foreign(segmentations=None, bboxes=[None, [1, 2, 3, 4], None])))
    assert track.masks is None
    assert track.boxes_xyxy.tolist() == [[1, 2, 4, 6]]


def test_one_of_several_videos_must_be_named(tmp_path):
    content = foreign()
    content["videos"].append({"id": 10, "name": "w", "width": 6, "height": 4, "length": 3})
    path = save(tmp_path, content)
    with pytest.raises(TrackFileError, match=r"holds 2 videos .*say which one"):
        read_coco(path)
    assert len(read_coco(path, video_name="v")) == 1
    assert read_coco(path, video_name="w") == ()
    with pytest.raises(TrackFileError, match="holds no video 'x'"):
        read_coco(path, video_name="x")


@pytest.mark.parametrize(
    "changes",
    [
        {"category_id": 5},
        {"id": 0},
        {"id": "one"},
        {"bboxes": [None, [1, 2, -3, 4], None]},
        {"bboxes": [None, [1, 2], None]},
        {"segmentations": [3]},
        {"shepherd": {"scores": [1]}},
        {"shepherd": {"sources": ["guessed", "guessed"]}},
    ],
)
def test_a_bad_annotation_is_named(tmp_path, changes):
    path = save(tmp_path, foreign(**changes))
    with pytest.raises(TrackFileError, match="annotation") as caught:
        read_coco(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [[], {}, {"videos": [], "categories": []}, {"videos": 3}])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    with pytest.raises(TrackFileError):
        read_coco(save(tmp_path, content))
