"""Long jobs: what runs on this machine, where it is, and how to stop it; from any process.

    from fiftyone_plugin import jobs

    for job in jobs.list_jobs(dataset="my-videos"):
        print(job.job_id, job.line)
    jobs.cancel("my-videos-tracks-1f0c3a52")  # finished videos stay; the same call goes on later

A job is a folder with a small record (see `records`), so asking costs no database and no model. `runner` makes jobs,
`pipeline.checkpoint` keeps the state of a video that is half done. Knows nothing of tracks.
"""

from __future__ import annotations

from fiftyone_plugin.jobs.background import stream
from fiftyone_plugin.jobs.job import Job
from fiftyone_plugin.jobs.outcome import DatasetSummary, Finding, VideoOutcome, counted
from fiftyone_plugin.jobs.progress import JobProgress, Pace, duration
from fiftyone_plugin.jobs.records import (
    JobState,
    JobStatus,
    cancel,
    forget,
    job_id_of,
    jobs_folder,
    list_jobs,
    status,
)

__all__ = [
    "DatasetSummary",
    "Finding",
    "Job",
    "JobProgress",
    "JobState",
    "JobStatus",
    "Pace",
    "VideoOutcome",
    "cancel",
    "counted",
    "duration",
    "forget",
    "job_id_of",
    "jobs_folder",
    "list_jobs",
    "status",
    "stream",
]
