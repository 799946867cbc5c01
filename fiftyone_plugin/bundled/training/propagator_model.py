"""The tiny SAM 2.1 as a module to be trained, built from the bundled configuration with the `sam2` package's classes.

Knows nothing of tracking; `propagators.sam2_model` builds the same modules for use.
"""

from __future__ import annotations

from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from fiftyone_plugin.weights import BUNDLED_DIRECTORY

__all__ = ["CONFIG_FILE", "build_propagator"]

CONFIG_FILE = BUNDLED_DIRECTORY / "sam2" / "config.yaml"

_FIRST_PRESENCE_LOGIT = 2.0


def build_propagator() -> Any:
    """A `sam2.modeling.sam2_base.SAM2Base` with random weights."""
    model = instantiate(OmegaConf.load(CONFIG_FILE).model)
    # "absent" blanks the mask, and a blank mask teaches nothing: begin with "present"
    with torch.no_grad():
        model.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(_FIRST_PRESENCE_LOGIT)
    return model
