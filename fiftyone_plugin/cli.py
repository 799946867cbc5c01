"""The command line. Results on stdout, progress and warnings on stderr.

Exit codes: 0 done, 2 bad input (one line, no traceback), 130 interrupted (everything finished is kept and written).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from fiftyone_plugin import __version__, api, exporters, jobs, runner
from fiftyone_plugin.config import (
    PRESETS,
    SPEED_PRESETS,
    AssociationOptions,
    DetectionOptions,
    IdentityOptions,
    PropagationOptions,
    TrackingOptions,
    parse_counts,
    preset,
    speed_preset,
)
from fiftyone_plugin.errors import InputError, OptionError, OutputError
from fiftyone_plugin.jobs import DatasetSummary, JobProgress, duration
from fiftyone_plugin.pipeline import CHECKPOINT_FRAMES
from fiftyone_plugin.report import decision_lines, summary, write_dataset_report, write_report
from fiftyone_plugin.types import TrackingResult

__all__ = ["main"]

_DATASET = "dataset:"
_FIELD, _REPAIRED_FIELD = "tracks", "tracks_repaired"
_TELL_SECONDS = 60.0
"""Between two lines of progress where there is no terminal for a bar."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    try:
        with _logged(is_terse=arguments.json), _interruptible(at_once=arguments.run is _bench) as was_interrupted:
            arguments.should_stop = was_interrupted
            arguments.exit_code = 0
            arguments.run(arguments)
            sys.stdout.flush()
            return 130 if was_interrupted() else arguments.exit_code
    except InputError as error:
        print(f"shepherd: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("shepherd: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output went away (`| head`): that is no error.
        _give_up_stdout()
        return 0


def _give_up_stdout() -> None:
    """Send what is left in the buffer nowhere: Python would try once more while it closes, and exit with 120."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _OnStderr(logging.Handler):
    """Log lines like all others on standard error, above a progress bar where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        try:
            tqdm.write(f"shepherd: {self.format(record)}", file=sys.stderr)
        except Exception:
            self.handleError(record)


@contextlib.contextmanager
def _logged(*, is_terse: bool) -> Iterator[None]:
    """Show what the library logs, from INFO on, or warnings only, while a command runs."""
    log = logging.getLogger("fiftyone_plugin")
    handler, before = _OnStderr(), (log.level, log.propagate)
    log.addHandler(handler)
    log.setLevel(logging.WARNING if is_terse else logging.INFO)
    # A package that set up the root logger would show every line a second time.
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before[0])
        log.propagate = before[1]


