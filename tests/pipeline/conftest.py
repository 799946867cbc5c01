"""A world of coloured rectangles on a grey ground, whose truth is known, and scripted models that know it too."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from fiftyone_plugin.benchmarks.identity_injection import take
from fiftyone_plugin.geometry import encode_mask
from fiftyone_plugin.pipeline import Backends
from fiftyone_plugin.synthetic.fakes import Failure, ScriptedDetector, ScriptedEmbedder, ScriptedPropagator
from fiftyone_plugin.types import Frame, Source, Track, VideoInfo

HEIGHT_PX, WIDTH_PX = 96, 160
RED, BLUE, GREEN, YELLOW = (210, 40, 40), (40, 60, 220), (40, 190, 60), (220, 200, 40)


@dataclass(frozen=True)
class Block:
    """One object: it moves evenly, and is there in ``[start, stop)``."""

    phrase: str
    colour: tuple[int, int, int]
    x_px: float
    y_px: float
    speed_x_px: float = 0.0
    start: int = 0
    stop: int | None = None
    side_px: int = 20

    def corner(self, frame: int) -> tuple[int, int]:
        return round(self.x_px + self.speed_x_px * frame), round(self.y_px)


class World:
    """Frames and truth of some blocks; later blocks are in front. It is a `FrameSource`."""

    def __init__(self, blocks: Sequence[Block], frame_count: int) -> None:
        self.blocks = tuple(blocks)
        self.info = VideoInfo("world", WIDTH_PX, HEIGHT_PX, frame_count, 25.0)
        self.warnings: tuple[str, ...] = ()

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[Frame]:
        count = self.info.frame_count
        for index in range(start, min(count, stop if stop is not None else count)):
            yield Frame(index, index / 25.0, self._draw(index)[0])

    def truth(self) -> tuple[Track, ...]:
        rows: dict[int, list[tuple[int, np.ndarray]]] = {}
        for index in range(self.info.frame_count):
            owner = self._draw(index)[1]
            for number in range(1, len(self.blocks) + 1):
                if np.count_nonzero(owner == number) >= 8:
                    rows.setdefault(number, []).append((index, owner == number))
        return tuple(true_track(number, self.blocks[number - 1].phrase, found) for number, found in rows.items())

    def _draw(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        image = np.full((HEIGHT_PX, WIDTH_PX, 3), 120, np.uint8)
        # No two frames may look the same: the scripted detector knows them by their pixels.
        image[0, 0] = index % 256, index // 256, 0
        owner = np.zeros((HEIGHT_PX, WIDTH_PX), np.uint8)
        for number, block in enumerate(self.blocks, start=1):
            if block.start <= index and (block.stop is None or index < block.stop):
                x, y = block.corner(index)
                area = (slice(max(y, 0), max(y + block.side_px, 0)), slice(max(x, 0), max(x + block.side_px, 0)))
                image[area], owner[area] = block.colour, number
        return image, owner


def true_track(number: int, phrase: str, found: Sequence[tuple[int, np.ndarray]]) -> Track:
    boxes = []
    for _, mask in found:
        ys, xs = np.nonzero(mask)
        boxes.append([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
    ones = np.ones(len(found), np.float32)
    return Track(
        track_id=number,
        phrase=phrase,
        frame_indices=np.array([index for index, _ in found], np.int64),
        boxes_xyxy=np.array(boxes, np.float32),
        masks=tuple(encode_mask(mask) for _, mask in found),
        scores=ones,
        mask_scores=ones,
        identity_confidence=ones,
        sources=(Source.SEED, *[Source.PROPAGATED] * (len(found) - 1)),
    )


def rows_without(track: Track, start: int, stop: int) -> Track:
    """A track without its frames ``[start, stop)``."""
    keep = np.flatnonzero((track.frame_indices < start) | (track.frame_indices >= stop))
    return take(track.track_id, [(track, keep)])


@pytest.fixture(scope="session")
def without() -> Callable[[Track, int, int], Track]:
    """Cuts frames out of a track: ``without(track, start, stop)``."""
    return rows_without


@pytest.fixture
def scripted_models() -> Callable[..., Backends]:
    """Models that answer from a world's truth: ``scripted_models(world, *failures, miss_rate=...)``."""

    def make(world: World, *failures: Failure, truth: Sequence[Track] | None = None, **detector: Any) -> Backends:
        known = world.truth()
        return Backends(
            ScriptedDetector(known if truth is None else truth, world, **detector),
            ScriptedPropagator(known, failures=failures),
            ScriptedEmbedder(),
        )

    return make


@pytest.fixture
def world() -> type[World]:
    """Builds a world: ``world([block(...), ...], frame_count)``."""
    return World


@pytest.fixture
def block() -> type[Block]:
    """Builds an object of a world."""
    return Block


@pytest.fixture
def crossing() -> World:
    """A red and a blue sheep walk through each other in frames 25 to 35 of 60; the blue one is in front."""
    return World([Block("sheep", RED, 5, 40, 2.0), Block("sheep", BLUE, 125, 40, -2.0)], 60)


@pytest.fixture
def flock() -> World:
    """Four sheep: green (1) and yellow (2) keep apart, red (3) and blue (4) cross in frames 25 to 35 of 60."""
    return World(
        [
            Block("sheep", GREEN, 10, 5, 0.5),
            Block("sheep", YELLOW, 120, 72, -0.5),
            Block("sheep", RED, 5, 40, 2.0),
            Block("sheep", BLUE, 125, 40, -2.0),
        ],
        60,
    )
