"""Train the tiny Grounding DINO from scratch on rendered frames.

    python -m fiftyone_plugin.bundled.training.train_detector --device cuda --workers 4 --output grounding_dino/

transformers' own loss (``labels=``) is not fit for this (read in transformers 5.17): its two-stage part trains nothing,
since the encoder's boxes are detached and its logits come from the query embeddings, and it takes the wrong rows of
labels for batches of three or more pictures with different prompts. `detection_loss` is the loss of the paper (Liu et
al., "Grounding DINO", ECCV 2024, section 3.5, with the matching costs of DETR). ``--batch`` counts pictures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from fiftyone_plugin.bundled.training.detector_model import build_detector, build_processor, load_detector
from fiftyone_plugin.bundled.training.detector_prompts import PromptBatch, Prompter
from fiftyone_plugin.bundled.training.training_loop import Trainer, TrainingSettings, half_precision, read_settings
from fiftyone_plugin.embedders.reid_network import MEAN_RGB, STD_RGB
from fiftyone_plugin.synthetic.world import RandomScenes, World, owner_boxes, owner_masks, sample_scenes

__all__ = [
    "Targets",
    "detection_loss",
    "draw_pictures",
    "generalised_iou",
    "main",
    "predict_all_layers",
    "to_corners",
    "train",
]

DEFAULTS = TrainingSettings(
    steps=4483,
    batch=128,
    learning_rate=5e-4,
    warm_up_steps=400,
    constant_part=0.5,
    output=Path("grounding_dino"),
    workers=4,
)
_SMOKE_BATCH = 2
_CLASS_COST, _BOX_COST, _IOU_COST = 2.0, 5.0, 2.0
_MIN_VISIBLE_PART = 0.25
_MIN_VISIBLE_PX = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """What should be found in B pictures with K slots."""

    boxes: Tensor
    """float (B, K, 4), centre and size, parts of the picture's sides."""
    is_wanted: Tensor
    """bool (B, K): well visible, and named by the prompt."""
    phrase_of_slot: Tensor
    """int64 (B, K), -1 where no phrase means the object."""
    phrase_tokens: Tensor
    """float (B, P, L)."""
    attention: Tensor
    """int64 (B, L)."""


