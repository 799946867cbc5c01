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
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, cast

from fiftyone_plugin.errors import BackendError, DependencyError
from fiftyone_plugin.interfaces import Detector, Embedder, Propagator
from fiftyone_plugin.weights import resolve_device

__all__ = [
    "BUILT_IN",
    "BackendEntry",
    "available",
    "make_detector",
    "make_embedder",
    "make_propagator",
    "resolve_device",
]

Factory = Callable[[str | None, str], Any]


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


BUILT_IN: Mapping[str, Mapping[str, BackendEntry]] = {
    "detectors": {
        "grounding-dino": BackendEntry(
            "fiftyone_plugin.detectors.grounding_dino:make",
            ("bundled", "tiny", "base"),
            ("torch", "transformers"),
            "Grounding DINO through transformers",
        ),
        "groundingdino-py": BackendEntry(
            "fiftyone_plugin.detectors.groundingdino_py:make",
            ("bundled", "tiny", "base"),
            ("torch", "transformers", "groundingdino"),
            "Grounding DINO through the package groundingdino-py",
        ),
    },
    "propagators": {
        "sam2": BackendEntry(
            "fiftyone_plugin.propagators.sam2:make",
            ("bundled", "tiny", "small", "base-plus", "large"),
            ("torch", "sam2"),
            "SAM 2.1 on the streaming engine: bounded memory, all objects in one batch",
        ),
        "sam2-reference": BackendEntry(
            "fiftyone_plugin.propagators.sam2_reference:make",
            ("bundled", "tiny", "small", "base-plus", "large"),
            ("torch", "sam2"),
            "SAM 2.1 through the package's own video predictor, for parity tests and benchmarks",
        ),
    },
    "embedders": {
        "colour": BackendEntry(
            "fiftyone_plugin.embedders.colour:make",
            ("absolute", "relative"),
            (),
            "Colour histogram of the masked crop; needs no weights",
        ),
        "reid": BackendEntry(
            "fiftyone_plugin.embedders.reid:make", ("bundled",), ("torch",), "Tiny re-identification network"
        ),
        "dinov2": BackendEntry(
            "fiftyone_plugin.embedders.dinov2:make",
            ("small", "base"),
            ("torch", "transformers"),
            "DINOv2 features of the masked crop",
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


def make_propagator(spec: str, *, device: str = "auto") -> Propagator:
    """Make a propagator; see `make_detector`."""
    return cast(Propagator, _make("propagators", spec, device))


def make_embedder(spec: str, *, device: str = "auto") -> Embedder:
    """Make an embedder; see `make_detector`."""
    return cast(Embedder, _make("embedders", spec, device))


def _make(kind: str, spec: str, device: str) -> Any:
    name, _, variant = spec.partition(":")
    entries = available(kind)
    if name not in entries:
        raise BackendError(f"{kind[:-1]} {name!r}: must be one of {', '.join(sorted(entries))}")
    entry = entries[name]
    if entry is None:
        (point,) = (p for p in entry_points(group=f"shepherd.{kind}") if p.name == name)
        return cast(Factory, point.load())(variant or None, device)
    for package in entry.requires:
        if importlib.util.find_spec(package) is None:
            raise DependencyError(
                f"{kind[:-1]} {name!r} needs the package {package!r}: pip install 'fiftyone-shepherd[all]'"
            )
    module, function = entry.factory.split(":")
    factory = cast(Factory, getattr(importlib.import_module(module), function))
    return factory(variant or (entry.variants[0] if entry.variants else None), device)
