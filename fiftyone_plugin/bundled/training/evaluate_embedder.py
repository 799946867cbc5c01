"""How well embedders tell individuals of one class in one clip apart, in the synthetic world, from true masks.

    python -m fiftyone_plugin.bundled.training.evaluate_embedder --weights bundled --scenes 24

Compares the trained network with the colour histogram, on classes that training showed and on others, in light that
stays and in light that changes from view to view.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
from scipy.stats import rankdata

from fiftyone_plugin.bundled.training.train_embedder import changing_light
from fiftyone_plugin.embedders import colour, reid
from fiftyone_plugin.geometry import crop, mask_boxes
from fiftyone_plugin.interfaces import Embedder
from fiftyone_plugin.synthetic.world import SceneMix, World, class_indices, owner_masks, sample_scenes
from fiftyone_plugin.types import BoolArray, Crop, FloatArray, IntArray

__all__ = ["draw_crops", "evaluate", "main", "roc_auc"]

_VIEWS = 6
_MIX = SceneMix(same_class=(3, 5), objects=(3, 5), group_probability=1.0)
_MIN_VISIBLE_PART = 0.35
_MIN_VISIBLE_PX = 150


def draw_crops(
    world: World, scenes: int, *, held_out: bool, is_light_steady: bool = True, seed: int = 77
) -> tuple[list[Crop], IntArray, IntArray]:
    """Crops of the well visible objects of fresh scenes, the identity of each, and its class within its scene."""
    rng = np.random.default_rng(seed)
    drawn = sample_scenes(rng, scenes, mix=_MIX, classes=class_indices(held_out=held_out).tolist())
    times = rng.uniform(0, 200, (scenes, _VIEWS))
    images, owners = world.render(drawn, times)
    if not is_light_steady:
        images = (images * changing_light(rng, *images.shape[:2], *images.shape[-2:], device=images.device)).clamp(0, 1)
    pictures = (images.permute(0, 1, 3, 4, 2) * 255).round().to(torch.uint8).numpy()
    masks = owner_masks(owners).numpy()
    visible = masks.sum((-2, -1))
    is_good = (visible > _MIN_VISIBLE_PART * world.whole_areas_px(drawn, times)) & (visible > _MIN_VISIBLE_PX)
    crops, identities, groups = [], [], []
    for scene, view, slot in zip(*np.nonzero(is_good), strict=True):
        mask = masks[scene, view, slot]
        crops.append(crop(pictures[scene, view], mask, mask_boxes(mask[None])[0]))
        identities.append(scene * masks.shape[2] + slot)
        groups.append(scene * 10_000 + drawn.class_indices[scene, slot])
    return crops, np.array(identities, np.int64), np.array(groups, np.int64)


def roc_auc(positives: FloatArray, negatives: FloatArray) -> float:
    """Probability that a positive is above a negative; ties count half."""
    ranks = rankdata(np.concatenate([positives, negatives]))
    pairs = len(positives) * len(negatives)
    return float((ranks[: len(positives)].sum() - len(positives) * (len(positives) + 1) / 2) / max(pairs, 1))


def evaluate(embeddings: FloatArray, identities: IntArray, groups: IntArray) -> dict[str, float]:
    """ROC-AUC of pairs within a group, and how often the nearest other crop of the group is the same individual."""
    similarities = embeddings @ embeddings.T
    is_comparable: BoolArray = groups[:, None] == groups[None]
    np.fill_diagonal(is_comparable, False)
    is_same = is_comparable & (identities[:, None] == identities[None])
    upper = np.triu(np.ones_like(is_same), 1)
    positives, negatives = similarities[is_same & upper], similarities[is_comparable & ~is_same & upper]
    nearest = np.where(is_comparable, similarities, -np.inf).argmax(1)
    has_pair = is_same.any(1)
    return {
        "pairs": float(len(positives) + len(negatives)),
        "AUC": round(roc_auc(positives, negatives), 4),
        "rank-1": round(float((identities[nearest] == identities)[has_pair].mean()), 4),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line above."""
    parser = argparse.ArgumentParser(description="How well embedders tell individuals apart.")
    parser.add_argument("--weights", default="bundled", help="'bundled', or a folder as train_embedder writes it")
    parser.add_argument("--scenes", type=int, default=24)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args(argv)
    embedders: tuple[Embedder, ...] = (
        reid.make(arguments.weights, arguments.device),
        colour.make("absolute", arguments.device),
        colour.make("relative", arguments.device),
    )
    world = World()
    for held_out, is_steady in product((False, True), (True, False)):
        crops, identities, groups = draw_crops(world, arguments.scenes, held_out=held_out, is_light_steady=is_steady)
        about = {"classes": "unseen" if held_out else "seen", "light": "steady" if is_steady else "changing"}
        for embedder in embedders:
            result = evaluate(embedder.embed(crops), identities, groups)
            print(json.dumps({**about, "embedder": embedder.name, **result}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
