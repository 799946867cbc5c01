"""How a job over videos is run: with live progress in the App, as a scheduled job, or plainly from Python.

Knows nothing of what a job does; it is a function of `on_progress` and `should_stop` that returns a summary.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import fiftyone.operators.types as types

from fiftyone_plugin import jobs
from fiftyone_plugin.errors import InputError

from . import forms

__all__ = [
    "SHORT_SECONDS",
    "add_afterwards",
    "add_cost",
    "add_earlier_job",
    "execution_options",
    "run",
    "summary_output",
]

SHORT_SECONDS = 120
"""A job that is estimated to take no longer is run at once by default; a longer one is scheduled."""
REPORT_SECONDS = 1.0
"""Between two progress reports of a scheduled job, each of which is a write to the database."""

Job = Callable[[Callable[[Any], None] | None, Callable[[], bool] | None], Any]
Report = Callable[[Any], str]
"""What is said of a summary, as Markdown."""


def execution_options(ctx: Any) -> foo.ExecutionOptions:
    """At once if it is short, else scheduled; the user may choose otherwise."""
    estimate, _ = forms.attempt(lambda: forms.estimate_work(ctx))
    is_long = estimate is not None and estimate.seconds > SHORT_SECONDS
    return foo.ExecutionOptions(
        allow_immediate_execution=True,
        allow_delegated_execution=True,
        default_choice_to_delegated=is_long and fo.config.allow_legacy_orchestrators,
    )


def add_cost(inputs: types.Object, ctx: Any) -> None:
    """Say how much work it is, and how to schedule it where the App cannot."""
    estimate, error = forms.attempt(lambda: forms.estimate_work(ctx))
    if estimate is None:
        # The only input that no property of the form stands for: the videos themselves.
        inputs.view("nothing_to_track", types.Error(label=error), invalid=True, error_message=error)
        return
    about = "about " if estimate.count.is_estimate else ""
    basis = "as measured before on this dataset" if estimate.is_measured else "a rough guess, nothing measured yet"
    time_text = forms.duration(estimate.seconds)
    videos = jobs.counted(estimate.count.targets, "video")
    inputs.view(
        "cost",
        types.Notice(
            label=f"{videos}, {about}{estimate.count.frames} frames: perhaps {time_text}",
            description=f"{basis}, on this machine with these models",
        ),
    )
    if estimate.seconds <= SHORT_SECONDS:
        return
    worker = "fiftyone delegated launch -m --monitor-interval 5"
    if fo.config.allow_legacy_orchestrators:
        inputs.view(
            "how_to_schedule",
            types.Notice(
                label="This is a long job: schedule it, and it goes on when this tab is closed",
                description=f"It begins as soon as this runs in a terminal: {worker}",
            ),
        )
        return
    app = f"FIFTYONE_ALLOW_LEGACY_ORCHESTRATORS=true fiftyone app launch {shlex.quote(ctx.dataset.name)}"
    inputs.view(
        "cannot_schedule",
        types.Warning(
            label="This is a long job, and this App cannot schedule jobs",
            description=(
                "Two commands change that, each in a terminal of its own:\n\n"
                f"1. {app}\n\n2. {worker}\n\n"
                "Or execute it now and leave this tab open. If it is closed, or anything else stops the job, what was "
                "finished is kept, and the same form goes on where it was."
            ),
        ),
    )


def add_earlier_job(inputs: types.Object, ctx: Any, field: str) -> None:
    """Say that somebody is at it, or that an earlier job can go on.

    Args:
        inputs: The form.
        ctx: Its context.
        field: That would be written.
    """
    for job in jobs.list_jobs(dataset=ctx.dataset.name):
        if job.field != field:
            continue
        if job.state is jobs.JobState.RUNNING:
            label = f"{field!r} is being written right now, so this would be refused"
            inputs.view("job_running", types.Warning(label=label, description=f"{job.title}: {job.line}"))
        elif job.is_resumable:
            same = "prompt and settings" if job.prompt else "settings"
            label = f"An earlier job did not get to its end; with the same {same} it goes on where it was"
            inputs.view("job_resumable", types.Notice(label=label, description=f"{job.title}: {job.line}"))


def run(ctx: Any, job: Job, *, field: str, report: Report | None = None) -> Any:
    """Run a job in the way that it was asked for.

    Args:
        ctx: Of the operator.
        job: The work.
        field: That it writes; empty if none.
        report: What is shown of the summary in the end; by default a few lines of numbers.

    Returns:
        The summary as a dict; in the App, a generator of progress messages.
    """
    if ctx.delegated:
        return _summarise(_finished(ctx, field, job(_Throttled(ctx), None)), report)
    if not ctx.request_params.get("stream", True):
        return _summarise(_finished(ctx, field, job(None, None)), report)
    return _stream(ctx, job, field, report)


def summary_output(label: str) -> types.Property:
    """Where FiftyOne shows the summary of a scheduled job."""
    outputs = types.Object()
    outputs.str("summary", label=label, view=types.MarkdownView())
    return types.Property(outputs)


def add_afterwards(inputs: types.Object) -> None:
    """Ask for what makes the new tracks easier to look at; both change the dataset beyond the labels."""
    inputs.bool(
        "color_by_instance",
        label="Give every track its own colour",
        description="Sets the dataset's colour scheme; otherwise all tracks of a field have one colour",
        default=True,
    )
    inputs.bool(
        "save_views",
        label="Save views for review",
        description="Videos that need review, have returns, were repaired, or have doubtful identities",
        default=True,
    )


def _finished(ctx: Any, field: str, summary: Any) -> Any:
    """A job of which nothing came is an error; any other is followed by what the form asked for."""
    from fiftyone_plugin import labels

    if summary.videos and len(summary.failures) == len(summary.videos):
        raise InputError(summary.failures[0])
    if field and ctx.params.get("color_by_instance"):
        labels.color_by_instance(ctx.dataset)
    if field and ctx.params.get("save_views"):
        labels.save_views(ctx.dataset, field)
    return summary


def _summarise(summary: Any, report: Report | None) -> dict[str, Any]:
    text = "  \n".join([*summary.lines(), *summary.failure_lines()]) if report is None else report(summary)
    return {**summary.as_dict(), "summary": text}


def _stream(ctx: Any, job: Job, field: str, report: Report | None) -> Iterator[Any]:
    """Live progress in the App, then a message, the report if there is one, and the new labels."""
    from fiftyone_plugin import runner

    yield ctx.ops.set_progress(label="Loading models", progress=0)
    progress = runner.stream(job)
    try:
        while True:
            try:
                now = next(progress)
            except StopIteration as end:
                summary = _finished(ctx, field, end.value)
                break
            yield ctx.ops.set_progress(label=now.line, progress=now.fraction)
    except Exception as error:
        # The App says nothing of an error that ends a generator: the bar would stand where it is, for ever.
        text = str(error) if isinstance(error, InputError) else f"unexpected {type(error).__name__}: {error}"
        yield ctx.ops.set_progress(label=f"Stopped: {text}", progress=0)
        yield ctx.ops.notify(text, variant="error")
        raise
    if field and ctx.params.get("color_by_instance"):
        # The App took the dataset's colours when it opened the dataset, and does not look again.
        yield ctx.trigger("set_color_scheme", {"color_by": "instance"})
    yield ctx.ops.set_progress(label="Done", progress=1)
    for failure in summary.failure_lines():
        yield ctx.ops.notify(failure, variant="error")
    yield ctx.ops.notify("; ".join(summary.lines()), variant="warning" if summary.failures else "success")
    if report is not None:
        # Its outputs only: what belongs to single videos is long, and nobody reads it there.
        yield ctx.ops.show_output(summary_output("").to_json(), {"summary": report(summary)})
    yield ctx.ops.reload_dataset()


class _Throttled:
    """Passes progress on to a scheduled job's record, now and then."""

    def __init__(self, ctx: Any) -> None:
        self._ctx = ctx
        self._last = -REPORT_SECONDS

    def __call__(self, progress: Any) -> None:
        now = time.monotonic()
        if now - self._last >= REPORT_SECONDS:
            self._last = now
            self._ctx.set_progress(progress=progress.fraction, label=progress.line)
