"""Where FiftyOne enters: registers the operators of the plugin `@shepherd/tracking`.

FiftyOne runs this file at every operator call, so it only lists; models and their caches live in `fiftyone_plugin`.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# A plugin folder that was linked or downloaded, but not installed with pip, brings the library along beside this one.
if find_spec("fiftyone_plugin") is None:
    sys.path.append(str(Path(__file__).resolve().parents[1]))

from .preview_prompt import PreviewPrompt
from .track_objects import TrackObjects

__all__ = ["OPERATORS", "register"]

OPERATORS = (TrackObjects, PreviewPrompt)
"""All of them; a name that `fiftyone.yml` does not list as well is dropped by FiftyOne without a word."""


def register(plugin: Any) -> None:
    """Called by FiftyOne to learn of the operators."""
    for operator in OPERATORS:
        plugin.register(operator)
