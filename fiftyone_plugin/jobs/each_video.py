"""What all jobs over many videos share: one target after another, failures kept apart, progress, the question to stop.

Knows nothing of what is done to a target.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from pathlib import Path
from typing import Any

from fiftyone_plugin import pipeline
from fiftyone_plugin.errors import InputError, OutputError
from fiftyone_plugin.jobs.job import Job
from fiftyone_plugin.jobs.outcome import DatasetSummary, VideoOutcome
from fiftyone_plugin.jobs.progress import JobProgress, Pace
from fiftyone_plugin.jobs.records import JobState, job_id_of, jobs_folder
from fiftyone_plugin.types import TrackingResult

__all__ = [
    "OnProgress",
    "Remembered",
    "Reporter",
    "Work",
    "dataset_job",
    "each_video",
    "open_job",
    "outcome_of",
    "targets_of",
]

OnProgress = Callable[[pipeline.Progress], None]
"""How the pipeline tells where it is in one video."""
Work = Callable[[Any, OnProgress, "Remembered"], VideoOutcome | None]
"""What is done to one target."""


def each_video(
    job: Job,
    targets: Sequence[Any],
    field: str,
    work: Work,
    *,
    done: Set[str],
    on_progress: Callable[[JobProgress], None] | None,
    should_stop: Callable[[], bool] | None,
) -> DatasetSummary:
    """Do the work on one target after another, whatever happens to single ones, and record how it ended.

    Args:
        job: Is finished in the end.
        targets: Videos, as `labels.targets` gives them.
        field: Where the labels go.
        work: Called with a target, `on_progress` and `should_stop`; returns what became of it, None for nothing.
        done: Ids of the targets to pass over, because they are finished.
        on_progress: Called after every frame.
        should_stop: Asked before every frame, as is whether somebody cancelled the job.
    """
    from fiftyone_plugin import labels

    was_asked = Remembered(should_stop, job.should_stop)
    reporter = Reporter(job, on_progress, videos_total=len(targets))
    left = len(targets) - len(done)
    outcomes: list[VideoOutcome] = []
    trouble = ""
    for number, target in enumerate(targets, start=1):
        if was_asked():
            break
        source = labels.describe(target)
        if labels.target_id(target) in done:
            outcomes.append(VideoOutcome(source, was_done=True))
            continue
        left -= 1
        try:
            outcome = work(target, reporter.of_video(number, source, videos_after=left), was_asked)
        except OutputError as error:
            # The next video would be tracked in vain.
            trouble = str(error)
            outcomes.append(VideoOutcome(source, error=trouble))
            break
        except InputError as error:
            outcome = VideoOutcome(source, error=str(error))
        except Exception as error:
            # A bug in one video must not cost the night's work on the others; it is reported as what it is.
            outcome = VideoOutcome(source, error=f"unexpected {type(error).__name__}: {error}")
        if outcome is not None:
            outcomes.append(outcome)
    summary = DatasetSummary(field, tuple(outcomes), bool(trouble) or was_asked.answer, job.job_id, trouble)
    ended = JobState.CANCELLED if was_asked.answer else JobState.FINISHED
    message = trouble or "; ".join(summary.lines())
    job.finish(JobState.FAILED if trouble else ended, failures=summary.failures, message=message)
    return summary


def targets_of(dataset_or_view: Any) -> tuple[list[Any], list[str], Any]:
    """The targets, their ids, and the dataset they lie in."""
    from fiftyone_plugin import labels

    collection = labels.load_dataset(dataset_or_view) if isinstance(dataset_or_view, str) else dataset_or_view
    found = list(labels.targets(collection))
    return found, [labels.target_id(target) for target in found], labels.dataset_of(found[0])


def dataset_job(title: str, dataset: Any, field: str, prompt: str, *, is_dry_run: bool = False) -> Job:
    """Begin a job over a dataset. One process writes to a field at a time, so the field is what makes it this job.

    Raises:
        JobError: Another process works on the field.
        OutputError: The job's folder cannot be made.
    """
    # What only reads must not end the job that writes.
    kind = ["dry run"] if is_dry_run else []
    folder = jobs_folder() / job_id_of(f"{dataset.name}-{field}", str(dataset._doc.id), field, *kind)
    written = None if is_dry_run else field
    return open_job(folder, title=title, source=dataset.name, prompt=prompt, dataset=dataset.name, field=written)


def open_job(folder: Path, **about: Any) -> Job:
    """Begin a job; `about` as `Job` takes it.

    Raises:
        JobError: Another process works on it.
        OutputError: The folder cannot be made.
    """
    try:
        return Job(folder, **about)
    except OSError as error:
        raise OutputError(
            f"{folder}: the job's folder cannot be made ({error.strerror}): set SHEPHERD_HOME to a folder that can be "
            "written to"
        ) from None


def outcome_of(source: str, result: TrackingResult, *, tracks_before: int = 0) -> VideoOutcome:
    """The numbers of a result."""
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


class Reporter:
    """Tells where the job is, to its record and to whoever called."""

    def __init__(self, job: Job, on_progress: Callable[[JobProgress], None] | None, *, videos_total: int) -> None:
        self._job = job
        self._on_progress = on_progress
        self._videos_total = videos_total
        self._pace = Pace()
        self._lengths: dict[int, int] = {}

    def of_video(self, number: int, source: str, *, videos_after: int) -> OnProgress:
        """For the video of this number; so many are left to be done after it."""
        self._pace.new_video()

        def report(progress: pipeline.Progress) -> None:
            self._lengths[number] = progress.frames_total
            rate = self._pace.frames_per_second(progress.frames_done, progress.seconds)
            # Videos to come are taken to be as long as those so far.
            frames_after = videos_after * sum(self._lengths.values()) / len(self._lengths)
            frames_left = max(progress.frames_total - progress.frames_done, 0) + frames_after
            now = JobProgress(
                video_number=number,
                videos_total=self._videos_total,
                source=source,
                frame_index=progress.frame_index,
                frames_done=progress.frames_done,
                frames_total=progress.frames_total,
                tracks_live=progress.tracks_live,
                stage=progress.stage,
                seconds=progress.seconds,
                frames_per_second=rate,
                seconds_left=frames_left / rate if rate > 0 else None,
                steps_done=progress.steps_done,
                steps_total=progress.steps_total,
            )
            self._job.report(now)
            if self._on_progress is not None:
                self._on_progress(now)

        return report


class Remembered:
    """Questions whose first yes is remembered: the pipeline asks them, and we must know what it was told."""

    def __init__(self, *questions: Callable[[], bool] | None) -> None:
        self._questions = [question for question in questions if question is not None]
        self.answer = False

    def __call__(self) -> bool:
        """Ask, unless one of them has said yes already."""
        if not self.answer:
            self.answer = any(question() for question in self._questions)
        return self.answer
