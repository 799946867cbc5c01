"""Operator `preview_prompt`: the detector on a few frames of one video, so that a prompt can be judged."""

from __future__ import annotations

from collections import Counter
from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types

from . import base, forms
from .pictures import contact_sheet, data_uri

__all__ = ["PreviewPrompt"]

DEFAULT_FRAMES = 4
MAX_FRAMES = 12


class PreviewPrompt(foo.Operator):
    """Show what the detector finds for a prompt, before a long job is started with it."""

    @property
    def config(self) -> foo.OperatorConfig:
        """What FiftyOne shows and allows."""
        return foo.OperatorConfig(
            name="preview_prompt",
            label="Preview a tracking prompt",
            description="Look at what a prompt finds in a few frames of the selected or first video; writes nothing",
            icon="/operators/assets/shepherd.svg",
            dynamic=True,
            risk_level=types.RiskLevel.LOW,
        )

    def resolve_input(self, ctx: Any) -> types.Property:
        """The form."""
        inputs = types.Object()
        forms.add_prompt(inputs, ctx.params)
        forms.add_models(inputs, ctx.params, kinds=("detector",))
        forms.add_models_notes(inputs, ctx.params, kinds=("detector",))
        forms.add_detection(inputs)
        inputs.int(
            "frames", label="Frames", description="Spread over the video", default=DEFAULT_FRAMES, min=1, max=MAX_FRAMES
        )
        forms.add_problem(inputs, ctx.params)
        target, error = forms.attempt(lambda: _target(ctx))
        if target is None:
            inputs.view("nothing_to_track", types.Error(label=error), invalid=True, error_message=error)
        else:
            from fiftyone_plugin import labels

            inputs.view("video", types.Notice(label=f"Looks at {labels.describe(target)}"))
        return types.Property(
            inputs, view=types.PromptView(label="Preview a tracking prompt", submit_button_label="Preview")
        )

    @base.told
    def execute(self, ctx: Any) -> dict[str, Any]:
        """Counts per frame and class, and a picture."""
        from fiftyone_plugin import labels, pipeline

        phrases, target = forms.phrases_of(ctx.params), _target(ctx)
        shown = pipeline.preview(
            labels.open_target(target),
            forms.text_of(ctx.params, "prompt"),
            forms.options_of(ctx.params),
            frames=int(ctx.params.get("frames") or DEFAULT_FRAMES),
        )
        counts = []
        for frame, detections in shown:
            found = Counter(detections.phrases)
            counts.append({"frame": frame.index + 1, **{phrase: found[phrase] for phrase in phrases}})
        total = sum(len(detections) for _, detections in shown)
        message = f"{total} detections in {len(shown)} frames of {labels.describe(target)}"
        if not total:
            message += ": nothing found; try other words, or a lower box threshold"
        return {"message": message, "counts": counts, "picture": data_uri(contact_sheet(shown, phrases))}

    def resolve_output(self, ctx: Any) -> types.Property:
        """A line, the picture, and a table of counts."""
        outputs = types.Object()
        outputs.str("message", label="Found")
        outputs.str("picture", label="Detections", view=types.ImageView(alt="frames with the detected boxes"))
        table = types.TableView()
        for name in ((ctx.results or {}).get("counts") or [{"frame": None}])[0]:
            table.add_column(name, label=name)
        outputs.list("counts", types.Object(), label="Objects per frame", view=table)
        return types.Property(outputs, view=types.View(label="Preview"))

    def __call__(
        self,
        sample_collection: Any,
        prompt: str,
        *,
        models: str = "bundled",
        detector: str | None = None,
        box_threshold: float | None = None,
        text_threshold: float | None = None,
        frames: int = DEFAULT_FRAMES,
        device: str = "auto",
    ) -> foo.ExecutionResult:
        """Preview a prompt on the first video, from Python.

        Args:
            sample_collection: A sample, dataset or view with videos, or with images in ordered groups.
            prompt: Classes, separated by periods, commas or new lines.
            models: Preset: bundled, fast or accurate.
            detector: Instead of the preset's, as NAME:VARIANT.
            box_threshold: Smallest score of a detection, in [0, 1].
            text_threshold: Smallest score of a detection's class, in [0, 1].
            frames: How many, spread over the video.
            device: auto, cpu, cuda, cuda:1 or mps.

        Returns:
            FiftyOne's result; its `result` holds ``message``, ``counts`` and ``picture``, a JPEG as data URI.
        """
        return base.call(self, sample_collection, base.given(locals()))


def _target(ctx: Any) -> Any:
    """The open sample, else the first selected one, else the first of the view.

    Raises:
        VideoError: There is nothing to look at.
    """
    from fiftyone_plugin import labels

    chosen = [ctx.current_sample] if ctx.current_sample else ctx.selected
    collection = ctx.view.select(chosen) if chosen else ctx.view
    return next(labels.targets(collection))
