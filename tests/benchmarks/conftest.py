"""Made-up tracks for the identity benchmark: boxes on straight lines, and views that say who is who."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from fiftyone_plugin.types import Gallery, Source, Track


def build_track(track_id: int, frames: Sequence[int], *, x0: float = 0.0, y: float = 0.0, speed: float = 0.0) -> Track:
    at = np.asarray(list(frames), np.int64)
    left = (x0 + speed * at).astype(np.float32)
    boxes = np.stack([left, np.full_like(left, y), left + 10, np.full_like(left, y + 10)], axis=1)
    ones = np.ones(len(at), np.float32)
    return Track(track_id, "sheep", at, boxes, None, ones, ones, ones, (Source.SEED,) * len(at))


def build_gallery(track_id: int, frames: Sequence[int], looks: Sequence[int]) -> Gallery:
    """Views that are unit vectors along the axis of the look, with a little noise."""
    noise = np.random.default_rng(track_id).normal(0, 0.02, (len(looks), 8)).astype(np.float32)
    views = np.eye(8, dtype=np.float32)[list(looks)] + noise
    views /= np.linalg.norm(views, axis=1, keepdims=True)
    return Gallery(track_id, np.asarray(list(frames), np.int64), views, np.ones(len(looks), np.float32), "made-up")


@pytest.fixture
def make_track() -> Callable[..., Track]:
    return build_track


@pytest.fixture
def make_gallery() -> Callable[..., Gallery]:
    return build_gallery


@pytest.fixture
def crossing() -> list[Track]:
    """Two objects that pass through each other about frame 50, and a third one far away."""
    return [
        build_track(1, range(100), x0=0, speed=1),
        build_track(2, range(100), x0=100, y=3, speed=-1),
        build_track(3, range(100), y=200),
    ]
