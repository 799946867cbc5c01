"""The pictures of the synthetic world, as one array.

The atlas is made by `bundled/training/make_atlas.py` from Noto's emoji (see NOTICE). Knows nothing of scenes.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from fiftyone_plugin.synthetic.vocabulary import sprite_classes
from fiftyone_plugin.types import FloatArray
from fiftyone_plugin.weights import BUNDLED_DIRECTORY

__all__ = ["ATLAS_FILE", "SPRITE_SIDE_PX", "load_sprites", "opaque_fractions"]

ATLAS_FILE = BUNDLED_DIRECTORY / "sprites" / "atlas.npz"
SPRITE_SIDE_PX = 48
"""Side of a sprite in the atlas."""


@cache
def load_sprites() -> NDArray[np.uint8]:
    """All sprites: uint8 (S, 4, 48, 48), RGB and straight alpha, in the order of the vocabulary; read-only."""
    with np.load(ATLAS_FILE, allow_pickle=False) as atlas:
        rgba = np.asarray(atlas["rgba"])
    expected = (sprite_classes()[-1].sprite_indices[-1] + 1, 4, SPRITE_SIDE_PX, SPRITE_SIDE_PX)
    if rgba.shape != expected or rgba.dtype != np.uint8:
        raise ValueError(f"{ATLAS_FILE} holds {rgba.dtype} {rgba.shape}: the vocabulary needs uint8 {expected}")
    rgba.flags.writeable = False
    return rgba


@cache
def opaque_fractions() -> FloatArray:
    """The part of each sprite's square that is opaque: float32 (S,) in [0, 1]; read-only."""
    fractions = np.asarray((load_sprites()[:, 3] > 127).mean(axis=(1, 2)), np.float32)
    fractions.flags.writeable = False
    return fractions
