"""Names to backends: a built-in table, and entry points for backends of others.

A backend is asked for as ``NAME`` or ``NAME:VARIANT``; the variant is a size, ``bundled``, or a local directory. The
module behind a name is imported when it is first made, so that listing backends costs nothing.

Another package adds a backend with an entry point in the group ``shepherd.detectors``, ``shepherd.propagators`` or
``shepherd.embedders`` that names a factory ``(variant: str | None, device: str) -> backend``.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, cast

from fiftyone_plugin.config import PropagationOptions
from fiftyone_plugin.embedders.combined import CombinedEmbedder
from fiftyone_plugin.errors import BackendError, DependencyError, OptionError
from fiftyone_plugin.interfaces import Detector, Embedder, Propagator
from fiftyone_plugin.weights import HubModel, is_cached, locate, resolve_device

__all__ = [
    "BUILT_IN",
    "BackendEntry",
    "available",
    "download",
    "hub_model",
    "make_detector",
    "make_embedder",
    "make_propagator",
    "overview",
    "resolve_device",
]

Factory = Callable[..., Any]

_HOW_TO_INSTALL = {
    # Otherwise it compiles CUDA code that is not used here, against a second torch in an isolated build.
    "sam2": "SAM2_BUILD_CUDA=0 pip install --no-build-isolation sam2==1.1.0",
    # Its own requirements would put another OpenCV over FiftyOne's.
    "groundingdino": "pip install addict yapf timm && pip install --no-deps groundingdino-py==0.4.0",
}


@dataclass(frozen=True, slots=True)
class BackendEntry:
    """One line of the built-in table."""

    factory: str
    """``module:function`` with the signature ``(variant, device) -> backend``."""
    variants: tuple[str, ...]
    """Variants that are known by name, the default first; a local directory is always allowed where there is any."""
    requires: tuple[str, ...]
    """Packages that must be importable."""
    about: str
    hub: str = ""
    """``module:table`` of the hub models by variant; empty where nothing is downloaded."""
    takes_options: bool = False
    """Whether the factory takes `PropagationOptions` as its third argument."""
    takes_propagator: bool = False
    """Whether the factory takes the run's propagator, or its name, as its third argument. It then chooses the variant
    where none is asked for."""


BUILT_IN: Mapping[str, Mapping[str, BackendEntry]] = {
    "detectors": {
        "grounding-dino": BackendEntry(
            "fiftyone_plugin.detectors.grounding_dino:make",
            ("bundled", "tiny", "base"),
            ("torch", "transformers"),
            "Grounding DINO through transformers",
            "fiftyone_plugin.detectors.grounding_dino:HUB",
        ),
        "groundingdino-py": BackendEntry(
            "fiftyone_plugin.detectors.groundingdino_py:make",
            ("bundled", "tiny", "base"),
            ("torch", "transformers", "groundingdino"),
            "Grounding DINO through the package groundingdino-py",
            "fiftyone_plugin.detectors.grounding_dino:HUB",
        ),
    },
    "propagators": {
        "sam2": BackendEntry(
            "fiftyone_plugin.propagators.sam2:make",
            ("bundled", "tiny", "small", "base-plus", "large"),
            ("torch", "sam2"),
            "SAM 2.1 on the streaming engine: bounded memory, all objects in one batch",
            "fiftyone_plugin.propagators.sam2_model:HUB_MODELS",
            takes_options=True,
        ),
        "sam2-reference": BackendEntry(
            "fiftyone_plugin.propagators.sam2_reference:make",
            ("bundled", "tiny", "small", "base-plus", "large"),
            ("torch", "sam2"),
            "SAM 2.1 through the package's own video predictor, for parity tests and benchmarks",
            "fiftyone_plugin.propagators.sam2_model:HUB_MODELS",
        ),
    },
    "embedders": {
        "colour": BackendEntry(
            "fiftyone_plugin.embedders.colour:make",
            ("absolute", "relative", "adapted"),
            (),
            "Colour histogram of the masked crop: as it is, relative to its mean, or without the light around it",
        ),
        "reid": BackendEntry(
            "fiftyone_plugin.embedders.reid:make", ("bundled",), ("torch",), "Tiny re-identification network"
        ),
        "reid-adapted": BackendEntry(
            "fiftyone_plugin.embedders.reid:make_adapted",
            ("bundled",),
            ("torch",),
            "The same network, on crops without the light of their surroundings",
        ),
        "dinov2": BackendEntry(
            "fiftyone_plugin.embedders.dinov2:make",
            ("small", "base"),
            ("torch", "transformers"),
            "DINOv2 features of the masked crop",
            "fiftyone_plugin.embedders.dinov2:HUB",
        ),
        "sam2-features": BackendEntry(
            "fiftyone_plugin.propagators.sam2_features:make",
            ("bundled", "tiny", "small", "base-plus", "large"),
            ("torch", "sam2"),
            "SAM 2.1's own image features under the mask: needs no other network",
            "fiftyone_plugin.propagators.sam2_model:HUB_MODELS",
            takes_propagator=True,
        ),
    },
}


def available(kind: str) -> dict[str, BackendEntry | None]:
    """Backends of a kind (``detectors``, ``propagators``, ``embedders``) by name; None for those of other packages."""
    names: dict[str, BackendEntry | None] = dict(BUILT_IN[kind])
    for point in entry_points(group=f"shepherd.{kind}"):
        names.setdefault(point.name, None)
    return names


def make_detector(spec: str, *, device: str = "auto") -> Detector:
    """Make the detector called ``NAME`` or ``NAME:VARIANT``.

    Raises:
        BackendError: No such name or variant.
        DependencyError: A package it needs is not installed.
        ModelUnavailableError: Its weights are neither on disk nor reachable.
    """
    return cast(Detector, _make("detectors", spec, device))


def make_propagator(spec: str, *, device: str = "auto", options: PropagationOptions | None = None) -> Propagator:
    """Make a propagator; see `make_detector`.

    Raises:
        OptionError: `options` ask for something that it does not offer; a frame stride all do.
    """
    options = options or PropagationOptions()
    made = cast(Propagator, _make("propagators", spec, device, replace(options, frame_stride=1)))
    if options.frame_stride == 1:
        return made
    stride = importlib.import_module("fiftyone_plugin.propagators.stride")
    return cast(Propagator, stride.StridedPropagator(made, stride=options.frame_stride))


def make_embedder(spec: str, *, device: str = "auto", propagator: Propagator | str | None = None) -> Embedder:
    """Make an embedder, or several as one: ``colour+reid``; see `make_detector`.

    Args:
        spec: What to make.
        device: Where it computes.
        propagator: That of the run, or its ``NAME:VARIANT`` where none is made: an embedder may share its features, or
            at least its weights.
    """
    parts = [cast(Embedder, _make("embedders", p.strip(), device, propagator=propagator)) for p in spec.split("+")]
    return parts[0] if len(parts) == 1 else CombinedEmbedder(parts)


def hub_model(kind: str, spec: str) -> HubModel | None:
    """The weights on the hub that a backend ``NAME:VARIANT`` stands for; None where it downloads nothing."""
    name, _, variant = spec.partition(":")
    entry = available(kind).get(name)
    return None if entry is None else _hub_models(entry).get(variant)


def download(kind: str, spec: str) -> Path:
    """Fetch the weights of a backend ``NAME:VARIANT`` from the hub, or find them where they are cached.

    Raises:
        BackendError: It downloads nothing.
        ModelUnavailableError: The hub cannot be reached.
    """
    name, _, variant = spec.partition(":")
    found = hub_model(kind, spec)
    if found is None:
        raise BackendError(f"{kind[:-1]} {spec!r}: has nothing to download; `shepherd models` lists what has")
    return locate(variant, bundled=None, hub={variant: found}, used_by=name)


def overview() -> list[dict[str, str]]:
    """Every backend and variant: ``kind``, ``name``, ``state`` (what is missing, or where weights are), ``about``."""
    rows: list[dict[str, str]] = []
    for kind in BUILT_IN:
        for name, entry in available(kind).items():
            if entry is None:
                rows.append({"kind": kind, "name": name, "state": "from another package", "about": ""})
                continue
            missing = [package for package in entry.requires if importlib.util.find_spec(package) is None]
            for variant in entry.variants or ("",):
                state = f"needs {', '.join(missing)}" if missing else _weights_state(entry, variant)
                spec = f"{name}:{variant}" if variant else name
                rows.append({"kind": kind, "name": spec, "state": state, "about": entry.about})
    return rows


def _weights_state(entry: BackendEntry, variant: str) -> str:
    if variant == "bundled":
        return "bundled"
    hub = _hub_models(entry).get(variant)
    if hub is None:
        return "ready, needs no weights"
    return f"{'cached' if is_cached(hub) else 'to be downloaded'}: {hub.repository}"


def _hub_models(entry: BackendEntry) -> Mapping[str, HubModel]:
    if not entry.hub:
        return {}
    module, name = entry.hub.split(":")
    return cast(Mapping[str, HubModel], getattr(importlib.import_module(module), name))


def _make(
    kind: str,
    spec: str,
    device: str,
    options: PropagationOptions | None = None,
    propagator: Propagator | str | None = None,
) -> Any:
    name, _, variant = spec.partition(":")
    entries = available(kind)
    if name not in entries:
        raise BackendError(f"{kind[:-1]} {name!r}: must be one of {', '.join(sorted(entries))}")
    entry = entries[name]
    takes_options = entry is not None and entry.takes_options
    if options is not None and options != PropagationOptions() and not takes_options:
        changed = [f.name for f in fields(options) if getattr(options, f.name) != f.default]
        raise OptionError(f"propagator {name!r} has no {', '.join(changed)}: leave it as it is, or use sam2")
    if entry is None:
        (point,) = (p for p in entry_points(group=f"shepherd.{kind}") if p.name == name)
        return cast(Factory, point.load())(variant or None, device)
    for package in entry.requires:
        if importlib.util.find_spec(package) is None:
            how = _HOW_TO_INSTALL.get(package, f"pip install {package}")
            raise DependencyError(f"{kind[:-1]} {name!r} needs the package {package!r}: {how}")
    module, function = entry.factory.split(":")
    factory = cast(Factory, getattr(importlib.import_module(module), function))
    if entry.takes_propagator:
        return factory(variant or None, device, propagator)
    chosen = variant or (entry.variants[0] if entry.variants else None)
    return factory(chosen, device, options) if takes_options else factory(chosen, device)
