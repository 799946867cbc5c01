"""Links put into words: encounters, one decision each, and the repairs that make the tracks follow the links.

Decides nothing: what differs from plain propagation becomes a repair, what does not a decision to keep or to abstain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fiftyone_plugin.identity.confidence import probability
from fiftyone_plugin.identity.encounters import Contact, CutKind
from fiftyone_plugin.identity.links import Link, Links
from fiftyone_plugin.identity.meetings import JointAbsence
from fiftyone_plugin.identity.tracklets import Tracklet
from fiftyone_plugin.types import Decision, Encounter, EncounterKind, Outcome, Repair, RepairKind

__all__ = ["REACH_FRAMES", "Proposals", "propose"]

REACH_FRAMES = 6
"""A tracklet that begins so near to a contact begins in it: cuts are not exact."""
_WEIGHT = {Outcome.KEEP: 0, Outcome.ABSTAIN: 1, Outcome.REASSIGN: 2, Outcome.EXCHANGE: 2}


@dataclass(frozen=True, slots=True)
class Proposals:
    """What is to be done and why, by time."""

    encounters: tuple[Encounter, ...]
    decisions: tuple[Decision, ...]
    repairs: tuple[Repair, ...]


def propose(
    tracklets: Sequence[Tracklet],
    links: Links,
    abstained: Mapping[tuple[int, int], tuple[Link, float]],
    contacts: Sequence[Contact],
    absences: Sequence[JointAbsence],
    unfounded: set[int],
    strays: set[int],
    *,
    min_margin: float,
) -> Proposals:
    """Compare the links with plain propagation.

    Args:
        tracklets: All, by index.
        links: Who continues whom.
        abstained: Links that were not made because their margin was too small, with it.
        contacts: Of the tracks.
        absences: When two of them were away at once.
        unfounded: Indices of tracklets to take out, because they show nobody.
        strays: ... because they could show anybody.
        min_margin: Below it a decision is an abstention.
    """
    writer = _Writer(tracklets, links, contacts, absences, unfounded, strays, min_margin)
    doubts = {j: (link, margin) for (_, j), (link, margin) in abstained.items()}
    for t in sorted(tracklets, key=lambda t: (t.start, t.track_id)):
        writer.visit(t, doubts.get(t.index))
    return Proposals(tuple(writer.encounters.values()), tuple(writer.decisions.values()), writer.merged_repairs())


class _Writer:
    """Collects encounters, decisions and repairs while tracklets are visited in the order of time."""

    def __init__(
        self,
        tracklets: Sequence[Tracklet],
        links: Links,
        contacts: Sequence[Contact],
        absences: Sequence[JointAbsence],
        unfounded: set[int],
        strays: set[int],
        min_margin: float,
    ) -> None:
        self._tracklets = tracklets
        self._links = links
        self._contacts = contacts
        self._absences = absences
        self._strays = strays
        self._unfounded = unfounded | strays
        self._min_margin = min_margin
        self._successor = links.successor
        self._predecessor = links.predecessor()
        self._natural = self._natural_predecessors()
        self._identity = self._identities()
        self._told: set[int] = set()
        self.encounters: dict[tuple[EncounterKind, int, int, tuple[int, ...]], Encounter] = {}
        self.decisions: dict[int, Decision] = {}
        self._repairs: list[Repair] = []

    def visit(self, t: Tracklet, doubt: tuple[Link, float] | None) -> None:
        """Tell what became of one tracklet."""
        if t.index in self._strays:
            self._trim(t, f"track {t.track_id} could as well show another object for these few frames")
            return
        if t.index in self._unfounded:
            self._trim(t, f"track {t.track_id} sits on nothing that the detector or its gallery knows")
            return
        if t.copy_of is not None:
            self._trim(t, f"track {t.track_id} shows the same object as track {self._tracklets[t.copy_of].track_id}")
            return
        if t.index in self._told:
            return
        before, usual = self._predecessor.get(t.index), self._natural.get(t.index)
        if before == usual:
            self._keep(t, before, doubt)
        elif before is None:
            self._split(t)
        else:
            self._reassign(t, before)

    def _keep(self, t: Tracklet, before: int | None, doubt: tuple[Link, float] | None) -> None:
        if doubt is not None:
            link, margin = doubt
            # The doubted link was left out: what speaks for it speaks against things as they stand.
            self._decide(self._encounter(t), Outcome.ABSTAIN, margin, -margin, link)
        elif before is not None and (before, t.index) in self._links.margins:
            margin = self._links.margins[before, t.index]
            outcome = Outcome.KEEP if margin >= self._min_margin else Outcome.ABSTAIN
            self._decide(self._encounter(t), outcome, margin, margin, self._links.candidates[before, t.index])

    def _split(self, t: Tracklet) -> None:
        e = self._encounter(t)
        self._repair(
            RepairKind.SPLIT,
            t.start,
            {t.track_id: None},
            {t.track_id: self._identity[t.index]},
            self._min_margin,
            f"track {t.track_id} shows another object from frame {t.start} on",
            e,
        )
        self._decide(e, Outcome.REASSIGN, self._min_margin, self._min_margin, None)

    def _reassign(self, t: Tracklet, before: int) -> None:
        origin = self._tracklets[before]
        margin = self._links.margins.get((before, t.index), self._min_margin)
        link = self._links.candidates[before, t.index]
        partner = self._partner(t, before)
        if partner is not None:
            self._told.add(partner.index)
            source = self._tracklets[self._predecessor[partner.index]]
            margin = min(margin, self._links.margins.get((source.index, partner.index), margin))
            e = self._encounter(t, others=(partner.track_id,))
            start = min(t.start, partner.start)
            self._repair(
                RepairKind.EXCHANGE,
                start,
                {
                    # From `start` on both are exchanged: where one was cut a little later, that is no past any more.
                    t.track_id: (origin.track_id, min(origin.stop, start) - 1),
                    partner.track_id: (source.track_id, min(source.stop, start) - 1),
                },
                {t.track_id: self._identity[t.index], partner.track_id: self._identity[partner.index]},
                margin,
                f"tracks {t.track_id} and {partner.track_id} had exchanged their objects",
                e,
            )
            self._decide(e, Outcome.EXCHANGE, margin, margin, link)
            return
        e = self._encounter(t, others=(origin.track_id,), since=origin.stop - 1)
        self._repair(
            RepairKind.REASSIGN,
            t.start,
            {t.track_id: (origin.track_id, origin.stop - 1)},
            {t.track_id: self._identity[t.index]},
            margin,
            f"track {t.track_id} shows the object that track {origin.track_id} showed until frame {origin.stop - 1}",
            e,
        )
        self._decide(e, Outcome.REASSIGN, margin, margin, link)

    def _trim(self, t: Tracklet, reason: str) -> None:
        none: dict[int, int | None] = {t.track_id: None}
        self._repairs.append(
            Repair(0, RepairKind.TRIM, t.start, t.stop, {t.track_id: None}, none, self._min_margin, reason)
        )

    def _repair(
        self,
        kind: RepairKind,
        start: int,
        continues: Mapping[int, tuple[int, int] | None],
        relabels: Mapping[int, int | None],
        margin: float,
        reason: str,
        e: Encounter,
    ) -> None:
        self._repairs.append(Repair(0, kind, start, None, continues, relabels, margin, reason, e.encounter_id))

    def merged_repairs(self) -> tuple[Repair, ...]:
        """Repairs by time, numbered; stretches of one track that are taken out one after another are one repair."""
        merged: list[Repair] = []
        for r in self._repairs:
            last = next(
                (m for m in reversed(merged) if m.kind is r.kind is RepairKind.TRIM and m.continues == r.continues),
                None,
            )
            if last is not None and last.stop is not None and r.start <= last.stop + 1 and not self._between(last, r):
                merged[merged.index(last)] = replace(last, stop=r.stop)
            else:
                merged.append(r)
        merged.sort(key=lambda r: (r.start, min(r.continues)))
        return tuple(replace(r, repair_id=n) for n, r in enumerate(merged, start=1))

    def _between(self, a: Repair, b: Repair) -> bool:
        """Whether the track has frames that stay between two stretches that are taken out."""
        (track_id,) = a.continues
        stop = a.stop if a.stop is not None else a.start
        return any(
            t.track_id == track_id
            and t.copy_of is None
            and t.index not in self._unfounded
            and t.start < b.start
            and t.stop > stop
            for t in self._tracklets
        )

    def _decide(self, e: Encounter, outcome: Outcome, margin: float, log_odds: float, link: Link | None) -> None:
        """Keep the weightiest decision of an encounter: a change before a doubt before a confirmation; of two, the less
        certain one."""
        terms = {} if link is None else {"prior": link.prior, "appearance": link.appearance, "motion": link.motion}
        decision = Decision(e, outcome, margin, probability(log_odds), terms)
        known = self.decisions.get(e.encounter_id)
        if known is None or _rank(decision) < _rank(known):
            self.decisions[e.encounter_id] = decision

    def _encounter(self, t: Tracklet, *, others: tuple[int, ...] = (), since: int | None = None) -> Encounter:
        """The contact or the joint absence a tracklet begins after; else a return, or an occlusion of its own."""
        contact = self._contact_at(t)
        absence = self._absence_before(t, others)
        if contact is not None and set(others) <= set(contact.track_ids):
            kind, start, stop, ids = EncounterKind.CROSSING, contact.start, contact.stop, set(contact.track_ids)
        elif absence is not None:
            kind, ids = EncounterKind.RETURN, set(absence.track_ids)
            start, stop = min(absence.starts) - 1, max(absence.stops) + 1
        else:
            is_new = since is not None or t.cut is None or t.cut.kind is CutKind.GAP
            kind = EncounterKind.RETURN if is_new else EncounterKind.OCCLUSION
            start, stop, ids = max(t.start - 1, 0) if since is None else since, t.start + 1, {t.track_id, *others}
        # Cuts are not exact: the first tracklet that begins shortly before a contact says where its encounter starts.
        key = (kind, start, max(stop, start + 1), tuple(sorted(ids)))
        if key not in self.encounters:
            first = min(start, t.start)
            self.encounters[key] = Encounter(len(self.encounters) + 1, kind, t.phrase, first, key[2], key[3])
        return self.encounters[key]

    def _contact_at(self, t: Tracklet) -> Contact | None:
        near = [
            c
            for c in self._contacts
            if t.track_id in c.track_ids and c.start - REACH_FRAMES <= t.start <= c.stop + REACH_FRAMES
        ]
        return max(near, key=lambda c: c.max_iou, default=None)

    def _absence_before(self, t: Tracklet, others: tuple[int, ...]) -> JointAbsence | None:
        """The joint absence that a tracklet came back from, with those others; of several, the longest."""
        near = [
            a
            for a in self._absences
            if t.track_id in a.track_ids
            and a.stops[a.track_ids.index(t.track_id)] == t.start
            and set(others) <= set(a.track_ids)
        ]
        return max(near, key=lambda a: max(a.stops) - min(a.starts), default=None)

    def _partner(self, t: Tracklet, before: int) -> Tracklet | None:
        """The tracklet that took this one's place, if two tracks exchanged their futures at one moment."""
        usual = self._natural.get(t.index)
        if usual is None:
            return None
        index = self._successor.get(usual)
        if index is None or self._natural.get(index) != before:
            return None
        partner = self._tracklets[index]
        begun = max(self._tracklets[usual].start, self._tracklets[before].start)
        is_one_moment = abs(t.start - partner.start) <= REACH_FRAMES and begun < min(t.start, partner.start)
        return partner if is_one_moment else None

    def _natural_predecessors(self) -> dict[int, int]:
        """The tracklet before each one in its own track: what plain propagation says."""
        natural: dict[int, int] = {}
        last: dict[int, int] = {}
        for t in self._tracklets:
            if t.index in self._unfounded or t.copy_of is not None:
                continue
            if t.track_id in last:
                natural[t.index] = last[t.track_id]
            last[t.track_id] = t.index
        return natural

    def _identities(self) -> dict[int, int]:
        """Ids of tracklets as `repair.apply_repairs` gives them."""
        first: dict[int, int] = {}
        for t in self._tracklets:
            if t.copy_of is None and t.index not in self._unfounded:
                first.setdefault(t.track_id, t.index)
        result: dict[int, int] = {}
        next_id = max((t.track_id for t in self._tracklets), default=0) + 1
        kept = [t for t in self._tracklets if t.copy_of is None and t.index not in self._unfounded]
        for t in sorted(kept, key=lambda t: (t.start, t.track_id)):
            if t.index in self._predecessor:
                continue
            if first[t.track_id] == t.index:
                result[t.index] = t.track_id
            else:
                result[t.index] = next_id
                next_id += 1
        for t in kept:
            root = t.index
            while root in self._predecessor:
                root = self._predecessor[root]
            result[t.index] = result[root]
        return result


def _rank(decision: Decision) -> tuple[int, float]:
    return -_WEIGHT[decision.outcome], decision.confidence
