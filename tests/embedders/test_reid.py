"""The bundled re-identification network as an embedder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from fiftyone_plugin.embedders.reid import make, prepare_crop
from fiftyone_plugin.embedders.reid_network import MEAN_RGB, SIDE_PX, STD_RGB, WINDOW_SCALE
from fiftyone_plugin.errors import ModelUnavailableError
from fiftyone_plugin.types import Crop


@pytest.fixture
def picture() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (90, 120, 3), np.uint8)
    y, x = np.mgrid[:90, :120]
    return image, ((x - 70) / 25) ** 2 + ((y - 40) / 15) ** 2 < 1


def test_prepare_crop_equals_sampling_the_whole_frame(picture: tuple[np.ndarray, np.ndarray]) -> None:
    """An independent oracle: the window laid over the frame itself, as in training; tolerance 1e-4."""
    image, mask = picture
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    y0, y1, x0, x1 = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    normalised = (
        torch.from_numpy(image).permute(2, 0, 1) / 255 - torch.tensor(MEAN_RGB)[:, None, None]
    ) / torch.tensor(STD_RGB)[:, None, None]
    planes = torch.cat([normalised * torch.from_numpy(mask), torch.from_numpy(mask)[None].float()])
    half = WINDOW_SCALE * max(y1 - y0, x1 - x0) / 2
    g = torch.linspace(-1, 1, SIDE_PX) * half
    gx, gy = ((x0 + x1) / 2 + g) / 120 * 2 - 1, ((y0 + y1) / 2 + g) / 90 * 2 - 1
    grid = torch.stack(torch.meshgrid(gx, gy, indexing="xy"), -1)[None]
    expected = F.grid_sample(planes[None], grid, align_corners=False)[0]
    got = prepare_crop(Crop(image[y0:y1, x0:x1], mask[y0:y1, x0:x1]))
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)


def test_prepare_crop_does_not_depend_on_how_generously_it_was_cut(picture: tuple[np.ndarray, np.ndarray]) -> None:
    image, mask = picture
    tight, generous = Crop(image[25:56, 44:97], mask[25:56, 44:97]), Crop(image, mask)
    torch.testing.assert_close(prepare_crop(generous), prepare_crop(tight), atol=1e-4, rtol=0)


def test_make_with_other_weights_in_the_directory_refuses(tmp_path: Path) -> None:
    save_file({"something": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelUnavailableError, match=f"reid: {tmp_path} is not a model that it can read"):
        make(str(tmp_path), "cpu")


def test_make_with_an_empty_directory_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError, match=r"holds none of model\.safetensors"):
        make(str(tmp_path), "cpu")


def test_mirrored_crop_has_the_same_embedding(picture: tuple[np.ndarray, np.ndarray]) -> None:
    image, mask = picture
    mirrored = Crop(np.ascontiguousarray(image[:, ::-1]), np.ascontiguousarray(mask[:, ::-1]))
    one, other = make(None, "cpu").embed([Crop(image, mask), mirrored])
    np.testing.assert_allclose(one, other, atol=1e-5)
    assert np.linalg.norm(one) == pytest.approx(1, abs=1e-5)
