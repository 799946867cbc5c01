"""Real sequences for the identity benchmark: ground truth, and what trackers made of it.

A sequence is a folder in MOT's layout: ``img1/``, ``gt/gt.txt``, ``seqinfo.ini``, and perhaps ``masks/`` (the pixels of
an object have the value of its id) and ``trackers/*.txt``. A folder without ``img1`` has boxes only. Knows nothing of
failures or methods.

MOTChallenge's truth gives a new id to whoever leaves the picture and comes back. A method that recognises them would be
told that it is wrong, so those that were recognised by eye have one identity here (`SAME_OBJECT`), unless the truth is
asked for as it was published. The tracks that methods are given always have the published ids.
"""

from __future__ import annotations

import configparser
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from fiftyone_plugin.errors import OptionError
from fiftyone_plugin.exporters.mot import read_mot
from fiftyone_plugin.geometry import encode_mask
from fiftyone_plugin.types import Track

__all__ = ["SAME_OBJECT", "RealSequence", "read_sequence", "sequence_names"]

SAME_OBJECT: Mapping[str, tuple[tuple[int, int], ...]] = {"pets_s2l1_a": ((19, 1), (15, 14))}
"""By sequence, ids of one object. 19 and 1 are the man in the long black coat with grey shoes, 15 and 14 the man in the
leather jacket with papers in his hand: both leave to the right and come back from there, 2 and 8 seconds later."""
_PEOPLE = ("person", "people", "pedestrian")


@dataclass(frozen=True, slots=True)
class RealSequence:
    """One sequence."""

    name: str
    group: str
    """``people``, ``look-alikes`` (several objects of another kind) or ``single``: they are reported apart."""
    folder: Path
    truth: tuple[Track, ...]
    """What methods are scored by."""
    published: tuple[Track, ...]
    """The same with the ids as they were published."""
    trackers: dict[str, tuple[Track, ...]]
    height_px: int
    width_px: int

    @property
    def has_frames(self) -> bool:
        """Whether there are pictures."""
        return (self.folder / "img1").is_dir()


def sequence_names(root: Path) -> list[str]:
    """Sequences below a folder, those with pictures first; ``boxes_only/NAME`` are those without.

    Raises:
        OptionError: There is none.
    """
    found = [p.parents[1].relative_to(root).as_posix() for p in root.glob("**/gt/gt.txt")]
    if not found:
        raise OptionError(f"--data {root}: must hold sequences as NAME/gt/gt.txt: give a folder that does")
    return sorted(found, key=lambda name: (not (root / name / "img1").is_dir(), name))


def read_sequence(root: Path, name: str, *, as_published: bool = False) -> RealSequence:
    """Read ground truth and tracker outputs; pictures are opened only when views are made.

    Args:
        root: Folder of sequences.
        name: Of `sequence_names`.
        as_published: Score by the published ids, too.
    """
    folder = root / name
    parser = configparser.ConfigParser()
    parser.read(folder / "seqinfo.ini")
    height, width = (int(parser["Sequence"][key]) for key in ("imHeight", "imWidth"))
    truth = read_mot(folder / "gt" / "gt.txt", height_px=height, width_px=width, is_ground_truth=True)
    if (folder / "masks").is_dir():
        truth = tuple(_with_masks(t, folder / "masks") for t in truth)
    trackers = {
        path.stem: read_mot(path, height_px=height, width_px=width)
        for path in sorted((folder / "trackers").glob("*.txt"))
    }
    known = truth if as_published else _joined(truth, SAME_OBJECT.get(folder.name, ()))
    return RealSequence(folder.name, _group(folder, len(truth)), folder, known, truth, trackers, height, width)


def _joined(tracks: tuple[Track, ...], pairs: Sequence[tuple[int, int]]) -> tuple[Track, ...]:
    """Tracks whose later parts belong to an earlier one become parts of it."""
    by_id = {t.track_id: t for t in tracks}
    for first, later in pairs:
        a, b = by_id[first], by_id.pop(later)
        by_id[first] = replace(
            a,
            frame_indices=np.concatenate([a.frame_indices, b.frame_indices]),
            boxes_xyxy=np.concatenate([a.boxes_xyxy, b.boxes_xyxy]),
            scores=np.concatenate([a.scores, b.scores]),
            mask_scores=np.concatenate([a.mask_scores, b.mask_scores]),
            identity_confidence=np.concatenate([a.identity_confidence, b.identity_confidence]),
            masks=None if a.masks is None or b.masks is None else (*a.masks, *b.masks),
            sources=(*a.sources, *b.sources),
        )
    return tuple(by_id.values())


def _group(folder: Path, objects: int) -> str:
    meta = folder / "meta.json"
    prompt = json.loads(meta.read_text()).get("prompt", "") if meta.is_file() else _PEOPLE[0]
    if prompt in _PEOPLE:
        return "people"
    return "look-alikes" if objects > 1 else "single"


def _with_masks(track: Track, folder: Path) -> Track:
    masks = []
    for frame in track.frame_indices.tolist():
        with Image.open(folder / f"{frame + 1:06d}.png") as picture:
            masks.append(encode_mask(np.asarray(picture) == track.track_id))
    return replace(track, masks=tuple(masks))
