"""The library's front door: the same things as the command line, from Python.

    import fiftyone_plugin as shepherd

    result = shepherd.track("flock.mp4", "sheep. dog.")
    shepherd.write_tracks("tracks.txt", result)

Paths or `FrameSource` objects are taken alike. FiftyOne is imported only by the functions that touch a dataset.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fiftyone_plugin import exporters, metrics, pipeline, registry, runner
from fiftyone_plugin.config import TrackingOptions, preset
from fiftyone_plugin.errors import OptionError, TrackFileError, VideoError
from fiftyone_plugin.exporters import overlay
from fiftyone_plugin.interfaces import FrameSource
from fiftyone_plugin.pipeline import ObjectPrompt, Progress
from fiftyone_plugin.types import Track, TrackingResult
from fiftyone_plugin.video import open_source
from fiftyone_plugin.video.images import list_images

__all__ = [
    "check_output",
    "evaluate",
    "follow",
    "models",
    "open_source",
    "preview",
    "prompt_dataset",
    "read_tracks",
    "repair",
    "repair_dataset",
    "segment",
    "track",
    "track_dataset",
    "track_into_dataset",
    "write_tracks",
]

VIDEO_FORMAT = "video"
"""Pseudo-format: the frames with the tracks drawn on them."""
_VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".avi", ".webm")

track_dataset = runner.track_dataset
prompt_dataset = runner.prompt_dataset
repair_dataset = runner.repair_dataset


def track(
    source: str | Path | FrameSource,
    prompt: str,
    *,
    models: str | None = None,
    options: TrackingOptions | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = pipeline.CHECKPOINT_FRAMES,
    resume: bool = False,
    on_progress: Callable[[Any], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    deliver: Callable[[TrackingResult], None] | None = None,
) -> TrackingResult:
    """Find what the prompt names in a video, and follow it with identities that are checked and repaired.

    Args:
        source: Video file, folder of frames, image, or an open source.
        prompt: Classes, separated by periods, commas or new lines.
        models: A preset (``bundled``, ``fast``, ``accurate``); None takes the models of `options`.
        options: Everything else.
        checkpoint: Folder in which the state is kept while it works, so that a run that was killed can go on. By
            default nothing is kept, or, with `resume`, in a folder of the run's own (`jobs.jobs_folder`).
        checkpoint_every: Frames between two checkpoints.
        resume: Go on from the checkpoint, if there is one; the result is that of an uninterrupted run.
        on_progress: Called after every frame with a `Progress`, with checkpoints a `JobProgress`, which says more.
        should_stop: Asked before every frame.
        deliver: Called with the result while the checkpoint is still there: the place to write it.

    Raises:
        InputError: Something that was given cannot be used; see `errors`.
    """
    video, chosen = _opened(source), _with_preset(options, models)
    if checkpoint is None and not resume:
        result = pipeline.track(video, prompt, chosen, on_progress=on_progress, should_stop=should_stop)
        if deliver is not None:
            deliver(result)
        return result
    return runner.track_file(
        video,
        prompt,
        folder=runner.job_folder(video, prompt, chosen) if checkpoint is None else Path(checkpoint),
        options=chosen,
        resume=resume,
        every_frames=checkpoint_every,
        deliver=deliver,
        on_progress=on_progress,
        should_stop=should_stop,
    )


def segment(
    images: str | Path | Sequence[str | Path],
    prompt: str,
    *,
    models: str | None = None,
    options: TrackingOptions | None = None,
    on_failure: Callable[[str], None] | None = None,
) -> Iterator[TrackingResult]:
    """Find what the prompt names in images that have nothing to do with each other: masks, and no identities.

    Args:
        images: An image, a folder of images, or images; their sizes may differ.
        prompt: Classes, separated by periods, commas or new lines.
        models: A preset; None takes the models of `options`.
        options: Models, detection settings and device.
        on_failure: Called with one line for each image that cannot be read, which is then left out; without it, that
            is an error.

    Yields:
        One result for each image, in order: its tracks have one frame, and their ids mean nothing beyond the image.

    Raises:
        InputError: Something that was given cannot be used; see `errors`.
    """
    given = [images] if isinstance(images, str | Path) else images
    paths = [p for each in map(Path, given) for p in (list_images(each) if each.is_dir() else [each])]
    chosen = _with_preset(options, models)
    chosen = replace(chosen, identity=replace(chosen.identity, repair=False), start=0, stop=None)
    for path in paths:
        try:
            result = pipeline.track(open_source(path), prompt, chosen)
        except VideoError as error:
            if on_failure is None:
                raise
            on_failure(str(error))
            continue
        yield replace(result, warnings=())


def preview(
    source: str | Path | FrameSource,
    prompt: str,
    *,
    models: str | None = None,
    options: TrackingOptions | None = None,
    frames: int = 4,
) -> list[tuple[Any, Any]]:
    """Let the detector look at a few frames: pairs of `Frame` and `Detections`."""
    return list(pipeline.preview(_opened(source), prompt, _with_preset(options, models), frames=frames))


def follow(
    source: str | Path | FrameSource,
    prompts: Sequence[ObjectPrompt],
    *,
    models: str | None = None,
    options: TrackingOptions | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = pipeline.CHECKPOINT_FRAMES,
    resume: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> TrackingResult:
    """Track exactly the objects that are pointed at, from there to the end and back to the first frame.

    Args:
        source: Video file, folder of frames, or an open source.
        prompts: One for each object and frame that it is pointed at on: `ObjectPrompt(frame_index, phrase, Seed(...))`
            with a box, a mask or clicks.
        models: A preset; None takes the models of `options`.
        options: Models, frame range, evidence and identity settings; the detector is not used.
        checkpoint: Folder in which the state is kept while it works; by default nothing is.
        checkpoint_every: Frames between two checkpoints.
        resume: Go on from the checkpoint, if there is one; the result is that of an uninterrupted run.
        on_progress: Called after every frame; a frame on the way back counts as one more.
        should_stop: Asked before every frame.

    Raises:
        OptionError: `resume` without a folder.
        InputError: Something else that was given cannot be used; see `errors`.
    """
    return pipeline.follow(
        _opened(source),
        prompts,
        _with_preset(options, models),
        on_progress=on_progress,
        should_stop=should_stop,
        checkpointing=_checkpointing(checkpoint, checkpoint_every, resume=resume),
    )


def repair(
    source: str | Path | FrameSource,
    tracks: str | Path | Sequence[Track],
    *,
    models: str | None = None,
    options: TrackingOptions | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = pipeline.CHECKPOINT_FRAMES,
    resume: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> TrackingResult:
    """Audit and repair the identities of tracks that another tool made.

    Args:
        source: The video they were made on.
        tracks: Tracks, or a file with them.
        models: A preset, of which the embedder is used.
        options: Embedder, evidence and identity settings.
        checkpoint: Folder in which the state is kept while it works; by default nothing is.
        checkpoint_every: Frames between two checkpoints.
        resume: Go on from the checkpoint, if there is one; the result is that of an uninterrupted run.
        on_progress: Called after every frame.
        should_stop: Asked before every frame.

    Raises:
        OptionError: `resume` without a folder, or a number of objects of a class that no track has.
        InputError: Something else that was given cannot be used; see `errors`.
    """
    video = _opened(source)
    known = read_tracks(tracks) if isinstance(tracks, str | Path) else tracks
    return pipeline.repair(
        video,
        known,
        runner.with_counts_as_written(_with_preset(options, models), [t.phrase for t in known]),
        on_progress=on_progress,
        should_stop=should_stop,
        checkpointing=_checkpointing(checkpoint, checkpoint_every, resume=resume),
    )


def track_into_dataset(
    name: str,
    source: str | Path,
    prompt: str,
    *,
    field: str = "tracks",
    options: TrackingOptions | None = None,
    overwrite: bool = False,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = pipeline.CHECKPOINT_FRAMES,
    resume: bool = False,
    on_progress: Callable[[Any], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    deliver: Callable[[TrackingResult], None] | None = None,
) -> TrackingResult:
    """Track one video file and write the tracks as labels of a persistent FiftyOne dataset.

    The dataset is made if there is none of that name; the video is added if it is not in it. A run that was stopped
    writes what it has, and may be repeated without `overwrite`. For the other arguments see `track`.

    Raises:
        FieldConflictError: The field is not ours, or holds tracks and `overwrite` was not given. Asked first.
        InputError: Something else cannot be used; see `errors`.
    """
    from fiftyone_plugin import labels

    video = open_source(source)
    target = labels.video_target(name, Path(source), info=video.info)
    labels.require_writable(labels.dataset_of(target), field, [labels.target_id(target)], overwrite=overwrite)

    def write(result: TrackingResult) -> None:
        labels.write_tracks(target, field, result, overwrite=overwrite, is_complete=not result.was_stopped)
        if deliver is not None:
            deliver(result)

    return track(
        video,
        prompt,
        options=options,
        checkpoint=checkpoint,
        checkpoint_every=checkpoint_every,
        resume=resume,
        on_progress=on_progress,
        should_stop=should_stop,
        deliver=write,
    )


def read_tracks(path: str | Path, format: str | None = None) -> tuple[Track, ...]:
    """Tracks from a MOT, COCO (YouTube-VIS), CVAT or DAVIS file.

    Raises:
        TrackFileError: It cannot be read.
    """
    return exporters.import_tracks(path, format)


def check_output(path: Path, format: str | None) -> str:
    """The format that a path is going to be written in, before an hour is spent on what fills it.

    Raises:
        OptionError: No such format.
        OutputError: There is no folder to write it into.
    """
    name = format or (VIDEO_FORMAT if path.suffix.lower() in _VIDEO_SUFFIXES else exporters.guess_format(path))
    allowed = (*exporters.FORMATS, VIDEO_FORMAT)
    if name not in allowed:
        raise OptionError(f"format = {name!r}: must be one of {', '.join(allowed)}")
    exporters.check_writable(path)
    return name


def write_tracks(
    path: str | Path,
    result: TrackingResult,
    *,
    format: str | None = None,
    source: str | Path | FrameSource | None = None,
) -> None:
    """Write the tracks of a result; the format is told from the name unless given.

    Args:
        path: File, or folder for davis.
        result: Of `track` or `repair`.
        format: ``mot``, ``coco``, ``davis``, ``cvat``, or ``video`` for the frames with the tracks drawn on them.
        source: The frames, for ``video``; by default those that the result names.

    Raises:
        OutputError: It cannot be written; nothing of it is left behind.
    """
    name = check_output(Path(path), format)
    if name == VIDEO_FORMAT:
        overlay.write_video(path, _opened(source or result.video.source), result.tracks)
    else:
        exporters.export_tracks(result, None, path, name)


def evaluate(ground_truth: str | Path | Sequence[Track], predictions: str | Path | Sequence[Track]) -> metrics.Scores:
    """HOTA, CLEAR and identity scores of tracks against a ground truth, classes pooled.

    Raises:
        TrackFileError: A file cannot be read.
    """
    truth = _known(ground_truth, is_ground_truth=True)
    return metrics.evaluate(truth, _known(predictions, is_ground_truth=False))


def _known(tracks: str | Path | Sequence[Track], *, is_ground_truth: bool) -> Sequence[Track]:
    if not isinstance(tracks, str | Path):
        return tracks
    if not Path(tracks).exists():
        raise TrackFileError(f"{tracks}: there is no such file")
    if is_ground_truth and exporters.guess_format(tracks) == "mot":
        return exporters.read_mot(tracks, is_ground_truth=True)
    return exporters.import_tracks(tracks)


def models() -> list[dict[str, str]]:
    """Every backend and variant: what it is, what it needs, and whether its weights are here."""
    return registry.overview()


def _checkpointing(folder: str | Path | None, every_frames: int, *, resume: bool) -> pipeline.Checkpointing | None:
    if folder is None:
        if resume:
            raise OptionError("resume=True: say where the checkpoint is, as checkpoint=FOLDER")
        return None
    return pipeline.Checkpointing(Path(folder), resume=resume, every_frames=every_frames)


def _opened(source: str | Path | FrameSource) -> FrameSource:
    return open_source(source) if isinstance(source, str | Path) else source


def _with_preset(options: TrackingOptions | None, models: str | None) -> TrackingOptions:
    chosen = options or TrackingOptions()
    return chosen if models is None else replace(chosen, models=preset(models))
