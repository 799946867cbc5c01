"""From a source and a prompt to a `TrackingResult`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from fiftyone_plugin import __version__
from fiftyone_plugin.config import TrackingOptions, check_counts
from fiftyone_plugin.detectors.prompt import parse_prompt
from fiftyone_plugin.detectors.prompted import PromptedDetector
from fiftyone_plugin.embedders.combined import part_sizes
from fiftyone_plugin.errors import FrameRangeError
from fiftyone_plugin.identity import Resolution
from fiftyone_plugin.identity.constraints import Constraint
from fiftyone_plugin.interfaces import FeedableSession, FrameSource
from fiftyone_plugin.pipeline.backends import Backends
from fiftyone_plugin.pipeline.backfill import fill_back
from fiftyone_plugin.pipeline.checkpoint import Checkpointing, Keeper, Position
from fiftyone_plugin.pipeline.memory import peak_memory_mb, trim_memory, trimmed
from fiftyone_plugin.pipeline.mend import mend
from fiftyone_plugin.pipeline.recorder import Recorder
from fiftyone_plugin.pipeline.settle import Evidence, settle
from fiftyone_plugin.pipeline.walk import Walk
from fiftyone_plugin.types import Detections, Frame, Track, TrackingResult, VideoInfo

__all__ = ["Progress", "preview", "track"]


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run is."""

    frame_index: int
    """0-based."""
    frames_done: int
    frames_total: int
    """Expected; a damaged video may end earlier."""
    tracks_live: int
    stage: str
    """``track``; then ``trace`` (objects back to where they came from), ``repair`` and ``fill`` (gaps). Of tracks that
    exist already, ``audit``."""
    seconds: float
    """Since the run began, loading of models included."""
    steps_done: int = 0
    """Of ``trace`` and ``fill``, which do not go by frames."""
    steps_total: int = 0


