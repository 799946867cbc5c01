"""A known number of objects: "there are exactly three sheep".

Links of that class are made as much more, or less, likely as it takes until there are as many chains as objects: the
Lagrange multiplier of the number of tracks in tracking by network flow (Zhang, Li, Nevatia, CVPR 2008, section 4).
Nothing is taken out: more objects seen at one time than there should be stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from fiftyone_plugin.identity.links import Link, Links
from fiftyone_plugin.identity.tracklets import Tracklet

__all__ = ["Doubts", "Solution", "solve_counted"]

Doubts: TypeAlias = dict[tuple[int, int], tuple[Link, float]]
"""Links that were not made because their margin was too small, with it."""


@dataclass(frozen=True, slots=True)
class Solution:
    """Who continues whom, what was not decided, and what shows nobody."""

    links: Links
    doubts: Doubts
    gone: set[int]
    """Indices of tracklets that are taken out."""


Solve: TypeAlias = Callable[[Mapping[str, float]], Solution]

_MAX_BONUS = 16.0
_MIN_BONUS = -6.0
_STEPS = 8


def solve_counted(
    solve: Solve, tracklets: Sequence[Tracklet], nodes: Sequence[int], counts: Mapping[str, int]
) -> Solution:
    """Solve so that every counted class comes as near to its number of objects as it can.

    Args:
        solve: Of a bonus (log-odds, nats) for each class, the solution.
        tracklets: All, by index.
        nodes: Those that take part.
        counts: Known number of objects by phrase.
    """
    bonuses: dict[str, float] = {}
    best = solve(bonuses)
    for phrase, wanted in counts.items():

        def surplus(found: Solution, phrase: str = phrase, wanted: int = wanted) -> int:
            begun = set(nodes) - set(found.links.successor.values()) - found.gone
            return sum(tracklets[n].phrase == phrase for n in begun) - wanted

        if surplus(best) == 0:
            continue
        # Fewer chains with every bonus: the boundary is found by halving.
        low, high = (0.0, _MAX_BONUS) if surplus(best) > 0 else (_MIN_BONUS, 0.0)
        chosen = (abs(surplus(best)), 0.0, best)
        for _ in range(_STEPS):
            bonus = (low + high) / 2
            found = solve({**bonuses, phrase: bonus})
            chosen = min(chosen, (abs(surplus(found)), bonus, found), key=lambda c: (c[0], abs(c[1])))
            if surplus(found) > 0:
                low = bonus
            else:
                high = bonus
        bonuses[phrase] = chosen[1]
        best = chosen[2]
    return best
