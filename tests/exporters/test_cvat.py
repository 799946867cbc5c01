import xml.etree.ElementTree as ET

import numpy as np
import pytest

from fiftyone_plugin.errors import TrackFileError
from fiftyone_plugin.exporters.cvat import read_cvat, write_cvat
from fiftyone_plugin.geometry import decode_mask, encode_mask


def test_boxes_are_key_frames_and_pauses_are_outside(tools, tmp_path):
    track = tools.make(4, "sheep", [0, 1, 5, 11], [[1.5, 2, 3, 4.25]] * 4, None, [1, 0.5, 1, 1])
    write_cvat(tmp_path / "a.xml", [track], tools.video)
    root = ET.parse(tmp_path / "a.xml").getroot()
    assert root.findtext("version") == "1.1"
    assert root.findtext("meta/task/original_size/width") == "40"
    assert [n.text for n in root.findall("meta/task/labels/label/name")] == ["sheep"]
    (node,) = root.findall("track")
    assert (node.get("id"), node.get("label")) == ("4", "sheep")
    flags = [(s.tag, int(s.get("frame")), s.get("outside"), s.get("keyframe")) for s in node]
    assert flags == [
        ("box", 0, "0", "1"),
        ("box", 1, "0", "1"),
        ("box", 2, "1", "1"),
        ("box", 5, "0", "1"),
        ("box", 6, "1", "1"),
        ("box", 11, "0", "1"),
    ]
    assert node[0].attrib | {"xtl": "1.5", "ytl": "2.0", "xbr": "3.0", "ybr": "4.25"} == node[0].attrib
    assert node[1].findtext("attribute") == "0.5"


def test_mask_runs_go_row_by_row_and_begin_with_background(tools, tmp_path):
    mask = np.zeros((24, 40), np.bool_)
    mask[2, 5:8] = True
    mask[3, 4:6] = True
    track = tools.make(1, "sheep", [0], [[4, 2, 8, 4]], (encode_mask(mask),), [1])
    write_cvat(tmp_path / "a.xml", [track], tools.video)
    node = ET.parse(tmp_path / "a.xml").getroot().find("track/mask")
    assert {k: node.get(k) for k in ("left", "top", "width", "height", "rle")} == {
        "left": "4",
        "top": "2",
        "width": "4",
        "height": "2",
        "rle": "1, 5, 2",
    }
    assert (decode_mask(read_cvat(tmp_path / "a.xml")[0].masks[0]) == mask).all()


def save(tmp_path, body, meta=""):
    path = tmp_path / "a.xml"
    path.write_text(f"<?xml version='1.0' encoding='utf-8'?><annotations>{meta}{body}</annotations>", encoding="utf-8")
    return path


BOX = '<box frame="{}" outside="{}" occluded="0" keyframe="{}" xtl="1" ytl="2" xbr="3" ybr="4"/>'


def test_a_file_as_cvat_writes_it_is_read(tmp_path):
    cat = BOX.format(3, 0, 1) + BOX.format(4, 0, 0) + BOX.format(5, 1, 1)
    body = f'<track id="0" label="cat" source="manual">{cat}</track>'
    body += f'<track id="1" label="dog">{BOX.format(0, 1, 1)}</track>'
    body += f'<track id="2" label="dog">{BOX.format(0, 0, 1)}</track>'
    first, second = read_cvat(save(tmp_path, body))
    assert (first.track_id, first.phrase, first.frame_indices.tolist()) == (1, "cat", [3, 4])
    assert (second.track_id, second.phrase) == (3, "dog")
    assert first.boxes_xyxy.tolist() == [[1, 2, 3, 4]] * 2
    assert first.scores.tolist() == [1, 1]


def test_masks_need_a_frame_size(tmp_path):
    mask = '<mask frame="0" outside="0" rle="0, 4" left="1" top="1" width="2" height="2"/>'
    path = save(tmp_path, f'<track id="1" label="cat">{mask}</track>')
    with pytest.raises(TrackFileError, match="original_size"):
        read_cvat(path)
    assert decode_mask(read_cvat(path, height_px=4, width_px=5)[0].masks[0]).sum() == 4
    with pytest.raises(TrackFileError, match="must lie in 2x2"):
        read_cvat(path, height_px=2, width_px=2)


@pytest.mark.parametrize(
    "body",
    [
        '<track label="x"/>',
        '<track id="x" label="x"/>',
        '<track id="-4" label="x"/>',
        f'<track id="1">{BOX.format(0, 0, 1)}</track>',
        f'<track id="1" label="x">{BOX.format(0, 0, 1)}</track><track id="1" label="x">{BOX.format(0, 0, 1)}</track>',
        f'<track id="1" label="x">{BOX.format(0, 0, 1)}{BOX.format(0, 0, 1)}</track>',
        f'<track id="1" label="x">{BOX.format(-1, 0, 1)}</track>',
        '<track id="1" label="x"><polygon frame="0" points="1,1;2,2;3,1"/></track>',
        '<track id="1" label="x"><box frame="0" xtl="5" ytl="2" xbr="3" ybr="4"/></track>',
        '<track id="1" label="x"><box frame="0" xtl="nan" ytl="2" xbr="3" ybr="4"/></track>',
        '<track id="1" label="x"><box frame="0" xtl="1" ytl="2" xbr="3"/></track>',
    ],
)
def test_a_bad_track_is_named(tmp_path, body):
    path = save(tmp_path, body)
    with pytest.raises(TrackFileError, match="track ") as caught:
        read_cvat(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("runs", ["1, 2", "", "-1, 5", "1, x"])
def test_runs_that_do_not_fill_the_box_are_refused(tmp_path, runs):
    mask = f'<mask frame="0" outside="0" rle="{runs}" left="0" top="0" width="2" height="2"/>'
    with pytest.raises(TrackFileError, match="track 1"):
        read_cvat(save(tmp_path, f'<track id="1" label="x">{mask}</track>'), height_px=4, width_px=4)


ENTITIES = '<!DOCTYPE a [<!ENTITY b "0123456789"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]>'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize(
    "text",
    [
        ENTITIES + "<annotations>&c;</annotations>",
        '<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotations/>',
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotations>&x;</annotations>',
    ],
)
def test_a_document_type_is_refused(tmp_path, text, encoding):
    path = tmp_path / "a.xml"
    path.write_bytes(f'<?xml version="1.0" encoding="{encoding}"?>{text}'.encode(encoding))
    with pytest.raises(TrackFileError, match="declares a document type"):
        read_cvat(path)


@pytest.mark.parametrize("text", ["", "<annotations>", "<other/>", "plain"])
def test_a_file_of_another_kind_is_refused(tmp_path, text):
    path = tmp_path / "a.xml"
    path.write_text(text)
    with pytest.raises(TrackFileError, match=r"a\.xml"):
        read_cvat(path)
