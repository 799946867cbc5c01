"""Jobs: every video of a dataset, one after another, with progress; one that fails does not lose the others.

Knows nothing of how tracks are made (`pipeline`) or stored (`labels`), and nothing of forms.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from fiftyone_plugin import pipeline
from fiftyone_plugin.config import TrackingOptions
from fiftyone_plugin.detectors.prompt import parse_prompt
from fiftyone_plugin.errors import FieldConflictError, InputError, OutputError
from fiftyone_plugin.types import TrackingResult

__all__ = [
    "DatasetProgress",
    "DatasetSummary",
    "VideoOutcome",
    "finished_before",
    "repair_dataset",
    "stream",
    "track_dataset",
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class DatasetProgress:
    """Where a job over many videos is."""

    video_number: int
    """1-based."""
    videos_total: int
    source: str
    """File, or folder of images."""
    frame_index: int
    """0-based, in this video."""
    frames_done: int
    """Of this video."""
    frames_total: int
    """Of this video."""
    tracks_live: int
    stage: str
    """``track`` or ``repair``."""
    seconds: float
    """Since this video began."""

    @property
    def fraction(self) -> float:
        """Part of the whole job that is done, in [0, 1], as if all videos were equally long."""
        inside = min(self.frames_done / self.frames_total, 1.0) if self.frames_total else 0.0
        return (self.video_number - 1 + inside) / self.videos_total

    @property
    def line(self) -> str:
        """One line for people."""
        rate = f", {self.frames_done / self.seconds:.1f} frames/s" if self.seconds > 0 else ""
        where = f"video {self.video_number} of {self.videos_total}, " if self.videos_total > 1 else ""
        if self.stage == "repair":
            return f"{where}repairing identities of {self.tracks_live} objects"
        return f"{where}frame {self.frames_done} of {self.frames_total}, {self.tracks_live} objects{rate}"


@dataclass(frozen=True, slots=True)
class VideoOutcome:
    """What became of one video."""

    source: str
    frames: int = 0
    tracks: int = 0
    tracks_before: int = 0
    """Of an audit: tracks that were read."""
    encounters: int = 0
    repairs: int = 0
    needs_review: int = 0
    seconds: float = 0.0
    peak_memory_mb: float = 0.0
    error: str = ""
    """One line; empty if it worked."""
    was_done: bool = False
    """An earlier run with the same settings had finished it; nothing was done again."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DatasetSummary:
    """What became of a job."""

    field: str
    videos: tuple[VideoOutcome, ...]
    """Videos that were finished, failed, or found finished."""
    was_cancelled: bool = False
    """Stopped early; finished videos are kept, and the same call goes on with the rest."""

    @property
    def failures(self) -> tuple[str, ...]:
        """One line per video that failed."""
        return tuple(f"{video.source}: {video.error}" for video in self.videos if video.error)

    def as_dict(self) -> dict[str, Any]:
        """Totals under the keys of the command line's JSON contract, and each video's own."""
        totals = {name: sum(getattr(v, name) for v in self.videos) for name in _COUNTED}
        return {
            **totals,
            "seconds": round(sum(v.seconds for v in self.videos), 3),
            "peak_memory_mb": round(max((v.peak_memory_mb for v in self.videos), default=0.0), 1),
            "field": self.field,
            "failures": list(self.failures),
            "was_cancelled": self.was_cancelled,
            "videos": [{**asdict(v), "warnings": list(v.warnings)} for v in self.videos],
        }

    def lines(self) -> list[str]:
        """The outcome for people."""
        found = self.as_dict()
        done = [v for v in self.videos if not v.error and not v.was_done]
        text = [
            f"{found['tracks']} tracks in {found['frames']} frames of {len(done)} videos, {found['seconds']:.1f} s",
            f"{found['repairs']} repairs, {found['needs_review']} encounters to look at, labels in {self.field!r}",
        ]
        if skipped := sum(v.was_done for v in self.videos):
            text.append(f"{skipped} videos were finished before and left as they are")
        if self.failures:
            text.append(f"{len(self.failures)} videos failed")
        if self.was_cancelled:
            text.append("stopped before the end; the same call goes on with the videos that are left")
        return text


_COUNTED = ("frames", "tracks", "encounters", "repairs", "needs_review")


