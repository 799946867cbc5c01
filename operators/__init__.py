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

from .edit_tracks import EditTracks
from .evaluate_tracks import EvaluateTracks
from .export_tracks import ExportTracks
from .import_tracks import ImportTracks
from .manage_models import ManageModels
from .preview_prompt import PreviewPrompt
from .prompt_objects import PromptObjects
from .repair_tracks import RepairTracks
from .review_panel import ReviewTracks
from .track_objects import TrackObjects
from .tracking_jobs import CancelTracking, TrackingStatus

__all__ = ["OPERATORS", "PANELS", "register"]

OPERATORS = (
    TrackObjects,
    PreviewPrompt,
    PromptObjects,
    RepairTracks,
    EditTracks,
    EvaluateTracks,
    ExportTracks,
    ImportTracks,
    TrackingStatus,
    CancelTracking,
    ManageModels,
)
"""All of them; a name that `fiftyone.yml` does not list as well is dropped by FiftyOne without a word."""
PANELS = (ReviewTracks,)
"""Likewise."""


def register(plugin: Any) -> None:
    """Called by FiftyOne to learn of the operators and panels."""
    for kind in (*OPERATORS, *PANELS):
        plugin.register(kind)