@contextlib.contextmanager
def _interruptible(*, at_once: bool) -> Iterator[Callable[[], bool]]:
    """Let the first Ctrl-C, or SIGTERM, end the run at the next frame, and the second one at once.

    Args:
        at_once: The first one ends it already: for what never asks whether it should stop.
    """
    asked = False
    signals = (signal.SIGINT, signal.SIGTERM)

    def on_interrupt(_signal: int, _frame: object) -> None:
        nonlocal asked
        if asked or at_once:
            raise KeyboardInterrupt
        asked = True
        print("\nshepherd: stopping after this frame; press Ctrl-C again to stop at once", file=sys.stderr)

    try:
        previous = [signal.signal(number, on_interrupt) for number in signals]
    except ValueError:  # not in the main thread: leave signals alone
        yield lambda: False
        return
    try:
        yield lambda: asked
    finally:
        for number, handler in zip(signals, previous, strict=True):
            signal.signal(number, handler)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="shepherd", description="Text in, trusted tracks out: find, follow and re-identify what you name."
    )
    parser.add_argument("--version", action="version", version=f"shepherd {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_track(commands)
    _add_repair(commands)
    _add_evaluate(commands)
    _add_jobs(commands)
    _add_models(commands)
    _add_bench(commands)
    return parser


def _add_demo(commands: Any) -> None:
    p = commands.add_parser(
        "demo", help="the bundled clip from text to repaired tracks, scored, with and without repair"
    )
    p.add_argument("--output", type=Path, default=Path("demo-output"), help="folder for pictures and tracks")
    p.add_argument("--dataset", default="shepherd-demo", help="FiftyOne dataset to write (default: %(default)s)")
    p.add_argument("--no-dataset", action="store_true", help="do not touch FiftyOne")
    _add_json(p)
    p.set_defaults(run=_demo)


def _add_track(commands: Any) -> None:
    p = commands.add_parser("track", help="find what a prompt names and carry it through a video")
    p.add_argument("source", help="video file, folder of frames, or dataset:NAME")
    p.add_argument("--prompt", required=True, help='classes, for example "sheep. dog."')
    _add_models_options(p)
    p.add_argument(
        "--images", action="store_true", help="unrelated images: masks, no identities; writes COCO instances"
    )
    p.add_argument("--no-repair", action="store_true", help="plain propagation, no identity repair")
    _add_count(p)
    p.add_argument("--mend-masks", action="store_true", help="fill gaps in tracks from both sides")
    d = AssociationOptions()
    p.add_argument(
        "--redetect-every",
        type=int,
        default=d.redetect_every_frames,
        metavar="FRAMES",
        help="frames between two looks of the detector (default: %(default)s; 0: the first frame only)",
    )
    t = DetectionOptions()
    p.add_argument("--box-threshold", type=float, default=t.box_threshold, help="default: %(default)s")
    p.add_argument("--text-threshold", type=float, default=t.text_threshold, help="default: %(default)s")
    p.add_argument("--max-tracks", type=int, default=d.max_tracks, help="objects at once (default: %(default)s)")
    p.add_argument("--start", type=int, default=0, metavar="F", help="first frame, 0-based")
    p.add_argument("--stop", type=int, default=None, metavar="F", help="frame after the last one")
    _add_propagation(p)
    _add_output(p)
    p.add_argument("--dataset", metavar="NAME", help="write the tracks into this FiftyOne dataset")
    p.add_argument("--field", help=f"frame field of the dataset (default: {_FIELD})")
    p.add_argument("--overwrite", action="store_true", help="replace tracks that an earlier run wrote to the field")
    _add_checkpoint(p)
    p.set_defaults(run=_track)


def _add_repair(commands: Any) -> None:
    p = commands.add_parser("repair", help="audit and repair tracks that another tool made")
    p.add_argument("source", help="video file, folder of frames, or dataset:NAME")
    p.add_argument("--tracks", required=True, help="track file (MOT, COCO, CVAT, DAVIS), or the dataset's field")
    p.add_argument("--embedder", default=None, help="default: that of --models")
    p.add_argument("--models", choices=sorted(PRESETS), default="bundled")
    p.add_argument("--device", default="auto")
    _add_count(p)
    p.add_argument("--dry-run", action="store_true", help="report only, write no tracks")
    p.add_argument("--field", help=f"new field for a dataset (default: {_REPAIRED_FIELD})")
    p.add_argument("--overwrite", action="store_true", help="replace tracks that an earlier run wrote to the field")
    _add_output(p)
    _add_checkpoint(p)
    p.set_defaults(run=_repair)


def _add_evaluate(commands: Any) -> None:
    p = commands.add_parser("evaluate", help="HOTA, AssA, DetA, IDF1, IDSW, MOTA and Frag against a ground truth")
    p.add_argument("--ground-truth", required=True, type=Path)
    p.add_argument("--predictions", required=True, type=Path)
    _add_json(p)
    p.set_defaults(run=_evaluate)


def _add_jobs(commands: Any) -> None:
    p = commands.add_parser("jobs", help="what is running on this machine, what was stopped and can go on")
    chosen = p.add_mutually_exclusive_group()
    chosen.add_argument("--cancel", metavar="JOB", help="stop after the current frame; what is finished is kept")
    chosen.add_argument("--forget", metavar="JOB", help="delete the record and the checkpoints of a job")
    _add_json(p)
    p.set_defaults(run=_jobs)


def _add_models(commands: Any) -> None:
    p = commands.add_parser("models", help="what is available, what it needs, where it is cached")
    _add_json(p)
    p.set_defaults(run=_models)


def _add_bench(commands: Any) -> None:
    p = commands.add_parser("bench", help="the benchmarks")
    p.add_argument("name", nargs="?", help="which one; without a name they are listed")
    p.add_argument("arguments", nargs=argparse.REMAINDER, help="passed on")
    p.set_defaults(run=_bench, json=False)


def _add_models_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--models", choices=sorted(PRESETS), default="bundled", help="preset (default: %(default)s)")
    p.add_argument("--detector", metavar="NAME[:VARIANT]")
    p.add_argument("--propagator", metavar="NAME[:VARIANT]")
    p.add_argument("--embedder", metavar="NAME[:VARIANT]")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")


def _add_propagation(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--preset",
        choices=sorted(SPEED_PRESETS),
        default="quality",
        help="what propagation gives up for speed (default: %(default)s); what follows overrides it",
    )
    for name, type_of, about in (
        ("image-scale", float, "side of the picture that the model sees, relative to its own, 0.25 to 2"),
        ("frame-stride", int, "carry objects to every n-th frame and interpolate between"),
        ("memory-frames", int, "latest frames that an object is compared with"),
        ("objects-per-batch", int, "objects that go through the networks at once"),
        ("encode-batch", int, "frames that a GPU encodes at once"),
    ):
        p.add_argument(f"--{name}", type=type_of, metavar="N", help=about)
    p.add_argument("--no-graphs", action="store_true", help="do without CUDA graphs")
    p.add_argument("--no-kernels", action="store_true", help="do without own Triton kernels")


def _add_count(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--count",
        action="append",
        default=[],
        metavar="CLASS=N",
        help="so many objects of a class there are in the video, for example sheep=3; may be repeated",
    )


def _add_checkpoint(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--resume", action="store_true", help="go on where an earlier run with the same settings was stopped or killed"
    )
    p.add_argument(
        "--checkpoint", type=Path, metavar="DIR", help="keep the state of the half-done video here, not in the home"
    )
    p.add_argument(
        "--checkpoint-every",
        type=int,
        default=CHECKPOINT_FRAMES,
        metavar="FRAMES",
        help="frames between two checkpoints (default: %(default)s)",
    )


def _add_output(p: argparse.ArgumentParser) -> None:
    p.add_argument("--output", type=Path, metavar="FILE", help="write the tracks here")
    p.add_argument("--format", help="mot, coco, davis, cvat or video; by default told from the file name")
    p.add_argument("--report", type=Path, metavar="FILE.json", help="every encounter, decision and repair")
    _add_json(p)


def _add_json(p: argparse.ArgumentParser) -> None:
    p.add_argument("--json", action="store_true", help="print one JSON object")


def _options(a: argparse.Namespace) -> TrackingOptions:
    models = preset(a.models)
    chosen = {k: v for k in ("detector", "propagator", "embedder") if (v := getattr(a, k, None)) is not None}
    return TrackingOptions(
        models=replace(models, **chosen),
        detection=DetectionOptions(box_threshold=a.box_threshold, text_threshold=a.text_threshold),
        association=AssociationOptions(redetect_every_frames=a.redetect_every, max_tracks=a.max_tracks),
        propagation=_propagation(a),
        identity=IdentityOptions(repair=not a.no_repair, counts=_counts(a), mend_masks=a.mend_masks),
        start=a.start,
        stop=a.stop,
        device=a.device,
    )


def _counts(a: argparse.Namespace) -> dict[str, int]:
    return {phrase: n for text in a.count for phrase, n in parse_counts(text, name="--count").items()}


def _propagation(a: argparse.Namespace) -> PropagationOptions:
    chosen: dict[str, Any] = {
        "image_scale": a.image_scale,
        "frame_stride": a.frame_stride,
        "memory_frames": a.memory_frames,
        "objects_per_batch": a.objects_per_batch,
        "encode_batch_frames": a.encode_batch,
        "graphs": False if a.no_graphs else None,
        "kernels": False if a.no_kernels else None,
    }
    return replace(speed_preset(a.preset), **{name: value for name, value in chosen.items() if value is not None})


def _demo(a: argparse.Namespace) -> None:
    from fiftyone_plugin.demo import run_demo

    dataset = None if a.no_dataset else a.dataset
    with _Bar() as bar:
        outcome = run_demo(a.output, dataset=dataset, on_progress=bar, should_stop=a.should_stop)
    _print(a, outcome.as_dict(), outcome.lines())


def _track(a: argparse.Namespace) -> None:
    options = _options(a)
    if a.images:
        _segment(a, options)
        return
    _check_files(a)
    if a.source.startswith(_DATASET):
        _track_dataset(a, options)
        return
    if not a.dataset:
        _refuse_without_dataset(a, way="give --dataset NAME")
    video = api.open_source(a.source)
    folder = a.checkpoint or runner.job_folder(video, a.prompt, options)
    _tell_of_checkpoint(a, runner.has_checkpoint(folder), "source, prompt and settings")
    settings: dict[str, Any] = {
        "options": options,
        "checkpoint": folder,
        "checkpoint_every": a.checkpoint_every,
        "resume": a.resume,
        "should_stop": a.should_stop,
        "deliver": lambda result: _write(a, result),
    }
    with _Bar() as bar:
        if a.dataset:
            result = api.track_into_dataset(
                a.dataset,
                a.source,
                a.prompt,
                field=a.field or _FIELD,
                overwrite=a.overwrite,
                on_progress=bar,
                **settings,
            )
        else:
            result = api.track(video, a.prompt, on_progress=bar, **settings)
    _tell_of_stop(a, result)
    _print(a, summary(result), _lines(a, result))


def _segment(a: argparse.Namespace, options: TrackingOptions) -> None:
    """Unrelated images: what has to do with time or with datasets does not go with them."""
    for name in ("dataset", "field", "overwrite", "report", "checkpoint", "resume", "format", "stop"):
        if getattr(a, name):
            raise OptionError(f"--{name} does not go with --images: leave it out")
    if a.source.startswith(_DATASET):
        raise OptionError(f"--images goes with an image or a folder, not with {a.source}: leave it out")
    if a.output is not None:
        exporters.check_writable(a.output)
    began = time.monotonic()
    failures: list[str] = []
    results: list[TrackingResult] = []
    for result in api.segment(a.source, a.prompt, options=options, on_failure=failures.append):
        if a.should_stop():
            break
        results.append(result)
    for line in failures:
        print(f"shepherd: {line}", file=sys.stderr)
    if a.output is not None:
        exporters.write_instances(a.output, results)
    objects = sum(len(r.tracks) for r in results)
    values = {
        "images": len(results),
        "objects": objects,
        "failures": len(failures),
        "seconds": round(time.monotonic() - began, 3),
    }
    lines = [f"{len(r.tracks)} in {r.video.source}" for r in results]
    _print(a, values, [*lines, f"{objects} objects in {len(results)} images"])


def _tell_of_checkpoint(a: argparse.Namespace, is_there: bool, identified_by: str) -> None:
    """Say at the start what else people would find out at the end."""
    if a.resume and not is_there:
        print(f"shepherd: no checkpoint of this run (same {identified_by}): begins anew", file=sys.stderr)
    elif is_there and not a.resume:
        print("shepherd: begins anew; --resume would go on where an earlier run was stopped", file=sys.stderr)


def _tell_of_stop(a: argparse.Namespace, result: TrackingResult) -> None:
    if result.was_stopped:
        a.exit_code = 130
        print("shepherd: the same command with --resume goes on from there", file=sys.stderr)


def _check_files(a: argparse.Namespace) -> None:
    """Find out before the work what could not be written after it, or would be forgotten."""
    if a.output is not None:
        api.check_output(a.output, a.format)
    elif a.format is not None:
        raise OptionError("--format goes with --output: name the file as well, or leave it out")
    if a.report is not None:
        exporters.check_writable(a.report)


def _refuse_without_dataset(a: argparse.Namespace, *, way: str) -> None:
    """Stop at what says how labels are written where none are."""
    for name in ("field", "overwrite"):
        if getattr(a, name):
            raise OptionError(f"--{name} goes with a dataset: {way}, or leave it out")


def _refuse_with_dataset(a: argparse.Namespace) -> None:
    """Stop at what goes with a file only."""
    if getattr(a, "dataset", None) is not None:
        raise OptionError("--dataset goes with a video or a folder: leave it out, the source is a dataset already")
    if a.output is not None:
        raise OptionError(
            "--output goes with a video or a folder: leave it out for a dataset, its labels are the result"
        )
    if a.checkpoint is not None:
        raise OptionError("--checkpoint goes with a video or a folder: set SHEPHERD_HOME for a dataset")


def _track_dataset(a: argparse.Namespace, options: TrackingOptions) -> None:
    _refuse_with_dataset(a)
    with _Bar() as bar:
        outcome = api.track_dataset(
            a.source.removeprefix(_DATASET),
            a.prompt,
            field=a.field or _FIELD,
            options=options,
            overwrite=a.overwrite,
            every_frames=a.checkpoint_every,
            on_progress=bar,
            should_stop=a.should_stop,
        )
    _tell_failures(a, outcome)
    _write_dataset(a, outcome)
    _print(a, outcome.as_dict(), outcome.lines())


def _write_dataset(a: argparse.Namespace, outcome: DatasetSummary) -> None:
    if a.report is None:
        return
    from fiftyone_plugin import labels

    known = labels.field_report(a.source.removeprefix(_DATASET), outcome.field) if outcome.field else {}
    write_dataset_report(a.report, outcome.as_dict(), known)


def _tell_failures(a: argparse.Namespace, outcome: DatasetSummary) -> None:
    for line in outcome.failure_lines():
        print(f"shepherd: {line}", file=sys.stderr)
    a.exit_code = 2 if outcome.is_failed else 130 if outcome.was_cancelled else 0


def _repair(a: argparse.Namespace) -> None:
    options = TrackingOptions(
        models=replace(preset(a.models), **({"embedder": a.embedder} if a.embedder else {})),
        identity=IdentityOptions(counts=_counts(a)),
        device=a.device,
    )
    _check_files(a)
    if a.source.startswith(_DATASET):
        _repair_dataset(a, options)
        return
    _refuse_without_dataset(a, way="give the source as dataset:NAME")
    if a.dry_run:
        a.output = None
    video, before = api.open_source(a.source), api.read_tracks(Path(a.tracks))
    options = runner.with_counts_as_written(options, [t.phrase for t in before])
    folder = a.checkpoint or runner.repair_folder(video, before, options)
    _tell_of_checkpoint(a, runner.has_checkpoint(folder), "source, tracks and settings")
    with _Bar() as bar:
        result = runner.repair_file(
            video,
            before,
            folder=folder,
            options=options,
            resume=a.resume,
            every_frames=a.checkpoint_every,
            deliver=lambda result: _write(a, result),
            on_progress=bar,
            should_stop=a.should_stop,
        )
    _tell_of_stop(a, result)
    values = summary(result)
    values = {"tracks_before": len(before), "tracks_after": values.pop("tracks"), **values}
    _print(a, values, [f"{len(before)} tracks before, {len(result.tracks)} after", *decision_lines(result)])


def _repair_dataset(a: argparse.Namespace, options: TrackingOptions) -> None:
    _refuse_with_dataset(a)
    with _Bar() as bar:
        outcome = api.repair_dataset(
            a.source.removeprefix(_DATASET),
            a.tracks,
            field=a.field or _REPAIRED_FIELD,
            options=options,
            dry_run=a.dry_run,
            overwrite=a.overwrite,
            every_frames=a.checkpoint_every,
            on_progress=bar,
            should_stop=a.should_stop,
        )
    _tell_failures(a, outcome)
    _write_dataset(a, outcome)
    values = outcome.as_dict()
    values["tracks_before"] = sum(v.tracks_before for v in outcome.videos)
    values["tracks_after"] = values.pop("tracks")
    _print(a, values, outcome.lines())


def _evaluate(a: argparse.Namespace) -> None:
    scores = api.evaluate(a.ground_truth, a.predictions).as_dict()
    _print(a, scores, [f"{k:6} {v:8.2f}" if isinstance(v, float) else f"{k:6} {v:8d}" for k, v in scores.items()])


def _jobs(a: argparse.Namespace) -> None:
    found: tuple[jobs.JobStatus, ...]
    if a.cancel is not None:
        found = (jobs.cancel(a.cancel),)
    elif a.forget is not None:
        jobs.forget(a.forget)
        _print(a, {"forgotten": a.forget}, [f"{a.forget}: forgotten"])
        return
    else:
        found = jobs.list_jobs()
    lines = [line for job in found for line in (job.job_id, f"  {job.title}", f"  {job.line}")]
    _print(a, {"jobs": [job.as_dict() for job in found]}, lines or ["no jobs"])


def _models(a: argparse.Namespace) -> None:
    rows = api.models()
    names, states = (max(len(r[key]) for r in rows) for key in ("name", "state"))
    lines: list[str] = []
    for kind in dict.fromkeys(r["kind"] for r in rows):
        lines.append(kind)
        lines += [
            f"  {r['name']:{names}}  {r['state']:{states}}  {r['about']}".rstrip() for r in rows if r["kind"] == kind
        ]
    lines.append("presets (--models)")
    lines += [f"  {name:{names}}  {m.detector}, {m.propagator}, {m.embedder}" for name, m in PRESETS.items()]
    presets = {name: asdict(models) for name, models in PRESETS.items()}
    _print(a, {"models": rows, "presets": presets}, lines)


def _bench(a: argparse.Namespace) -> None:
    from fiftyone_plugin import benchmarks

    if a.name is None:
        _print(a, {"benchmarks": benchmarks.names()}, benchmarks.names())
    else:
        benchmarks.run(a.name, a.arguments)


def _write(a: argparse.Namespace, result: TrackingResult) -> None:
    if a.output is not None:
        api.write_tracks(a.output, result, source=a.source, format=a.format)
    if a.report is not None:
        write_report(a.report, result)
    for warning in result.warnings:
        print(f"shepherd: {warning}", file=sys.stderr)


def _lines(a: argparse.Namespace, result: TrackingResult) -> list[str]:
    s = summary(result)
    lines = [
        f"{s['tracks']} tracks in {s['frames']} frames, {s['seconds']:.1f} s, {s['peak_memory_mb']:.0f} MiB",
        *(
            f"  {t.phrase} {t.track_id}: {len(t)} frames, {t.frame_indices[0]} to {t.frame_indices[-1]}"
            for t in result.tracks
        ),
        *decision_lines(result),
    ]
    if a.output is not None:
        lines.append(f"tracks written to {a.output}")
    if a.dataset:
        lines.append(f"labels written to frames.{a.field or _FIELD} of {a.dataset}: fiftyone app launch {a.dataset}")
    return lines


def _print(a: argparse.Namespace, values: dict[str, Any], lines: Sequence[str]) -> None:
    try:
        print(json.dumps(values) if a.json else "\n".join(lines), flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        _give_up_stdout()
        raise OutputError(f"cannot write the result to standard output: {error.strerror}") from None


class _Bar:
    """Progress on stderr for whatever reports it: a bar on a terminal, else a line now and then."""

    def __enter__(self) -> _Bar:
        from tqdm import tqdm

        self._stage = ""
        self._told_at = time.monotonic()
        self._bar = tqdm(unit=" frames", file=sys.stderr, dynamic_ncols=True, leave=False, disable=None)
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def __call__(self, progress: Any) -> None:
        if self._bar.disable:
            if isinstance(progress, JobProgress) and time.monotonic() - self._told_at >= _TELL_SECONDS:
                self._told_at = time.monotonic()
                print(f"shepherd: {progress.line}", file=sys.stderr, flush=True)
            return
        if self._bar.total != progress.frames_total or progress.frames_done < self._bar.n:
            self._bar.reset(total=progress.frames_total)
        self._bar.set_postfix_str(_beside_the_bar(progress), refresh=False)
        self._bar.update(progress.frames_done - self._bar.n)
        step = f" {progress.steps_done + 1}/{progress.steps_total}" if progress.steps_total else ""
        if self._stage != progress.stage + step:
            # Shown at once: a new stage may take long before its first frame is done.
            self._stage = progress.stage + step
            self._bar.set_description(self._stage)


def _beside_the_bar(progress: Any) -> str:
    text = f"{progress.tracks_live} objects"
    if isinstance(progress, JobProgress) and progress.videos_total > 1:
        left = f", {duration(progress.seconds_left)} left" if progress.seconds_left else ""
        text = f"video {progress.video_number} of {progress.videos_total}{left}, {text}"
    return text


if __name__ == "__main__":
    sys.exit(main())
