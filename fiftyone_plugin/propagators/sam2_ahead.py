"""Frames encoded ahead of their use, a batch at a time, while the objects of earlier frames are being carried.

Encoding a batch of frames costs a GPU little more than encoding one. A thread takes frames from their source and puts
them where the GPU fetches them; uploading, resizing and encoding run beside everything else. Two batches exist at a
time, whatever the length of the video. Knows nothing of objects.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any

from torch import Tensor

from fiftyone_plugin.propagators.sam2_image import FrameFeatures, ImageEncoder, stage
from fiftyone_plugin.types import Frame

__all__ = ["FramesAhead"]


@dataclass(frozen=True, slots=True)
class _Batch:
    frames: list[Frame]
    features: list[FrameFeatures]
    is_ready: Any
    """What to wait for before the features are used."""


class FramesAhead:
    """Yields frames; knows the features of the ones it has yielded last, and of those that follow.

    Args:
        frames: Of one size; used up by this.
        encoder: On a GPU.
        batch_frames: Frames that are encoded at once.
    """

    def __init__(self, frames: Iterable[Frame], encoder: ImageEncoder, *, batch_frames: int) -> None:
        self._frames = iter(frames)
        self._encoder = encoder
        self._batch_frames = batch_frames
        self._known: dict[int, tuple[Frame, FrameFeatures, Any]] = {}
        self._followers: dict[int, Frame] = {}

    def __iter__(self) -> Iterator[Frame]:
        worker = ThreadPoolExecutor(1, thread_name_prefix="shepherd-encode-ahead")
        try:
            staged = worker.submit(self._take)
            current = self._encoded(staged)
            while current is not None:
                staged = worker.submit(self._take)
                upcoming: _Batch | None = None
                is_asked = False
                for number, frame in enumerate(current.frames):
                    is_last = number + 1 == len(current.frames)
                    if not is_asked and (staged.done() or is_last):
                        upcoming, is_asked = self._encoded(staged), True
                    self._remember(current, upcoming)
                    yield frame
                current = upcoming
        finally:
            worker.shutdown(wait=True)
            self._known, self._followers = {}, {}
            if isinstance(self._frames, Generator):
                self._frames.close()

    def features(self, frame: Frame) -> FrameFeatures | None:
        """Features of this very frame, ready for the current stream; None if it is not at hand."""
        known = self._known.get(frame.index)
        if known is None or known[0] is not frame:
            return None
        self._encoder.wait(known[2])
        return known[1]

    def after(self, frame: Frame) -> Frame | None:
        """The frame that will be yielded after this one, if its features are at hand."""
        return self._followers.get(frame.index)

    def _take(self) -> tuple[list[Frame], Tensor | None]:
        frames = list(islice(self._frames, self._batch_frames))
        if not frames:
            return frames, None
        # The last batch is filled up, so that all batches have one shape.
        filled = frames + frames[-1:] * (self._batch_frames - len(frames))
        return frames, stage([frame.image_rgb for frame in filled])

    def _encoded(self, staged: Future[tuple[list[Frame], Tensor | None]]) -> _Batch | None:
        frames, pixels = staged.result()
        if pixels is None:
            return None
        features, is_ready = self._encoder.encode_aside(pixels)
        return _Batch(frames, features[: len(frames)], is_ready)

    def _remember(self, current: _Batch, upcoming: _Batch | None) -> None:
        batches = [current] if upcoming is None else [current, upcoming]
        self._known = {
            frame.index: (frame, features, batch.is_ready)
            for batch in batches
            for frame, features in zip(batch.frames, batch.features, strict=True)
        }
        frames = [frame for batch in batches for frame in batch.frames]
        self._followers = {a.index: b for a, b in pairwise(frames)}
