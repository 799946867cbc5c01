"""What every embedder must do. Passing this suite is the definition of an embedder backend."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from transformers import Dinov2Config, Dinov2Model

from fiftyone_plugin.embedders.evidence import crop_objects
from fiftyone_plugin.geometry import decode_mask
from fiftyone_plugin.interfaces import Embedder
from fiftyone_plugin.registry import make_embedder
from fiftyone_plugin.synthetic.fakes import ScriptedEmbedder
from fiftyone_plugin.synthetic.scenes import crossing
from fiftyone_plugin.types import Crop

TOLERANCE = 1e-4


def _dinov2_of_random_weights(directory: Path) -> Embedder:
    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2, image_size=56)
    Dinov2Model(config).save_pretrained(directory)
    return make_embedder(f"dinov2:{directory}", device="cpu")


BACKENDS: dict[str, Callable[[Path], Embedder]] = {
    "colour": lambda _: make_embedder("colour", device="cpu"),
    "colour-relative": lambda _: make_embedder("colour:relative", device="cpu"),
    "colour-adapted": lambda _: make_embedder("colour:adapted", device="cpu"),
    "reid-bundled": lambda _: make_embedder("reid", device="cpu"),
    "reid-adapted": lambda _: make_embedder("reid-adapted", device="cpu"),
    "dinov2-random": _dinov2_of_random_weights,
    "sam2-features": lambda _: make_embedder("sam2-features", device="cpu"),
    "scripted": lambda _: ScriptedEmbedder(),
}


@pytest.fixture(scope="module", params=BACKENDS.values(), ids=BACKENDS.keys())
def embedder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    return request.param(tmp_path_factory.mktemp("embedder"))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def crops() -> list[Crop]:
    """Three views of one sheep, then three of another."""
    clip = crossing(frames=60)
    wanted = (0, 8, 15)
    frames = {frame.index: frame for frame in clip.source.frames(0, 16) if frame.index in wanted}
    cut = []
    for track in clip.ground_truth():
        assert track.masks is not None
        for index in wanted:
            (row,) = np.flatnonzero(track.frame_indices == index)
            cut += crop_objects(frames[index], decode_mask(track.masks[row])[None], track.boxes_xyxy[row : row + 1])
    return cut


def test_is_an_embedder_with_a_name(embedder: Embedder) -> None:
    assert isinstance(embedder, Embedder)
    assert embedder.name


def test_embed_gives_unit_length_float32_in_the_order_given(embedder: Embedder, crops: list[Crop]) -> None:
    embeddings = embedder.embed(crops)
    assert embeddings.dtype == np.float32
    assert embeddings.shape == (len(crops), embedder.dimension)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=TOLERANCE)
    np.testing.assert_allclose(embedder.embed(crops[::-1]), embeddings[::-1], atol=TOLERANCE)


def test_embed_of_no_crop_is_empty(embedder: Embedder) -> None:
    embeddings = embedder.embed([])
    assert embeddings.shape == (0, embedder.dimension)
    assert embeddings.dtype == np.float32


def test_embed_does_not_depend_on_the_batch(embedder: Embedder, crops: list[Crop]) -> None:
    together = embedder.embed(crops)
    for crop, embedding in zip(crops, together, strict=True):
        np.testing.assert_allclose(embedder.embed([crop])[0], embedding, atol=TOLERANCE)


def test_embed_looks_at_the_object_only(embedder: Embedder, crops: list[Crop]) -> None:
    """Of a crop alone: an embedder that is shown the frame, too, may see what lies around."""
    crops = [Crop(crop.image_rgb, crop.mask) for crop in crops]
    elsewhere = [
        Crop(np.where(crop.mask[..., None], crop.image_rgb, np.uint8(255) - crop.image_rgb), crop.mask)
        for crop in crops
    ]
    np.testing.assert_allclose(embedder.embed(elsewhere), embedder.embed(crops), atol=TOLERANCE)


def test_embed_leaves_its_input_alone(embedder: Embedder, crops: list[Crop]) -> None:
    image, mask = crops[0].image_rgb.copy(), crops[0].mask.copy()
    embedder.embed(crops[:1])
    np.testing.assert_array_equal(crops[0].image_rgb, image)
    np.testing.assert_array_equal(crops[0].mask, mask)


def test_embed_puts_views_of_one_object_nearer_than_those_of_another(embedder: Embedder, crops: list[Crop]) -> None:
    embeddings = embedder.embed(crops)
    similarity = embeddings @ embeddings.T
    is_same = np.kron(np.eye(2), np.ones((3, 3))).astype(bool)
    others = ~np.eye(6, dtype=bool)
    assert similarity[is_same & others].min() > similarity[~is_same].max()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_embed_of_any_crop_is_finite_and_of_unit_length(embedder: Embedder, data: st.DataObject) -> None:
    """Slivers, single pixels, pure black and empty masks included."""
    height, width = data.draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    image = data.draw(arrays.arrays(np.uint8, (height, width, 3), fill=st.integers(0, 255)))
    mask = data.draw(arrays.arrays(np.bool_, (height, width), fill=st.booleans()))
    embedding = embedder.embed([Crop(image, mask)])[0]
    assert np.isfinite(embedding).all()
    np.testing.assert_allclose(np.linalg.norm(embedding), 1, atol=TOLERANCE)
