"""The colour histogram."""

from __future__ import annotations

import numpy as np
import pytest

from fiftyone_plugin.embedders.colour import ColourHistogram, make
from fiftyone_plugin.errors import BackendError
from fiftyone_plugin.types import Crop


def plain(rgb: tuple[int, int, int], *, height: int = 20, width: int = 10) -> Crop:
    return Crop(np.full((height, width, 3), rgb, np.uint8), np.ones((height, width), np.bool_))


def stacked(top: Crop, bottom: Crop) -> Crop:
    return Crop(np.concatenate([top.image_rgb, bottom.image_rgb]), np.concatenate([top.mask, bottom.mask]))


def similarity(a: Crop, b: Crop, *, is_relative: bool = False) -> float:
    embeddings = ColourHistogram(is_relative=is_relative).embed([a, b])
    return float(embeddings[0] @ embeddings[1])


RED, BLUE = plain((200, 30, 30)), plain((30, 30, 200))


def test_embed_of_one_colour_does_not_depend_on_size() -> None:
    assert similarity(RED, plain((200, 30, 30), height=60, width=33)) == pytest.approx(1, abs=1e-5)


def test_embed_of_colours_without_a_common_bin_is_orthogonal() -> None:
    assert similarity(RED, BLUE) == pytest.approx(0, abs=1e-6)


def test_embed_changes_gradually_with_colour() -> None:
    steps = [similarity(plain((200, 30, 30)), plain((200 - d, 30, 30))) for d in (0, 2, 8, 16)]
    assert steps == sorted(steps, reverse=True)
    assert steps[1] > 0.98
    # Hue is a circle: both are red, one a little towards yellow, one a little towards violet.
    assert similarity(plain((200, 36, 30)), plain((200, 30, 36))) > 0.9


def test_embed_knows_top_from_bottom() -> None:
    upright, upside_down = stacked(RED, BLUE), stacked(BLUE, RED)
    assert similarity(upright, upright) == pytest.approx(1, abs=1e-5)
    assert similarity(upright, upside_down) < 0.9


def test_embed_of_large_crops_uses_every_nth_pixel() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (300, 300, 3), np.uint8)
    small = Crop(image[:100, :100], np.ones((100, 100), np.bool_))
    assert similarity(Crop(image, np.ones((300, 300), np.bool_)), small) > 0.97


@pytest.mark.parametrize(
    ("is_relative", "low", "high"), [(False, 0.0, 0.8), (True, 0.95, 1.0)], ids=["absolute", "relative"]
)
def test_embed_under_coloured_light(is_relative: bool, low: float, high: float) -> None:
    """The same two-coloured object under yellowish half light: only the relative variant knows it again."""
    rng = np.random.default_rng(1)
    image = rng.integers(60, 200, (40, 20, 3), np.uint8)
    lit = (image * np.array([0.6, 0.55, 0.4])).astype(np.uint8)
    mask = np.ones((40, 20), np.bool_)
    assert low <= similarity(Crop(image, mask), Crop(lit, mask), is_relative=is_relative) <= high + 1e-6


def test_make_with_an_unknown_variant_lists_what_there_is() -> None:
    with pytest.raises(BackendError, match="colour:rgb: must be one of absolute, relative, adapted"):
        make("rgb", "cpu")


def test_names_tell_variants_apart() -> None:
    """Embeddings of the two must not be compared, and galleries are told apart by name."""
    assert (make(None, "cpu").name, make("absolute", "cpu").name, make("relative", "cpu").name) == (
        "colour",
        "colour",
        "colour:relative",
    )
