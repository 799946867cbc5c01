"""Tracks on straight paths, and galleries around the centre of an identity: the identity layer needs no pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fiftyone_plugin.types import Gallery, Source, Track

DIMENSION = 16


def build_track(
    track_id: int,
    frames: Iterable[int],
    *,
    start_xy: tuple[float, float] = (0.0, 0.0),
    step_xy: tuple[float, float] = (0.0, 0.0),
    size: float = 20.0,
    phrase: str = "sheep",
    boxes: np.ndarray | None = None,
    mask_score: float = 0.9,
) -> Track:
    """A square of `size` pixels whose centre is at `start_xy` on frame 0 and moves by `step_xy` a frame."""
    at = np.asarray(list(frames), np.int64)
    count = len(at)
    if boxes is None:
        centres = np.asarray(start_xy) + at[:, None] * np.asarray(step_xy)
        boxes = np.concatenate([centres - size / 2, centres + size / 2], axis=1)
    return Track(
        track_id=track_id,
        phrase=phrase,
        frame_indices=at,
        boxes_xyxy=np.asarray(boxes, np.float32).reshape(count, 4),
        masks=None,
        scores=np.full(count, 0.8, np.float32),
        mask_scores=np.full(count, mask_score, np.float32),
        identity_confidence=np.ones(count, np.float32),
        sources=(Source.PROPAGATED,) * count,
    )


def build_gallery(
    track_id: int,
    frames: Sequence[int],
    identities: Sequence[int] | int,
    *,
    noise: float = 0.05,
    spread: float = 1.0,
    seed: int = 0,
) -> Gallery:
    """Views of the given identity on every frame. `spread` 0 makes everybody look alike."""
    frames = np.asarray(list(frames), np.int64)
    who = np.broadcast_to(np.asarray(identities, np.int64), frames.shape)
    shared = np.random.default_rng(99).standard_normal(DIMENSION)
    centres = {i: shared + spread * np.random.default_rng((7, i)).standard_normal(DIMENSION) for i in set(who.tolist())}
    rng = np.random.default_rng((seed, track_id))
    rows = np.array([centres[i] for i in who.tolist()]).reshape(len(who), DIMENSION)
    rows = rows + noise * np.linalg.norm(rows, axis=1, keepdims=True) * rng.standard_normal(rows.shape) / 4
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return Gallery(track_id, frames, rows.astype(np.float32), np.ones(len(frames), np.float32), "made-up")


def rows_of(track: Track, rows: np.ndarray | slice) -> dict[str, Any]:
    """The fields of some rows of a track."""
    index = np.arange(len(track))[rows]
    return {
        "frame_indices": track.frame_indices[index],
        "boxes_xyxy": track.boxes_xyxy[index],
        "masks": None if track.masks is None else tuple(track.masks[k] for k in index.tolist()),
        "scores": track.scores[index],
        "mask_scores": track.mask_scores[index],
        "identity_confidence": track.identity_confidence[index],
        "sources": tuple(track.sources[k] for k in index.tolist()),
    }


def joined_track(head: Track, tail: Track) -> Track:
    """One track of two that follow each other, under the first one's id."""
    masks = None if head.masks is None or tail.masks is None else head.masks + tail.masks
    return replace(
        head,
        frame_indices=np.concatenate([head.frame_indices, tail.frame_indices]),
        boxes_xyxy=np.concatenate([head.boxes_xyxy, tail.boxes_xyxy]),
        masks=masks,
        scores=np.concatenate([head.scores, tail.scores]),
        mask_scores=np.concatenate([head.mask_scores, tail.mask_scores]),
        identity_confidence=np.concatenate([head.identity_confidence, tail.identity_confidence]),
        sources=head.sources + tail.sources,
    )


def part_of(track: Track, start: int, stop: int | float = np.inf, *, track_id: int | None = None) -> Track:
    inside = (track.frame_indices >= start) & (track.frame_indices < stop)
    return replace(track, track_id=track_id or track.track_id, **rows_of(track, inside))


def exchanged_tracks(tracks: Sequence[Track], a: int, b: int, frame: int) -> tuple[Track, ...]:
    """Two tracks with their futures exchanged from a frame on."""
    by_id = {t.track_id: t for t in tracks}
    heads = {i: part_of(by_id[i], 0, frame) for i in (a, b)}
    tails = {i: part_of(by_id[i], frame) for i in (a, b)}
    by_id[a], by_id[b] = joined_track(heads[a], tails[b]), joined_track(heads[b], tails[a])
    return tuple(by_id.values())


Scenario = tuple[tuple[Track, ...], dict[int, Gallery]]


