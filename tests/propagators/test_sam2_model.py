from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from fiftyone_plugin.errors import BackendError, ModelUnavailableError
from fiftyone_plugin.propagators.sam2 import Sam2Propagator
from fiftyone_plugin.propagators.sam2_model import HUB_MODELS, PREDICTOR_CLASS, VARIANTS, load_model
from fiftyone_plugin.propagators.sam2_reference import Sam2Reference
from fiftyone_plugin.registry import BUILT_IN
from fiftyone_plugin.types import Frame, Seed
from fiftyone_plugin.weights import BUNDLED_DIRECTORY

BUNDLED = BUNDLED_DIRECTORY / "sam2"


def load(variant: str, **settings: Any) -> Any:
    return load_model(variant, device="cpu", used_by="sam2", **settings)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    shutil.copytree(BUNDLED, tmp_path / "model")
    return tmp_path / "model"


def edit_config(directory: Path, **changes: Any) -> None:
    path = directory / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["model"].update(changes)
    path.write_text(yaml.safe_dump(config))


def test_model_equals_the_one_the_package_builds(directory: Path) -> None:
    """The oracle is the package's own builder, with hydra and its post-processing settings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # hydra and what it imports
        from sam2.build_sam import build_sam2_video_predictor
    checkpoint = directory / "model.pt"
    state = {k: v.float() if v.is_floating_point() else v for k, v in load_file(BUNDLED / "model.safetensors").items()}
    torch.save({"model": state}, checkpoint)
    official = build_sam2_video_predictor(f"//{directory / 'config.yaml'}", str(checkpoint), device="cpu")
    ours = load("bundled", model_class=PREDICTOR_CLASS)
    plain = (bool, int, float, str, type(None))
    for (name, theirs), (other, module) in zip(official.named_modules(), ours.named_modules(), strict=True):
        assert (name, type(theirs)) == (other, type(module))
        settings = {k: v for k, v in vars(theirs).items() if isinstance(v, plain) and k != "fill_hole_area"}
        assert {k: vars(module)[k] for k in settings} == settings
    for name, value in official.state_dict().items():
        assert torch.equal(value, ours.state_dict()[name]), name
    assert ours.fill_hole_area == 0


def test_model_is_ready_for_inference() -> None:
    model = load("bundled")
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_local_directory_is_a_variant(directory: Path) -> None:
    model = load(str(directory))
    assert torch.equal(model.maskmem_tpos_enc, load("bundled").maskmem_tpos_enc)


def test_every_registered_variant_is_known() -> None:
    for name in ("sam2", "sam2-reference"):
        assert BUILT_IN["propagators"][name].variants == VARIANTS
    assert set(VARIANTS) == {"bundled", *HUB_MODELS}
    for hub_model in HUB_MODELS.values():
        # A branch name would let results change under the user.
        assert len(hub_model.revision) == 40
        assert int(hub_model.revision, 16) > 0


def test_engine_runs_the_published_architecture(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SAM 2.1 tiny with random weights at 128 pixels: four layers, four tokens a pointer, unlike the bundled model.

    The official predictor, around the very same weights, is the oracle; masks of random weights mean nothing, but the
    scores of the third frame depend on everything before.
    """
    monkeypatch.setattr("fiftyone_plugin.propagators.sam2_model.locate", lambda *_args, **_kwargs: directory)
    monkeypatch.setattr("fiftyone_plugin.propagators.sam2_model._load_weights", lambda *_args: None)
    torch.manual_seed(0)
    model = load_model("tiny", device="cpu", used_by="sam2", model_class=PREDICTOR_CLASS, image_size=128)
    assert (model.hidden_dim, len(model.memory_attention.layers)) == (256, 4)
    engine = Sam2Propagator(model, name="sam2:tiny", device="cpu")
    sessions = [p.open(height_px=96, width_px=128) for p in (engine, Sam2Reference(model, name="x", device="cpu"))]
    rng = np.random.default_rng(0)
    for index in range(4):
        frame = Frame(index, 0.0, rng.integers(0, 255, (96, 128, 3), np.uint8))
        ours, theirs = (session.advance(frame) for session in sessions)
        np.testing.assert_allclose(ours.object_scores, theirs.object_scores, atol=1e-4)
        np.testing.assert_allclose(ours.mask_scores, theirs.mask_scores, atol=1e-4)
        for session in sessions:
            session.seed([Seed(index + 1, box_xyxy=np.array([10, 10, 60, 50], np.float32))])
    assert len(ours) == 3


def test_unknown_variant_is_refused() -> None:
    with pytest.raises(BackendError, match="bundled, tiny, small, base-plus, large"):
        load("huge")


def test_directory_without_weights_is_refused(directory: Path) -> None:
    (directory / "model.safetensors").unlink()
    with pytest.raises(ModelUnavailableError, match="exactly one"):
        load(str(directory))


def test_config_that_names_other_code_is_refused(directory: Path) -> None:
    edit_config(directory, memory_encoder={"_target_": "os.system", "command": "true"})
    with pytest.raises(ModelUnavailableError, match="only modules of the package sam2"):
        load(str(directory))


def test_config_that_names_no_module_of_sam2_is_refused(directory: Path) -> None:
    edit_config(directory, memory_encoder={"_target_": "sam2.build_sam.build_sam2", "config_file": "x"})
    with pytest.raises(ModelUnavailableError, match="only modules of the package sam2"):
        load(str(directory))


def test_weights_of_another_architecture_are_refused(directory: Path) -> None:
    edit_config(directory, num_maskmem=5)
    with pytest.raises(ModelUnavailableError, match="does not fit"):
        load(str(directory))


def test_model_unlike_sam_2_1_is_refused_by_the_engine(directory: Path) -> None:
    edit_config(directory, use_mask_input_as_output_without_sam=False)
    model = load(str(directory))
    with pytest.raises(ModelUnavailableError, match="use_mask_input_as_output_without_sam = False"):
        Sam2Propagator(model, name="sam2:test", device="cpu")
