"""SAM 2.1 models: which variants there are, where their weights lie, and how the `sam2` package's modules are built.

Knows nothing of videos, tracks or memory. A model is built from its plain config without hydra, whose state is global
and whose configs may name any importable callable; here only classes of the `sam2` package are made.
"""

from __future__ import annotations

import importlib
import importlib.resources
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import torch
import yaml
from safetensors.torch import load_file
from torch import nn

from fiftyone_plugin.errors import ModelUnavailableError
from fiftyone_plugin.weights import HubModel, locate

__all__ = [
    "BASE_CLASS",
    "HUB_MODELS",
    "PREDICTOR_CLASS",
    "VARIANTS",
    "best_dtype",
    "check_switches",
    "computing_in",
    "inference",
    "load_model",
    "random_model",
]

HUB_MODELS = {
    "tiny": HubModel(
        "facebook/sam2.1-hiera-tiny", "de431c4043854a71d8101e17995dfe596bf101a5", ("sam2.1_hiera_tiny.pt",)
    ),
    "small": HubModel(
        "facebook/sam2.1-hiera-small", "ee5bba1d82bb8749febdf90f45e84b687142ba03", ("sam2.1_hiera_small.pt",)
    ),
    "base-plus": HubModel(
        "facebook/sam2.1-hiera-base-plus", "b7320756a13354e7530a63935656d35b2f91a290", ("sam2.1_hiera_base_plus.pt",)
    ),
    "large": HubModel(
        "facebook/sam2.1-hiera-large", "665f8e2ad61cf5f53d65644ff27c8ee525124610", ("sam2.1_hiera_large.pt",)
    ),
}
_PACKAGED_CONFIGS = {
    "tiny": "sam2.1_hiera_t.yaml",
    "small": "sam2.1_hiera_s.yaml",
    "base-plus": "sam2.1_hiera_b+.yaml",
    "large": "sam2.1_hiera_l.yaml",
}
VARIANTS = ("bundled", *_PACKAGED_CONFIGS)

BASE_CLASS = "sam2.modeling.sam2_base.SAM2Base"
PREDICTOR_CLASS = "sam2.sam2_video_predictor.SAM2VideoPredictor"

_INFERENCE_SETTINGS = {"binarize_mask_from_pts_for_mem_enc": True}
"""What `sam2.build_sam.build_sam2_video_predictor` adds to every config (sam2 1.1.0, build_sam.py, lines 116-126),
without `fill_hole_area`: that needs the package's CUDA extension, and a 0 is what the package falls back to."""

_DECODER_SETTINGS = {
    "dynamic_multimask_via_stability": True,
    "dynamic_multimask_stability_delta": 0.05,
    "dynamic_multimask_stability_thresh": 0.98,
}

_SIDE_STEP_PX = 32
"""The trunk's tiled position codes cover 8 x 8 patches of 4 pixels."""

_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")


_ENGINE_SWITCHES = {
    "use_high_res_features_in_sam": True,
    "use_obj_ptrs_in_encoder": True,
    "add_tpos_enc_to_obj_ptrs": True,
    "proj_tpos_enc_in_obj_ptrs": True,
    "pred_obj_scores": True,
    "fixed_no_obj_ptr": True,
    "soft_no_obj_ptr": False,
    "use_multimask_token_for_obj_ptr": True,
    "multimask_output_in_sam": True,
    "multimask_output_for_tracking": True,
    "multimask_min_pt_num": 0,
    "use_mask_input_as_output_without_sam": True,
    "directly_add_no_mem_embed": True,
    "non_overlap_masks_for_mem_enc": False,
    "memory_temporal_stride_for_eval": 1,
}
"""How every SAM 2.1 config sets `SAM2Base`; the streaming engine is written for these values only."""


def check_switches(model: Any, *, used_by: str) -> None:
    """Make sure that the streaming engine computes what this model was trained for.

    Raises:
        ModelUnavailableError: A switch of its config is set unlike SAM 2.1.
    """
    for name, value in _ENGINE_SWITCHES.items():
        if getattr(model, name) != value:
            raise ModelUnavailableError(
                f"{used_by}: the config sets {name} = {getattr(model, name)}, SAM 2.1 has {value}: "
                "give a SAM 2.1 model, or use sam2-reference"
            )


def load_model(
    variant: str,
    *,
    device: str,
    used_by: str,
    model_class: str = BASE_CLASS,
    image_size: int | None = None,
    image_scale: float = 1.0,
) -> Any:
    """Build a SAM 2.1 model with its weights, ready for inference in float32.

    Args:
        variant: One of `VARIANTS`, or a local directory with one ``.yaml`` and one ``.safetensors`` or ``.pt`` file.
        device: A torch device.
        used_by: Backend name, for messages.
        model_class: `BASE_CLASS`, or a class of the `sam2` package derived from it.
        image_size: Side of the square image that the model sees, pixels, a multiple of 32; None is the size it was
            trained with. Smaller is faster and coarser.
        image_scale: The same, as a factor of the size it was trained with; rounded to a multiple of 32.

    Returns:
        The module, in evaluation mode and without gradients.

    Raises:
        BackendError: The variant is neither known nor a directory.
        ModelUnavailableError: The weights are not reachable, incomplete, or of another architecture.
    """
    directory = locate(variant, bundled="sam2", hub=HUB_MODELS, used_by=used_by)
    if variant in _PACKAGED_CONFIGS:
        config_text = _packaged_config(variant)
    else:
        config_text = _only_file(directory, (".yaml",), used_by).read_text(encoding="utf-8")
    model = _build(config_text, model_class, image_size, image_scale)
    _load_weights(model, _only_file(directory, (".safetensors", ".pt"), used_by), used_by)
    return model.to(device).eval().requires_grad_(False)


