"""After an edit by hand: masks that it makes necessary, tracked anew with the models of the run that made the field.

    from fiftyone_plugin import labels, repropagate

    labels.merge(sample, "tracks", 3, 7, anew=repropagate.models_of_run(sample, "tracks"))

An edit needs no models and takes a moment; this needs them, and takes as long as tracking some frames does. So it is
offered (`offer_merge`, `offer_swap`) where an edit leaves something to do, together with what it costs and with what is
missing, and where it fails the edit is made all the same.

Knows nothing of forms.
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from fiftyone_plugin import labels, registry, weights
from fiftyone_plugin.config import EvidenceOptions, ModelChoice, PropagationOptions, TrackingOptions
from fiftyone_plugin.errors import ModelUnavailableError, OptionError
from fiftyone_plugin.interfaces import Embedder, Propagator
from fiftyone_plugin.labels.refill import (
    MAX_GAP_FRAMES,
    Repropagator,
    frames_of_line,
    gaps_between,
    windows_of_swap,
)
from fiftyone_plugin.pipeline.bridge import REACH_FRAMES, Gap, bridge
from fiftyone_plugin.pipeline.rechoose import VIEW_FRAMES, Rechosen, Window, rechoose
from fiftyone_plugin.types import Track

__all__ = ["MAX_GAP_FRAMES", "ModelsOfRun", "Offer", "choose", "models_of_run", "offer_merge", "offer_swap"]

SHORT_SECONDS = 60.0
"""What is estimated to take longer is done only when somebody asks for it."""

_lock = threading.Lock()
_loaded: dict[tuple[str, str, str, PropagationOptions], tuple[Propagator, Embedder]] = {}


@dataclass(frozen=True, slots=True)
class Offer:
    """Something that could be tracked anew after an edit."""

    frames: int
    """In which masks may change."""
    seconds: float
    """How long that may take, from the speed of the run; 0 where it is not known."""
    missing: str
    """Why the models of the run cannot be used, empty if they can."""

    @property
    def why_not(self) -> str:
        """Why it is not done unless somebody asks for it; empty if it is."""
        if self.missing or self.seconds <= SHORT_SECONDS:
            return self.missing
        return f"that may take {self.seconds / 60:.0f} min, so it is done only where somebody asks for it"


class ModelsOfRun:
    """The models that made a field, loaded when they are needed; a `labels.refill.Repropagator`.

    Args:
        target: A video sample, or the view of one image sequence.
        settings: Of the run: `TrackingResult.settings`.
    """

    def __init__(self, target: Any, settings: Mapping[str, Any]) -> None:
        self._target = target
        self._settings = settings

    def fill(self, tracks: Sequence[Track], gaps: Sequence[Gap]) -> tuple[Track, ...]:
        """See `pipeline.bridge`.

        Raises:
            InputError: The models or the video cannot be had.
        """
        propagator, _ = _load(_options(self._settings))
        return bridge(labels.open_target(self._target), propagator, tracks, gaps)

    def rechoose(self, tracks: Sequence[Track], window: Window) -> Rechosen:
        """See `pipeline.rechoose`.

        Raises:
            InputError: The models or the video cannot be had.
        """
        options = _options(self._settings)
        propagator, embedder = _load(options)
        source = labels.open_target(self._target)
        return rechoose(source, propagator, embedder, tracks, window, evidence=options.evidence)


def models_of_run(target: Any, field: str) -> ModelsOfRun:
    """What tracks the objects of a field anew, with the models that the field's run has used.

    Args:
        target: A video sample, or the view of one image sequence.
        field: A field that this plugin wrote.
    """
    summary = labels.read_summary(target, field) or {}
    return ModelsOfRun(target, summary.get("settings", {}))


def offer_merge(
    summary: Mapping[str, Any], keep: int, other: int, *, max_gap_frames: int = MAX_GAP_FRAMES
) -> Offer | None:
    """What merging two tracks leaves to do: the gaps between them; None where there is none that is short enough.

    Args:
        summary: Of the run.
        keep: Id of one track.
        other: Id of the other; one that is not there leaves nothing to do.
        max_gap_frames: Longer gaps stay empty.
    """
    lines = {line["track_id"]: line for line in summary["tracks"]}
    if keep == other or keep not in lines or other not in lines:
        return None
    frames = [frames_of_line(lines[i]) for i in (keep, other)]
    if len(np.intersect1d(frames[0], frames[1])):  # that merge will be refused
        return None
    gaps = gaps_between(frames[0], frames[1], keep)
    sizes = [gap.stop - gap.start for gap in gaps if gap.stop - gap.start <= max_gap_frames]
    return _offer(summary, sum(sizes), sum(2 * (size + REACH_FRAMES) for size in sizes)) if sizes else None


def offer_swap(summary: Mapping[str, Any], a: int, b: int, frame: int, stop: int | None = None) -> Offer | None:
    """What swapping two tracks leaves to do: the encounters it falls in; None where it falls in none.

    Args:
        summary: Of the run.
        a: Id of one track.
        b: Id of the other.
        frame: First exchanged frame, 0-based.
        stop: Frame after the last exchanged one, if there is one.
    """
    windows = windows_of_swap(summary, a, b, [frame] if stop is None else [frame, stop])
    sizes = [window.stop - window.start for window in windows]
    return _offer(summary, sum(sizes), sum(size + VIEW_FRAMES for size in sizes)) if sizes else None


def choose(target: Any, field: str, offer: Offer | None, wanted: bool | None) -> tuple[Repropagator | None, str]:
    """What to give an edit as `anew`, and what to say where that is nothing.

    Args:
        target: A video sample, or the view of one image sequence.
        field: A field that this plugin wrote.
        offer: Of `offer_merge` or `offer_swap`.
        wanted: True and False are a person's word; None does it where the models are at hand and it is short.
    """
    if wanted or (wanted is None and offer is not None and not offer.why_not):
        return models_of_run(target, field), ""
    if wanted is None and offer is not None:
        return None, f"Masks were not tracked anew: {offer.why_not}"
    return None, ""


def _offer(summary: Mapping[str, Any], frames: int, walked: int) -> Offer:
    per_frame = summary["seconds"] / summary["frames"] if summary["frames"] else 0.0
    return Offer(frames, walked * per_frame, _missing(summary["settings"]))


def _options(settings: Mapping[str, Any]) -> TrackingOptions:
    """Models and settings of a run.

    Raises:
        ModelUnavailableError: It does not say which models made its masks.
        OptionError: Something in it is out of range.
    """
    models = settings.get("models")
    # An audit has models too, but its masks are another tool's.
    if not models or "prompt" not in settings:
        raise ModelUnavailableError("these tracks came from another tool, so there is no model to track them with")
    # Every frame counts here, and there are few of them.
    propagation = {**_known(PropagationOptions, settings.get("propagation", {})), "frame_stride": 1}
    return TrackingOptions(
        models=ModelChoice(**_known(ModelChoice, models)),
        propagation=PropagationOptions(**propagation),
        evidence=EvidenceOptions(**_known(EvidenceOptions, settings.get("evidence", {}))),
        device=settings.get("device", "auto"),
    )


def _known(group: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that this version has, too."""
    names = {field.name for field in fields(group)}
    return {name: value for name, value in values.items() if name in names}


