"""Shepherd: text in, trusted tracks out.

    import fiftyone_plugin as shepherd

    result = shepherd.track("flock.mp4", "sheep. dog.")
    shepherd.write_tracks("tracks.txt", result)

Names are imported when they are first used, so that importing this package loads neither torch nor FiftyOne.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

__all__ = [
    "AssociationOptions",
    "Decision",
    "DetectionOptions",
    "Encounter",
    "EvidenceOptions",
    "IdentityOptions",
    "InputError",
    "ModelChoice",
    "ObjectPrompt",
    "Repair",
    "Seed",
    "ShepherdError",
    "Track",
    "TrackingOptions",
    "TrackingResult",
    "__version__",
    "evaluate",
    "follow",
    "models",
    "open_source",
    "preview",
    "prompt_dataset",
    "read_tracks",
    "repair",
    "repair_dataset",
    "segment",
    "track",
    "track_dataset",
    "track_into_dataset",
    "write_tracks",
]

if TYPE_CHECKING:
    from fiftyone_plugin.api import (
        evaluate,
        follow,
        models,
        open_source,
        preview,
        prompt_dataset,
        read_tracks,
        repair,
        repair_dataset,
        segment,
        track,
        track_dataset,
        track_into_dataset,
        write_tracks,
    )
    from fiftyone_plugin.config import (
        AssociationOptions,
        DetectionOptions,
        EvidenceOptions,
        IdentityOptions,
        ModelChoice,
        TrackingOptions,
    )
    from fiftyone_plugin.errors import InputError, ShepherdError
    from fiftyone_plugin.pipeline import ObjectPrompt
    from fiftyone_plugin.types import Decision, Encounter, Repair, Seed, Track, TrackingResult
else:
    # PEP 562. Hidden from type checkers, which would otherwise accept every misspelt name.
    _HOMES = {
        "config": (
            "AssociationOptions",
            "DetectionOptions",
            "EvidenceOptions",
            "IdentityOptions",
            "ModelChoice",
            "TrackingOptions",
        ),
        "errors": ("InputError", "ShepherdError"),
        "pipeline": ("ObjectPrompt",),
        "types": ("Decision", "Encounter", "Repair", "Seed", "Track", "TrackingResult"),
    }
    _MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF.get(name, 'api')}"), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
