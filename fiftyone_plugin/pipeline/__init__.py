"""Seed, propagate, re-detect, re-identify, repair: the way from a prompt to tracks."""

from fiftyone_plugin.pipeline.audit import repair
from fiftyone_plugin.pipeline.backends import Backends
from fiftyone_plugin.pipeline.run import Progress, preview, track

__all__ = ["Backends", "Progress", "preview", "repair", "track"]
