"""Operators `tracking_status` and `cancel_tracking`: what runs on this machine, where it is, and how to stop it."""

from __future__ import annotations

import time
from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types

from fiftyone_plugin import jobs
from fiftyone_plugin.errors import JobError

from . import base, fields, forms

__all__ = ["CancelTracking", "TrackingStatus"]

_QUEUED_STATES = ("queued", "scheduled")


class TrackingStatus(foo.Operator):
    """Show tracking jobs: running, waiting, ended; of this dataset, or all."""

    @property
    def config(self) -> foo.OperatorConfig:
        """What FiftyOne shows and allows."""
        return base.describe(
            "tracking_status",
            "Tracking jobs",
            "What is being tracked on this machine, how far it is, and how earlier jobs ended",
            writes=False,
        )

    def resolve_input(self, ctx: Any) -> types.Property:
        """The form."""
        inputs = types.Object()
        inputs.bool("all_datasets", label="Jobs of all datasets", default=False)
        return types.Property(inputs, view=types.PromptView(label="Tracking jobs", submit_button_label="Show"))

    @base.told
    def execute(self, ctx: Any) -> dict[str, Any]:
        """Read the records of the jobs; no model and no video is touched."""
        name = None if ctx.params.get("all_datasets") else ctx.dataset.name
        found = jobs.list_jobs(dataset=name)
        rows = [
            {"job": job.title, "state": str(job.state), "where": job.line, "updated": _ago(job.updated_at)}
            for job in found
        ]
        rows += _queued(name)
        running = sum(job.state is jobs.JobState.RUNNING for job in found)
        return {
            "message": f"{running} running, {len(rows)} known" if rows else "There are no tracking jobs",
            "rows": rows,
            "jobs": [job.as_dict() for job in found],
        }

    def resolve_output(self, ctx: Any) -> types.Property:
        """A table."""
        outputs = types.Object()
        outputs.str("message", label="Jobs")
        table = types.TableView()
        for name in ("job", "state", "where", "updated"):
            table.add_column(name, label=name)
        outputs.list("rows", types.Object(), label="Jobs, those that run first", view=table)
        return types.Property(outputs, view=types.View(label="Tracking jobs"))

    def __call__(self, sample_collection: Any, *, all_datasets: bool = False) -> foo.ExecutionResult:
        """Look at jobs from Python.

        Args:
            sample_collection: A dataset or view.
            all_datasets: Those of other datasets too.

        Returns:
            FiftyOne's result; its `result` holds ``jobs``, as `fiftyone_plugin.jobs` describes them.
        """
        return base.call(self, sample_collection, base.given(locals()))


class CancelTracking(foo.Operator):
    """Ask a running job to stop; what is finished is kept, and the same call goes on later."""

    @property
    def config(self) -> foo.OperatorConfig:
        """What FiftyOne shows and allows."""
        return base.describe(
            "cancel_tracking",
            "Cancel a tracking job",
            "Stop a running job after its current frame; what is finished is kept, and it can go on later",
        )

    def resolve_input(self, ctx: Any) -> types.Property:
        """The form."""
        inputs = types.Object()
        running = {job.job_id: f"{job.title}: {job.line}" for job in _running()}
        fields.add_choice(inputs, ctx, "job_id", running, label="Job", missing="No tracking job is running")
        return types.Property(
            inputs, view=types.PromptView(label="Cancel a tracking job", submit_button_label="Stop it")
        )

    @base.told
    def execute(self, ctx: Any) -> dict[str, Any]:
        """Set the flag that the job looks at before every frame."""
        job_id = forms.text_of(ctx.params, "job_id")
        if not job_id:
            running = [job.job_id for job in _running()]
            if len(running) != 1:
                raise JobError(f"{len(running)} jobs are running: say which one, by its job_id")
            (job_id,) = running
        job = jobs.cancel(job_id)
        return {"message": f"{job.title}: stops after the current frame", "job_id": job.job_id}

    def resolve_output(self, ctx: Any) -> types.Property:
        """What will happen."""
        outputs = types.Object()
        outputs.str("message", label="Asked to stop")
        return types.Property(outputs)

    def __call__(self, sample_collection: Any, *, job_id: str | None = None) -> foo.ExecutionResult:
        """Cancel a job from Python.

        Args:
            sample_collection: Any dataset or view.
            job_id: As `tracking_status` gives it; may be left out where only one is running.

        Returns:
            FiftyOne's result; its `result` holds ``message`` and ``job_id``.
        """
        return base.call(self, sample_collection, base.given(locals()))


def _running() -> list[jobs.JobStatus]:
    found = jobs.list_jobs()
    return [job for job in found if job.state is jobs.JobState.RUNNING and not job.is_cancelling]


def _queued(dataset: str | None) -> list[dict[str, str]]:
    """Scheduled jobs that no worker has taken up yet: our own records begin with the work."""
    from fiftyone.operators.delegated import DelegatedOperationService

    rows = []
    for operation in DelegatedOperationService().list_operations(dataset_name=dataset):
        if str(operation.operator).startswith("@shepherd/") and str(operation.run_state) in _QUEUED_STATES:
            where = "waits for a worker: `fiftyone delegated launch -m`"
            rows.append(
                {"job": operation.label or operation.operator, "state": "queued", "where": where, "updated": ""}
            )
    return rows


def _ago(when: float) -> str:
    return f"{jobs.duration(max(time.time() - when, 1.0))} ago"
