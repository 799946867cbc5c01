"""What a result was made of: propagated tracks, so that a repair can be taken back long after the run.

`identity.repair` says what tracks come of propagated ones and a list of repairs. To ask it again without one of them,
the propagated tracks must be known; those of their frames that are labels are only named here, those that a repair took
out are kept in full. Knows nothing of FiftyOne.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fiftyone_plugin.identity import apply_repairs
from fiftyone_plugin.types import FloatArray, Repair, RepairKind, Rle, Source, Track, TrackingResult

__all__ = ["Cell", "Lineage", "TakenOut", "lineage_of", "repair_from_plain", "spans_of"]

Cell = tuple[int, int]
"""A propagated track and a frame: one mask as it was propagated."""


@dataclass(frozen=True, slots=True)
class TakenOut:
    """A propagated mask that is not among the labels."""

    box_xyxy: tuple[float, float, float, float]
    mask: Rle | None
    score: float
    mask_score: float
    identity_confidence: float


@dataclass(frozen=True, slots=True)
class Lineage:
    """Propagated tracks, without the masks that are labels."""

    skeletons: tuple[Track, ...]
    """Frames, mask scores and sources are true; boxes hold (track id, frame, 0, 0), to be recognised by."""
    taken_out: Mapping[Cell, TakenOut]

    def assign(self, repairs: Sequence[Repair]) -> dict[Cell, int]:
        """Which track every propagated mask belongs to under these repairs; those that are taken out are missing."""
        return {
            (int(box[0]), int(box[1])): track.track_id
            for track in apply_repairs(self.skeletons, repairs)
            for box in track.boxes_xyxy
        }

    def phrase(self, carrier: int) -> str:
        """Phrase that a propagated track was seeded with."""
        return next(t.phrase for t in self.skeletons if t.track_id == carrier)

    def source(self, cell: Cell) -> Source:
        """Where a mask came from before it was repaired."""
        track = next(t for t in self.skeletons if t.track_id == cell[0])
        return track.sources[int(np.searchsorted(track.frame_indices, cell[1]))]

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "skeletons": [
                {
                    "track_id": t.track_id,
                    "phrase": t.phrase,
                    "frames": _coded(t.frame_indices.astype(np.int32)),
                    "mask_scores": _coded(t.mask_scores),
                    "sources": _runs([str(s) for s in t.sources]),
                }
                for t in self.skeletons
            ],
            "taken_out": [
                {
                    "cell": list(cell),
                    "box_xyxy": list(found.box_xyxy),
                    "mask": None
                    if found.mask is None
                    else [found.mask.height_px, found.mask.width_px, found.mask.counts.decode("ascii")],
                    "score": found.score,
                    "mask_score": found.mask_score,
                    "identity_confidence": found.identity_confidence,
                }
                for cell, found in self.taken_out.items()
            ],
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Lineage:
        """Undo `as_dict`."""
        skeletons = tuple(
            _skeleton(
                line["track_id"],
                line["phrase"],
                _decoded(line["frames"], np.int32).astype(np.int64),
                _decoded(line["mask_scores"], np.float32),
                tuple(Source(name) for name, count in line["sources"] for _ in range(count)),
            )
            for line in plain["skeletons"]
        )
        taken_out = {}
        for line in plain["taken_out"]:
            x0, y0, x1, y1 = line["box_xyxy"]
            coded = line["mask"]
            taken_out[line["cell"][0], line["cell"][1]] = TakenOut(
                (x0, y0, x1, y1),
                None if coded is None else Rle(coded[0], coded[1], coded[2].encode("ascii")),
                line["score"],
                line["mask_score"],
                line["identity_confidence"],
            )
        return cls(skeletons, taken_out)


def lineage_of(result: TrackingResult) -> Lineage | None:
    """What a result was made of; None where it does not say, or where nothing was repaired."""
    if not result.carried or not result.repairs:
        return None
    skeletons = tuple(
        _skeleton(t.track_id, t.phrase, t.frame_indices, t.mask_scores, t.sources) for t in result.carried
    )
    bare = Lineage(skeletons, {})
    kept = bare.assign(result.repairs)
    taken_out = {
        (t.track_id, frame): _taken_out(t, row)
        for t in result.carried
        for row, frame in enumerate(t.frame_indices.tolist())
        if (t.track_id, frame) not in kept
    }
    return Lineage(skeletons, taken_out)


def spans_of(cells: Mapping[Cell, int]) -> dict[str, list[list[int]]]:
    """Per propagated track, its stretches ``[start, stop, id]``: how its masks are called, in order of time."""
    spans: dict[str, list[list[int]]] = {}
    for (carrier, frame), track_id in sorted(cells.items()):
        stretch = spans.setdefault(str(carrier), [])
        if stretch and stretch[-1][2] == track_id:
            stretch[-1][1] = frame + 1
        else:
            stretch.append([frame, frame + 1, track_id])
    return spans


def repair_from_plain(plain: Mapping[str, Any]) -> Repair:
    """A repair as `events.as_plain` made it."""
    return Repair(
        repair_id=plain["repair_id"],
        kind=RepairKind(plain["kind"]),
        start=plain["start"],
        stop=plain["stop"],
        continues={int(k): None if v is None else (v[0], v[1]) for k, v in plain["continues"].items()},
        relabels={int(k): v for k, v in plain["relabels"].items()},
        margin=plain["margin"],
        reason=plain["reason"],
        encounter_id=plain["encounter_id"],
    )


def _skeleton(
    track_id: int, phrase: str, frames: NDArray[np.int64], mask_scores: FloatArray, sources: Sequence[Source]
) -> Track:
    names = np.zeros((len(frames), 4), np.float32)
    names[:, 0], names[:, 1] = track_id, frames  # exact in float32 below 16.7 million
    ones = np.ones(len(frames), np.float32)
    return Track(track_id, phrase, frames, names, None, ones, mask_scores, ones, tuple(sources))


def _taken_out(track: Track, row: int) -> TakenOut:
    x0, y0, x1, y1 = (float(v) for v in track.boxes_xyxy[row])
    return TakenOut(
        (x0, y0, x1, y1),
        None if track.masks is None else track.masks[row],
        float(track.scores[row]),
        float(track.mask_scores[row]),
        float(track.identity_confidence[row]),
    )


def _coded(values: NDArray[Any]) -> str:
    return base64.b64encode(values.tobytes()).decode("ascii")


def _decoded(text: str, dtype: Any) -> NDArray[Any]:
    return np.frombuffer(base64.b64decode(text), dtype).copy()


def _runs(names: Iterable[str]) -> list[list[Any]]:
    runs: list[list[Any]] = []
    for name in names:
        if runs and runs[-1][0] == name:
            runs[-1][1] += 1
        else:
            runs.append([name, 1])
    return runs