def track(
    source: FrameSource,
    prompt: str,
    options: TrackingOptions | None = None,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    backends: Backends | None = None,
    checkpointing: Checkpointing | None = None,
    on_evidence: Callable[[Evidence], None] | None = None,
    constraints: Sequence[Constraint] = (),
) -> TrackingResult:
    """Find what the prompt names, carry it through the video, and repair identities.

    Args:
        source: The video.
        prompt: Classes, separated by periods, commas or new lines.
        options: Everything else.
        on_progress: Called after every frame, and before every step of what follows.
        should_stop: Asked before every frame, and while gaps are filled; when it says yes, the result covers what was
            done up to there. A run that was stopped early fills no gaps.
        backends: Models that are already loaded; by default those that `options` name.
        checkpointing: Where the state is kept while it works, and whether to go on from what is there; the result is
            that of an uninterrupted run. What is kept there is left there.
        on_evidence: Called once with what identity is settled from, before it is; not where repair is off, or where
            nothing was found.
        constraints: What a person said of this video's identities; it holds, where repair is on.

    Raises:
        JobError: The checkpoint to go on from belongs to another run, or is damaged.
        PromptError: The prompt names no class.
        FrameRangeError: The range lies outside the video.
        VideoError: Nothing can be decoded.
        ModelUnavailableError: Weights are missing.
    """
    options = options or TrackingOptions()
    began = time.perf_counter()
    phrases = parse_prompt(prompt)
    check_counts(options.identity.counts, phrases)
    total = _frames_asked_for(source.info, options)
    models = backends or Backends.load(options)
    detector = PromptedDetector(models.detector, phrases, options.detection)
    recorder = Recorder(models.embedder.name, part_sizes(models.embedder))
    session = models.propagator.open(height_px=source.info.height_px, width_px=source.info.width_px)
    walk = Walk(detector, session, models.embedder, recorder, options)
    keeper = Keeper(checkpointing, source, prompt, options, walk=walk, session=session, recorder=recorder)
    at = keeper.restore()
    began -= at.seconds
    done = at.frames_done
    warnings: list[str] = []
    stopped_at: int | None = None
    is_cut_short = False
    frames = iter(()) if at.is_walked else source.frames(at.next_frame, options.stop)
    for frame in trimmed(session.feed(frames) if isinstance(session, FeedableSession) else frames):
        if keeper.is_due(frame.index):
            keeper.save(Position(frame.index, done, time.perf_counter() - began))
        if should_stop is not None and should_stop():
            stopped_at = frame.index
            warnings.append(f"stopped before frame {frame.index} as asked; the tracks end there")
            break
        walk.step(frame)
        done += 1
        if on_progress is not None:
            on_progress(Progress(frame.index, done, total, walk.live_tracks, "track", time.perf_counter() - began))
    if not at.is_walked:
        next_frame = options.start + done if stopped_at is None else stopped_at
        at = Position(next_frame, done, time.perf_counter() - began, stopped_at is None, source.info, source.warnings)
        keeper.save(at)
    tracks, resolution = recorder.tracks(), Resolution((), (), (), ())
    carried: tuple[Track, ...] = ()
    if options.identity.repair and tracks:

        def tell(stage: str, step: int = 0, steps: int = 0) -> None:
            if on_progress is not None:
                last, seconds = options.start + max(done - 1, 0), time.perf_counter() - began
                on_progress(Progress(last, done, total, walk.live_tracks, stage, seconds, step, steps))

        fill_back(
            source, models.propagator, models.embedder, recorder, walk.births, options, on_step=partial(tell, "trace")
        )
        trim_memory()
        tell("repair")
        evidence = Evidence(recorder.tracks(), recorder.galleries(), recorder.supports(), walk.camera.path)
        if on_evidence is not None:
            on_evidence(evidence)
        settled = settle(evidence, options.identity, constraints=constraints)
        if options.identity.mend_masks and stopped_at is None:
            settled, is_cut_short = mend(
                source,
                models.propagator,
                models.embedder,
                settled,
                evidence.galleries,
                on_step=partial(tell, "fill"),
                should_stop=should_stop,
            )
            if is_cut_short:
                warnings.append("stopped while gaps were filled, as asked; some tracks have gaps left")
        tracks, carried, resolution = settled.tracks, settled.carried, settled.resolution
    if not tracks:
        warnings.append(f"nothing found for {', '.join(repr(p) for p in phrases)}: zero tracks")
    return TrackingResult(
        video=at.video or source.info,
        tracks=tracks,
        encounters=resolution.encounters,
        decisions=resolution.decisions,
        repairs=resolution.repairs,
        carried=carried,
        frames_processed=done,
        seconds=time.perf_counter() - began,
        peak_memory_mb=peak_memory_mb(),
        warnings=(*at.warnings, *walk.warnings, *keeper.warnings, *warnings),
        settings={"prompt": prompt, "phrases": list(phrases), "shepherd": __version__, **options.as_dict()},
        was_stopped=stopped_at is not None or is_cut_short,
    )


def preview(
    source: FrameSource,
    prompt: str,
    options: TrackingOptions | None = None,
    *,
    frames: int = 4,
    backends: Backends | None = None,
) -> list[tuple[Frame, Detections]]:
    """Let the detector look at a few frames spread over the video, so that a prompt can be judged before a long run.

    Args:
        source: The video.
        prompt: As for `track`.
        options: Detection settings and frame range.
        frames: How many frames, 1 or more.
        backends: Models that are already loaded.
    """
    options = options or TrackingOptions()
    phrases = parse_prompt(prompt)
    total = _frames_asked_for(source.info, options)
    models = backends or Backends.load(options)
    detector = PromptedDetector(models.detector, phrases, options.detection)
    picks = np.unique(np.linspace(options.start, options.start + total - 1, max(frames, 1) * 2 + 1).round()[1::2])
    shown: list[tuple[Frame, Detections]] = []
    for index in picks.astype(int).tolist():
        for frame in source.frames(index, index + 1):
            shown.append((frame, detector.detect([frame])[0]))
    return shown


def _frames_asked_for(info: VideoInfo, options: TrackingOptions) -> int:
    count, start, stop = info.frame_count, options.start, options.stop
    if start < 0 or start >= count:
        raise FrameRangeError(
            f"start = {start} (counted from 0): must lie in [0, {count - 1}], the video has {count} frames"
        )
    if stop is not None and not start < stop <= count:
        raise FrameRangeError(
            f"stop = {stop} (counted from 0): must lie in [{start + 1}, {count}], the video has {count} frames"
        )
    return (stop if stop is not None else count) - start
