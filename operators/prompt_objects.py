"""Operator `prompt_objects`: track exactly the objects that were boxed, outlined, masked or clicked."""

from __future__ import annotations

from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types

from . import base, fields, forms, running

__all__ = ["PromptObjects"]


class PromptObjects(foo.Operator):
    """Carry what the labels of a field point at through their videos, forwards and backwards."""

    @property
    def config(self) -> foo.OperatorConfig:
        """What FiftyOne shows and allows."""
        return base.describe(
            "prompt_objects",
            "Track the objects I marked",
            "Follow exactly what you boxed, outlined, masked or clicked on any frame, forwards and backwards",
            is_job=True,
        )

    def resolve_input(self, ctx: Any) -> types.Property:
        """The form."""
        inputs = types.Object()
        marks = _add_marks(inputs, ctx)
        fields.add_new_field(
            inputs,
            ctx,
            "field",
            default="tracks",
            label="Label field for the tracks",
            differs_from=marks,
            options=forms.attempt(lambda: forms.options_of(ctx.params))[0],
        )
        running.add_earlier_job(inputs, ctx, forms.text_of(ctx.params, "field", "tracks"))
        forms.add_models(inputs, ctx.params, kinds=("propagator", "embedder"))
        forms.add_models_notes(inputs, ctx.params, kinds=("propagator", "embedder"))
        forms.add_frame_range(inputs, ctx.params)
        inputs.bool(
            "repair",
            label="Repair identities",
            description="Check every encounter of marked objects, and undo exchanged identities where that is clear",
            default=True,
        )
        running.add_afterwards(inputs)
        forms.add_problem(inputs, ctx.params)
        running.add_cost(inputs, ctx)
        return types.Property(inputs, view=types.PromptView(label="Track the objects I marked"))

    def resolve_execution_options(self, ctx: Any) -> foo.ExecutionOptions:
        """At once if it is short, else scheduled."""
        return running.execution_options(ctx)

    def resolve_run_name(self, ctx: Any) -> str:
        """Name of a scheduled job in lists."""
        return f"Track the objects marked in {ctx.params.get('from_field', '')!r}"

    @base.told
    def execute(self, ctx: Any) -> Any:
        """Progress messages for the App; the summary, as a dict, for a scheduled job and for `__call__`."""
        from fiftyone_plugin import labels, runner

        options, collection = forms.options_of(ctx.params), ctx.target_view()
        label_ids = _chosen_labels(ctx)
        return running.run(
            ctx,
            lambda on_progress, should_stop: runner.prompt_dataset(
                collection,
                forms.text_of(ctx.params, "from_field", next(iter(labels.prompt_fields(ctx.dataset)), "")),
                field=forms.text_of(ctx.params, "field", "tracks"),
                label_ids=label_ids,
                options=options,
                overwrite=bool(ctx.params.get("overwrite", False)),
                on_progress=on_progress,
                should_stop=should_stop,
            ),
            field=forms.text_of(ctx.params, "field", "tracks"),
        )

    def resolve_output(self, ctx: Any) -> types.Property:
        """The summary of a scheduled job."""
        return running.summary_output("Tracked")

    def __call__(
        self,
        sample_collection: Any,
        from_field: str,
        *,
        field: str = "tracks",
        label_ids: list[str] | None = None,
        models: str = "bundled",
        propagator: str | None = None,
        embedder: str | None = None,
        first_frame: int | None = None,
        last_frame: int | None = None,
        repair: bool = True,
        overwrite: bool = False,
        device: str = "auto",
        color_by_instance: bool = False,
        save_views: bool = False,
        delegate: bool = False,
    ) -> foo.ExecutionResult:
        """Track marked objects from Python.

        Args:
            sample_collection: A sample, dataset or view with videos, or with images in ordered groups.
            from_field: Field with Detections, Polylines or Keypoints on some frames; labels that share an `index` or
                an `instance` are one object. A Keypoint holds clicks; with the label ``background`` they lie beside it.
            field: Frame field for the tracks.
            label_ids: Only these labels.
            models: Preset: bundled, fast or accurate.
            propagator: Instead of the preset's, as NAME:VARIANT; so is the next.
            embedder: See there.
            first_frame: 1-based.
            last_frame: 1-based, included; to the end by default.
            repair: Whether to repair identities.
            overwrite: Replace what this plugin wrote to the field before.
            device: auto, cpu, cuda, cuda:1 or mps.
            color_by_instance: Afterwards, give every track its own colour in the App.
            save_views: Afterwards, save views of the videos that need review, have returns, or were repaired.
            delegate: Schedule it instead of running it now.

        Returns:
            FiftyOne's result; its `result` holds counts and one entry per video.
        """
        return base.call(self, sample_collection, base.given(locals()), delegate=delegate)


def _add_marks(inputs: types.Object, ctx: Any) -> str:
    """Ask where the marks are; returns the field, empty while there is none."""
    from fiftyone_plugin import labels

    known = labels.prompt_fields(ctx.dataset)
    choices = {name: f"{name} ({kind})" for name, kind in known.items()}
    chosen = {label["field"].removeprefix("frames.") for label in ctx.selected_labels or []}
    default = next(iter(sorted(chosen & set(choices))), None)
    name = fields.add_choice(
        inputs,
        ctx,
        "from_field",
        choices,
        label="Field with the marks",
        description="Boxes, outlines, masks or keypoints on at least one frame; labels with one index are one object",
        default=default,
        missing="No field holds boxes, outlines or keypoints: draw one on some frame first",
    )
    if ctx.selected_labels:
        inputs.bool(
            "only_selected",
            label="Only the selected labels",
            description=f"{len(ctx.selected_labels)} labels are selected",
            default=True,
        )
    return name


def _chosen_labels(ctx: Any) -> list[str] | None:
    if ctx.params.get("label_ids"):
        return list(ctx.params["label_ids"])
    if ctx.selected_labels and ctx.params.get("only_selected", True):
        return [label["label_id"] for label in ctx.selected_labels]
    return None
