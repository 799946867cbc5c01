"""What is known of jobs, read from their folders by whoever asks; and how to cancel and forget them.

::

    <home>/jobs/<job id>/
        job.json       what it is and where it is, rewritten about once a second
        lock           held by the process that works on it, and by nobody after a kill
        cancel         the flag: there means "please stop"
        checkpoints/   one folder per video that is not finished (see `pipeline.checkpoint`)

The home is ``$SHEPHERD_HOME``, else the folder ``shepherd`` beside FiftyOne's configuration (``~/.fiftyone``), else,
where that cannot be written to, a folder among the temporary files. Knows nothing of what a job does.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import tempfile
from dataclasses import asdict, dataclass
from enum import StrEnum
from hashlib import blake2b
from pathlib import Path
from typing import Any

from fiftyone_plugin.errors import JobError
from fiftyone_plugin.jobs.progress import JobProgress

__all__ = [
    "CANCEL_FLAG",
    "CHECKPOINTS",
    "FORMAT",
    "LOCK",
    "RECORD",
    "JobState",
    "JobStatus",
    "cancel",
    "forget",
    "job_id_of",
    "jobs_folder",
    "list_jobs",
    "status",
]

FORMAT = 1
"""Of the record."""
RECORD, LOCK, CANCEL_FLAG, CHECKPOINTS = "job.json", "lock", "cancel", "checkpoints"
"""Names in a job's folder."""


class JobState(StrEnum):
    """What became of a job so far."""

    RUNNING = "running"
    FINISHED = "finished"
    """All of it; single videos may have failed all the same."""
    CANCELLED = "cancelled"
    """Somebody asked it to stop; what was finished is kept."""
    FAILED = "failed"
    """It stopped by itself; `JobStatus.message` says why."""
    INTERRUPTED = "interrupted"
    """Its process is gone without a word: killed, out of memory, power cut."""


@dataclass(frozen=True, slots=True)
class JobStatus:
    """What is known of a job, without loading what it works on."""

    job_id: str
    """Name of its folder; for a job at a path of the user's own, that path."""
    title: str
    """One line for people."""
    state: JobState
    source: str
    """Video file or folder; the dataset's name for a job over a dataset."""
    dataset: str | None
    """Name of the dataset that is written to."""
    field: str | None
    """Label field that is written to."""
    prompt: str
    started_at: float
    """Seconds since 1970, UTC; of the process that worked on it last."""
    updated_at: float
    progress: JobProgress | None
    """The last report; None before the first."""
    is_cancelling: bool
    """It runs, and was asked to stop."""
    is_resumable: bool
    """It does not run and is not finished: the same call goes on with it."""
    failures: tuple[str, ...]
    """One line per video that failed."""
    message: str
    """How it ended, in one line; empty while it runs."""

    @property
    def line(self) -> str:
        """State and progress in one line for people."""
        where = self.progress.line if self.progress is not None else "not begun"
        if self.state is JobState.RUNNING:
            return f"{'stopping' if self.is_cancelling else 'running'}: {where}"
        return f"{self.state}: {self.message or where}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            **asdict(self),
            "state": self.state.value,
            "failures": list(self.failures),
            "progress": None if self.progress is None else self.progress.as_dict(),
            "line": self.line,
        }


def jobs_folder() -> Path:
    """Where jobs are kept; need not exist."""
    home = os.environ.get("SHEPHERD_HOME")
    if home:
        return Path(home).expanduser() / "jobs"
    config = Path(os.environ.get("FIFTYONE_CONFIG_PATH", "~/.fiftyone/config.json")).expanduser()
    if _can_be_made(config.parent / "shepherd" / "jobs"):
        return config.parent / "shepherd" / "jobs"
    return Path(tempfile.gettempdir()) / f"shepherd-{os.getuid()}" / "jobs"


def _can_be_made(folder: Path) -> bool:
    while not folder.exists():
        folder = folder.parent
    return os.access(folder, os.W_OK | os.X_OK)


