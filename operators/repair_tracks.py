"""Operator `repair_tracks`: audit and repair the identities of tracks that exist, from whatever tool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types

from fiftyone_plugin.config import IdentityOptions, TrackingOptions, check_counts

from . import audit_report, base, fields, forms, running

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
            default = f"{source or 'tracks'}_repaired"
            fields.add_new_field(
                inputs,
                ctx,
                "field",
                default=default,
                label="Field for the repaired tracks",
                differs_from=source,
                options=forms.attempt(lambda: _options(ctx, source))[0],
            )
            running.add_earlier_job(inputs, ctx, forms.text_of(ctx.params, "field", default))
            running.add_afterwards(inputs)
        forms.add_models(inputs, ctx.params, kinds=("embedder",))
        forms.add_models_notes(inputs, ctx.params, kinds=("embedder",))
        inputs.bool("advanced", label="More settings", default=False, view=types.SwitchView())
        if ctx.params.get("advanced"):
            forms.add_counts(inputs, ctx.params, lambda: list(_phrases(ctx, source)))
            inputs.float(
                "min_margin",
                label="Smallest margin",
                description="Evidence, in nats, that decides; with less it is left to you. 1 is about 73 %",
                default=IdentityOptions().min_margin,
                min=0.0,
            )
        forms.add_problem(inputs, ctx.params)
        running.add_cost(inputs, ctx)
        return types.Property(inputs, view=types.PromptView(label="Audit and repair tracks"))

    def resolve_execution_options(self, ctx: Any) -> foo.ExecutionOptions:
        """At once if it is short, else scheduled."""
        return running.execution_options(ctx)

    def resolve_run_name(self, ctx: Any) -> str:
        """Name of a scheduled job in lists."""
        return f"Audit {ctx.params.get('from_field', '')!r}"

    @base.told
    def execute(self, ctx: Any) -> Any:
        """Progress messages for the App; the summary, as a dict, for a scheduled job and for `__call__`."""
        from fiftyone_plugin import runner

        source, is_dry_run = forms.text_of(ctx.params, "from_field"), bool(ctx.params.get("dry_run", True))
        options, collection = _options(ctx, source), ctx.target_view()
        field = forms.text_of(ctx.params, "field", f"{source}_repaired")
        return running.run(
            ctx,
            lambda on_progress, should_stop: runner.repair_dataset(
                collection,
                source,
                field=field,
                options=options,
                dry_run=is_dry_run,
                overwrite=bool(ctx.params.get("overwrite", False)),
                on_progress=on_progress,
                should_stop=should_stop,
            ),
            field="" if is_dry_run else field,
            report=partial(audit_report.report, is_dry_run=is_dry_run),
        )

    def resolve_output(self, ctx: Any) -> types.Property:
        """The report of a scheduled job."""
        return running.summary_output("")

    def __call__(
        self,
        sample_collection: Any,
        from_field: str,
        *,
        field: str | None = None,
        dry_run: bool = True,
        models: str = "bundled",
        embedder: str | None = None,
        counts: str | Mapping[str, int] | None = None,
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
            counts: Known numbers of objects in a video, such as ``"sheep=3, dog=1"`` or ``{"sheep": 3}``.
            min_margin: Smallest evidence, in nats, that decides an encounter.
            overwrite: Replace what this plugin wrote to the field before.
            device: auto, cpu, cuda, cuda:1 or mps.
            color_by_instance: Afterwards, give every track its own colour in the App.
            save_views: Afterwards, save views of the videos that need review, have returns, or were repaired.
            delegate: Schedule it instead of running it now.

        Returns:
            FiftyOne's result; its `result` holds counts, the report as Markdown (``summary``) and one entry per video,
            with every repair and doubt in its ``findings`` (frames 0-based, half-open).
        """
        counts = forms.counts_text(counts)
        return base.call(self, sample_collection, base.given(locals()), delegate=delegate)


def _options(ctx: Any, field: str) -> TrackingOptions:
    """What the form asks for.

    Raises:
        InputError: One of the values is out of its range, or a number is known of a class that no track has.
    """
    options = forms.options_of(ctx.params)
    if not options.identity.counts:
        return options
    # Labels of others are written as others like.
    phrases = _phrases(ctx, field)
    check_counts(options.identity.counts, list(phrases))
    counts = {phrases[name]: count for name, count in options.identity.counts.items()}
    return replace(options, identity=replace(options.identity, counts=counts))


def _phrases(ctx: Any, field: str) -> dict[str, str]:
    """The classes of the tracks that would be checked: in lower case, and as they are written."""
    from fiftyone_plugin import labels

    return {name.lower(): name for name in labels.classes_of(ctx.target_view(), field)} if field else {}
