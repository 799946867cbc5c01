"""The record of a job, as other processes see it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fiftyone_plugin import jobs
from fiftyone_plugin.errors import JobError
from fiftyone_plugin.jobs import Job, JobProgress, JobState
from fiftyone_plugin.jobs import job as job_module

WORKER = """
import sys, time
from pathlib import Path
from fiftyone_plugin.jobs import Job, JobState
with Job(Path(sys.argv[1]), title="Track 'sheep'") as job:
    print("working", flush=True)
    while not job.should_stop():
        time.sleep(0.01)
    job.finish(JobState.CANCELLED)
"""


@pytest.fixture
def folder() -> Path:
    return jobs.jobs_folder() / "flock-12345678"


def progress(**changes: Any) -> JobProgress:
    values = {
        "video_number": 2,
        "videos_total": 5,
        "source": "flock.mp4",
        "frame_index": 599,
        "frames_done": 600,
        "frames_total": 1200,
        "tracks_live": 4,
        "stage": "track",
        "seconds": 60.0,
        "frames_per_second": 10.0,
        "seconds_left": 420.0,
    }
    return JobProgress(**{**values, **changes})


def begin(folder: Path, **about: Any) -> Job:
    return Job(folder, **{"title": "Track 'sheep' in farm", "dataset": "farm", "field": "tracks", **about})


def test_running_job_is_seen_with_its_progress(folder: Path) -> None:
    with begin(folder) as job:
        job.report(progress())
        job._write()
        seen = jobs.status(folder.name)
        assert (seen.state, seen.job_id, seen.dataset, seen.field) == (JobState.RUNNING, folder.name, "farm", "tracks")
        assert seen.progress == progress()
        assert seen.line == "running: video 2 of 5 (flock.mp4), frame 600 of 1200, 4 objects, 10.0 frames/s, 7 min left"
        assert not seen.is_resumable
        assert json.loads(json.dumps(seen.as_dict()))["progress"]["fraction"] == 0.3
        job.finish(JobState.FINISHED, failures=("a.mp4: damaged",), message="6 tracks")
    ended = jobs.status(folder.name)
    assert (ended.state, ended.failures, ended.is_resumable) == (JobState.FINISHED, ("a.mp4: damaged",), False)
    assert ended.line == "finished: 6 tracks"


def test_progress_is_written_now_and_then(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []
    with begin(folder) as job:
        monkeypatch.setattr(job_module, "write_durably", lambda _, content: written.append(content))
        for frame in range(1000):
            job.report(progress(frames_done=frame))
        assert len(written) <= 1
        job.finish(JobState.CANCELLED)
    assert json.loads(written[-1])["progress"]["frames_done"] == 999  # the last one is never lost


def test_second_process_is_refused_and_the_lock_is_given_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_module, "_LOCK_PATIENCE_SECONDS", 0.1)
    with begin(folder), pytest.raises(JobError, match=f"another process works on it .job {folder.name}."):
        begin(folder)
    begin(folder).__exit__(None, None, None)


def test_cancel_asks_and_a_new_run_begins_without_the_flag(folder: Path) -> None:
    with begin(folder) as job:
        assert not job.should_stop()
        assert jobs.cancel(folder.name).is_cancelling
        assert job.should_stop()
        assert jobs.status(folder.name).line.startswith("stopping: ")
        job.finish(JobState.CANCELLED, message="stopped before the end")
    assert jobs.status(folder.name).is_resumable
    with pytest.raises(JobError, match="is cancelled, not running"):
        jobs.cancel(folder.name)
    with begin(folder) as again:
        assert not again.should_stop()


def test_killed_process_leaves_an_interrupted_job_that_can_be_taken_over(folder: Path) -> None:
    worker = subprocess.Popen([sys.executable, "-c", WORKER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    with worker.stdout:
        assert worker.stdout.readline() == "working\n"
        assert jobs.status(folder.name).state is JobState.RUNNING
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait(10)
    seen = jobs.status(folder.name)
    assert (seen.state, seen.is_resumable) == (JobState.INTERRUPTED, True)
    begin(folder).__exit__(None, None, None)


def test_cancel_reaches_another_process(folder: Path) -> None:
    worker = subprocess.Popen([sys.executable, "-c", WORKER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    with worker.stdout:
        assert worker.stdout.readline() == "working\n"
        jobs.cancel(folder.name)
        assert worker.wait(10) == 0
    assert jobs.status(folder.name).state is JobState.CANCELLED


@pytest.mark.parametrize(
    ("error", "state", "message"),
    [
        (ValueError("damaged\nmore"), JobState.FAILED, "damaged"),
        (ValueError(), JobState.FAILED, "ValueError"),
        (KeyboardInterrupt(), JobState.CANCELLED, "interrupted"),
    ],
)
def test_exception_that_ends_a_job_is_recorded_in_one_line(
    folder: Path, error: BaseException, state: JobState, message: str
) -> None:
    with pytest.raises(type(error)), begin(folder):
        raise error
    assert (jobs.status(folder.name).state, jobs.status(folder.name).message) == (state, message)


def test_list_jobs_has_the_running_first_and_can_be_narrowed(folder: Path) -> None:
    for name in ("old", "new"):
        with begin(folder.with_name(name), dataset="hill") as job:
            job.finish(JobState.FINISHED)
    (folder.with_name("no-job")).mkdir()
    with begin(folder):
        time.sleep(0.01)
        assert [job.job_id for job in jobs.list_jobs()] == [folder.name, "new", "old"]
        assert [job.job_id for job in jobs.list_jobs(dataset="hill")] == ["new", "old"]


def test_list_jobs_without_any_is_empty() -> None:
    assert jobs.list_jobs() == ()


@pytest.mark.parametrize("ask", [jobs.status, jobs.cancel, jobs.forget])
@pytest.mark.parametrize("job_id", ["nowhere", "", "..", "/"])
def test_unknown_job_is_one_line_that_names_the_known(ask: Any, job_id: str, folder: Path) -> None:
    with begin(folder) as job:
        job.finish(JobState.FINISHED)
    with pytest.raises(JobError, match=f"no job '{job_id}'.*{folder.name}") as raised:
        ask(job_id)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"{}", b'{"format": 99}', b"[1]"])
def test_damaged_record_is_no_job(folder: Path, content: bytes) -> None:
    folder.mkdir(parents=True)
    (folder / "job.json").write_bytes(content)
    with pytest.raises(JobError):
        jobs.status(folder.name)
    assert jobs.list_jobs() == ()
    begin(folder).__exit__(None, None, None)  # and is simply replaced


def test_forget_takes_record_and_checkpoints_but_nothing_else(folder: Path) -> None:
    with begin(folder) as job:
        job.checkpoint_folder("video").mkdir(parents=True)
        with pytest.raises(JobError, match="is running"):
            jobs.forget(folder.name)
        job.finish(JobState.CANCELLED)
    (folder / "notes.txt").touch()
    jobs.forget(folder.name)
    assert [p.name for p in folder.iterdir()] == ["notes.txt"]
    assert jobs.list_jobs() == ()


def test_job_at_a_path_of_the_users_own_is_found_by_that_path(tmp_path: Path) -> None:
    with begin(tmp_path / "mine") as job:
        job.finish(JobState.FINISHED)
        assert job.job_id == str(tmp_path / "mine")
    assert jobs.status(str(tmp_path / "mine")).state is JobState.FINISHED
    assert jobs.list_jobs() == ()


def test_finished_jobs_are_forgotten_when_there_are_many(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_module, "_MAX_ENDED_JOBS", 2)
    for name in ("a", "b", "c", "d"):
        with begin(folder.with_name(name)) as job:
            job.finish(JobState.CANCELLED if name == "a" else JobState.FINISHED)
    assert {job.job_id for job in jobs.list_jobs()} == {"a", "c", "d"}  # `a` can go on, so it stays


def test_full_disk_does_not_end_the_work(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with begin(folder) as job:
        monkeypatch.setattr(job_module, "write_durably", refuse)
        job.report(progress())
        job.finish(JobState.FINISHED)


def test_home_is_beside_the_configuration_of_fiftyone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SHEPHERD_HOME")
    monkeypatch.setenv("FIFTYONE_CONFIG_PATH", str(tmp_path / "config.json"))
    assert jobs.jobs_folder() == tmp_path / "shepherd" / "jobs"
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert jobs.jobs_folder().name == "jobs"
    assert jobs.jobs_folder().parent.name == f"shepherd-{os.getuid()}"


@pytest.mark.parametrize("name", ["flock.mp4", "Über/..\\Vidéo 1", "", "x" * 300])
def test_job_id_is_a_plain_file_name_and_tells_keys_apart(name: str) -> None:
    ids = {jobs.job_id_of(name, "a", "b"), jobs.job_id_of(name, "ab", ""), jobs.job_id_of(name, "a", "c")}
    assert len(ids) == 3
    for job_id in ids:
        assert job_id.replace("-", "").isalnum()
        assert job_id.isascii()
        assert len(job_id) < 64
