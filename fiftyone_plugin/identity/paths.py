"""Which mask of an object to believe in every frame of an encounter, when several were propagated.

Objects that touch have a mask that was carried into the encounter and one that was carried back into it from the clean
frames after it. Both run over to the neighbour now and then, seldom at the same moment. For every object the path
through its candidates is chosen that moves and grows least abruptly, looks like the object, and leaves the others their
pixels: dynamic programming for one object, one object after the other until nobody gains (iterated conditional modes,
Besag, "On the Statistical Analysis of Dirty Pictures", JRSS B 1986).

Looks at numbers only: masks are compared by whoever calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fiftyone_plugin.geometry import box_areas
from fiftyone_plugin.types import BoolArray, FloatArray, IntArray

__all__ = ["HIDDEN", "PathOptions", "Pathway", "choose_pair", "choose_paths"]

HIDDEN = -1
"""In a path: no mask."""


@dataclass(frozen=True, slots=True)
class PathOptions:
    """What speaks against a path, in arbitrary but common units; set by hand, not fitted to anything."""

    move: float = 1.0
    """For a step as long as the object, from one frame to the next."""
    grow: float = 1.0
    """For a change of area by the factor e."""
    appearance: float = 0.25
    """For each nat of log-odds against this being the object."""
    conflict: float = 3.0
    """For a mask that lies wholly on another object's."""
    hidden: float = 0.6
    """For every frame without a mask."""
    appearing: float = 1.0
    """For vanishing or coming back."""
    switch: float = 0.2
    """For going over to another candidate."""
    min_gain: float = 1.5
    """A path is changed only if that saves so much."""


@dataclass(frozen=True, slots=True)
class Pathway:
    """One object's candidates in an encounter of T frames, C candidates each; the first is what it has now."""

    boxes_xyxy: FloatArray
    """float32 (T, C, 4)."""
    areas_px: FloatArray
    """float32 (T, C); 0 where a candidate has no mask."""
    log_odds: FloatArray
    """float32 (T, C): appearance in favour of this object, 0 where nothing is known."""
    before_xyxy: FloatArray | None
    """float32 (4,), the box in the last frame before the encounter; None where there is none."""
    after_xyxy: FloatArray | None
    """float32 (4,), the box in the first frame after it."""
    is_open: BoolArray
    """bool (T,): False where the object keeps the first candidate, because it is not in contact there."""


def choose_paths(
    pathways: Sequence[Pathway],
    shared: Sequence[Sequence[NDArray[np.float32] | None]],
    options: PathOptions | None = None,
    *,
    max_changes: int = 3,
) -> list[IntArray]:
    """Choose a candidate for every object and frame.

    Args:
        pathways: N objects over the same T frames.
        shared: N x N; entry [n][m] is float32 (T, C_n, C_m), the part of each of n's masks that lies on m's; None where
            the two never touch.
        options: Weights.
        max_changes: Changes of paths, for each object on average.

    Returns:
        N paths, int64 (T,) each: the candidate, or `HIDDEN`.
    """
    options = options or PathOptions()
    paths = [np.where(p.areas_px[:, 0] > 0, 0, HIDDEN).astype(np.int64) for p in pathways]
    own = [_own_costs(p, options) for p in pathways]
    steps = [_step_costs(p, options) for p in pathways]
    if not pathways:
        return paths
    for _ in range(max_changes * len(pathways)):
        # Of two that claim one animal, the one for which another way saves more is wrong about it: it goes first.
        gains: list[tuple[float, int, IntArray]] = []
        for n, pathway in enumerate(pathways):
            costs = own[n] + _conflicts(n, pathway, shared, paths, options)
            best = _cheapest(costs, steps[n])
            gains.append((_total(costs, steps[n], paths[n]) - _total(costs, steps[n], best), n, best))
        gain, n, best = max(gains, key=lambda g: (g[0], -g[1]))
        if gain <= options.min_gain:
            break
        paths[n] = best
    return paths


