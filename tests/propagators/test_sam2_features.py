"""Features pooled under masks, and whose encoder makes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fiftyone_plugin.embedders.evidence import crop_objects
from fiftyone_plugin.errors import BackendError
from fiftyone_plugin.geometry import crop, mask_boxes
from fiftyone_plugin.interfaces import FeaturePool
from fiftyone_plugin.propagators.sam2 import Sam2Propagator, Sam2Session
from fiftyone_plugin.propagators.sam2_features import FramePooler, Sam2Features, cell_shares, make
from fiftyone_plugin.propagators.sam2_image import FrameFeatures, ImageEncoder
from fiftyone_plugin.propagators.sam2_model import load_model
from fiftyone_plugin.propagators.stride import StridedPropagator
from fiftyone_plugin.synthetic.fakes import ScriptedPropagator
from fiftyone_plugin.types import Crop, Frame, Seed

HEIGHT, WIDTH = 48, 80


def frame(index: int) -> Frame:
    image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    x = 10 + index % 40
    image[12:32, x : x + 20] = (220, 200, 60)
    return Frame(index, index / 25, image)


def cut(of: Frame, *boxes: tuple[int, int, int, int]) -> list[Crop]:
    masks = np.zeros((len(boxes), HEIGHT, WIDTH), np.bool_)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
    return crop_objects(of, masks, mask_boxes(masks))


def tiny_propagator() -> Sam2Propagator:
    return Sam2Propagator(load_model("bundled", device="cpu", used_by="test", image_size=64), name="t:x", device="cpu")


@pytest.fixture(scope="module")
def propagator() -> Sam2Propagator:
    return tiny_propagator()


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many frames each pass of an image encoder has seen."""
    passes: list[int] = []
    original = ImageEncoder.encode

    def counting(self: ImageEncoder, images: Any) -> Any:
        passes.append(len(images))
        return original(self, images)

    monkeypatch.setattr(ImageEncoder, "encode", counting)
    return passes


@settings(max_examples=50, deadline=None)
@given(
    mask=arrays.arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))),
    rows=st.integers(1, 6),
    columns=st.integers(1, 6),
    corner=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    margin=st.tuples(st.integers(0, 5), st.integers(0, 5)),
)
def test_cell_shares_are_areas_of_the_mask_in_the_cells(
    mask: np.ndarray, rows: int, columns: int, corner: tuple[int, int], margin: tuple[int, int]
) -> None:
    top, left = corner
    height, width = top + mask.shape[0] + margin[0], left + mask.shape[1] + margin[1]
    whole = np.zeros((height, width), np.bool_)
    whole[top : top + mask.shape[0], left : left + mask.shape[1]] = mask if mask.any() else True
    # Every pixel becomes rows x columns small ones, so that all cells hold whole ones.
    fine = np.kron(whole, np.ones((rows, columns)))
    expected = fine.reshape(rows, height, columns, width).sum(axis=(1, 3))
    image = np.zeros((*mask.shape, 3), np.uint8)
    around = Frame(0, 0.0, np.zeros((height, width, 3), np.uint8))
    shares = cell_shares(Crop(image, mask, around, left, top), rows=rows, columns=columns)
    np.testing.assert_allclose(shares, expected / expected.sum(), atol=1e-6)


class Fixed:
    """An encoder of known answers that counts."""

    def __init__(self, features: FrameFeatures) -> None:
        self.features, self.calls = features, 0

    def encode(self, images: list[np.ndarray]) -> list[FrameFeatures]:
        self.calls += 1
        return [self.features] * len(images)


@pytest.fixture
def fixed() -> Fixed:
    torch.manual_seed(0)
    return Fixed(FrameFeatures(torch.randn(1, 16, 3, 5), torch.randn(1, 4, 6, 10), torch.randn(1, 2, 12, 20)))


