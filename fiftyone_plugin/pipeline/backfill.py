"""The frames before a carrier began: propagated backwards until its object is explained by another carrier, or gone.

A carrier born on a redetect frame shows an object that has been there for up to the interval between two looks; most
often it is the object that another carrier lost when it moved on. Its first frames are needed by the identity layer
and by the user. Frames are decoded again, one window at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fiftyone_plugin.config import TrackingOptions
from fiftyone_plugin.geometry import decode_mask, mask_boxes
from fiftyone_plugin.interfaces import Embedder, FrameSource, Propagator
from fiftyone_plugin.pipeline.memory import trim_memory
from fiftyone_plugin.pipeline.recorder import Recorder
from fiftyone_plugin.pipeline.views import collect_views
from fiftyone_plugin.pipeline.walk import Birth
from fiftyone_plugin.types import BoolArray, Frame, Seed, Source, Support, Track

__all__ = ["fill_back"]

_MAX_COVERED = 0.5
"""A mask of which more than this part lies under another carrier's mask shows an object that is already explained."""
_MIN_AREA_RATIO = 0.4
"""A mask smaller than this part of the seed's is running dry."""


def fill_back(
    source: FrameSource,
    propagator: Propagator,
    embedder: Embedder,
    recorder: Recorder,
    births: Sequence[Birth],
    options: TrackingOptions,
    *,
    on_step: Callable[[int, int], None] | None = None,
) -> None:
    """Propagate every late carrier backwards over one interval between two looks, and record what is found.

    Args:
        source: The video; windows of at most ``redetect_every_frames + confirm_within_frames + 1`` frames are read.
        propagator: Opens one session per window.
        embedder: For the views.
        recorder: Of the forward walk; is added to.
        births: Carriers that began after the first frame, in order of time.
        options: Of the run.
        on_step: Called before every window, with how many are done and how many there are.
    """
    association = options.association
    reach = association.redetect_every_frames + association.confirm_within_frames
    tracks = {t.track_id: t for t in recorder.tracks()}
    supports = recorder.supports()
    by_frame: dict[int, list[int]] = {}
    for birth in births:
        if birth.track_id in tracks:
            by_frame.setdefault(birth.frame_index, []).append(birth.track_id)
    for done, (frame_index, track_ids) in enumerate(sorted(by_frame.items())):
        if on_step is not None:
            on_step(done, len(by_frame))
        low = max(options.start, frame_index - reach)
        window = list(source.frames(low, frame_index + 1))
        if len(window) < 2:
            continue
        _fill_window(window, track_ids, tracks, supports, propagator, embedder, recorder, options)
        trim_memory()
        tracks = {t.track_id: t for t in recorder.tracks()} if len(by_frame) > 1 else tracks


def _fill_window(
    window: Sequence[Frame],
    track_ids: Sequence[int],
    tracks: dict[int, Track],
    supports: dict[int, Support],
    propagator: Propagator,
    embedder: Embedder,
    recorder: Recorder,
    options: TrackingOptions,
) -> None:
    last = window[-1]
    session = propagator.open(height_px=last.height_px, width_px=last.width_px)
    session.advance(last)
    seeds = [Seed(t, mask=_mask_at(tracks[t], last.index)) for t in track_ids]
    born = session.seed(seeds)
    seed_area = {int(t): int(m.sum()) for t, m in zip(born.track_ids, born.masks, strict=True)}
    for frame in reversed(window[:-1]):
        if not session.track_ids:
            return
        seen = session.advance(frame)
        boxes = mask_boxes(seen.masks)
        covered = _covered(tracks, supports, frame, except_for=set(track_ids))
        done: list[int] = []
        for k, track_id in enumerate(seen.track_ids.tolist()):
            area = np.count_nonzero(seen.masks[k])
            if (
                area < _MIN_AREA_RATIO * seed_area[track_id]
                or np.count_nonzero(seen.masks[k] & covered) > _MAX_COVERED * area
                or seen.object_scores[k] <= 0
            ):
                done.append(track_id)
                continue
            recorder.add(
                track_id,
                frame.index,
                seen.masks[k],
                boxes[k],
                mask_score=float(seen.mask_scores[k]),
                object_score=float(seen.object_scores[k]),
                source=Source.REPAIRED,
            )
        going_on = np.array([t not in done for t in seen.track_ids.tolist()], np.bool_)
        collect_views(
            frame,
            seen,
            boxes,
            [seed_area[t] for t in seen.track_ids.tolist()],
            recorder=recorder,
            embedder=embedder,
            options=options.evidence,
            wanted=going_on,
        )
        session.drop(done)


def _mask_at(track: Track, frame_index: int) -> BoolArray:
    row = int(np.searchsorted(track.frame_indices, frame_index))
    assert track.masks is not None
    return decode_mask(track.masks[row])


def _covered(
    tracks: dict[int, Track], supports: dict[int, Support], frame: Frame, *, except_for: set[int]
) -> BoolArray:
    """Union of the other carriers' masks on a frame, of those that the detector agreed with when it next looked."""
    union = np.zeros(frame.image_rgb.shape[:2], np.bool_)
    for track_id, track in tracks.items():
        if track_id in except_for or track.masks is None or not _is_founded(supports.get(track_id), frame.index):
            continue
        row = int(np.searchsorted(track.frame_indices, frame.index))
        if row < len(track) and track.frame_indices[row] == frame.index:
            union |= decode_mask(track.masks[row])
    return union


def _is_founded(support: Support | None, frame_index: int) -> bool:
    if support is None or not len(support.frame_indices):
        return True
    row = min(int(np.searchsorted(support.frame_indices, frame_index)), len(support.frame_indices) - 1)
    return bool(support.matched[row])
