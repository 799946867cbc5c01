import gc
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fiftyone_plugin.errors import FrameRangeError, VideoError
from fiftyone_plugin.interfaces import FrameSource
from fiftyone_plugin.video import ImageSequenceSource, open_source
from fiftyone_plugin.video.images import natural_key
from fiftyone_plugin.video.read_ahead import THREAD_NAME


def save(path: Path, value: int = 0, *, size: tuple[int, int] = (20, 12), mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, 2 * value % 256, 255 - value)).convert(mode).save(path)
    return path


def values(source: FrameSource) -> list[int]:
    return [int(f.image_rgb[0, 0, 0]) for f in source.frames()]


def test_frames_of_a_folder_come_in_natural_order(tmp_path):
    for number in (1, 2, 9, 10, 11, 100):
        save(tmp_path / f"img{number}.png", number)
    (tmp_path / "notes.txt").write_text("not a frame")
    save(tmp_path / "._img3.png", 3)
    source = open_source(tmp_path)
    assert isinstance(source, FrameSource)
    assert values(source) == [1, 2, 9, 10, 11, 100]
    assert (source.info.width_px, source.info.height_px, source.info.frame_count) == (20, 12, 6)
    assert source.info.source == str(tmp_path)
    assert [f.pts_seconds for f in source.frames(2, 4)] == [2 / 25, 3 / 25]


@given(st.lists(st.integers(0, 10**6), unique=True, min_size=1))
def test_natural_key_orders_plain_numbers_as_numbers(numbers):
    names = sorted((f"f{n}.jpg" for n in numbers), key=natural_key)
    assert names == [f"f{n}.jpg" for n in sorted(numbers)]


@given(st.lists(st.text(max_size=12), max_size=8))
def test_natural_key_can_compare_any_names(names):
    ordered = sorted(names, key=natural_key)
    turned = list(reversed(ordered))
    turned.sort(key=natural_key)
    assert turned == ordered


@pytest.mark.parametrize("suffix", ["jpg", "JPEG", "png", "bmp", "tif", "webp"])
def test_every_image_format_is_read(tmp_path, suffix):
    for k in range(3):
        save(tmp_path / f"{k}.{suffix}", 100)
    source = open_source(tmp_path)
    assert len(values(source)) == 3
    assert all(abs(v - 100) < 6 for v in values(source))


def test_the_rate_given_is_the_default(tmp_path):
    save(tmp_path / "0.png")
    assert open_source(tmp_path, default_frames_per_second=10).info.frames_per_second == 10


@pytest.mark.parametrize("opened", ["seq", "seq/img1"], ids=["sequence-folder", "image-folder"])
def test_seqinfo_names_the_rate(tmp_path, opened):
    save(tmp_path / "seq" / "img1" / "000001.png", 5)
    (tmp_path / "seq" / "seqinfo.ini").write_text("[Sequence]\nname=100%\nimDir=img1\nframeRate=7\n")
    source = open_source(tmp_path / opened, default_frames_per_second=12)
    assert source.info.frames_per_second == 7
    assert values(source) == [5]


@pytest.mark.parametrize(
    "text", ["frameRate=7", "[Sequence]\nframeRate=fast\n", "[Sequence]\nframeRate=0\n", "[Other]\n"]
)
def test_a_seqinfo_without_a_rate_is_ignored(tmp_path, text):
    save(tmp_path / "0.png")
    (tmp_path / "seqinfo.ini").write_text(text)
    assert open_source(tmp_path).info.frames_per_second == 25


def test_mixed_sizes_are_refused_naming_the_first_odd_file(tmp_path):
    for k in range(6):
        save(tmp_path / f"{k}.png", size=(20, 12) if k < 3 else (21, 12))
    with pytest.raises(VideoError, match=r"3\.png: is 21x12, but the images before it are 20x12"):
        open_source(tmp_path)


