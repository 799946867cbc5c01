"""Train the tiny re-identification network from scratch on rendered clips.

    python -m fiftyone_plugin.bundled.training.train_embedder --device cuda --output reid/

Supervised contrastive loss over identities (Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020, eq. 2); the
negatives that matter are the look-alikes of the same clip. ``--batch`` counts scenes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fiftyone_plugin.bundled.training.training_loop import Trainer, TrainingSettings, read_settings, save_weights
from fiftyone_plugin.embedders.reid_network import MEAN_RGB, SIDE_PX, STD_RGB, WINDOW_SCALE, ReidNetwork
from fiftyone_plugin.synthetic.world import SceneMix, World, owner_boxes, owner_masks, sample_scenes

__all__ = ["contrastive_loss", "cut_windows", "draw_crops", "main", "train"]

DEFAULTS = TrainingSettings(
    steps=3000,
    batch=20,
    learning_rate=2e-3,
    warm_up_steps=100,
    constant_part=0.0,
    output=Path("reid"),
)
_SMOKE_BATCH = 2
_VIEWS = 4
"""Frames of each scene."""
_MAX_CROPS = 512
_JITTER = 0.05
_MIN_VISIBLE_PART = 0.3
_MIN_VISIBLE_PX = 150
_TEMPERATURE = 0.1
_MIX = SceneMix(same_class=(3, 6), objects=(3, 7), group_probability=0.95)


def cut_windows(images: Tensor, masks: Tensor, boxes_xyxy: Tensor, *, jitter: float = 0.0) -> Tensor:
    """Cut what the network sees (see `reid_network`) out of frames.

    Args:
        images: float (N, 3, H, W) in [0, 1].
        masks: bool (N, H, W).
        boxes_xyxy: float (N, 4), pixels.
        jitter: Standard deviation of the window's shift and of the logarithm of its size, relative to its side.

    Returns:
        float (N, 4, 64, 64).
    """
    height, width = images.shape[-2:]
    centres = (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2
    sides = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).amax(1, keepdim=True).clamp(min=4) * WINDOW_SCALE
    if jitter:
        centres = centres + torch.randn_like(centres) * jitter * sides
        sides = sides * torch.exp(torch.randn_like(sides) * jitter)
    steps = torch.linspace(-1, 1, SIDE_PX, device=images.device)
    x = (centres[:, :1] + steps * sides / 2) / width * 2 - 1
    y = (centres[:, 1:] + steps * sides / 2) / height * 2 - 1
    grid = torch.stack([x[:, None, :].expand(-1, SIDE_PX, -1), y[:, :, None].expand(-1, -1, SIDE_PX)], -1)
    mean, deviation = (images.new_tensor(v)[:, None, None] for v in (MEAN_RGB, STD_RGB))
    layers = torch.cat([(images - mean) / deviation * masks[:, None], masks[:, None].to(images.dtype)], 1)
    return F.grid_sample(layers, grid, align_corners=False)


def contrastive_loss(embeddings: Tensor, identities: Tensor) -> Tensor:
    """Mean over all crops that have another view: embeddings (N, D) of unit length, identities (N,), to a scalar."""
    itself = torch.eye(len(embeddings), dtype=torch.bool, device=embeddings.device)
    similarities = (embeddings @ embeddings.T / _TEMPERATURE).masked_fill(itself, -1e9)
    log_probabilities = similarities - similarities.logsumexp(1, keepdim=True)
    is_positive = (identities[:, None] == identities[None]) & ~itself
    has_positive = is_positive.any(1)
    per_crop = -(log_probabilities * is_positive).sum(1) / is_positive.sum(1).clamp(min=1)
    # a batch of hidden objects may hold no pair at all
    return (per_crop * has_positive).sum() / has_positive.sum().clamp(min=1)


def draw_crops(world: World, rng: np.random.Generator, batch: int) -> tuple[Tensor, Tensor]:
    """Windows (N, 4, 64, 64) and identities (N,) of the well visible objects of fresh scenes."""
    scenes = sample_scenes(rng, batch, mix=_MIX)
    times = rng.uniform(0, 200, (batch, _VIEWS))
    images, owners = world.render(scenes, times)
    masks = owner_masks(owners)
    visible = masks.flatten(-2).sum(-1)
    whole = torch.as_tensor(world.whole_areas_px(scenes, times), device=visible.device)
    scene, view, slot = ((visible > _MIN_VISIBLE_PART * whole) & (visible > _MIN_VISIBLE_PX)).nonzero(as_tuple=True)
    if len(scene) > _MAX_CROPS:
        kept = torch.as_tensor(rng.permutation(len(scene))[:_MAX_CROPS], device=scene.device)
        scene, view, slot = scene[kept], view[kept], slot[kept]
    own = masks[scene, view, slot]
    return cut_windows(images[scene, view], own, owner_boxes(own), jitter=_JITTER), scene * masks.shape[2] + slot


def train(settings: TrainingSettings) -> Path:
    """Train, and return the path of the weights."""
    torch.manual_seed(settings.seed)
    network = ReidNetwork().to(settings.device).train()
    trainer = Trainer(network, settings, weight_decay=0.01, is_exempt=_has_no_decay)
    world = World(device=settings.device)
    rng = np.random.default_rng((settings.seed, trainer.step))
    while not trainer.is_done:
        windows, identities = draw_crops(world, rng, settings.batch)
        with torch.autocast(world.device.type, torch.bfloat16, enabled=world.device.type == "cuda"):
            embeddings = network(windows)
        trainer.update(contrastive_loss(embeddings.float(), identities), {"crops": float(len(windows))})
    return save_weights(trainer.averaged_weights, settings.output)


def _has_no_decay(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim < 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line above."""
    about = "Train the tiny re-identification network."
    print(train(read_settings(argv, about=about, defaults=DEFAULTS, smoke_batch=_SMOKE_BATCH)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
