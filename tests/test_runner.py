"""Jobs over a dataset: what is done, what is left, what a failure costs; scripted pipeline, real database."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fiftyone_plugin import jobs, runner
from fiftyone_plugin.config import AssociationOptions, TrackingOptions
from fiftyone_plugin.errors import FieldConflictError, JobError, OutputError, PromptError, VideoError
from fiftyone_plugin.jobs import JobProgress

pytestmark = pytest.mark.fiftyone


def test_track_dataset_every_video_gets_labels(labels: ModuleType, dataset: Any, scripted: Any) -> None:
    summary = runner.track_dataset(dataset, "sheep. dog.")
    assert [(v.tracks, v.frames, v.error) for v in summary.videos] == [(3, 12, ""), (3, 12, "")]
    assert [len(labels.read_tracks(sample, "tracks")) for sample in dataset] == [3, 3]
    counts = summary.as_dict()
    assert {k: counts[k] for k in ("frames", "tracks", "encounters", "repairs", "needs_review", "seconds")} == {
        "frames": 24,
        "tracks": 6,
        "encounters": 4,
        "repairs": 2,
        "needs_review": 2,
        "seconds": 3.0,
    }
    assert summary.lines()[0] == "6 tracks in 24 frames of 2 videos, 3.0 s"


def test_track_dataset_by_name_and_progress_counts_videos(dataset: Any, scripted: Any) -> None:
    seen: list[JobProgress] = []
    runner.track_dataset(dataset.name, "sheep", on_progress=seen.append)
    assert [(p.video_number, p.frames_done) for p in seen] == [(v, f) for v in (1, 2) for f in range(1, 13)]
    fractions = [p.fraction for p in seen]
    assert fractions == sorted(fractions)
    assert (fractions[11], fractions[-1]) == (0.5, 1.0)
    assert seen[12].line == "video 2 of 2 (flock.mp4), frame 1 of 12, 3 objects, 10.0 frames/s, 1 s left"


def test_track_dataset_failure_in_one_video_does_not_lose_the_others(
    labels: ModuleType, dataset: Any, scripted: Any
) -> None:
    scripted.failures[1] = VideoError("flock.mp4: damaged: give another")
    summary = runner.track_dataset(dataset, "sheep")
    assert [bool(v.error) for v in summary.videos] == [True, False]
    assert summary.failures[0].endswith("flock.mp4: damaged: give another")
    assert labels.field_state(dataset, "tracks").finished == {dataset.last().id}
    # The same call goes on with what is left.
    again = runner.track_dataset(dataset, "sheep")
    assert [(v.was_done, v.tracks) for v in again.videos] == [(False, 3), (True, 0)]
    assert len(scripted.calls) == 3


def test_track_dataset_bug_in_one_video_is_named(dataset: Any, scripted: Any) -> None:
    scripted.failures[1] = ZeroDivisionError("division by zero")
    summary = runner.track_dataset(dataset, "sheep")
    assert summary.videos[0].error == "unexpected ZeroDivisionError: division by zero"
    assert summary.videos[1].tracks == 3


def test_track_dataset_full_disk_stops_the_job(
    labels: ModuleType, dataset: Any, scripted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OutputError("the database refused (no space left)")

    monkeypatch.setattr(labels, "write_tracks", refuse)
    summary = runner.track_dataset(dataset, "sheep")
    assert (len(scripted.calls), summary.was_cancelled, len(summary.failures)) == (1, True, 1)


def test_track_dataset_cancelled_keeps_finished_videos(labels: ModuleType, dataset: Any, scripted: Any) -> None:
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 18  # in the middle of the second video

    summary = runner.track_dataset(dataset, "sheep", should_stop=should_stop)
    first, second = dataset
    assert (summary.was_cancelled, len(summary.videos)) == (True, 2)
    state = labels.field_state(dataset, "tracks")
    assert (state.finished, state.started) == ({first.id}, {first.id, second.id})
    assert len(labels.read_tracks(first, "tracks")) == 3
    runner.track_dataset(dataset, "sheep")
    assert [len(labels.read_tracks(sample, "tracks")) for sample in dataset] == [3, 3]


def test_track_dataset_is_a_job_that_others_can_see_and_cancel(labels: ModuleType, dataset: Any, scripted: Any) -> None:
    def cancel(progress: JobProgress) -> None:
        if (progress.video_number, progress.frames_done) == (2, 3):
            (job,) = jobs.list_jobs(dataset=dataset.name)
            assert (job.state, job.field, job.prompt) == (jobs.JobState.RUNNING, "tracks", "sheep")
            jobs.cancel(job.job_id)

    summary = runner.track_dataset(dataset, "sheep", on_progress=cancel)
    assert (summary.was_cancelled, summary.is_failed) == (True, False)
    assert labels.field_state(dataset, "tracks").finished == {dataset.first().id}
    job = jobs.status(summary.job_id)
    assert (job.state, job.is_resumable) == (jobs.JobState.CANCELLED, True)
    assert job.progress is not None
    assert (job.progress.video_number, job.progress.frames_done) == (2, 3)
    again = runner.track_dataset(dataset, "sheep")
    assert [v.was_done for v in again.videos] == [True, False]
    assert jobs.status(again.job_id).state is jobs.JobState.FINISHED


def test_track_dataset_second_process_on_one_field_is_refused(
    dataset: Any, scripted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fiftyone_plugin.jobs.job._LOCK_PATIENCE_SECONDS", 0.0)
    refused: list[str] = []

    def second(_: JobProgress) -> None:
        if not refused:
            with pytest.raises(JobError, match="another process works on it") as raised:
                runner.track_dataset(dataset, "sheep")
            refused.append(str(raised.value))
            runner.track_dataset(dataset, "sheep", field="other")

    runner.track_dataset(dataset, "sheep", on_progress=second)
    assert len(refused) == 1


def test_track_dataset_failures_are_in_the_record_and_told_in_few_lines(dataset: Any, scripted: Any) -> None:
    scripted.failures.update({n: VideoError(f"damaged {n}") for n in (1, 2)})
    summary = runner.track_dataset(dataset, "sheep")
    assert summary.is_failed  # not one video
    assert [f.rpartition(": ")[2] for f in jobs.status(summary.job_id).failures] == ["damaged 1", "damaged 2"]
    assert "2 of 2 videos failed; the same call tries them again" in summary.lines()
    many = runner.DatasetSummary("tracks", tuple(runner.VideoOutcome(f"{n}.mp4", error="damaged") for n in range(1000)))
    assert len(many.failure_lines()) == 21
    assert many.failure_lines()[-1].startswith("... and 980 more")


def test_track_dataset_goes_on_in_the_middle_unless_told_otherwise(
    dataset: Any, scripted: Any, monkeypatch: pytest.MonkeyPatch, shepherd_home: Path
) -> None:
    given: list[Any] = []
    track = scripted.track

    def note(*args: Any, **options: Any) -> Any:
        given.append(options["checkpointing"])
        return track(*args, **options)

    monkeypatch.setattr("fiftyone_plugin.pipeline.track", note)
    runner.track_dataset(dataset, "sheep")
    runner.track_dataset(dataset, "sheep", overwrite=True, resume=False, every_frames=7)
    assert [(c.resume, c.is_strict, c.every_frames) for c in given] == [(True, False, 300)] * 2 + [
        (False, False, 7)
    ] * 2
    assert [c.folder.name for c in given[:2]] == dataset.values("id")
    assert all(c.folder.is_relative_to(shepherd_home) for c in given)


def test_instances_of_the_same_run_are_the_same_and_of_another_are_not(
    dataset: Any, scripted: Any, labels: ModuleType
) -> None:
    def instances(field: str) -> list[str]:
        frames = dataset.first().frames
        return sorted({str(d.instance.id) for frame in frames.values() for d in frame[field].detections})

    runner.track_dataset(dataset, "sheep")
    first = instances("tracks")
    assert len(first) == 3
    runner.track_dataset(dataset, "sheep", overwrite=True)
    dataset.reload()
    assert instances("tracks") == first
    runner.track_dataset(dataset, "dog", overwrite=True)
    runner.track_dataset(dataset, "sheep", field="other")
    dataset.reload()
    assert not set(first) & {*instances("tracks"), *instances("other")}


def test_repair_dataset_bug_in_one_video_does_not_lose_the_others(
    labels: ModuleType, dataset: Any, scripted: Any, monkeypatch: pytest.MonkeyPatch, result: Any
) -> None:
    runner.track_dataset(dataset, "sheep")
    calls: list[int] = []

    def repair(*_: Any, **__: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise ZeroDivisionError("division by zero")
        return result

    monkeypatch.setattr("fiftyone_plugin.pipeline.repair", repair)
    summary = runner.repair_dataset(dataset, "tracks", field="mended")
    assert [v.error for v in summary.videos] == ["unexpected ZeroDivisionError: division by zero", ""]
    assert labels.field_state(dataset, "mended").finished == {dataset.last().id}


def test_dry_run_leaves_the_job_of_the_field_it_reads_alone(
    dataset: Any, scripted: Any, shepherd_home: Path, monkeypatch: pytest.MonkeyPatch, result: Any
) -> None:
    """The half-done video of an interrupted job must not start over because somebody looked at the others."""
    stopped = runner.track_dataset(dataset, "sheep", should_stop=lambda: len(scripted.calls) == 2)
    checkpoint = shepherd_home / "jobs" / stopped.job_id / "checkpoints" / dataset.last().id
    checkpoint.mkdir(parents=True)
    monkeypatch.setattr("fiftyone_plugin.pipeline.repair", lambda *_, **__: result)
    summary = runner.repair_dataset(dataset.limit(1), "tracks", dry_run=True)
    assert (summary.failures, summary.was_cancelled) == ((), False)
    assert checkpoint.is_dir()
    assert jobs.status(stopped.job_id).is_resumable


def test_track_dataset_other_prompt_or_settings_need_overwrite(dataset: Any, scripted: Any) -> None:
    runner.track_dataset(dataset, "sheep")
    with pytest.raises(FieldConflictError, match=r"of 2 of these videos \(prompt 'sheep'\)"):
        runner.track_dataset(dataset, "dog")
    often = TrackingOptions(association=AssociationOptions(redetect_every_frames=4))
    with pytest.raises(FieldConflictError):
        runner.track_dataset(dataset, "sheep", options=often)
    assert len(scripted.calls) == 2
    runner.track_dataset(dataset, "dog", overwrite=True)
    assert len(scripted.calls) == 4


def test_track_dataset_field_of_others_is_refused_before_any_work(fo: ModuleType, dataset: Any, scripted: Any) -> None:
    dataset.add_frame_field("tracks", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    for overwrite in (False, True):
        with pytest.raises(FieldConflictError, match="never overwritten"):
            runner.track_dataset(dataset, "sheep", overwrite=overwrite)
    assert scripted.calls == []


@pytest.mark.parametrize("prompt", ["", " . , "])
def test_track_dataset_without_a_class_says_so(dataset: Any, scripted: Any, prompt: str) -> None:
    with pytest.raises(PromptError):
        runner.track_dataset(dataset, prompt)


def test_track_dataset_unknown_name_lists_the_known(fo: ModuleType, dataset: Any) -> None:
    with pytest.raises(VideoError, match=f"no dataset 'nowhere': must be one of .*{dataset.name}"):
        runner.track_dataset("nowhere", "sheep")


def _progress(frame: int) -> JobProgress:
    return JobProgress(1, 1, "flock.mp4", frame, frame + 1, 12, 3, "track", 1.0)


def test_stream_yields_the_newest_progress_and_returns_the_result() -> None:
    def job(on_progress: Callable[[JobProgress], None], should_stop: Callable[[], bool]) -> str:
        for frame in range(12):
            on_progress(_progress(frame))
        return "done"

    returned: list[str] = []

    def listen() -> Iterator[JobProgress]:
        returned.append((yield from runner.stream(job)))

    seen = [progress.frames_done for progress in listen()]
    assert returned == ["done"]
    assert seen == sorted(set(seen))
    assert seen[-1] == 12


def test_stream_passes_on_what_the_job_raises() -> None:
    def job(on_progress: Any, should_stop: Any) -> None:
        on_progress(_progress(0))
        raise VideoError("flock.mp4: damaged")

    with pytest.raises(VideoError, match="damaged"):
        list(runner.stream(job))


@pytest.mark.parametrize("let_go", ["close", "forget"])
def test_stream_that_nobody_listens_to_stops_the_job(let_go: str) -> None:
    ended = threading.Event()

    def job(on_progress: Any, should_stop: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 10
        while not should_stop() and time.monotonic() < deadline:
            on_progress(_progress(0))
            time.sleep(0.001)
        if should_stop():
            ended.set()

    generator = runner.stream(job)
    next(generator)
    if let_go == "close":
        generator.close()
    else:
        del generator
        gc.collect()
    assert ended.wait(5)
