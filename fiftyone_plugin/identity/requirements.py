"""What must hold, whatever the evidence says: a person's word, put into terms of tracklets.

`constraints` speaks of boxes that a person pointed at. Here those are found in the propagated tracks; cuts are added
where a person said that a track changes its object; and chains that break a rule are mended by forbidding or forcing
single links, until all rules hold or nothing more can be done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from fiftyone_plugin.identity.constraints import (
    Anchor,
    CannotLink,
    Constraint,
    Lock,
    MustLink,
    Remove,
    SplitAt,
    locate,
)
from fiftyone_plugin.identity.encounters import Cut, CutKind
from fiftyone_plugin.identity.links import Links
from fiftyone_plugin.identity.tracklets import Tracklet
from fiftyone_plugin.types import Track

__all__ = ["Requirements", "requirements_of"]

Place = tuple[int, int]
"""A propagated track and a frame."""
Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Requirements:
    """Rules about places in propagated tracks."""

    together: tuple[tuple[Place, Place], ...] = ()
    """Both show one object; the earlier place first."""
    apart: tuple[tuple[Place, Place], ...] = ()
    """They show different objects."""
    removed: tuple[tuple[int, int, int], ...] = ()
    """(track, start, stop): nothing there is an object that was asked for."""
    cuts: tuple[Cut, ...] = ()
    """Where a person said that something changes."""

    def unwanted(self, tracklets: Sequence[Tracklet]) -> set[int]:
        """Indices of the tracklets that a person removed."""
        return {
            t.index
            for t in tracklets
            for track_id, start, stop in self.removed
            if t.track_id == track_id and start <= t.start and t.stop <= stop
        }

    def vouched_for(self, tracklets: Sequence[Tracklet]) -> set[int]:
        """Indices of the tracklets that a person pointed at: they take part, however little else speaks for them."""
        places = [p for pair in (*self.together, *self.apart) for p in pair]
        return {i for p in places if (i := _at(p, tracklets)) is not None}

    def broken(
        self, tracklets: Sequence[Tracklet], links: Links, *, forced: frozenset[Pair]
    ) -> tuple[set[Pair], set[Pair]]:
        """Links to forbid and links to force so that one more rule holds; both empty when all do, or none can."""
        for a, b in self.apart:
            first, last = self._ends(a, b, tracklets)
            chain = _chain(links, first)
            if first is not None and last in chain and first != last:
                between = chain[: chain.index(last) + 1]
                free = [pair for pair in pairwise(between) if pair not in forced]
                if free:
                    weakest = min(free, key=lambda pair: links.margins.get(pair, 0.0))
                    return {weakest}, set()
        for a, b in self.together:
            first, last = self._ends(a, b, tracklets)
            if first is None or last is None or first == last or last in _chain(links, first):
                continue
            pair = _joint(first, last, tracklets, links)
            if pair is not None and pair not in forced:
                return set(), {pair}
        return set(), set()

    @staticmethod
    def _ends(a: Place, b: Place, tracklets: Sequence[Tracklet]) -> tuple[int | None, int | None]:
        first, last = (_at(p, tracklets) for p in sorted((a, b), key=lambda p: p[1]))
        return first, last


def requirements_of(constraints: Sequence[Constraint], tracks: Sequence[Track]) -> Requirements:
    """Find in propagated tracks what a person spoke of; what cannot be found there is left out."""
    together: list[tuple[Place, Place]] = []
    apart: list[tuple[Place, Place]] = []
    removed: list[tuple[int, int, int]] = []
    cuts: list[Cut] = []

    def place(anchor: Anchor) -> Place | None:
        track_id = locate(anchor, tracks)
        return None if track_id is None else (track_id, anchor.frame)

    for constraint in constraints:
        if isinstance(constraint, MustLink | CannotLink):
            a, b = place(constraint.a), place(constraint.b)
            if a is not None and b is not None and a != b:
                (together if isinstance(constraint, MustLink) else apart).append((a, b))
        elif isinstance(constraint, SplitAt):
            a, b = place(constraint.before), place(constraint.after)
            if a is not None and b is not None:
                apart.append((a, b))
                cuts.append(Cut(b[0], b[1], CutKind.SAID, 1.0))
        elif isinstance(constraint, Lock):
            found = [p for p in map(place, constraint.anchors) if p is not None]
            together += list(pairwise(found))
        elif isinstance(constraint, Remove):
            a, b = place(constraint.first), place(constraint.last)
            if a is not None and b is not None and a[0] == b[0]:
                removed.append((a[0], a[1], b[1] + 1))
                cuts += [Cut(a[0], a[1], CutKind.SAID, 1.0), Cut(a[0], b[1] + 1, CutKind.SAID, 1.0)]
    # Two places that may be parted need a cut between them, if they lie on one track.
    cuts += [Cut(b[0], b[1], CutKind.SAID, 1.0) for a, b in apart if a[0] == b[0]]
    return Requirements(tuple(together), tuple(apart), tuple(removed), tuple(cuts))


def _at(place: Place, tracklets: Sequence[Tracklet]) -> int | None:
    """The tracklet at a place, or the one that it is a copy of."""
    for t in tracklets:
        if t.track_id == place[0] and t.start <= place[1] < t.stop:
            return t.index if t.copy_of is None else t.copy_of
    return None


def _chain(links: Links, first: int | None) -> list[int]:
    chain = [] if first is None else [first]
    while chain and chain[-1] in links.successor:
        chain.append(links.successor[chain[-1]])
    return chain


def _joint(first: int, last: int, tracklets: Sequence[Tracklet], links: Links) -> Pair | None:
    """The link that joins the object of `first` to that of `last`: as late in the one and as early in the other's past.

    What of both chains lies at the same time cannot be one object and is left behind.
    """
    before = [n for n in _chain(links, first) if tracklets[n].start < tracklets[last].start]
    predecessor = links.predecessor()
    after = [last]
    while after[-1] in predecessor and tracklets[predecessor[after[-1]]].start > tracklets[first].start:
        after.append(predecessor[after[-1]])
    for i in reversed(before):
        for j in reversed(after):
            if tracklets[i].stop <= tracklets[j].start + 1 and i != j:
                return i, j
    return None
