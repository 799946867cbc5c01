"""How alike two sets of views are, and what that says about identity in this video.

A similarity of embeddings means nothing by itself: two sheep may be 0.95 alike, and one sheep at dusk 0.8 like itself.
`calibrate` learns from the video in which directions individuals differ (tracks of one phrase that are seen at the same
time) and in which one individual varies (neighbouring stretches of one track), and scores pairs by the likelihood ratio
of that model: probabilistic linear discriminant analysis in its two-covariance form (Ioffe, "Probabilistic Linear
Discriminant Analysis", ECCV 2006; Brummer and De Villiers, "The speaker partitioning problem", Odyssey 2010, eq. 7).
Where look-alikes differ no more than one of them varies, the score is near zero by itself.

Several embedders side by side are modelled one by one, or the one with more numbers would be heard alone. They err
together, over the same crops, so each counts for its share only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import block_diag, eigh

from fiftyone_plugin.errors import EmbeddingMismatchError
from fiftyone_plugin.identity.light import heard_parts
from fiftyone_plugin.types import FloatArray, Gallery, IntArray, Track

__all__ = ["MAX_LOG_ODDS", "Calibration", "Pooled", "Views", "calibrate", "pool", "temper", "views_between"]

MAX_LOG_ODDS = 6.0
"""The most that one comparison says (nats), and where chains stop hearing looks in full (`temper`): embedders can be
wrong in ways the video does not show."""
_DIRECTIONS = 16
"""At most so many directions of each part of the embedding are looked at."""
_DRIFT = 2.0
"""Views across an encounter vary more than those of neighbouring stretches: their variance, by this factor."""
_FLOOR = 0.1
"""Part of the mean variance that is added in every direction: a short video shows too little variation of anyone."""
_MAX_PAIRS = 400
"""Differences that each covariance is estimated from."""
_SILENT = 1e-12
"""Precision of a set without views, so that nothing is divided by zero."""
_FACTORS = 8
"""So many variances are multiplied before a logarithm is taken: too few to overflow."""
_MIN_STRENGTH = 1e-6
"""Directions so much weaker than the strongest one are rounding errors."""
_FULL_SET = 8
"""So many views average out what varies from view to view; fewer count as proportionally noisier."""


@dataclass(frozen=True, slots=True)
class Views:
    """A few clean views of one object."""

    embeddings: FloatArray
    """float32 (M, D), unit length."""
    weights: FloatArray
    """float32 (M,)."""
    frames: IntArray
    """int64 (M,)."""

    def __len__(self) -> int:
        return len(self.weights)


def views_between(gallery: Gallery, start: int, stop: int, *, max_views: int = 12) -> Views:
    """The cleanest views of ``[start, stop)``, spread over time: the best of each of `max_views` equal spans.

    Views of weight 0 are left out.
    """
    in_time = (gallery.frame_indices >= start) & (gallery.frame_indices < stop)
    inside = np.flatnonzero(in_time & (gallery.weights > 0))
    if len(inside) > max_views:
        parts = np.array_split(inside, max_views)
        inside = np.array([part[np.argmax(gallery.weights[part])] for part in parts])
    return Views(gallery.embeddings[inside].astype(np.float32), gallery.weights[inside], gallery.frame_indices[inside])


def pool(parts: Sequence[Views], *, max_views: int = 36) -> Views:
    """Views of several tracklets as one set, evenly thinned."""
    embeddings = np.concatenate([p.embeddings for p in parts])
    weights = np.concatenate([p.weights for p in parts])
    frames = np.concatenate([p.frames for p in parts])
    if len(weights) > max_views:
        pick = np.linspace(0, len(weights) - 1, max_views).round().astype(np.int64)
        embeddings, weights, frames = embeddings[pick], weights[pick], frames[pick]
    return Views(embeddings, weights, frames)


@dataclass(frozen=True, slots=True)
class Pooled:
    """What the views of N sets say, in the coordinates of a `Calibration`; sets can be put together and taken apart."""

    precision: NDArray[np.float64]
    """(N,), inverse variance of the mean of a set; 0 where nothing was seen."""
    moment: NDArray[np.float64]
    """(N, J), the mean times the precision."""

    def __len__(self) -> int:
        return len(self.precision)

    def __add__(self, other: Pooled) -> Pooled:
        return Pooled(self.precision + other.precision, self.moment + other.moment)

    def __sub__(self, other: Pooled) -> Pooled:
        return Pooled(self.precision - other.precision, self.moment - other.moment)

    def take(self, rows: IntArray) -> Pooled:
        """Some of the sets."""
        return Pooled(self.precision[rows], self.moment[rows])

    def put(self, rows: Sequence[int], sets: Pooled) -> None:
        """Overwrite some of the sets."""
        self.precision[rows], self.moment[rows] = sets.precision, sets.moment

    def cumulated(self) -> Pooled:
        """Each set together with all before it."""
        return Pooled(np.cumsum(self.precision), np.cumsum(self.moment, axis=0))

    def with_nobody(self) -> Pooled:
        """The same and one empty set behind them."""
        return Pooled(
            np.append(self.precision, 0.0), np.concatenate([self.moment, np.zeros((1, self.moment.shape[1]))])
        )

    def like(self) -> Pooled:
        """As many empty sets."""
        return Pooled(np.zeros_like(self.precision), np.zeros_like(self.moment))


def temper(log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
    """What to believe of log-odds (nats) of looks: small ones as they are, large ones ever less, in the same order."""
    return np.asarray(MAX_LOG_ODDS * np.arcsinh(log_odds / MAX_LOG_ODDS))


@dataclass(frozen=True, slots=True)
class Calibration:
    """The two-covariance model of one video: in its coordinates the variation of one individual is 1 everywhere."""

    centre: NDArray[np.float64]
    """(D,), what all have in common."""
    directions: NDArray[np.float64]
    """(D, J), from embeddings to coordinates."""
    between: NDArray[np.float64]
    """(J,), variance between individuals in each coordinate, in units of the variance of one."""
    usual_weight: float = 1.0
    """How clean the views of this video mostly are, in (0, 1]."""
    parts: int = 1
    """How many embedders there are."""

    @property
    def separation(self) -> float:
        """Distance of two individuals in standard deviations of one; below 1 appearance decides nothing."""
        return float(np.sqrt(2 * self.between.sum()))

    def silenced(self) -> Calibration:
        """The same for embeddings of this size, but looks say nothing."""
        size = len(self.centre)
        return Calibration(self.centre, np.zeros((size, 0)), np.zeros(0), self.usual_weight, self.parts)

    def log_odds(self, a: Views, b: Views) -> float:
        """Log-likelihood ratio (nats) of one individual against two, within `MAX_LOG_ODDS`; 0 for an empty set.

        Raises:
            EmbeddingMismatchError: The views come from another embedder than the calibration.
        """
        return float(self.log_odds_table(self.pooled([a]), self.pooled([b]))[0, 0])

    def log_odds_table(self, rows: Pooled, columns: Pooled) -> NDArray[np.float64]:
        """`log_odds` of every pair: R and C sets of views to (R, C)."""
        if not len(self.between):
            return np.zeros((len(rows), len(columns)))
        x, y = (sets.moment / np.maximum(sets.precision, _SILENT)[:, None] for sets in (rows, columns))
        noise_x, noise_y = (1 / np.maximum(sets.precision, _SILENT) for sets in (rows, columns))
        odds = self._ratio(x[:, None], noise_x[:, None], y[None], noise_y[None])
        known = (rows.precision > 0)[:, None] & (columns.precision > 0)[None]
        return np.where(known, np.clip(odds, -MAX_LOG_ODDS, MAX_LOG_ODDS), 0.0)

    def pooled(self, sets: Sequence[Views]) -> Pooled:
        """N sets of views, ready to be put together in any way."""
        if not len(self.between):
            return Pooled(np.zeros(len(sets)), np.zeros((len(sets), 0)))
        places, noise = self._summary(sets)
        precision = np.array([float(len(v) > 0) for v in sets]) / noise
        return Pooled(precision, places * precision[:, None])

    def likeness(self, sets: Pooled) -> NDArray[np.float64]:
        """Log-likelihood (nats) of each of N sets under "all of this is one individual": (N,).

        Only differences mean something: ``likeness(a + b) - likeness(a) - likeness(b)`` is the log-likelihood ratio of
        one individual against two. Sets are taken as independent looks at it (Brummer and De Villiers, eq. 6).
        """
        if not len(self.between):
            return np.zeros(len(sets))
        spread = 1 + sets.precision[:, None] * self.between
        explained = (sets.moment**2 * self.between / spread).sum(axis=1)
        # Logarithms are what takes the time here: of products of a few factors there are fewer.
        products = np.multiply.reduceat(spread, np.arange(0, len(self.between), _FACTORS), axis=1)
        return np.asarray((explained - np.log(products).sum(axis=1)) / 2)

    def log_odds_along(self, views: Views, *, window: int) -> NDArray[np.float64]:
        """`log_odds` of the `window` views before each view and the `window` from it on, in one go.

        Returns:
            float64 (M,), not limited to `MAX_LOG_ODDS` so that a change has one lowest point; 0 where there are not so
            many views on both sides.
        """
        odds = np.zeros(len(views))
        if len(views) < 2 * window or not len(self.between):
            return odds
        self._check_size(views)
        weights = self._say(views)
        places = (views.embeddings.astype(np.float64) - self.centre) @ self.directions
        sums = np.concatenate([np.zeros((1, places.shape[1])), np.cumsum(places * weights[:, None], axis=0)])
        totals = np.concatenate([[0.0], np.cumsum(weights)])
        said = totals[window:] - totals[:-window]
        means = (sums[window:] - sums[:-window]) / said[:, None]
        noise = self.parts * np.maximum(1.0, _FULL_SET / said)
        odds[window : len(views) - window + 1] = self._ratio(
            means[:-window], noise[:-window], means[window:], noise[window:]
        )
        return odds

    def _ratio(
        self,
        x: NDArray[np.float64],
        noise_x: NDArray[np.float64],
        y: NDArray[np.float64],
        noise_y: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Coordinates (..., J) and variances (...) of two sets, broadcast against each other, to log-odds (...)."""
        total = np.zeros(np.broadcast_shapes(noise_x.shape, noise_y.shape))
        # One direction after the other: all at once would take J times the memory.
        for d, between in enumerate(self.between):
            u, v, xu, yv = between + noise_x, between + noise_y, x[..., d], y[..., d]
            determinant = u * v - between**2
            same = -np.log(determinant) - (xu**2 * v + yv**2 * u - 2 * between * xu * yv) / determinant
            different = -np.log(u * v) - xu**2 / u - yv**2 / v
            total += (same - different) / 2
        return total

    def _summary(self, sets: Sequence[Views]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Coordinates (N, J) of each set's mean, and the variance (N,) of that mean around its individual."""
        coordinates = np.zeros((len(sets), len(self.between)))
        noise = np.ones(len(sets))
        for k, views in enumerate(sets):
            if len(views):
                self._check_size(views)
                say = self._say(views)
                mean = np.average(views.embeddings.astype(np.float64), axis=0, weights=say)
                coordinates[k] = (mean - self.centre) @ self.directions
                noise[k] = self.parts * max(1.0, _FULL_SET / say.sum())
        return coordinates, noise

    def _say(self, views: Views) -> NDArray[np.float64]:
        """How much each view counts, (M,) in (0, 1]: its weight is its inverse variance, up to a factor."""
        return np.asarray(np.minimum(views.weights.astype(np.float64) / self.usual_weight, 1.0))

    def _check_size(self, views: Views) -> None:
        if views.embeddings.shape[1] != len(self.centre):
            raise EmbeddingMismatchError(
                f"embeddings of size {views.embeddings.shape[1]} and {len(self.centre)}: "
                f"use one embedder for all tracks"
            )


def _mean(views: Views) -> NDArray[np.float64]:
    return np.average(views.embeddings.astype(np.float64), axis=0, weights=views.weights)


def calibrate(
    tracks: Sequence[Track],
    galleries: Mapping[int, Gallery],
    *,
    is_same_object: Mapping[tuple[int, int], Sequence[tuple[int, int]]],
    span_frames: int = 16,
) -> Calibration:
    """Learn from the video how individuals differ and how much one varies.

    Args:
        tracks: Propagated tracks; a few exchanges among them do little harm.
        galleries: Clean views by track id.
        is_same_object: For pairs of tracks, ranges in which both show one object; such pairs prove nothing.
        span_frames: Length of the stretches that are compared.
    """
    within: list[NDArray[np.float64]] = []
    means: list[NDArray[np.float64]] = []
    cells: dict[int, list[tuple[int, NDArray[np.float64], str]]] = {}
    for track in tracks:
        gallery = galleries.get(track.track_id)
        if gallery is None or not len(gallery):
            continue
        previous: NDArray[np.float64] | None = None
        first, last = int(gallery.frame_indices[0]), int(gallery.frame_indices[-1])
        for cell in range(first // span_frames, last // span_frames + 1):
            views = views_between(gallery, cell * span_frames, (cell + 1) * span_frames, max_views=6)
            if len(views) < 2:
                previous = None
                continue
            mean = _mean(views)
            if previous is not None:
                within.append(mean - previous)
            previous = mean
            means.append(mean)
            cells.setdefault(cell, []).append((track.track_id, mean, track.phrase))
    different: list[NDArray[np.float64]] = []
    for cell, members in cells.items():
        low, high = cell * span_frames, (cell + 1) * span_frames
        for i, (id_a, mean_a, phrase_a) in enumerate(members):
            for id_b, mean_b, phrase_b in members[i + 1 :]:
                doubled = is_same_object.get((id_a, id_b), ()) or is_same_object.get((id_b, id_a), ())
                if phrase_a == phrase_b and not any(s < high and e > low for s, e in doubled):
                    different.append(mean_a - mean_b)
    known = [g for g in galleries.values() if (g.weights > 0).any()]
    if not known or not means:
        return _fit([], [], [])
    sizes = known[0].part_sizes or (len(means[0]),)
    edges = [0, *np.cumsum(sizes).tolist()]
    heard = heard_parts(known[0].embedder_name, sizes, cells)
    parts = [
        _fit(*([row[low:high] for row in rows] for rows in (means, within, different)))
        if is_heard
        else _silent(high - low)
        for (low, high), is_heard in zip(pairwise(edges), heard, strict=True)
    ]
    return Calibration(
        np.concatenate([p.centre for p in parts]),
        block_diag(*(p.directions for p in parts)),
        np.concatenate([p.between for p in parts]),
        usual_weight=float(np.median(np.concatenate([g.weights[g.weights > 0] for g in known]))),
        parts=sum(heard),
    )


def _silent(size: int) -> Calibration:
    return Calibration(np.zeros(size), np.zeros((size, 0)), np.zeros(0))


def _some(rows: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """At most `_MAX_PAIRS` of them, evenly spread: memory must not grow with the length of the video."""
    if len(rows) > _MAX_PAIRS:
        rows = [rows[i] for i in np.linspace(0, len(rows) - 1, _MAX_PAIRS).round().astype(int)]
    return np.stack(rows)


def _fit(
    means: Sequence[NDArray[np.float64]],
    within: Sequence[NDArray[np.float64]],
    different: Sequence[NDArray[np.float64]],
) -> Calibration:
    """Diagonalise both covariances together."""
    silent = _silent(len(means[0]) if means else 1)
    if len(different) < 2 or len(within) < 2:
        # Nobody to compare with: appearance cannot be judged, and says nothing.
        return silent
    steps = _some(within)
    length = np.linalg.norm(steps, axis=1)
    # A step far longer than usual is a track that moved on to another object, not variation of one.
    steps = steps[length <= 3 * np.median(length)]
    gaps = _some(different)
    basis = _main_directions(np.concatenate([steps, gaps]))
    if not basis.shape[1]:  # everybody always looks exactly the same
        return silent
    one = (steps @ basis).T @ (steps @ basis) / len(steps) / 2
    two = (gaps @ basis).T @ (gaps @ basis) / len(gaps) / 2
    floor = _FLOOR * np.trace(one + two) / basis.shape[1] * np.eye(basis.shape[1])
    values, vectors = np.linalg.eigh(_DRIFT * one + floor)
    whiten = vectors / np.sqrt(values)
    spread, turn = np.linalg.eigh(whiten.T @ (two - one) @ whiten)
    useful = spread > 0
    return Calibration(np.mean(means, axis=0), basis @ whiten @ turn[:, useful], spread[useful])


def _main_directions(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """The orthonormal directions (D, J) in which rows (N, D) are longest, at most `_DIRECTIONS`.

    From the products of rows: a singular value decomposition needs several times the memory of the rows.
    """
    count = len(rows)
    squares, mixes = eigh(rows @ rows.T, subset_by_index=[max(0, count - _DIRECTIONS), count - 1])
    is_real = squares > max(_MIN_STRENGTH**2 * squares[-1], 0.0)
    lengths = np.sqrt(squares[is_real])
    return np.asarray((rows.T @ mixes[:, is_real] / lengths)[:, ::-1])
