"""Train the tiny SAM 2.1 from scratch on rendered clips, with the `sam2` package's own modules.

    python -m fiftyone_plugin.bundled.training.train_propagator --device cuda --output sam2/

SAM 2's recipe in small (Ravi et al., "SAM 2: Segment Anything in Images and Videos", 2024, appendix D.2): a mask, box
or click on the first frame, sometimes a second prompted frame, sometimes correcting clicks; the memory unrolled over
clips that grow from 1 to 8 frames; focal, dice, IoU and object-score losses on every frame. ``--batch`` counts objects.

It calls methods of `SAM2Base` whose names begin with an underscore: read in sam2 1.1.0.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sam2.modeling.sam2_utils import get_next_point
from torch import Tensor, nn

from fiftyone_plugin.bundled.training.propagator_model import CONFIG_FILE, build_propagator
from fiftyone_plugin.bundled.training.training_loop import (
    Trainer,
    TrainingSettings,
    load_weights,
    read_settings,
    save_weights,
)
from fiftyone_plugin.embedders.reid_network import MEAN_RGB, STD_RGB
from fiftyone_plugin.synthetic.world import SceneMix, World, owner_boxes, owner_masks, sample_scenes

__all__ = ["ClipPlan", "draw_clips", "frame_losses", "main", "plan_clip", "train", "unroll"]

DEFAULTS = TrainingSettings(
    steps=2535,
    batch=128,
    learning_rate=7e-4,
    warm_up_steps=300,
    constant_part=0.4,
    output=Path("sam2"),
)
_SMOKE_BATCH = 4
_LOSS_SIDE_PX = 128
_MIN_PROMPT_PX = 120
_MAX_STRIDE = 7
"""Longest time between two frames of a clip."""
_MIX = SceneMix(same_class=(2, 5), objects=(2, 7), group_probability=0.9, leaving_probability=0.7)
"""Much hiding and leaving: what the object score has to learn."""
_ABSENT_WEIGHT = 2.0
"""Weight of the object score where the object is absent, which it is seldom."""
_OBJECTS_PER_SCENE = 3
_BATCH_FACTORS = {1: 2.25, 2: 1.75, 4: 1.25}
"""Short clips are cheap: so many times more objects."""

FrameOutput = tuple[Tensor, Tensor, Tensor]
"""Mask logits (N, M, h, w), predicted IoUs (N, M) and object logits (N, 1) of one answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipPlan:
    """How the objects of one batch are prompted."""

    frames: int
    prompt: str
    """``mask``, ``box`` or ``point``, on frame 0."""
    second_prompt_frame: int
    """Another frame with a prompt; 0 for none."""
    clicks: int
    """Correcting clicks after an answer."""


def plan_clip(rng: np.random.Generator, progress: float) -> ClipPlan:
    """Draw a plan; `progress` in [0, 1] is how far the training from random weights is, 1 if it began from others."""
    if progress < 0.06:
        frames = 1
    elif progress < 0.12:
        frames = 2
    elif progress < 0.36:
        frames = 4
    else:
        frames = int(rng.choice([4, 8, 8, 8]))
    # a mask on a clip of one frame would leave nothing to learn
    prompts, shares = (["box", "point"], [0.8, 0.2]) if frames == 1 else (["mask", "box", "point"], [0.3, 0.58, 0.12])
    return ClipPlan(
        frames=frames,
        prompt=str(rng.choice(prompts, p=shares)),
        second_prompt_frame=int(rng.integers(1, frames)) if frames >= 4 and rng.random() < 0.25 else 0,
        clicks=int(rng.integers(1, 3)) if rng.random() < 0.2 else 0,
    )


