"""What a person said about identities, as data that outlives the run it was said of.

A constraint speaks of *anchors*: an object, pointed at on one frame by its box. Track ids change when a video is
tracked again, boxes do not; so `locate` finds an anchor in the tracks of any run. Knows nothing of who asked or of
labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from fiftyone_plugin.errors import OptionError
from fiftyone_plugin.geometry import box_iou
from fiftyone_plugin.types import Track

__all__ = [
    "Anchor",
    "CannotLink",
    "Constraint",
    "Lock",
    "MustLink",
    "Named",
    "Remove",
    "SplitAt",
    "as_dict",
    "from_dict",
    "locate",
]

MIN_ANCHOR_IOU = 0.5
"""Smallest box IoU of an anchor and the track that shows what it points at, in [0, 1]."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """An object, pointed at on one frame."""

    track_id: int
    """What its track was called when this was said; tells apart only what boxes leave open."""
    frame: int
    """0-based."""
    box_xyxy: tuple[float, float, float, float]
    """Pixels."""


@dataclass(frozen=True, slots=True)
class MustLink:
    """Both anchors show one object."""

    a: Anchor
    b: Anchor


@dataclass(frozen=True, slots=True)
class CannotLink:
    """The anchors show different objects."""

    a: Anchor
    b: Anchor


@dataclass(frozen=True, slots=True)
class SplitAt:
    """A track goes over to another object between two of its frames that follow each other."""

    before: Anchor
    after: Anchor


@dataclass(frozen=True, slots=True)
class Lock:
    """All anchors show one object, and nothing may change that: a track that a person has checked."""

    anchors: tuple[Anchor, ...]
    """In order of time."""


@dataclass(frozen=True, slots=True)
class Remove:
    """What is between the anchors, on their track, is none of the objects that were asked for."""

    first: Anchor
    last: Anchor


@dataclass(frozen=True, slots=True)
class Named:
    """The object at the anchor is of this class."""

    at: Anchor
    phrase: str


Constraint: TypeAlias = MustLink | CannotLink | SplitAt | Lock | Remove | Named

_KINDS: Mapping[str, type[Constraint]] = {
    "must_link": MustLink,
    "cannot_link": CannotLink,
    "split_at": SplitAt,
    "lock": Lock,
    "remove": Remove,
    "named": Named,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}


def as_dict(constraint: Constraint) -> dict[str, Any]:
    """A constraint in plain JSON values, with its name under ``kind``."""
    values = {name: getattr(constraint, name) for name in constraint.__dataclass_fields__}
    return {"kind": _NAMES[type(constraint)], **{name: _plain(value) for name, value in values.items()}}


def _plain(value: Any) -> Any:
    if isinstance(value, Anchor):
        return {"track_id": value.track_id, "frame": value.frame, "box_xyxy": list(value.box_xyxy)}
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


def from_dict(plain: Mapping[str, Any]) -> Constraint:
    """Undo `as_dict`.

    Raises:
        OptionError: No constraint of that kind, or one of its parts is missing.
    """
    kind = _KINDS.get(plain.get("kind", ""))
    if kind is None:
        raise OptionError(f"constraint {plain.get('kind')!r}: must be one of {', '.join(_KINDS)}")
    try:
        return kind(**{name: _parsed(plain[name]) for name in kind.__dataclass_fields__})
    except KeyError as missing:
        raise OptionError(f"constraint {plain['kind']!r}: {missing} is missing; write it with as_dict") from None


def _parsed(value: Any) -> Any:
    if isinstance(value, Mapping):
        x0, y0, x1, y1 = (float(v) for v in value["box_xyxy"])
        return Anchor(int(value["track_id"]), int(value["frame"]), (x0, y0, x1, y1))
    return tuple(_parsed(v) for v in value) if isinstance(value, list) else value


def locate(anchor: Anchor, tracks: Sequence[Track], *, min_iou: float = MIN_ANCHOR_IOU) -> int | None:
    """Id of the track that shows what an anchor points at, or None.

    Args:
        anchor: Its frame must be one of the track's.
        tracks: Of any run on the same video.
        min_iou: Smallest box IoU, in [0, 1].

    Returns:
        The track with the best box IoU on that frame; of equal ones that with the anchor's own id.
    """
    best: tuple[float, bool, int] | None = None
    box = np.array([anchor.box_xyxy], np.float32)
    for track in tracks:
        row = int(np.searchsorted(track.frame_indices, anchor.frame))
        if row == len(track) or track.frame_indices[row] != anchor.frame:
            continue
        iou = float(box_iou(box, track.boxes_xyxy[row : row + 1])[0, 0])
        found = (iou, track.track_id == anchor.track_id, -track.track_id)
        if iou >= min_iou and (best is None or found > best):
            best = found
    return None if best is None else -best[2]
