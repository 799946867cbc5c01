import numpy as np
import pytest
from PIL import Image

from fiftyone_plugin.errors import OutputError, TrackFileError
from fiftyone_plugin.exporters.colours import track_colour
from fiftyone_plugin.exporters.davis import read_davis, write_davis
from fiftyone_plugin.geometry import decode_mask, encode_mask, mask_boxes
from fiftyone_plugin.types import VideoInfo


def square(tools, track_id, frames, y, x, side, phrase="sheep"):
    mask = np.zeros((24, 40), np.bool_)
    mask[y : y + side, x : x + side] = True
    boxes = np.repeat(mask_boxes(mask[None]), len(frames), axis=0)
    return tools.make(track_id, phrase, frames, boxes, (encode_mask(mask),) * len(frames), np.ones(len(frames)))


def test_every_frame_has_a_palette_image_whose_values_are_ids(tools, tmp_path):
    write_davis(tmp_path / "m", [square(tools, 3, [2, 3], 5, 6, 8), square(tools, 200, [3], 16, 30, 4)], tools.video)
    assert sorted(p.name for p in (tmp_path / "m").glob("*.png")) == [f"{k:05d}.png" for k in range(12)]
    with Image.open(tmp_path / "m" / "00003.png") as image:
        assert image.mode == "P"
        ids = np.asarray(image)
        assert tuple(image.getpalette()[9:12]) == track_colour(3)
    assert np.unique(ids).tolist() == [0, 3, 200]
    assert (ids == 3).sum() == 64
    with Image.open(tmp_path / "m" / "00000.png") as image:
        assert not np.asarray(image).any()


def test_the_smaller_mask_lies_on_top(tools, tmp_path):
    big, small = square(tools, 1, [0], 2, 2, 12), square(tools, 2, [0], 4, 4, 4)
    for order in ([big, small], [small, big]):
        write_davis(tmp_path / "m", order, tools.video)
        first, second = read_davis(tmp_path / "m")
        assert decode_mask(first.masks[0]).sum() == 144 - 16
        assert second.masks == small.masks


def test_ids_above_255_and_tracks_without_masks_are_refused(tools, tmp_path):
    with pytest.raises(OutputError, match="track id 256: a palette PNG holds 1 to 255: use the format coco"):
        write_davis(tmp_path / "m", [square(tools, 256, [0], 2, 2, 4)], tools.video)
    with pytest.raises(OutputError, match="track 1 has no masks"):
        write_davis(tmp_path / "m", [tools.make(1, "x", [0], [[0, 0, 1, 1]], None, [1])], tools.video)
    with pytest.raises(OutputError, match="is 40x24, the video 80x48"):
        write_davis(tmp_path / "m", [square(tools, 1, [0], 2, 2, 4)], VideoInfo("v", 80, 48, 12, 25.0))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_others_is_left_alone(tools, tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "holiday.png").touch()
    with pytest.raises(OutputError, match=r"holds holiday\.png, which is not ours"):
        write_davis(tmp_path / "m", [], tools.video)


def test_masks_of_other_tools_are_read(tmp_path):
    for k, name in enumerate(("img_2.png", "img_1.png")):
        Image.fromarray(np.full((6, 8), k, np.uint8)).save(tmp_path / name)
    (track,) = read_davis(tmp_path, phrase="fly")
    assert (track.track_id, track.phrase, track.frame_indices.tolist()) == (1, "fly", [0])
    assert track.boxes_xyxy.tolist() == [[0, 0, 8, 6]]


@pytest.mark.parametrize("trouble", ["empty", "colour", "size", "noise"])
def test_a_folder_that_cannot_be_used_is_one_line(tmp_path, trouble):
    Image.fromarray(np.zeros((6, 8), np.uint8)).save(tmp_path / "0.png")
    match trouble:
        case "empty":
            (tmp_path / "0.png").unlink()
        case "colour":
            Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(tmp_path / "1.png")
        case "size":
            Image.fromarray(np.zeros((6, 9), np.uint8)).save(tmp_path / "1.png")
        case "noise":
            (tmp_path / "1.png").write_bytes(b"nothing")
    with pytest.raises(TrackFileError) as caught:
        read_davis(tmp_path)
    assert "\n" not in str(caught.value)
