"""Masks of two objects inside an encounter, chosen anew from what was carried into it and back into it.

A mask that runs over to a neighbour in mid-crossing and comes back leaves a few exchanged frames that no relabelling
mends. So the objects are propagated again, backwards from the first clean frame after the encounter, and
`identity.paths` chooses frame by frame between what an object has, what was carried into the encounter and what was
carried back into it.

Reads the video backwards in pieces of a few frames. What is held grows with the frames of the encounter, as RLE.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fiftyone_plugin.embedders.evidence import crop_objects
from fiftyone_plugin.geometry import area_px, decode_mask, encode_mask, mask_boxes, median_area_px, rle_iou, rle_overlap
from fiftyone_plugin.identity.appearance import Calibration, Views
from fiftyone_plugin.identity.paths import HIDDEN, Pathway, choose_pair, choose_paths
from fiftyone_plugin.interfaces import Embedder, FrameSource, PropagationSession, Propagator
from fiftyone_plugin.pipeline.backwards import backwards
from fiftyone_plugin.types import (
    BoolArray,
    FloatArray,
    Frame,
    FrameMasks,
    Rle,
    Seed,
    Source,
    Track,
)

__all__ = ["Choices", "Chosen", "Contact"]

_SAME_IOU = 0.8
"""Masks more alike than this are one mask: what is there stays."""
_MIN_AREA_RATIO = 0.35
"""A mask smaller than this part of the object's usual one says little about its looks."""
_MAX_ODDS = 4.0


