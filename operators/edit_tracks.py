"""Operator `edit_tracks`: merge, split, swap, relabel, delete, lock, accept, undo; one video at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types

from fiftyone_plugin.errors import EditError

from . import base, fields, forms, tracked_anew

__all__ = ["EditTracks"]

ACTIONS = {
    "merge": ("Merge", "Two tracks show one object: the second becomes part of the first"),
    "split": ("Split", "From a frame on, a track shows another object: that part becomes a new track"),
    "swap": ("Swap", "From a frame on, two tracks show each other's object"),
    "relabel": ("Relabel", "Give a track another label"),
    "delete": ("Delete", "Take a track out"),
    "lock": ("Lock", "The track is right: neither edits nor later repairs may change it"),
    "unlock": ("Unlock", "Let go of a locked track"),
    "accept": ("Accept", "A doubtful encounter, or a repair, is right as it stands"),
    "undo_repair": ("Undo a repair", "Tracks become what they would be without it"),
    "undo": ("Undo", "Take back the last edit"),
    "redo": ("Redo", "Do the last undone edit again"),
}
_TAKES_TRACK = ("merge", "split", "swap", "relabel", "delete", "lock", "unlock")
_TAKES_OTHER = ("merge", "swap")
_TAKES_FRAME = ("split", "swap")


class EditTracks(foo.Operator):
    """Mend tracks by hand; every edit can be undone, and later runs obey it."""

    @property
    def config(self) -> foo.OperatorConfig:
        """What FiftyOne shows and allows."""
        return base.describe(
            "edit_tracks",
            "Edit tracks",
            "Merge, split, swap, relabel, delete or lock tracks of the open or selected video, and undo that",
        )

    def resolve_input(self, ctx: Any) -> types.Property:
        """The form."""
        inputs = types.Object()
        target, error = forms.attempt(lambda: base.one_target(ctx))
        if target is None:
            inputs.view("no_video", types.Error(label=error), invalid=True, error_message=error)
            return types.Property(inputs, view=types.PromptView(label="Edit tracks"))
        from fiftyone_plugin import labels

        inputs.view("video", types.Notice(label=f"In {labels.describe(target)}"))
        field = fields.add_existing_tracks(inputs, ctx, "field", label="Tracks", only_ours=True)
        summary = labels.read_summary(target, field) if field else None
        if field and summary is None:
            message = f"{field!r} holds no tracks in this video"
            inputs.view("no_tracks", types.Error(label=message), invalid=True, error_message=message)
        if summary is not None:
            _add_edit(inputs, ctx, target, field, summary)
        return types.Property(inputs, view=types.PromptView(label="Edit tracks", submit_button_label="Apply"))

    @base.told
    def execute(self, ctx: Any) -> dict[str, Any]:
        """Make the edit."""
        target = base.one_target(ctx)
        edit, note = _edit(target, forms.text_of(ctx.params, "field", "tracks"), ctx.params)
        message = tracked_anew.message(edit, note)
        if ctx.request_params.get("stream", True):
            ctx.ops.notify(message, variant="success")
            ctx.ops.reload_dataset()
        return {
            "message": message,
            "edit_id": edit.edit_id,
            "kind": str(edit.kind),
            "track_ids": list(edit.track_ids),
        }

    def resolve_output(self, ctx: Any) -> types.Property:
        """What was done."""
        outputs = types.Object()
        outputs.str("message", label="Done")
        return types.Property(outputs)

    def __call__(
        self,
        sample_collection: Any,
        action: str,
        *,
        field: str = "tracks",
        track: int | None = None,
        other: int | None = None,
        frame: int | None = None,
        last_frame: int | None = None,
        phrase: str | None = None,
        encounter: int | None = None,
        repair: int | None = None,
        repropagate: bool | None = None,
        max_gap_frames: int | None = None,
    ) -> foo.ExecutionResult:
        """Edit tracks from Python.

        Args:
            sample_collection: A video sample, or a view with exactly one.
            action: merge, split, swap, relabel, delete, lock, unlock, accept, undo_repair, undo or redo.
            field: A field that this plugin wrote.
            track: Id of the track; of a merge, the one that stays.
            other: Of a merge or swap, the other one.
            frame: 1-based: first of the new track (split), first exchanged (swap).
            last_frame: Of a swap, 1-based, included; to the end by default.
            phrase: The new label.
            encounter: To accept; or, with another action, the doubt that it answers.
            repair: To accept, or to undo.
            repropagate: Whether masks are tracked anew, with the models of the run: of a merge in the gap between the
                two, of a swap inside the encounter that it falls in. By default where these models are on this machine
                and it does not take long. If it fails, the edit is made all the same, and ``message`` says why.
            max_gap_frames: Of a merge: longer gaps stay empty; 64 by default.

        Returns:
            FiftyOne's result; its `result` holds ``message``, ``edit_id``, ``kind`` and ``track_ids``.
        """
        return base.call(self, sample_collection, base.given(locals()))


def _edit(target: Any, field: str, params: Mapping[str, Any]) -> tuple[Any, str]:
    """Carry an edit out; returns it, and why no masks were tracked anew where somebody may expect it.

    Raises:
        EditError: A value is missing, or the tracks do not allow it.
    """
    from fiftyone_plugin import labels

    def needed(name: str) -> int:
        if params.get(name) is None:
            raise EditError(f"{params['action']}: {name} is missing; give it")
        return int(params[name])

    def frame() -> int:
        return needed("frame") - 1

    encounter = params.get("encounter")
    encounter = None if encounter in (None, "") else int(encounter)
    repair = params.get("repair")
    repair = None if repair in (None, "") else int(repair)
    doubt = {"encounter_id": encounter}
    action = str(params.get("action", ""))
    anew, note = _repropagator(target, field, action, params)
    gap = {} if params.get("max_gap_frames") is None else {"max_gap_frames": int(params["max_gap_frames"])}
    edits: dict[str, Callable[[], Any]] = {
        "merge": lambda: labels.merge(target, field, needed("track"), needed("other"), anew=anew, **gap, **doubt),
        "split": lambda: labels.split(target, field, needed("track"), frame(), **doubt),
        "swap": lambda: labels.swap(
            target, field, needed("track"), needed("other"), frame(), params.get("last_frame"), anew=anew, **doubt
        ),
        "relabel": lambda: labels.relabel(target, field, needed("track"), str(params.get("phrase") or "")),
        "delete": lambda: labels.delete(target, field, needed("track"), **doubt),
        "lock": lambda: labels.lock(target, field, [needed("track")]),
        "unlock": lambda: labels.lock(target, field, [needed("track")], locked=False),
        "accept": lambda: labels.accept(target, field, encounter_id=encounter, repair_id=repair),
        "undo_repair": lambda: labels.undo_repair(target, field, needed("repair")),
        "undo": lambda: labels.undo(target, field),
        "redo": lambda: labels.redo(target, field),
    }
    if action not in edits:
        raise EditError(f"action {action!r}: must be one of {', '.join(edits)}")
    return edits[action](), note


def _repropagator(target: Any, field: str, action: str, params: Mapping[str, Any]) -> tuple[Any, str]:
    """What tracks masks anew after this edit, or why nothing does."""
    if action not in _TAKES_OTHER:
        return None, ""
    from fiftyone_plugin import labels, repropagate

    names = ("track", "other", "frame", "last_frame", "max_gap_frames")
    summary = labels.read_summary(target, field)
    offer = summary and tracked_anew.offer_of(action, summary, **{name: params.get(name) for name in names})
    return repropagate.choose(target, field, offer, params.get("repropagate"))


def _add_edit(inputs: types.Object, ctx: Any, target: Any, field: str, summary: Mapping[str, Any]) -> None:
    choices = {name: label for name, (label, _) in ACTIONS.items()}
    action = fields.add_choice(
        inputs,
        ctx,
        "action",
        choices,
        label="What to do",
        description=ACTIONS.get(forms.text_of(ctx.params, "action", "merge"), ("", ""))[1],
        missing="",
    )
    if action in _TAKES_TRACK:
        _add_track(inputs, ctx.params, "track", "Track that stays" if action == "merge" else "Track", summary)
    if action in _TAKES_OTHER:
        label = "Track that becomes part of it" if action == "merge" else "Other track"
        _add_track(inputs, ctx.params, "other", label, summary)
    if action in _TAKES_FRAME:
        label = "First frame of the new track" if action == "split" else "First exchanged frame"
        inputs.int("frame", label=label, description="1 is the first of the video", required=True, min=1)
    if action == "swap":
        inputs.int("last_frame", label="Last exchanged frame", description="Leave empty for the end", min=1)
    problem = _problem(action, ctx.params, summary)
    if action in _TAKES_OTHER and not problem:
        tracked_anew.add_inputs(inputs, action, ctx.params, summary)
    if action == "relabel":
        inputs.str("phrase", label="New label", required=True)
    if action in ("accept", "undo_repair"):
        _add_review_item(inputs, ctx, action, summary)
    if action in ("undo", "redo"):
        _add_history(inputs, action, target, field)
    if problem:
        inputs.view("problem", types.Error(label=problem), invalid=True, error_message=problem)


def _add_track(
    inputs: types.Object, params: Mapping[str, Any], name: str, label: str, summary: Mapping[str, Any]
) -> None:
    from fiftyone_plugin.labels.events import marks_of

    locked = marks_of(summary)["locked"]
    view = types.DropdownView()
    for line in summary["tracks"]:
        track_id = line["track_id"]
        lock = ", locked" if track_id in locked else ""
        shown = f"{line['phrase']} {track_id} (frames {line['start'] + 1} to {line['stop']}{lock})"
        view.add_choice(track_id, label=shown)
    ids, given = [line["track_id"] for line in summary["tracks"]], params.get(name)
    error = f"{label} {given!r}: must be one of {', '.join(map(str, ids))}" if given not in (None, *ids) else ""
    inputs.enum(name, ids, label=label, required=True, view=view, invalid=bool(error), error_message=error)


def _add_review_item(inputs: types.Object, ctx: Any, action: str, summary: Mapping[str, Any]) -> None:
    from fiftyone_plugin import labels

    items = labels.review_items(summary)
    repairs = {str(i.repair_id): _shown(i) for i in items if i.repair_id is not None and i.state != "undone"}
    doubts = {str(i.encounter_id): _shown(i) for i in items if i.repair_id is None and i.encounter_id is not None}
    if action == "undo_repair":
        fields.add_choice(inputs, ctx, "repair", repairs, label="Repair", missing="There is no repair to undo here")
        return
    if not doubts and not repairs:
        message = "There is nothing to accept here"
        inputs.view("nothing", types.Error(label=message), invalid=True, error_message=message)
    fields.add_choice(inputs, ctx, "encounter", doubts, label="Doubtful encounter", missing="", required=False)
    fields.add_choice(inputs, ctx, "repair", repairs, label="Or repair", missing="", required=False)


def _shown(item: Any) -> str:
    who = " and ".join(map(str, item.track_ids))
    return f"frames {item.start + 1} to {item.stop}: {item.kind} of {item.phrase} {who} ({item.state})"


def _add_history(inputs: types.Object, action: str, target: Any, field: str) -> None:
    from fiftyone_plugin import labels

    done, undone = labels.history(target, field)
    chosen = (done[-1] if done else None) if action == "undo" else (undone[0] if undone else None)
    if chosen is None:
        note = labels.history_note(target, field) if action == "undo" else ""
        message = f"There is no edit to {action} here{note and f': {note}'}"
        inputs.view("nothing", types.Error(label=message), invalid=True, error_message=message)
    else:
        inputs.view("edit", types.Notice(label=chosen.text))


def _problem(action: str, params: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    """What stands in the way, as far as the stored summary tells; empty while the form is not filled in."""
    from fiftyone_plugin.labels.events import marks_of

    lines = {line["track_id"]: line for line in summary["tracks"]}
    chosen = [params.get(name) for name in ("track", "other") if params.get(name) is not None]
    if action not in _TAKES_TRACK or any(i not in lines for i in chosen) or not chosen:
        return ""
    for track_id in chosen:
        if action not in ("lock", "unlock") and track_id in marks_of(summary)["locked"]:
            return f"{lines[track_id]['phrase']} {track_id} is locked: unlock it first"
    if action in _TAKES_OTHER and len(chosen) == 2:
        if chosen[0] == chosen[1]:
            return "Choose two different tracks"
        if action == "merge" and (shared := _shared(lines[chosen[0]], lines[chosen[1]])):
            return f"Both are on frames {shared[0] + 1} to {shared[1]}: one object cannot be in two places"
    frame, last_frame = params.get("frame"), params.get("last_frame")
    if action == "swap" and frame is not None and last_frame is not None and last_frame < frame:
        return f"Frames {frame} to {last_frame}: the last exchanged frame must not come before the first"
    if action == "split" and frame is not None:
        line = lines[chosen[0]]
        if not line["start"] + 1 < frame <= line["stop"]:
            return f"It can be split at frames {line['start'] + 2} to {line['stop']}"
    return ""


def _shared(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[int, int] | None:
    """The first frames ``[start, stop)`` that two tracks share."""
    for start, stop in _stretches(a):
        for other_start, other_stop in _stretches(b):
            if max(start, other_start) < min(stop, other_stop):
                return max(start, other_start), min(stop, other_stop)
    return None


def _stretches(line: Mapping[str, Any]) -> list[tuple[int, int]]:
    edges = [line["start"], *(edge for gap in line["gaps"] for edge in gap), line["stop"]]
    return list(zip(edges[::2], edges[1::2], strict=True))
