"""Tracks that exist already, from any tool, audited and repaired: needs the video and an embedder, no SAM 2.

The tracks are taken as propagated tracks; views are cut out of the video, and the identity layer does the rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any

import numpy as np

from fiftyone_plugin import __version__, registry
from fiftyone_plugin.config import TrackingOptions
from fiftyone_plugin.embedders.combined import part_sizes
from fiftyone_plugin.errors import TrackFileError
from fiftyone_plugin.geometry import decode_mask, ellipse_mask
from fiftyone_plugin.identity.constraints import Constraint
from fiftyone_plugin.interfaces import Embedder, FrameSource
from fiftyone_plugin.pipeline.camera import CameraWatch
from fiftyone_plugin.pipeline.checkpoint import Checkpointing, Keeper
from fiftyone_plugin.pipeline.memory import peak_memory_mb, trimmed
from fiftyone_plugin.pipeline.recorder import Recorder
from fiftyone_plugin.pipeline.run import Progress
from fiftyone_plugin.pipeline.settle import Evidence, settle
from fiftyone_plugin.pipeline.views import collect_views, usual_by_own_area
from fiftyone_plugin.types import BoolArray, Frame, FrameMasks, Track, TrackingResult

__all__ = ["digest_of_tracks", "repair"]


def repair(
    source: FrameSource,
    tracks: Sequence[Track],
    options: TrackingOptions | None = None,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    embedder: Embedder | None = None,
    checkpointing: Checkpointing | None = None,
    constraints: Sequence[Constraint] = (),
) -> TrackingResult:
    """Find and repair exchanged, broken and doubled identities in tracks of another tool.

    Args:
        source: The video the tracks were made on.
        tracks: At least one; masks are used where there are any, else an ellipse inside each box.
        options: The embedder's name, evidence and identity settings.
        on_progress: Called after every frame.
        should_stop: Asked before every frame; views are then taken from the frames up to there only.
        embedder: One that is already loaded.
        checkpointing: Where the state is kept while it works, and whether to go on from what is there; the result is
            that of an uninterrupted run. What is kept there is left there.
        constraints: What a person said of these identities; it holds.

    Raises:
        JobError: The checkpoint to go on from belongs to another run, or is damaged.
        TrackFileError: The tracks do not fit the video.
    """
    options = options or TrackingOptions()
    began = time.perf_counter()
    info = source.info
    last = max((int(t.frame_indices[-1]) for t in tracks if len(t)), default=-1)
    if last >= info.frame_count:
        raise TrackFileError(
            f"the tracks reach frame {last} (0-based) but {info.source} has {info.frame_count} frames: "
            f"give the video that they were made on"
        )
    model = embedder or registry.make_embedder(
        options.models.embedder, device=options.device, propagator=options.models.propagator
    )
    recorder = Recorder(model.name, part_sizes(model))
    look = _Look(tracks, recorder, model, options)
    keeper = Keeper(
        checkpointing,
        source,
        "",
        options,
        walk=look,
        session=None,
        recorder=recorder,
        given={"tracks": len(tracks), "rows": digest_of_tracks(tracks)},
        start=look.first,
    )
    at = keeper.restore()
    began -= at.seconds
    warnings: list[str] = []
    was_stopped = False
    frames = iter(()) if at.is_walked or last < 0 else source.frames(at.next_frame, last + 1)
    for frame in trimmed(frames):
        at = replace(at, next_frame=frame.index, seconds=time.perf_counter() - began)
        if keeper.is_due(frame.index):
            keeper.save(at)
        if should_stop is not None and should_stop():
            keeper.save(at)
            was_stopped = True
            warnings.append(f"stopped before frame {frame.index} as asked; later frames were not looked at")
            break
        seen = look.step(frame)
        at = replace(at, frames_done=at.frames_done + 1)
        if on_progress is not None:
            seconds = time.perf_counter() - began
            on_progress(Progress(frame.index, at.frames_done, last + 1, seen, "audit", seconds))
    if not at.is_walked:
        at = replace(at, is_walked=not was_stopped, video=source.info, warnings=source.warnings)
        keeper.save(at)
    settled = settle(
        Evidence(tuple(tracks), recorder.galleries(), {}, look.camera.path), options.identity, constraints=constraints
    )
    return TrackingResult(
        video=at.video or info,
        tracks=settled.tracks,
        encounters=settled.resolution.encounters,
        decisions=settled.resolution.decisions,
        repairs=settled.resolution.repairs,
        carried=settled.carried,
        frames_processed=at.frames_done,
        seconds=time.perf_counter() - began,
        peak_memory_mb=peak_memory_mb(),
        warnings=(*at.warnings, *keeper.warnings, *warnings),
        settings={"shepherd": __version__, **options.as_dict()},
        was_stopped=was_stopped,
    )


class _Look:
    """Goes through the frames that have tracks: follows the camera, and cuts out what can be seen cleanly."""

    def __init__(
        self, tracks: Sequence[Track], recorder: Recorder, embedder: Embedder, options: TrackingOptions
    ) -> None:
        self._recorder, self._embedder, self._options = recorder, embedder, options
        self._rows: dict[int, list[tuple[Track, int]]] = {}
        self._usual = {t.track_id: usual_by_own_area(t) for t in tracks}
        for t in tracks:
            recorder.open(t.track_id, t.phrase)
            for row, frame_index in enumerate(t.frame_indices.tolist()):
                self._rows.setdefault(frame_index, []).append((t, row))
        self.first = min(self._rows, default=0)
        """0-based."""
        self.camera = CameraWatch()

    def state(self) -> dict[str, Any]:
        """All that the next frames depend on, besides the recorder."""
        return {"camera": self.camera}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on where another look was."""
        self.camera = state["camera"]

    def step(self, frame: Frame) -> int:
        """Take the next frame; returns how many tracks are on it."""
        here = self._rows.pop(frame.index, [])
        if not here:
            self.camera.see(frame, np.zeros((0, 4), np.float32))
            return 0
        masks = np.stack([_mask(t, r, frame.height_px, frame.width_px) for t, r in here])
        boxes = np.stack([t.boxes_xyxy[r] for t, r in here])
        seen = FrameMasks(
            frame.index,
            np.array([t.track_id for t, _ in here], np.int64),
            masks,
            np.ones(len(here), np.float32),
            np.full(len(here), 10.0, np.float32),
        )
        usual = [float(self._usual[t.track_id][r] * np.count_nonzero(masks[k])) for k, (t, r) in enumerate(here)]
        self.camera.see(frame, boxes)
        collect_views(
            frame,
            seen,
            boxes,
            usual,
            recorder=self._recorder,
            embedder=self._embedder,
            options=self._options.evidence,
            is_scored=False,
        )
        return len(here)


def digest_of_tracks(tracks: Sequence[Track]) -> str:
    """A short text that differs where ids, phrases, frames, boxes or masks of tracks do."""
    found = blake2b(digest_size=12)
    for t in tracks:
        found.update(f"{t.track_id}/{t.phrase}/{len(t)}/{t.masks is not None}".encode())
        found.update(t.frame_indices.tobytes())
        found.update(t.boxes_xyxy.tobytes())
        for mask in t.masks or ():
            found.update(mask.counts)
    return found.hexdigest()


def _mask(track: Track, row: int, height_px: int, width_px: int) -> BoolArray:
    if track.masks is not None:
        mask = decode_mask(track.masks[row])
        if mask.shape != (height_px, width_px):
            raise TrackFileError(
                f"track {track.track_id}: masks are {mask.shape[1]} x {mask.shape[0]} px but the video is "
                f"{width_px} x {height_px} px: give the video that they were made on"
            )
        return mask
    # Corners of a box show background more often than the object.
    return ellipse_mask(track.boxes_xyxy[row], height_px=height_px, width_px=width_px)
