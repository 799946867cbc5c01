"""Operator `track_objects`: from a prompt to tracks with masks, in every video of a dataset or view."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types

from fiftyone_plugin.config import AssociationOptions, TrackingOptions

from . import base, forms, running
from .warm_up import warm_up

__all__ = ["TrackObjects"]


class TrackObjects(foo.Operator):
    """Find what the prompt names, follow it with masks, check and repair identities, write labels."""

    @property
    def config(self) -> foo.OperatorConfig:
        """What FiftyOne shows and allows."""
        return base.describe(
            "track_objects",
            "Track objects by name",
            "Find what you name in every video, follow it with masks, and keep who is who",
            is_job=True,
        )

    def resolve_placement(self, ctx: Any) -> types.Placement:
        """A button above the grid; the App asks for it while it opens a dataset."""
        warm_up()
        return base.placement("Track objects by name")

    def resolve_input(self, ctx: Any) -> types.Property:
        """The form."""
        inputs = types.Object()
        forms.add_prompt(inputs, ctx.params)
        # Near the top, because it is what stops people: Execute stays grey while the field is not ours to change.
        forms.add_field(inputs, ctx)
        running.add_earlier_job(inputs, ctx, forms.text_of(ctx.params, "field", "tracks"))
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
            _add_advanced(inputs, ctx.params)
        running.add_afterwards(inputs)
        forms.add_problem(inputs, ctx.params)
        running.add_cost(inputs, ctx)
        return types.Property(inputs, view=types.PromptView(label="Track objects by name"))

    def resolve_execution_options(self, ctx: Any) -> foo.ExecutionOptions:
        """At once if it is short, else scheduled; the user may choose otherwise."""
        return running.execution_options(ctx)

    def resolve_run_name(self, ctx: Any) -> str:
        """Name of a scheduled job in lists."""
        return f"Track {ctx.params.get('prompt', '')!r}"

    @base.told
    def execute(self, ctx: Any) -> Any:
        """Progress messages for the App; the summary, as a dict, for a scheduled job and for `__call__`."""
        return running.run(ctx, _job(ctx), field=forms.text_of(ctx.params, "field", "tracks"))

    def resolve_output(self, ctx: Any) -> types.Property:
        """The summary of a scheduled job."""
        return running.summary_output("Tracked")

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
        counts: str | Mapping[str, int] | None = None,
        mend_masks: bool = False,
        overwrite: bool = False,
        device: str = "auto",
        color_by_instance: bool = False,
        save_views: bool = False,
        delegate: bool = False,
    ) -> foo.ExecutionResult:
        """Track objects from Python.

        Args:
            sample_collection: A sample, dataset or view with videos, or with images in ordered groups.
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
            counts: Known numbers of objects in a video, such as ``"sheep=3, dog=1"`` or ``{"sheep": 3}``.
            mend_masks: Whether to fill gaps in tracks from both sides.
            overwrite: Replace what this plugin wrote to the field before.
            device: auto, cpu, cuda, cuda:1 or mps.
            color_by_instance: Afterwards, give every track its own colour in the App.
            save_views: Afterwards, save views of the videos that need review, have returns, or were repaired.
            delegate: Schedule it instead of running it now.

        Returns:
            FiftyOne's result; its `result` holds counts and one entry per video.
        """
        counts = forms.counts_text(counts)
        return base.call(self, sample_collection, base.given(locals()), delegate=delegate)


def _add_advanced(inputs: types.Object, params: Mapping[str, Any]) -> None:
    if params.get("repair", True):
        forms.add_counts(inputs, params, lambda: forms.attempt(lambda: forms.phrases_of(params))[0] or ())
        inputs.bool(
            "mend_masks",
            label="Fill gaps in tracks",
            description="Once it is known who is who, objects are propagated into gaps from both sides; slower",
            default=False,
        )
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
        return runner.track_dataset(
            collection,
            prompt,
            field=field,
            options=options,
            overwrite=overwrite,
            on_progress=on_progress,
            should_stop=should_stop,
        )

    return job
