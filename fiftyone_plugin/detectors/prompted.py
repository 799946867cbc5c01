"""A detector with a prompt: raw answers of any backend to clean detections.

Written once for all backends: several passes for long class lists, batches of frames, thresholds, one phrase per box,
suppression of duplicates, clipping and sorting. Knows nothing of any model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fiftyone_plugin.config import DetectionOptions
from fiftyone_plugin.detectors.prompt import split_into_passes
from fiftyone_plugin.geometry import clip_boxes, non_maximum_suppression
from fiftyone_plugin.interfaces import Detector, PhraseBoxes
from fiftyone_plugin.types import Detections, Frame

__all__ = ["MIN_SIDE_PX", "SAME_OBJECT_IOU", "PromptedDetector"]

SAME_OBJECT_IOU = 0.9
"""Boxes of two different phrases that overlap more than this are one object named twice ("puppy. dog."); in [0, 1].

Far above `DetectionOptions.max_nms_iou`: objects of two classes may well cover each other (a rider and a horse).
"""
MIN_SIDE_PX = 1.0
"""A box that is narrower or lower than this inside the frame shows nothing."""


class PromptedDetector:
    """Looks for the same phrases in one frame after another."""

    def __init__(self, detector: Detector, phrases: Sequence[str], options: DetectionOptions | None = None) -> None:
        """Prepare the passes; costs no forward pass.

        Args:
            detector: Any backend.
            phrases: From `prompt.parse_prompt`.
            options: Thresholds and batch size.

        Raises:
            PromptError: A phrase is too long for the detector.
        """
        self._detector = detector
        self._options = options if options is not None else DetectionOptions()
        self._phrases = tuple(phrases)
        self._passes = split_into_passes(self._phrases, detector.count_tokens, max_tokens=detector.max_tokens)

    @property
    def phrases(self) -> tuple[str, ...]:
        """What is looked for, in the order it was typed."""
        return self._phrases

    @property
    def pass_count(self) -> int:
        """How often the detector reads each frame, because its text is limited in length."""
        return len(self._passes)

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        """Find the objects in every frame, in the order given.

        A box gets the one phrase that it scores highest for, the earlier one on a tie, and that score. It is kept if
        the score reaches `box_threshold` and `text_threshold`. Among boxes of one phrase that overlap more than
        `max_nms_iou`, and of all phrases and passes that overlap more than `SAME_OBJECT_IOU`, the best one stays.
        """
        step = self._options.batch_frames
        found: list[Detections] = []
        for start in range(0, len(frames), step):
            found.extend(self._detect_batch(frames[start : start + step]))
        return found

    def _detect_batch(self, frames: Sequence[Frame]) -> list[Detections]:
        images = [frame.image_rgb for frame in frames]
        answers = [self._detector.detect(images, phrases) for phrases in self._passes]
        return [self._merge(frame, [answer[position] for answer in answers]) for position, frame in enumerate(frames)]

    def _merge(self, frame: Frame, answers: Sequence[PhraseBoxes]) -> Detections:
        boxes = np.concatenate([answer.boxes_xyxy for answer in answers]).astype(np.float32, copy=False)
        scores = np.concatenate([answer.phrase_scores.max(axis=1) for answer in answers]).astype(np.float32, copy=False)
        first = np.cumsum([0, *(len(phrases) for phrases in self._passes[:-1])])
        phrase_of = np.concatenate(
            [answer.phrase_scores.argmax(axis=1) + offset for answer, offset in zip(answers, first, strict=True)]
        )

        boxes = clip_boxes(boxes, height_px=frame.height_px, width_px=frame.width_px)
        # A box that is not a number fails the comparison, and so is left out too.
        is_visible = ((boxes[:, 2:] - boxes[:, :2]) >= MIN_SIDE_PX).all(axis=1)
        is_sure = scores >= max(self._options.box_threshold, self._options.text_threshold)
        kept = np.flatnonzero(is_visible & is_sure)

        survivors = [
            same[non_maximum_suppression(boxes[same], scores[same], max_iou=self._options.max_nms_iou)]
            for p in range(len(self._phrases))
            if len(same := kept[phrase_of[kept] == p])
        ]
        if not survivors:
            return Detections.empty(frame.index)
        kept = np.concatenate(survivors)
        # Suppression also sorts: best score first.
        kept = kept[non_maximum_suppression(boxes[kept], scores[kept], max_iou=SAME_OBJECT_IOU)]
        return Detections(frame.index, boxes[kept], scores[kept], tuple(self._phrases[p] for p in phrase_of[kept]))
