"""Seed, propagate, re-detect, re-identify, repair: the way from a prompt to tracks."""

from fiftyone_plugin.pipeline.audit import repair
from fiftyone_plugin.pipeline.backends import Backends
from fiftyone_plugin.pipeline.checkpoint import CHECKPOINT_FRAMES, Checkpointing, is_checkpoint
from fiftyone_plugin.pipeline.follow import ObjectPrompt, follow
from fiftyone_plugin.pipeline.run import Progress, preview, track

__all__ = [
    "CHECKPOINT_FRAMES",
    "Backends",
    "Checkpointing",
    "ObjectPrompt",
    "Progress",
    "follow",
    "is_checkpoint",
    "preview",
    "repair",
    "track",
]
