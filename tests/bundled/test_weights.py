from __future__ import annotations

import json
import tomllib
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from fiftyone_plugin.embedders.reid_network import SIDE_PX, ReidNetwork
from fiftyone_plugin.weights import BUNDLED_DIRECTORY

PICKLES = {".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".npy"}


def files() -> list[Path]:
    return [path for path in BUNDLED_DIRECTORY.rglob("*") if path.is_file() and "__pycache__" not in path.parts]


def test_nothing_that_runs_code_when_loaded_is_bundled() -> None:
    assert [path.name for path in files() if path.suffix in PICKLES] == []
    for path in files():
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                assert all(arrays[name].dtype != object for name in arrays)


def test_bundle_stays_small() -> None:
    shipped = [path for path in files() if path.relative_to(BUNDLED_DIRECTORY).parts[0] != "next"]
    assert sum(path.stat().st_size for path in shipped) < 30_000_000


def test_candidate_weights_are_kept_out_of_the_wheel() -> None:
    settings = tomllib.loads((BUNDLED_DIRECTORY.parents[1] / "pyproject.toml").read_text())
    assert "bundled/next/**/*" in settings["tool"]["setuptools"]["exclude-package-data"]["fiftyone_plugin"]


def test_reid_weights_fit_the_network_exactly() -> None:
    network = ReidNetwork()
    network.load_state_dict(load_file(BUNDLED_DIRECTORY / "reid" / "model.safetensors"), strict=True)
    embeddings = network.eval()(torch.rand(2, 4, SIDE_PX, SIDE_PX))
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(2))


def test_detector_weights_fit_the_real_class_exactly() -> None:
    from transformers import GroundingDinoForObjectDetection

    directory = BUNDLED_DIRECTORY / "grounding_dino"
    model, report = GroundingDinoForObjectDetection.from_pretrained(
        directory, output_loading_info=True, dtype=torch.float32, local_files_only=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    assert model.config.num_queries == json.loads((directory / "config.json").read_text())["num_queries"]


def test_propagator_weights_fit_the_real_modules_exactly() -> None:
    from fiftyone_plugin.bundled.training.propagator_model import build_propagator

    text = (BUNDLED_DIRECTORY / "sam2" / "config.yaml").read_text()
    assert text.startswith("# @package _global_\n")
    model = build_propagator()
    weights = load_file(BUNDLED_DIRECTORY / "sam2" / "model.safetensors")
    model.load_state_dict({name: value.float() for name, value in weights.items()}, strict=True)
