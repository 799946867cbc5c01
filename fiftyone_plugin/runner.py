"""Jobs: one video, or every video of a dataset one after another; they survive being killed, and can be cancelled.

A job has a folder with its record and the checkpoints of the video that is half done (`jobs`); who asks for the same
again goes on there, and ends with the same result as if nothing had happened.

Knows nothing of how tracks are made (`pipeline`) or stored (`labels`), and nothing of forms.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from fiftyone_plugin import jobs, pipeline, registry
from fiftyone_plugin.config import TrackingOptions, check_counts
from fiftyone_plugin.detectors.prompt import parse_prompt
from fiftyone_plugin.errors import FieldConflictError
from fiftyone_plugin.identity.constraints import Constraint
from fiftyone_plugin.interfaces import FrameSource
from fiftyone_plugin.jobs import DatasetSummary, Finding, Job, JobProgress, JobState, VideoOutcome, stream
from fiftyone_plugin.jobs.each_video import (
    OnProgress,
    Remembered,
    Reporter,
    dataset_job,
    each_video,
    open_job,
    outcome_of,
    targets_of,
)
from fiftyone_plugin.jobs.outcome import load_outcome, save_outcome
from fiftyone_plugin.pipeline import CHECKPOINT_FRAMES, Checkpointing
from fiftyone_plugin.pipeline.audit import digest_of_tracks
from fiftyone_plugin.pipeline.packing import digest
from fiftyone_plugin.types import Track, TrackingResult

__all__ = [
    "DatasetSummary",
    "JobProgress",
    "VideoOutcome",
    "finished_before",
    "finished_from",
    "has_checkpoint",
    "job_folder",
    "prompt_dataset",
    "repair_dataset",
    "repair_file",
    "repair_folder",
    "stream",
    "track_dataset",
    "track_file",
    "with_counts_as_written",
]

_ONLY_VIDEO = "video"
"""Name of the checkpoint in a job over one file."""


def job_folder(source: FrameSource, prompt: str, options: TrackingOptions) -> Path:
    """Where the job of tracking one file keeps its record: the same for the same path, prompt and settings."""
    path = Path(source.info.source).expanduser().resolve()
    key = json.dumps(options.as_dict(), sort_keys=True)
    return jobs.jobs_folder() / jobs.job_id_of(path.name, str(path), prompt, key)


def repair_folder(source: FrameSource, tracks: Sequence[Track], options: TrackingOptions) -> Path:
    """Where the job of auditing one file's tracks keeps its record: the same for the same path, tracks and settings."""
    return job_folder(source, f"audit of {digest_of_tracks(tracks)}", options)


def has_checkpoint(folder: Path) -> bool:
    """Whether the job of one file that has this folder can go on in the middle of it."""
    return pipeline.is_checkpoint(Job.checkpoints_of(folder) / _ONLY_VIDEO)


