"""Which tracklet continues which, and what speaks for it.

Every tracklet has at most one successor and one predecessor, so that a set of links is a set of time-ordered chains:
the path cover of tracking by network flow (Zhang, Li, Nevatia, "Global data association for multi-object tracking
using network flows", CVPR 2008). A linear assignment is where it begins. From there `chains` goes on, because looks are
not compared link by link but over whole chains: one that runs through an encounter without one clean view does not
forget whom it carries.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from fiftyone_plugin.identity.appearance import Calibration
from fiftyone_plugin.identity.candidates import (
    LinkOptions,
    candidate_priors,
    motion_log_odds,
    told_by_continuations,
    told_by_handovers,
)
from fiftyone_plugin.identity.chains import Chains
from fiftyone_plugin.identity.encounters import Contact
from fiftyone_plugin.identity.handovers import Continuation
from fiftyone_plugin.identity.meetings import JointAbsence
from fiftyone_plugin.identity.tracklets import Tracklet
from fiftyone_plugin.types import IntArray

__all__ = ["NOTHING_KNOWN", "Link", "LinkTable", "Links"]

_SAID = 100.0
"""What a person said outweighs all evidence."""


@dataclass(frozen=True, slots=True)
class Link:
    """A possible continuation and what speaks for it, in log-odds (nats)."""

    total: float
    prior: float
    appearance: float
    motion: float
    is_keep: bool


NOTHING_KNOWN = Link(total=0.0, prior=0.0, appearance=0.0, motion=0.0, is_keep=True)
"""A link that closes a chain again where something was put in or taken out, and that nobody weighed."""


class _Candidates(MutableMapping[tuple[int, int], Link]):
    """Links by pair of tracklets. What looks say of one is asked when it is read: of few it ever is."""

    def __init__(self, links: dict[tuple[int, int], Link], place: Mapping[int, int], chains: Chains) -> None:
        self._unheard, self._place, self._chains = links, place, chains
        self._heard: dict[tuple[int, int], Link] = {}

    def __getitem__(self, pair: tuple[int, int]) -> Link:
        if pair not in self._heard:
            link = self._unheard[pair]
            odds = float(self._chains.appearance(np.array([[self._place[n] for n in pair]]))[0])
            self._heard[pair] = replace(link, appearance=odds, total=link.total + odds)
        return self._heard[pair]

    def __setitem__(self, pair: tuple[int, int], link: Link) -> None:
        self._heard[pair] = self._unheard[pair] = link

    def __delitem__(self, pair: tuple[int, int]) -> None:
        self._heard.pop(pair, None)
        del self._unheard[pair]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self._unheard)

    def __len__(self) -> int:
        return len(self._unheard)


@dataclass(slots=True)
class Links:
    """The solution and the table it was chosen from."""

    successor: dict[int, int]
    candidates: MutableMapping[tuple[int, int], Link]
    margins: dict[tuple[int, int], float] = field(default_factory=dict)
    """Loss if a chosen link were forbidden, by link."""
    behind: dict[tuple[int, int], float] = field(default_factory=dict)
    """By how much a link beats what parts everything behind it from what is before it."""
    alone: dict[int, float] = field(default_factory=dict)
    """By how much a tracklet's place beats what takes it out of its chain and leaves the rest."""

    def predecessor(self) -> dict[int, int]:
        """The links the other way round."""
        return {j: i for i, j in self.successor.items()}


