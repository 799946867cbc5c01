import gc
import os
import shutil
import subprocess
import threading
import time
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fiftyone_plugin.errors import FrameRangeError, VideoError
from fiftyone_plugin.interfaces import FrameSource
from fiftyone_plugin.types import Frame
from fiftyone_plugin.video import VideoFileSource, open_source
from fiftyone_plugin.video.read_ahead import THREAD_NAME

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg command")


def ffmpeg(*arguments: object) -> None:
    subprocess.run(["ffmpeg", "-v", "error", "-y", *map(str, arguments)], check=True)


def reference(path: Path) -> list[tuple[float, np.ndarray]]:
    """Everything that PyAV gives when it decodes from the first packet to the last."""
    with av.open(str(path)) as container:
        return [(float(f.pts * f.time_base), f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]


def assert_equal(frames: list[Frame], expected: list[tuple[float, np.ndarray]], first: int = 0) -> None:
    assert [f.index for f in frames] == list(range(first, first + len(expected)))
    for frame, (seconds, image) in zip(frames, expected, strict=True):
        assert frame.pts_seconds == pytest.approx(seconds, abs=1e-9)
        np.testing.assert_array_equal(frame.image_rgb, image)


def open_descriptors_of(path: Path) -> int:
    links = Path("/proc/self/fd")
    count = 0
    for link in links.iterdir():
        try:
            count += Path(os.readlink(link)) == path
        except OSError:
            continue
    return count


def decoding_threads() -> int:
    return sum(t.name == THREAD_NAME for t in threading.enumerate())


def test_frames_of_a_file_equal_a_full_decode(make_clip):
    path = make_clip()
    source = open_source(path)
    assert isinstance(source, FrameSource)
    assert (source.info.width_px, source.info.height_px, source.info.frame_count) == (96, 64, 60)
    assert source.info.frames_per_second == 15
    assert_equal(list(source.frames()), reference(path))
    assert source.warnings == ()


@pytest.mark.parametrize(
    ("name", "codec", "encoder"),
    [
        pytest.param("b.mp4", "libx264", {"g": "10", "bf": "3"}, id="h264-mp4"),
        pytest.param(
            "open.mkv", "libx264", {"g": "10", "bf": "3", "x264-params": "open-gop=1"}, id="h264-open-gop-mkv"
        ),
        pytest.param("b.ts", "libx264", {"g": "10", "bf": "3"}, id="h264-ts"),
        pytest.param("one.mp4", "libx264", {"g": "1000"}, id="one-keyframe"),
        pytest.param("refresh.ts", "libx264", {"g": "20", "x264-params": "intra-refresh=1"}, id="no-keyframes"),
        pytest.param("a.avi", "mpeg4", {"g": "10", "bf": "2"}, id="mpeg4-avi-without-clock"),
        pytest.param(
            "v.webm", "libvpx", {"g": "10", "auto-alt-ref": "1", "lag-in-frames": "10"}, id="vp8-hidden-frames"
        ),
        pytest.param("v9.webm", "libvpx-vp9", {"g": "10"}, id="vp9-webm"),
        pytest.param("m.mov", "mjpeg", {}, id="mjpeg-mov"),
        pytest.param("h.mkv", "libx265", {"x265-params": "keyint=10:log-level=none"}, id="hevc-mkv"),
    ],
)
def test_any_start_gives_what_a_full_decode_gives(make_clip, name, codec, encoder):
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = make_clip(name, codec=codec, encoder=encoder, pixel_format=pixels)
    source = VideoFileSource(path)
    everything = list(source.frames())
    assert len(everything) == 60
    for start in (1, 9, 10, 11, 19, 23, 40, 59):
        fresh = VideoFileSource(path)  # nothing learnt from an earlier pass
        part = list(fresh.frames(start, start + 7))
        assert [f.index for f in part] == list(range(start, min(start + 7, 60)))
        for frame in part:
            assert frame.pts_seconds == everything[frame.index].pts_seconds
            np.testing.assert_array_equal(frame.image_rgb, everything[frame.index].image_rgb)


def test_a_start_midway_does_not_decode_what_lies_before(make_clip):
    source = VideoFileSource(make_clip())
    assert source._index.entry_rank(45) == 30
    assert source._index.entry_rank(9) == 0
    assert source._index.is_exact
    assert next(source.frames(45)).index == 45
    assert source._index.is_exact


def test_an_index_that_the_decoder_contradicts_is_given_up(make_clip):
    path = make_clip()
    expected = reference(path)
    source = VideoFileSource(path)
    wrong = np.delete(source._index.pts, 25)  # as if frame 25 had never been announced
    object.__setattr__(source._index, "pts", wrong)
    assert_equal(list(source.frames(30, 36)), expected[30:36], first=30)
    assert not source._index.is_exact


def test_frames_can_be_read_again_and_side_by_side(make_clip):
    path = make_clip()
    source = open_source(path)
    expected = reference(path)
    first, second = source.frames(), source.frames(30)
    for k in range(10):
        assert (next(first).index, next(second).index) == (k, 30 + k)
    assert_equal(list(source.frames(0, 5)), expected[:5])
    assert_equal(list(source.frames(50, 500)), expected[50:], first=50)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_variable_frame_rate_keeps_true_times(make_clip, data):
    gaps = data.draw(st.lists(st.integers(10, 700), min_size=12, max_size=30))
    ticks = np.cumsum([0, *gaps]).tolist()
    path = make_clip("vfr.mkv", frames=len(ticks), ticks=ticks)
    source = open_source(path)
    assert [round(f.pts_seconds * 1000) for f in source.frames()] == ticks
    middle = len(ticks) // 2
    assert [round(f.pts_seconds * 1000) for f in source.frames(middle)] == ticks[middle:]
    assert source.warnings == ()


def test_a_stream_that_does_not_start_at_zero_keeps_its_times(make_clip):
    path = make_clip("late.mkv", frames=20, ticks=[5000 + 40 * k for k in range(20)])
    frames = list(open_source(path).frames())
    assert frames[0].pts_seconds == 5.0
    assert frames[-1].pts_seconds == pytest.approx(5.76)


@needs_ffmpeg
def test_frames_hidden_by_an_edit_list_are_not_counted(make_clip, tmp_path):
    cut = tmp_path / "cut.mp4"
    ffmpeg("-ss", "1.4", "-i", make_clip(), "-c", "copy", cut)
    source = open_source(cut)
    expected = reference(cut)
    assert source.info.frame_count == len(expected) < 60
    assert_equal(list(source.frames()), expected)
    assert_equal(list(open_source(cut).frames(20)), expected[20:], first=20)
    assert source.warnings == ()


@needs_ffmpeg
@pytest.mark.parametrize(("degrees", "turns"), [(90, 1), (180, 2), (270, 3)])
def test_rotation_of_the_container_is_honoured(make_clip, tmp_path, degrees, turns):
    plain, turned = make_clip(frames=3), tmp_path / "turned.mp4"
    ffmpeg("-i", plain, "-c", "copy", "-metadata:s:v", f"rotate={degrees}", turned)
    shown = tmp_path / "shown.png"
    ffmpeg("-i", turned, "-frames:v", "1", shown)  # ffmpeg turns upright by itself
    frame = next(open_source(turned).frames())
    oracle = next(open_source(shown).frames())
    assert frame.image_rgb.shape == oracle.image_rgb.shape == ((96, 64, 3) if turns % 2 else (64, 96, 3))
    np.testing.assert_array_equal(frame.image_rgb, np.rot90(reference(plain)[0][1], turns))
    assert np.abs(frame.image_rgb.astype(int) - oracle.image_rgb).mean() < 3
    info = open_source(turned).info
    assert (info.height_px, info.width_px) == frame.image_rgb.shape[:2]


@pytest.mark.parametrize(
    ("codec", "pixel_format", "name"),
    [
        ("libx264", "gray", "gray.mp4"),
        ("libx264", "yuv420p10le", "ten.mkv"),
        ("libx264", "yuv444p", "full.mp4"),
        ("ffv1", "gbrp16le", "deep.mkv"),
        ("png", "rgba", "alpha.mov"),
    ],
)
def test_every_pixel_format_becomes_rgb(make_clip, codec, pixel_format, name):
    path = make_clip(name, frames=12, codec=codec, pixel_format=pixel_format, encoder={})
    frames = list(open_source(path).frames())
    assert len(frames) == 12
    assert all(f.image_rgb.shape == (64, 96, 3) and f.image_rgb.dtype == np.uint8 for f in frames)
    assert frames[0].image_rgb.std() > 20


def test_odd_sizes_are_kept(make_clip):
    path = make_clip("odd.mkv", frames=4, width=97, height=61, codec="ffv1", pixel_format="yuv444p", encoder={})
    assert next(open_source(path).frames()).image_rgb.shape == (61, 97, 3)


@pytest.mark.parametrize(
    "name", ["a b.mp4", "a:b.mp4", "schön 羊.mp4", "%d 'quote\" $HOME;.mp4", "-rf.mp4", "a#?b.mp4"]
)
def test_odd_names_are_plain_files(make_clip, name):
    assert len(list(open_source(make_clip(name, frames=4)).frames())) == 4


def cut_off(path: Path, part: float) -> Path:
    data = path.read_bytes()
    short = path.with_stem(path.stem + "_cut")
    short.write_bytes(data[: int(len(data) * part)])
    return short


@pytest.mark.parametrize(
    ("name", "container"),
    [
        pytest.param("fast.mp4", {"movflags": "+faststart"}, id="mp4-index-first"),
        pytest.param("frag.mp4", {"movflags": "frag_keyframe+empty_moov"}, id="mp4-fragmented"),
        pytest.param("cut.mkv", {}, id="mkv"),
    ],
)
def test_a_truncated_file_keeps_the_frames_before_the_cut(make_clip, name, container, request):
    path = make_clip(name, frames=90, container=container)
    expected = reference(path)
    source = open_source(cut_off(path, 0.6))
    frames = list(source.frames())
    assert 30 < len(frames) < 80
    assert_equal(frames, expected[: len(frames)])
    assert source.info.frame_count == len(frames)
    (line,) = source.warnings
    assert f"stops at frame {len(frames)} of about " in line
    assert f"({frames[-1].pts_seconds + 1 / 15:.1f} s)" in line
    list(source.frames())
    assert len(source.warnings) == 1  # said once, however often it is read
    if "index-first" in request.node.callspec.id:
        assert list(source.frames(len(frames))) == []  # a packet was there when the file was opened


def test_a_truncated_file_names_its_claim(make_clip):
    path = make_clip(frames=90, container={"movflags": "+faststart"})
    source = open_source(cut_off(path, 0.6))
    list(source.frames())
    assert " of about 90 " in source.warnings[0]


@pytest.mark.parametrize("container", [{}, {"movflags": "frag_keyframe+empty_moov"}], ids=["mp4", "fragmented"])
@pytest.mark.parametrize("at", [25, 47, 80], ids=str)
def test_damage_in_the_middle_keeps_exactly_the_good_frames(make_clip, container, at):
    path = make_clip("mid.mp4", frames=90, container=container)
    expected = reference(path)
    with av.open(str(path)) as opened:
        packets = [(p.pos, p.size) for p in opened.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    place, size = packets[at]
    data[place : place + size] = b"\xff" * size  # no decoder can take this for a frame
    bad = path.with_stem("bad")
    bad.write_bytes(data)
    source = open_source(bad)
    frames = list(source.frames())
    assert at - 4 <= len(frames) <= at + 4  # packets come in decoding order
    assert_equal(frames, expected[: len(frames)])  # nothing that a decoder painted over
    assert "damaged data" in source.warnings[0]
    # Read again, and from the middle, it stops at the same place.
    middle = len(frames) - 12
    assert [f.index for f in open_source(bad).frames(middle)] == list(range(middle, len(frames)))


@needs_ffmpeg
def test_a_recording_that_begins_between_keyframes_starts_at_the_first_good_frame(make_clip, tmp_path):
    path = make_clip("whole.ts", encoder={"g": "20", "bf": "3", "x264-params": "open-gop=1"})
    data = path.read_bytes()
    late = tmp_path / "late.ts"
    late.write_bytes(data[188 * int(len(data) / 188 * 0.45) :])
    expected = reference(path)
    source = open_source(late)
    frames = list(source.frames())
    offset = next(k for k, (seconds, _) in enumerate(expected) if abs(seconds - frames[0].pts_seconds) < 1e-6)
    assert 20 <= offset <= 45
    np.testing.assert_array_equal(frames[0].image_rgb, expected[offset][1])
    assert frames[0].index == 0
    assert [round(f.pts_seconds, 6) for f in frames] == [round(s, 6) for s, _ in expected[offset:]]


def test_a_forgotten_iterator_gives_back_thread_and_file(make_clip):
    path = make_clip()
    source = open_source(path)
    assert (decoding_threads(), open_descriptors_of(path)) == (0, 0)
    iterator = source.frames()
    next(iterator)
    assert decoding_threads() == 1
    assert open_descriptors_of(path) == 1
    del iterator
    gc.collect()
    assert (decoding_threads(), open_descriptors_of(path)) == (0, 0)


def test_closing_is_prompt_at_any_moment(make_clip):
    path = make_clip()
    source = open_source(path)
    for taken in (0, 1, 7, 59, 60):
        iterator = source.frames()
        for _ in range(taken):
            next(iterator)
        begin = time.perf_counter()
        iterator.close()
        assert time.perf_counter() - begin < 1
        assert (decoding_threads(), open_descriptors_of(path)) == (0, 0)


def test_an_error_in_the_loop_body_leaves_nothing_behind(make_clip):
    path = make_clip()

    def fail() -> None:
        for _ in open_source(path).frames():
            raise RuntimeError("model failed")

    with pytest.raises(RuntimeError, match="model failed"):
        fail()
    gc.collect()
    assert (decoding_threads(), open_descriptors_of(path)) == (0, 0)


@pytest.mark.parametrize(("start", "stop"), [(-1, None), (60, None), (999, 1000), (5, 5), (7, 3)])
def test_a_range_outside_the_video_is_refused_at_the_call(make_clip, start, stop):
    with pytest.raises(FrameRangeError, match=r"must (lie in \[0, 59\], it has 60 frames|be after start)"):
        open_source(make_clip()).frames(start, stop)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.mp4", b""),
        ("noise.mp4", bytes(range(256)) * 40),
        ("notes.txt", b"just some text\n" * 50),
        ("list.m3u8", b"#EXTM3U\n#EXTINF:10,\nclip.mp4\n#EXT-X-ENDLIST\n"),
        ("list.mp4", b"ffconcat version 1.0\nfile clip.mp4\n"),
    ],
)
def test_a_file_that_is_no_video_is_one_clear_line(make_clip, tmp_path, name, content):
    make_clip()  # what the lists point to exists, and must not be followed
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(VideoError) as caught:
        open_source(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_sound_without_pictures_is_no_video(tmp_path):
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        frame.sample_rate = 8000
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    with pytest.raises(VideoError, match="holds no video"):
        open_source(path)


def test_a_video_without_frames_is_refused(make_clip):
    path = make_clip("none.mkv", frames=0)
    with pytest.raises(VideoError):
        open_source(path)


def test_a_video_whose_frames_are_all_damaged_is_refused(make_clip):
    path = make_clip(container={"movflags": "+faststart"})
    data = bytearray(path.read_bytes())
    at = data.index(b"mdat") + 4
    data[at:] = b"\x55" * (len(data) - at)
    path.write_bytes(data)
    with pytest.raises(VideoError, match="no frame of it can be decoded"):
        open_source(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(VideoError, match=r"nothing\.mp4.*no such file or folder"):
        open_source(tmp_path / "nothing.mp4")


def test_decoders_do_not_write_to_stderr(make_clip, capfd):
    path = make_clip(container={"movflags": "+faststart"})
    list(open_source(cut_off(path, 0.6)).frames())
    assert capfd.readouterr().err == ""


def test_few_frames_are_in_memory_at_a_time(make_clip, monkeypatch):
    made = 0
    original = VideoFileSource._to_frame

    def count(self, *arguments):
        nonlocal made
        made += 1
        return original(self, *arguments)

    monkeypatch.setattr(VideoFileSource, "_to_frame", count)
    iterator = open_source(make_clip()).frames()
    next(iterator)
    time.sleep(0.3)
    assert made <= 6  # one in hand, four in the queue, one in the making
    iterator.close()
