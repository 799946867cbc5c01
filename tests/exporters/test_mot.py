import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiftyone_plugin.errors import OutputError, TrackFileError
from fiftyone_plugin.exporters.mot import phrases_path, read_mot, write_mot


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_what_is_written_reads_back_exactly(tools, data):
    tracks = data.draw(tools.box_tracks())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tracks.txt"
        write_mot(path, tracks)
        tools.assert_same(read_mot(path), tracks)
        again = Path(folder) / "again.txt"
        write_mot(again, read_mot(path))
        assert again.read_bytes() == path.read_bytes()


def test_lines_are_what_other_tools_expect(tools, tmp_path):
    path = tmp_path / "tracks.txt"
    tracks = [
        tools.make(2, "object", [0, 4], [[10.5, 20, 30.5, 60.25]] * 2, None, [0.5, 1]),
        tools.make(1, "object", [4], [[0.1, 0.2, 10.3, 10.4]], None, [0.9]),
    ]
    write_mot(path, tracks)
    assert path.read_text() == (
        "1,2,10.50,20.00,20.00,40.25,0.50,-1,-1,-1\n"
        "5,1,0.10,0.20,10.20,10.20,0.90,-1,-1,-1\n"
        "5,2,10.50,20.00,20.00,40.25,1.00,-1,-1,-1\n"
    )
    assert list(tmp_path.iterdir()) == [path]  # nothing beside it where no phrase says anything


def test_phrases_go_to_a_neighbour_and_leave_with_it(tools, tmp_path):
    path = tmp_path / "tracks.txt"
    write_mot(path, [tools.make(3, "sheep", [0], [[0, 0, 1, 1]], None, [1])])
    assert read_mot(path)[0].phrase == "sheep"
    assert read_mot(path, phrase="goat")[0].phrase == "goat"
    write_mot(path, [tools.make(3, "object", [0], [[0, 0, 1, 1]], None, [1])])
    assert not phrases_path(path).exists()
    assert read_mot(path)[0].phrase == "object"


def test_no_tracks_are_an_empty_file(tmp_path):
    write_mot(tmp_path / "none.txt", [])
    assert (tmp_path / "none.txt").read_bytes() == b""
    assert read_mot(tmp_path / "none.txt") == ()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("1,3,10,20,5,6,0.5,-1,-1,-1\n2,3,11,20,5,6,0.5,-1,-1,-1\n", id="commas"),
        pytest.param("1 3 10 20 5 6 0.5 -1 -1 -1\n2\t3\t11\t20\t5\t6\t0.5\n", id="spaces-and-tabs"),
        pytest.param("1.0, 3.0, 10.0, 20.0, 5.0, 6.0, 0.5\n2.000, 3, 11, 2e1, 5, 6, .5", id="floats"),
        pytest.param("\ufeffframe,id,x,y,w,h,conf\r\n2,3,11,20,5,6,0.5,,\r\n\r\n1,3,10,20,5,6,0.5,\r\n", id="windows"),
        pytest.param("# made by hand\n1,3,10,20,5,6,0.5,1,0.7\n2,3,11,20,5,6,0.5,1,0.7\n", id="comment-and-class"),
    ],
)
def test_files_of_other_tools_are_read(tmp_path, text):
    path = tmp_path / "tracks.txt"
    path.write_bytes(text.encode())
    (track,) = read_mot(path)
    assert track.track_id == 3
    assert track.frame_indices.tolist() == [0, 1]
    assert track.boxes_xyxy.tolist() == [[10, 20, 15, 26], [11, 20, 16, 26]]
    assert track.scores.tolist() == [0.5, 0.5]
    assert track.phrase == "object"
    assert track.masks is None


@pytest.mark.parametrize(("column", "score"), [("", 1.0), (",-1", 1.0), (",0", 0.0), (",87.5", 1.0), (",-0.2", 0.0)])
def test_confidence_becomes_a_score(tmp_path, column, score):
    path = tmp_path / "tracks.txt"
    path.write_text(f"1,1,0,0,5,5{column}\n")
    assert read_mot(path)[0].scores.tolist() == [score]