def track_file(
    source: FrameSource,
    prompt: str,
    *,
    folder: Path,
    options: TrackingOptions | None = None,
    resume: bool = False,
    every_frames: int = CHECKPOINT_FRAMES,
    deliver: Callable[[TrackingResult], None] | None = None,
    on_progress: Callable[[JobProgress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> TrackingResult:
    """Track one video as a job: with a record that other processes can read, and checkpoints.

    Args:
        source: The video.
        prompt: Classes, separated by periods, commas or new lines.
        folder: Of the job, such as `job_folder` gives; made if it is not there.
        options: Models and settings.
        resume: Go on from the checkpoint in the folder, if there is one.
        every_frames: Frames between two checkpoints.
        deliver: Writes the result. The checkpoint is kept until it has returned.
        on_progress: Called after every frame.
        should_stop: Asked before every frame; the result then covers the frames up to there.

    Raises:
        JobError: Another process works on this job, or the checkpoint belongs to another run.
        OutputError: The folder cannot be made.
        InputError: Something else that was given cannot be used.
    """
    options = options or TrackingOptions()
    title = f"Track {prompt!r} in {source.info.source}"
    name = source.info.source
    with open_job(folder, title=title, source=name, prompt=prompt) as job:
        result = pipeline.track(
            source,
            prompt,
            options,
            on_progress=Reporter(job, on_progress, videos_total=1).of_video(1, name, videos_after=0),
            should_stop=Remembered(should_stop, job.should_stop),
            checkpointing=Checkpointing(job.checkpoint_folder(_ONLY_VIDEO), resume=resume, every_frames=every_frames),
        )
        _deliver(job, result, deliver)
    return result


def repair_file(
    source: FrameSource,
    tracks: Sequence[Track],
    *,
    folder: Path,
    options: TrackingOptions | None = None,
    resume: bool = False,
    every_frames: int = CHECKPOINT_FRAMES,
    deliver: Callable[[TrackingResult], None] | None = None,
    on_progress: Callable[[JobProgress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> TrackingResult:
    """Audit and repair the tracks of one video as a job: with a record that other processes can read, and checkpoints.

    Args:
        source: The video the tracks were made on.
        tracks: From any tool.
        folder: Of the job, such as `repair_folder` gives; made if it is not there.
        options: Embedder, evidence and identity settings.
        resume: Go on from the checkpoint in the folder, if there is one.
        every_frames: Frames between two checkpoints.
        deliver: Writes the result. The checkpoint is kept until it has returned.
        on_progress: Called after every frame.
        should_stop: Asked before every frame; later frames are then not looked at.

    Raises:
        JobError: Another process works on this job, or the checkpoint belongs to another run.
        OutputError: The folder cannot be made.
        InputError: Something else that was given cannot be used.
    """
    name = source.info.source
    with open_job(folder, title=f"Audit {len(tracks)} tracks of {name}", source=name) as job:
        result = pipeline.repair(
            source,
            tracks,
            options,
            on_progress=Reporter(job, on_progress, videos_total=1).of_video(1, name, videos_after=0),
            should_stop=Remembered(should_stop, job.should_stop),
            checkpointing=Checkpointing(job.checkpoint_folder(_ONLY_VIDEO), resume=resume, every_frames=every_frames),
        )
        _deliver(job, result, deliver)
    return result


def track_dataset(
    dataset_or_view: Any,
    prompt: str,
    *,
    field: str = "tracks",
    options: TrackingOptions | None = None,
    overwrite: bool = False,
    resume: bool = True,
    every_frames: int = CHECKPOINT_FRAMES,
    on_progress: Callable[[JobProgress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> DatasetSummary:
    """Track what the prompt names in every video, or image sequence, of a dataset, and write labels as each is done.

    A video that fails is reported, and the next one begins. Videos that an earlier call with the same prompt and
    settings finished are left as they are, and the one that it was in the middle of goes on from its last checkpoint:
    so the same call goes on after a failure, a stop or a kill, and ends with the same labels. What a person
    said about identities in an earlier run of the field (`labels.read_constraints`) holds.

    Args:
        dataset_or_view: A dataset, a view, or the name of a dataset; videos or images in ordered groups.
        prompt: Classes, separated by periods, commas or new lines.
        field: Frame field for the labels; events go to ``<field>_events``.
        options: Models and settings.
        overwrite: Replace what this plugin wrote to the field of these videos before.
        resume: False starts the video over that an earlier call was in the middle of.
        every_frames: Frames between two checkpoints.
        on_progress: Called after every frame.
        should_stop: Asked before every frame, as is whether somebody cancelled the job (`jobs.cancel`). What was
            tracked of the current video is written, but counts as unfinished.

    Raises:
        PromptError: The prompt names no class.
        OptionError: A number of objects is known of a class that the prompt does not name.
        VideoError: There is nothing to track in the dataset.
        FieldConflictError: The field is not ours, or holds tracks of another prompt or other settings and `overwrite`
            was not given.
        JobError: Another process works on this field.
        ModelUnavailableError: Weights are missing.
    """
    from fiftyone_plugin import labels

    options = options or TrackingOptions()
    check_counts(options.identity.counts, parse_prompt(prompt))
    targets, ids, dataset = targets_of(dataset_or_view)
    done = finished_before(dataset, field, ids, prompt, options, overwrite=overwrite)
    with dataset_job(f"Track {prompt!r} in {dataset.name}", dataset, field, prompt) as job:
        backends = pipeline.Backends.load(options) if len(done) < len(ids) else None

        def track(target: Any, progress: OnProgress, was_asked: Remembered) -> VideoOutcome | None:
            key = labels.target_id(target)
            result = pipeline.track(
                labels.open_target(target),
                prompt,
                options,
                on_progress=progress,
                should_stop=was_asked,
                backends=backends,
                checkpointing=Checkpointing(
                    job.checkpoint_folder(key), resume=resume, is_strict=False, every_frames=every_frames
                ),
                constraints=labels.read_constraints(target, field, key),
            )
            if result.frames_processed or not result.was_stopped:
                labels.write_tracks(target, field, result, overwrite=overwrite, is_complete=not result.was_stopped)
            if not result.was_stopped:
                shutil.rmtree(job.checkpoint_folder(key), ignore_errors=True)
            return outcome_of(labels.describe(target), result)

        return each_video(job, targets, field, track, done=done, on_progress=on_progress, should_stop=should_stop)


def prompt_dataset(
    dataset_or_view: Any,
    from_field: str,
    *,
    field: str = "tracks",
    label_ids: Collection[str] | None = None,
    options: TrackingOptions | None = None,
    overwrite: bool = False,
    resume: bool = True,
    every_frames: int = CHECKPOINT_FRAMES,
    on_progress: Callable[[JobProgress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> DatasetSummary:
    """Track exactly the objects that labels point at, forwards and backwards, in every video that has such labels.

    A video that fails is reported, and the next one begins. The same call goes on after a failure, a stop or a kill,
    and ends with the same labels: see `track_dataset`.

    Args:
        dataset_or_view: A dataset, a view, or the name of a dataset; videos or images in ordered groups.
        from_field: Field with boxes, masks, outlines or keypoints on any frames (`labels.object_prompts`); only read.
        field: Frame field for the tracks.
        label_ids: Only these labels of `from_field`; videos without any of them are passed over.
        options: Propagator, embedder, frame range, identity settings.
        overwrite: Replace what this plugin wrote to `field` of these videos before.
        resume: False starts the video over that an earlier call was in the middle of.
        every_frames: Frames between two checkpoints.
        on_progress: Called after every frame.
        should_stop: Asked before every frame; what was tracked of the current video is written, as unfinished.

    Raises:
        VideoError: There is nothing in the dataset.
        FieldConflictError: `field` is not ours, or holds tracks of other labels or other settings and `overwrite` was
            not given.
        JobError: Another process works on `field`.
        ModelUnavailableError: Weights are missing.
        EditError: No video has a label to begin with.
    """
    from fiftyone_plugin import labels

    options = options or TrackingOptions()
    if field == from_field:
        raise FieldConflictError(f"field {field!r}: holds the labels that are read; give another field for the tracks")
    targets, ids, dataset = targets_of(dataset_or_view)

    def given(target: Any) -> str:
        return labels.fingerprint(target, from_field, label_ids=label_ids)

    marks = {key: found for key, target in zip(ids, targets, strict=True) if (found := given(target))}
    by_id = {key: target for key, target in zip(ids, targets, strict=True) if key in marks}
    done = finished_from(dataset, field, marks, from_field, options, overwrite=overwrite)
    _require_unchanged({key: by_id[key] for key in done}, field, from_field, lambda key: marks[key])
    marked = [
        target
        for key, target in by_id.items()
        if key in done or labels.has_prompts(target, from_field, label_ids=label_ids)
    ]
    if not marked:
        labels.object_prompts(targets[0], from_field, label_ids=label_ids)  # says what is missing

    with dataset_job(f"Track labels of {from_field!r} in {dataset.name}", dataset, field, "") as job:
        models: dict[str, Any] = {}
        if len(done) < len(marked):
            models["propagator"] = registry.make_propagator(
                options.models.propagator, device=options.device, options=options.propagation
            )
            models["embedder"] = registry.make_embedder(
                options.models.embedder, device=options.device, propagator=models["propagator"]
            )

        def follow(target: Any, progress: OnProgress, was_asked: Remembered) -> VideoOutcome | None:
            key = labels.target_id(target)
            seen, prompts = given(target), labels.object_prompts(target, from_field, label_ids=label_ids)
            result = pipeline.follow(
                labels.open_target(target),
                prompts,
                options,
                on_progress=progress,
                should_stop=was_asked,
                checkpointing=Checkpointing(
                    job.checkpoint_folder(key), resume=resume, is_strict=False, every_frames=every_frames
                ),
                constraints=labels.read_constraints(target, field, key),
                **models,
            )
            result = _made_from(result, from_field, seen)
            if result.tracks or not result.was_stopped:
                labels.write_tracks(target, field, result, overwrite=overwrite, is_complete=not result.was_stopped)
            if not result.was_stopped:
                shutil.rmtree(job.checkpoint_folder(key), ignore_errors=True)
            return outcome_of(labels.describe(target), result)

        return each_video(job, marked, field, follow, done=done, on_progress=on_progress, should_stop=should_stop)


def repair_dataset(
    dataset_or_view: Any,
    from_field: str,
    *,
    field: str = "tracks_repaired",
    options: TrackingOptions | None = None,
    dry_run: bool = False,
    overwrite: bool = False,
    resume: bool = True,
    every_frames: int = CHECKPOINT_FRAMES,
    on_progress: Callable[[JobProgress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> DatasetSummary:
    """Audit and repair the tracks of a label field, from whatever tool, and write them to another field.

    A video that fails is reported, and the next one begins. The same call goes on after a failure, a stop or a kill,
    and ends with the same labels, or the same report: see `track_dataset`.

    Args:
        dataset_or_view: A dataset, a view, or the name of a dataset.
        from_field: Frame field with `Detections` that have an `index` or an `instance`; is only read.
        field: New frame field for the repaired tracks.
        options: Embedder, evidence and identity settings.
        dry_run: Report only, write nothing.
        overwrite: Replace what this plugin wrote to `field` before.
        resume: False starts the video over that an earlier call was in the middle of.
        every_frames: Frames between two checkpoints.
        on_progress: Called after every frame.
        should_stop: Asked before every frame; the video it falls in is not written.

    Raises:
        VideoError: There is nothing in the dataset.
        OptionError: A number of objects is known of a class that no track has.
        FieldConflictError: `field` is not ours, or holds tracks of other labels or other settings and `overwrite` was
            not given.
        JobError: Another process works on `field`.
    """
    from fiftyone_plugin import labels

    options = options or TrackingOptions()
    if field == from_field and not dry_run:
        raise FieldConflictError(f"field {field!r}: holds the tracks that are read; give another field for the result")
    targets, ids, dataset = targets_of(dataset_or_view)
    if options.identity.counts:
        asked = labels.load_dataset(dataset_or_view) if isinstance(dataset_or_view, str) else dataset_or_view
        options = with_counts_as_written(options, labels.classes_of(asked, from_field))

    def read(target: Any) -> tuple[tuple[Constraint, ...], str]:
        """What a person said of the tracks, and a text that differs where the tracks do, or that."""
        said = labels.read_constraints(target, from_field)
        return said, f"{labels.fingerprint(target, from_field)}/{digest(said)}"

    done: set[str] = set()
    if not dry_run:
        done = finished_from(dataset, field, ids, from_field, options, overwrite=overwrite)
        finished = {key: target for key, target in zip(ids, targets, strict=True) if key in done}
        _require_unchanged(finished, field, from_field, lambda key: read(finished[key])[1])

    def repair(target: Any, progress: OnProgress, was_asked: Remembered) -> VideoOutcome | None:
        key = labels.target_id(target)
        said, given = read(target)
        place, about = job.checkpoint_folder(key), {"given": given, "options": labels.as_plain(options)}
        if dry_run and resume and (known := load_outcome(place, about)) is not None:
            return known
        before = labels.read_tracks(target, from_field)
        result = pipeline.repair(
            labels.open_target(target),
            before,
            options,
            on_progress=progress,
            should_stop=was_asked,
            checkpointing=Checkpointing(place, resume=resume, is_strict=False, every_frames=every_frames),
            constraints=said,
        )
        if was_asked.answer:
            return None
        outcome = outcome_of(labels.describe(target), result, tracks_before=len(before))
        outcome = replace(outcome, findings=_findings(result))
        if not dry_run:
            labels.write_tracks(target, field, _made_from(result, from_field, given), overwrite=overwrite)
        shutil.rmtree(place, ignore_errors=True)
        if dry_run:
            # There are no labels that would tell the next call that this video is done.
            save_outcome(place, about, outcome)
        return outcome

    title = f"Audit {from_field!r} of {dataset.name}"
    with dataset_job(title, dataset, from_field if dry_run else field, "", is_dry_run=dry_run) as job:
        written = "" if dry_run else field
        return each_video(job, targets, written, repair, done=done, on_progress=on_progress, should_stop=should_stop)


def finished_before(
    dataset: Any, field: str, ids: Sequence[str], prompt: str, options: TrackingOptions, *, overwrite: bool
) -> set[str]:
    """Which targets an earlier call with the same prompt and settings finished, so that they can be left out.

    Raises:
        FieldConflictError: The field is not ours, or holds tracks of another prompt or other settings and `overwrite`
            is False.
        OptionError: It cannot be the name of a field.
    """
    return _finished(dataset, field, ids, {"prompt": prompt, **options.as_dict()}, overwrite=overwrite)


def finished_from(
    dataset: Any, field: str, ids: Iterable[str], from_field: str, options: TrackingOptions, *, overwrite: bool
) -> set[str]:
    """Which targets an earlier call that read the same field with the same settings finished: marks, or an audit.

    Whether the labels in `from_field` are still the same is not looked at.

    Raises:
        FieldConflictError: As for `finished_before`.
        OptionError: It cannot be the name of a field.
    """
    return _finished(dataset, field, ids, {"from_field": from_field, **options.as_dict()}, overwrite=overwrite)


def _finished(
    dataset: Any, field: str, ids: Iterable[str], settings: Mapping[str, Any], *, overwrite: bool
) -> set[str]:
    from fiftyone_plugin import labels

    state, asked = labels.field_state(dataset, field), set(ids)
    wanted = labels.as_plain(settings)
    if state.is_ours and not overwrite and wanted.items() <= state.settings.items():
        return asked & state.finished
    labels.require_writable(dataset, field, asked, overwrite=overwrite)
    return set()


def _deliver(job: Job, result: TrackingResult, deliver: Callable[[TrackingResult], None] | None) -> None:
    """Have the result of a job over one file written, and only then give up its checkpoint."""
    if deliver is not None:
        deliver(result)
    message = f"{len(result.tracks)} tracks in {result.frames_processed} frames"
    job.finish(JobState.CANCELLED if result.was_stopped else JobState.FINISHED, message=message)


def with_counts_as_written(options: TrackingOptions, classes: Iterable[str]) -> TrackingOptions:
    """Known numbers of objects under the names that the tracks have: people write `sheep=3` of tracks called Sheep.

    Raises:
        OptionError: There is a number of a class that no track has.
    """
    written = {" ".join(name.lower().split()): name for name in classes}
    counts = {" ".join(name.lower().split()): count for name, count in options.identity.counts.items()}
    if not counts or not written:
        return options
    check_counts(counts, list(written))
    counts = {written[name]: count for name, count in counts.items()}
    return replace(options, identity=replace(options.identity, counts=counts))


def _findings(result: TrackingResult) -> tuple[Finding, ...]:
    """Repairs and doubts as the review panel has them, in order of time."""
    from fiftyone_plugin import labels

    items = sorted(labels.review_items(labels.summary_of(result)), key=lambda item: (item.start, item.stop))
    return tuple(Finding(**{f.name: getattr(item, f.name) for f in fields(Finding)}) for item in items)


def _made_from(result: TrackingResult, from_field: str, given: str) -> TrackingResult:
    """A result that remembers which labels it was made of."""
    return replace(result, settings={**result.settings, "from_field": from_field, "given": given})


def _require_unchanged(finished: Mapping[str, Any], field: str, from_field: str, given: Callable[[str], str]) -> None:
    """Make sure that finished targets were made of the labels that there are now; `given` tells these by target id.

    Raises:
        FieldConflictError: One was not.
    """
    from fiftyone_plugin import labels

    summaries = labels.read_summaries([*finished.values()], field)
    for (key, target), summary in zip(finished.items(), summaries, strict=True):
        if summary is None or summary["settings"].get("given") != given(key):
            raise FieldConflictError(
                f"field {field!r} of {labels.describe(target)}: holds tracks of other labels of {from_field!r} than "
                "are asked for now: give overwrite=True to replace them, or another field name"
            )
