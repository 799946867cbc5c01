"""Grounding DINO through transformers, and the parts that its second backend shares: checkpoint, processor, read-out.

Nothing to compile. Weights are safetensors from the package, the hub or a local directory, and are always run in
float32: the bundled ones are stored in float16 to be small. Once a directory is located, nothing is read over the
network. Knows nothing of thresholds (`prompted`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import GroundingDinoConfig, GroundingDinoForObjectDetection, GroundingDinoProcessor

from fiftyone_plugin.detectors.prompt import join_phrases
from fiftyone_plugin.detectors.tokens import fold_token_scores, phrase_token_mask
from fiftyone_plugin.interfaces import PhraseBoxes
from fiftyone_plugin.types import BoolArray
from fiftyone_plugin.weights import HubModel, first_existing, load_quietly, locate, resolve_device

__all__ = ["HUB", "Checkpoint", "EncodedBatch", "GroundingDino", "make", "open_checkpoint", "read_out"]

_NAME = "grounding-dino"
_FILES = ("config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json")
HUB = {
    "tiny": HubModel("IDEA-Research/grounding-dino-tiny", "a2bb814dd30d776dcf7e30523b00659f4f141c71", _FILES),
    "base": HubModel("IDEA-Research/grounding-dino-base", "12bdfa3120f3e7ec7b434d90674b3396eccf88eb", _FILES),
}


@dataclass(frozen=True, slots=True)
class EncodedBatch:
    """Images and text as both backends read them."""

    pixel_values: torch.Tensor
    """float32 (B, 3, h, w), resized, normalised, padded to the largest."""
    pixel_mask: torch.Tensor
    """int64 (B, h, w), 1 on the image and 0 on the padding."""
    input_ids: torch.Tensor
    """int64 (B, L), the same text in every row."""
    token_mask: BoolArray
    """bool (P, L): the tokens of each phrase."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A located weights directory with its processor; encodes images and text exactly as transformers does."""

    directory: Path
    config: Any
    """transformers' GroundingDinoConfig."""
    processor: Any
    """transformers' GroundingDinoProcessor."""

    @property
    def weights_file(self) -> Path:
        """The safetensors file."""
        return self.directory / "model.safetensors"

    @property
    def max_tokens(self) -> int:
        """Tokens of one text, special tokens included: the box head and the text encoder both set a limit."""
        return int(min(self.config.max_text_len, self.config.text_config.max_position_embeddings))

    def count_tokens(self, text: str) -> int:
        """Tokens of a text, special tokens included."""
        return len(self.processor.tokenizer(text)["input_ids"])

    def encode(self, images_rgb: Sequence[NDArray[np.uint8]], phrases: Sequence[str], *, device: str) -> EncodedBatch:
        """Prepare a batch: images of any sizes, one text for all of them."""
        text = self.processor.tokenizer(join_phrases(phrases), return_offsets_mapping=True)
        # Padding is asked for whatever the checkpoint says: without it images of different shapes cannot be stacked.
        images = self.processor.image_processor(
            images=list(images_rgb), return_tensors="pt", do_pad=True, input_data_format="channels_last"
        )
        ids = torch.tensor(text["input_ids"], dtype=torch.long, device=device)
        offsets = np.asarray(text["offset_mapping"], np.int64).reshape(-1, 2)
        return EncodedBatch(
            images["pixel_values"].to(device),
            images["pixel_mask"].to(device),
            ids.expand(len(images_rgb), -1),
            phrase_token_mask(phrases, offsets),
        )


def open_checkpoint(variant: str, *, used_by: str) -> Checkpoint:
    """Find a variant's weights and read its configuration, tokenizer and image processor.

    Raises:
        BackendError: The variant is neither known nor a directory.
        ModelUnavailableError: The weights are neither on disk nor reachable, or the directory is not a checkpoint.
    """
    directory = locate(variant, bundled="grounding_dino", hub=HUB, used_by=used_by)
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        first_existing(directory, [name], used_by=used_by)
    with load_quietly(directory, used_by=used_by):
        config = GroundingDinoConfig.from_pretrained(directory, local_files_only=True)
        processor = GroundingDinoProcessor.from_pretrained(directory, local_files_only=True)
    return Checkpoint(directory, config, processor)


def read_out(
    logits: torch.Tensor, boxes_cxcywh: torch.Tensor, batch: EncodedBatch, images_rgb: Sequence[NDArray[np.uint8]]
) -> list[PhraseBoxes]:
    """Turn what the network says into boxes in pixels and scores of phrases.

    Args:
        logits: (B, Q, at least L), one for every box and token.
        boxes_cxcywh: (B, Q, 4), centre and size relative to the image without its padding.
        batch: What was encoded.
        images_rgb: The images as they were given; only their sizes matter.
    """
    length = batch.input_ids.shape[1]
    token_scores = logits[..., :length].float().sigmoid().cpu().numpy()
    centres, sizes = boxes_cxcywh.float().cpu().numpy().reshape(len(images_rgb), -1, 2, 2).transpose(2, 0, 1, 3)
    corners = np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=-1)
    scores = fold_token_scores(token_scores, batch.token_mask)
    answers = []
    for position, image in enumerate(images_rgb):
        height, width = image.shape[:2]
        scale = np.array([width, height, width, height], np.float32)
        answers.append(PhraseBoxes(corners[position] * scale, scores[position]))
    return answers


class GroundingDino:
    """The detector backend; made by `make`."""

    def __init__(self, checkpoint: Checkpoint, *, variant: str, device: str) -> None:
        self.name = f"{_NAME}:{variant}"
        self._checkpoint = checkpoint
        self._device = device
        with load_quietly(checkpoint.directory, used_by=_NAME):
            model, report = GroundingDinoForObjectDetection.from_pretrained(
                checkpoint.directory,
                config=checkpoint.config,
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
            # transformers fills gaps with random numbers and only warns.
            if report["missing_keys"]:
                raise ValueError(f"{len(report['missing_keys'])} tensors are missing")
        self._model = model.to(device).eval()

    @property
    def max_tokens(self) -> int:
        """Tokens that one text may have, special tokens included."""
        return self._checkpoint.max_tokens

    def count_tokens(self, text: str) -> int:
        """Tokens of a text, special tokens included."""
        return self._checkpoint.count_tokens(text)

    @torch.inference_mode()
    def detect(self, images_rgb: Sequence[NDArray[np.uint8]], phrases: Sequence[str]) -> list[PhraseBoxes]:
        """Score all queries of every image against every phrase; see `interfaces.Detector`."""
        if not images_rgb:
            return []
        batch = self._checkpoint.encode(images_rgb, phrases, device=self._device)
        answer = self._model(pixel_values=batch.pixel_values, pixel_mask=batch.pixel_mask, input_ids=batch.input_ids)
        return read_out(answer.logits, answer.pred_boxes, batch, images_rgb)


def make(variant: str | None, device: str) -> GroundingDino:
    """Make the backend: ``bundled``, ``tiny``, ``base`` or a directory in transformers' format."""
    variant = variant or "bundled"
    return GroundingDino(open_checkpoint(variant, used_by=_NAME), variant=variant, device=resolve_device(device))
