"""Which of several embedders are heard."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fiftyone_plugin.identity.appearance import calibrate
from fiftyone_plugin.identity.light import heard_parts
from fiftyone_plugin.types import Gallery, Track

NAME = "colour+colour:adapted+reid:bundled+reid-adapted:bundled"
SIZE = 6


def drifting(amount: float, *, seed: int) -> dict[int, list[tuple[int, np.ndarray, str]]]:
    """Three animals over twelve stretches; what they look like drifts in a circle, the same for all."""
    rng = np.random.default_rng(seed)
    looks = rng.normal(0, 1, (3, SIZE))
    way = rng.normal(0, 1, (2, SIZE)) * amount
    return {
        place: [
            (k, looks[k] + np.sin(place / 2) * way[0] + np.cos(place / 2) * way[1] + rng.normal(0, 0.1, SIZE), "sheep")
            for k in range(3)
        ]
        for place in range(12)
    }


def side_by_side(*parts: dict[int, list[Any]]) -> dict[int, list[Any]]:
    return {
        place: [
            (members[0][0], np.concatenate([m[1] for m in members]), "sheep")
            for members in zip(*(part[place] for part in parts), strict=True)
        ]
        for place in parts[0]
    }


STEADY, CHANGING = drifting(0.0, seed=1), drifting(3.0, seed=1)


def test_adapted_crops_are_heard_where_the_light_changes_and_only_there() -> None:
    sizes = (SIZE,) * 4
    lit = side_by_side(CHANGING, STEADY, CHANGING, STEADY)
    assert heard_parts(NAME, sizes, lit) == (True, True, True, True)
    calm = side_by_side(STEADY, STEADY, STEADY, STEADY)
    assert heard_parts(NAME, sizes, calm) == (True, False, True, False)
    worse = side_by_side(STEADY, CHANGING, STEADY, CHANGING)  # ground of many colours
    assert heard_parts(NAME, sizes, worse) == (True, False, True, False)


def test_one_of_two_that_helps_is_enough() -> None:
    half = side_by_side(CHANGING, STEADY, STEADY, STEADY)
    assert heard_parts(NAME, (SIZE,) * 4, half) == (True, True, True, True)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("colour", 1),
        ("colour+reid:bundled", 2),
        ("colour:adapted", 1),
        ("reid-adapted:bundled+colour", 2),
        ("made-up", 3),
    ],
)
def test_embedders_without_a_twin_are_always_heard(name: str, parts: int) -> None:
    stretches = side_by_side(*[CHANGING] * parts)
    assert heard_parts(name, (SIZE,) * parts, stretches) == (True,) * parts


def test_twins_are_found_wherever_they_stand() -> None:
    calm = side_by_side(STEADY, STEADY, STEADY)
    assert heard_parts("reid-adapted:a/b+dinov2:small+reid:a/b", (SIZE,) * 3, calm) == (False, True, True)
    assert heard_parts("reid-adapted:a/b+dinov2:small+reid:a/c", (SIZE,) * 3, calm) == (True, True, True)


@given(st.integers(0, 3), st.integers(0, 2))
def test_little_that_is_known_is_no_reason_to_hear_more(places: int, animals: int) -> None:
    lit = side_by_side(CHANGING, STEADY)
    little = {place: lit[place][:animals] for place in range(places)}
    assert heard_parts("colour+colour:adapted", (SIZE, SIZE), little) == (True, False)


def test_part_that_is_not_heard_says_nothing(make_track: Any, make_gallery: Any) -> None:
    """As if the embedder had not been asked for."""
    tracks = tuple(make_track(i, range(96), start_xy=(20, 80 * i)) for i in (1, 2, 3))
    plain = {t.track_id: make_gallery(t.track_id, range(96), t.track_id, noise=0.3) for t in tracks}
    noise = np.random.default_rng(0)

    def doubled(gallery: Gallery) -> Gallery:
        rows = np.concatenate([gallery.embeddings, noise.normal(0, 1, gallery.embeddings.shape)], axis=1)
        size = gallery.embeddings.shape[1]
        return Gallery(
            gallery.track_id,
            gallery.frame_indices,
            rows.astype(np.float32),
            gallery.weights,
            "a+a:adapted",
            (size, size),
        )

    def fitted(galleries: dict[int, Gallery], shown: tuple[Track, ...] = tracks) -> Any:
        return calibrate(shown, galleries, is_same_object={})

    alone, both = fitted(plain), fitted({i: doubled(g) for i, g in plain.items()})
    assert (alone.parts, both.parts) == (1, 1)
    np.testing.assert_allclose(both.between, alone.between)
    assert not both.directions[len(alone.centre) :].any()
