"""Random tracks for files that must come back as they went in."""

import numpy as np
import pytest
from hypothesis import strategies as st

from fiftyone_plugin.geometry import encode_mask, mask_boxes
from fiftyone_plugin.types import Source, Track, VideoInfo

HEIGHT, WIDTH, LENGTH = 24, 40, 12

PHRASES = st.sampled_from(["object", "sheep", "border collie", 'a "quoted" <tag> & more', "羊", "dog, brown"])


def ones(count: int) -> np.ndarray:
    return np.ones(count, np.float32)


@st.composite
def frame_indices(draw: st.DrawFn) -> list[int]:
    return sorted(draw(st.sets(st.integers(0, LENGTH - 1), min_size=1, max_size=LENGTH)))


@st.composite
def box_tracks(draw: st.DrawFn) -> tuple[Track, ...]:
    """Up to four tracks of arbitrary float32 boxes and scores."""
    value = st.floats(-2000, 8000, width=32, allow_nan=False)
    side = st.floats(0, 4000, width=32, allow_nan=False)
    tracks = []
    for track_id in sorted(draw(st.sets(st.integers(1, 10**6), max_size=4))):
        frames = draw(frame_indices())
        corners = np.array([[draw(value), draw(value)] for _ in frames], np.float32)
        sides = np.array([[draw(side), draw(side)] for _ in frames], np.float32)
        scores = np.array([draw(st.floats(0, 1, width=32)) for _ in frames], np.float32)
        boxes = np.concatenate([corners, corners + sides], axis=1)
        tracks.append(make(track_id, draw(PHRASES), frames, boxes, None, scores))
    return tuple(tracks)


@st.composite
def mask_tracks(draw: st.DrawFn, *, max_id: int = 10**6, is_disjoint: bool = False) -> tuple[Track, ...]:
    """Up to four tracks with random masks and their tight boxes; where asked, no two masks share a pixel."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    tracks = []
    taken = np.zeros((LENGTH, HEIGHT, WIDTH), np.bool_)
    for track_id in sorted(draw(st.sets(st.integers(1, max_id), max_size=4))):
        frames, masks = [], []
        for frame in draw(frame_indices()):
            mask = np.zeros((HEIGHT, WIDTH), np.bool_)
            y, x = rng.integers(0, HEIGHT - 2), rng.integers(0, WIDTH - 2)
            mask[y : y + rng.integers(1, 14), x : x + rng.integers(1, 18)] = True
            mask &= rng.random(mask.shape) < rng.choice([0.3, 0.9, 1.0])
            mask[y, x] = True
            if is_disjoint:
                mask &= ~taken[frame]
                taken[frame] |= mask
            if mask.any():
                frames.append(frame)
                masks.append(mask)
        if frames:
            boxes = mask_boxes(np.array(masks))
            scores = rng.random(len(frames)).astype(np.float32)
            coded = tuple(encode_mask(m) for m in masks)
            tracks.append(make(track_id, draw(PHRASES), frames, boxes, coded, scores))
    return tuple(tracks)


def make(track_id, phrase, frames, boxes, masks, scores) -> Track:
    count = len(frames)
    given = np.ones(count, np.float32)
    return Track(
        track_id=track_id,
        phrase=phrase,
        frame_indices=np.array(frames, np.int64),
        boxes_xyxy=np.asarray(boxes, np.float32).reshape(count, 4),
        masks=masks,
        scores=np.asarray(scores, np.float32),
        mask_scores=given,
        identity_confidence=given,
        sources=(Source.PROPAGATED,) * count,
    )


def assert_same(read, written, *, with_scores: bool = True, with_phrases: bool = True) -> None:
    assert [t.track_id for t in read] == [t.track_id for t in written]
    for a, b in zip(read, written, strict=True):
        np.testing.assert_array_equal(a.frame_indices, b.frame_indices)
        np.testing.assert_array_equal(a.boxes_xyxy, b.boxes_xyxy)
        assert a.masks == b.masks
        if with_phrases:
            assert a.phrase == b.phrase
        if with_scores:
            np.testing.assert_array_equal(a.scores, b.scores)


class Tools:
    """What the tests of all formats share; pytest's import mode leaves no module to import it from."""

    box_tracks = staticmethod(box_tracks)
    mask_tracks = staticmethod(mask_tracks)
    make = staticmethod(make)
    assert_same = staticmethod(assert_same)
    video = VideoInfo("clip.mp4", WIDTH, HEIGHT, LENGTH, 25.0)


@pytest.fixture(scope="session")
def tools() -> type[Tools]:
    return Tools