def random_model(
    variant: str, *, device: str, model_class: str = BASE_CLASS, image_scale: float = 1.0, seed: int = 0
) -> Any:
    """Build a published architecture with random weights: for speed and memory, where its weights are out of reach.

    Args:
        variant: ``tiny``, ``small``, ``base-plus`` or ``large``.
        device: A torch device.
        model_class: As for `load_model`.
        image_scale: As for `load_model`.
        seed: Of the weights; the same seed gives the same weights.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = _build(_packaged_config(variant), model_class, None, image_scale)
    return model.to(device).eval().requires_grad_(False)


def _packaged_config(variant: str) -> str:
    packaged = importlib.resources.files("sam2") / "configs" / "sam2.1" / _PACKAGED_CONFIGS[variant]
    return packaged.read_text(encoding="utf-8")


def _build(config_text: str, model_class: str, image_size: int | None, image_scale: float) -> nn.Module:
    config = dict(yaml.safe_load(config_text)["model"])
    config.update(_INFERENCE_SETTINGS, _target_=model_class)
    config["sam_mask_decoder_extra_args"] = {**config.get("sam_mask_decoder_extra_args", {}), **_DECODER_SETTINGS}
    if image_size is None and image_scale != 1:
        image_size = max(round(config["image_size"] * image_scale / _SIDE_STEP_PX), 2) * _SIDE_STEP_PX
    if image_size is not None:
        config["image_size"] = image_size
    return cast(nn.Module, _instantiate(config))


def best_dtype(device: str) -> torch.dtype:
    """What a model computes in there: bfloat16 on GPUs that have it, float16 on others, float32 elsewhere."""
    if torch.device(device).type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


@contextmanager
def inference(device: str, dtype: torch.dtype | None = None) -> Iterator[None]:
    """Without gradients, and where that is not float32, with autocast to `dtype`, by default `best_dtype`."""
    dtype = dtype or best_dtype(device)
    with torch.inference_mode(), torch.autocast(torch.device(device).type, dtype, enabled=dtype != torch.float32):
        yield


@contextmanager
def computing_in(device: str, dtype: torch.dtype) -> Iterator[None]:
    """Without gradients, for modules that were turned into bfloat16 themselves: autocast stays off but for float16.

    Autocast would turn the results of every normalisation into float32 and back. On ``cuda:1`` and others, streams,
    events and Triton belong to this GPU meanwhile, and not to the first.
    """
    # Without the cache of converted weights: a CUDA graph must not read what is freed when the context ends.
    autocast = torch.autocast(torch.device(device).type, dtype, enabled=dtype == torch.float16, cache_enabled=False)
    is_cuda = torch.device(device).type == "cuda"
    with torch.inference_mode(), autocast, torch.cuda.device(device) if is_cuda else nullcontext():
        yield


def _only_file(directory: Path, suffixes: tuple[str, ...], used_by: str) -> Path:
    found = sorted(p for p in directory.iterdir() if p.suffix in suffixes)
    if len(found) != 1:
        raise ModelUnavailableError(
            f"{used_by}: {directory} holds {len(found)} files of type {' or '.join(suffixes)}: must hold exactly one"
        )
    return found[0]


def _instantiate(node: Any) -> Any:
    """Build what a config describes, innermost first: a mapping with ``_target_`` becomes an object of that class."""
    if isinstance(node, list):
        return [_instantiate(item) for item in node]
    if isinstance(node, str) and _NUMBER.fullmatch(node):
        return float(node)  # YAML 1.1 reads 1e-6, without a point, as text
    if not isinstance(node, dict):
        return node
    arguments = {key: _instantiate(value) for key, value in node.items() if key != "_target_"}
    target = node.get("_target_")
    if target is None:
        return arguments
    module_name, _, class_name = str(target).rpartition(".")
    made = getattr(importlib.import_module(module_name), class_name, None) if module_name.startswith("sam2.") else None
    if not (isinstance(made, type) and issubclass(made, nn.Module)):
        raise ModelUnavailableError(f"config names {target!r}: only modules of the package sam2 are built")
    return made(**arguments)


def _load_weights(model: nn.Module, path: Path, used_by: str) -> None:
    if path.suffix == ".safetensors":
        state = load_file(path)
    else:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        state = loaded.get("model", loaded)
    state = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ModelUnavailableError(f"{used_by}: {path} does not fit its config: {reason}") from None
