from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiftyone_plugin.errors import EmbeddingMismatchError
from fiftyone_plugin.identity.appearance import (
    MAX_LOG_ODDS,
    Calibration,
    Views,
    _fit,
    calibrate,
    pool,
    temper,
    views_between,
)
from fiftyone_plugin.types import Gallery

FRAMES = range(128)
NOBODY = Views(np.zeros((0, 1), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))


@pytest.fixture(scope="module")
def learn(make_track: Any, make_gallery: Any) -> Any:
    def make(
        *, spread: float, noise: float = 0.1, count: int = 4, seed: int = 0, phrases: tuple[str, ...] | None = None
    ) -> Any:
        tracks = [
            make_track(k + 1, FRAMES, start_xy=(20, 60 * k), phrase=phrases[k] if phrases else "sheep")
            for k in range(count)
        ]
        galleries = {
            t.track_id: make_gallery(t.track_id, FRAMES, t.track_id, spread=spread, noise=noise, seed=seed)
            for t in tracks
        }
        return calibrate(tracks, galleries, is_same_object={}), galleries

    return make


def all_pairs(calibration: Calibration, galleries: dict[int, Gallery]) -> tuple[list[float], list[float]]:
    """Log-odds of early against late views: of the same individuals, and of different ones."""
    early = {i: views_between(g, 0, 40) for i, g in galleries.items()}
    late = {i: views_between(g, 80, 128) for i, g in galleries.items()}
    same = [calibration.log_odds(early[i], late[i]) for i in galleries]
    different = [calibration.log_odds(early[i], late[j]) for i in galleries for j in galleries if i != j]
    return same, different


def test_views_between_takes_all_of_a_short_range(make_gallery: Any) -> None:
    views = views_between(make_gallery(1, range(30), 1), 10, 18)
    assert views.frames.tolist() == list(range(10, 18))


