"""Inputs for label fields and tracks: dropdowns of what there is, and new names checked while they are typed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import fiftyone.operators.types as types

from fiftyone_plugin.config import TrackingOptions
from fiftyone_plugin.jobs import counted

from . import forms

__all__ = ["add_choice", "add_existing_tracks", "add_new_field", "tracks_fields"]


def add_choice(
    inputs: types.Object,
    ctx: Any,
    name: str,
    choices: Mapping[str, str],
    *,
    label: str,
    missing: str,
    description: str = "",
    default: str | None = None,
    required: bool = True,
) -> str:
    """Ask for one of some values, by dropdown.

    Args:
        inputs: The form.
        ctx: Its context.
        name: Of the parameter.
        choices: Value to what is shown.
        label: Above the dropdown.
        missing: What to do where there is nothing to choose from.
        description: Below it.
        default: Value; the first one unless given.
        required: Whether there must be one; the first is chosen then.

    Returns:
        What is chosen, empty where there is nothing to choose from.
    """
    if not choices:
        if required:
            inputs.view(f"{name}_missing", types.Error(label=missing), invalid=True, error_message=missing)
        return ""
    view = types.DropdownView()
    for value, shown in choices.items():
        view.add_choice(value, label=shown)
    first = (default or next(iter(choices))) if required else default
    given = ctx.params.get(name)
    error = ""
    if given is not None and given not in choices:
        error = f"{label} {given!r}: must be one of {', '.join(shown for shown in choices if shown)}"
    # Never marked as required: a caller from Python, who leaves it out, means what the form shows first.
    inputs.enum(
        name,
        list(choices),
        label=label,
        description=description,
        default=first,
        view=view,
        invalid=bool(error),
        error_message=error,
    )
    return forms.text_of(ctx.params, name, first or "")


def tracks_fields(ctx: Any, *, only_ours: bool = False) -> dict[str, str]:
    """Fields that can hold tracks, to what is shown of them."""
    from fiftyone_plugin import labels
    from fiftyone_plugin.labels.browse import own_fields

    ours = own_fields(ctx.dataset)
    shown = {name: f"{name} (tracked here)" for name in ours}
    if only_ours:
        return shown
    others = [name for name, kind in labels.prompt_fields(ctx.dataset).items() if kind == "detections"]
    return {**shown, **{name: name for name in others if name not in shown}}


def add_existing_tracks(
    inputs: types.Object, ctx: Any, name: str, *, label: str, description: str = "", only_ours: bool = False
) -> str:
    """Ask for a field that holds tracks; returns its name, empty where there is none."""
    missing = "No field holds tracks that this plugin wrote" if only_ours else "No field holds detections"
    return add_choice(
        inputs,
        ctx,
        name,
        tracks_fields(ctx, only_ours=only_ours),
        label=label,
        description=description,
        missing=f"{missing}: track something first, or import tracks",
    )


def add_new_field(
    inputs: types.Object,
    ctx: Any,
    name: str,
    *,
    default: str,
    label: str,
    differs_from: str = "",
    options: TrackingOptions | None = None,
) -> None:
    """Ask for the name of a field to be written, and refuse it where that would overwrite labels of others.

    Args:
        inputs: The form.
        ctx: Its context.
        name: Of the parameter.
        default: Name of the field, where none is given.
        label: Above the input.
        differs_from: The field that is read for it; empty where none is.
        options: With `differs_from`, the form's settings: videos that were finished with these are left as they are.
    """
    from fiftyone_plugin import labels, runner
    from fiftyone_plugin.errors import FieldConflictError

    field = forms.text_of(ctx.params, name, default)
    overwrite = bool(ctx.params.get("overwrite", False))

    def check() -> set[str]:
        if field == differs_from:
            raise FieldConflictError(f"field {field!r}: holds the labels that are read; give another name")
        ids = [labels.target_id(target) for target in labels.targets(ctx.target_view())]
        if differs_from and options is not None:
            return runner.finished_from(ctx.dataset, field, ids, differs_from, options, overwrite=overwrite)
        labels.require_writable(ctx.dataset, field, ids, overwrite=overwrite)
        return set()

    done, error = forms.attempt(check)
    inputs.str(
        name,
        label=label,
        description="What happened to the tracks goes into a second field, with _events added",
        default=default,
        invalid=bool(error),
        error_message=error,
    )
    if error:
        inputs.view(f"{name}_conflict", types.Warning(label=error))
    state, _ = forms.attempt(lambda: labels.field_state(ctx.dataset, field))
    if state is not None and state.is_ours:
        inputs.bool(
            "overwrite",
            label="Replace earlier tracks",
            description=f"{state.field!r} holds our tracks of {counted(len(state.finished), 'video')}",
            default=False,
        )
    if done:
        text = f"Finished with these settings, and left as it is: {counted(len(done), 'video')}"
        inputs.view(f"{name}_done", types.Notice(label=text))
