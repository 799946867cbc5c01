"""Frames that lie in image files: folders, FiftyOne image sequences, single images.

Pillow decodes; whatever the files hold becomes RGB uint8. There is no clock but the frame rate. Knows nothing of video
containers.
"""

from __future__ import annotations

import configparser
import re
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from fiftyone_plugin.errors import FrameRangeError, VideoError
from fiftyone_plugin.types import Frame, VideoInfo
from fiftyone_plugin.video.read_ahead import read_ahead

__all__ = ["IMAGE_SUFFIXES", "ImageSequenceSource", "check_range", "list_images", "natural_key", "open_folder"]

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})

READ_AHEAD_FRAMES = 4
"""Decoded frames that wait for the model; a 4K frame is 25 MB."""

_EXIF_ORIENTATION = 0x0112
_QUARTER_TURNS = frozenset({5, 6, 7, 8})
"""Values of the EXIF orientation that exchange width and height (Exif 2.32, table 4)."""


class ImageSequenceSource:
    """Image files as the frames of a video, in the order given."""

    def __init__(self, paths: Sequence[str | Path], frames_per_second: float, *, source: str | None = None) -> None:
        """Read the headers of all images, so that an odd size shows before any work is done.

        Args:
            paths: One file a frame, 1 or more.
            frames_per_second: Frame i is shown at ``i / frames_per_second`` seconds; above 0.
            source: Name for messages and results; the first path by default.

        Raises:
            VideoError: No path, the first image cannot be read, or an image has another size than the first.
        """
        self._paths = tuple(Path(p) for p in paths)
        if not self._paths:
            raise VideoError(f"{source or 'image sequence'}: holds no image: give at least one")
        if not frames_per_second > 0:
            raise VideoError(f"frames_per_second = {frames_per_second}: must be above 0")
        name = source or str(self._paths[0])
        try:
            height, width = read_rgb(self._paths[0]).shape[:2]
        except Exception as error:  # Pillow's decoders raise whatever their format throws at them
            raise VideoError(f"{self._paths[0]}: cannot be read as an image ({_reason(error)})") from None
        for path in self._paths[1:]:
            size = _header_size(path)
            if size is not None and size != (width, height):
                raise VideoError(
                    f"{path}: is {size[0]}x{size[1]}, but the images before it are {width}x{height}: all frames of a "
                    f"video must have one size"
                )
        self._info = VideoInfo(name, width, height, len(self._paths), float(frames_per_second))
        self._warnings: list[str] = []

    @property
    def info(self) -> VideoInfo:
        """What is known so far; `frame_count` shrinks when an unreadable image is found."""
        return self._info

    @property
    def warnings(self) -> tuple[str, ...]:
        """Where the sequence had to stop, if it had to."""
        return tuple(self._warnings)

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[Frame]:
        """Yield the frames ``[start, stop)``; `stop` may lie behind the end.

        Raises:
            FrameRangeError: `start` is not inside the sequence, or `stop` is not after `start`.
        """
        last = check_range(start, stop, frame_count=len(self._paths), source=self._info.source)
        return read_ahead(self._read(start, last), capacity=READ_AHEAD_FRAMES)

    def _read(self, start: int, stop: int) -> Generator[Frame, None, None]:
        for index in range(start, stop):
            try:
                image = read_rgb(self._paths[index])
            except Exception as error:  # as above
                self._stop_at(index, f"{self._paths[index].name} cannot be read ({_reason(error)})")
                return
            if image.shape[:2] != (self._info.height_px, self._info.width_px):
                self._stop_at(index, f"{self._paths[index].name} is {image.shape[1]}x{image.shape[0]}")
                return
            yield Frame(index, index / self._info.frames_per_second, image)

    def _stop_at(self, index: int, reason: str) -> None:
        seconds = index / self._info.frames_per_second
        line = f"{self._info.source}: stops at frame {index} of {len(self._paths)} ({seconds:.1f} s): {reason}"
        if line not in self._warnings:
            self._warnings.append(line)
        self._info = replace(self._info, frame_count=min(index, self._info.frame_count))


