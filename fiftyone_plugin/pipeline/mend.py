"""Masks put into the gaps of tracks, once it is settled who is who.

Propagation loses objects inside encounters, and stretches that could be anybody's are left out when identities are
settled. `bridge` carries the object into every short gap from the clean frames on both sides; here its looks are asked
besides, so that no mask is shown that looks more like another object. What is found becomes a track of its own and a
repair (`RepairKind.RESEED`) that puts it in place; everything else stays as it is, byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from fiftyone_plugin.embedders.evidence import crop_objects
from fiftyone_plugin.identity import apply_repairs
from fiftyone_plugin.identity.appearance import Calibration, Views, pool
from fiftyone_plugin.identity.repair import trace
from fiftyone_plugin.interfaces import Embedder, FrameSource, Propagator
from fiftyone_plugin.pipeline.bridge import Gap, bridge, walked_together
from fiftyone_plugin.pipeline.settle import Settled
from fiftyone_plugin.types import BoolArray, FloatArray, Frame, Gallery, Repair, RepairKind, Source, Track

__all__ = ["mend"]

_MAX_GAP_FRAMES = 40
"""Longer gaps are left alone: by then the object may be anywhere."""


def mend(
    source: FrameSource,
    propagator: Propagator,
    embedder: Embedder,
    settled: Settled,
    galleries: Mapping[int, Gallery],
    *,
    on_step: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> tuple[Settled, bool]:
    """Put masks into gaps.

    Args:
        source: The video.
        propagator: Opens two sessions for all gaps that lie near each other.
        embedder: That of the galleries.
        settled: Who is who; returned as it is where nothing is found.
        galleries: Views of the propagated tracks.
        on_step: Called before all gaps that lie near each other, with how many are done and how many there are.
        should_stop: Asked there, too.

    Returns:
        Who is who with the gaps filled, and whether it was stopped before all of them were looked into.
    """
    gaps = sorted((g for t in settled.tracks for g in _gaps(t)), key=lambda g: (g.stop - g.start, g.start, g.track_id))
    origins = trace(settled.carried, settled.resolution.repairs)
    looks = _Looks(origins, galleries, settled.resolution.calibration, embedder)
    next_id = max((t.track_id for t in (*settled.tracks, *settled.carried)), default=0) + 1
    patches: list[Track] = []
    repairs: list[Repair] = []
    is_cut_short, done = False, 0
    for group in walked_together(gaps):
        if should_stop is not None and should_stop():
            is_cut_short = True
            break
        if on_step is not None:
            on_step(done, len(gaps))
        done += len(group)
        known = (*settled.tracks, *patches)
        anchors = {g.track_id: g.start - 1 for g in group}
        for piece in bridge(source, propagator, known, group, witness=looks.bear_out):
            patch = replace(piece, track_id=next_id, sources=(Source.RESEEDED,) * len(piece))
            anchor = anchors[piece.track_id]
            repairs.append(_put_in_place(patch, (origins[piece.track_id][anchor], anchor), piece.track_id))
            patches.append(patch)
            next_id += 1
    if not patches:
        return settled, is_cut_short
    together = sorted([*settled.resolution.repairs, *repairs], key=lambda r: (r.start, min(r.continues)))
    numbered = tuple(replace(r, repair_id=n) for n, r in enumerate(together, start=1))
    everything = (*settled.carried, *patches)
    phrases = {t.track_id: t.phrase for t in settled.tracks}  # some of which a person gave
    mended = tuple(replace(t, phrase=phrases[t.track_id]) for t in apply_repairs(everything, numbered))
    return Settled(mended, everything, replace(settled.resolution, repairs=numbered)), is_cut_short


def _gaps(track: Track) -> list[Gap]:
    steps = np.diff(track.frame_indices)
    rows = np.flatnonzero((steps > 1) & (steps <= _MAX_GAP_FRAMES + 1))
    return [Gap(track.track_id, int(track.frame_indices[k]) + 1, int(track.frame_indices[k + 1])) for k in rows]


def _put_in_place(patch: Track, origin: tuple[int, int], track_id: int) -> Repair:
    start, stop = int(patch.frame_indices[0]), int(patch.frame_indices[-1]) + 1
    reason = (
        f"{len(patch)} masks of track {track_id}, in frames {start} to {stop - 1}, "
        "were propagated into a gap from both sides"
    )
    return Repair(0, RepairKind.RESEED, start, stop, {patch.track_id: origin}, {patch.track_id: track_id}, 0.0, reason)


class _Looks:
    """What every object looks like.

    Args:
        origins: Per object, frame to the propagated track that it shows there.
        galleries: Views of these tracks.
        calibration: How individuals differ; without one, and of what was never seen, nothing is known.
        embedder: That of the galleries.
    """

    def __init__(
        self,
        origins: Mapping[int, Mapping[int, int]],
        galleries: Mapping[int, Gallery],
        calibration: Calibration | None,
        embedder: Embedder,
    ) -> None:
        rows = {t: {f: k for k, f in enumerate(g.frame_indices.tolist())} for t, g in galleries.items()}
        cells = {
            i: [(galleries[c], rows[c][f]) for f, c in carriers.items() if c in rows and f in rows[c]]
            for i, carriers in origins.items()
        }
        self._ids = [i for i, found in cells.items() if found]
        self._calibration, self._embedder = calibration, embedder
        if calibration is not None:
            self._known = calibration.pooled([_views(cells[i]) for i in self._ids])

    def bear_out(self, track_id: int, frame: Frame, mask: BoolArray, box: FloatArray) -> bool:
        """Whether a mask looks no more like another object than like this one; True where nothing is known."""
        if self._calibration is None or track_id not in self._ids or len(self._ids) < 2:
            return True
        (embedding,) = self._embedder.embed(crop_objects(frame, mask[None], box[None]))
        view = Views(embedding[None], np.ones(1, np.float32), np.array([frame.index]))
        odds = self._calibration.log_odds_table(self._calibration.pooled([view]), self._known)[0]
        own = self._ids.index(track_id)
        return bool(odds[own] >= np.delete(odds, own).max())


def _views(cells: Sequence[tuple[Gallery, int]]) -> Views:
    return pool(
        [
            Views(
                np.stack([g.embeddings[k] for g, k in cells]).astype(np.float32),
                np.array([g.weights[k] for g, k in cells], np.float32),
                np.array([g.frame_indices[k] for g, k in cells], np.int64),
            )
        ]
    )
