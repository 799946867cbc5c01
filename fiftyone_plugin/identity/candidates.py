"""Who could continue whom: possible links between tracklets, with what speaks for them before looks are heard.

Every cut of a track is a link that keeps to it; encounters, joint absences and returns allow others. Priors say what
tends to happen there, and boxes how well the paths fit.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from fiftyone_plugin.identity.appearance import Calibration, Pooled, temper
from fiftyone_plugin.identity.encounters import Contact, CutKind
from fiftyone_plugin.identity.handovers import Continuation
from fiftyone_plugin.identity.meetings import JointAbsence
from fiftyone_plugin.identity.tracklets import Tracklet

__all__ = [
    "AUDIT",
    "LinkOptions",
    "candidate_priors",
    "keep_log_odds",
    "motion_log_odds",
    "told_by_continuations",
    "told_by_handovers",
]

_FORBIDDEN = -1e9
_MIN_ALIKE = -1.0
"""Log-odds (nats) of appearance from which a return is considered at all."""
_MAX_ALIKE = 24
"""At most so many pasts are considered for one tracklet."""
_BLOCK = 256
"""Tracklets compared at once: bounds the memory of the table."""


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """Log-odds (nats) of what can happen between two tracklets, before anything is looked at."""

    keep_at_contact: float = 3.0
    """The mask stays on its object through a contact of no depth; falls by `contact_depth` times the depth."""
    contact_depth: float = 2.0
    keep_at_duplicate: float = 0.0
    keep_at_gap: float = 2.0
    """... through a short absence; falls to 0 for a long one."""
    keep_at_dip: float = 2.0
    """... through a moment of doubt; falls to 0 for a deep one."""
    keep_at_jump: float = 0.5
    keep_at_change: float = 0.5
    encounter: float = 0.0
    """Another track of the same encounter, or one that was away at the same time, took the object over."""
    resuming: float = -3.0
    """A track left its object for another one, and took it up again later."""
    resuming_elsewhere: float = -0.5
    """A track that ended goes on as one that begins within `motion_horizon_frames`."""
    returning: float = -2.0
    """... as one that begins later."""
    phrase_doubt: float = 1.0
    """Against linking two phrases; detectors do call a half-hidden sheep a dog."""
    phrase_vote: float = 1.0
    """... and so much more for every time the detector said so, of the side it spoke of less often."""
    motion_limit: float = 2.0
    """Motion never counts more than this in favour; a mover may turn."""
    motion_horizon_frames: int = 24
    """Beyond this gap motion says nothing."""
    overlap_frames: int = 4
    """Two tracklets may share so many frames and still be linked: cuts are not exact."""


AUDIT = LinkOptions(encounter=-2.5, resuming_elsewhere=-3.0, returning=-3.0, resuming=-4.0)
"""Priors for the tracks of another tool, or of a person: ours are started anew at every doubt, those are not."""


def candidate_priors(
    tracklets: Sequence[Tracklet],
    nodes: Sequence[int],
    contacts: Sequence[Contact],
    absences: Sequence[JointAbsence],
    calibration: Calibration,
    views: Pooled,
    options: LinkOptions,
) -> dict[tuple[int, int], tuple[float, bool]]:
    """Every link that could be made, with its prior and whether it keeps to the propagated track."""
    taking_part = set(nodes)
    priors: dict[tuple[int, int], tuple[float, bool]] = {}
    by_track: dict[int, list[Tracklet]] = {}
    for t in tracklets:
        by_track.setdefault(t.track_id, []).append(t)
    for pieces in by_track.values():
        previous: int | None = None
        skipped = np.inf
        for t in pieces:
            prior = _keep_prior(t, options)
            node = t.index if t.copy_of is None else t.copy_of
            if node not in taking_part:
                skipped = min(skipped, prior)
                continue
            if previous is not None and previous != node and _in_order(tracklets[previous], tracklets[node], options):
                best = priors.get((previous, node), (_FORBIDDEN, True))[0]
                priors[previous, node] = (max(best, min(prior, skipped)), True)
            previous, skipped = node, np.inf
    groups = _groups(contacts)
    ends: dict[int, list[int]] = {}
    begins: dict[int, list[int]] = {}
    for i in nodes:
        for g in _groups_near(tracklets[i], tracklets[i].stop, groups, by_copy=tracklets):
            ends.setdefault(g, []).append(i)
        for g in _groups_near(tracklets[i], tracklets[i].start, groups, by_copy=tracklets):
            begins.setdefault(g, []).append(i)
    for g, starting in begins.items():
        for i in ends.get(g, []):
            for j in starting:
                if i != j and (i, j) not in priors and _fits(tracklets[i], tracklets[j], options):
                    own = tracklets[i].track_id == tracklets[j].track_id
                    priors[i, j] = (options.resuming if own else options.encounter, False)
    last = {(tracklets[i].track_id, tracklets[i].stop): i for i in nodes}
    first = {(tracklets[j].track_id, tracklets[j].start): j for j in nodes}
    for away in absences:
        for a, b in ((0, 1), (1, 0)):
            tail = last.get((away.track_ids[a], away.starts[a]))
            head = first.get((away.track_ids[b], away.stops[b]))
            if tail is None or head is None or (tail, head) in priors:
                continue
            if _fits(tracklets[tail], tracklets[head], options):
                priors[tail, head] = (options.encounter, False)
    for i, j in _alike(tracklets, nodes, calibration, views, options):
        if (i, j) not in priors:
            own = tracklets[i].track_id == tracklets[j].track_id
            is_soon = tracklets[j].before.frame - tracklets[i].after.frame <= options.motion_horizon_frames
            other = options.resuming_elsewhere if is_soon else options.returning
            priors[i, j] = (options.resuming if own else other, False)
    return priors


def _alike(
    tracklets: Sequence[Tracklet],
    nodes: Sequence[int],
    calibration: Calibration,
    views: Pooled,
    options: LinkOptions,
) -> list[tuple[int, int]]:
    """Pairs that could be a return: for every tracklet the few it looks most like, of equals the nearest in time.

    All pairs of a long video would be far too many to hold.
    """
    starts = np.array([tracklets[i].start for i in nodes])
    stops = np.array([tracklets[i].stop for i in nodes])
    found: set[tuple[int, int]] = set()
    for first in range(0, len(nodes), _BLOCK):
        block = np.arange(first, min(first + _BLOCK, len(nodes)))
        likeness = calibration.log_odds_table(views, views.take(block))
        for column, b in enumerate(block.tolist()):
            gap = starts[b] - stops
            fits = [
                a
                for a in np.flatnonzero((likeness[:, column] > _MIN_ALIKE) & (gap >= -options.overlap_frames)).tolist()
                if a != b and _fits(tracklets[nodes[a]], tracklets[nodes[b]], options)
            ]
            fits.sort(key=lambda a: (-likeness[a, column], gap[a]))
            found |= {(nodes[a], nodes[b]) for a in fits[:_MAX_ALIKE]}
    return sorted(found)


def _keep_prior(t: Tracklet, options: LinkOptions) -> float:
    """Log-odds that nothing happened at the cut before a tracklet."""
    if t.cut is None:
        return options.keep_at_gap
    return {
        CutKind.CONTACT: options.keep_at_contact - options.contact_depth * t.cut.depth,
        CutKind.DUPLICATE: options.keep_at_duplicate,
        CutKind.GAP: options.keep_at_gap * (1 - t.cut.depth),
        CutKind.DIP: options.keep_at_dip * (1 - t.cut.depth),
        CutKind.HANDOVER: options.keep_at_contact - options.contact_depth * t.cut.depth,
        CutKind.JUMP: options.keep_at_jump,
        CutKind.CHANGE: options.keep_at_change,
        CutKind.SAID: options.keep_at_change,
    }[t.cut.kind]


def _groups(contacts: Sequence[Contact]) -> list[tuple[frozenset[int], int, int]]:
    """Contacts that share a track and overlap in time are one group: (track ids, start, stop)."""
    groups: list[tuple[frozenset[int], int, int]] = []
    for contact in contacts:
        ids, start, stop = frozenset(contact.track_ids), contact.start, contact.stop
        rest = []
        for g_ids, g_start, g_stop in groups:
            if g_ids & ids and g_start < stop and g_stop > start:
                ids, start, stop = ids | g_ids, min(start, g_start), max(stop, g_stop)
            else:
                rest.append((g_ids, g_start, g_stop))
        groups = [*rest, (ids, start, stop)]
    return groups


def _groups_near(
    tracklet: Tracklet,
    frame: int,
    groups: Sequence[tuple[frozenset[int], int, int]],
    *,
    by_copy: Sequence[Tracklet],
    reach: int = 6,
) -> list[int]:
    ids = {tracklet.track_id} | {t.track_id for t in by_copy if t.copy_of == tracklet.index}
    return [
        k for k, (members, start, stop) in enumerate(groups) if members & ids and start - reach <= frame <= stop + reach
    ]


def _in_order(a: Tracklet, b: Tracklet, options: LinkOptions) -> bool:
    return a.stop <= b.start + options.overlap_frames and a.start < b.start


def _fits(a: Tracklet, b: Tracklet, options: LinkOptions) -> bool:
    doubtful = min(a.matches, b.matches) <= 2 and a.looks + b.looks > 0
    return (a.phrase == b.phrase or doubtful) and _in_order(a, b, options)


def told_by_handovers(
    tracklets: Sequence[Tracklet],
    nodes: Sequence[int],
    contacts: Sequence[Contact],
    pairs: Container[tuple[int, int]],
) -> tuple[dict[tuple[int, int], float], dict[tuple[int, int], tuple[int, int]]]:
    """Log-odds (nats) of motion for links at handovers: half speaks for the other track, half against the own one.

    Both are tempered: what a box does between two frames can have other reasons. Where the link to the other track
    cannot be made, nothing speaks against the own one: an abstention leaves everything as it was. So for links to the
    own track the others are given, too.
    """
    by_track: dict[int, list[Tracklet]] = {}
    for t in sorted((tracklets[n] for n in nodes), key=lambda t: t.start):
        by_track.setdefault(t.track_id, []).append(t)
    told: dict[tuple[int, int], float] = {}
    rivals: dict[tuple[int, int], tuple[int, int]] = {}
    for handover in (h for contact in contacts for h in contact.handovers):
        later = [t for t in by_track.get(handover.target, []) if t.start == handover.frame]
        other, own = (
            [t.index for t in by_track.get(i, []) if t.stop <= handover.frame]
            for i in (handover.source, handover.target)
        )
        is_cut = bool(later) and later[0].cut is not None and later[0].cut.kind is CutKind.HANDOVER
        if not is_cut or not other or (other[-1], later[0].index) not in pairs:
            continue
        value = float(temper(np.array(handover.log_odds / 2)))
        told[other[-1], later[0].index] = value
        if own:
            told[own[-1], later[0].index] = -value
            rivals[own[-1], later[0].index] = (other[-1], later[0].index)
    return told, rivals


def told_by_continuations(
    tracklets: Sequence[Tracklet],
    nodes: Sequence[int],
    continuations: Sequence[Continuation],
    options: LinkOptions,
) -> dict[tuple[int, int], float]:
    """Log-odds (nats) of motion for links where a track begins along the path of another one.

    A tracklet that says too little about itself to take part follows its track, so that the next one of the track
    speaks for it.
    """
    taking_part = set(nodes)
    by_track: dict[int, list[Tracklet]] = {}
    for t in sorted(tracklets, key=lambda t: t.start):
        by_track.setdefault(t.track_id, []).append(t)

    def nearest(pieces: Iterable[Tracklet]) -> int | None:
        for t in pieces:
            if t.index in taking_part or t.copy_of is not None:
                return t.index if t.copy_of is None else None
        return None

    told: dict[tuple[int, int], float] = {}
    for c in continuations:
        i = nearest(t for t in reversed(by_track.get(c.source, [])) if t.stop <= c.last_frame + 1)
        j = nearest(by_track.get(c.target, []))
        if i is not None and j is not None and _fits(tracklets[i], tracklets[j], options):
            told[i, j] = max(c.log_odds, motion_log_odds(tracklets[i], tracklets[j], options))
    return told


def keep_log_odds(a: Tracklet, b: Tracklet, options: LinkOptions) -> float:
    """What speaks, besides looks, for a tracklet showing what the one before it in its track shows (nats)."""
    return _keep_prior(b, options) + motion_log_odds(a, b, options)


def motion_log_odds(a: Tracklet, b: Tracklet, options: LinkOptions) -> float:
    """How well b begins where a was heading, in log-odds: `motion_limit` in favour at most, three times that against.

    The error of a straight path is taken as normal with a spread of 0.5 object sizes, growing by 0.06 a frame.
    """
    gap = b.before.frame - a.after.frame
    if gap > options.motion_horizon_frames:
        return 0.0
    value = options.motion_limit - (_path_error(a, b) / (0.5 + 0.06 * max(gap, 0))) ** 2 / 2
    return float(max(value, -3 * options.motion_limit))


def _path_error(a: Tracklet, b: Tracklet) -> float:
    """How far a straight path from one to the other goes astray, in object sizes."""
    gap = b.before.frame - a.after.frame
    ahead = a.after.centre_xy + a.after.velocity_xy * gap
    behind = b.before.centre_xy - b.before.velocity_xy * gap
    error = (float(np.linalg.norm(ahead - b.before.centre_xy)) + float(np.linalg.norm(behind - a.after.centre_xy))) / 2
    return error / max(a.after.size_px, b.before.size_px)
