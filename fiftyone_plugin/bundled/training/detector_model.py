"""The tiny Grounding DINO before training: configuration, processor and first weights, in transformers' own classes.

Knows nothing of its training (`train_detector`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    BertConfig,
    BertTokenizer,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
    SwinConfig,
)

from fiftyone_plugin.bundled.training.detector_prompts import build_vocabulary
from fiftyone_plugin.errors import OptionError

__all__ = ["IMAGE_SIDE_PX", "MAX_TOKENS", "build_config", "build_detector", "build_processor", "load_detector"]

IMAGE_SIDE_PX = 256
MAX_TOKENS = 128
_WIDTH = 128


def build_processor() -> Any:
    """Tokenizer and image processor; pictures are squeezed to 256 x 256."""
    tokenizer = BertTokenizer(vocab=build_vocabulary(), do_lower_case=True, model_max_length=MAX_TOKENS)
    images = GroundingDinoImageProcessor(size={"height": IMAGE_SIDE_PX, "width": IMAGE_SIDE_PX}, do_pad=False)
    return GroundingDinoProcessor(image_processor=images, tokenizer=tokenizer)


def build_config() -> Any:
    """Swin 32-64-128-256, BERT of two layers, three encoder and three decoder layers of width 128, 50 queries."""
    text = BertConfig(
        vocab_size=len(build_vocabulary()),
        hidden_size=_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=256,
        max_position_embeddings=MAX_TOKENS,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    backbone = SwinConfig(
        image_size=IMAGE_SIDE_PX,
        patch_size=4,
        embed_dim=32,
        depths=[2, 2, 4, 2],
        num_heads=[2, 4, 8, 8],
        window_size=8,
        drop_path_rate=0.0,
        out_indices=[2, 3, 4],
    )
    return GroundingDinoConfig(
        backbone_config=backbone,
        text_config=text,
        num_queries=50,
        d_model=_WIDTH,
        encoder_layers=3,
        decoder_layers=3,
        encoder_ffn_dim=384,
        decoder_ffn_dim=384,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        num_feature_levels=3,
        encoder_n_points=4,
        decoder_n_points=4,
        dropout=0.0,
        fusion_droppath=0.0,
        max_text_len=MAX_TOKENS,
        auxiliary_loss=True,
        class_cost=2.0,
        disable_custom_kernels=True,
    )


def build_detector() -> Any:
    """A `GroundingDinoForObjectDetection` with random weights whose first scores are low.

    Its scores are plain dot products of two layer-normed vectors, without scale or bias. So the text norm gets a
    constant 0.5 in every channel (its own part sums to zero), and the norms of the queries -4 / (0.5 * 128): a prior
    logit of about -4, with a small scale around it.
    """
    model = GroundingDinoForObjectDetection(build_config())
    with torch.no_grad():
        model.model.encoder.layers[-1].text_enhancer_layer.layer_norm_after.bias.fill_(0.5)
        for norm in (model.model.decoder.layer_norm, model.model.enc_output_norm):
            norm.weight.fill_(0.12)
            norm.bias.fill_(-4 / (0.5 * _WIDTH))
    return model


def load_detector(folder: Path) -> Any:
    """A `GroundingDinoForObjectDetection` with saved weights, in float32.

    Raises:
        OptionError: There are none in this folder.
    """
    if not (folder / "config.json").is_file():
        raise OptionError(f"--weights {folder}: must be a folder with the weights of a Grounding DINO")
    return GroundingDinoForObjectDetection.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
