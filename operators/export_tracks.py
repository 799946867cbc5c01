"""Operator `export_tracks`: one file per video, in a format of other tools."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types

from fiftyone_plugin import exporters
from fiftyone_plugin.errors import OutputError
from fiftyone_plugin.jobs import counted

from . import base, fields, forms

__all__ = ["ExportTracks"]


class ExportTracks(foo.Operator):
    """Write the tracks of a field to files."""

    @property
    def config(self) -> foo.OperatorConfig:
        """What FiftyOne shows and allows."""
        return base.describe(
            "export_tracks",
            "Export tracks",
            "Write tracks to MOTChallenge, YouTube-VIS, DAVIS or CVAT files, one per video",
            can_be_scheduled=True,
        )

    def resolve_input(self, ctx: Any) -> types.Property:
        """The form."""
        from fiftyone_plugin.labels.exchange import file_names

        inputs = types.Object()
        fields.add_existing_tracks(inputs, ctx, "field", label="Tracks", description="Of any tool")
        choices = {name: f"{name}: {found.about}" for name, found in exporters.FORMATS.items()}
        format = fields.add_choice(inputs, ctx, "format", choices, label="Format", missing="")
        folder = forms.text_of(ctx.params, "folder")
        _, error = forms.attempt(lambda: _check_folder(Path(folder).expanduser())) if folder else (None, "")
        inputs.str(
            "folder",
            label="Folder",
            description="On the machine that runs FiftyOne; made if it is not there, files of these names are replaced",
            required=True,
            invalid=bool(error),
            error_message=error,
        )
        names, error = forms.attempt(lambda: file_names(ctx.target_view(), format))
        if error:
            inputs.view("nothing_to_export", types.Error(label=error), invalid=True, error_message=error)
        else:
            example = next(iter(names.values()))
            text = f"{counted(len(names), 'video')}, such as {Path(folder) / example}"
            inputs.view("names", types.Notice(label=text))
        return types.Property(inputs, view=types.PromptView(label="Export tracks", submit_button_label="Export"))

    @base.told
    def execute(self, ctx: Any) -> dict[str, Any]:
        """Write the files."""
        from fiftyone_plugin import labels

        written = labels.export_field(
            ctx.target_view(),
            forms.text_of(ctx.params, "field", "tracks"),
            forms.text_of(ctx.params, "folder"),
            forms.text_of(ctx.params, "format", "mot"),
            on_video=lambda number, total: ctx.set_progress(number / total, f"video {number} of {total}"),
        )
        return exchanged(written, "written to", forms.text_of(ctx.params, "folder"))

    def resolve_output(self, ctx: Any) -> types.Property:
        """What was written."""
        return exchanged_output(ctx, "Export")

    def __call__(
        self, sample_collection: Any, field: str, folder: str, *, format: str = "mot", delegate: bool = False
    ) -> foo.ExecutionResult:
        """Export tracks from Python.

        Args:
            sample_collection: A sample, dataset or view with videos, or with images in ordered groups.
            field: The tracks, of any tool.
            folder: Made if it is not there.
            format: mot, coco (YouTube-VIS), davis or cvat.
            delegate: Schedule it instead of running it now.

        Returns:
            FiftyOne's result; its `result` holds ``files``, ``failures`` and ``message``.
        """
        return base.call(self, sample_collection, base.given(locals()), delegate=delegate)


def _check_folder(place: Path) -> None:
    if os.path.isfile(place):  # which, other than pathlib, takes any name
        raise OutputError(f"{place}: is a file: give a folder")
    exporters.check_writable(place)


def exchanged(outcomes: Any, what: str, place: str) -> dict[str, Any]:
    """What was written or read, as a result.

    Raises:
        TrackFileError: Nothing was, because all of it failed.
    """
    from fiftyone_plugin.errors import TrackFileError

    done = [o for o in outcomes if not o.error]
    failures = [f"{Path(o.video).name}: {o.error}" for o in outcomes if o.error]
    if failures and not done:
        raise TrackFileError(failures[0])
    tracks = sum(o.tracks for o in done)
    failed = f"; {counted(len(failures), 'video')} failed" if failures else ""
    return {
        "message": f"{counted(tracks, 'track')} of {counted(len(done), 'video')} {what} {place}{failed}",
        "files": [o.path for o in done],
        "failures": failures,
        "failure_text": "\n".join(failures),
    }


def exchanged_output(ctx: Any, label: str) -> types.Property:
    """A line, and what failed."""
    outputs = types.Object()
    outputs.str("message", label="Done")
    if (ctx.results or {}).get("failures"):
        outputs.str("failure_text", label="Failed")
    return types.Property(outputs, view=types.View(label=label))
