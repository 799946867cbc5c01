"""How well a propagator holds on to objects in the synthetic world, on fresh clips full of crossing look-alikes.

    python -m fiftyone_plugin.bundled.training.evaluate_propagator --weights bundled --clips 12

Every object that is visible on frame 0 is prompted there with its true box, and never again. One line a clip, then the
means over all tracks.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

from fiftyone_plugin.geometry import mask_boxes, mask_iou
from fiftyone_plugin.interfaces import Propagator
from fiftyone_plugin.propagators import sam2
from fiftyone_plugin.synthetic.world import SceneMix, World, class_indices, owner_masks, sample_scenes
from fiftyone_plugin.types import BoolArray, Frame, Seed

__all__ = ["TrackScore", "evaluate_clip", "main", "score_track"]

FRAMES = 60
_MIX = SceneMix(same_class=(3, 4), objects=(4, 5), group_probability=1.0)
_MIN_PROMPT_PX = 250
_MIN_VISIBLE_PX = 30
_MIN_OTHER_IOU, _MAX_OWN_IOU = 0.4, 0.15
_MIN_SWAP_FRAMES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackScore:
    """How one track fared."""

    mean_iou: float
    """Over the frames where the object is visible."""
    first_iou: float
    """On the prompted frame."""
    false_presence: float
    """Part of the frames without the object where there is a mask; NaN where the object is always visible."""
    is_swapped: bool
    """On another object of its class for five frames or more."""
    ends_on_other: bool
    """On another object of its class in most of the last five frames."""


def score_track(found: BoolArray, true: BoolArray, others: BoolArray) -> TrackScore:
    """Score one track.

    Args:
        found: (T, H, W).
        true: (T, H, W), the object it was prompted with; visible on frame 0.
        others: (J, T, H, W), the objects of its class.
    """
    own, is_elsewhere = np.zeros(len(true)), np.zeros(len(true), np.bool_)
    for frame in range(len(true)):
        own[frame] = mask_iou(found[frame][None], true[frame][None])[0, 0]
        if len(others) and found[frame].sum() > _MIN_VISIBLE_PX:
            other = float(mask_iou(found[frame][None], others[:, frame]).max())
            is_elsewhere[frame] = other > _MIN_OTHER_IOU and own[frame] < _MAX_OWN_IOU
    is_visible = true.sum((1, 2)) > _MIN_VISIBLE_PX
    is_found = found.sum((1, 2)) > _MIN_VISIBLE_PX
    longest = max((len(run) for run in "".join("x" if e else " " for e in is_elsewhere).split()), default=0)
    return TrackScore(
        mean_iou=float(own[is_visible].mean()),
        first_iou=float(own[0]),
        false_presence=float(is_found[~is_visible].mean()) if not is_visible.all() else float("nan"),
        is_swapped=longest >= _MIN_SWAP_FRAMES,
        ends_on_other=bool(is_elsewhere[-5:].mean() > 0.5),
    )


def evaluate_clip(propagator: Propagator, world: World, seed: int, *, held_out: bool = False) -> list[TrackScore]:
    """Follow every object of one fresh clip."""
    rng = np.random.default_rng(seed)
    scenes = sample_scenes(rng, 1, mix=_MIX, classes=class_indices(held_out=held_out).tolist())
    images, owners = world.render(scenes, rng.uniform(0, 100) + np.arange(FRAMES)[None])
    pictures = (images[0].permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()
    masks = owner_masks(owners[0]).transpose(0, 1).numpy()
    slots = [int(s) for s in np.flatnonzero(scenes.is_active[0]) if masks[s, 0].sum() > _MIN_PROMPT_PX]
    session = propagator.open(height_px=world.height_px, width_px=world.width_px)
    found = np.zeros((len(slots), *masks.shape[1:]), np.bool_)
    for index, picture in enumerate(pictures):
        answer = session.advance(Frame(index, index / 15, picture))
        if index == 0 and slots:
            boxes = mask_boxes(masks[slots, 0])
            answer = session.seed([Seed(n + 1, box_xyxy=box) for n, box in enumerate(boxes)])
        for track_id, mask in zip(answer.track_ids.tolist(), answer.masks, strict=True):
            found[track_id - 1, index] = mask
    classes = scenes.class_indices[0]
    scores = []
    for row, slot in enumerate(slots):
        is_other = scenes.is_active[0] & (classes == classes[slot])
        is_other[slot] = False
        scores.append(score_track(found[row], masks[slot], masks[is_other]))
    return scores


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line above."""
    parser = argparse.ArgumentParser(description="How well a propagator holds on to objects in the synthetic world.")
    parser.add_argument("--weights", default="bundled", help="'bundled', or a folder as train_propagator writes it")
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--held-out", action="store_true", help="classes that training never showed")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args(argv)
    propagator = sam2.make(arguments.weights, arguments.device)
    world = World()
    scores: list[TrackScore] = []
    for clip in range(arguments.clips):
        of_clip = evaluate_clip(propagator, world, 7000 + clip, held_out=arguments.held_out)
        scores += of_clip
        print(json.dumps({"clip": clip, "ious": [round(s.mean_iou, 2) for s in of_clip]}), flush=True)
    columns = {name: np.array([asdict(s)[name] for s in scores], np.float64) for name in TrackScore.__slots__}
    means = {name: round(float(np.nanmean(values)), 3) for name, values in columns.items()}
    print(json.dumps({"tracks": len(scores), **means}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
