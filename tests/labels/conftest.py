"""Datasets for the tests of labels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest


@pytest.fixture
def sequences(fo: ModuleType, tmp_path: Path) -> Iterator[Any]:
    """An image dataset with two scenes of 12 images each, added in shuffled order."""
    made = fo.Dataset()
    order = np.random.default_rng(0).permutation(24).tolist()
    samples = []
    for number in order:
        scene, index = "ab"[number // 12], number % 12
        path = tmp_path / scene / f"{index:03}.png"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), np.full((48, 64, 3), 10 * index, np.uint8))
        samples.append(fo.Sample(filepath=str(path), scene=scene, frame_number=index + 1))
    made.add_samples(samples)
    yield made
    made.delete()