def unroll(model: Any, images: Tensor, scene_of: Tensor, masks: Tensor, plan: ClipPlan) -> list[list[FrameOutput]]:
    """Run the objects through their clips, prompted frames first.

    Args:
        model: `SAM2Base`.
        images: Normalised float (B, T, 3, H, W).
        scene_of: int64 (N,): scene of each object.
        masks: bool (N, T, H, W): the true masks.
        plan: How the objects are prompted.

    Returns:
        Answers of every frame; none where a mask was given.
    """
    frames = images.shape[1]
    _, features, positions, sizes = model._prepare_backbone_features(model.forward_image(images.flatten(0, 1)))
    memory: dict[str, dict[int, Any]] = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
    prompted = [0] + ([plan.second_prompt_frame] if plan.second_prompt_frame else [])
    answers: list[list[FrameOutput]] = [[] for _ in range(frames)]
    for frame in prompted + [f for f in range(frames) if f not in prompted]:
        rows = scene_of * frames + frame
        own_features, own_positions = [f[:, rows] for f in features], [p[:, rows] for p in positions]
        is_prompted = frame in prompted
        truth = masks[:, frame : frame + 1]
        points, given_mask = _prompt(truth, plan, frame) if is_prompted else (None, None)
        current, outputs, high_resolution, pixels = model._track_step(
            frame, is_prompted, own_features, own_positions, sizes, points, given_mask, memory, frames, False, None
        )
        if given_mask is None:
            answers[frame].append((outputs[0], outputs[2], outputs[6]))
        clicks = plan.clicks if given_mask is None and (frame == 0 or frame == 3) else 0
        for _ in range(clicks):
            points = _add_click(points, truth, outputs[4] > 0)
            outputs = model._forward_sam_heads(
                backbone_features=pixels,
                point_inputs=points,
                mask_inputs=outputs[3],
                high_res_features=high_resolution,
                multimask_output=model._use_multimask(is_prompted, points),
            )
            answers[frame].append((outputs[0], outputs[2], outputs[6]))
        current["pred_masks"], current["pred_masks_high_res"], current["obj_ptr"] = outputs[3], outputs[4], outputs[5]
        model._encode_memory_in_output(own_features, sizes, points, True, outputs[4], outputs[6], current)
        is_conditioning = is_prompted or clicks > 0
        memory["cond_frame_outputs" if is_conditioning else "non_cond_frame_outputs"][frame] = current
    return answers


def _prompt(truth: Tensor, plan: ClipPlan, frame: int) -> tuple[dict[str, Tensor] | None, Tensor | None]:
    """Points or a mask for all objects: truth bool (N, 1, H, W)."""
    # a box or a click needs something to be seen; only a mask can say that there is nothing
    kind = plan.prompt if frame == 0 or bool(truth.flatten(1).any(1).all()) else "mask"
    if kind == "mask":
        return None, truth.float()
    if kind == "box":
        boxes = owner_boxes(truth[:, 0])
        sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
        boxes = boxes + (torch.randn_like(boxes) * 0.07 * sides).clamp(-12, 12)
        labels = torch.tensor([2, 3], dtype=torch.int32, device=boxes.device).expand(len(boxes), 2)
        return {"point_coords": boxes.view(-1, 2, 2), "point_labels": labels}, None
    coordinates, labels = get_next_point(truth, None, "uniform")
    return {"point_coords": coordinates, "point_labels": labels}, None


def _add_click(points: dict[str, Tensor] | None, truth: Tensor, answer: Tensor) -> dict[str, Tensor]:
    coordinates, labels = get_next_point(truth, answer, "uniform")
    if points is None:
        return {"point_coords": coordinates, "point_labels": labels}
    return {
        "point_coords": torch.cat([points["point_coords"], coordinates], 1),
        "point_labels": torch.cat([points["point_labels"], labels], 1),
    }