def open_folder(
    folder: Path, *, source: str | None = None, default_frames_per_second: float = 25.0
) -> ImageSequenceSource:
    """The images of a folder in natural order (``img2`` before ``img10``), or of a MOTChallenge sequence folder.

    Args:
        folder: Holds images, or a ``seqinfo.ini`` whose ``imDir`` does.
        source: Name for messages and results; the folder by default.
        default_frames_per_second: Used unless a ``seqinfo.ini`` in the folder or above it names ``frameRate``.

    Raises:
        VideoError: The folder holds no image, or see `ImageSequenceSource`.
    """
    name = source or str(folder)
    settings = _sequence_settings(folder / "seqinfo.ini")
    paths = _images_in(folder)
    if not paths and settings.get("imdir"):
        paths = _images_in(folder / settings["imdir"])
    if not paths:
        allowed = ", ".join(sorted(s[1:] for s in IMAGE_SUFFIXES))
        raise VideoError(f"{name}: the folder holds no image ({allowed})")
    if not settings:
        settings = _sequence_settings(folder.resolve().parent / "seqinfo.ini")
    rate = _positive(settings.get("framerate")) or default_frames_per_second
    return ImageSequenceSource(paths, rate, source=name)


def list_images(folder: Path) -> list[Path]:
    """The images of a folder in natural order, whatever their sizes.

    Raises:
        VideoError: It holds none.
    """
    found = _images_in(folder)
    if not found:
        allowed = ", ".join(sorted(s[1:] for s in IMAGE_SUFFIXES))
        raise VideoError(f"{folder}: the folder holds no image ({allowed})")
    return found


def _images_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    # Names with a leading dot are what other systems leave beside the images.
    found = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")]
    return sorted((p for p in found if p.is_file()), key=lambda p: natural_key(p.name))


def natural_key(name: str) -> tuple[tuple[tuple[int, str], ...], str]:
    """Sort key that compares runs of digits as numbers."""
    parts = re.split(r"([0-9]+)", name.lower())
    return tuple((int(p), "") if p.isdigit() and p.isascii() else (-1, p) for p in parts), name


def _sequence_settings(path: Path) -> dict[str, str]:
    """The ``[Sequence]`` section of a MOTChallenge ``seqinfo.ini``, keys in lower case; empty where there is none."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, configparser.Error):
        return {}
    return dict(parser["Sequence"]) if parser.has_section("Sequence") else {}


def _positive(text: str | None) -> float | None:
    try:
        value = float(text) if text else 0.0
    except ValueError:
        return None
    return value if 0 < value < float("inf") else None


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """Decode one image file to uint8 (H, W, 3), upright as its EXIF orientation says; transparency is dropped."""
    with Image.open(path) as opened:
        image: Image.Image = opened
        if image.getexif().get(_EXIF_ORIENTATION, 1) != 1:
            image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip it to 255
            levels = np.asarray(image).astype(np.int64)
            grey = np.clip(levels >> 8, 0, 255).astype(np.uint8)
            return np.repeat(grey[:, :, None], 3, axis=2)
        if image.mode in ("P", "PA"):  # a palette with transparency warns unless it goes through RGBA
            image = image.convert("RGBA")
        return np.array(image.convert("RGB"), np.uint8)


def _header_size(path: Path) -> tuple[int, int] | None:
    """Upright (width, height) from the header alone; None where it cannot be read."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            is_turned = image.format in ("JPEG", "TIFF", "WEBP") and (
                image.getexif().get(_EXIF_ORIENTATION, 1) in _QUARTER_TURNS
            )
    except Exception:  # as above; the frames before it are still wanted
        return None
    return (height, width) if is_turned else (width, height)


def _reason(error: Exception) -> str:
    """The error in one line, without the path that the message names already."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error) or type(error).__name__).splitlines()[0].replace("cannot identify image file", "not an image")


def check_range(start: int, stop: int | None, *, frame_count: int, source: str) -> int:
    """The end of the range ``[start, stop)`` within a video of so many frames.

    Raises:
        FrameRangeError: `start` is not inside the video, or `stop` is not after `start`.
    """
    if not 0 <= start < frame_count:
        raise FrameRangeError(
            f"{source}: start = {start}: must lie in [0, {frame_count - 1}], it has {frame_count} frames"
        )
    if stop is not None and stop <= start:
        raise FrameRangeError(f"{source}: stop = {stop}: must be after start = {start}")
    return frame_count if stop is None else min(stop, frame_count)
