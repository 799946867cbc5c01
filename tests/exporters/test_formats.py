"""Laws that hold for every format; what is special to one has its own file."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiftyone_plugin.errors import OptionError, OutputError, TrackFileError
from fiftyone_plugin.exporters import FORMATS, export_tracks, guess_format, import_tracks
from fiftyone_plugin.geometry import encode_mask
from fiftyone_plugin.types import TrackingResult, VideoInfo

BOX_FORMATS = ("mot", "coco", "cvat")
MASK_FORMATS = ("coco", "davis", "cvat")


@pytest.mark.parametrize("name", BOX_FORMATS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_boxes_read_back_exactly(tools, name, data):
    tracks = data.draw(tools.box_tracks())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{FORMATS[name].suffix}"
        export_tracks(tracks, tools.video, path, name)
        tools.assert_same(import_tracks(path, name, video=tools.video), tracks)


@pytest.mark.parametrize("name", MASK_FORMATS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_masks_read_back_exactly(tools, name, data):
    tracks = data.draw(tools.mask_tracks(max_id=255, is_disjoint=name == "davis"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{FORMATS[name].suffix}"
        export_tracks(tracks, tools.video, path, name)
        tools.assert_same(import_tracks(path, video=tools.video), tracks, with_scores=name != "davis")


@pytest.mark.parametrize("name", FORMATS)
def test_no_tracks_are_a_file_that_can_be_read(tools, tmp_path, name):
    path = tmp_path / f"a{FORMATS[name].suffix}"
    export_tracks([], tools.video, path, name)
    assert import_tracks(path, name) == ()


@pytest.mark.parametrize("name", FORMATS)
def test_a_second_run_replaces_the_first(tools, tmp_path, name):
    path = tmp_path / f"a{FORMATS[name].suffix}"
    masks = np.zeros((2, 24, 40), np.bool_)
    masks[:, 3:9, 4:12] = True
    for track_id in (1, 2):
        coded = tuple(encode_mask(m) for m in masks)
        track = tools.make(track_id, "sheep", [0, 5], [[4, 3, 12, 9]] * 2, coded, [1, 1])
        export_tracks([track], tools.video, path, name)
        assert [t.track_id for t in import_tracks(path)] == [track_id]
    assert {p.name for p in tmp_path.iterdir()} <= {path.name, "a.phrases.json"}


def test_a_result_brings_its_own_video(tools, tmp_path):
    track = tools.make(1, "object", [0], [[1, 2, 3, 4]], None, [1])
    export_tracks(TrackingResult(tools.video, (track,)), None, tmp_path / "a.txt", "mot")
    tools.assert_same(import_tracks(tmp_path / "a.txt"), [track])
    with pytest.raises(OptionError, match="must be given with plain tracks"):
        export_tracks([track], None, tmp_path / "a.txt", "mot")


def test_an_unknown_format_is_refused(tools, tmp_path):
    with pytest.raises(OptionError, match="'excel': must be one of mot, coco, davis, cvat"):
        export_tracks([], tools.video, tmp_path / "a", "excel")


@pytest.mark.parametrize(
    ("name", "expected"), [("a.txt", "mot"), ("a.JSON", "coco"), ("a.xml", "cvat"), ("a", "mot"), ("", "davis")]
)
def test_the_format_is_guessed_from_the_path(tmp_path, name, expected):
    assert guess_format(tmp_path / name) == expected


@pytest.mark.parametrize("name", ["coco", "davis"])
def test_masks_of_another_video_are_refused(tools, tmp_path, name):
    path = tmp_path / f"a{FORMATS[name].suffix}"
    export_tracks(_one_mask_track(tools), tools.video, path, name)
    with pytest.raises(TrackFileError, match="masks are 40x24, the video is 80x48: they belong to another video"):
        import_tracks(path, video=VideoInfo("other.mp4", 80, 48, 12, 25.0))


def _one_mask_track(tools):
    mask = np.zeros((24, 40), np.bool_)
    mask[3:9, 4:12] = True
    return (tools.make(1, "sheep", [0], [[4, 3, 12, 9]], (encode_mask(mask),), [1]),)


@pytest.mark.parametrize("name", FORMATS)
def test_a_target_that_cannot_be_written_leaves_nothing(tools, tmp_path, name):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError) as caught:
        export_tracks(_one_mask_track(tools), tools.video, tmp_path / "file" / "tracks", name)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=60, deadline=None)
@given(content=st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode)))
def test_rubbish_is_refused_with_one_line(name, content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a"
        if name == "davis":
            path.mkdir()
            (path / "00000.png").write_bytes(content)
        else:
            path.write_bytes(content)
        if name == "mot" and not _is_refused(path, name):
            return  # a few lines of text can be a MOT file
        with pytest.raises(TrackFileError) as caught:
            import_tracks(path, name)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def _is_refused(path, name):
    try:
        import_tracks(path, name)
    except TrackFileError:
        return True
    return False