def choose_pair(
    pathways: Sequence[Pathway],
    shared: Sequence[Sequence[NDArray[np.float32] | None]],
    options: PathOptions | None = None,
) -> list[IntArray]:
    """Choose for two objects at once, as `choose_paths` does for each in turn.

    Where two objects have each other's masks for some frames, neither can change alone, since the right mask is taken.
    Here both may; the cost is that of all pairs of candidates, so it does not go beyond two.

    Args:
        pathways: Two objects over the same T frames.
        shared: 2 x 2, as for `choose_paths`.
        options: Weights.

    Returns:
        Two paths, int64 (T,) each: the candidate, or `HIDDEN`.
    """
    options = options or PathOptions()
    a, b = pathways
    now = [np.where(p.areas_px[:, 0] > 0, 0, HIDDEN).astype(np.int64) for p in pathways]
    own_a, own_b = _own_costs(a, options), _own_costs(b, options)
    steps_a, steps_b = _step_costs(a, options), _step_costs(b, options)
    frames, states_b = own_b.shape
    costs = own_a[:, :, None] + own_b[:, None, :]
    part = shared[0][1]
    if part is not None:
        costs[:, :-1, :-1] += options.conflict * part
    flat = costs.reshape(frames, -1)
    steps = (steps_a[:, :, None, :, None] + steps_b[:, None, :, None, :]).reshape(
        frames + 1, flat.shape[1], flat.shape[1]
    )
    best = _states(_cheapest(flat, steps), flat.shape[1])
    kept = _states(now[0], own_a.shape[1]) * states_b + _states(now[1], states_b)
    if _total(flat, steps, kept) - _total(flat, steps, best) <= options.min_gain:
        return now
    return [
        np.where(states == count - 1, HIDDEN, states).astype(np.int64)
        for states, count in ((best // states_b, own_a.shape[1]), (best % states_b, states_b))
    ]


def _states(path: IntArray, count: int) -> IntArray:
    """Columns of a path in a table of costs: hidden is the last."""
    return np.asarray(np.where(path == HIDDEN, count - 1, path), np.int64)


def _own_costs(p: Pathway, options: PathOptions) -> NDArray[np.float64]:
    """(T, C + 1), the last column being hidden; what is closed or has no mask costs infinitely much."""
    frames, candidates = p.areas_px.shape
    costs = np.full((frames, candidates + 1), np.inf)
    usable = (p.areas_px > 0) & (p.is_open[:, None] | (np.arange(candidates) == 0))
    costs[:, :candidates] = np.where(usable, -options.appearance * p.log_odds, np.inf)
    may_hide = p.is_open | (p.areas_px[:, 0] == 0)
    costs[:, candidates] = np.where(may_hide, options.hidden, np.inf)
    return costs


def _step_costs(p: Pathway, options: PathOptions) -> NDArray[np.float64]:
    """(T + 1, C + 1, C + 1): from each state to each, the edges of the encounter included, hidden last."""
    frames, candidates = p.areas_px.shape
    costs = np.zeros((frames + 1, candidates + 1, candidates + 1))
    switches = options.switch * (1 - np.eye(candidates))
    for t in range(1, frames):
        costs[t, :-1, :-1] = _jump(p.boxes_xyxy[t - 1], p.boxes_xyxy[t], options) + switches
        costs[t, :-1, -1] = costs[t, -1, :-1] = options.appearing
    if p.before_xyxy is not None:
        costs[0, :, :-1] = _jump(p.before_xyxy[None], p.boxes_xyxy[0], options)
        costs[0, :, -1] = options.appearing
    if p.after_xyxy is not None:
        costs[frames, :-1, :] = _jump(p.boxes_xyxy[-1], p.after_xyxy[None], options)
        costs[frames, -1, :] = options.appearing
    return costs


def _jump(a: FloatArray, b: FloatArray, options: PathOptions) -> NDArray[np.float64]:
    """Cost of going from each of (A, 4) to each of (B, 4) in one frame: (A, B)."""
    centre_a, centre_b = ((x[:, :2] + x[:, 2:]).astype(np.float64) / 2 for x in (a, b))
    area_a = np.maximum(box_areas(a).astype(np.float64), 1.0)[:, None]
    area_b = np.maximum(box_areas(b).astype(np.float64), 1.0)[None]
    apart = np.linalg.norm(centre_a[:, None] - centre_b[None], axis=-1)
    size = np.sqrt(np.sqrt(area_a * area_b))
    return np.asarray(options.move * apart / size + options.grow * np.abs(np.log(area_a / area_b)) / 2)


def _conflicts(
    n: int,
    p: Pathway,
    shared: Sequence[Sequence[NDArray[np.float32] | None]],
    paths: Sequence[IntArray],
    options: PathOptions,
) -> NDArray[np.float64]:
    """(T, C + 1): what each candidate takes from the masks that the others have now."""
    frames, candidates = p.areas_px.shape
    costs = np.zeros((frames, candidates + 1))
    every = np.arange(frames)
    for m, path in enumerate(paths):
        part = shared[n][m]
        if m == n or part is None:
            continue
        on_other = part[every, :, np.maximum(path, 0)]
        costs[:, :candidates] += options.conflict * np.where(path[:, None] == HIDDEN, 0.0, on_other)
    return costs


def _cheapest(costs: NDArray[np.float64], steps: NDArray[np.float64]) -> IntArray:
    """The path of least cost (Viterbi)."""
    frames, states = costs.shape
    total = costs[0] + steps[0].min(axis=0)
    origin = np.zeros((frames, states), np.int64)
    for t in range(1, frames):
        ways = total[:, None] + steps[t]
        origin[t] = ways.argmin(axis=0)
        total = ways.min(axis=0) + costs[t]
    path = np.empty(frames, np.int64)
    path[-1] = int(np.argmin(total + steps[frames].min(axis=1)))
    for t in range(frames - 1, 0, -1):
        path[t - 1] = origin[t, path[t]]
    return np.where(path == states - 1, HIDDEN, path)


def _total(costs: NDArray[np.float64], steps: NDArray[np.float64], path: IntArray) -> float:
    frames, states = costs.shape
    states_of = np.where(path == HIDDEN, states - 1, path)
    inner = sum(float(steps[t, states_of[t - 1], states_of[t]]) for t in range(1, frames))
    edges = float(steps[0][:, states_of[0]].min() + steps[frames][states_of[-1]].min())
    return float(costs[np.arange(frames), states_of].sum()) + inner + edges
