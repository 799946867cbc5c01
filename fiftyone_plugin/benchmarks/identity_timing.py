"""How long does an audit take, embeddings apart? Long made-up tracks that meet, leave and come back.

Everything is drawn from a seed. Knows nothing of pictures: views are drawn around a centre for each object.
"""

from __future__ import annotations

import time

import numpy as np

from fiftyone_plugin.pipeline.recorder import MAX_VIEWS
from fiftyone_plugin.pipeline.settle import Evidence, settle
from fiftyone_plugin.types import Gallery, Source, Track

__all__ = ["made_up_evidence", "measure_audit"]

_RATE = 25.0
_SIZE_PX = (1280.0, 720.0)
_DIMENSION = 1056
"""As many numbers as the colour histogram has."""


def measure_audit(*, minutes: float = 10.0, objects: int = 10, seed: int = 1) -> dict[str, float]:
    """Time identity on one long track file: what there is in it, and the seconds it took, by the wall and of work."""
    evidence = made_up_evidence(frames=int(minutes * 60 * _RATE), objects=objects, seed=seed)
    began, busy = time.perf_counter(), time.process_time()
    settled = settle(evidence)
    return {
        "minutes": minutes,
        "objects": objects,
        "tracks": len(evidence.tracks),
        "encounters": len(settled.resolution.encounters),
        "repairs": len(settled.resolution.repairs),
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - busy,
    }


def made_up_evidence(*, frames: int, objects: int, seed: int) -> Evidence:
    """Objects that wander through one picture, exchange their ids at every tenth second or so, and leave at times.

    Ids are exchanged where two objects are nearest; after an absence an object goes on under a new id.
    """
    rng = np.random.default_rng(seed)
    time_s = np.arange(frames) / _RATE
    boxes, shown = [], []
    for _ in range(objects):
        waves = [
            sum(
                rng.uniform(0.1, 0.3) * np.sin(2 * np.pi * time_s / rng.uniform(6, 40) + rng.uniform(0, 6))
                for _ in "xyz"
            )
            for _ in range(2)
        ]
        centre = np.stack([(0.5 + w) * s for w, s in zip(waves, _SIZE_PX, strict=True)], axis=1)
        half = rng.uniform(25, 45, 2)
        boxes.append(np.concatenate([centre - half, centre + half], axis=1).astype(np.float32))
        shown.append(((centre > 0) & (centre < _SIZE_PX)).all(axis=1))
    ids = _ids(np.array(boxes), np.array(shown), rng)
    return _evidence(np.array(boxes), ids, rng)


def _ids(boxes: np.ndarray, shown: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """int64 (objects, frames): the id each object carries, 0 where it is not shown."""
    objects, frames = shown.shape
    ids = np.repeat(np.arange(1, objects + 1)[:, None], frames, axis=1)
    for frame in range(int(_RATE), frames, int(10 * _RATE)):
        near = np.abs(boxes[:, None, frame, :2] - boxes[None, :, frame, :2]).max(axis=2) + 1e9 * np.eye(objects)
        a, b = (int(v) for v in np.unravel_index(int(near.argmin()), near.shape))
        if near[a, b] < 40:
            ids[[a, b], frame:] = ids[[b, a], frame:]
    next_id = objects + 1
    for k in range(objects):
        back = np.flatnonzero(shown[k, 1:] & ~shown[k, :-1]) + 1
        for frame in back[rng.random(len(back)) < 0.5].tolist():
            ids[k, frame:] = next_id
            next_id += 1
    return np.where(shown, ids, 0)


def _evidence(boxes: np.ndarray, ids: np.ndarray, rng: np.random.Generator) -> Evidence:
    centres = rng.standard_normal((len(boxes), _DIMENSION)).astype(np.float32)
    tracks, galleries = [], {}
    for track_id in np.unique(ids[ids > 0]).tolist():
        frames, objects = np.nonzero((ids == track_id).T)
        # An id that two objects carry in one frame: the exchange came where another id began.
        frames, first = np.unique(frames, return_index=True)
        objects = objects[first]
        ones = np.ones(len(frames), np.float32)
        tracks.append(
            Track(
                track_id,
                "object",
                frames.astype(np.int64),
                boxes[objects, frames],
                None,
                ones,
                ones,
                ones,
                (Source.SEED,) * len(frames),
            )
        )
        picks = np.unique(np.linspace(0, len(frames) - 1, MAX_VIEWS).round().astype(int))
        views = centres[objects[picks]] + 0.7 * rng.standard_normal((len(picks), _DIMENSION), dtype=np.float32)
        views /= np.linalg.norm(views, axis=1, keepdims=True)
        galleries[track_id] = Gallery(track_id, frames[picks].astype(np.int64), views, ones[picks], "made-up")
    return Evidence(tuple(tracks), galleries, {})
