"""Exactly the objects that somebody pointed at, carried through the video in both directions from there.

No detector: nothing is added to what was asked for, and nobody is dropped. Where an object was pointed at on several
frames, propagation starts anew at each of them. Going backwards, frames are decoded again, a window at a time, so
memory does not grow with the video.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fiftyone_plugin import __version__, registry
from fiftyone_plugin.config import TrackingOptions
from fiftyone_plugin.errors import FrameRangeError, OptionError
from fiftyone_plugin.geometry import mask_boxes
from fiftyone_plugin.identity import Resolution
from fiftyone_plugin.identity.constraints import Constraint
from fiftyone_plugin.interfaces import Embedder, FrameSource, PropagationSession, Propagator
from fiftyone_plugin.pipeline.backwards import backwards
from fiftyone_plugin.pipeline.recorder import Recorder
from fiftyone_plugin.pipeline.run import Progress, peak_memory_mb
from fiftyone_plugin.pipeline.settle import Evidence, settle
from fiftyone_plugin.pipeline.views import collect_views
from fiftyone_plugin.types import BoolArray, Frame, FrameMasks, Seed, Source, Track, TrackingResult

__all__ = ["ObjectPrompt", "follow"]


@dataclass(frozen=True, slots=True)
class ObjectPrompt:
    """One object, pointed at on one frame."""

    frame_index: int
    """0-based."""
    phrase: str
    """What the object is called; becomes the label."""
    seed: Seed
    """Box, mask or clicks; its `track_id` becomes the track's. The same id on another frame is the same object."""


def follow(
    source: FrameSource,
    prompts: Sequence[ObjectPrompt],
    options: TrackingOptions | None = None,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    propagator: Propagator | None = None,
    embedder: Embedder | None = None,
    constraints: Sequence[Constraint] = (),
) -> TrackingResult:
    """Track the objects that were pointed at, from each prompt on, and back to the first frame.

    Args:
        source: The video.
        prompts: At least one; one per object and frame.
        options: Models, frame range, identity and evidence settings; the detector is not used.
        on_progress: Called after every frame; a frame on the way back counts as one more.
        should_stop: Asked before every frame; when it says yes, the result holds what was tracked up to there.
        propagator: One that is already loaded; by default the one that `options` name, as for the next.
        embedder: See there.
        constraints: What a person said of this video's identities; it holds, where repair is on.

    Raises:
        OptionError: No prompt, two for one object and frame, or more objects than `max_tracks`.
        FrameRangeError: A prompt lies outside the frames that are tracked.
        ModelUnavailableError: Weights are missing.
    """
    options = options or TrackingOptions()
    began = time.perf_counter()
    by_frame = _checked(prompts, source.info.frame_count, options)
    propagator = propagator or registry.make_propagator(options.models.propagator, device=options.device)
    embedder = embedder or registry.make_embedder(options.models.embedder, device=options.device)
    recorder = Recorder(embedder.name)
    for track_id, phrase in sorted({(p.seed.track_id, p.phrase) for p in prompts}):
        recorder.open(track_id, phrase)
    begun: set[int] = set()
    firsts: dict[int, list[ObjectPrompt]] = {}
    for frame_index, here in sorted(by_frame.items()):
        if new := [p for p in here if p.seed.track_id not in begun]:
            firsts[frame_index] = new
        begun |= {p.seed.track_id for p in here}
    first, turn = min(by_frame), max(firsts)
    stop = source.info.frame_count if options.stop is None else options.stop
    total = (stop - first) + (turn + 1 - options.start if turn > options.start else 0)
    walk = _Walk(propagator, embedder, recorder, options, on_progress, should_stop, began=began, total=total)

    walk.go(source, source.frames(first, options.stop), by_frame)
    if not walk.was_stopped and turn > options.start:
        walk.go(source, backwards(source, options.start, turn + 1), firsts, is_backwards=True)

    tracks, resolution = recorder.tracks(), Resolution((), (), (), ())
    carried: tuple[Track, ...] = ()
    if options.identity.repair and (len(tracks) > 1 or constraints):
        evidence = Evidence(tracks, recorder.galleries(), recorder.supports())
        settled = settle(evidence, options.identity, constraints=constraints)
        tracks, carried, resolution = settled.tracks, settled.carried, settled.resolution
    warnings = ["stopped as asked; the tracks are not complete"] if walk.was_stopped else []
    lost = sorted({p.seed.track_id for p in prompts} - {t.track_id for t in tracks})
    if lost and not walk.was_stopped:
        warnings.append(f"no mask came of the prompts of {len(lost)} objects: {', '.join(map(str, lost))}")
    return TrackingResult(
        video=source.info,
        tracks=tracks,
        encounters=resolution.encounters,
        decisions=resolution.decisions,
        repairs=resolution.repairs,
        carried=carried,
        frames_processed=walk.frames_seen,
        seconds=time.perf_counter() - began,
        peak_memory_mb=peak_memory_mb(),
        warnings=(*source.warnings, *warnings),
        settings={"prompt": "", "objects": len(begun), "shepherd": __version__, **options.as_dict()},
        was_stopped=walk.was_stopped,
    )