def track_dataset(
    dataset_or_view: Any,
    prompt: str,
    *,
    field: str = "tracks",
    options: TrackingOptions | None = None,
    overwrite: bool = False,
    on_progress: Callable[[DatasetProgress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> DatasetSummary:
    """Track what the prompt names in every video, or image sequence, of a dataset, and write labels as each is done.

    A video that fails is reported, and the next one begins. Videos that an earlier call with the same prompt and
    settings finished are left as they are, so that the same call goes on after a failure or a stop.

    Args:
        dataset_or_view: A dataset, a view, or the name of a dataset; videos or images in ordered groups.
        prompt: Classes, separated by periods, commas or new lines.
        field: Frame field for the labels; events go to ``<field>_events``.
        options: Models and settings.
        overwrite: Replace what this plugin wrote to the field of these videos before.
        on_progress: Called after every frame.
        should_stop: Asked before every frame. What was tracked of the current video is written, but counts as
            unfinished.

    Raises:
        PromptError: The prompt names no class.
        VideoError: There is nothing to track in the dataset.
        FieldConflictError: The field is not ours, or holds tracks of another prompt or other settings and `overwrite`
            was not given.
        ModelUnavailableError: Weights are missing.
    """
    from fiftyone_plugin import labels

    options = options or TrackingOptions()
    parse_prompt(prompt)
    collection = labels.load_dataset(dataset_or_view) if isinstance(dataset_or_view, str) else dataset_or_view
    found = list(labels.targets(collection))
    ids = [labels.target_id(target) for target in found]
    done = finished_before(labels.dataset_of(found[0]), field, ids, prompt, options, overwrite=overwrite)
    backends = pipeline.Backends.load(options) if len(done) < len(ids) else None
    was_asked = _Remembered(should_stop)
    outcomes: list[VideoOutcome] = []
    for number, (target, key) in enumerate(zip(found, ids, strict=True), start=1):
        if was_asked():
            break
        source = labels.describe(target)
        if key in done:
            outcomes.append(VideoOutcome(source, was_done=True))
            continue
        report = _report(on_progress, number, len(found), source)
        try:
            result = pipeline.track(
                labels.open_target(target),
                prompt,
                options,
                on_progress=report,
                should_stop=was_asked,
                backends=backends,
            )
            if result.frames_processed or not was_asked.answer:
                labels.write_tracks(target, field, result, overwrite=overwrite, is_complete=not was_asked.answer)
        except OutputError as error:
            # The next video would be tracked in vain.
            outcomes.append(VideoOutcome(source, error=str(error)))
            was_asked.answer = True
            break
        except InputError as error:
            outcomes.append(VideoOutcome(source, error=str(error)))
            continue
        except Exception as error:
            # A bug in one video must not cost the night's work on the others; it is reported as what it is.
            outcomes.append(VideoOutcome(source, error=f"unexpected {type(error).__name__}: {error}"))
            continue
        outcomes.append(_outcome(source, result))
    return DatasetSummary(field, tuple(outcomes), was_cancelled=was_asked.answer)


def repair_dataset(
    dataset_or_view: Any,
    from_field: str,
    *,
    field: str = "tracks_repaired",
    options: TrackingOptions | None = None,
    dry_run: bool = False,
    overwrite: bool = False,
    on_progress: Callable[[DatasetProgress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> DatasetSummary:
    """Audit and repair the tracks of a label field, from whatever tool, and write them to another field.

    Args:
        dataset_or_view: A dataset, a view, or the name of a dataset.
        from_field: Frame field with `Detections` that have an `index` or an `instance`; is only read.
        field: New frame field for the repaired tracks.
        options: Embedder, evidence and identity settings.
        dry_run: Report only, write nothing.
        overwrite: Replace what this plugin wrote to `field` before.
        on_progress: Called after every frame.
        should_stop: Asked before every frame; the video it falls in is not written.

    Raises:
        VideoError: There is nothing in the dataset.
        TrackFileError: `from_field` holds no tracks.
        FieldConflictError: `field` is not ours, or `overwrite` was not given.
    """
    from fiftyone_plugin import labels

    options = options or TrackingOptions()
    if field == from_field and not dry_run:
        raise FieldConflictError(f"field {field!r}: holds the tracks that are read; give another field for the result")
    collection = labels.load_dataset(dataset_or_view) if isinstance(dataset_or_view, str) else dataset_or_view
    found = list(labels.targets(collection))
    ids = [labels.target_id(target) for target in found]
    if not dry_run:
        labels.require_writable(labels.dataset_of(found[0]), field, ids, overwrite=overwrite)
    was_asked = _Remembered(should_stop)
    outcomes: list[VideoOutcome] = []
    for number, target in enumerate(found, start=1):
        if was_asked():
            break
        source = labels.describe(target)
        try:
            before = labels.read_tracks(target, from_field)
            result = pipeline.repair(
                labels.open_target(target),
                before,
                options,
                on_progress=_report(on_progress, number, len(found), source),
                should_stop=was_asked,
            )
            if not dry_run and not was_asked.answer:
                labels.write_tracks(target, field, result, overwrite=overwrite)
        except InputError as error:
            outcomes.append(VideoOutcome(source, error=str(error)))
            continue
        outcomes.append(_outcome(source, result, tracks_before=len(before)))
    return DatasetSummary(field, tuple(outcomes), was_cancelled=was_asked.answer)


def _outcome(source: str, result: TrackingResult, *, tracks_before: int = 0) -> VideoOutcome:
    return VideoOutcome(
        source=source,
        frames=result.frames_processed,
        tracks=len(result.tracks),
        tracks_before=tracks_before,
        encounters=len(result.encounters),
        repairs=len(result.repairs),
        needs_review=len(result.needs_review),
        seconds=result.seconds,
        peak_memory_mb=result.peak_memory_mb,
        warnings=result.warnings,
    )


def finished_before(
    dataset: Any, field: str, ids: Sequence[str], prompt: str, options: TrackingOptions, *, overwrite: bool
) -> set[str]:
    """Which targets an earlier call with the same prompt and settings finished, so that they can be left out.

    Raises:
        FieldConflictError: The field is not ours, or holds tracks of another prompt or other settings and `overwrite`
            is False.
        OptionError: It cannot be the name of a field.
    """
    from fiftyone_plugin import labels

    state = labels.field_state(dataset, field)
    wanted = labels.as_plain({"prompt": prompt, **options.as_dict()})
    if state.is_ours and not overwrite and wanted.items() <= state.settings.items():
        return set(ids) & state.finished
    labels.require_writable(dataset, field, ids, overwrite=overwrite)
    return set()


def _report(
    on_progress: Callable[[DatasetProgress], None] | None, number: int, total: int, source: str
) -> Callable[[pipeline.Progress], None] | None:
    if on_progress is None:
        return None

    def report(progress: pipeline.Progress) -> None:
        on_progress(
            DatasetProgress(
                video_number=number,
                videos_total=total,
                source=source,
                frame_index=progress.frame_index,
                frames_done=progress.frames_done,
                frames_total=progress.frames_total,
                tracks_live=progress.tracks_live,
                stage=progress.stage,
                seconds=progress.seconds,
            )
        )

    return report


class _Remembered:
    """A question whose first yes is remembered: the pipeline asks it, and we must know what it was told."""

    def __init__(self, question: Callable[[], bool] | None) -> None:
        self._question = question
        self.answer = False

    def __call__(self) -> bool:
        if not self.answer and self._question is not None:
            self.answer = self._question()
        return self.answer


def stream(
    job: Callable[[Callable[[DatasetProgress], None], Callable[[], bool]], T],
) -> Generator[DatasetProgress, None, T]:
    """Run a job in a thread and yield its progress as it comes; the job's result is the generator's return value.

    Closing the generator, or letting go of it, asks the job to stop.

    Args:
        job: Called with `on_progress` and `should_stop`, as `track_dataset` takes them.

    Raises:
        Exception: Whatever the job raises.
    """
    messages: queue.Queue[DatasetProgress | None] = queue.Queue()
    stopped = threading.Event()
    outcome: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(job(messages.put, stopped.is_set))
        except BaseException as error:
            failure.append(error)
        finally:
            messages.put(None)

    thread = threading.Thread(target=run, name="shepherd-job", daemon=True)
    thread.start()
    try:
        while (progress := messages.get()) is not None:
            # Only the newest is worth showing where the listener is slower than the job.
            while not messages.empty() and (newer := messages.queue[0]) is not None:
                progress = newer
                messages.get()
            yield progress
    finally:
        stopped.set()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]
