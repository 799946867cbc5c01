"""Several embedders as one: their vectors side by side.

Nothing is weighted here. The identity layer learns from each video, for each part, in which directions individuals
differ (`identity.appearance`), and so how much it is worth there: colour under steady light, a network where light
changes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fiftyone_plugin.interfaces import Embedder
from fiftyone_plugin.types import Crop, FloatArray

__all__ = ["CombinedEmbedder", "part_sizes"]


def part_sizes(embedder: Embedder) -> tuple[int, ...]:
    """Sizes of the vectors that stand side by side in what an embedder gives."""
    return embedder.part_sizes if isinstance(embedder, CombinedEmbedder) else (embedder.dimension,)


class CombinedEmbedder:
    """Concatenates the unit vectors of its parts, scaled to unit length again."""

    def __init__(self, parts: Sequence[Embedder]) -> None:
        self._parts = tuple(parts)

    @property
    def name(self) -> str:
        """The parts' names, joined by ``+``."""
        return "+".join(part.name for part in self._parts)

    @property
    def dimension(self) -> int:
        """Sum of the parts' dimensions."""
        return sum(self.part_sizes)

    @property
    def part_sizes(self) -> tuple[int, ...]:
        """The parts' dimensions, in order."""
        return tuple(part.dimension for part in self._parts)

    def embed(self, crops: Sequence[Crop]) -> FloatArray:
        """Embed with every part: float32 (M, D), unit length."""
        stacked = np.concatenate([part.embed(crops) for part in self._parts], axis=1)
        return np.asarray(stacked / np.sqrt(len(self._parts)), np.float32)