def frame_losses(answers: Sequence[FrameOutput], masks: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of all answers of one frame.

    Of the masks of an answer only the best one is taught; where the object is absent only the object score is.

    Args:
        answers: At least one.
        masks: bool (N, H, W): the true masks.

    Returns:
        A scalar, and numbers for the log: ``iou`` is the IoU of the mask that the model itself prefers.
    """
    truth = F.interpolate(masks[:, None].float(), (_LOSS_SIDE_PX, _LOSS_SIDE_PX), mode="area")
    is_present = masks.flatten(1).any(1).float()[:, None]
    total = truth.new_zeros(())
    parts: dict[str, Tensor] = {}
    for mask_logits, predicted_ious, object_logits in answers:
        size = (_LOSS_SIDE_PX, _LOSS_SIDE_PX)
        logits = F.interpolate(mask_logits.float(), size, mode="bilinear", align_corners=False).clamp(-40, 40)
        target = truth.expand_as(logits)
        probability = logits.sigmoid()
        entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        agreement = probability * target + (1 - probability) * (1 - target)
        weight = 0.25 * target + 0.75 * (1 - target)
        focal = (weight * entropy * (1 - agreement) ** 2).flatten(2).mean(-1)
        overlap = (probability * target).flatten(2).sum(-1)
        dice = 1 - (2 * overlap + 1) / (probability.flatten(2).sum(-1) + target.flatten(2).sum(-1) + 1)
        with torch.no_grad():
            is_inside, is_true = (logits > 0).flatten(2), (target > 0.5).flatten(2)
            union = (is_inside | is_true).sum(-1).clamp(min=1)
            true_ious = (is_inside & is_true).sum(-1).float() / union
        best = (20 * focal + dice).argmin(1, keepdim=True)
        masks_loss = (20 * focal + dice).gather(1, best)
        iou_loss = (predicted_ious.float() - true_ious).abs().mean(1, keepdim=True)
        object_loss = F.binary_cross_entropy_with_logits(object_logits.float(), is_present, reduction="none")
        object_loss = object_loss * torch.where(is_present > 0, 1.0, _ABSENT_WEIGHT)
        total = total + ((masks_loss + iou_loss) * is_present + object_loss).mean()
        preferred = true_ious.gather(1, predicted_ious.argmax(1, keepdim=True))
        parts = {
            "iou": (preferred * is_present).sum() / is_present.sum().clamp(min=1),
            "presence": ((object_logits > 0).float() == is_present).float().mean(),
            "absence": ((object_logits <= 0) * (1 - is_present)).sum() / (1 - is_present).sum().clamp(min=1),
        }
    return total, parts


def draw_clips(
    world: World, rng: np.random.Generator, objects: int, frames: int
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Normalised images (B, T, 3, H, W), scene of each object (N,) and true masks (N, T, H, W); None if all hide."""
    batch = max(2, objects // _OBJECTS_PER_SCENE)
    scenes = sample_scenes(rng, batch, mix=_MIX)
    strides = np.exp(rng.uniform(0, np.log(_MAX_STRIDE), (batch, 1)))
    images, owners = world.render(scenes, rng.uniform(0, 200, (batch, 1)) + np.arange(frames) * strides)
    first = owner_masks(owners[:, 0]).flatten(-2).sum(-1).cpu().numpy()
    scene, slot = np.nonzero((first > _MIN_PROMPT_PX) & scenes.is_active)
    if not len(scene):
        return None
    chosen = rng.permutation(len(scene))[:objects]
    if len(chosen) < objects:
        chosen = np.concatenate([chosen, rng.choice(len(scene), objects - len(chosen))])
    scene_of = torch.as_tensor(scene[chosen], device=world.device)
    slot_of = torch.as_tensor(slot[chosen], device=world.device, dtype=torch.uint8)
    mean, deviation = (images.new_tensor(v)[:, None, None] for v in (MEAN_RGB, STD_RGB))
    return (images - mean) / deviation, scene_of, owners[scene_of] == slot_of[:, None, None, None]


def train(settings: TrainingSettings) -> Path:
    """Train, and return the path of the weights."""
    torch.manual_seed(settings.seed)
    world = World(device=settings.device)
    is_cuda = world.device.type == "cuda"
    model = build_propagator().to(world.device).train()
    if settings.weights is not None:
        load_weights(model, settings.weights)
    trainer = Trainer(model, settings, weight_decay=0.02, is_exempt=_has_no_decay)
    rng = np.random.default_rng((settings.seed, trainer.step))
    while not trainer.is_done:
        plan = plan_clip(rng, trainer.done if settings.weights is None else 1.0)
        clips = draw_clips(world, rng, int(settings.batch * _BATCH_FACTORS.get(plan.frames, 1)), plan.frames)
        if clips is None:
            continue
        images, scene_of, masks = clips
        with torch.autocast(world.device.type, torch.bfloat16, enabled=is_cuda):
            answers = unroll(model, images, scene_of, masks, plan)
        losses: list[Tensor] = []
        parts: dict[str, Tensor] = {}
        for frame, of_frame in enumerate(answers):
            if of_frame:
                loss, numbers = frame_losses(of_frame, masks[:, frame])
                losses.append(loss)
                parts |= {("first_" if frame == 0 else "last_") + name: value for name, value in numbers.items()}
        trainer.update(torch.stack(losses).sum() / plan.frames, parts)
    path = save_weights(trainer.averaged_weights, settings.output)
    if (settings.output / CONFIG_FILE.name).resolve() != CONFIG_FILE.resolve():
        shutil.copy(CONFIG_FILE, settings.output)
    return path


def _has_no_decay(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim < 2 or any(part in name for part in ("embed", "token", "tpos"))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line above."""
    about = "Train the tiny SAM 2.1."
    print(train(read_settings(argv, about=about, defaults=DEFAULTS, smoke_batch=_SMOKE_BATCH)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
