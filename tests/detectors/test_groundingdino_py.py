"""The package groundingdino-py against transformers: same weights, same answers."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fiftyone_plugin.detectors import grounding_dino
from fiftyone_plugin.errors import BackendError, ModelUnavailableError
from fiftyone_plugin.types import Frame
from fiftyone_plugin.weights import BUNDLED_DIRECTORY

pytest.importorskip("groundingdino", reason="the package groundingdino-py is optional")

from fiftyone_plugin.detectors import groundingdino_py
from fiftyone_plugin.detectors.groundingdino_names import translate_state_dict

BUNDLED = BUNDLED_DIRECTORY / "grounding_dino"
SCORE_TOLERANCE = 1e-4
BOX_TOLERANCE = 1e-4
"""Relative to the longer side of the image."""

PROMPTS = {
    "two-classes": ("sheep", "dog"),
    "shared-token": ("red car", "blue car", "a sheep"),
    "hypernym": ("animal",),
}


@pytest.fixture(scope="module")
def bundled() -> tuple[grounding_dino.GroundingDino, groundingdino_py.GroundingDinoPackage]:
    return grounding_dino.make("bundled", "cpu"), groundingdino_py.make("bundled", "cpu")


@pytest.mark.parametrize("phrases", PROMPTS.values(), ids=PROMPTS.keys())
@pytest.mark.parametrize("cut", ["whole", "detail"])
def test_bundled_answers_equal_those_of_transformers(
    bundled: tuple[grounding_dino.GroundingDino, groundingdino_py.GroundingDinoPackage],
    flock: list[Frame],
    cut: str,
    phrases: tuple[str, ...],
) -> None:
    image = flock[0].image_rgb if cut == "whole" else flock[1].image_rgb[60:, :190]
    (expected,), (got,) = (detector.detect([image], phrases) for detector in bundled)
    # Every query is compared, not only those that find something.
    np.testing.assert_allclose(got.phrase_scores, expected.phrase_scores, atol=SCORE_TOLERANCE)
    np.testing.assert_allclose(got.boxes_xyxy, expected.boxes_xyxy, atol=BOX_TOLERANCE * max(image.shape))


def test_hub_like_answers_equal_those_of_transformers_for_a_padded_batch(hub_like: Path, flock: list[Frame]) -> None:
    """Width 256 takes the package's own position encodings, and padding its masks."""
    images = [flock[0].image_rgb[:, :150], flock[1].image_rgb[:120]]
    phrases = ("a sheep", "sheep", "small white dog")
    expected = grounding_dino.make(str(hub_like), "cpu").detect(images, phrases)
    got = groundingdino_py.make(str(hub_like), "cpu").detect(images, phrases)
    assert all(answer.phrase_scores.std() > 1e-3 for answer in expected), (
        "scores that are all alike would prove nothing"
    )
    for one, other in zip(expected, got, strict=True):
        np.testing.assert_allclose(other.phrase_scores, one.phrase_scores, atol=SCORE_TOLERANCE)
        np.testing.assert_allclose(other.boxes_xyxy, one.boxes_xyxy, atol=BOX_TOLERANCE * 320)


@pytest.mark.parametrize(
    ("name", "translated"),
    [
        (
            "model.backbone.conv_encoder.model.hidden_states_norms.stage2.bias",
            ["backbone.0.norm1.bias"],
        ),
        (
            "model.encoder.layers.3.fusion_layer.attn.values_text_proj.bias",
            ["transformer.encoder.fusion_layers.3.attn.values_l_proj.bias"],
        ),
        ("model.encoder.layers.0.text_enhancer_layer.fc2.weight", ["transformer.encoder.text_layers.0.linear2.weight"]),
        ("model.decoder.layers.1.encoder_attn_layer_norm.weight", ["transformer.decoder.layers.1.norm1.weight"]),
        ("model.text_backbone.embeddings.word_embeddings.weight", ["bert.embeddings.word_embeddings.weight"]),
        ("model.text_backbone.pooler.dense.weight", []),
    ],
)
def test_translate_state_dict_renames(name: str, translated: list[str]) -> None:
    assert list(translate_state_dict({name: torch.zeros(1)}, decoder_layers=0)) == translated


def test_translate_state_dict_gives_a_shared_box_head_to_every_layer() -> None:
    head = torch.zeros(1)
    names = translate_state_dict({"bbox_embed.0.layers.2.bias": head}, decoder_layers=2)
    assert sorted(names) == [
        "bbox_embed.0.layers.2.bias",
        "bbox_embed.1.layers.2.bias",
        "transformer.decoder.bbox_embed.0.layers.2.bias",
        "transformer.decoder.bbox_embed.1.layers.2.bias",
    ]


def test_translate_state_dict_joins_query_key_and_value_in_this_order() -> None:
    module = "model.decoder.layers.0.self_attn"
    parts = {f"{module}.{part}.bias": torch.full((2,), i) for i, part in enumerate(("query", "key", "value"))}
    joined = translate_state_dict(parts, decoder_layers=0)
    assert joined["transformer.decoder.layers.0.self_attn.in_proj_bias"].tolist() == [0, 0, 1, 1, 2, 2]


def test_translate_state_dict_covers_the_bundled_model_exactly() -> None:
    """Strict: nothing left over, nothing missing but the buffers that the package computes."""
    checkpoint = grounding_dino.open_checkpoint("bundled", used_by="test")
    model = groundingdino_py.build_model(checkpoint.config, checkpoint.processor.tokenizer)
    weights = translate_state_dict(load_file(checkpoint.weights_file), decoder_layers=checkpoint.config.decoder_layers)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert unexpected == []
    assert {name.rpartition(".")[2] for name in missing} == {"relative_position_index"}


@pytest.mark.parametrize(
    "name",
    ["model.something_new.weight", "model.decoder.layers.0.self_attn.query.bias"],
    ids=["unknown", "key-and-value-missing"],
)
def test_translate_state_dict_refuses_what_it_does_not_understand(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        translate_state_dict({name: torch.zeros(1)}, decoder_layers=0)


def test_build_model_refuses_what_the_package_cannot_express() -> None:
    checkpoint = grounding_dino.open_checkpoint("bundled", used_by="test")
    checkpoint.config.decoder_attention_heads = 2
    with pytest.raises(BackendError, match=r"differ in their heads.*use grounding-dino instead"):
        groundingdino_py.build_model(checkpoint.config, checkpoint.processor.tokenizer)


def test_make_refuses_weights_with_gaps(tmp_path: Path) -> None:
    directory = tmp_path / "gaps"
    shutil.copytree(BUNDLED, directory)
    weights = load_file(directory / "model.safetensors")
    del weights["model.text_projection.weight"]
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelUnavailableError, match="is not a model that it can read"):
        groundingdino_py.make(str(directory), "cpu")


def test_make_and_detect_are_silent_and_leave_the_package_as_it_was(
    flock: list[Frame], capfd: pytest.CaptureFixture[str]
) -> None:
    before = (groundingdino_py.package.BertModelWarper, groundingdino_py.package.inverse_sigmoid)
    groundingdino_py.make("bundled", "cpu").detect([flock[0].image_rgb], ["sheep"])
    assert (groundingdino_py.package.BertModelWarper, groundingdino_py.package.inverse_sigmoid) == before
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
