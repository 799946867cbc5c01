"""Crops without the light of their surroundings."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fiftyone_plugin.embedders.adapted import AdaptedEmbedder, adapt
from fiftyone_plugin.embedders.evidence import crop_objects
from fiftyone_plugin.registry import make_embedder
from fiftyone_plugin.types import Crop, Frame

HEIGHT, WIDTH = 80, 120
BOX = np.array([[40, 30, 60, 50]], np.float32)


def meadow() -> np.ndarray:
    """Speckled ground with a two-coloured animal on it, float (H, W, 3) in [0, 255]."""
    rng = np.random.default_rng(3)
    picture = np.array([90.0, 120, 60]) + rng.normal(0, 4, (HEIGHT, WIDTH, 3))
    picture[30:40, 40:60] = (180, 150, 140)
    picture[40:50, 40:60] = (60, 70, 110)
    return picture


def cut(picture: np.ndarray) -> Crop:
    mask = np.zeros((1, HEIGHT, WIDTH), np.bool_)
    mask[0, 30:50, 40:60] = True
    frame = Frame(0, 0.0, np.clip(picture, 0, 255).round().astype(np.uint8))
    return crop_objects(frame, mask, BOX)[0]


def on_object(crop: Crop) -> np.ndarray:
    return crop.image_rgb[crop.mask].astype(float)


@given(st.tuples(*[st.floats(0.5, 1.3)] * 3), st.floats(0.0, 0.5))
def test_light_on_object_and_ground_alike_leaves_no_trace(gains: tuple[float, ...], shade: float) -> None:
    """Colour and brightness, and a shadow that falls off to one side of the picture."""
    shadow = 1 - shade * np.linspace(0, 1, WIDTH)[None, :, None]
    steady, lit = cut(meadow()), cut(meadow() * np.array(gains) * shadow)
    assert np.abs(on_object(adapt(steady)) - on_object(adapt(lit))).mean() < 12


def test_adapted_colour_knows_an_animal_again_where_colour_does_not() -> None:
    steady, lit = cut(meadow()), cut(meadow() * np.array([0.85, 0.7, 0.45]))
    plain, adapted = (make_embedder(name, device="cpu").embed([steady, lit]) for name in ("colour", "colour:adapted"))
    assert plain[0] @ plain[1] < 0.6
    assert adapted[0] @ adapted[1] > 0.9


def test_crop_that_knows_no_frame_or_fills_it_stays_as_it_is() -> None:
    crop = cut(meadow())
    alone = Crop(crop.image_rgb, crop.mask)
    assert adapt(alone) is alone
    frame = Frame(0, 0.0, np.full((20, 20, 3), 40, np.uint8))
    (whole,) = crop_objects(frame, np.ones((1, 20, 20), np.bool_), np.array([[0, 0, 20, 20]], np.float32))
    assert (adapt(whole).image_rgb == 40).all()


@pytest.mark.parametrize("ground", [0, 255])
def test_black_and_white_ground_keep_animals_apart(ground: int) -> None:
    """As in microscopy: darkness says nothing of the light, and must not blow colours up beyond all difference."""
    picture = np.full((HEIGHT, WIDTH, 3), float(ground))
    picture[30:40, 40:60], picture[40:50, 40:60] = 10.0, 15.0
    adapted = on_object(adapt(cut(picture)))
    assert len(np.unique(adapted)) == 2
    assert adapted.max() < 255


def test_input_stays_as_it_is_and_the_frame_is_not_kept() -> None:
    crop = cut(meadow())
    before = crop.image_rgb.copy()
    adapted = adapt(crop)
    np.testing.assert_array_equal(crop.image_rgb, before)
    assert adapted.frame is None
    assert not np.array_equal(adapted.image_rgb, before)


def test_surroundings_beyond_the_border_are_left_out() -> None:
    picture = meadow()
    mask = np.zeros((1, HEIGHT, WIDTH), np.bool_)
    mask[0, :20, :20] = True
    frame = Frame(0, 0.0, picture.astype(np.uint8))
    (crop,) = crop_objects(frame, mask, np.array([[0, 0, 20, 20]], np.float32))
    assert np.median(on_object(adapt(crop)), axis=0) == pytest.approx([115, 115, 115], abs=6)


def test_names_say_what_was_embedded() -> None:
    """Embeddings of adapted crops must not be compared with others, and galleries are told apart by name."""
    for name in ("colour:adapted", "reid-adapted:bundled"):
        made = make_embedder(name, device="cpu")
        assert isinstance(made, AdaptedEmbedder)
        assert made.name == name