@dataclass(frozen=True, slots=True)
class Contact:
    """One object's stretch in contact, ``[start, stop)``, between two clean frames."""

    track_id: int
    start: int
    stop: int
    before: int
    """Last clean frame with a mask, or -1."""
    after: int
    """First clean frame with a mask, `stop` or later."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """What an object shows in one frame in place of what it had there."""

    frame: int
    mask: Rle | None
    """None: the object is hidden."""
    box: FloatArray | None = None
    visible: float = 0.0
    """Probability that the object is visible."""
    mask_score: float = 0.0


@dataclass(slots=True)
class Candidates:
    """Masks of one object in one frame."""

    masks: list[Rle | None] = field(default_factory=list)
    boxes: list[FloatArray] = field(default_factory=list)
    scores: list[tuple[float, float]] = field(default_factory=list)
    """Probability that the object is visible, and mask score."""
    log_odds: list[float] = field(default_factory=list)


class Choices:
    """What choosing masks for a few contacts needs to know of the tracks.

    Args:
        tracks: By id, with masks: who is who on both sides of the contacts.
        partners: By track id, whose mask was carried into its contact; a track without one has nothing of the kind.
        looks: Clean views by track id.
        calibration: How individuals differ.
        embedder: That of the views.
    """

    def __init__(
        self,
        tracks: Mapping[int, Track],
        partners: Mapping[int, int],
        looks: Mapping[int, Views],
        calibration: Calibration,
        embedder: Embedder,
    ) -> None:
        self._tracks = tracks
        self._partners = partners
        self._looks = looks
        self._calibration = calibration
        self._embedder = embedder
        self._rows = {i: {f: k for k, f in enumerate(t.frame_indices.tolist())} for i, t in tracks.items()}
        self._areas = {i: median_area_px(t.masks) for i, t in tracks.items() if t.masks is not None}

    def choose(
        self, source: FrameSource, propagator: Propagator, cluster: Sequence[Contact]
    ) -> list[tuple[Contact, list[Chosen]]]:
        """The stretches of one group of contacts in which another mask was chosen.

        Two objects may take each other's masks.
        """
        found = self._candidates(source, propagator, cluster)
        low, high = min(c.start for c in cluster), max(c.stop for c in cluster)
        ids = sorted({c.track_id for c in cluster})
        pathways = [self._pathway(i, [c for c in cluster if c.track_id == i], found, low, high) for i in ids]
        shared = _shared_parts(ids, found, low, high)
        choose = choose_pair if len(ids) == 2 else choose_paths
        paths = choose(pathways, shared)
        return [
            (contact, stretch)
            for n, track_id in enumerate(ids)
            for contact in (c for c in cluster if c.track_id == track_id)
            for stretch in self._changes(contact, paths[n], found, low)
        ]

    def _candidates(
        self, source: FrameSource, propagator: Propagator, cluster: Sequence[Contact]
    ) -> dict[tuple[int, int], Candidates]:
        """(object, frame) to its masks there: now, carried in, carried back."""
        found: dict[tuple[int, int], Candidates] = {}
        session: PropagationSession | None = None
        last = max(c.after for c in cluster)
        for frame in backwards(source, min(c.start for c in cluster), last + 1):
            session = session or propagator.open(height_px=frame.height_px, width_px=frame.width_px)
            seen = session.advance(frame)
            self._gather(frame, seen, [c for c in cluster if c.start <= frame.index < c.stop], found)
            begun = [Seed(c.track_id, mask=self._mask(c.track_id, c.after)) for c in cluster if c.after == frame.index]
            if begun:
                session.seed(begun)
            ended = [c.track_id for c in cluster if c.start == frame.index]
            if ended:
                session.drop(ended)
        return found

    def _gather(
        self,
        frame: Frame,
        seen: FrameMasks,
        contacts: Sequence[Contact],
        found: dict[tuple[int, int], Candidates],
    ) -> None:
        backward = {int(t): k for k, t in enumerate(seen.track_ids)}
        crops: list[tuple[Candidates, int, int, BoolArray]] = []
        for contact in contacts:
            here = Candidates()
            found[contact.track_id, frame.index] = here
            self._add(here, self._tracks[contact.track_id], self._rows[contact.track_id].get(frame.index))
            partner = self._partners.get(contact.track_id)
            if partner is None or contact.before not in self._rows[contact.track_id]:
                self._add(here, None, None)
            else:
                self._add(here, self._tracks[partner], self._rows[partner].get(frame.index))
            k = backward.get(contact.track_id)
            if k is None or not seen.masks[k].any() or seen.object_scores[k] <= 0:
                self._add(here, None, None)
            else:
                box = mask_boxes(seen.masks[k : k + 1])[0]
                here.masks.append(encode_mask(seen.masks[k]))
                here.boxes.append(box)
                visible = float(1 / (1 + np.exp(-np.clip(seen.object_scores[k], -60, 60))))
                here.scores.append((visible, float(seen.mask_scores[k])))
                here.log_odds.append(0.0)
            for c, rle in enumerate(here.masks):
                if rle is None or area_px(rle) < _MIN_AREA_RATIO * self._areas[contact.track_id]:
                    continue
                same = next((d for d in range(c) if here.masks[d] is not None and _is_same(here.masks[d], rle)), None)
                if same is None:
                    crops.append((here, c, contact.track_id, decode_mask(rle)))
        self._judge(frame, crops, [c.track_id for c in contacts])
        for contact in contacts:
            here = found[contact.track_id, frame.index]
            for c, rle in enumerate(here.masks):
                for d in range(c):
                    if rle is not None and here.masks[d] is not None and _is_same(here.masks[d], rle):
                        here.log_odds[c] = here.log_odds[d]
                        break

    def _add(self, here: Candidates, track: Track | None, row: int | None) -> None:
        if track is None or row is None or track.masks is None:
            here.masks.append(None)
            here.boxes.append(np.zeros(4, np.float32))
            here.scores.append((0.0, 0.0))
        else:
            here.masks.append(track.masks[row])
            here.boxes.append(track.boxes_xyxy[row])
            here.scores.append((float(track.scores[row]), float(track.mask_scores[row])))
        here.log_odds.append(0.0)

    def _judge(self, frame: Frame, crops: Sequence[tuple[Candidates, int, int, BoolArray]], ids: list[int]) -> None:
        """What each crop says for its object, against the one among the others that it fits best."""
        known = [t for t in ids if t in self._looks]
        if not crops or len(known) < 2:
            return
        boxes = np.stack([here.boxes[c] for here, c, _, _ in crops])
        embeddings = self._embedder.embed(crop_objects(frame, np.stack([m for *_, m in crops]), boxes))
        views = [Views(e[None], np.ones(1, np.float32), np.array([frame.index])) for e in embeddings]
        table = self._calibration.log_odds_table(
            *(self._calibration.pooled(sets) for sets in (views, [self._looks[t] for t in known]))
        )
        for k, (here, c, track_id, _) in enumerate(crops):
            if track_id in known:
                own = known.index(track_id)
                best_other = float(np.delete(table[k], own).max())
                here.log_odds[c] = float(np.clip(table[k, own] - best_other, -_MAX_ODDS, _MAX_ODDS))

    def _pathway(
        self,
        track_id: int,
        contacts: Sequence[Contact],
        found: Mapping[tuple[int, int], Candidates],
        low: int,
        high: int,
    ) -> Pathway:
        count = high - low
        boxes = np.zeros((count, 3, 4), np.float32)
        areas = np.zeros((count, 3), np.float32)
        odds = np.zeros((count, 3), np.float32)
        is_open = np.zeros(count, np.bool_)
        track = self._tracks[track_id]
        for t in range(count):
            here = found.get((track_id, low + t))
            if here is not None:
                boxes[t] = here.boxes
                areas[t] = [0 if m is None else area_px(m) for m in here.masks]
                odds[t] = here.log_odds
                is_open[t] = any(c.start <= low + t < c.stop and low + t != c.after for c in contacts)
            elif (row := self._rows[track_id].get(low + t)) is not None and track.masks is not None:
                boxes[t, 0], areas[t, 0] = track.boxes_xyxy[row], area_px(track.masks[row])
        before, after = (self._rows[track_id].get(f) for f in (low - 1, high))
        return Pathway(
            boxes,
            areas,
            odds,
            None if before is None else track.boxes_xyxy[before],
            None if after is None else track.boxes_xyxy[after],
            is_open,
        )

    def _changes(
        self, contact: Contact, path: np.ndarray, found: Mapping[tuple[int, int], Candidates], low: int
    ) -> Iterator[list[Chosen]]:
        """The stretches of one contact in which another mask was chosen."""
        changed: list[Chosen] = []
        for frame in range(contact.start, contact.stop):
            choice = int(path[frame - low])
            here = found.get((contact.track_id, frame))
            if here is None or choice == 0 or (choice == HIDDEN and here.masks[0] is None):
                continue
            if choice == HIDDEN:
                changed.append(Chosen(frame, None))
            elif not _is_same(here.masks[choice], here.masks[0]):
                changed.append(Chosen(frame, here.masks[choice], here.boxes[choice], *here.scores[choice]))
        return _runs(changed)

    def piece(self, contact: Contact, stretch: Sequence[Chosen]) -> Track | None:
        """The masks of a stretch as a track with the contact's id; None where the object is hidden all the time."""
        shown = [c for c in stretch if c.mask is not None]
        if not shown:
            return None
        track = self._tracks[contact.track_id]
        confidence = float(track.identity_confidence[self._rows[contact.track_id][self._anchor(contact)]])
        return Track(
            track_id=contact.track_id,
            phrase=track.phrase,
            frame_indices=np.array([c.frame for c in shown], np.int64),
            boxes_xyxy=np.stack([c.box for c in shown if c.box is not None]),
            masks=tuple(c.mask for c in shown if c.mask is not None),
            scores=np.array([c.visible for c in shown], np.float32),
            mask_scores=np.array([c.mask_score for c in shown], np.float32),
            identity_confidence=np.full(len(shown), confidence, np.float32),
            sources=(Source.REPAIRED,) * len(shown),
        )

    def _anchor(self, contact: Contact) -> int:
        """A clean frame beside the contact, on which the track has a mask."""
        return contact.before if contact.before in self._rows[contact.track_id] else contact.after

    def _mask(self, track_id: int, frame: int) -> BoolArray:
        masks = self._tracks[track_id].masks
        assert masks is not None
        return decode_mask(masks[self._rows[track_id][frame]])


