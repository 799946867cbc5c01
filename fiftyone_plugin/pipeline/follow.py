"""Exactly the objects that somebody pointed at, carried through the video in both directions from there.

No detector: nothing is added to what was asked for, and nobody is dropped. Where an object was pointed at on several
frames, propagation starts anew at each of them. Going backwards, frames are decoded again, a window at a time, so
memory does not grow with the video.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fiftyone_plugin import __version__, registry
from fiftyone_plugin.config import TrackingOptions
from fiftyone_plugin.embedders.combined import part_sizes
from fiftyone_plugin.errors import FrameRangeError, OptionError
from fiftyone_plugin.geometry import mask_boxes
from fiftyone_plugin.identity import Resolution
from fiftyone_plugin.identity.constraints import Constraint
from fiftyone_plugin.interfaces import Embedder, FrameSource, PropagationSession, Propagator
from fiftyone_plugin.pipeline.backwards import backwards
from fiftyone_plugin.pipeline.checkpoint import Checkpointing, Keeper, Position
from fiftyone_plugin.pipeline.memory import peak_memory_mb, trimmed
from fiftyone_plugin.pipeline.packing import digest
from fiftyone_plugin.pipeline.recorder import Recorder
from fiftyone_plugin.pipeline.run import Progress
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
    checkpointing: Checkpointing | None = None,
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
        checkpointing: Where the state is kept while it works, and whether to go on from what is there; the result is
            that of an uninterrupted run. What is kept there is left there.
        constraints: What a person said of this video's identities; it holds, where repair is on.

    Raises:
        OptionError: No prompt, two for one object and frame, or more objects than `max_tracks`.
        FrameRangeError: A prompt lies outside the frames that are tracked.
        JobError: The checkpoint to go on from belongs to another run, or is damaged.
        ModelUnavailableError: Weights are missing.
    """
    options = options or TrackingOptions()
    began = time.perf_counter()
    by_frame = _checked(prompts, source.info.frame_count, options)
    propagator = propagator or registry.make_propagator(
        options.models.propagator, device=options.device, options=options.propagation
    )
    embedder = embedder or registry.make_embedder(options.models.embedder, device=options.device, propagator=propagator)
    recorder = Recorder(embedder.name, part_sizes(embedder))
    for track_id, phrase in sorted({(p.seed.track_id, p.phrase) for p in prompts}):
        recorder.open(track_id, phrase)
    walk = _Walk(source, by_frame, propagator, embedder, recorder, options)
    given = {"objects": len(recorder.records), "marks": digest(prompts)}
    keeper = Keeper(
        checkpointing,
        source,
        "",
        options,
        walk=walk,
        session=walk.session,
        recorder=recorder,
        given=given,
        start=min(by_frame),
    )
    at = walk.go(keeper, keeper.restore(), on_progress=on_progress, should_stop=should_stop, began=began)
    walked, was_stopped = time.perf_counter(), not at.is_walked

    tracks, resolution = recorder.tracks(), Resolution((), (), (), ())
    carried: tuple[Track, ...] = ()
    if options.identity.repair and (len(tracks) > 1 or constraints):
        evidence = Evidence(tracks, recorder.galleries(), recorder.supports())
        settled = settle(evidence, options.identity, constraints=constraints)
        tracks, carried, resolution = settled.tracks, settled.carried, settled.resolution
    warnings = ["stopped as asked; the tracks are not complete"] if was_stopped else []
    lost = sorted({p.seed.track_id for p in prompts} - {t.track_id for t in tracks})
    if lost and not was_stopped:
        warnings.append(f"no mask came of the prompts of {len(lost)} objects: {', '.join(map(str, lost))}")
    return TrackingResult(
        video=at.video or source.info,
        tracks=tracks,
        encounters=resolution.encounters,
        decisions=resolution.decisions,
        repairs=resolution.repairs,
        carried=carried,
        frames_processed=walk.frames_seen,
        seconds=at.seconds + time.perf_counter() - walked,
        peak_memory_mb=peak_memory_mb(),
        warnings=(*at.warnings, *keeper.warnings, *warnings),
        settings={"prompt": "", "objects": len(recorder.records), "shepherd": __version__, **options.as_dict()},
        was_stopped=was_stopped,
    )


