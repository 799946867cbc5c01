"""The three models of a run, made once and kept.

The cache lives in this module, not in an entry file: FiftyOne runs a plugin's entry anew at every operator call.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from fiftyone_plugin import registry
from fiftyone_plugin.config import ModelChoice, PropagationOptions, TrackingOptions
from fiftyone_plugin.interfaces import Detector, Embedder, Propagator

__all__ = ["Backends"]

_lock = threading.Lock()
_loaded: dict[tuple[ModelChoice, str, PropagationOptions], Backends] = {}


@dataclass(frozen=True, slots=True)
class Backends:
    """A detector, a propagator and an embedder."""

    detector: Detector
    propagator: Propagator
    embedder: Embedder

    @classmethod
    def load(cls, options: TrackingOptions) -> Backends:
        """Make the models that `options` name, or return those made before; one set is kept at a time.

        Raises:
            BackendError: No backend or variant of that name.
            DependencyError: A package is missing.
            ModelUnavailableError: Weights are neither on disk nor reachable.
            OptionError: The propagator does not offer what `options.propagation` asks for.
        """
        key = (options.models, registry.resolve_device(options.device), options.propagation)
        with _lock:
            if key not in _loaded:
                detector = registry.make_detector(options.models.detector, device=key[1])
                propagator = registry.make_propagator(
                    options.models.propagator, device=key[1], options=options.propagation
                )
                embedder = registry.make_embedder(options.models.embedder, device=key[1], propagator=propagator)
                made = cls(detector, propagator, embedder)
                _loaded.clear()
                _loaded[key] = made
            return _loaded[key]