def _checked(
    prompts: Sequence[ObjectPrompt], frame_count: int, options: TrackingOptions
) -> dict[int, list[ObjectPrompt]]:
    """Prompts by frame."""
    by_frame: dict[int, list[ObjectPrompt]] = {}
    stop = frame_count if options.stop is None else options.stop
    for prompt in prompts:
        if not options.start <= prompt.frame_index < stop:
            raise FrameRangeError(
                f"object {prompt.seed.track_id} is marked on frame {prompt.frame_index + 1}: must be one of the frames "
                f"{options.start + 1} to {stop} that are tracked"
            )
        here = by_frame.setdefault(prompt.frame_index, [])
        if any(other.seed.track_id == prompt.seed.track_id for other in here):
            raise OptionError(
                f"object {prompt.seed.track_id} is marked twice on frame {prompt.frame_index + 1}: mark it once a frame"
            )
        here.append(prompt)
    objects = {prompt.seed.track_id for prompt in prompts}
    if not objects or len(objects) > options.association.max_tracks:
        raise OptionError(f"{len(objects)} objects: must be 1 to max_tracks = {options.association.max_tracks}")
    return by_frame


class _Walk:
    """Goes through frames in one direction after the other, and records."""

    def __init__(
        self,
        propagator: Propagator,
        embedder: Embedder,
        recorder: Recorder,
        options: TrackingOptions,
        on_progress: Callable[[Progress], None] | None,
        should_stop: Callable[[], bool] | None,
        *,
        began: float,
        total: int,
    ) -> None:
        self._propagator, self._embedder = propagator, embedder
        self._recorder, self._options = recorder, options
        self._on_progress, self._should_stop = on_progress, should_stop
        self._began, self._total = began, total
        self._done = 0
        self._seen: set[int] = set()
        self.was_stopped = False

    @property
    def frames_seen(self) -> int:
        """Different frames so far."""
        return len(self._seen)

    def go(
        self,
        source: FrameSource,
        frames: Iterator[Frame],
        prompts: Mapping[int, Sequence[ObjectPrompt]],
        *,
        is_backwards: bool = False,
    ) -> None:
        """Walk over frames; on the way back the first frame of a track is recorded already."""
        session = self._propagator.open(height_px=source.info.height_px, width_px=source.info.width_px)
        for frame in frames:
            if self._should_stop is not None and self._should_stop():
                self.was_stopped = True
                return
            seen = session.advance(frame)
            here = prompts.get(frame.index, [])
            if here:
                self._seed(session, frame, seen, here, is_backwards=is_backwards)
            else:
                self._record(frame, seen, Source.PROPAGATED)
            self._seen.add(frame.index)
            self._done += 1
            if self._on_progress is not None:
                seconds = time.perf_counter() - self._began
                live = len(session.track_ids)
                self._on_progress(Progress(frame.index, self._done, self._total, live, "track", seconds))

    def _seed(
        self,
        session: PropagationSession,
        frame: Frame,
        seen: FrameMasks,
        prompts: Sequence[ObjectPrompt],
        *,
        is_backwards: bool,
    ) -> None:
        born = session.seed([p.seed for p in prompts])
        fresh = set(born.track_ids.tolist())
        others = np.array([t not in fresh for t in seen.track_ids.tolist()], np.bool_)
        self._record(frame, _rows(seen, others), Source.PROPAGATED)
        if not is_backwards:
            self._record(frame, born, Source.SEED)

    def _record(self, frame: Frame, seen: FrameMasks, source: Source) -> None:
        boxes = mask_boxes(seen.masks)
        shown = (boxes[:, 2] > boxes[:, 0]) & ((seen.object_scores > 0) | (source is Source.SEED))
        seen, boxes = _rows(seen, shown), boxes[shown]
        for k, track_id in enumerate(seen.track_ids.tolist()):
            self._recorder.add(
                track_id,
                frame.index,
                seen.masks[k],
                boxes[k],
                mask_score=float(seen.mask_scores[k]),
                object_score=float(seen.object_scores[k]),
                source=source,
            )
        if self._options.identity.repair:
            collect_views(
                frame,
                seen,
                boxes,
                [self._recorder.median_area(t) for t in seen.track_ids.tolist()],
                recorder=self._recorder,
                embedder=self._embedder,
                options=self._options.evidence,
            )


def _rows(seen: FrameMasks, keep: BoolArray) -> FrameMasks:
    return replace(
        seen,
        track_ids=seen.track_ids[keep],
        masks=seen.masks[keep],
        mask_scores=seen.mask_scores[keep],
        object_scores=seen.object_scores[keep],
    )
