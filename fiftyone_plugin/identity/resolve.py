"""From propagated tracks and what was seen of them to encounters, decisions and repairs.

Nothing is changed here: `repair.apply_repairs` does that. Deterministic: the same input gives the same repairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fiftyone_plugin.config import IdentityOptions
from fiftyone_plugin.identity.appearance import Calibration, calibrate
from fiftyone_plugin.identity.camera import CameraPath, steady
from fiftyone_plugin.identity.candidates import AUDIT, LinkOptions
from fiftyone_plugin.identity.confidence import doubt, frame_confidences, with_joint_confidence
from fiftyone_plugin.identity.constraints import Constraint
from fiftyone_plugin.identity.counts import Doubts, Solution, solve_counted
from fiftyone_plugin.identity.encounters import CutKind, find_contacts
from fiftyone_plugin.identity.handovers import Continuation, find_continuations, find_handovers
from fiftyone_plugin.identity.links import Links, LinkTable
from fiftyone_plugin.identity.lookalikes import alikeness, are_look_alikes
from fiftyone_plugin.identity.meetings import find_approaches, find_joint_absences
from fiftyone_plugin.identity.orphans import settle_orphans
from fiftyone_plugin.identity.proposals import REACH_FRAMES, propose
from fiftyone_plugin.identity.requirements import Requirements, requirements_of
from fiftyone_plugin.identity.strays import leave_out_strays
from fiftyone_plugin.identity.tracklets import Tracklet, cut_tracks, find_changes
from fiftyone_plugin.types import (
    Decision,
    Encounter,
    Gallery,
    Repair,
    Support,
    Track,
)

__all__ = ["Resolution", "resolve"]

_NEAR_VIEWS = 6
"""Views on each side of a fragment whose mean is compared."""
_MAX_LEAP = 3.0
"""Largest change of looks across a fragment, in usual ones: `appearance.calibrate` takes longer steps for another
object, too."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """What the identity layer concluded."""

    encounters: tuple[Encounter, ...]
    decisions: tuple[Decision, ...]
    repairs: tuple[Repair, ...]
    confidences: tuple[tuple[int, int, int, float], ...]
    """(propagated track, start, stop, probability that its identity there is right)."""
    calibration: Calibration | None = field(default=None, compare=False)
    """What looks say in this video; None where nothing was looked at."""

    def with_confidence(self, tracks: Sequence[Track]) -> tuple[Track, ...]:
        """The tracks with `identity_confidence` filled in; nothing else changes."""
        values = {t.track_id: t.identity_confidence.copy() for t in tracks}
        frames = {t.track_id: t.frame_indices for t in tracks}
        for track_id, start, stop, confidence in self.confidences:
            values[track_id][(frames[track_id] >= start) & (frames[track_id] < stop)] = confidence
        return tuple(replace(t, identity_confidence=values[t.track_id]) for t in tracks)


def resolve(
    tracks: Sequence[Track],
    galleries: Mapping[int, Gallery],
    supports: Mapping[int, Support] | None = None,
    *,
    camera: CameraPath | None = None,
    options: IdentityOptions | None = None,
    link_options: LinkOptions | None = None,
    constraints: Sequence[Constraint] = (),
) -> Resolution:
    """Test every encounter of these tracks and propose repairs.

    Args:
        tracks: Propagated tracks, from any tracker; boxes suffice.
        galleries: Clean views by track id; a track without any is judged by motion alone.
        supports: What the detector said whenever it looked; None where there was no detector.
        camera: How the camera moved; None takes it to stand still.
        options: The margin, and known numbers of objects.
        link_options: Priors of what happens in an encounter; by default `links.AUDIT` where there was no detector.
        constraints: What a person said; it holds, whatever the evidence says.

    Returns:
        Encounters, one decision each, and the repairs that follow, all by time.
    """
    options = options or IdentityOptions()
    supports = supports or {}
    link_options = link_options or (LinkOptions() if supports else AUDIT)
    galleries = {track_id: _borne_out(g, supports.get(track_id)) for track_id, g in galleries.items()}
    still = steady(tracks, camera)
    contacts = find_contacts(tracks)
    contacts = sorted([*contacts, *find_approaches(still, contacts)], key=lambda c: (c.start, c.track_ids))
    if not supports:
        # Measured: the boxes of our carriers leap where masks run over, and what looks like a handover seldom is one.
        contacts = find_handovers(still, contacts)
    absences = find_joint_absences(tracks)
    doubled: dict[tuple[int, int], tuple[tuple[int, int], ...]] = {}
    for contact in contacts:
        doubled[contact.track_ids] = doubled.get(contact.track_ids, ()) + contact.duplicates
    calibration = calibrate(tracks, galleries, is_same_object=doubled)
    # Boxes alone join nothing: what hides an object need not have a box, and no view could object.
    is_seen = any((g.weights > 0).any() for g in galleries.values())
    continuations = find_continuations(still, contacts) if is_seen and not supports else []
    if not len(calibration.between):
        continuations = _without_leaps(continuations, galleries)
    rules = requirements_of(constraints, tracks)

    def cut() -> list[Tracklet]:
        changes = [change for g in galleries.values() for change in find_changes(g, calibration)]
        return cut_tracks(still, galleries, contacts, supports, changes=changes, said=rules.cuts)

    tracklets = cut()
    # Our own carriers exchange objects so often that wrong looks do less harm there than none.
    if not supports and are_look_alikes(tracklets, calibration):
        calibration = calibration.silenced()
        tracklets = cut()
    unwanted, vouched_for = rules.unwanted(tracklets), rules.vouched_for(tracklets)
    unfounded = (_unfounded(tracklets, calibration) - vouched_for) | unwanted
    nodes = [
        t.index
        for t in tracklets
        if t.copy_of is None and t.index not in unfounded and (_is_evident(t) or t.index in vouched_for)
    ]

    table = LinkTable(
        tracklets,
        nodes,
        contacts,
        calibration,
        absences=absences,
        continuations=continuations,
        options=link_options,
    )

    def solve(bonuses: Mapping[str, float]) -> Solution:
        links, doubts = _solve_until_firm(tracklets, table, rules, bonuses, min_margin=options.min_margin)
        left = [t for t in tracklets if t.index not in unfounded]
        return Solution(
            links,
            doubts,
            settle_orphans(left, tracklets, nodes, links, calibration, link_options, vouched_for=vouched_for),
        )

    solution = solve_counted(solve, tracklets, nodes, options.counts)
    links, abstained = solution.links, solution.doubts
    unfounded |= solution.gone
    strays = leave_out_strays(tracks, nodes, tracklets, links, unfounded, vouched_for)
    found = propose(tracklets, links, abstained, contacts, absences, unfounded, strays, min_margin=options.min_margin)
    doubt(links, {j: margin for (_, j), (_, margin) in abstained.items()})
    alike = alikeness(tracklets, calibration) if supports else 0.0  # of tracks of others nothing was fitted to it
    decisions = with_joint_confidence(found.decisions, tracklets, links, reach_frames=REACH_FRAMES, alikeness=alike)
    return Resolution(found.encounters, decisions, found.repairs, frame_confidences(tracklets, links), calibration)


def _borne_out(gallery: Gallery, support: Support | None) -> Gallery:
    """The views of the times at which the detector found something there: others often show what hides the object."""
    if support is None or not len(support.frame_indices):
        return gallery
    after = np.searchsorted(support.frame_indices, gallery.frame_indices)
    looks = np.stack([np.maximum(after - 1, 0), np.minimum(after, len(support.frame_indices) - 1)])
    away = np.abs(support.frame_indices[looks] - gallery.frame_indices)
    nearest = np.where(away[0] < away[1], looks[0], looks[1])
    # Without the weight, not without the row: a copy of all embeddings would be the largest thing in memory.
    return replace(gallery, weights=gallery.weights * support.matched[nearest].astype(np.float32))


def _without_leaps(continuations: Sequence[Continuation], galleries: Mapping[int, Gallery]) -> list[Continuation]:
    """Continuations across which looks change no more than they do along a track.

    For videos in which no two are seen at the same time, so that looks cannot be calibrated: a cut to another scene
    changes them by more, even where the same place is taken.
    """
    views = {
        i: (g.frame_indices[g.weights > 0], g.embeddings[g.weights > 0].astype(np.float32))
        for i, g in galleries.items()
    }
    usual = [
        float(np.linalg.norm(rows[k - _NEAR_VIEWS : k].mean(axis=0) - rows[k : k + _NEAR_VIEWS].mean(axis=0)))
        for _, rows in views.values()
        for k in range(_NEAR_VIEWS, len(rows) - _NEAR_VIEWS + 1, _NEAR_VIEWS)
    ]
    kept = []
    for c in continuations:
        if not usual or c.source not in views or c.target not in views:
            continue
        frames, rows = views[c.source]
        before, after = rows[frames <= c.last_frame][-_NEAR_VIEWS:], views[c.target][1][:_NEAR_VIEWS]
        if len(before) and len(after):
            leap = float(np.linalg.norm(before.mean(axis=0) - after.mean(axis=0)))
            if leap <= _MAX_LEAP * float(np.median(usual)):
                kept.append(c)
    return kept


def _is_evident(t: Tracklet) -> bool:
    """Whether a tracklet says enough about itself to take part in the assignment; the others follow their track."""
    if t.cut is None:
        return True
    if t.looks >= 2 and t.matches == 0:
        return False
    if t.cut.kind is CutKind.HANDOVER:
        return True
    return len(t.views) >= 2 or t.matches > 0 or (t.looks == 0 and t.stop - t.start >= 12)


def _unfounded(tracklets: Sequence[Tracklet], calibration: Calibration) -> set[int]:
    """Tracklets on nothing: the detector looked and found nothing there, and they do not look like their track.

    A whole track goes when it was looked at three times or more and never once found.
    """
    gone: set[int] = set()
    by_track: dict[int, list[Tracklet]] = {}
    for t in tracklets:
        by_track.setdefault(t.track_id, []).append(t)
    for pieces in by_track.values():
        looks, matches = sum(p.looks for p in pieces), sum(p.matches for p in pieces)
        if looks >= 3 and matches == 0:
            gone |= {p.index for p in pieces}
            continue
        founded = [p for p in pieces if (p.matches > 0 or p.looks == 0) and len(p.views)]
        for p in pieces:
            if p.looks == 0 or p.matches > 0 or p is pieces[0]:
                continue
            resembles = max((calibration.log_odds(p.views, f.views) for f in founded), default=None)
            if not len(p.views):
                resembles = None
            alien = resembles is not None and resembles < 0
            unseen = resembles is None and p.looks >= 2
            if alien or unseen:
                gone.add(p.index)
    return gone


def _solve_until_firm(
    tracklets: Sequence[Tracklet],
    table: LinkTable,
    rules: Requirements,
    bonuses: Mapping[str, float],
    *,
    min_margin: float,
) -> tuple[Links, Doubts]:
    """Solve, take back changes of identity whose margin is too small, and solve again until all are firm.

    Whoever could not be told is left as propagation left it: no other track is tried for it either. The weakest go
    first, a quarter at a time, because most doubts end with the one that caused them; each search begins where the
    last one ended. What a person said is enforced before anything is doubted.
    """
    forbidden: set[tuple[int, int]] = set()
    forced: frozenset[tuple[int, int]] = frozenset()
    abstained: Doubts = {}
    begin: Mapping[int, int] | None = None
    while True:
        links = table.solve(forbidden=forbidden, forced=forced, bonuses=bonuses, begin=begin)
        parted, joined = rules.broken(tracklets, links, forced=forced)
        if parted or joined:
            forbidden |= parted
            forced |= joined
            continue
        begin = links.successor
        weak = sorted(
            (margin, pair)
            for pair, margin in links.margins.items()
            if not links.candidates[pair].is_keep and margin < min_margin and pair not in forced
        )
        if not weak:
            return links, abstained
        for margin, pair in weak[: max(1, len(weak) // 4)]:
            abstained[pair] = (links.candidates[pair], margin)
            forbidden |= table.changes_into(pair[1]) - forced
