"""The image side: one way of resizing on the CPU, another on a GPU, and frames that are encoded ahead."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from fiftyone_plugin.propagators.sam2_ahead import FramesAhead
from fiftyone_plugin.propagators.sam2_image import FrameFeatures, ImageEncoder, PixelScaler, stage
from fiftyone_plugin.propagators.sam2_model import load_model
from fiftyone_plugin.types import Frame


@pytest.mark.parametrize(("height", "width"), [(64, 64), (90, 160), (40, 30)], ids=["as is", "smaller", "larger"])
def test_torch_resizes_as_pillow_does(height: int, width: int) -> None:
    """What a GPU would do, run on the CPU: levels differ by 1 of 255 at most."""
    # Away from black and white: where bicubic overshoots them Pillow cuts off twice, torch once.
    image = np.random.default_rng(0).integers(80, 176, (height, width, 3), np.uint8)
    scaler = PixelScaler(64, device="cpu")
    by_pillow, by_torch = scaler.scale([image]), scaler.scale_on_device(stage([image]))
    levels = (by_pillow - by_torch).abs() * 255 * torch.tensor((0.229, 0.224, 0.225)).view(3, 1, 1)
    assert by_pillow.shape == by_torch.shape == (1, 3, 64, 64)
    assert float(levels.max()) < 1.01


class Source:
    """Frames that say how many were taken, and whether they were closed."""

    def __init__(self, count: int) -> None:
        self.taken = 0
        self.is_closed = False
        self._count = count

    def frames(self) -> Iterator[Frame]:
        try:
            for index in range(self._count):
                self.taken += 1
                yield Frame(index, index / 25, np.full((20, 20, 3), 5 * index, np.uint8))
        finally:
            self.is_closed = True


@pytest.fixture(scope="module")
def encoder() -> ImageEncoder:
    return ImageEncoder(load_model("bundled", device="cpu", used_by="test", image_size=64), device="cpu")


def same(a: FrameFeatures, b: FrameFeatures) -> bool:
    return all(torch.allclose(getattr(a, n), getattr(b, n), atol=1e-3) for n in ("embedding", "stride_8", "stride_4"))


@pytest.mark.parametrize("count", [0, 1, 4, 7])
def test_frames_ahead_come_in_order_each_with_its_own_features(encoder: ImageEncoder, count: int) -> None:
    source = Source(count)
    ahead = FramesAhead(source.frames(), encoder, batch_frames=4)
    seen = []
    for frame in ahead:
        features = ahead.features(frame)
        assert features is not None
        with torch.inference_mode():
            assert same(features, encoder.encode([frame.image_rgb])[0])
        following = ahead.after(frame)
        assert following is None or following.index == frame.index + 1
        seen.append(frame.index)
    assert seen == list(range(count))
    assert source.is_closed


def test_frames_ahead_are_few_whatever_the_length(encoder: ImageEncoder) -> None:
    source = Source(1000)
    walk = iter(FramesAhead(source.frames(), encoder, batch_frames=4))
    for _ in range(9):
        next(walk)
    assert source.taken <= 9 + 3 * 4
    walk.close()  # type: ignore[attr-defined]
    assert source.is_closed


def test_frame_of_the_same_number_but_other_pixels_has_no_features(encoder: ImageEncoder) -> None:
    ahead = FramesAhead(Source(2).frames(), encoder, batch_frames=2)
    frame = next(iter(ahead))
    assert ahead.features(Frame(frame.index, frame.pts_seconds, frame.image_rgb.copy())) is None


def test_source_that_fails_is_not_kept_silent(encoder: ImageEncoder) -> None:
    def broken() -> Iterator[Frame]:
        yield from Source(3).frames()
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(FramesAhead(broken(), encoder, batch_frames=2))