def _missing(settings: Mapping[str, Any]) -> str:
    """Why the models of a run cannot be used, as far as that shows without loading them."""
    try:
        models = _options(settings).models
    except (ModelUnavailableError, OptionError) as error:
        return str(error)
    for kind, specs in (("propagators", models.propagator), ("embedders", models.embedder)):
        for spec in specs.split("+"):
            if reason := _missing_backend(kind, spec.strip()):
                return reason
    return ""


def _missing_backend(kind: str, spec: str) -> str:
    name, _, variant = spec.partition(":")
    known = registry.available(kind)
    if name not in known:
        return f"{spec}, with which the tracks were made, is not installed"
    entry = known[name]
    if entry is None:
        return ""
    for package in entry.requires:
        if importlib.util.find_spec(package) is None:
            return f"{spec}, with which the tracks were made, needs the package {package!r}"
    if not variant or variant == "bundled":
        return ""
    if variant not in entry.variants:
        return "" if Path(variant).expanduser().is_dir() else f"the weights {variant} are not there any more"
    found = registry.hub_model(kind, spec)
    if found is None or weights.is_cached(found):
        return ""
    return f"{spec}, with which the tracks were made, is not on this machine; get it in Manage models"


def _device(wanted: str) -> str:
    """The device of the run, or the best one of this machine where the run was made on another."""
    import torch

    is_there = not wanted.startswith("cuda") or torch.cuda.is_available()
    return registry.resolve_device(wanted if is_there else "auto")


def _load(options: TrackingOptions) -> tuple[Propagator, Embedder]:
    """Propagator and embedder, made once; one pair is kept at a time."""
    device = _device(options.device)
    key = (options.models.propagator, options.models.embedder, device, options.propagation)
    with _lock:
        if key not in _loaded:
            propagator = registry.make_propagator(key[0], device=device, options=options.propagation)
            made = propagator, registry.make_embedder(key[1], device=device, propagator=propagator)
            _loaded.clear()
            _loaded[key] = made
        return _loaded[key]
