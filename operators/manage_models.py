"""Operator `manage_models`: what is installed, cached and missing; downloads only when asked to."""

from __future__ import annotations

from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types

from fiftyone_plugin import registry, weights
from fiftyone_plugin.errors import OptionError

from . import base, fields, forms

__all__ = ["ManageModels"]

LICENCE = "Apache-2.0"
"""Of the weights of all models in our tables, by their pages on the hub; those of other packages are not known here."""
_KINDS = ("detectors", "propagators", "embedders")


class ManageModels(foo.Operator):
    """List the models with their state, and download one."""

    @property
    def config(self) -> foo.OperatorConfig:
        """What FiftyOne shows and allows."""
        return base.describe(
            "manage_models",
            "Tracking models",
            "Which models are installed, cached or missing, under what licence; download them before a job needs them",
            can_be_scheduled=True,
            writes=False,
        )

    def resolve_input(self, ctx: Any) -> types.Property:
        """The form."""
        inputs = types.Object()
        table = types.TableView()
        for name in ("kind", "name", "state", "licence"):
            table.add_column(name, label=name)
        inputs.list("models", types.Object(), label="Models", default=_rows(), view=table)
        choices = {"": "nothing, only look", **_downloadable()}
        chosen = fields.add_choice(inputs, ctx, "download", choices, label="Download", missing="", required=False)
        if chosen in choices and chosen:
            _add_consent(inputs, ctx, chosen)
        return types.Property(inputs, view=types.PromptView(label="Tracking models"))

    @base.told
    def execute(self, ctx: Any) -> dict[str, Any]:
        """Download what was chosen, if anything."""
        chosen = forms.text_of(ctx.params, "download")
        message = "nothing was downloaded"
        if chosen:
            kind, _, spec = chosen.partition("/")
            if kind not in _KINDS or registry.hub_model(kind, spec) is None:
                known = ", ".join(_downloadable()) or "(all are here)"
                raise OptionError(f"download {chosen!r}: must be one of {known}")
            if not ctx.params.get("consent"):
                raise OptionError(
                    f"{spec}: is downloaded only with your consent to its licence ({LICENCE}); tick the box"
                )
            message = f"{spec}: is in {registry.download(kind, spec)}"
        return {"message": message, "models": _rows()}

    def resolve_output(self, ctx: Any) -> types.Property:
        """A line, and the table as it is then."""
        outputs = types.Object()
        outputs.str("message", label="Models")
        table = types.TableView()
        for name in ("kind", "name", "state", "licence"):
            table.add_column(name, label=name)
        outputs.list("models", types.Object(), label="All models", view=table)
        return types.Property(outputs, view=types.View(label="Tracking models"))

    def __call__(
        self, sample_collection: Any, *, download: str | None = None, consent: bool = False, delegate: bool = False
    ) -> foo.ExecutionResult:
        """Look at models, or download one, from Python.

        Args:
            sample_collection: Any dataset or view.
            download: KIND/NAME:VARIANT, such as ``detectors/grounding-dino:tiny``.
            consent: You accept the licence of the weights.
            delegate: Schedule it instead of running it now.

        Returns:
            FiftyOne's result; its `result` holds ``message`` and ``models``.
        """
        return base.call(self, sample_collection, base.given(locals()), delegate=delegate)


def _rows() -> list[dict[str, str]]:
    rows = registry.overview()
    return [
        {**row, "licence": "see its package" if row["state"] == "from another package" else LICENCE} for row in rows
    ]


def _downloadable() -> dict[str, str]:
    """KIND/NAME:VARIANT of what is not here yet, to what is shown of it."""
    found = {}
    for row in registry.overview():
        model = registry.hub_model(row["kind"], row["name"])
        if model is not None and not weights.is_cached(model):
            found[f"{row['kind']}/{row['name']}"] = f"{row['name']} ({model.repository})"
    return found


def _add_consent(inputs: types.Object, ctx: Any, chosen: str) -> None:
    kind, _, spec = chosen.partition("/")
    model = registry.hub_model(kind, spec)
    assert model is not None
    is_missing = not ctx.params.get("consent")
    inputs.bool(
        "consent",
        label=f"Download {model.repository} from the Hugging Face hub, under {LICENCE}",
        description=f"Revision {model.revision[:12]}; goes into the hub's cache on the machine that runs FiftyOne",
        default=False,
        invalid=is_missing,
        error_message="Tick this to download it" if is_missing else "",
    )
