"""DINOv2 with random weights in a local directory: everything but what it has learned."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import Dinov2Config, Dinov2Model

from fiftyone_plugin.embedders.dinov2 import HUB, make, prepare_crop
from fiftyone_plugin.errors import BackendError, ModelUnavailableError
from fiftyone_plugin.types import Crop


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dinov2")
    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2, image_size=56)
    Dinov2Model(config).save_pretrained(path)
    return path


def test_prepare_crop_keeps_proportions_and_blanks_the_background() -> None:
    mask = np.zeros((10, 40), np.bool_)
    mask[:, :20] = True
    planes = prepare_crop(Crop(np.full((10, 40, 3), 255, np.uint8), mask), side_px=56)
    assert planes.shape == (4, 56, 56)
    shown = planes[3] > 0.5
    # 40 x 10 becomes 56 x 14, in the middle; the right half is background.
    assert shown.any(dim=1).nonzero().flatten().tolist() == list(range(21, 35))
    assert shown.any(dim=0).nonzero().flatten().tolist() == list(range(28))
    assert planes[:3, :, 32:].abs().max() < 1e-6


def test_embed_joins_class_token_and_masked_mean_in_equal_parts(directory: Path) -> None:
    embedder = make(str(directory), "cpu")
    rng = np.random.default_rng(0)
    crop = Crop(rng.integers(0, 256, (30, 20, 3), np.uint8), np.ones((30, 20), np.bool_))
    embedding = embedder.embed([crop])[0]
    assert embedder.dimension == 48
    np.testing.assert_allclose([np.linalg.norm(embedding[:24]), np.linalg.norm(embedding[24:])], 0.5**0.5, atol=1e-5)


def test_make_is_silent_and_touches_no_network(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr("socket.getaddrinfo", refuse)
    make(str(directory), "cpu")
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


@pytest.mark.parametrize("variant", list(HUB))
def test_make_without_network_says_in_one_line_what_to_do(
    variant: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network here")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    with pytest.raises(ModelUnavailableError, match=f"dinov2:{variant} needs facebook/dinov2-{variant}") as caught:
        make(variant, "cpu")
    assert "\n" not in str(caught.value)


def test_hub_models_are_pinned_to_a_full_commit() -> None:
    assert all(len(model.revision) == 40 and "model.safetensors" in model.files for model in HUB.values())


def test_make_refuses_a_directory_of_another_model(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((directory / "config.json").read_bytes())
    torch.manual_seed(0)
    save_file({"something": torch.zeros(1)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelUnavailableError, match="is not a model that it can read"):
        make(str(tmp_path), "cpu")


def test_make_with_an_unknown_variant_lists_what_there_is() -> None:
    with pytest.raises(BackendError, match="dinov2:huge: must be one of small, base, or a local directory"):
        make("huge", "cpu")
