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

from fiftyone_plugin.bundled.training.training_loop import (
    Trainer,
    TrainingSettings,
    load_weights,
    read_settings,
    save_weights,
)
from fiftyone_plugin.embedders.reid_network import MEAN_RGB, SIDE_PX, STD_RGB, WINDOW_SCALE, ReidNetwork
from fiftyone_plugin.synthetic.world import SceneMix, World, owner_boxes, owner_masks, sample_scenes

__all__ = ["changing_light", "contrastive_loss", "cut_windows", "draw_crops", "main", "train"]

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
    own = _ragged(masks[scene, view, slot], rng)
    lit = (images * changing_light(rng, *images.shape[:2], *images.shape[-2:], device=images.device)).clamp(0, 1)
    return cut_windows(lit[scene, view], own, owner_boxes(own), jitter=_JITTER), scene * masks.shape[2] + slot


def changing_light(
    rng: np.random.Generator, scenes: int, views: int, height_px: int, width_px: int, *, device: torch.device
) -> Tensor:
    """Another light in every view: factors (B, T, 3, H, W) of brightness and colour that fall off to one side.

    Half of the scenes keep steady light, so that what colour says under it is not unlearned.
    """
    strength = rng.uniform(0, 1, (scenes, 1, 1)) * (rng.random((scenes, 1, 1)) < 0.5)
    whole = strength * (rng.normal(0, 0.25, (scenes, views, 1)) + rng.normal(0, 0.1, (scenes, views, 3)))
    slopes = strength * rng.normal(0, 0.5, (scenes, views, 2))
    gains, slopes_xy = (torch.as_tensor(v, dtype=torch.float32, device=device) for v in (whole, slopes))
    x = torch.linspace(-0.5, 0.5, width_px, device=device)
    y = torch.linspace(-0.5, 0.5, height_px, device=device)[:, None]
    fall = slopes_xy[..., 0, None, None] * x + slopes_xy[..., 1, None, None] * y
    return torch.exp(gains[..., None, None] + fall[:, :, None])


def _ragged(masks: Tensor, rng: np.random.Generator) -> Tensor:
    """Masks as trackers give them, bool (N, H, W): some a little too large, some too small, most as they are."""
    grown = F.max_pool2d(masks[:, None].float(), 5, stride=1, padding=2)[:, 0] > 0
    shrunk = -F.max_pool2d(-masks[:, None].float(), 5, stride=1, padding=2)[:, 0] > 0
    kind = torch.as_tensor(rng.random(len(masks)), device=masks.device)[:, None, None]
    # what shrinking leaves nothing of stays as it is
    shrunk = torch.where(shrunk.flatten(1).any(1)[:, None, None], shrunk, masks)
    return torch.where(kind < 0.2, grown, torch.where(kind < 0.4, shrunk, masks))


def train(settings: TrainingSettings) -> Path:
    """Train, and return the path of the weights."""
    torch.manual_seed(settings.seed)
    network = ReidNetwork().to(settings.device).train()
    if settings.weights is not None:
        load_weights(network, settings.weights)
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