def test_pool_is_the_mean_under_the_mask_level_by_level(fixed: Fixed) -> None:
    pooler = FramePooler(fixed, channels=16)  # type: ignore[arg-type]
    # A cell of the finest level is 4 x 4 pixels: these masks cover whole cells of it, the second one 2 x 3 of them.
    crops = cut(frame(0), (16, 0, 48, 16), (20, 12, 32, 20))
    expected = []
    for x0, y0, x1, y1 in ((4, 0, 12, 4), (5, 3, 8, 5)):
        cover = np.zeros((12, 20))
        cover[y0:y1, x0:x1] = 1
        parts = []
        for level, step in ((fixed.features.stride_4, 1), (fixed.features.stride_8, 2), (fixed.features.embedding, 4)):
            weights = cover.reshape(12 // step, step, 20 // step, step).sum(axis=(1, 3))
            mean = (level[0].numpy() * weights).sum(axis=(1, 2)) / weights.sum()
            parts.append(mean / np.linalg.norm(mean))
        joined = np.concatenate(parts)
        expected.append(joined / np.linalg.norm(joined))
    pooled = pooler.pool(frame(0), crops)
    assert pooled.dtype == np.float32
    assert pooled.shape == (2, pooler.feature_size)
    np.testing.assert_allclose(pooled, expected, atol=1e-6)


def test_frame_is_encoded_once_however_often_it_is_asked_about(fixed: Fixed) -> None:
    pooler = FramePooler(fixed, channels=16)  # type: ignore[arg-type]
    first, second = frame(0), frame(1)
    for each in (first, first, second, second):
        pooler.pool(each, cut(each, (16, 0, 48, 16)))
    assert fixed.calls == 2
    # Another frame of the same number is another frame.
    pooler.pool(frame(1), cut(frame(1), (16, 0, 48, 16)))
    assert fixed.calls == 3
    assert pooler.pool(frame(2), []).shape == (0, 22)
    assert fixed.calls == 3


def test_crops_of_several_frames_come_back_in_order(propagator: Sam2Propagator) -> None:
    embedder = Sam2Features(propagator, variant="x")
    first, second = frame(0), frame(30)
    one, two = cut(first, (10, 12, 30, 32), (50, 5, 70, 25))
    three = cut(second, (40, 12, 60, 32))[0]
    alone = Crop(one.image_rgb, one.mask)
    together = embedder.embed([one, three, alone, two])
    for row, each in zip(together, (one, three, alone, two), strict=True):
        np.testing.assert_allclose(embedder.embed([each])[0], row, atol=1e-5)


def test_crop_without_its_frame_is_blind_to_the_background(propagator: Sam2Propagator) -> None:
    embedder = Sam2Features(propagator, variant="x")
    rng = np.random.default_rng(0)
    mask = np.zeros((30, 30), np.bool_)
    mask[8:22, 8:22] = True
    image = rng.integers(0, 256, (30, 30, 3), np.uint8)
    other = np.where(mask[..., None], image, np.uint8(255) - image)
    a, b = embedder.embed([Crop(image, mask), Crop(other, mask)])
    np.testing.assert_allclose(a, b, atol=1e-5)
    # With their frames, the two are not the same: features have seen what lies around.
    boxes = np.array([[0, 0, 30, 30]], np.float32)
    (c, d) = (embedder.embed(crop_objects(Frame(0, 0.0, i), mask[None], boxes))[0] for i in (image, other))
    assert np.abs(c - d).max() > 1e-3


def seeds(*track_ids: int) -> list[Seed]:
    return [Seed(t, box_xyxy=np.array([10 + t, 12, 30 + t, 32], np.float32)) for t in track_ids]


def as_on_a_gpu(session: Sam2Session) -> Sam2Session:
    session._is_padded = session._runs_ahead = True
    return session


@pytest.mark.parametrize(
    ("prepare", "passes"),
    [pytest.param(lambda s: s, [1] * 10, id="one by one"), pytest.param(as_on_a_gpu, [8, 8], id="ahead")],
)
def test_features_of_the_session_are_used_and_are_those_of_the_frame(
    prepare: Callable[[Sam2Session], Sam2Session], passes: list[int], encoded: list[int]
) -> None:
    propagator = tiny_propagator()
    embedder = make(None, "cpu", propagator)
    session = prepare(propagator.open(height_px=HEIGHT, width_px=WIDTH))
    seen = []
    for each in session.feed(frame(i) for i in range(10)):
        session.advance(each)
        if each.index == 2:
            session.seed(seeds(1))
        # Also before anything is tracked, when the session itself had no need to encode.
        seen.append(embedder.embed(cut(each, (10, 12, 30, 32), (40, 8, 60, 40))))
    assert encoded == passes
    other = FramePooler(propagator.encoder, channels=128)
    for index, embeddings in enumerate(seen):
        each = frame(index)
        np.testing.assert_allclose(
            embeddings, other.pool(each, cut(each, (10, 12, 30, 32), (40, 8, 60, 40))), atol=1e-4
        )


def test_masks_are_the_same_whether_features_are_asked_for_or_not() -> None:
    answers = []
    for asks in (False, True):
        propagator = tiny_propagator()
        session = propagator.open(height_px=HEIGHT, width_px=WIDTH)
        answer = []
        for each in (frame(i) for i in range(6)):
            if asks and each.index % 2:
                propagator.pool(frame(30), cut(frame(30), (10, 12, 30, 32)))
            answer.append(session.advance(each))
            if asks:
                propagator.pool(each, cut(each, (10, 12, 30, 32)))
            if each.index == 1:
                answer.append(session.seed(seeds(1, 2)))
        answers.append(b"".join(a.masks.tobytes() + a.object_scores.tobytes() for a in answer))
    assert answers[0] == answers[1]


def test_latest_of_two_sessions_is_asked(propagator: Sam2Propagator, encoded: list[int]) -> None:
    first, second = (propagator.open(height_px=HEIGHT, width_px=WIDTH) for _ in range(2))
    here, there = frame(0), frame(7)
    for session, each in ((first, here), (second, there)):
        session.advance(each)
        session.seed(seeds(1))
    assert encoded == [1, 1]
    propagator.pool(there, cut(there, (10, 12, 30, 32)))
    assert encoded == [1, 1]
    # The other one is encoded once more rather than mistaken for it.
    propagator.pool(here, cut(here, (10, 12, 30, 32)))
    assert encoded == [1, 1, 1]


def test_session_that_is_over_is_not_kept_alive(propagator: Sam2Propagator) -> None:
    session = propagator.open(height_px=HEIGHT, width_px=WIDTH)
    session.advance(frame(0))
    assert propagator._latest is not None
    assert propagator._latest() is session
    del session
    assert propagator._latest() is None
    each = frame(0)
    assert propagator.pool(each, cut(each, (10, 12, 30, 32))).shape == (1, propagator.feature_size)


def test_frames_that_a_stride_leaves_out_are_encoded_when_they_are_looked_at(encoded: list[int]) -> None:
    strided = StridedPropagator(tiny_propagator(), stride=3)
    embedder = make(None, "cpu", strided)
    session = strided.open(height_px=HEIGHT, width_px=WIDTH)
    counts = []
    for each in session.feed(frame(i) for i in range(7)):
        session.advance(each)
        if each.index == 0:
            session.seed(seeds(1))
        embedder.embed(cut(each, (10, 12, 30, 32)))
        counts.append(sum(encoded))
    # Frame 1: key frame 3, which its masks are made from, and itself. Frame 3 is at hand when its turn comes.
    assert counts == [1, 3, 4, 4, 6, 7, 7]


class Other:
    """A propagator of another package, with an encoder to share."""

    name = "mine:big"
    feature_size = 3

    def open(self, *, height_px: int, width_px: int) -> Any:
        raise NotImplementedError

    def pool(self, frame: Frame, crops: Any) -> np.ndarray:
        return np.tile(np.array([1, 0, 0], np.float32), (len(crops), 1))


def test_propagator_of_another_package_may_share_its_features() -> None:
    assert isinstance(Other(), FeaturePool)
    embedder = make(None, "cpu", Other())
    assert (embedder.name, embedder.dimension) == ("sam2-features:big", 3)
    assert embedder.embed(cut(frame(0), (10, 12, 30, 32))).tolist() == [[1, 0, 0]]


@pytest.mark.parametrize(
    ("variant", "propagator", "expected"),
    [
        pytest.param(None, None, "bundled", id="nothing said"),
        pytest.param(None, "sam2:large", "large", id="that of the propagator"),
        pytest.param(None, "sam2", "bundled", id="that of the propagator, its default"),
        pytest.param(None, "sam2-reference:small", "small", id="that of the reference"),
        pytest.param("tiny", "sam2:large", "tiny", id="its own"),
        pytest.param("tiny", "other", "tiny", id="its own beside another package's"),
        pytest.param("tiny", Other(), "tiny", id="its own beside one that shares"),
    ],
)
def test_weights_are_those_asked_for_or_the_propagators(
    variant: str | None, propagator: Any, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    model = load_model("bundled", device="cpu", used_by="test", image_size=64)

    def load(variant: str, **_: Any) -> Any:
        asked.append(variant)
        return model

    monkeypatch.setattr("fiftyone_plugin.propagators.sam2_features.load_model", load)
    assert make(variant, "cpu", propagator).name == f"sam2-features:{expected}"
    assert asked == [expected]


@pytest.mark.parametrize("propagator", ["scripted", ScriptedPropagator(())], ids=["by name", "made"])
def test_propagator_without_features_is_told_to_name_a_variant(propagator: Any) -> None:
    with pytest.raises(BackendError, match=r"'scripted' has no image features to share: name a variant, such as sam2-"):
        make(None, "cpu", propagator)


def test_crop_knows_where_it_lies() -> None:
    image = np.arange(HEIGHT * WIDTH * 3, dtype=np.int64).reshape(HEIGHT, WIDTH, 3).astype(np.uint8)
    of = Frame(0, 0.0, image)
    (each,) = cut(of, (13, 7, 30, 32))
    assert each.frame is of
    assert (each.left_px, each.top_px) == (13, 7)
    np.testing.assert_array_equal(image[7:32, 13:30], each.image_rgb)
    assert crop(image, np.ones((HEIGHT, WIDTH), np.bool_), np.array([1, 2, 9, 9], np.float32)).frame is None
