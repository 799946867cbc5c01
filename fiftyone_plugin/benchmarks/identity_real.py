"""Real sequences for the identity benchmark: ground truth, and what trackers made of it.

A sequence is a folder in MOT's layout: ``img1/``, ``gt/gt.txt``, ``seqinfo.ini``, and perhaps ``masks/`` (the pixels of
an object have the value of its id) and ``trackers/*.txt``. A folder without ``img1`` has boxes only. Knows nothing of
failures or methods.
"""

from __future__ import annotations

import configparser
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from fiftyone_plugin.errors import OptionError
from fiftyone_plugin.exporters.mot import read_mot
from fiftyone_plugin.geometry import encode_mask
from fiftyone_plugin.types import Track

__all__ = ["RealSequence", "read_sequence", "sequence_names"]

_PEOPLE = ("person", "people", "pedestrian")


@dataclass(frozen=True, slots=True)
class RealSequence:
    """One sequence."""

    name: str
    group: str
    """``people``, ``look-alikes`` (several objects of another kind) or ``single``: they are reported apart."""
    folder: Path
    truth: tuple[Track, ...]
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


def read_sequence(root: Path, name: str) -> RealSequence:
    """Read ground truth and tracker outputs; pictures are opened only when views are made."""
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
    return RealSequence(folder.name, _group(folder, len(truth)), folder, truth, trackers, height, width)


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
