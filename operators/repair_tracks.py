"""Operator `repair_tracks`: audit and repair the identities of tracks that exist, from whatever tool."""

from __future__ import annotations

from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types

from . import base, fields, forms, running

__all__ = ["RepairTracks"]


class RepairTracks(foo.Operator):
    """Check every encounter of existing tracks, say what is wrong, and write repaired tracks to a new field."""

    @property
    def config(self) -> foo.OperatorConfig:
        """What FiftyOne shows and allows."""
        return base.describe(
            "repair_tracks",
            "Audit and repair tracks",
            "Check who is who in tracks of any tool; report first, or write repaired tracks to a new field",
            is_job=True,
        )

    def resolve_input(self, ctx: Any) -> types.Property:
        """The form."""
        inputs = types.Object()
        source = fields.add_existing_tracks(
            inputs,
            ctx,
            "from_field",
            label="Tracks to check",
            description="Detections with an index or an instance, of any tool; they are only read",
        )
        inputs.bool(
            "dry_run",
            label="Report only",
            description="Say what would be repaired, and write nothing",
            default=True,
        )
        if not ctx.params.get("dry_run", True):
            fields.add_new_field(
                inputs,
                ctx,
                "field",
                default=f"{source or 'tracks'}_repaired",
                label="Field for the repaired tracks",
                differs_from=source,
            )
            running.add_afterwards(inputs)
        forms.add_models(inputs, ctx.params, kinds=("embedder",))
        forms.add_models_notes(inputs, ctx.params, kinds=("embedder",))
        inputs.float(
            "min_margin",
            label="Smallest margin",
            description="Evidence, in nats, that decides an encounter; with less it is left to you. 1 is about 73 %",
            default=1.0,
            min=0.0,
        )
        running.add_cost(inputs, ctx)
        return types.Property(inputs, view=types.PromptView(label="Audit and repair tracks"))

    def resolve_execution_options(self, ctx: Any) -> foo.ExecutionOptions:
        """At once if it is short, else scheduled."""
        return running.execution_options(ctx)

    def resolve_run_name(self, ctx: Any) -> str:
        """Name of a scheduled job in lists."""
        return f"Audit {ctx.params.get('from_field', '')!r}"

    def execute(self, ctx: Any) -> Any:
        """Progress messages for the App; the summary, as a dict, for a scheduled job and for `__call__`."""
        from fiftyone_plugin import runner

        options, collection = forms.options_of(ctx.params), ctx.target_view()
        source = forms.text_of(ctx.params, "from_field")
        return running.run(
            ctx,
            lambda on_progress, should_stop: runner.repair_dataset(
                collection,
                source,
                field=forms.text_of(ctx.params, "field", f"{source}_repaired"),
                options=options,
                dry_run=bool(ctx.params.get("dry_run", True)),
                overwrite=bool(ctx.params.get("overwrite", False)),
                on_progress=on_progress,
                should_stop=should_stop,
            ),
            field="" if ctx.params.get("dry_run", True) else forms.text_of(ctx.params, "field", f"{source}_repaired"),
        )

    def resolve_output(self, ctx: Any) -> types.Property:
        """The summary of a scheduled job."""
        return running.summary_output("Audited")

    def __call__(
        self,
        sample_collection: Any,
        from_field: str,
        *,
        field: str | None = None,
        dry_run: bool = True,
        models: str = "bundled",
        embedder: str | None = None,
        min_margin: float | None = None,
        overwrite: bool = False,
        device: str = "auto",
        color_by_instance: bool = False,
        save_views: bool = False,
        delegate: bool = False,
    ) -> foo.ExecutionResult:
        """Audit tracks from Python.

        Args:
            sample_collection: A sample, dataset or view with videos, or with images in ordered groups.
            from_field: Frame field with detections that have an `index` or an `instance`; only read.
            field: Frame field for the repaired tracks; ``<from_field>_repaired`` by default.
            dry_run: Report only.
            models: Preset, of which the embedder is used.
            embedder: Instead of the preset's, as NAME:VARIANT.
            min_margin: Smallest evidence, in nats, that decides an encounter.
            overwrite: Replace what this plugin wrote to the field before.
            device: auto, cpu, cuda, cuda:1 or mps.
            color_by_instance: Afterwards, give every track its own colour in the App.
            save_views: Afterwards, save views of the videos that need review, have returns, or were repaired.
            delegate: Schedule it instead of running it now.

        Returns:
            FiftyOne's result; its `result` holds counts and one entry per video.
        """
        return base.call(self, sample_collection, base.given(locals()), delegate=delegate)
