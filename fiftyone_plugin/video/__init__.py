"""Video sources: files, folders of frames, image sequences and single images, one frame after another.

    source = open_source("flock.mp4")
    for frame in source.frames(100, 200): ...

Every source is a `FrameSource`: `frames` may be called again and again, decodes in a background thread a few frames
ahead, and gives thread and files back as soon as its iterator is closed or forgotten. Knows nothing of models, tracks
or datasets.
"""

from __future__ import annotations

from pathlib import Path

from fiftyone_plugin.errors import VideoError
from fiftyone_plugin.interfaces import FrameSource
from fiftyone_plugin.video.file import VideoFileSource
from fiftyone_plugin.video.images import IMAGE_SUFFIXES, ImageSequenceSource, open_folder

__all__ = ["IMAGE_SUFFIXES", "ImageSequenceSource", "VideoFileSource", "open_folder", "open_source"]


def open_source(path: str | Path, *, default_frames_per_second: float = 25.0) -> FrameSource:
    """Open a video file, a folder of frames, or a single image.

    Args:
        path: What to read. A folder may also be a MOTChallenge sequence: a ``seqinfo.ini`` beside the images, or one
            level above them, names the frame rate.
        default_frames_per_second: Rate of a folder that does not name one. Video files have their own clock.

    Raises:
        VideoError: Nothing is there, or it holds no frame that can be decoded, or the images differ in size.
    """
    location = Path(path).expanduser()
    try:
        if location.is_dir():
            return open_folder(location, source=str(path), default_frames_per_second=default_frames_per_second)
        if not location.is_file():
            raise VideoError(
                f"{str(path)!r}: no such file or folder: give a video file, an image or a folder of frames"
            )
    except OSError as error:
        raise VideoError(f"{str(path)!r}: cannot be read ({error.strerror or error})") from None
    if location.suffix.lower() in IMAGE_SUFFIXES:
        return ImageSequenceSource([location], default_frames_per_second, source=str(path))
    return VideoFileSource(location, source=str(path))