def job_id_of(name: str, *key: str) -> str:
    """The id of a job: a readable name, and a hash of what makes it this job and no other."""
    readable = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower()[:40] or "job"
    return f"{readable}-{blake2b(json.dumps(key).encode(), digest_size=4).hexdigest()}"


def list_jobs(*, dataset: str | None = None) -> tuple[JobStatus, ...]:
    """All jobs that are known on this machine, those that run first, then the newest first.

    Args:
        dataset: Only those that write to the dataset of this name.
    """
    found = []
    with contextlib.suppress(FileNotFoundError):
        for folder in jobs_folder().iterdir():
            with contextlib.suppress(JobError):
                found.append(_status_of(folder, folder.name))
    wanted = [job for job in found if dataset is None or job.dataset == dataset]
    return tuple(sorted(wanted, key=lambda job: (job.state is not JobState.RUNNING, -job.updated_at)))


def status(job_id: str) -> JobStatus:
    """What is known of a job.

    Args:
        job_id: As in `list_jobs`, or the path of a job's folder.

    Raises:
        JobError: There is no such job.
    """
    return _status_of(_folder_of(job_id), job_id)


def cancel(job_id: str) -> JobStatus:
    """Ask a job to stop after the current frame; what is finished is kept, and the same call goes on later.

    Args:
        job_id: As in `list_jobs`, or the path of a job's folder.

    Raises:
        JobError: There is no such job, or it does not run.
    """
    found = status(job_id)
    if found.state is not JobState.RUNNING:
        raise JobError(f"job {job_id!r}: is {found.state}, not running; there is nothing to cancel")
    (_folder_of(job_id) / CANCEL_FLAG).touch()
    return status(job_id)


def forget(job_id: str) -> None:
    """Delete the record and the checkpoints of a job that does not run; what it wrote elsewhere stays.

    Raises:
        JobError: There is no such job, or it runs.
    """
    if status(job_id).state is JobState.RUNNING:
        raise JobError(f"job {job_id!r}: is running; cancel it first")
    folder = _folder_of(job_id)
    for name in (CHECKPOINTS, CANCEL_FLAG, LOCK, RECORD):
        target = folder / name
        shutil.rmtree(target, ignore_errors=True) if target.is_dir() else target.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # a folder of the user's own may hold other things
        folder.rmdir()


def _folder_of(job_id: str) -> Path:
    path = Path(job_id).expanduser()
    return path if len(path.parts) > 1 else jobs_folder() / job_id


def _status_of(folder: Path, job_id: str) -> JobStatus:
    try:
        record = json.loads((folder / RECORD).read_bytes())
        if record["format"] != FORMAT:
            raise JobError(f"job {job_id!r}: was written by another version of Shepherd; forget it and start again")
        state = JobState(record["state"])
        progress = None if record["progress"] is None else JobProgress(**record["progress"])
    except (OSError, ValueError, KeyError, TypeError):
        known = ", ".join(sorted(p.parent.name for p in jobs_folder().glob(f"*/{RECORD}"))) or "(none)"
        raise JobError(f"no job {job_id!r}: `shepherd jobs` lists them; known are {known}") from None
    if state is JobState.RUNNING and not _is_locked(folder):
        state = JobState.INTERRUPTED
    return JobStatus(
        job_id=job_id,
        title=record["title"],
        state=state,
        source=record["source"],
        dataset=record["dataset"],
        field=record["field"],
        prompt=record["prompt"],
        started_at=record["started_at"],
        updated_at=record["updated_at"],
        progress=progress,
        is_cancelling=state is JobState.RUNNING and (folder / CANCEL_FLAG).exists(),
        is_resumable=state not in (JobState.RUNNING, JobState.FINISHED),
        failures=tuple(record["failures"]),
        message=record["message"],
    )


def _is_locked(folder: Path) -> bool:
    try:
        with (folder / LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False
