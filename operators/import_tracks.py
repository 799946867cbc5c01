"""Operator `import_tracks`: tracks of other tools from files into a field."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types

from fiftyone_plugin import exporters
from fiftyone_plugin.errors import TrackFileError

from . import base, fields, forms
from .export_tracks import exchanged, exchanged_output

__all__ = ["ImportTracks"]

GUESS = "guess"
"""Choice of the format that is told from the name."""


class ImportTracks(foo.Operator):
    """Read tracks from files into a new field, where they can be reviewed, edited and audited."""

    @property
    def config(self) -> foo.OperatorConfig:
        """What FiftyOne shows and allows."""
        return base.describe(
            "import_tracks",
            "Import tracks",
            "Read tracks from MOTChallenge, YouTube-VIS, DAVIS or CVAT files into a new field",
            can_be_scheduled=True,
        )

    def resolve_input(self, ctx: Any) -> types.Property:
        """The form."""
        inputs = types.Object()
        path = forms.text_of(ctx.params, "path")
        error = ""
        if path and not os.path.exists(Path(path).expanduser()):  # which, other than pathlib, takes any name
            error = f"{path}: there is no such file or folder"
        inputs.str(
            "path",
            label="File or folder",
            description="On the machine that runs FiftyOne: a file for one video, or a folder with one per video, "
            "named like the videos",
            required=True,
            invalid=bool(error),
            error_message=error,
        )
        choices = {GUESS: "told from the name"}
        choices |= {name: f"{name}: {found.about}" for name, found in exporters.FORMATS.items()}
        fields.add_choice(inputs, ctx, "format", choices, label="Format", missing="")
        fields.add_new_field(inputs, ctx, "field", default="imported", label="New label field")
        return types.Property(inputs, view=types.PromptView(label="Import tracks", submit_button_label="Import"))

    @base.told
    def execute(self, ctx: Any) -> dict[str, Any]:
        """Read the files."""
        from fiftyone_plugin import labels

        path, field = forms.text_of(ctx.params, "path"), forms.text_of(ctx.params, "field", "imported")
        if not path:
            raise TrackFileError("no path: give the file, or the folder, that holds the tracks")
        format = forms.text_of(ctx.params, "format", GUESS)
        read = labels.import_field(
            ctx.target_view(),
            path,
            field,
            format=None if format == GUESS else format,
            overwrite=bool(ctx.params.get("overwrite", False)),
            on_video=lambda number, total: ctx.set_progress(number / total, f"video {number} of {total}"),
        )
        if ctx.request_params.get("stream", True) and not ctx.delegated:
            ctx.ops.reload_dataset()
        return exchanged(read, "read into", repr(field))

    def resolve_output(self, ctx: Any) -> types.Property:
        """What was read."""
        return exchanged_output(ctx, "Import")

    def __call__(
        self,
        sample_collection: Any,
        path: str,
        *,
        field: str = "imported",
        format: str | None = None,
        overwrite: bool = False,
        delegate: bool = False,
    ) -> foo.ExecutionResult:
        """Import tracks from Python.

        Args:
            sample_collection: A sample, dataset or view with videos, or with images in ordered groups.
            path: A file, for one video; or a folder that holds one per video, named after it.
            field: New frame field.
            format: mot, coco (YouTube-VIS), davis or cvat; by default told from the name.
            overwrite: Replace what this plugin wrote to the field before.
            delegate: Schedule it instead of running it now.

        Returns:
            FiftyOne's result; its `result` holds ``files``, ``failures`` and ``message``.
        """
        return base.call(self, sample_collection, base.given(locals()), delegate=delegate)
