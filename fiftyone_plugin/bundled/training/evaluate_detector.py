"""How good a detector is in the synthetic world, on fresh frames: average precision, recall, precision, false boxes.

    python -m fiftyone_plugin.bundled.training.evaluate_detector --weights bundled --pictures 200

Every line of the answer is one set of pictures and prompts. Boxes go through the same class-wise suppression as in use.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fiftyone_plugin.bundled.training.detector_prompts import phrase_table
from fiftyone_plugin.config import DetectionOptions
from fiftyone_plugin.detectors import grounding_dino
from fiftyone_plugin.geometry import box_iou, non_maximum_suppression
from fiftyone_plugin.interfaces import Detector
from fiftyone_plugin.synthetic.vocabulary import sprite_classes
from fiftyone_plugin.synthetic.world import World, class_indices, owner_boxes, owner_masks, sample_scenes
from fiftyone_plugin.types import FloatArray, IntArray

__all__ = ["PictureSet", "average_precision", "evaluate", "main", "match_by_score"]

THRESHOLDS = (0.25, 0.3, 0.4)
_BATCH = 8
_MIN_VISIBLE_PART = 0.25
_MIN_VISIBLE_PX = 60
_MIN_SCORE = 0.05
_ABSENT_BESIDE = 2
_ABSENT_ALONE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureSet:
    """One line of the answer."""

    name: str
    prompt: str
    """``names`` of up to three classes that are there and two that are not; a ``hypernym``; ``absent`` names only."""
    has_unseen_classes: bool
    """Pictures of classes that training never showed."""
    share: float
    """Part of the pictures that it gets."""
    seed: int


SETS = (
    PictureSet(name="seen, names", prompt="names", has_unseen_classes=False, share=1.0, seed=11),
    PictureSet(name="seen, hypernym", prompt="hypernym", has_unseen_classes=False, share=0.5, seed=12),
    PictureSet(name="seen, only absent names", prompt="absent", has_unseen_classes=False, share=0.5, seed=13),
    PictureSet(name="unseen pictures and names", prompt="names", has_unseen_classes=True, share=0.5, seed=14),
    PictureSet(name="unseen pictures, hypernym", prompt="hypernym", has_unseen_classes=True, share=0.5, seed=15),
)


def match_by_score(
    boxes: FloatArray, scores: FloatArray, labels: IntArray, true_boxes: FloatArray, true_labels: IntArray
) -> list[tuple[float, float]]:
    """Give every box, best score first, the true box of its label that it overlaps most and nobody has: COCO's way.

    Returns:
        Score and IoU of every box; IoU 0 where none was left.
    """
    iou = box_iou(boxes, true_boxes) * (labels[:, None] == true_labels[None])
    answers = []
    for row in np.argsort(-scores, kind="stable"):
        best = int(iou[row].argmax()) if len(true_boxes) else 0
        overlap = float(iou[row, best]) if len(true_boxes) else 0.0
        if overlap >= 0.5:
            iou[:, best] = 0
        answers.append((float(scores[row]), overlap))
    return answers


def average_precision(answers: Sequence[tuple[float, float]], true_count: int, *, min_iou: float) -> float:
    """Area under the precision-recall curve, interpolated at all points (PASCAL VOC 2010)."""
    if not answers or not true_count:
        return 0.0
    is_right = np.array([iou >= min_iou for _, iou in sorted(answers, key=lambda a: -a[0])], np.float64)
    recall = is_right.cumsum() / true_count
    precision = is_right.cumsum() / np.arange(1, len(is_right) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(np.concatenate([[0.0], recall])) * envelope).sum())


def evaluate(detector: Detector, world: World, pictures: PictureSet, count: int) -> dict[str, float]:
    """Run a detector over one set of so many pictures."""
    rng = np.random.default_rng(pictures.seed)
    table = phrase_table(held_out=pictures.has_unseen_classes)
    classes = class_indices(held_out=pictures.has_unseen_classes)
    answers: list[tuple[float, float]] = []
    true_count = 0
    for begin in range(0, count, _BATCH):
        batch = min(_BATCH, count - begin)
        scenes = sample_scenes(rng, batch, classes=classes.tolist())
        times = rng.uniform(0, 200, (batch, 1))
        images, owners = world.render(scenes, times)
        masks = owner_masks(owners[:, 0])
        visible = masks.flatten(-2).sum(-1).numpy()
        is_counted = (visible > _MIN_VISIBLE_PART * world.whole_areas_px(scenes, times)[:, 0]) & (
            visible > _MIN_VISIBLE_PX
        )
        boxes = owner_boxes(masks).numpy()
        for row in range(batch):
            present = list(dict.fromkeys(scenes.class_indices[row][scenes.is_active[row]].tolist()))
            phrases = _phrases(rng, pictures.prompt, present, table)
            labels = np.full(len(boxes[row]), -1, np.int64)
            for number, phrase in enumerate(phrases):
                labels[np.isin(scenes.class_indices[row], list(table[phrase]))] = number
            wanted = is_counted[row] & (labels >= 0)
            picture = (images[row, 0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
            found = _detect(detector, picture, phrases)
            answers += match_by_score(*found, boxes[row][wanted], labels[wanted])
            true_count += int(wanted.sum())
    result = {
        "pictures": float(count),
        "objects": float(true_count),
        "AP50": average_precision(answers, true_count, min_iou=0.5),
        "AP75": average_precision(answers, true_count, min_iou=0.75),
    }
    for threshold in THRESHOLDS:
        right = sum(score > threshold and iou >= 0.5 for score, iou in answers)
        wrong = sum(score > threshold and iou < 0.5 for score, iou in answers)
        result[f"recall@{threshold}"] = right / max(true_count, 1)
        result[f"precision@{threshold}"] = right / max(right + wrong, 1)
        result[f"false boxes a picture@{threshold}"] = wrong / count
    return {name: round(value, 3) for name, value in result.items()}


def _phrases(
    rng: np.random.Generator, kind: str, present: Sequence[int], table: dict[str, frozenset[int]]
) -> list[str]:
    """Phrases without a class in common."""
    known = sprite_classes()
    if kind == "hypernym":
        hypernyms = [h for index in present for h in known[index].hypernyms]
        return [hypernyms[0] if hypernyms else known[present[0]].name]
    phrases = [known[index].name for index in present[:3]] if kind == "names" else []
    names = [entry.name for entry in known if entry.name in table]
    size = len(phrases) + (_ABSENT_BESIDE if kind == "names" else _ABSENT_ALONE)
    used = set(present)
    while len(phrases) < size:
        phrase = names[rng.integers(len(names))]
        if not table[phrase] & used:
            used |= table[phrase]
            phrases.append(phrase)
    return phrases


def _detect(
    detector: Detector, picture: NDArray[np.uint8], phrases: Sequence[str]
) -> tuple[FloatArray, FloatArray, IntArray]:
    """Boxes, scores and phrase numbers after suppression within each phrase."""
    (answer,) = detector.detect([picture], phrases)
    labels, scores = answer.phrase_scores.argmax(1), answer.phrase_scores.max(1)
    kept: list[int] = []
    for number in range(len(phrases)):
        rows = np.flatnonzero((labels == number) & (scores > _MIN_SCORE))
        chosen = non_maximum_suppression(answer.boxes_xyxy[rows], scores[rows], max_iou=DetectionOptions().max_nms_iou)
        kept += rows[chosen].tolist()
    return answer.boxes_xyxy[kept], scores[kept], labels[kept].astype(np.int64)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line above."""
    parser = argparse.ArgumentParser(description="How good a detector is in the synthetic world.")
    parser.add_argument("--weights", default="bundled", help="'bundled', or a folder as train_detector writes it")
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args(argv)
    detector = grounding_dino.make(arguments.weights, arguments.device)
    world = World()
    with torch.inference_mode():
        for pictures in SETS:
            result = evaluate(detector, world, pictures, max(1, round(arguments.pictures * pictures.share)))
            print(json.dumps({"set": pictures.name, **result}), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
