"""What the forms share: inputs for prompt, models and settings, what they mean, and what is said about them.

A form is drawn anew at every change, also while it is half filled in; so a wrong value is marked where it stands
(`invalid`), and nothing in here raises because of one. Frame numbers are 1-based and inclusive, as everywhere in the
App; the library's are 0-based and half-open.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fiftyone.operators.types as types

from fiftyone_plugin import registry, weights
from fiftyone_plugin.config import (
    PRESETS,
    AssociationOptions,
    DetectionOptions,
    IdentityOptions,
    ModelChoice,
    TrackingOptions,
    check_counts,
    parse_counts,
    preset,
)
from fiftyone_plugin.detectors.prompt import parse_prompt
from fiftyone_plugin.errors import FrameRangeError, InputError, OptionError
from fiftyone_plugin.jobs import counted, duration

if TYPE_CHECKING:
    from fiftyone_plugin.labels import FrameCount

__all__ = [
    "CUSTOM",
    "Estimate",
    "add_counts",
    "add_detection",
    "add_field",
    "add_frame_range",
    "add_models",
    "add_models_notes",
    "add_problem",
    "add_prompt",
    "attempt",
    "counts_text",
    "duration",
    "estimate_work",
    "options_of",
    "phrases_of",
    "text_of",
]

CUSTOM = "custom"
"""Choice of the preset that opens the fields for single backends."""

_ABOUT_PRESETS = {
    "bundled": "Tiny models inside the package: offline, any machine; they know only the synthetic demo world",
    "fast": "Grounding DINO tiny, SAM 2.1 tiny, DINOv2 small: real footage, downloaded once",
    "accurate": "Grounding DINO base, SAM 2.1 large, DINOv2 base: the best, slow without a GPU, downloaded once",
    CUSTOM: "Choose detector, propagator and embedder one by one",
}
_KINDS = {"detector": "detectors", "propagator": "propagators", "embedder": "embedders"}

_HUB_TABLES = {
    "grounding-dino": ("fiftyone_plugin.detectors.grounding_dino", "HUB"),
    "groundingdino-py": ("fiftyone_plugin.detectors.grounding_dino", "HUB"),
    "sam2": ("fiftyone_plugin.propagators.sam2_model", "HUB_MODELS"),
    "sam2-reference": ("fiftyone_plugin.propagators.sam2_model", "HUB_MODELS"),
    "dinov2": ("fiftyone_plugin.embedders.dinov2", "HUB"),
    "sam2-features": ("fiftyone_plugin.propagators.sam2_model", "HUB_MODELS"),
}
"""Where a backend lists its weights on the hub; imported only when one of them is chosen, since torch comes along."""

_SECONDS_PER_FRAME = {"bundled": 0.5, "hub on a CPU": 20.0, "hub on a GPU": 0.3}
"""Assumptions, to the order of magnitude, until a run on the same dataset has measured it."""


def text_of(params: Mapping[str, Any], name: str, default: str = "") -> str:
    """A text parameter without blanks around it, or the default where it is empty or missing."""
    return str(params.get(name) or default).strip()


def phrases_of(params: Mapping[str, Any]) -> tuple[str, ...]:
    """The classes that the prompt names.

    Raises:
        PromptError: It names none.
    """
    return parse_prompt(text_of(params, "prompt"))


def model_choice(params: Mapping[str, Any]) -> ModelChoice:
    """The backends that a form, or a caller from Python, asks for; single ones override the preset's.

    Raises:
        BackendError: No preset of that name.
    """
    name = text_of(params, "models", "bundled")
    chosen = ModelChoice() if name == CUSTOM else preset(name)
    single = {field.name: text_of(params, field.name, getattr(chosen, field.name)) for field in fields(ModelChoice)}
    return ModelChoice(**single)


def options_of(params: Mapping[str, Any]) -> TrackingOptions:
    """Everything a form, or a caller from Python, asks for; what is missing has its default.

    Raises:
        InputError: One of the values is out of its range.
    """
    start, stop = frame_range(params)
    detection, association, identity = DetectionOptions(), AssociationOptions(), IdentityOptions()
    return TrackingOptions(
        models=model_choice(params),
        detection=DetectionOptions(
            box_threshold=_number(params, "box_threshold", detection.box_threshold),
            text_threshold=_number(params, "text_threshold", detection.text_threshold),
        ),
        association=AssociationOptions(
            redetect_every_frames=int(_number(params, "redetect_every", association.redetect_every_frames)),
            max_tracks=int(_number(params, "max_tracks", association.max_tracks)),
        ),
        identity=IdentityOptions(
            repair=bool(params.get("repair", identity.repair)),
            min_margin=_number(params, "min_margin", identity.min_margin),
            counts=parse_counts(text_of(params, "counts")),
            mend_masks=bool(params.get("mend_masks", identity.mend_masks)),
        ),
        start=start,
        stop=stop,
        device=text_of(params, "device", "auto"),
    )


def frame_range(params: Mapping[str, Any]) -> tuple[int, int | None]:
    """The frames asked for, as the library counts them: 0-based ``[start, stop)``.

    Raises:
        OptionError: The last comes before the first.
    """
    first = int(_number(params, "first_frame", 1))
    last = None if params.get("last_frame") is None else int(_number(params, "last_frame", 1))
    if first < 1 or (last is not None and last < first):
        raise OptionError(
            f"frames {first} to {last}: the first frame is 1, and the last must not come before the first"
        )
    return first - 1, last


def _number(params: Mapping[str, Any], name: str, default: float) -> float:
    value = params.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise OptionError(f"{name} = {value!r}: must be a number")
    return value


def add_prompt(inputs: types.Object, params: Mapping[str, Any]) -> tuple[str, ...]:
    """Ask for the prompt and show the classes it is read as; returns them, none while it is wrong."""
    text = text_of(params, "prompt")
    phrases, error = attempt(lambda: phrases_of(params)) if text else ((), "")
    inputs.str(
        "prompt",
        label="What to look for",
        description="One or more classes, separated by periods, commas or new lines, such as: sheep. black dog.",
        required=True,
        invalid=bool(error),
        error_message=error or "Name at least one class, such as sheep",
    )
    if phrases:
        inputs.view("classes", types.Notice(label=_read_as(phrases)))
    return phrases or ()


def _read_as(phrases: tuple[str, ...]) -> str:
    names = ", ".join(f"“{phrase}”" for phrase in phrases)
    return f"Looks for one class: {names}" if len(phrases) == 1 else f"Looks for {len(phrases)} classes: {names}"


def add_models(inputs: types.Object, params: Mapping[str, Any], *, kinds: Sequence[str] = tuple(_KINDS)) -> None:
    """Ask for the models: a preset, or single backends."""
    choices = types.RadioGroup()
    for name in (*PRESETS, CUSTOM):
        choices.add_choice(name, label=name.capitalize(), description=_ABOUT_PRESETS[name])
    _, error = attempt(lambda: model_choice(params))
    inputs.enum(
        "models",
        choices.values(),
        default="bundled",
        label="Models",
        view=choices,
        invalid=bool(error),
        error_message=error,
    )
    if text_of(params, "models", "bundled") != CUSTOM:
        return
    for kind in kinds:
        error = _backend_error(_KINDS[kind], text_of(params, kind, getattr(ModelChoice(), kind)))
        view = types.AutocompleteView(allow_user_input=True)
        for spec in _specs(_KINDS[kind]):
            view.add_choice(spec, label=spec)
        inputs.str(
            kind,
            label=kind.capitalize(),
            description="NAME or NAME:VARIANT; a variant may be a local folder with the weights",
            default=getattr(ModelChoice(), kind),
            view=view,
            invalid=bool(error),
            error_message=error,
        )


def _specs(kind: str) -> Iterator[str]:
    for name, entry in registry.available(kind).items():
        yield from (f"{name}:{v}" for v in entry.variants) if entry is not None and entry.variants else (name,)


def _backend_error(kind: str, spec: str) -> str:
    """Why a backend cannot be had, as far as that shows without loading it; empty if it can."""
    if kind == "embedders" and "+" in spec:
        errors = (_backend_error(kind, part.strip()) for part in spec.split("+"))
        return next((error for error in errors if error), "")
    name, _, variant = spec.partition(":")
    known = registry.available(kind)
    if name not in known:
        return f"{kind[:-1]} {name!r}: must be one of {', '.join(sorted(known))}"
    entry = known[name]
    if entry is None or not variant or variant in entry.variants or Path(variant).expanduser().is_dir():
        return ""
    return f"{spec}: must be one of {', '.join(entry.variants) or name}, or a local directory with the weights"


def add_models_notes(inputs: types.Object, params: Mapping[str, Any], *, kinds: Sequence[str] = tuple(_KINDS)) -> None:
    """Say which weights are on disk and which would be downloaded."""
    chosen, error = attempt(lambda: model_choice(params))
    if chosen is None:
        inputs.view("models_error", types.Warning(label=error))
        return
    # Beside a preset there are no inputs for single backends, but a caller from Python may give some.
    wrong = [error for kind in kinds if (error := _backend_error(_KINDS[kind], getattr(chosen, kind)))]
    if wrong:
        if text_of(params, "models", "bundled") != CUSTOM:
            inputs.view("models_wrong", types.Error(label=wrong[0]), invalid=True, error_message=wrong[0])
        return
    if chosen == PRESETS["bundled"]:
        inputs.view(
            "models_bundled",
            types.Warning(
                label="The bundled models know only the synthetic demo world",
                description="They are for trying things out. For real footage choose fast or accurate.",
            ),
        )
        return
    specs = [part.strip() for kind in kinds for part in getattr(chosen, kind).split("+")]
    missing = [found for spec in specs if (found := _missing(spec))]
    if missing:
        inputs.view(
            "models_missing",
            types.Warning(
                label=f"To be downloaded first: {', '.join(missing)}",
                description="Happens once, when the job starts; without a network it ends with a message.",
            ),
        )
    else:
        inputs.view("models_there", types.Notice(label="All weights are on this machine"))


def _missing(spec: str) -> str:
    """The hub repository that a backend would have to download first; empty if none."""
    name, _, variant = spec.partition(":")
    if name not in _HUB_TABLES:
        return ""
    module, table = _HUB_TABLES[name]
    model = getattr(importlib.import_module(module), table).get(variant)
    return "" if model is None or weights.is_cached(model) else str(model.repository)


def add_detection(inputs: types.Object) -> None:
    """Ask for the detector's thresholds."""
    defaults = DetectionOptions()
    inputs.float(
        "box_threshold",
        label="Box threshold",
        description="Smallest score of a detection; lower finds more, also more that is wrong",
        default=defaults.box_threshold,
        min=0.0,
        max=1.0,
        view=types.SliderView(),
    )
    inputs.float(
        "text_threshold",
        label="Text threshold",
        description="Smallest score of the class that a detection is given",
        default=defaults.text_threshold,
        min=0.0,
        max=1.0,
        view=types.SliderView(),
    )


