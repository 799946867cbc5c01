"""The seam between walking through a video and saying who is who: everything the one leaves to the other.

What is before it costs minutes (models, pictures), what is after it seconds, so that identity can be settled again and
again on evidence that was kept. Knows neither models nor files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fiftyone_plugin.config import IdentityOptions
from fiftyone_plugin.identity import Resolution, apply_repairs, resolve
from fiftyone_plugin.identity.camera import CameraPath
from fiftyone_plugin.identity.constraints import Constraint, Named, locate
from fiftyone_plugin.types import Gallery, Support, Track

__all__ = ["Evidence", "Settled", "settle"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was carried through the video, and what was seen of it."""

    tracks: tuple[Track, ...]
    """As they were propagated."""
    galleries: Mapping[int, Gallery]
    """Clean views by track id."""
    supports: Mapping[int, Support]
    """What the detector said, by track id."""
    camera: CameraPath | None = None
    """How the camera moved; None where it stood still, or nobody looked."""


@dataclass(frozen=True, slots=True)
class Settled:
    """Who is who."""

    tracks: tuple[Track, ...]
    """After all repairs."""
    carried: tuple[Track, ...]
    """The tracks that the repairs speak of, with their identity confidence."""
    resolution: Resolution


def settle(
    evidence: Evidence, options: IdentityOptions | None = None, *, constraints: Sequence[Constraint] = ()
) -> Settled:
    """Test every encounter, and apply the repairs that follow; what a person said (`constraints`) holds."""
    found = resolve(
        evidence.tracks,
        evidence.galleries,
        evidence.supports,
        camera=evidence.camera,
        options=options,
        constraints=constraints,
    )
    carried = found.with_confidence(evidence.tracks)
    return Settled(_named(apply_repairs(carried, found.repairs), constraints), carried, found)


def _named(tracks: tuple[Track, ...], constraints: Sequence[Constraint]) -> tuple[Track, ...]:
    """Tracks with the classes that a person gave them; of two names for one track the later holds."""
    names = {locate(c.at, tracks): c.phrase for c in constraints if isinstance(c, Named)}
    return tuple(replace(t, phrase=names.get(t.track_id, t.phrase)) for t in tracks) if names else tracks
