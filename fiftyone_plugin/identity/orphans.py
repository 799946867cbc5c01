"""Tracklets that the assignment left without a past although their track has one.

A new identity in the middle of a track needs evidence of a new object. Without it the stretch goes on with its track
where that is free, and is taken out where the identity is already shown elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence

from fiftyone_plugin.identity.appearance import Calibration, pool
from fiftyone_plugin.identity.links import Link, Links
from fiftyone_plugin.identity.tracklets import Tracklet

__all__ = ["settle_orphans"]

_MIN_FRAMES = 8
_MIN_VIEWS = 3
_MAX_ALIEN = -2.0
"""Log-odds (nats) below which a stretch does not show its track's object."""


def settle_orphans(tracklets: Sequence[Tracklet], links: Links, calibration: Calibration) -> set[int]:
    """Decide about every tracklet that begins a chain in the middle of its track; adds links, in place.

    Returns:
        Indices of the tracklets to take out.
    """
    gone: set[int] = set()
    last: dict[int, Tracklet] = {}
    taking_part = {i for pair in links.candidates for i in pair}
    for t in tracklets:
        if t.copy_of is not None or t.index not in taking_part:
            continue
        before = last.get(t.track_id)
        last[t.track_id] = t
        if before is None or t.index in links.predecessor():
            continue
        future = _chain_from(t.index, links)
        known = [tracklets[n].views for n in _chain_to(before.index, links) if len(tracklets[n].views)]
        alien = t.phrase != before.phrase or (
            bool(known) and len(t.views) > 0 and calibration.log_odds(pool(known), t.views) < _MAX_ALIEN
        )
        length = sum(tracklets[n].stop - tracklets[n].start for n in future)
        views = sum(len(tracklets[n].views) for n in future)
        matches = sum(tracklets[n].matches for n in future)
        if length >= _MIN_FRAMES and views >= _MIN_VIEWS and (matches > 0 or tracklets[t.index].looks == 0):
            continue
        after = links.successor.get(before.index)
        is_free = after is None or tracklets[after].start >= tracklets[future[-1]].stop
        if is_free and not alien:
            if after is not None:
                links.successor[future[-1]] = after
                links.candidates.setdefault((future[-1], after), _forced())
            links.successor[before.index] = t.index
            links.candidates.setdefault((before.index, t.index), _forced())
        else:
            gone |= set(future)
    return gone


def _chain_from(index: int, links: Links) -> list[int]:
    chain = [index]
    while chain[-1] in links.successor:
        chain.append(links.successor[chain[-1]])
    return chain


def _chain_to(index: int, links: Links) -> list[int]:
    predecessor = links.predecessor()
    chain = [index]
    while chain[-1] in predecessor:
        chain.append(predecessor[chain[-1]])
    return chain[::-1]


def _forced() -> Link:
    return Link(total=0.0, prior=0.0, appearance=0.0, motion=0.0, is_keep=True, has_views=False)
