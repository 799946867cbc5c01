"""Tracks made by hand or by chance, for measuring."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from fiftyone_plugin.geometry import encode_mask
from fiftyone_plugin.types import Source, Track

MakeTrack = Callable[..., Track]


def build_track(
    track_id: int,
    frames: Sequence[int],
    boxes: np.ndarray,
    *,
    phrase: str = "object",
    with_masks: bool = False,
    size: tuple[int, int] = (64, 96),
) -> Track:
    count = len(frames)
    masks = None
    if with_masks:
        dense = np.zeros((count, *size), np.bool_)
        for k, (x0, y0, x1, y1) in enumerate(np.asarray(boxes).round().astype(int).tolist()):
            dense[k, max(0, y0) : max(0, y1), max(0, x0) : max(0, x1)] = True
        masks = tuple(encode_mask(m) for m in dense)
    ones = np.ones(count, np.float32)
    return Track(
        track_id=track_id,
        phrase=phrase,
        frame_indices=np.asarray(frames, np.int64),
        boxes_xyxy=np.asarray(boxes, np.float32).reshape(count, 4),
        masks=masks,
        scores=ones,
        mask_scores=ones,
        identity_confidence=ones,
        sources=(Source.SEED,) * count,
    )


@pytest.fixture
def make_track() -> MakeTrack:
    return build_track


@pytest.fixture
def lane() -> Callable[..., Track]:
    """A track that stands still in its own lane, 20 pixels below the one before it."""

    def make(track_id: int, frames: Sequence[int], *, at: int, phrase: str = "object") -> Track:
        return build_track(track_id, frames, np.tile([10, 20 * at, 20, 20 * at + 10], (len(frames), 1)), phrase=phrase)

    return make


@pytest.fixture
def make_scene() -> Callable[..., tuple[list[Track], list[Track]]]:
    """Ground truth, and predictions with jitter, gaps, false alarms and exchanged ids, all by chance."""

    def make(
        seed: int, *, objects: int = 6, length: int = 40, with_masks: bool = False
    ) -> tuple[list[Track], list[Track]]:
        rng = np.random.default_rng(seed)
        truth, boxes_of = [], []
        for k in range(objects):
            start, stop = np.sort(rng.choice(length + 1, 2, replace=False))
            frames = start + np.flatnonzero(rng.random(stop - start) > 0.1)
            centre = rng.uniform(10, 60, 2) + np.arange(length)[:, None] * rng.uniform(-1, 1, 2)
            half = rng.uniform(4, 12, 2)
            boxes = np.concatenate([centre - half, centre + half], axis=1)
            if with_masks:
                boxes = np.clip(boxes, 0, 60).round()
                boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 2)
            boxes_of.append(boxes)
            if len(frames):
                truth.append(build_track(k + 1, frames, boxes[frames], with_masks=with_masks))
        carriers = np.arange(objects)
        rows: dict[int, list[tuple[int, np.ndarray]]] = {}
        for t in range(length):
            if rng.random() < 0.15:
                a, b = rng.choice(objects, 2, replace=False)
                carriers[[a, b]] = carriers[[b, a]]
            for k in range(objects):
                if rng.random() < 0.8:
                    jitter = rng.normal(0, 1.5, 4) if not with_masks else rng.integers(-2, 2, 4)
                    box = boxes_of[k][t] + jitter
                    box[2:] = np.maximum(box[2:], box[:2] + 1)
                    rows.setdefault(int(carriers[k]) + 10, []).append((t, box))
        predicted = [
            build_track(i, [t for t, _ in r], np.array([b for _, b in r]), with_masks=with_masks)
            for i, r in rows.items()
        ]
        return truth, predicted

    return make