def add_counts(inputs: types.Object, params: Mapping[str, Any], phrases: Callable[[], Sequence[str]]) -> None:
    """Ask how many objects of a class there are.

    Args:
        inputs: The form.
        params: What is filled in.
        phrases: Gives the classes that there can be; asked only where a number was given. None are taken as any.
    """

    def check() -> None:
        counts = parse_counts(text_of(params, "counts"))
        if counts and (known := phrases()):
            check_counts(counts, known)

    _, error = attempt(check)
    inputs.str(
        "counts",
        label="Known numbers",
        description="How many there are in each video, where you know it: sheep=3, dog=1. Decides what is in doubt",
        invalid=bool(error),
        error_message=error,
    )


def counts_text(counts: str | Mapping[str, int] | None) -> str | None:
    """Known numbers as the form has them: ``sheep=3, dog=1``."""
    return ", ".join(f"{k}={v}" for k, v in counts.items()) if isinstance(counts, Mapping) else counts


def add_frame_range(inputs: types.Object, params: Mapping[str, Any]) -> None:
    """Ask for the frames, 1-based and inclusive."""
    _, error = attempt(lambda: frame_range(params))
    inputs.int("first_frame", label="First frame", description="1 is the first of the video", default=1, min=1)
    inputs.int(
        "last_frame",
        label="Last frame",
        description="Leave empty for the end of the video",
        min=1,
        invalid=bool(error),
        error_message=error,
    )


