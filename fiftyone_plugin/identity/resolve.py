"""From propagated tracks and what was seen of them to encounters, decisions and repairs.

Nothing is changed here: `repair.apply_repairs` does that. Deterministic: the same input gives the same repairs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fiftyone_plugin.config import IdentityOptions
from fiftyone_plugin.identity.appearance import Calibration, calibrate
from fiftyone_plugin.identity.encounters import Contact, CutKind, find_contacts
from fiftyone_plugin.identity.links import Link, LinkOptions, Links, solve_links
from fiftyone_plugin.identity.orphans import settle_orphans
from fiftyone_plugin.identity.tracklets import Tracklet, cut_tracks, find_changes
from fiftyone_plugin.types import (
    Decision,
    Encounter,
    EncounterKind,
    Gallery,
    Outcome,
    Repair,
    RepairKind,
    Support,
    Track,
)

__all__ = ["Resolution", "resolve"]


@dataclass(frozen=True, slots=True)
class Resolution:
    """What the identity layer concluded."""

    encounters: tuple[Encounter, ...]
    decisions: tuple[Decision, ...]
    repairs: tuple[Repair, ...]
    confidences: tuple[tuple[int, int, int, float], ...]
    """(propagated track, start, stop, probability that its identity there is right)."""

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
    options: IdentityOptions | None = None,
    link_options: LinkOptions | None = None,
) -> Resolution:
    """Test every encounter of these tracks and propose repairs.

    Args:
        tracks: Propagated tracks, from any tracker; boxes suffice.
        galleries: Clean views by track id; a track without any is judged by motion alone.
        supports: What the detector said whenever it looked; None where there was no detector.
        options: Margin and known counts.
        link_options: Priors of what happens in an encounter.

    Returns:
        Encounters, one decision each, and the repairs that follow, all by time.
    """
    options = options or IdentityOptions()
    supports = supports or {}
    contacts = find_contacts(tracks)
    doubled: dict[tuple[int, int], tuple[tuple[int, int], ...]] = {}
    for contact in contacts:
        doubled[contact.track_ids] = doubled.get(contact.track_ids, ()) + contact.duplicates
    calibration = calibrate(tracks, galleries, is_same_object=doubled)
    changes = [cut for g in galleries.values() for cut in find_changes(g, calibration)]
    tracklets = cut_tracks(tracks, galleries, contacts, supports, changes=changes)
    unfounded = _unfounded(tracklets, calibration)
    nodes = [t.index for t in tracklets if t.copy_of is None and t.index not in unfounded and _is_evident(t)]
    links, abstained = _solve_until_firm(tracklets, nodes, contacts, calibration, options, link_options)
    unfounded |= settle_orphans(
        [t for t in tracklets if t.index not in unfounded], tracklets, nodes, links, calibration
    )
    return _report(tracklets, links, abstained, contacts, unfounded, options)


def _is_evident(t: Tracklet) -> bool:
    """Whether a tracklet says enough about itself to take part in the assignment; the others follow their track."""
    if t.cut is None:
        return True
    if t.looks >= 2 and t.matches == 0:
        return False
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
    nodes: Sequence[int],
    contacts: Sequence[Contact],
    calibration: Calibration,
    options: IdentityOptions,
    link_options: LinkOptions | None,
) -> tuple[Links, dict[tuple[int, int], tuple[Link, float]]]:
    """Solve, take back changes of identity whose margin is too small, and solve again until all are firm.

    Whoever could not be told is left as propagation left it: no other track is tried for it either. The weakest go
    first, a quarter at a time, because most doubts end with the one that caused them.
    """
    forbidden: set[tuple[int, int]] = set()
    abstained: dict[tuple[int, int], tuple[Link, float]] = {}
    every: list[tuple[int, int]] = []
    while True:
        links = solve_links(
            tracklets,
            nodes,
            contacts,
            calibration,
            forbidden=frozenset(forbidden),
            options=link_options,
        )
        every = every or [pair for pair, link in links.candidates.items() if not link.is_keep]
        weak = sorted(
            (margin, pair)
            for pair, margin in links.margins.items()
            if not links.candidates[pair].is_keep and margin < options.min_margin
        )
        if not weak:
            return links, abstained
        for margin, pair in weak[: max(1, len(weak) // 4)]:
            abstained[pair] = (links.candidates[pair], margin)
            forbidden |= {(i, j) for i, j in every if j == pair[1]}


def _report(
    tracklets: Sequence[Tracklet],
    links: Links,
    abstained: Mapping[tuple[int, int], tuple[Link, float]],
    contacts: Sequence[Contact],
    unfounded: set[int],
    options: IdentityOptions,
) -> Resolution:
    encounters: list[Encounter] = []
    decisions: list[Decision] = []
    repairs: list[Repair] = []
    identity = _identities(tracklets, links)
    predecessor = links.predecessor()
    natural = _natural_predecessors(tracklets, links, unfounded)

    def encounter(kind: EncounterKind, t: Tracklet, others: tuple[int, ...], start: int, stop: int) -> Encounter:
        e = Encounter(
            len(encounters) + 1, kind, t.phrase, start, max(stop, start + 1), tuple(sorted({t.track_id, *others}))
        )
        encounters.append(e)
        return e

    def repair(
        kind: RepairKind,
        start: int,
        stop: int | None,
        continues: dict[int, tuple[int, int] | None],
        relabels: dict[int, int | None],
        margin: float,
        reason: str,
        of: Encounter | None,
    ) -> None:
        repairs.append(
            Repair(
                len(repairs) + 1,
                kind,
                start,
                stop,
                continues,
                relabels,
                margin,
                reason,
                of.encounter_id if of is not None else None,
            )
        )

    done: set[int] = set()
    for t in sorted(tracklets, key=lambda t: (t.start, t.track_id)):
        if t.index in unfounded:
            repair(
                RepairKind.TRIM,
                t.start,
                t.stop,
                {t.track_id: None},
                {t.track_id: None},
                options.min_margin,
                f"track {t.track_id} sits on nothing the detector can see here",
                None,
            )
            continue
        if t.copy_of is not None:
            other = tracklets[t.copy_of]
            repair(
                RepairKind.TRIM,
                t.start,
                t.stop,
                {t.track_id: None},
                {t.track_id: None},
                options.min_margin,
                f"track {t.track_id} shows the same object as track {other.track_id} here",
                None,
            )
            continue
        if t.index in done:
            continue
        before = predecessor.get(t.index)
        usual = natural.get(t.index)
        contact = _contact_at(t, contacts)
        doubt = next(((link, m) for (_, j), (link, m) in abstained.items() if j == t.index), None)
        if before == usual:
            if t.cut is None and before is None and doubt is None:
                continue
            e = _encounter_of(encounter, t, contact)
            link = links.candidates.get((before, t.index)) if before is not None else None
            margin = links.margins.get((before, t.index), 0.0) if before is not None else 0.0
            if doubt is not None:
                decisions.append(_decision(e, Outcome.ABSTAIN, doubt[1], doubt[0], doubt=True))
            elif link is not None:
                firm = margin >= options.min_margin
                decisions.append(_decision(e, Outcome.KEEP if firm else Outcome.ABSTAIN, margin, link))
            continue
        if before is None and usual is not None:
            e = _encounter_of(encounter, t, contact)
            repair(
                RepairKind.SPLIT,
                t.start,
                None,
                {t.track_id: None},
                {t.track_id: identity[t.index]},
                options.min_margin,
                f"track {t.track_id} shows another object from frame {t.start} on",
                e,
            )
            decisions.append(Decision(e, Outcome.REASSIGN, options.min_margin, _probability(options.min_margin)))
            continue
        if before is None:
            continue
        partner = _partner(t, before, tracklets, predecessor, natural, contacts)
        link, margin = links.candidates[before, t.index], links.margins.get((before, t.index), 0.0)
        origin = tracklets[before]
        if partner is not None:
            other = tracklets[partner]
            done.add(partner)
            margin = min(margin, links.margins.get((predecessor[partner], partner), 0.0))
            e = _encounter_of(encounter, t, contact, others=(other.track_id,))
            repair(
                RepairKind.EXCHANGE,
                min(t.start, other.start),
                None,
                {
                    t.track_id: (origin.track_id, origin.stop - 1),
                    other.track_id: (
                        tracklets[predecessor[partner]].track_id,
                        tracklets[predecessor[partner]].stop - 1,
                    ),
                },
                {t.track_id: identity[t.index], other.track_id: identity[partner]},
                margin,
                f"tracks {t.track_id} and {other.track_id} had exchanged their objects",
                e,
            )
            decisions.append(_decision(e, Outcome.EXCHANGE, margin, link))
            continue
        returned = contact is None or origin.track_id not in contact.track_ids
        e = (
            encounter(EncounterKind.RETURN, t, (origin.track_id,), origin.stop - 1, t.start + 1)
            if returned
            else _encounter_of(encounter, t, contact, others=(origin.track_id,))
        )
        repair(
            RepairKind.REASSIGN,
            t.start,
            None,
            {t.track_id: (origin.track_id, origin.stop - 1)},
            {t.track_id: identity[t.index]},
            margin,
            f"track {t.track_id} shows the object that track {origin.track_id} showed until frame {origin.stop - 1}",
            e,
        )
        decisions.append(_decision(e, Outcome.REASSIGN, margin, link))
    return Resolution(tuple(encounters), tuple(decisions), tuple(repairs), _confidences(tracklets, links))


def _confidences(tracklets: Sequence[Tracklet], links: Links) -> tuple[tuple[int, int, int, float], ...]:
    """Probability that every link back to the beginning of a chain is right, taken as independent."""
    predecessor = links.predecessor()
    value: dict[int, float] = {}
    for t in sorted(tracklets, key=lambda t: (t.start, t.track_id)):
        before = predecessor.get(t.index)
        value[t.index] = 1.0
        if before is not None:
            value[t.index] = value.get(before, 1.0) * _probability(links.margins.get((before, t.index), 0.0))
    return tuple((t.track_id, t.start, t.stop, value[t.index]) for t in tracklets)


def _natural_predecessors(tracklets: Sequence[Tracklet], links: Links, unfounded: set[int]) -> dict[int, int]:
    """The tracklet before each one in its own track, when nothing is repaired."""
    natural: dict[int, int] = {}
    last: dict[int, int] = {}
    for t in tracklets:
        if t.index in unfounded or t.copy_of is not None:
            continue
        if t.track_id in last:
            natural[t.index] = last[t.track_id]
        last[t.track_id] = t.index
    return natural


def _identities(tracklets: Sequence[Tracklet], links: Links) -> dict[int, int]:
    """Ids as `apply_repairs` will give them, for the report."""
    predecessor = links.predecessor()
    first_of_track: dict[int, int] = {}
    for t in tracklets:
        if t.copy_of is None:
            first_of_track.setdefault(t.track_id, t.index)
    result: dict[int, int] = {}
    next_id = max((t.track_id for t in tracklets), default=0) + 1
    for t in sorted(tracklets, key=lambda t: (t.start, t.track_id)):
        if t.copy_of is not None:
            continue
        before = predecessor.get(t.index)
        if before is not None and before in result:
            result[t.index] = result[before]
        elif first_of_track[t.track_id] == t.index:
            result[t.index] = t.track_id
        else:
            result[t.index] = next_id
            next_id += 1
    return result


def _contact_at(t: Tracklet, contacts: Sequence[Contact], *, reach: int = 6) -> Contact | None:
    """The contact of its track in which a tracklet begins."""
    near = [c for c in contacts if t.track_id in c.track_ids and c.start - reach <= t.start <= c.stop + reach]
    return max(near, key=lambda c: c.max_iou, default=None)


def _encounter_of(
    make: Callable[[EncounterKind, Tracklet, tuple[int, ...], int, int], Encounter],
    t: Tracklet,
    contact: Contact | None,
    *,
    others: tuple[int, ...] = (),
) -> Encounter:
    if contact is not None:
        return make(EncounterKind.CROSSING, t, (*contact.track_ids, *others), contact.start, contact.stop)
    kind = EncounterKind.RETURN if t.cut is None or t.cut.kind is CutKind.GAP else EncounterKind.OCCLUSION
    return make(kind, t, others, max(t.start - 1, 0), t.start + 1)


def _partner(
    t: Tracklet,
    before: int,
    tracklets: Sequence[Tracklet],
    predecessor: Mapping[int, int],
    natural: Mapping[int, int],
    contacts: Sequence[Contact],
) -> int | None:
    """The tracklet that took this one's place, if two tracks exchanged their futures."""
    usual = natural.get(t.index)
    if usual is None:
        return None
    other_track = tracklets[before].track_id
    for u in tracklets:
        if u.track_id == other_track and predecessor.get(u.index) == usual and natural.get(u.index) == before:
            return u.index
    return None


def _probability(margin: float) -> float:
    return float(1 / (1 + np.exp(-margin)))


def _decision(e: Encounter, outcome: Outcome, margin: float, link: Link, *, doubt: bool = False) -> Decision:
    """A decision with the terms of the link it rests on; a doubted link was left out, so its odds count against."""
    terms = {"prior": link.prior, "appearance": link.appearance, "motion": link.motion}
    return Decision(e, outcome, margin, _probability(-margin if doubt else margin), terms)