def test_ground_truth_leaves_out_what_is_marked(tmp_path):
    path = tmp_path / "gt.txt"
    path.write_text("1,1,0,0,5,5,1\n2,1,0,0,5,5,0\n1,2,0,0,5,5,0\n")
    assert [(t.track_id, len(t)) for t in read_mot(path, is_ground_truth=True)] == [(1, 1)]
    assert [(t.track_id, len(t)) for t in read_mot(path)] == [(1, 2), (2, 1)]


def test_ids_that_begin_at_zero_are_raised(tmp_path):
    path = tmp_path / "tracks.txt"
    path.write_text("1,0,0,0,5,5\n1,4,9,9,5,5\n")
    assert [t.track_id for t in read_mot(path)] == [1, 5]


def test_boxes_are_cut_to_the_frame_where_its_size_is_given(tmp_path):
    path = tmp_path / "tracks.txt"
    path.write_text("1,1,-5,-5,20,20\n2,1,95,60,20,20\n3,1,200,10,5,5\n")
    (track,) = read_mot(path, height_px=64, width_px=100)
    assert track.frame_indices.tolist() == [0, 1]
    assert track.boxes_xyxy.tolist() == [[0, 0, 15, 15], [95, 60, 100, 64]]
    assert read_mot(path)[0].boxes_xyxy[0].tolist() == [-5, -5, 15, 15]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1,1,0,0,5", "5 columns: need at least"),
        ("1,1,a,0,5,5", "must be numbers"),
        ("1,1,,0,5,5", "must be numbers"),
        ("1,1,nan,0,5,5", "must be finite"),
        ("1,1,0,0,inf,5", "must be finite"),
        ("0,1,0,0,5,5", "frame 0: must be a whole number, 1 or more"),
        ("1.5,1,0,0,5,5", "frame 1.5: must be a whole number"),
        ("1,-1,0,0,5,5", "id -1: must be a whole number.*detections, which have no identity"),
        ("1,2.5,0,0,5,5", "id 2.5: must be a whole number"),
        ("1,1,0,0,-5,5", "size -5 x 5: must not be negative"),
        ("7,7,0,0,5,5", "frame 7, id 7 was there already in line 1"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path, row, message):
    path = tmp_path / "tracks.txt"
    path.write_text(f"7,7,0,0,5,5\n\n{row}\n")
    with pytest.raises(TrackFileError, match=message) as caught:
        read_mot(path)
    assert str(caught.value).startswith(f"{path}:3: ")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "a.txt").write_bytes(bytes(range(256)))
    with pytest.raises(TrackFileError, match="is not text"):
        read_mot(tmp_path / "a.txt")
    with pytest.raises(TrackFileError, match="cannot be read"):
        read_mot(tmp_path / "missing.txt")


@pytest.mark.parametrize("content", ["{", "[1]", '{"1": 2}'])
def test_a_damaged_neighbour_is_named(tools, tmp_path, content):
    path = tmp_path / "a.txt"
    write_mot(path, [tools.make(1, "sheep", [0], [[0, 0, 1, 1]], None, [1])])
    phrases_path(path).write_text(content)
    with pytest.raises(TrackFileError, match=r"a\.phrases\.json"):
        read_mot(path)
    assert read_mot(path, phrase="x")[0].phrase == "x"


def test_a_long_file_takes_seconds(tools, tmp_path):
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 1000, (5000, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(5, 90, (5000, 2))], axis=1)
    tracks = [tools.make(k + 1, "object", range(5000), boxes, None, rng.random(5000)) for k in range(4)]
    write_mot(tmp_path / "a.txt", tracks)
    tools.assert_same(read_mot(tmp_path / "a.txt"), tracks)


def test_a_target_that_cannot_be_written_is_one_line(tools, tmp_path):
    (tmp_path / "file").write_text("x")
    for target in (tmp_path, tmp_path / "file" / "tracks.txt"):
        with pytest.raises(OutputError) as caught:
            write_mot(target, [])
        assert "\n" not in str(caught.value)
