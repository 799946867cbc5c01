"""Frames from the last to the first, of sources that only go forward. Holds a few of them at a time."""

from __future__ import annotations

from collections.abc import Iterator

from fiftyone_plugin.interfaces import FrameSource
from fiftyone_plugin.types import Frame

__all__ = ["WINDOW_FRAMES", "backwards"]

WINDOW_FRAMES = 32
"""Frames held at once."""


def backwards(source: FrameSource, start: int, stop: int) -> Iterator[Frame]:
    """The frames ``[start, stop)`` in reverse; every one is decoded again."""
    for end in range(stop, start, -WINDOW_FRAMES):
        yield from reversed(list(source.frames(max(start, end - WINDOW_FRAMES), end)))