def add_field(inputs: types.Object, ctx: Any) -> None:
    """Ask for the field, say what is in it already, and refuse it where that is not ours to change."""
    from fiftyone_plugin import labels, runner

    field, overwrite = text_of(ctx.params, "field", "tracks"), bool(ctx.params.get("overwrite", False))
    state, error = attempt(lambda: labels.field_state(ctx.dataset, field))
    done: set[str] = set()
    if not error:
        done, error = attempt(
            lambda: runner.finished_before(
                ctx.dataset,
                field,
                ctx.target_view().values("id"),
                text_of(ctx.params, "prompt"),
                attempt(lambda: options_of(ctx.params))[0] or TrackingOptions(),
                overwrite=overwrite,
            )
        )
    inputs.str(
        "field",
        label="Label field",
        description="Tracks go here, what happened to them into a second field with _events added",
        default="tracks",
        invalid=bool(error),
        error_message=error,
    )
    if error:
        inputs.view("field_conflict", types.Warning(label=error))
    if state is None or not state.is_ours:
        return
    inputs.bool(
        "overwrite",
        label="Replace earlier tracks",
        description=f"{state.field!r} holds our tracks of {counted(len(state.finished), 'video')} for {state.prompt!r}",
        default=False,
    )
    if done:
        text = f"Finished with this prompt and these settings, and left as it is: {counted(len(done), 'video')}"
        inputs.view("field_done", types.Notice(label=text))