class _Batches(IterableDataset[tuple[RandomScenes, PromptBatch]]):
    """Endless batches of scenes and prompts."""

    def __init__(self, tokenizer: Any, batch: int, seed: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._batch = batch
        self._seed = tuple(seed)

    def __iter__(self) -> Iterator[tuple[RandomScenes, PromptBatch]]:
        worker = get_worker_info()
        rng = np.random.default_rng((*self._seed, worker.id if worker is not None else 0))
        prompter = Prompter(self._tokenizer)
        while True:
            scenes = sample_scenes(rng, self._batch)
            yield scenes, prompter.prompt(rng, scenes.class_indices, scenes.is_active)


def to_corners(boxes: Tensor) -> Tensor:
    """Centre and size to ``xyxy``: (..., 4)."""
    return torch.cat([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], -1)


def generalised_iou(a: Tensor, b: Tensor) -> Tensor:
    """Of boxes ``xyxy`` that broadcast, in [-1, 1] (Rezatofighi et al., CVPR 2019, algorithm 1)."""
    area_a, area_b = ((box[..., 2:] - box[..., :2]).clamp(min=0).prod(-1) for box in (a, b))
    inner = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    union = area_a + area_b - inner
    return inner / (union + 1e-7) - (hull - union) / (hull + 1e-7)


def predict_all_layers(model: Any, pixels: Tensor, token_ids: Tensor, attention: Tensor) -> tuple[Tensor, Tensor]:
    """Answers of the encoder's proposals and of every decoder layer.

    Args:
        model: `GroundingDinoForObjectDetection`.
        pixels: Normalised float (B, 3, H, W).
        token_ids: int64 (B, L).
        attention: int64 (B, L).

    Returns:
        Logits of S layers (S, B, Q, L), and boxes (S, B, Q, 4), centre and size.
    """
    outputs = model.model(pixel_values=pixels, input_ids=token_ids, attention_mask=attention, return_dict=True)
    tokens, queries = token_ids.shape[1], model.config.num_queries
    proposals = outputs.enc_outputs_class[..., :tokens].float()
    best = proposals.amax(-1).topk(queries, 1).indices
    logits = [proposals.gather(1, best[..., None].expand(-1, -1, tokens))]
    boxes = [outputs.enc_outputs_coord_logits.float().gather(1, best[..., None].expand(-1, -1, 4)).sigmoid()]
    text = outputs.encoder_last_hidden_state_text
    for layer in range(outputs.intermediate_hidden_states.shape[1]):
        reference = outputs.intermediate_reference_points[:, layer - 1] if layer else outputs.init_reference_points
        hidden = outputs.intermediate_hidden_states[:, layer]
        scores = (hidden @ text.transpose(1, 2)).float()
        logits.append(scores.masked_fill(~attention.bool()[:, None], -torch.inf))
        offsets = model.bbox_embed[layer](hidden).float()
        boxes.append((offsets + torch.special.logit(reference.float(), eps=1e-5)).sigmoid())
    return torch.stack(logits), torch.stack(boxes)


def detection_loss(logits: Tensor, boxes: Tensor, targets: Targets) -> tuple[Tensor, dict[str, Tensor]]:
    """Focal loss on tokens, L1 and generalised IoU on boxes, after one-to-one matching in every layer.

    Args:
        logits: (S, B, Q, L), minus infinity at padding.
        boxes: (S, B, Q, 4), centre and size.
        targets: What should be found.

    Returns:
        A scalar, and numbers of the last layer for the log.
    """
    layers, _, _, tokens = logits.shape
    device = logits.device
    row = targets.phrase_of_slot.clamp(min=0)[..., None].expand(-1, -1, tokens)
    wanted_tokens = torch.gather(targets.phrase_tokens, 1, row)
    layer, picture, query, slot = _match(logits, boxes, targets, wanted_tokens)
    count = max(float(targets.is_wanted.sum()), 1.0)
    is_token = targets.attention.bool()[None, :, None]
    scores = logits.masked_fill(~is_token, 0)
    wanted = torch.zeros_like(scores)
    wanted[layer, picture, query] = wanted_tokens[picture, slot]
    probability = scores.sigmoid()
    agreement = probability * wanted + (1 - probability) * (1 - wanted)
    entropy = F.binary_cross_entropy_with_logits(scores, wanted, reduction="none")
    focal = (0.25 * wanted + 0.75 * (1 - wanted)) * entropy * (1 - agreement) ** 2 * is_token
    class_loss = focal.sum((1, 2, 3)) / count
    found, true = boxes[layer, picture, query], targets.boxes[picture, slot]
    zeros = torch.zeros(layers, device=device)
    box_loss = zeros.index_add(0, layer, (found - true).abs().sum(-1)) / count
    iou_loss = zeros.index_add(0, layer, 1 - generalised_iou(to_corners(found), to_corners(true))) / count
    loss = (_CLASS_COST * class_loss + _BOX_COST * box_loss + _IOU_COST * iou_loss).sum()
    return loss, {"class": class_loss[-1].detach(), "box": box_loss[-1].detach(), "iou": iou_loss[-1].detach()}


def _match(logits: Tensor, boxes: Tensor, targets: Targets, wanted_tokens: Tensor) -> tuple[Tensor, ...]:
    """Layer, picture, query and slot of every pair of the cheapest one-to-one matchings."""
    with torch.no_grad():
        probability = logits.sigmoid()
        if_absent = 0.75 * probability**2 * -(1 - probability + 1e-8).log()
        if_present = 0.25 * (1 - probability) ** 2 * -(probability + 1e-8).log()
        share = wanted_tokens / wanted_tokens.sum(-1, keepdim=True).clamp(min=1)
        cost = _CLASS_COST * torch.einsum("sbql,bkl->sbqk", if_present - if_absent, share)
        cost += _BOX_COST * (boxes[:, :, :, None] - targets.boxes[None, :, None]).abs().sum(-1)
        cost -= _IOU_COST * generalised_iou(to_corners(boxes)[:, :, :, None], to_corners(targets.boxes)[None, :, None])
        costs = torch.nan_to_num(cost, nan=1e3, posinf=1e3, neginf=-1e3).cpu().numpy()
        is_wanted = targets.is_wanted.cpu().numpy()
    pairs: list[tuple[int, int, int, int]] = []
    for layer in range(costs.shape[0]):
        for picture in range(costs.shape[1]):
            columns = np.flatnonzero(is_wanted[picture])
            for query, column in zip(*linear_sum_assignment(costs[layer, picture][:, columns]), strict=True):
                pairs.append((layer, picture, int(query), int(columns[column])))
    indices = torch.tensor(pairs, dtype=torch.int64, device=logits.device).reshape(-1, 4)
    return indices.unbind(1)


def draw_pictures(
    world: World, scenes: RandomScenes, prompts: PromptBatch, times: np.ndarray
) -> tuple[Tensor, Targets]:
    """Normalised pictures (B, 3, H, W), and what should be found in them."""
    images, owners = world.render(scenes, times)
    masks = owner_masks(owners[:, 0])
    visible = masks.flatten(-2).sum(-1)
    whole = torch.as_tensor(world.whole_areas_px(scenes, times)[:, 0], device=world.device)
    sides = torch.tensor([world.width_px, world.height_px], device=world.device).repeat(2)
    corners = owner_boxes(masks) / sides
    phrases = torch.as_tensor(prompts.phrase_of_slot, device=world.device)
    mean, deviation = (images.new_tensor(v)[:, None, None] for v in (MEAN_RGB, STD_RGB))
    targets = Targets(
        boxes=torch.cat([(corners[..., :2] + corners[..., 2:]) / 2, corners[..., 2:] - corners[..., :2]], -1),
        is_wanted=(visible > _MIN_VISIBLE_PART * whole) & (visible > _MIN_VISIBLE_PX) & (phrases >= 0),
        phrase_of_slot=phrases,
        phrase_tokens=torch.as_tensor(prompts.phrase_tokens, device=world.device),
        attention=torch.as_tensor(prompts.attention, device=world.device),
    )
    return (images[:, 0] - mean) / deviation, targets


def train(settings: TrainingSettings) -> Path:
    """Train, and return the folder with the weights, the configuration and the processor."""
    torch.manual_seed(settings.seed)
    world = World(device=settings.device)
    processor = build_processor()
    model = build_detector() if settings.weights is None else load_detector(settings.weights)
    model = model.to(world.device).train()
    trainer = Trainer(model, settings, weight_decay=0.02, is_exempt=_has_no_decay)
    seed = (settings.seed, trainer.step)
    batches = iter(
        DataLoader(
            _Batches(processor.tokenizer, settings.batch, seed),
            batch_size=None,
            collate_fn=_as_it_is,
            num_workers=settings.workers,
        )
    )
    rng = np.random.default_rng(seed)
    while not trainer.is_done:
        scenes, prompts = next(batches)
        pixels, targets = draw_pictures(world, scenes, prompts, rng.uniform(0, 200, (settings.batch, 1)))
        token_ids = torch.as_tensor(prompts.token_ids, device=world.device)
        with torch.autocast(world.device.type, torch.bfloat16, enabled=world.device.type == "cuda"):
            logits, boxes = predict_all_layers(model, pixels, token_ids, targets.attention)
        trainer.update(*detection_loss(logits, boxes, targets))
    model.load_state_dict(half_precision(trainer.averaged_weights))
    model.half().cpu().save_pretrained(settings.output)
    processor.save_pretrained(settings.output)
    return settings.output


def _as_it_is(batch: Any) -> Any:
    return batch


def _has_no_decay(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim < 2 or "embed" in name


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line above."""
    about = "Train the tiny Grounding DINO."
    print(train(read_settings(argv, about=about, defaults=DEFAULTS, smoke_batch=_SMOKE_BATCH)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
