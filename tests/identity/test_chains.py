from __future__ import annotations

import tracemalloc
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiftyone_plugin.identity.appearance import Calibration, Pooled
from fiftyone_plugin.identity.chains import Chains

CALIBRATION = Calibration(np.zeros(2), np.eye(2), np.array([20.0, 5.0]))


def drawn(seed: int, count: int) -> tuple[dict[tuple[int, int], float], Pooled]:
    """Some individuals in two dimensions, seen now and then in the order of time; a few links that may be made."""
    rng = np.random.default_rng(seed)
    places = rng.normal(0, 4, (3, 2))[rng.integers(0, 3, count)] + rng.standard_normal((count, 2))
    precision = rng.choice([0.0, 0.3, 1.0], count)
    links = {(i, j): float(rng.normal(0, 3)) for i in range(count) for j in range(i + 1, count) if rng.random() < 0.8}
    return links, Pooled(precision, places * precision[:, None])


def total_of(links: dict[tuple[int, int], float], views: Pooled, successor: dict[int, int]) -> float:
    """The definition, written out: links, and every chain against its nodes alone."""
    total = sum(links[pair] for pair in successor.items())
    for root in set(range(len(views))) - set(successor.values()):
        chain = [root]
        while chain[-1] in successor:
            chain.append(successor[chain[-1]])
        own = views.take(np.array(chain))
        together = Pooled(own.precision.sum(keepdims=True), own.moment.sum(axis=0, keepdims=True))
        total += float(CALIBRATION.likeness(together)[0] - CALIBRATION.likeness(own).sum())
    return total


def best_total(links: dict[tuple[int, int], float], views: Pooled) -> float:
    """Over all sets of links that form chains."""
    count = len(views)
    best = 0.0
    for kept in product((False, True), repeat=count):
        ends = [i for i in range(count) if kept[i]]
        for starts in permutations(range(count), len(ends)):
            successor = dict(zip(ends, starts, strict=True))
            if all(pair in links for pair in successor.items()):
                best = max(best, total_of(links, views, successor))
    return best


def solved(links: dict[tuple[int, int], float], views: Pooled) -> Chains:
    chains = Chains(links, views, CALIBRATION)
    chains.improve()
    return chains


def test_search_from_nothing_mostly_finds_the_best_chains() -> None:
    found = []
    for seed in range(40):
        links, views = drawn(seed, 5)
        chains, best = solved(links, views), best_total(links, views)
        assert chains.total <= best + 1e-9
        found.append(chains.total == pytest.approx(best))
    assert np.mean(found) >= 0.9


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 14))
def test_steps_only_improve_and_leave_chains(seed: int, count: int) -> None:
    links, views = drawn(seed, count)
    chains = Chains(links, views, CALIBRATION)
    rng = np.random.default_rng(seed)
    begun: dict[int, int] = {}
    for i, j in links:
        if i not in begun and j not in begun.values() and rng.random() < 0.3:
            begun[i] = j
    chains.begin(begun)
    before = chains.total
    assert before == pytest.approx(total_of(links, views, begun))
    chains.improve()
    assert chains.total >= before - 1e-9
    successor = chains.successor
    assert len(set(successor.values())) == len(successor)
    assert all(pair in links for pair in successor.items())
    assert chains.total == pytest.approx(total_of(links, views, successor))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31))
def test_margin_is_what_the_next_best_chains_lose_where_looks_are_silent(seed: int) -> None:
    """Links alone, three nodes: every other identity of a link's sides can be tried."""
    rng = np.random.default_rng(seed)
    links = {(0, 2): float(rng.uniform(0.1, 5)), (1, 2): float(rng.uniform(0.1, 5))}
    views = Pooled(np.zeros(3), np.zeros((3, 2)))
    chains = solved(links, views)
    (pair,) = chains.successor.items()
    assert links[pair] == max(links.values())
    assert chains.margins().links == {pair: pytest.approx(max(links.values()) - min(links.values()))}


def test_stretch_that_was_somebody_else_is_exchanged_at_both_ends() -> None:
    """Two that exchange their objects and exchange them back: one end exchange alone would make things worse."""
    left, right = [8.0, 0.0], [-8.0, 0.0]
    views = Pooled(np.ones(6), np.array([left, right, left, right, left, right]))
    # a track each: nodes 0, 1', 2 and 0', 1, 2', with the middle ones exchanged
    kept = {(0, 3): 6.0, (3, 4): 6.0, (1, 2): 6.0, (2, 5): 6.0}
    crossed = {(0, 2): -1.0, (2, 4): -1.0, (1, 3): -1.0, (3, 5): -1.0}
    chains = Chains(kept | crossed, views, CALIBRATION)
    chains.begin(dict(kept.keys()))
    chains.improve()
    assert chains.successor == dict(crossed.keys())
    assert min(chains.margins().links.values()) > 1


def test_appearance_is_that_of_what_lies_on_both_sides() -> None:
    views = Pooled(np.array([1.0, 0.0, 1.0]), np.array([[5.0, 0.0], [0.0, 0.0], [5.0, 0.0]]))
    chains = Chains({(0, 1): 1.0, (1, 2): 1.0}, views, CALIBRATION)
    pairs = np.array([[1, 2]])
    assert chains.appearance(pairs)[0] == 0
    chains.begin({0: 1})
    assert chains.appearance(pairs)[0] > 1


def test_nothing_to_link() -> None:
    chains = solved({}, Pooled(np.zeros(0), np.zeros((0, 2))))
    assert chains.successor == {}
    assert chains.margins().links == {}
    assert chains.total == 0


def test_margins_of_many_links_are_told_without_holding_all_steps_at_once() -> None:
    """There are 64 kinds of moves; held together they were the largest thing in memory of a long video."""
    rng = np.random.default_rng(3)
    count, reach = 400, 24
    links = {(i, j): float(rng.normal(1, 1)) for i in range(count) for j in range(i + 1, min(i + reach, count))}
    chains = Chains(links, Pooled(np.ones(count), rng.normal(0, 2, (count, 2))), CALIBRATION)
    chains.begin({i: i + 10 for i in range(count - 10)})
    tracemalloc.start()
    chains.margins()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 * 8 * len(links) * 8 / 4
