"""Operator `evaluate_tracks`: HOTA, IDF1, ID switches and more against a ground-truth field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types

from . import base, fields, forms

__all__ = ["EvaluateTracks"]

SHOWN = ("HOTA", "AssA", "DetA", "IDF1", "MOTA", "IDSW", "Frag")


class EvaluateTracks(foo.Operator):
    """Measure tracks against ground truth, per video and together."""

    @property
    def config(self) -> foo.OperatorConfig:
        """What FiftyOne shows and allows."""
        return base.describe(
            "evaluate_tracks",
            "Evaluate tracks",
            "HOTA, IDF1, ID switches and more against a ground-truth field; stored per video and as a run",
            can_be_scheduled=True,
        )

    def resolve_input(self, ctx: Any) -> types.Property:
        """The form."""
        from fiftyone_plugin import labels
        from fiftyone_plugin.labels.evaluation import evaluation_field

        inputs = types.Object()
        field = fields.add_existing_tracks(inputs, ctx, "field", label="Tracks to measure")
        others = {name: shown for name, shown in fields.tracks_fields(ctx).items() if name != field}
        guess = next((name for name in others if "truth" in name or name.startswith("gt")), None)
        fields.add_choice(
            inputs,
            ctx,
            "ground_truth",
            others,
            label="Ground truth",
            description="Detections with an index or an instance; videos without any are left out",
            default=guess,
            missing="There is no second field with detections to measure against: import the ground truth first",
        )
        inputs.bool("per_class", label="Match only tracks of one label", default=False)
        _, error = forms.attempt(lambda: labels.count_frames(ctx.target_view()))
        if error:
            inputs.view("nothing_to_measure", types.Error(label=error), invalid=True, error_message=error)
        elif field:
            inputs.view("where", types.Notice(label=f"Scores of each video go into {evaluation_field(field)!r}"))
        return types.Property(inputs, view=types.PromptView(label="Evaluate tracks", submit_button_label="Evaluate"))

    @base.told
    def execute(self, ctx: Any) -> dict[str, Any]:
        """Measure and store."""
        from fiftyone_plugin import labels

        found = labels.evaluate_field(
            ctx.target_view(),
            forms.text_of(ctx.params, "field", "tracks"),
            forms.text_of(ctx.params, "ground_truth"),
            per_class=bool(ctx.params.get("per_class", False)),
            store=bool(ctx.params.get("store", True)),
            on_video=lambda number, total: ctx.set_progress(number / total, f"video {number} of {total}"),
        )
        rows = [{"video": "all together", **_rounded(found.total)}]
        rows += [{"video": Path(v.video).name, **_rounded(v.scores)} for v in found.videos if not v.error]
        if ctx.request_params.get("stream", True) and not ctx.delegated:
            ctx.ops.reload_dataset()
        return {
            "scores": found.total,
            "videos": [{"video": v.video, "error": v.error, **v.scores} for v in found.videos],
            "rows": rows,
            "failures": "\n".join(f"{Path(v.video).name}: {v.error}" for v in found.videos if v.error),
            "field": found.field,
            "run_key": found.run_key,
        }

    def resolve_output(self, ctx: Any) -> types.Property:
        """A table of the scores."""
        outputs = types.Object()
        table = types.TableView()
        for name in ("video", *SHOWN):
            table.add_column(name, label=name)
        outputs.list("rows", types.Object(), label="Scores", view=table)
        if (ctx.results or {}).get("failures"):
            outputs.str("failures", label="Could not be measured")
        return types.Property(outputs, view=types.View(label="Evaluation"))

    def __call__(
        self,
        sample_collection: Any,
        field: str,
        ground_truth: str,
        *,
        per_class: bool = False,
        store: bool = True,
        delegate: bool = False,
    ) -> foo.ExecutionResult:
        """Evaluate tracks from Python.

        Args:
            sample_collection: A sample, dataset or view with videos, or with images in ordered groups.
            field: The tracks to measure.
            ground_truth: The objects as they are.
            per_class: Match only tracks of one label.
            store: Write the sample field ``<field>_eval`` and a run.
            delegate: Schedule it instead of running it now.

        Returns:
            FiftyOne's result; its `result` holds ``scores`` (percentages and counts), and ``videos`` with each one's.
        """
        return base.call(self, sample_collection, base.given(locals()), delegate=delegate)


def _rounded(scores: dict[str, Any]) -> dict[str, Any]:
    return {name: round(scores[name], 1) if isinstance(scores[name], float) else scores[name] for name in SHOWN}