def test_views_between_spreads_and_keeps_the_cleanest() -> None:
    weights = np.full(48, 0.5, np.float32)
    weights[[3, 17, 40]] = 1.0
    gallery = Gallery(1, np.arange(48), np.eye(48, dtype=np.float32), weights, "made-up")
    views = views_between(gallery, 0, 48, max_views=12)
    assert len(views) == 12
    assert {3, 17, 40} <= set(views.frames.tolist())
    # One of each four frames.
    assert (views.frames // 4).tolist() == list(range(12))
    assert all(np.argmax(e) == f for e, f in zip(views.embeddings, views.frames, strict=True))


def test_pool_thins_evenly_and_keeps_both_ends(make_gallery: Any) -> None:
    parts = [views_between(make_gallery(k, range(40 * k, 40 * k + 40), k), 0, 999, max_views=40) for k in (1, 2)]
    views = pool(parts, max_views=10)
    assert len(views) == 10
    assert (views.frames[0], views.frames[-1]) == (40, 119)
    assert ((views.frames < 80).sum(), (views.frames >= 80).sum()) == (5, 5)


def test_separable_individuals_are_told_apart(learn: Any) -> None:
    calibration, galleries = learn(spread=1.0)
    same, different = all_pairs(calibration, galleries)
    assert calibration.separation > 3
    assert min(same) > 1
    assert max(different) < -1


def test_look_alikes_give_no_evidence(learn: Any) -> None:
    """On the whole: with four individuals, chance alone looks like evidence now and then."""
    values = np.abs(np.concatenate([np.concatenate(all_pairs(*learn(spread=0.0, seed=seed))) for seed in range(12)]))
    assert np.median(values) < 1
    assert np.mean(values > 3) < 0.05


def test_log_odds_is_symmetric_and_bounded(learn: Any) -> None:
    calibration, galleries = learn(spread=3.0, noise=0.02)
    views = [views_between(g, a, b) for g in galleries.values() for a, b in ((0, 5), (30, 90))]
    table = calibration.log_odds_table(calibration.pooled(views), calibration.pooled(views))
    assert np.allclose(table, table.T)
    assert np.abs(table).max() <= MAX_LOG_ODDS
    assert np.abs(table).max() > 3


def test_table_equals_pairs_one_by_one(learn: Any) -> None:
    calibration, galleries = learn(spread=0.3)
    rows = [views_between(g, 0, 3 + 9 * i) for i, g in galleries.items()]
    columns = [*(views_between(g, 60, 64) for g in galleries.values()), NOBODY]
    table = calibration.log_odds_table(calibration.pooled(rows), calibration.pooled(columns))
    assert table.shape == (4, 5)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            assert table[i, j] == pytest.approx(calibration.log_odds(row, column))


def test_odds_along_a_track_equal_those_of_its_windows(learn: Any) -> None:
    calibration, galleries = learn(spread=0.3)
    g = galleries[1]
    weights = np.random.default_rng(0).uniform(0.1, 1, len(g)).astype(np.float32)
    views = Views(g.embeddings, weights, g.frame_indices)
    odds = calibration.log_odds_along(views, window=5)
    assert odds.shape == (len(g),)
    for i in range(len(g)):
        if not 5 <= i <= len(g) - 5:
            assert odds[i] == 0
            continue
        before, after = (
            Views(g.embeddings[s], weights[s], g.frame_indices[s]) for s in (np.s_[i - 5 : i], np.s_[i : i + 5])
        )
        limited = np.clip(odds[i], -MAX_LOG_ODDS, MAX_LOG_ODDS)
        assert limited == pytest.approx(calibration.log_odds(before, after), abs=1e-6)


def test_fewer_views_count_for_less(learn: Any) -> None:
    calibration, galleries = learn(spread=0.06)
    whole, one = views_between(galleries[1], 0, 60), views_between(galleries[1], 0, 1)
    other = views_between(galleries[2], 60, 128)
    assert calibration.log_odds(whole, other) < calibration.log_odds(one, other)


def test_empty_set_says_nothing(learn: Any) -> None:
    calibration, galleries = learn(spread=1.0)
    assert calibration.log_odds(NOBODY, views_between(galleries[1], 0, 50)) == 0
    assert calibration.log_odds(NOBODY, NOBODY) == 0


@pytest.mark.parametrize("phrases", [("sheep",), ("sheep", "dog")], ids=["alone", "no-two-of-a-kind"])
def test_with_nobody_to_compare_with_appearance_says_nothing(learn: Any, phrases: tuple[str, ...]) -> None:
    calibration, galleries = learn(spread=1.0, count=len(phrases), phrases=phrases)
    assert calibration.separation == 0
    views = [views_between(g, 0, 50) for g in galleries.values()]
    assert not calibration.log_odds_table(calibration.pooled(views), calibration.pooled(views)).any()


def test_no_gallery_at_all_says_nothing(make_track: Any) -> None:
    calibration = calibrate([make_track(1, FRAMES)], {}, is_same_object={})
    assert calibration.log_odds(NOBODY, NOBODY) == 0


def test_one_object_shown_twice_teaches_nothing_about_differences(make_track: Any, make_gallery: Any) -> None:
    tracks = [make_track(1, FRAMES), make_track(2, FRAMES)]
    galleries = {i: make_gallery(i, FRAMES, 1) for i in (1, 2)}
    assert calibrate(tracks, galleries, is_same_object={(1, 2): [(0, 128)]}).separation == 0


def test_embeddings_of_another_size_are_refused(learn: Any) -> None:
    calibration, galleries = learn(spread=1.0)
    alien = Views(np.ones((12, 3), np.float32), np.ones(12, np.float32), np.arange(12))
    with pytest.raises(EmbeddingMismatchError, match="size 3 and 16"):
        calibration.log_odds(alien, views_between(galleries[1], 0, 9))
    with pytest.raises(EmbeddingMismatchError, match="size 3 and 16"):
        calibration.log_odds_along(alien, window=5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.floats(0, 3), st.floats(0, 1))
def test_log_odds_are_finite_whatever_the_views(seed: int, spread: float, noise: float) -> None:
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 9))
    views = []
    for k in range(4):
        rows = (
            1 + spread * np.random.default_rng((seed, k)).standard_normal(size) + noise * rng.standard_normal((9, size))
        )
        views.append(Views(rows.astype(np.float32), np.ones(9, np.float32), np.arange(9)))
    means = [v.embeddings[:4].mean(axis=0).astype(float) for v in views]
    within = [v.embeddings[4:].mean(axis=0) - m for v, m in zip(views, means, strict=True)]
    different = [means[0] - means[1], means[2] - means[3], means[0] - means[3]]
    fitted = _fit(means, within, different)
    table = fitted.log_odds_table(fitted.pooled(views), fitted.pooled(views))
    assert np.isfinite(table).all()
    assert np.allclose(table, table.T)


