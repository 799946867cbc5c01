"""Operator `track_objects`: from a prompt to tracks with masks, in every video of a dataset or view."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import fiftyone.operators.types as types

from fiftyone_plugin.config import AssociationOptions, TrackingOptions
from fiftyone_plugin.errors import InputError

from . import forms

__all__ = ["TrackObjects"]

SHORT_SECONDS = 120
"""A job that is estimated to take no longer is run at once by default; a longer one is scheduled."""
REPORT_SECONDS = 1.0
"""Between two progress reports of a scheduled job, each of which is a write to the database."""


class TrackObjects(foo.Operator):
    """Find what the prompt names, follow it with masks, check and repair identities, write labels."""

    @property
    def config(self) -> foo.OperatorConfig:
        """What FiftyOne shows and allows."""
        return foo.OperatorConfig(
            name="track_objects",
            label="Track objects by name",
            description="Find what you name in every video, follow it with masks, and keep who is who",
            icon="/operators/assets/shepherd.svg",
            dynamic=True,
            execute_as_generator=True,
            allow_immediate_execution=True,
            allow_delegated_execution=True,
            risk_level=types.RiskLevel.MEDIUM,
        )

    def resolve_placement(self, ctx: Any) -> types.Placement:
        """A button above the grid."""
        return types.Placement(
            types.Places.SAMPLES_GRID_SECONDARY_ACTIONS,
            types.Button(label="Track objects by name", icon="/operators/assets/shepherd.svg", prompt=True),
        )

    def resolve_input(self, ctx: Any) -> types.Property:
        """The form."""
        inputs = types.Object()
        forms.add_prompt(inputs, ctx.params)
        # Near the top, because it is what stops people: Execute stays grey while the field is not ours to change.
        forms.add_field(inputs, ctx)
        forms.add_models(inputs, ctx.params)
        forms.add_models_notes(inputs, ctx.params)
        forms.add_frame_range(inputs, ctx.params)
        inputs.bool(
            "repair",
            label="Repair identities",
            description="Check every encounter, and undo exchanged identities where the evidence is clear",
            default=True,
        )
        inputs.bool("advanced", label="More settings", default=False, view=types.SwitchView())
        if ctx.params.get("advanced"):
            _add_advanced(inputs)
        _add_cost(inputs, ctx)
        return types.Property(inputs, view=types.PromptView(label="Track objects by name"))

    def resolve_execution_options(self, ctx: Any) -> foo.ExecutionOptions:
        """At once if it is short, else scheduled; the user may choose otherwise."""
        estimate, _ = forms.attempt(lambda: forms.estimate_work(ctx))
        is_long = estimate is not None and estimate.seconds > SHORT_SECONDS
        return foo.ExecutionOptions(
            allow_immediate_execution=True,
            allow_delegated_execution=True,
            default_choice_to_delegated=is_long and fo.config.allow_legacy_orchestrators,
        )

    def resolve_run_name(self, ctx: Any) -> str:
        """Name of a scheduled job in lists."""
        return f"Track {ctx.params.get('prompt', '')!r}"

    def execute(self, ctx: Any) -> Any:
        """Progress messages for the App; the summary, as a dict, for a scheduled job and for `__call__`."""
        if ctx.delegated:
            return _summarise(_job(ctx)(_Throttled(ctx), None))
        if not ctx.request_params.get("stream", True):
            return _summarise(_job(ctx)(None, None))
        return _stream(ctx)

    def resolve_output(self, ctx: Any) -> types.Property:
        """The summary of a scheduled job."""
        outputs = types.Object()
        outputs.str("summary", label="Tracked", view=types.MarkdownView())
        return types.Property(outputs)

    def __call__(
        self,
        sample_collection: Any,
        prompt: str,
        *,
        field: str = "tracks",
        models: str = "bundled",
        detector: str | None = None,
        propagator: str | None = None,
        embedder: str | None = None,
        box_threshold: float | None = None,
        text_threshold: float | None = None,
        redetect_every: int | None = None,
        max_tracks: int | None = None,
        first_frame: int | None = None,
        last_frame: int | None = None,
        repair: bool = True,
        overwrite: bool = False,
        device: str = "auto",
        delegate: bool = False,
    ) -> foo.ExecutionResult:
        """Track objects from Python.

        Args:
            sample_collection: A dataset or view with videos, or with images in ordered groups.
            prompt: Classes, separated by periods, commas or new lines.
            field: Frame field for the labels.
            models: Preset: bundled, fast or accurate.
            detector: Instead of the preset's, as NAME:VARIANT; so are the next two.
            propagator: See there.
            embedder: See there.
            box_threshold: Smallest score of a detection, in [0, 1].
            text_threshold: Smallest score of a detection's class, in [0, 1].
            redetect_every: Frames between two looks of the detector; 0 looks at the first frame only.
            max_tracks: Objects at once.
            first_frame: 1-based.
            last_frame: 1-based, included; to the end by default.
            repair: Whether to repair identities.
            overwrite: Replace what this plugin wrote to the field before.
            device: auto, cpu, cuda, cuda:1 or mps.
            delegate: Schedule it instead of running it now.

        Returns:
            FiftyOne's result; its `result` holds counts and one entry per video.
        """
        given = {k: v for k, v in locals().items() if k not in ("self", "sample_collection", "delegate")}
        params = {name: value for name, value in given.items() if value is not None}
        ctx = {"view": sample_collection.view(), "stream": False}
        return foo.execute_operator(self.uri, ctx, params=params, request_delegation=delegate)


def _add_advanced(inputs: types.Object) -> None:
    forms.add_detection(inputs)
    defaults = AssociationOptions()
    inputs.int(
        "redetect_every",
        label="Look again every … frames",
        description="How often the detector looks for new objects; 0 looks at the first frame only",
        default=defaults.redetect_every_frames,
        min=0,
    )
    inputs.int("max_tracks", label="Objects at once", default=defaults.max_tracks, min=1)
    inputs.str("device", label="Device", description="auto, cpu, cuda, cuda:1, mps", default=TrackingOptions().device)


def _add_cost(inputs: types.Object, ctx: Any) -> None:
    """Say how much work it is, and how to schedule it where the App cannot."""
    estimate, error = forms.attempt(lambda: forms.estimate_work(ctx))
    if estimate is None:
        # The only input that no property of the form stands for: the videos themselves.
        inputs.view("nothing_to_track", types.Error(label=error), invalid=True, error_message=error)
        return
    about = "about " if estimate.count.is_estimate else ""
    basis = "as measured before on this dataset" if estimate.is_measured else "a rough guess, nothing measured yet"
    time_text = forms.duration(estimate.seconds)
    inputs.view(
        "cost",
        types.Notice(
            label=f"{estimate.count.targets} videos, {about}{estimate.count.frames} frames: perhaps {time_text}",
            description=f"{basis}, on this machine with these models",
        ),
    )
    if estimate.seconds > SHORT_SECONDS and not fo.config.allow_legacy_orchestrators:
        inputs.view(
            "cannot_schedule",
            types.Warning(
                label="This is a long job, and this App cannot schedule jobs",
                description=(
                    "Start the App with FIFTYONE_ALLOW_LEGACY_ORCHESTRATORS=true in its environment, and run "
                    "`fiftyone delegated launch -m --monitor-interval 5` in another terminal; or execute it now and "
                    "leave this tab open: finished videos are kept, and the same form goes on with the rest."
                ),
            ),
        )


def _job(ctx: Any) -> Callable[..., Any]:
    """The work that the form describes, as a function of `on_progress` and `should_stop`.

    Raises:
        InputError: The form asks for something that cannot be.
    """
    from fiftyone_plugin import runner

    prompt = forms.text_of(ctx.params, "prompt")
    forms.phrases_of(ctx.params)
    options, collection = forms.options_of(ctx.params), ctx.target_view()
    field, overwrite = forms.text_of(ctx.params, "field", "tracks"), bool(ctx.params.get("overwrite", False))

    def job(on_progress: Callable[[Any], None] | None, should_stop: Callable[[], bool] | None) -> Any:
        summary = runner.track_dataset(
            collection,
            prompt,
            field=field,
            options=options,
            overwrite=overwrite,
            on_progress=on_progress,
            should_stop=should_stop,
        )
        if summary.videos and len(summary.failures) == len(summary.videos):
            raise InputError(summary.failures[0])
        return summary

    return job


def _summarise(summary: Any) -> dict[str, Any]:
    return {**summary.as_dict(), "summary": "  \n".join([*summary.lines(), *summary.failures])}


def _stream(ctx: Any) -> Iterator[Any]:
    """Live progress in the App, then a message and the new labels."""
    from fiftyone_plugin import runner

    yield ctx.ops.set_progress(label="Loading models", progress=0)
    progress = runner.stream(_job(ctx))
    while True:
        try:
            now = next(progress)
        except StopIteration as end:
            summary = end.value
            break
        yield ctx.ops.set_progress(label=now.line, progress=now.fraction)
    yield ctx.ops.set_progress(label="Done", progress=1)
    for failure in summary.failures:
        yield ctx.ops.notify(failure, variant="error")
    yield ctx.ops.notify("; ".join(summary.lines()), variant="warning" if summary.failures else "success")
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
