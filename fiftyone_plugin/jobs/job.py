"""A job that this process works on: holds its lock, writes its record, sees when somebody cancels it.

Knows nothing of what a job does; `records` reads what is written here.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
import time
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fiftyone_plugin.durable import write_durably
from fiftyone_plugin.errors import JobError
from fiftyone_plugin.jobs.progress import JobProgress
from fiftyone_plugin.jobs.records import (
    CANCEL_FLAG,
    CHECKPOINTS,
    FORMAT,
    LOCK,
    JobState,
    forget,
    jobs_folder,
    list_jobs,
)

__all__ = ["Job"]

_REPORT_SECONDS = 1.0
"""Between two writes of the record."""
_LOCK_PATIENCE_SECONDS = 1.0
"""Somebody who asks for the status holds the lock for a moment."""
_MAX_ENDED_JOBS = 200
"""Records of finished jobs that are kept; the oldest go first."""


class Job:
    """A job that this process works on; use it as a context manager.

    Leaving it with an exception records the job as failed; `finish` says how it ended otherwise. A process that is
    killed records nothing, and whoever asks finds the lock free.

    Args:
        folder: Made if it is not there.
        title: One line for people.
        source: Video file, folder or dataset.
        prompt: As the user gave it.
        dataset: Name of the dataset that is written to.
        field: Label field that is written to.

    Raises:
        JobError: Another process works on it.
        OSError: The folder cannot be made or written to.
    """

    def __init__(
        self,
        folder: Path,
        *,
        title: str,
        source: str = "",
        prompt: str = "",
        dataset: str | None = None,
        field: str | None = None,
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = _take_lock(folder, title)
        (folder / CANCEL_FLAG).unlink(missing_ok=True)
        now = time.time()
        self._record: dict[str, Any] = {
            "format": FORMAT,
            "title": title,
            "state": JobState.RUNNING.value,
            "source": source,
            "dataset": dataset,
            "field": field,
            "prompt": prompt,
            "started_at": now,
            "updated_at": now,
            "progress": None,
            "failures": [],
            "message": "",
            "host": socket.gethostname(),
            "process": os.getpid(),
        }
        self._written_at = 0.0
        self._write()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._record["state"] == JobState.RUNNING:
            was_interrupted = kind is not None and not issubclass(kind, Exception)
            lines = str(error or "").splitlines() or [kind.__name__ if kind else "ended without a word"]
            self.finish(
                JobState.CANCELLED if was_interrupted else JobState.FAILED,
                message="interrupted" if was_interrupted else lines[0],
            )
        self._lock.close()
        with contextlib.suppress(OSError):
            _prune(self.folder.parent)

    @property
    def job_id(self) -> str:
        """As `status` takes it."""
        return self.folder.name if self.folder.parent == jobs_folder() else str(self.folder)

    @staticmethod
    def checkpoints_of(folder: Path) -> Path:
        """Where a job with this folder keeps its checkpoints."""
        return folder / CHECKPOINTS

    def checkpoint_folder(self, name: str) -> Path:
        """Folder for the checkpoint of one video; not made."""
        return self.checkpoints_of(self.folder) / name

    def should_stop(self) -> bool:
        """Whether somebody asked for it; cheap enough to be asked on every frame."""
        return (self.folder / CANCEL_FLAG).exists()

    def report(self, progress: JobProgress) -> None:
        """Note where the job is; written at most about once a second."""
        self._record["progress"] = asdict(progress)
        if time.monotonic() - self._written_at >= _REPORT_SECONDS:
            self._write()

    def finish(self, state: JobState, *, failures: tuple[str, ...] = (), message: str = "") -> None:
        """Record how the job ended; a finished one needs its checkpoints no longer."""
        self._record.update(state=state.value, failures=list(failures), message=message)
        self._write()
        if state is JobState.FINISHED:
            shutil.rmtree(self.checkpoints_of(self.folder), ignore_errors=True)

    def _write(self) -> None:
        self._record["updated_at"] = time.time()
        self._written_at = time.monotonic()
        # A full disk must not end the work that the record is about.
        with contextlib.suppress(OSError):
            write_durably(self.folder / "job.json", json.dumps(self._record).encode())


def _take_lock(folder: Path, title: str) -> Any:
    """Hold the job until the file is closed, or this process ends in whatever way."""
    file = (folder / LOCK).open("ab")
    deadline = time.monotonic() + _LOCK_PATIENCE_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            if time.monotonic() >= deadline:
                file.close()
                raise JobError(
                    f"{title}: another process works on it (job {folder.name}): wait for it, or cancel it"
                ) from None
            time.sleep(0.05)


def _prune(folder: Path) -> None:
    """Forget the oldest ended jobs; those that could go on are kept."""
    if folder != jobs_folder():
        return
    ended = [job for job in list_jobs() if job.state is JobState.FINISHED]
    for job in ended[_MAX_ENDED_JOBS:]:
        with contextlib.suppress(JobError):
            forget(job.job_id)