def test_putting_sets_together_gives_the_odds_of_one_individual(learn: Any) -> None:
    calibration, galleries = learn(spread=0.1)
    views = [views_between(g, a, b) for g in galleries.values() for a, b in ((0, 40), (60, 64))]
    sets = calibration.pooled(views)
    rows, columns = (x.ravel() for x in np.meshgrid(np.arange(len(views)), np.arange(len(views)), indexing="ij"))
    a, b = sets.take(rows), sets.take(columns)
    odds = calibration.likeness(a + b) - calibration.likeness(a) - calibration.likeness(b)
    limited = np.clip(odds, -MAX_LOG_ODDS, MAX_LOG_ODDS).reshape(len(views), len(views))
    assert np.allclose(
        limited, calibration.log_odds_table(calibration.pooled(views), calibration.pooled(views)), atol=1e-6
    )
    assert np.allclose(calibration.likeness(a + b - b), calibration.likeness(a))


def test_pooled_nobody_says_nothing(learn: Any) -> None:
    calibration, galleries = learn(spread=1.0)
    sets = calibration.pooled([NOBODY, views_between(galleries[1], 0, 50)])
    assert calibration.likeness(sets)[0] == 0
    assert calibration.likeness(sets.with_nobody())[2] == 0
    assert calibrate([], {}, is_same_object={}).pooled([NOBODY]).moment.shape == (1, 0)


@given(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4))
def test_tempered_odds_keep_their_order_and_small_ones_their_size(a: float, b: float) -> None:
    low, high = temper(np.array(sorted([a, b])))
    assert low <= high
    assert temper(np.array(-a)) == pytest.approx(-temper(np.array(a)))
    assert abs(temper(np.array(a))) <= abs(a) + 1e-9
    assert temper(np.array(0.5)) == pytest.approx(0.5, rel=0.01)


def test_views_count_by_their_weight(learn: Any) -> None:
    calibration, galleries = learn(spread=1.0)
    own, alien = views_between(galleries[1], 0, 40), views_between(galleries[2], 0, 40)
    later = views_between(galleries[1], 60, 128)

    def odds(weight: float) -> float:
        mixed = Views(
            np.concatenate([own.embeddings, alien.embeddings]),
            np.concatenate([np.ones(len(own)), np.full(len(alien), weight)]).astype(np.float32),
            np.concatenate([own.frames, alien.frames]),
        )
        return calibration.log_odds(mixed, later)

    found = [odds(weight) for weight in (1.0, 0.5, 0.2, 0.05)]
    assert found == sorted(found)
    assert found[0] < 0 < 1 < found[-1]


def test_a_view_twice_as_noisy_says_as_much_as_half_of_one(learn: Any) -> None:
    """Weights are inverse variances: four views of half the weight are two of the whole."""
    calibration, galleries = learn(spread=1.0)
    few = views_between(galleries[1], 0, 40, max_views=2)
    twice = Views(np.tile(few.embeddings, (2, 1)), np.full(4, 0.5, np.float32), np.tile(few.frames, 2))
    one, other = calibration.pooled([few]), calibration.pooled([twice])
    assert np.allclose(one.precision, other.precision)
    assert np.allclose(one.moment, other.moment, rtol=1e-5)


def test_noise_beside_a_good_embedding_does_not_drown_it(make_track: Any, make_gallery: Any) -> None:
    tracks = [make_track(i, FRAMES) for i in range(1, 5)]
    rng = np.random.default_rng(3)
    galleries, sizes = {}, (16, 400)
    for i in range(1, 5):
        good = make_gallery(i, FRAMES, i, spread=1.0)
        noise = rng.standard_normal((len(good), sizes[1])).astype(np.float32)
        galleries[i] = replace(good, embeddings=np.concatenate([good.embeddings, noise / 20], axis=1), part_sizes=sizes)
    calibration = calibrate(tracks, galleries, is_same_object={})
    assert calibration.parts == 2
    same, different = all_pairs(calibration, galleries)
    assert min(same) > 0 > max(different)


def test_parts_that_do_not_sum_up_are_refused(make_gallery: Any) -> None:
    with pytest.raises(ValueError, match="parts of"):
        replace(make_gallery(1, FRAMES, 1), part_sizes=(3, 4))
