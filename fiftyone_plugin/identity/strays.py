"""Strays: short stretches that may well show another object than the chain they are in; they are nobody's.

Inside encounters masks lie on one animal and then on the other for a few frames each. Shown under either name, such
stretches are a third of the ID switches that are left once everything is linked; not shown, they are a gap.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from fiftyone_plugin.geometry import box_overlap, median_area_px, rle_overlap
from fiftyone_plugin.identity.links import NOTHING_KNOWN, Links
from fiftyone_plugin.identity.tracklets import Tracklet
from fiftyone_plugin.types import IntArray, Rle, Track

__all__ = ["leave_out_strays"]

_MAX_FRAMES = 12
_MAX_RISK = 0.12
_WORTH_SCALE = 2.0
"""Nats by which the place of a stretch must be worth more for the risk to fall by a factor of e."""
_BETWEEN_OWN = 0.5
"""Factor of the risk where the stretches before and after are of the same propagated track."""


def leave_out_strays(
    tracks: Sequence[Track],
    nodes: Sequence[int],
    tracklets: Sequence[Tracklet],
    links: Links,
    gone: Collection[int],
    vouched_for: Collection[int],
) -> set[int]:
    """Find strays, and link what is around them, in place.

    The risk of a short stretch is ``exp(-worth / 2) * alone * misfit ** 2``, halved between stretches of its own track.
    `worth` is that of its place (nats); `alone` the part of its masks that no other track shows, since what two tracks
    show is the one's whether the other is there or not; `misfit` the ratio of its area and the usual one of its track,
    because masks on two animals are larger and masks on half of one are smaller. The form comes from taking out each
    short stretch of 55 drawn clips by itself: the first two factors find 70 of 148 switches for 525 right frames, a
    limit of the worth alone 47. The constants were set by hand on the same clips: 148 ID switches are left of 234, for
    0.8 points of IDF1 and 1.3 of HOTA, since most of what is left out is right.

    Args:
        tracks: The propagated tracks.
        nodes: Indices of the tracklets that took part in the assignment.
        tracklets: All tracklets, by index.
        links: The assignment; is changed.
        gone: Indices of those that are taken out for other reasons.
        vouched_for: Indices of those that a person spoke of; they stay.

    Returns:
        Indices of the tracklets to take out. None where no detector ever looked: tracks of others are theirs. None
        where tracks have no masks: boxes of animals that pass each other cover each other, too.
    """
    if not any(t.looks for t in tracklets) or any(t.masks is None for t in tracks):
        return set()
    predecessor = links.predecessor()
    shown = _Shown(tracks, [t for t in tracklets if t.index not in gone and t.copy_of is None])

    def worth(n: int) -> float:
        """Of the place; at the end of a chain there is one link that may be wrong, and nothing else."""
        before, after = predecessor.get(n), links.successor.get(n)
        of_link = np.inf
        if before is None and after is not None:
            of_link = links.margins.get((n, after), np.inf)
        elif before is not None and after is None:
            of_link = links.margins.get((before, n), np.inf)
        return min(links.alone.get(n, np.inf), of_link)

    def is_risky(n: int) -> bool:
        t = tracklets[n]
        around = [tracklets[k].track_id for k in (predecessor.get(n), links.successor.get(n)) if k is not None]
        factor = _BETWEEN_OWN if around == [t.track_id, t.track_id] else 1.0
        risk = factor * float(np.exp(-worth(n) / _WORTH_SCALE)) * shown.misfit(t) ** 2
        # What takes long is asked of few.
        return risk > _MAX_RISK and risk * shown.alone(t) > _MAX_RISK

    strays = {
        n
        for n in nodes
        if n not in gone
        and n not in vouched_for
        and tracklets[n].stop - tracklets[n].start <= _MAX_FRAMES
        and is_risky(n)
    }
    for n in sorted(strays):
        _take_out(n, links)
    return strays


class _Shown:
    """What tracks with masks show, frame by frame."""

    def __init__(self, tracks: Sequence[Track], tracklets: Sequence[Tracklet]) -> None:
        """`tracklets`: those of which something is shown in the end."""
        self._tracks = {t.track_id: t for t in tracks}
        self._tracklets = tracklets
        self._usual: dict[int, float] = {}

    def misfit(self, t: Tracklet) -> float:
        """Ratio of the area of a stretch and the usual one of its track, the larger by the smaller."""
        track = self._tracks[t.track_id]
        if t.track_id not in self._usual:
            self._usual[t.track_id] = median_area_px(track.masks or ())
        areas = median_area_px(_masks(track, _rows(track, t).tolist())), self._usual[t.track_id]
        return max(areas) / max(min(areas), 1.0)

    def alone(self, t: Tracklet) -> float:
        """Mean part, in [0, 1], that no other track shows of it, or it of the other, whichever is smaller."""
        track = self._tracks[t.track_id]
        rows = _rows(track, t)
        shared = np.zeros(len(rows))
        for other in self._tracklets:
            if other.track_id != t.track_id and other.start < t.stop and other.stop > t.start:
                np.maximum(shared, _shared(track, rows, self._tracks[other.track_id], other), out=shared)
        return 1.0 - float(shared.mean())


def _shared(track: Track, rows: IntArray, other: Track, stretch: Tracklet) -> np.ndarray:
    """Part of the smaller mask that both cover, by row of the track; 0 where the other one has none."""
    shared = np.zeros(len(rows))
    theirs = _rows(other, stretch)
    _, at, there = np.intersect1d(
        track.frame_indices[rows], other.frame_indices[theirs], assume_unique=True, return_indices=True
    )
    for k, row, their_row in zip(at.tolist(), rows[at].tolist(), theirs[there].tolist(), strict=True):
        if box_overlap(track.boxes_xyxy[[row]], other.boxes_xyxy[[their_row]])[0, 0] > 0:
            shared[k] = rle_overlap(_masks(track, [row]), _masks(other, [their_row]))[0, 0]
    return shared


def _rows(track: Track, t: Tracklet) -> IntArray:
    first, last = np.searchsorted(track.frame_indices, [t.start, t.stop])
    return np.arange(first, last)


def _masks(track: Track, rows: Sequence[int]) -> list[Rle]:
    assert track.masks is not None
    return [track.masks[row] for row in rows]


def _take_out(n: int, links: Links) -> None:
    """Link what is around a node; the new link is as sure as the weaker one of those it replaces."""
    before, after = links.predecessor().get(n), links.successor.pop(n, None)
    if before is None:
        return
    del links.successor[before]
    if after is None:
        return
    links.successor[before] = after
    links.candidates.setdefault((before, after), NOTHING_KNOWN)
    for margins in (links.margins, links.behind):
        known = [margins[pair] for pair in ((before, n), (n, after)) if pair in margins]
        if known:
            margins[before, after] = min(known)