def crossing_scenario(*, is_exchanged: bool, spread: float = 1.0, seed: int = 0) -> Scenario:
    """Tracks 1 and 2 walk through each other, deepest at frame 40; 3 stays away. Clean views only while apart."""
    frames = range(80)
    truth = (
        build_track(1, frames, start_xy=(20, 50), step_xy=(2, 0)),
        build_track(2, frames, start_xy=(180, 58), step_xy=(-2, 0)),
        build_track(3, frames, start_xy=(20, 200), step_xy=(1, 0)),
    )
    tracks = exchanged_tracks(truth, 1, 2, 40) if is_exchanged else truth
    seen = [f for f in frames if not 34 <= f < 47]
    shown = {1: (1, 2), 2: (2, 1), 3: (3, 3)} if is_exchanged else {1: (1, 1), 2: (2, 2), 3: (3, 3)}
    galleries = {
        i: build_gallery(i, seen, [shown[i][f >= 40] for f in seen], spread=spread, seed=seed) for i in (1, 2, 3)
    }
    return tracks, galleries


def return_scenario(*, spread: float = 1.0, absence: int = 20) -> Scenario:
    """Object 1 leaves at frame 40 and returns as track 4; 2 and 3 stay."""
    back = range(40 + absence, 100 + absence)
    tracks = (
        build_track(1, range(40), start_xy=(20, 50), step_xy=(3, 0)),
        build_track(2, range(100 + absence), start_xy=(20, 120), step_xy=(1, 0)),
        build_track(3, range(100 + absence), start_xy=(20, 200), step_xy=(1, 0)),
        build_track(4, back, start_xy=(300, 20), step_xy=(-1, 0)),
    )
    who = {1: 1, 2: 2, 3: 3, 4: 1}
    return tracks, {
        t.track_id: build_gallery(t.track_id, t.frame_indices.tolist(), who[t.track_id], spread=spread) for t in tracks
    }


def chaos_scenario(seed: int) -> Scenario:
    """Wanderers that bounce, vanish, return under new ids, exchange their objects and appear twice, all by chance."""
    rng = np.random.default_rng(seed)
    length, count = int(rng.integers(40, 110)), int(rng.integers(2, 6))
    frames = np.arange(length)
    objects = []
    for k in range(count):
        speed, phase = rng.uniform(0.02, 0.09), rng.uniform(0, 6)
        centres = np.stack([100 + 80 * np.sin(speed * frames + phase), np.full(length, 50 + 12.0 * k)], axis=1)
        centres += rng.normal(0, 0.5, centres.shape)
        objects.append(np.concatenate([centres - 10, centres + 10], axis=1))
    carriers = list(range(count))
    rows: dict[int, list[tuple[int, int]]] = {}
    next_id, absent = count, [0] * count
    for f in range(length):
        if count > 1 and rng.random() < 0.05:
            a, b = rng.choice(count, 2, replace=False).tolist()
            carriers[a], carriers[b] = carriers[b], carriers[a]
        for k in range(count):
            if absent[k]:
                absent[k] -= 1
                continue
            if rng.random() < 0.02:
                absent[k] = int(rng.integers(1, 25))
                if rng.random() < 0.6:
                    carriers[k], next_id = next_id, next_id + 1
            rows.setdefault(carriers[k] + 1, []).append((f, k))
    if rng.random() < 0.6:  # somebody is tracked twice for a while
        k, low = int(rng.integers(count)), int(rng.integers(length - 20))
        rows[next_id + 1] = [(f, k) for f in range(low, low + 18)]
    tracks, galleries = [], {}
    for track_id, seen in sorted(rows.items()):
        at = [f for f, _ in seen]
        boxes = np.array([objects[k][f] for f, k in seen]) + rng.normal(0, 0.3, (len(seen), 4))
        phrase = "dog" if rng.random() < 0.15 else "sheep"
        tracks.append(build_track(track_id, at, boxes=boxes, phrase=phrase, mask_score=float(rng.uniform(0.3, 1))))
        clean = rng.random(len(seen)) < 0.7
        if rng.random() < 0.9 and clean.any():
            picked = np.array(seen)[clean]
            galleries[track_id] = build_gallery(
                track_id, picked[:, 0], picked[:, 1], noise=0.3, spread=float(rng.choice([0.05, 0.5])), seed=seed
            )
    return tuple(tracks), galleries


@pytest.fixture(scope="session")
def make_track() -> Callable[..., Track]:
    return build_track


@pytest.fixture(scope="session")
def make_gallery() -> Callable[..., Gallery]:
    return build_gallery


@pytest.fixture(scope="session")
def part() -> Callable[..., Track]:
    return part_of


@pytest.fixture(scope="session")
def joined() -> Callable[..., Track]:
    return joined_track


@pytest.fixture(scope="session")
def exchanged() -> Callable[..., tuple[Track, ...]]:
    return exchanged_tracks


@pytest.fixture(scope="session")
def crossing() -> Callable[..., Scenario]:
    return crossing_scenario


@pytest.fixture(scope="session")
def returning() -> Callable[..., Scenario]:
    return return_scenario


@pytest.fixture(scope="session")
def chaos() -> Callable[[int], Scenario]:
    return chaos_scenario
