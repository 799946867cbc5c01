"""Frames of the bundled clip, and a checkpoint that is built like those on the hub, but tiny and random."""

from __future__ import annotations

import shutil
from pathlib import Path

import av
import pytest
import torch
from transformers import (
    BertConfig,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    SwinConfig,
)

from fiftyone_plugin.types import Frame
from fiftyone_plugin.weights import BUNDLED_DIRECTORY


@pytest.fixture(scope="session")
def flock() -> list[Frame]:
    """The first two frames: four sheep and a dog, all in plain view."""
    with av.open(str(BUNDLED_DIRECTORY / "demo" / "flock.mp4")) as container:
        pictures = container.decode(video=0)
        return [Frame(i, i / 15, next(pictures).to_ndarray(format="rgb24")) for i in range(2)]


@pytest.fixture(scope="session")
def hub_like(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the bundled checkpoint lacks: width 256, a fourth level made by a convolution, images padded to a batch."""
    directory = tmp_path_factory.mktemp("hub-like")
    torch.manual_seed(0)
    config = GroundingDinoConfig(
        backbone_config=SwinConfig(
            image_size=224,
            embed_dim=12,
            depths=[1, 1, 2, 1],
            num_heads=[1, 2, 3, 3],
            window_size=7,
            out_indices=[2, 3, 4],
        ),
        text_config=BertConfig(
            vocab_size=1030, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
        ),
        num_queries=20,
        d_model=256,
        encoder_layers=1,
        decoder_layers=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        num_feature_levels=4,
        disable_custom_kernels=True,
    )
    model = GroundingDinoForObjectDetection(config)
    # Fresh weights say nothing: box heads are zero and logits saturate. Spread both, so that a wrong name would show.
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "bbox_embed" in name:
                parameter.normal_(std=0.05)
            elif name.endswith(("decoder.layer_norm.weight", "enc_output_norm.weight")):
                parameter.fill_(0.03)
            elif parameter.ndim == 1 and not name.endswith("norm.weight"):
                parameter.add_(0.02 * torch.randn_like(parameter))
    model.save_pretrained(directory)
    GroundingDinoImageProcessor(size={"shortest_edge": 96, "longest_edge": 160}).save_pretrained(directory)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(BUNDLED_DIRECTORY / "grounding_dino" / name, directory / name)
    return directory
