"""Chains of tracklets made better by local search, and how much each of their links is worth.

A set of chains is scored as a whole: every link adds its own log-odds (what tends to happen there, and how well the
paths fit), every chain what its views say about being one individual (`appearance.Calibration.likeness`). A step makes
one link that was not there. Either everything behind it changes chains, or one stretch does, alone or in exchange for
another. Every step makes the whole more likely, so the search ends; it ends better than rounds of linking and pooling,
which need not end at all.

What the best step would lose that breaks a link is what this link is worth.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fiftyone_plugin.identity.appearance import Calibration, Pooled, temper
from fiftyone_plugin.types import BoolArray, IntArray

__all__ = ["Chains", "Margins"]

_Weigh: TypeAlias = Callable[[NDArray[np.float64]], NDArray[np.float64]]

_MIN_GAIN = 1e-6
_BLOCK = 4096
"""Steps weighed at once: bounds the memory."""
_MAX_STRETCH = 8
"""Longest stretch that changes chains by itself, in tracklets."""


@dataclass(frozen=True, slots=True)
class _Steps:
    """Steps of one kind, one in a row."""

    gain: NDArray[np.float64]
    """By how much everything becomes more likely; minus infinity where the step cannot be taken."""
    links: tuple[tuple[IntArray, IntArray], ...]
    """Tails and heads of the links that it makes; one without a tail begins a chain, one without a head ends it."""
    doubted: tuple[IntArray, ...]
    """Tails of the links whose two sides it parts."""
    stretches: tuple[tuple[IntArray, IntArray], ...] = ()
    """First and last nodes of what alone changes chains; without any, everything behind the links does."""


@dataclass(frozen=True, slots=True)
class Margins:
    """What the best step would lose (nats) that tells another story; infinite where no step does."""

    links: dict[tuple[int, int], float]
    """... that breaks a link, in any way."""
    behind: dict[tuple[int, int], float]
    """... that parts everything behind a link from what is before it."""
    alone: dict[int, float]
    """... that takes a node out of its chain, alone or with its neighbours; what follows stays."""


class Chains:
    """N nodes in chains. Node N is nobody: what follows the last node of a chain, and comes before the first."""

    def __init__(
        self,
        links: Mapping[tuple[int, int], float],
        views: Pooled,
        calibration: Calibration,
    ) -> None:
        """Every node is a chain of its own.

        Args:
            links: Log-odds (nats), without appearance, of every link (i, j) that may be made.
            views: Of the N nodes.
            calibration: Of this video.
        """
        self._nobody = len(views)
        self._views = views.with_nobody()
        self._likeness = calibration.likeness
        pairs = np.array(sorted(links), np.int64).reshape(-1, 2)
        self._tails, self._heads = pairs[:, 0], pairs[:, 1]
        self._values = np.array([links[i, j] for i, j in pairs.tolist()], np.float64)
        # One entry that no pair has, so that every search finds a place.
        self._keys = np.append(self._key(self._tails, self._heads), np.iinfo(np.int64).max)
        self._table = np.append(self._values, -np.inf)
        self.begin({})

    def begin(self, successor: Mapping[int, int]) -> None:
        """Take these links, all of which may be made, and no others."""
        self._after = np.full(self._nobody + 1, self._nobody, np.int64)
        self._before = self._after.copy()
        for i, j in successor.items():
            self._after[i], self._before[j] = j, i
        self._measure()

    @property
    def successor(self) -> dict[int, int]:
        """Who continues whom."""
        return {i: int(j) for i, j in enumerate(self._after[:-1]) if j != self._nobody}

    @property
    def total(self) -> float:
        """Log-odds (nats) of these chains against every node alone, looks as they are."""
        tails = np.flatnonzero(self._after[:-1] != self._nobody)
        roots = np.flatnonzero(self._before[:-1] == self._nobody)
        looks = self._of_future[roots].sum() - self._likeness(self._views).sum()
        return float(self._value(tails, self._after[tails]).sum() + looks)

    def improve(self) -> None:
        """Take steps until none makes the chains more likely."""
        while self._take(self._exchanges()) or self._take(self._cuts()) or any(map(self._take, self._moves())):
            pass

    def appearance(self, pairs: IntArray) -> NDArray[np.float64]:
        """Log-odds (nats, tempered) that what leads to i and what follows from j is one individual: (P, 2) to (P,)."""
        return temper(*_in_blocks(lambda i, j: (self._odds(i, j),), pairs[:, 0], pairs[:, 1]))

    def margins(self) -> Margins:
        """By how much every link, and every node's place, beats the best other identity for it.

        What is compared are identities: that a node could as well be left out of its own chain is no doubt about who
        it is. Looks are tempered, so that no difference of looks alone is beyond doubt.
        """
        links = np.full(self._nobody + 1, np.inf)
        behind, alone = links.copy(), links.copy()
        # One after the other: all steps of a long video at once would be its largest thing in memory.
        for steps in itertools.chain((self._cuts(temper), self._exchanges(temper)), self._moves(temper)):
            loss = -steps.gain
            for tails in steps.doubted:
                np.minimum.at(links, tails, loss)
                if not steps.stretches:
                    np.minimum.at(behind, tails, loss)
            for node, last in steps.stretches:
                left = loss
                while len(node):
                    np.minimum.at(alone, node, left)
                    rows = np.flatnonzero(node != last)
                    node, last, left = self._after[node[rows]], last[rows], left[rows]
        pairs = list(self.successor.items())
        return Margins(
            {(i, j): float(links[i]) for i, j in pairs},
            {(i, j): float(behind[i]) for i, j in pairs},
            {n: float(alone[n]) for n in range(self._nobody)},
        )

    def _key(self, tails: IntArray, heads: IntArray) -> IntArray:
        return tails * (self._nobody + 1) + heads

    def _value(self, tails: IntArray, heads: IntArray) -> NDArray[np.float64]:
        """Log-odds of links: 0 from and to nobody, minus infinity where none may be made."""
        keys = self._key(tails, heads)
        place = np.searchsorted(self._keys, keys)
        value = np.where(self._keys[place] == keys, self._table[place], -np.inf)
        return np.where((tails == self._nobody) | (heads == self._nobody), 0.0, value)

    def _odds(self, tails: IntArray, heads: IntArray) -> NDArray[np.float64]:
        """Log-odds that what leads to a tail and what follows from a head is one individual."""
        both = self._likeness(self._past.take(tails) + self._future.take(heads))
        return both - self._of_past[tails] - self._of_future[heads]

    def _measure(self) -> None:
        """Pool the views of every chain up to each node, and from it on."""
        self._chain = np.full(self._nobody + 1, -1)
        self._past, self._future = self._views.like(), self._views.like()
        for root in np.flatnonzero(self._before[:-1] == self._nobody).tolist():
            chain = [root]
            while self._after[chain[-1]] != self._nobody:
                chain.append(int(self._after[chain[-1]]))
            self._chain[chain] = root
            self._past.put(chain, self._views.take(np.array(chain)).cumulated())
            self._future.put(chain[::-1], self._views.take(np.array(chain[::-1])).cumulated())
        self._of_past, self._of_future = self._likeness(self._past), self._likeness(self._future)
        self._whole = np.append(self._of_future[self._chain[:-1]], 0.0)

    def _cuts(self, weigh: _Weigh = np.asarray) -> _Steps:
        """End a chain before its end; the rest becomes a chain of its own."""
        tails = np.flatnonzero(self._after[:-1] != self._nobody)
        heads = self._after[tails]
        loss = self._value(tails, heads) + weigh(self._odds(tails, heads))
        return _Steps(-loss, self._apart(tails, heads), (tails,))

    def _exchanges(self, weigh: _Weigh = np.asarray) -> _Steps:
        """Make a link (i, j); what followed i follows what led to j instead, or begins a chain."""
        i, j = self._tails, self._heads
        gain, crossed = _in_blocks(partial(self._weigh_exchange, weigh), i, j, self._values)
        gain[self._chain[i] == self._chain[j]] = -np.inf
        a, p = self._after[i], self._before[j]
        return _Steps(gain, ((i, j), *self._joined_or_apart(p, a, crossed > 0)), (i, p))

    def _weigh_exchange(
        self, weigh: _Weigh, i: IntArray, j: IntArray, values: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Gain of links (i, j) of these values, and of those that then could be made between what is left."""
        a, p = self._after[i], self._before[j]
        crossed = self._value(p, a) + weigh(self._odds(p, a))
        gain = (
            values
            + weigh(self._odds(i, j))
            + np.maximum(crossed, 0.0)
            - self._value(i, a)
            - weigh(self._odds(i, a))
            - self._value(p, j)
            - weigh(self._odds(p, j))
        )
        return gain, crossed

    def _moves(self, weigh: _Weigh = np.asarray) -> Iterator[_Steps]:
        """Make a link (i, j) for a stretch j..k only; what followed i up to e goes the other way, or nothing does."""
        may = self._chain[self._tails] != self._chain[self._heads]
        k = self._heads
        for _ in range(_MAX_STRETCH):
            e = self._tails
            for length in range(_MAX_STRETCH):
                may_now = may & (k != self._nobody) & (self._after[e] != self._nobody)
                rows = np.flatnonzero(may_now)
                if len(rows):
                    yield self._move(rows, k[rows], e[rows], is_exchange=length > 0, weigh=weigh)
                e = self._after[e]
            k = self._after[k]

    def _move(self, rows: IntArray, k: IntArray, e: IntArray, *, is_exchange: bool, weigh: _Weigh) -> _Steps:
        i, j = self._tails[rows], self._heads[rows]
        p, q, a, z = self._before[j], self._after[k], self._after[i], self._after[e]
        weigh_them = partial(self._weigh_move, weigh, is_exchange)
        gain, closed = _in_blocks(weigh_them, i, j, k, e, self._values[rows])
        if is_exchange:
            return _Steps(gain, ((i, j), (k, z), (p, a), (e, q)), (p, i), ((j, k), (a, e)))
        return _Steps(gain, ((i, j), (k, z), *self._joined_or_apart(p, q, closed > 0)), (p,), ((j, k),))

    def _weigh_move(
        self,
        weigh: _Weigh,
        is_exchange: bool,
        i: IntArray,
        j: IntArray,
        k: IntArray,
        e: IntArray,
        values: NDArray[np.float64],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Gain of moving j..k behind i, and of the link that would close the gap (0 where a..e does)."""
        p, q, a, z = self._before[j], self._after[k], self._after[i], self._after[e]
        to_p, from_q = self._past.take(p), self._future.take(q)
        taken, left = self._future.take(j) - from_q, to_p + from_q
        around = self._past.take(i) + self._future.take(z)
        of_taken, of_left, of_around = (self._likeness(sets) for sets in (taken, left, around))
        # What is left and what is taken are the whole chain of j together, and so on: that is known already.
        gain = values + self._value(k, z) - self._value(e, z) - self._value(p, j) - self._value(k, q)
        gain += weigh(self._likeness(around + taken) - of_around - of_taken)
        gain -= weigh(self._whole[j] - of_left - of_taken)
        if is_exchange:
            given = self._past.take(e) - self._past.take(i)
            of_given = self._likeness(given)
            gain += self._value(p, a) + self._value(e, q) - self._value(i, a)
            gain += weigh(self._likeness(left + given) - of_left - of_given)
            gain -= weigh(self._whole[i] - of_around - of_given)
            return gain, np.zeros(len(gain))
        # The two sides of what is taken out may belong together, or not.
        alike = weigh(of_left - self._of_past[p] - self._of_future[q])
        closed = self._value(p, q) + alike
        return gain + np.maximum(closed, 0.0) - alike, closed

    def _apart(self, tails: IntArray, heads: IntArray) -> tuple[tuple[IntArray, IntArray], ...]:
        nobody = np.full(len(tails), self._nobody)
        return (tails, nobody), (nobody, heads)

    def _joined_or_apart(
        self, tails: IntArray, heads: IntArray, is_joined: BoolArray
    ) -> tuple[tuple[IntArray, IntArray], ...]:
        begun, ended = np.where(is_joined, self._nobody, heads), np.where(is_joined, heads, self._nobody)
        return (tails, ended), (np.full(len(tails), self._nobody), begun)

    def _take(self, steps: _Steps) -> bool:
        """Take the best steps, as far as they do not touch the same chains; whether there were any."""
        touched: set[int] = set()
        good = np.flatnonzero(steps.gain > _MIN_GAIN)
        for row in good[np.argsort(-steps.gain[good], kind="stable")].tolist():
            links = [(int(tails[row]), int(heads[row])) for tails, heads in steps.links]
            chains = {int(self._chain[n]) for link in links for n in link} - {-1}
            if chains & touched:
                continue
            touched |= chains
            for tail, head in links:
                self._after[tail], self._before[head] = head, tail
            self._after[-1] = self._before[-1] = self._nobody
        if touched:
            self._measure()
        return bool(touched)


def _in_blocks(
    work: Callable[..., tuple[NDArray[np.float64], ...]], *columns: NDArray[Any]
) -> tuple[NDArray[np.float64], ...]:
    """What a function says of rows, asked in blocks of `_BLOCK` rows."""
    blocks = range(0, max(len(columns[0]), 1), _BLOCK)
    parts = [work(*(column[n : n + _BLOCK] for column in columns)) for n in blocks]
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))