@pytest.mark.parametrize("content", [b"", b"nothing", None], ids=["empty", "text", "cut"])
def test_an_unreadable_image_in_the_middle_keeps_the_frames_before(tmp_path, content):
    rng = np.random.default_rng(0)
    for k in range(6):
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(tmp_path / f"{k}.png")
    broken = tmp_path / "3.png"
    broken.write_bytes(broken.read_bytes()[:4000] if content is None else content)
    source = open_source(tmp_path)
    assert source.info.frame_count == 6
    assert [f.index for f in source.frames()] == [0, 1, 2]
    assert [f.index for f in source.frames(1)] == [1, 2]
    (line,) = source.warnings
    assert "stops at frame 3 of 6 (0.1 s): 3.png cannot be read" in line
    assert "\n" not in line
    assert source.info.frame_count == 3


def test_a_single_image_is_a_video_of_one_frame(tmp_path):
    source = open_source(str(save(tmp_path / "one frame.jpg", 50)))
    assert source.info.frame_count == 1
    assert len(list(source.frames())) == 1


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    path = save(tmp_path / f"a.{'tif' if mode == 'CMYK' else 'png'}", 255, mode=mode)
    frame = next(open_source(path).frames())
    assert frame.image_rgb.shape == (12, 20, 3)
    assert frame.image_rgb.dtype == np.uint8


def test_a_palette_with_transparency_reads_without_a_warning(tmp_path):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30] + [0] * 762)
    image.save(tmp_path / "a.png", transparency=bytes([0, 128] + [255] * 254))
    assert next(open_source(tmp_path / "a.png").frames()).image_rgb[0, 0].tolist() == [10, 20, 30]


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    levels = np.array([[0, 256, 32768, 65535]], np.uint16)
    Image.fromarray(levels).save(tmp_path / "deep.png")
    image = next(open_source(tmp_path / "deep.png").frames()).image_rgb
    assert image[0, :, 0].tolist() == [0, 1, 128, 255]


def test_exif_orientation_is_honoured(tmp_path):
    pixels = np.zeros((12, 20, 3), np.uint8)
    pixels[:, :10] = 255
    for k in range(2):
        exif = Image.Exif()
        exif[0x0112] = 6  # the camera was turned: rotate 90 degrees clockwise to show
        Image.fromarray(pixels).save(tmp_path / f"{k}.png", exif=exif)
        Image.fromarray(pixels).save(tmp_path / f"{k}.jpg", exif=exif, quality=95)
    for path in tmp_path.glob("*.png"):
        path.unlink()
    source = open_source(tmp_path)
    assert (source.info.width_px, source.info.height_px) == (12, 20)
    frames = list(source.frames())
    assert len(frames) == 2
    assert frames[0].image_rgb[:8].mean() > 200 > 50 > frames[0].image_rgb[12:].mean()


@pytest.mark.parametrize("path", ["missing", "empty", "text"])
def test_a_source_without_images_is_one_clear_line(tmp_path, path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("x")
    with pytest.raises(VideoError) as caught:
        open_source(tmp_path / path)
    assert str(tmp_path / path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_image_that_is_none_is_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(b"nothing")
    with pytest.raises(VideoError, match=r"a\.png: cannot be read as an image"):
        open_source(tmp_path / "a.png")


def test_an_image_sequence_keeps_the_order_given(tmp_path):
    paths = [save(tmp_path / f"{k}.png", k) for k in (7, 3, 5)]
    source = ImageSequenceSource(paths, 12.5, source="dataset:flock")
    assert values(source) == [7, 3, 5]
    assert source.info.source == "dataset:flock"
    assert [f.pts_seconds for f in source.frames()] == [0.0, 0.08, 0.16]
    with pytest.raises(FrameRangeError, match=r"start = 3: must lie in \[0, 2\]"):
        source.frames(3)


@pytest.mark.parametrize(("paths", "rate"), [([], 25.0), (["x"], 0.0), (["x"], float("nan"))])
def test_an_image_sequence_checks_what_it_is_given(paths, rate):
    with pytest.raises(VideoError):
        ImageSequenceSource(paths, rate)


def test_a_forgotten_iterator_ends_its_thread(tmp_path):
    for k in range(20):
        save(tmp_path / f"{k}.png", k)
    iterator = open_source(tmp_path).frames()
    next(iterator)
    del iterator
    gc.collect()
    assert not [t for t in threading.enumerate() if t.name == THREAD_NAME]
