"""Which embedders to hear: some see the light taken out of their crops, which helps where it changes, and only there.

Such an embedder and the one that sees crops as they are say much the same; hearing both makes looks too sure of
themselves. So adapted ones are heard only where one of them tells the individuals of the video better over time: where
views of one track, some time apart, are more often nearer to each other than those of two tracks at the same time.

Knows of an embedder its name only: ``colour:adapted`` and ``reid-adapted:bundled`` are adapted ``colour`` and
``reid:bundled``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

__all__ = ["heard_parts"]

_MIN_GAIN = 0.05
"""By how much more often. Of 133 drawn clips (seeds 301 to 318) this holds for all 26 in which the light changes and
for 21 others, and takes 454 ID switches to 431; with 0.02 it would be 436, with 0.08 429."""
_MIN_LAG = 2
"""Stretches of one track that are compared lie at least so far apart: light changes slowly."""
_MIN_PAIRS = 8
_MAX_STRETCHES = 64
"""Of a track, and of the video, so many are compared: bounds time."""

_Stretch = tuple[int, NDArray[np.float64], str]


def heard_parts(
    embedder_name: str, sizes: Sequence[int], stretches: Mapping[int, Sequence[_Stretch]]
) -> tuple[bool, ...]:
    """Which of several embedders side by side to hear.

    Args:
        embedder_name: Their names, joined by ``+``.
        sizes: Of their vectors.
        stretches: By number, which counts time, what was seen in each stretch: track id, mean embedding (D,), phrase.

    Returns:
        One for each part. All are heard where there is none as it is for an adapted one.
    """
    names = [name.strip() for name in embedder_name.split("+")]
    edges = list(pairwise([0, *np.cumsum(sizes).tolist()]))
    if len(names) != len(sizes):
        return (True,) * len(sizes)
    twins = [(k, names.index(plain)) for k, name in enumerate(names) if (plain := _as_it_is(name)) in names]
    if not twins:
        return (True,) * len(sizes)
    gains = [
        _told_apart(stretches, slice(*edges[part])) - _told_apart(stretches, slice(*edges[twin]))
        for part, twin in twins
    ]
    changes = max(gains) > _MIN_GAIN
    return tuple(changes or all(k != twin for twin, _ in twins) for k in range(len(sizes)))


def _as_it_is(name: str) -> str | None:
    """The embedder that sees crops as they are, of one that sees them adapted; None of any other."""
    base, _, variant = name.partition(":")
    if variant == "adapted":
        return base
    if base.endswith("-adapted"):
        return f"{base.removesuffix('-adapted')}:{variant}"
    return None


def _told_apart(stretches: Mapping[int, Sequence[_Stretch]], columns: slice) -> float:
    """How often views of one track are nearer to each other than views of two, in [0, 1]; 0 where too few are known."""
    by_track: dict[int, list[tuple[int, NDArray[np.float64]]]] = {}
    different: list[float] = []
    for place, members in stretches.items():
        for track_id, mean, _ in members:
            by_track.setdefault(track_id, []).append((place, mean[columns]))
    known = list(stretches.values())
    for members in (known[k] for k in _some(len(known))):
        for i, (_, a, phrase_a) in enumerate(members):
            for _, b, phrase_b in members[i + 1 :]:
                if phrase_a == phrase_b:
                    different.append(float(((a[columns] - b[columns]) ** 2).sum()))
    same: list[NDArray[np.float64]] = []
    for seen in by_track.values():
        kept = [seen[k] for k in _some(len(seen))]
        places, means = np.array([place for place, _ in kept]), np.stack([mean for _, mean in kept])
        squares = (means**2).sum(axis=1)
        apart = squares[:, None] + squares - 2 * means @ means.T
        is_later = places[:, None] - places >= _MIN_LAG
        same.append(apart[is_later])
    together = np.concatenate(same) if same else np.zeros(0)
    if len(together) < _MIN_PAIRS or len(different) < _MIN_PAIRS:
        return 0.0
    nearer = len(different) - np.searchsorted(np.sort(different), together, side="right")
    return float(nearer.mean() / len(different))


def _some(count: int) -> list[int]:
    """At most `_MAX_STRETCHES` of so many, evenly spread."""
    picks = np.unique(np.linspace(0, count - 1, min(count, _MAX_STRETCHES)).round().astype(int))
    return [int(k) for k in picks]