def _first_marks(by_frame: Mapping[int, Sequence[ObjectPrompt]]) -> dict[int, list[ObjectPrompt]]:
    """By frame, the first mark of every object: what lies before it is reached backwards."""
    begun: set[int] = set()
    firsts: dict[int, list[ObjectPrompt]] = {}
    for frame_index, here in sorted(by_frame.items()):
        if new := [p for p in here if p.seed.track_id not in begun]:
            firsts[frame_index] = new
        begun |= {p.seed.track_id for p in here}
    return firsts


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
    """Goes through the video from the first mark on, then back from where the last object was marked, and records."""

    def __init__(
        self,
        source: FrameSource,
        marks: Mapping[int, Sequence[ObjectPrompt]],
        propagator: Propagator,
        embedder: Embedder,
        recorder: Recorder,
        options: TrackingOptions,
    ) -> None:
        self._source, self._options = source, options
        self._propagator, self._embedder, self._recorder = propagator, embedder, recorder
        self._marks, self._firsts = marks, _first_marks(marks)
        self._first, self._turn = min(marks), max(self._firsts)
        self.frames_seen = 0
        """Different frames so far."""
        self.session = self._open()

    def state(self) -> dict[str, Any]:
        """All that the next frames depend on, besides the session and the recorder."""
        return {"frames_seen": self.frames_seen}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on where another walk was."""
        self.frames_seen = state["frames_seen"]

    def go(
        self,
        keeper: Keeper,
        at: Position,
        *,
        on_progress: Callable[[Progress], None] | None,
        should_stop: Callable[[], bool] | None,
        began: float,
    ) -> Position:
        """Walk to the end from a position; returns where it is then, which is not the end if it was asked to stop."""
        began -= at.seconds
        total = self._total()
        while not at.is_walked:
            marks = self._firsts if at.is_backwards else self._marks
            for frame in trimmed(self._frames(at)):
                at = self._moved(at, frame.index, began)
                if keeper.is_due(frame.index):
                    keeper.save(at)
                if should_stop is not None and should_stop():
                    keeper.save(at)
                    return at
                self._step(frame, marks.get(frame.index, ()), is_backwards=at.is_backwards)
                at = replace(at, frames_done=at.frames_done + 1)
                if on_progress is not None:
                    seconds, live = time.perf_counter() - began, len(self.session.track_ids)
                    on_progress(Progress(frame.index, at.frames_done, total, live, "track", seconds))
            at = self._moved(at, self._turn, began)
            if at.is_backwards or self._turn <= self._options.start:
                at = replace(at, is_walked=True)
                keeper.save(at)
            else:
                self.session = self._open()
                at = replace(at, is_backwards=True)
                keeper.turn(self.session, at)
        return at

    def _open(self) -> PropagationSession:
        return self._propagator.open(height_px=self._source.info.height_px, width_px=self._source.info.width_px)

    def _total(self) -> int:
        stop = self._source.info.frame_count if self._options.stop is None else self._options.stop
        way_back = self._turn + 1 - self._options.start
        return stop - self._first + (way_back if way_back > 1 else 0)

    def _frames(self, at: Position) -> Iterator[Frame]:
        if at.is_backwards:
            return backwards(self._source, self._options.start, at.next_frame + 1)
        return self._source.frames(at.next_frame, self._options.stop)

    def _moved(self, at: Position, next_frame: int, began: float) -> Position:
        """The position before a frame, with what the source has told so far.

        What the video has turned out to be is known when its end was reached: on the way back only its start is read.
        """
        return replace(
            at,
            next_frame=next_frame,
            seconds=time.perf_counter() - began,
            video=at.video if at.is_backwards else self._source.info,
            warnings=tuple(dict.fromkeys((*at.warnings, *self._source.warnings))),
        )

    def _step(self, frame: Frame, marks: Sequence[ObjectPrompt], *, is_backwards: bool) -> None:
        """Take the next frame; on the way back the first frame of a track is recorded already."""
        seen = self.session.advance(frame)
        if marks:
            self._seed(frame, seen, marks, is_backwards=is_backwards)
        else:
            self._record(frame, seen, Source.PROPAGATED)
        # On the way back, only what lies before the first mark is new.
        self.frames_seen += not is_backwards or frame.index < self._first

    def _seed(self, frame: Frame, seen: FrameMasks, prompts: Sequence[ObjectPrompt], *, is_backwards: bool) -> None:
        born = self.session.seed([p.seed for p in prompts])
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
