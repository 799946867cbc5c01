"""Who is who: encounters, the exchange test, returns, and the repairs that follow.

Sees arrays only: no torch, no video, no FiftyOne. Tracks may come from any tracker.
"""

from fiftyone_plugin.identity.repair import apply_repairs
from fiftyone_plugin.identity.resolve import Resolution, resolve

__all__ = ["Resolution", "apply_repairs", "resolve"]