def _is_same(a: Rle | None, b: Rle | None) -> bool:
    return a is not None and b is not None and (a is b or float(rle_iou([a], [b])[0, 0]) >= _SAME_IOU)


def _runs(changed: Sequence[Chosen]) -> Iterator[list[Chosen]]:
    """Frames that follow each other."""
    run: list[Chosen] = []
    for chosen in changed:
        if run and chosen.frame != run[-1].frame + 1:
            yield run
            run = []
        run.append(chosen)
    if run:
        yield run


def _shared_parts(
    ids: Sequence[int], found: Mapping[tuple[int, int], Candidates], low: int, high: int
) -> list[list[np.ndarray | None]]:
    """Part of the smaller mask that two candidates share: N x N of float32 (T, 3, 3)."""
    shared: list[list[np.ndarray | None]] = [[None] * len(ids) for _ in ids]
    for n, a in enumerate(ids):
        for m in range(n + 1, len(ids)):
            table = np.zeros((high - low, 3, 3), np.float32)
            for t in range(high - low):
                here, there = found.get((a, low + t)), found.get((ids[m], low + t))
                if here is None or there is None:
                    continue
                ours = [c for c in range(3) if here.masks[c] is not None]
                theirs = [c for c in range(3) if there.masks[c] is not None]
                if not ours or not theirs:
                    continue
                mine = [mask for c in ours if (mask := here.masks[c]) is not None]
                yours = [mask for c in theirs if (mask := there.masks[c]) is not None]
                table[t][np.ix_(ours, theirs)] = rle_overlap(mine, yours)
            if table.any():
                shared[n][m], shared[m][n] = table, table.transpose(0, 2, 1)
    return shared
