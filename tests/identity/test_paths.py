from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiftyone_plugin.identity.paths import HIDDEN, Pathway, choose_pair, choose_paths

FRAMES = 12
SIDE = 20.0


def square(x: float) -> np.ndarray:
    return np.array([x - SIDE / 2, 0, x + SIDE / 2, SIDE], np.float32)


def pathway(*candidates: np.ndarray, odds: float = 0.0) -> Pathway:
    """Candidates by the x of their centres over time; not a number where there is no mask."""
    xs = np.stack(candidates, axis=1)
    boxes = np.stack([np.stack([square(x) for x in row]) for row in np.nan_to_num(xs)])
    areas = np.where(np.isnan(xs), 0.0, SIDE**2).astype(np.float32)
    log_odds = np.zeros(xs.shape, np.float32)
    log_odds[:, 1:] = odds
    ends = [np.nan_to_num(xs[k, 0]) for k in (0, -1)]
    return Pathway(boxes, areas, log_odds, square(ends[0]), square(ends[1]), np.ones(len(xs), np.bool_))


def shared(a: Pathway, b: Pathway) -> np.ndarray:
    """Part of the smaller box that two candidates share; all are equally tall."""
    left = np.maximum(a.boxes_xyxy[:, :, None, 0], b.boxes_xyxy[:, None, :, 0])
    right = np.minimum(a.boxes_xyxy[:, :, None, 2], b.boxes_xyxy[:, None, :, 2])
    there = (a.areas_px[:, :, None] > 0) & (b.areas_px[:, None] > 0)
    return np.where(there, np.clip(right - left, 0, None) / SIDE, 0).astype(np.float32)


@pytest.fixture
def straight() -> np.ndarray:
    return np.linspace(0, 22, FRAMES)


def test_candidate_that_leaps_away_and_back_is_replaced(straight: np.ndarray) -> None:
    leaping = straight.copy()
    leaping[5:8] += 60
    (path,) = choose_paths([pathway(leaping, straight)], [[None]])
    assert (path[5:8] == 1).all()


def test_what_runs_straight_stays(straight: np.ndarray) -> None:
    (path,) = choose_paths([pathway(straight, straight + 1)], [[None]])
    assert (path == 0).all()


def test_closed_frames_are_never_changed(straight: np.ndarray) -> None:
    leaping = straight.copy()
    leaping[5:8] += 60
    p = pathway(leaping, straight)
    closed = Pathway(p.boxes_xyxy, p.areas_px, p.log_odds, p.before_xyxy, p.after_xyxy, np.zeros(FRAMES, np.bool_))
    assert (choose_paths([closed], [[None]])[0] == 0).all()


def test_of_two_on_one_object_the_one_with_another_way_gives_in(straight: np.ndarray) -> None:
    """Both show the right animal; one of them could have been carried back along its own."""
    first = pathway(straight, np.full(FRAMES, np.nan))
    on_first = straight.copy() + 30
    on_first[3:9] = straight[3:9]
    second = pathway(on_first, straight + 30)
    table = shared(first, second)
    paths = choose_paths([first, second], [[None, table], [table.transpose(0, 2, 1), None]])
    assert (paths[0] == 0).all()
    assert (paths[1][3:9] == 1).all()


def test_mask_on_another_object_without_any_other_is_hidden(straight: np.ndarray) -> None:
    nothing = np.full(FRAMES, np.nan)
    first = pathway(straight, nothing)
    on_first = straight.copy() + 60
    on_first[3:9] = straight[3:9]
    second = pathway(on_first, nothing)
    table = shared(first, second)
    paths = choose_paths([first, second], [[None, table], [table.transpose(0, 2, 1), None]])
    assert (paths[1][3:9] == HIDDEN).all()


def test_looks_decide_between_two_ways_that_are_equally_straight(straight: np.ndarray) -> None:
    other = straight + 6
    other[[0, -1]] = straight[[0, -1]]
    for odds, wanted in ((4.0, 1), (-4.0, 0)):
        (path,) = choose_paths([pathway(straight, other, odds=odds)], [[None]])
        assert (path[1:-1] == wanted).all()


@settings(max_examples=40)
@given(st.integers(0, 10_000))
def test_path_names_only_masks_that_are_there(seed: int) -> None:
    rng = np.random.default_rng(seed)
    candidates = rng.normal(0, 40, (3, FRAMES))
    candidates[rng.random((3, FRAMES)) < 0.3] = np.nan
    p = pathway(*candidates)
    (path,) = choose_paths([p], [[None]])
    chosen = path != HIDDEN
    assert (p.areas_px[np.flatnonzero(chosen), path[chosen]] > 0).all()


def test_two_that_have_each_others_masks_are_put_right_together(straight: np.ndarray) -> None:
    a, b = straight, straight + 8  # so close that the way alone says nothing
    inside = slice(4, 8)
    a_has, b_has = a.copy(), b.copy()
    a_has[inside], b_has[inside] = b[inside], a[inside]
    odds = np.tile(np.array([3.0, -3.0], np.float32), (FRAMES, 1))
    odds[inside] *= -1
    pair = [replace(p, log_odds=odds) for p in (pathway(a_has, b_has), pathway(b_has, a_has))]
    part = np.zeros((FRAMES, 2, 2), np.float32)
    part[:] = np.eye(2)[::-1]  # the first mask of one is the second of the other
    both = [[None, part], [part, None]]
    # Alone, the mask that is right lies on the other's.
    assert all((path == 0).all() for path in choose_paths(pair, both))
    for path in choose_pair(pair, both):
        assert path.tolist() == [0] * 4 + [1] * 4 + [0] * 4


def test_pair_that_runs_straight_stays(straight: np.ndarray) -> None:
    pair = [pathway(straight, straight + 1), pathway(straight + 50, straight + 51)]
    for path in choose_pair(pair, [[None, None], [None, None]]):
        assert (path == 0).all()