class LinkTable:
    """Every link that could be made between tracklets, and what speaks for it besides looks."""

    def __init__(
        self,
        tracklets: Sequence[Tracklet],
        nodes: Sequence[int],
        contacts: Sequence[Contact],
        calibration: Calibration,
        *,
        absences: Sequence[JointAbsence] = (),
        continuations: Sequence[Continuation] = (),
        options: LinkOptions | None = None,
    ) -> None:
        """Find them.

        Args:
            tracklets: All tracklets.
            nodes: Indices of those that take part: no copies, nothing that sits on no object.
            contacts: Contacts of the tracks they are parts of.
            calibration: Similarity to log-odds, for this video.
            absences: When two of these tracks were away at once.
            continuations: Where one of these tracks begins along the path of another one.
            options: Priors.
        """
        self._options = options or LinkOptions()
        self._tracklets, self._nodes, self._calibration = tracklets, nodes, calibration
        self._views = calibration.pooled([tracklets[n].views for n in nodes])
        priors = candidate_priors(tracklets, nodes, contacts, absences, calibration, self._views, self._options)
        going_on = told_by_continuations(tracklets, nodes, continuations, self._options)
        for pair in going_on:
            priors.setdefault(pair, (self._options.resuming_elsewhere, False))
        handed_over, self._rivals = told_by_handovers(tracklets, nodes, contacts, priors)
        self._told = going_on | handed_over
        self._links = {pair: self._link(pair, *prior) for pair, prior in priors.items()}

    def solve(
        self,
        *,
        forbidden: Container[tuple[int, int]] = frozenset(),
        forced: Collection[tuple[int, int]] = frozenset(),
        bonuses: Mapping[str, float] | None = None,
        begin: Mapping[int, int] | None = None,
    ) -> Links:
        """Link tracklets into chains.

        Args:
            forbidden: Links that must not be made (they were too weak, or a person said no).
            forced: Links that must be made, because a person said so.
            bonuses: By phrase, log-odds added to every link: how a known number of objects is met.
            begin: Links to begin the search with, as far as they may be made; by default those of an assignment.
        """
        links = {pair: link for pair, link in self._links.items() if pair not in forbidden}
        for own, rival in self._rivals.items():
            if rival in forbidden and own in links:
                links[own] = _value(self._tracklets, own, links[own].prior, links[own].is_keep, None, self._options)
        if bonuses:
            more = {pair: bonuses.get(self._tracklets[pair[1]].phrase, 0.0) for pair in links}
            links = {p: replace(v, prior=v.prior + more[p], total=v.total + more[p]) for p, v in links.items()}
        for pair in forced:
            links[pair] = self._link(pair, _SAID, pair in self._links and self._links[pair].is_keep)
        place = {node: k for k, node in enumerate(self._nodes)}
        table = {(place[i], place[j]): link.total for (i, j), link in links.items()}
        pairs = np.array(list(table), np.int64).reshape(-1, 2)
        chains = Chains(table, self._views, self._calibration)
        if begin is None:
            totals = np.array(list(table.values())) + chains.appearance(pairs)
            chains.begin(_assign(len(self._nodes), pairs, totals))
        else:
            chains.begin({place[i]: place[j] for i, j in begin.items() if (i, j) in links})
        chains.improve()
        found = chains.margins()
        margins, behind = (
            {(self._nodes[i], self._nodes[j]): margin for (i, j), margin in some.items()}
            for some in (found.links, found.behind)
        )
        successor = {self._nodes[i]: self._nodes[j] for i, j in chains.successor.items()}
        alone = {self._nodes[n]: margin for n, margin in found.alone.items()}
        return Links(successor, _Candidates(links, place, chains), margins, behind, alone)

    def changes_into(self, node: int) -> set[tuple[int, int]]:
        """The links to a tracklet that do not keep to its track."""
        return {pair for pair, link in self._links.items() if pair[1] == node and not link.is_keep}

    def _link(self, pair: tuple[int, int], prior: float, is_keep: bool) -> Link:
        return _value(self._tracklets, pair, prior, is_keep, self._told.get(pair), self._options)


def _value(
    tracklets: Sequence[Tracklet],
    pair: tuple[int, int],
    prior: float,
    is_keep: bool,
    told: float | None,
    options: LinkOptions,
) -> Link:
    """What speaks for a link besides looks; `told` is what `handovers` says of motion."""
    a, b = tracklets[pair[0]], tracklets[pair[1]]
    motion = motion_log_odds(a, b, options) if told is None else told
    total = prior + motion
    if a.phrase != b.phrase:
        total -= options.phrase_doubt + options.phrase_vote * min(a.matches, b.matches)
    return Link(total, prior, 0.0, motion, is_keep)


def _assign(count: int, pairs: IntArray, totals: NDArray[np.float64]) -> dict[int, int]:
    """The set of links with the largest sum; a link at or below 0 is never made."""
    gain = np.zeros((count, count))
    gain[pairs[:, 0], pairs[:, 1]] = np.maximum(totals, 0.0)
    rows, columns = linear_sum_assignment(gain, maximize=True)
    return {r: c for r, c in zip(rows.tolist(), columns.tolist(), strict=True) if gain[r, c] > 0}