@dataclass(frozen=True, slots=True)
class Estimate:
    """How much work a form asks for."""

    count: FrameCount
    seconds: float
    is_measured: bool
    """False where the speed is only assumed."""


def estimate_work(ctx: Any) -> Estimate:
    """How long the form's job will take.

    Raises:
        VideoError: There is nothing to track in the target view.
        FrameRangeError: The only video in it ends before the first frame that is asked for.
    """
    from fiftyone_plugin import labels

    options = attempt(lambda: options_of(ctx.params))[0] or TrackingOptions()
    count = labels.count_frames(ctx.target_view())
    if count.targets == 1 and options.start >= count.frames:
        raise FrameRangeError(f"first frame {options.start + 1}: the video has {count.frames} frames")
    average = count.frames / count.targets
    asked = min(average, options.stop or average) - options.start
    count = replace(count, frames=max(round(asked * count.targets), count.targets))
    measured = labels.measured_seconds_per_frame(ctx.dataset, labels.as_plain(options.models))
    per_frame = seconds_per_frame(options.models, device=options.device, measured=measured)
    return Estimate(count, per_frame * count.frames, is_measured=measured is not None)


def seconds_per_frame(models: ModelChoice, *, device: str, measured: float | None) -> float:
    """How long a frame takes: as measured, else an assumption to the order of magnitude."""
    if measured is not None:
        return measured
    if models.propagator.endswith(":bundled"):
        return _SECONDS_PER_FRAME["bundled"]
    # Asked only here, because it imports torch and would make the first form slow.
    is_cpu = registry.resolve_device(device) == "cpu"
    return _SECONDS_PER_FRAME["hub on a CPU" if is_cpu else "hub on a GPU"]


def add_problem(inputs: types.Object, params: Mapping[str, Any]) -> None:
    """Refuse settings that are out of range, where no input has done so: in a form, each input knows its own limits."""
    _, error = attempt(lambda: options_of(params))
    device = text_of(params, "device", "auto")
    if not error and device not in ("auto", "cpu"):  # to look at the others means to import torch
        _, error = attempt(lambda: registry.resolve_device(device))
    if error and not any(given.invalid for given in inputs.properties.values()):
        inputs.view("problem", types.Error(label=error), invalid=True, error_message=error)


def attempt(make: Callable[[], Any]) -> tuple[Any, str]:
    """The value and no error, or None and the error's line."""
    try:
        return make(), ""
    except InputError as error:
        return None, str(error)
