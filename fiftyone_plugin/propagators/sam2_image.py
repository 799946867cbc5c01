"""The image side of SAM 2: frames in, features out, once per frame whatever the number of objects.

Knows nothing of objects, prompts or memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fiftyone_plugin.propagators.cuda_graphs import GraphCache
from fiftyone_plugin.propagators.sam2_model import computing_in

__all__ = ["FrameFeatures", "ImageEncoder", "PixelScaler", "stage"]

_MEAN_RGB = (0.485, 0.456, 0.406)
_DEVIATION_RGB = (0.229, 0.224, 0.225)
"""ImageNet's, as in `sam2.utils.misc.load_video_frames`."""


@dataclass(frozen=True, slots=True)
class FrameFeatures:
    """Features of one frame, shared by all objects. h, w: the image size divided by 16; D: channels of the model."""

    embedding: Tensor
    """(1, D, h, w)."""
    stride_8: Tensor
    """(1, D / 4, 2h, 2w), projected for the mask decoder."""
    stride_4: Tensor
    """(1, D / 8, 4h, 4w), projected for the mask decoder."""


class PixelScaler:
    """Brings frames into the form the model was trained with: squares, resized bicubic with antialiasing, normalised.

    On a CPU Pillow resizes, as the `sam2` package does with folders of frames. On a GPU torch does the same, which
    takes the resizing off the CPU; levels then differ by 1 of 255, and by more only where bicubic overshoots black or
    white (`tests/propagators/test_sam2_image.py`).

    Args:
        side_px: Side S of the square image that the model sees.
        device: Where the result shall lie.
    """

    def __init__(self, side_px: int, *, device: str) -> None:
        self._side_px = side_px
        self._device = device
        deviation = torch.tensor(_DEVIATION_RGB).view(3, 1, 1)
        self._factor = (1 / (255 * deviation)).to(device)
        self._shift = (torch.tensor(_MEAN_RGB).view(3, 1, 1) / deviation).to(device)

    def scale(self, images_rgb: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Resize and normalise: uint8 (H, W, 3) each, of one size, to float32 (B, 3, S, S)."""
        if torch.device(self._device).type == "cuda":
            return self.scale_on_device(stage(images_rgb).to(self._device, non_blocking=True))
        squares = torch.stack([self._resize(image) for image in images_rgb]).to(self._device)
        return squares.permute(0, 3, 1, 2) * self._factor - self._shift

    def scale_on_device(self, frames: Tensor) -> Tensor:
        """Resize and normalise where the frames lie: uint8 (B, H, W, 3) to float32 (B, 3, S, S)."""
        x = frames.permute(0, 3, 1, 2).float()
        side = self._side_px
        if x.shape[2:] != (side, side):
            x = F.interpolate(x, size=(side, side), mode="bicubic", antialias=True, align_corners=False)
            x = x.round().clamp(0, 255)
        return x * self._factor - self._shift

    def _resize(self, image_rgb: NDArray[np.uint8]) -> Tensor:
        side = self._side_px
        if image_rgb.shape[:2] != (side, side):
            image_rgb = np.array(Image.fromarray(image_rgb).resize((side, side)))
        return torch.from_numpy(np.ascontiguousarray(image_rgb))


def stage(images_rgb: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Frames of one size, uint8 (H, W, 3) each, to uint8 (B, H, W, 3) in memory that a GPU reads without waiting."""
    is_pinned = torch.cuda.is_available()
    staged = torch.empty((len(images_rgb), *images_rgb[0].shape), dtype=torch.uint8, pin_memory=is_pinned)
    for place, image in zip(staged.numpy(), images_rgb, strict=True):
        place[:] = image
    return staged


class ImageEncoder:
    """Encodes frames, in batches of any size.

    Args:
        model: A `SAM2Base`.
        device: Where it lies.
        dtype: In which this computes: the encoder of the model is turned into it. In float16 the weights stay in
            float32 and autocast chooses, since nobody has tried the trunk's sums in float16.
        graphs: Record the work as CUDA graphs.
    """

    def __init__(
        self, model: Any, *, device: str, dtype: torch.dtype = torch.float32, graphs: GraphCache | None = None
    ) -> None:
        self._model = model
        self._device = device
        self._is_cuda = torch.device(device).type == "cuda"
        self._dtype = dtype
        self.pixels = PixelScaler(model.image_size, device=device)
        if dtype == torch.bfloat16:
            model.image_encoder.to(dtype)
            model.sam_mask_decoder.to(dtype)
        trunk = model.image_encoder.trunk
        cells = model.image_size // 4
        position = trunk._get_pos_embed((cells, cells))
        # The package interpolates this code anew for every frame, though it depends on the weights alone.
        trunk._get_pos_embed = lambda _size: position
        self._stream: torch.cuda.Stream | None = None
        self._forward = graphs.wrap("image encoder", self._features) if graphs is not None else self._features

    def encode(self, images_rgb: Sequence[NDArray[np.uint8]]) -> list[FrameFeatures]:
        """Encode frames in one batch: uint8 (H, W, 3) each, of one size."""
        if not self._is_cuda:
            return _by_frame(self._features(self.pixels.scale(images_rgb)))
        # Recordings share their working memory, so all encoding takes turns on one stream.
        features, is_ready = self.encode_aside(stage(images_rgb))
        self.wait(is_ready)
        return features

    def encode_aside(self, frames: Tensor) -> tuple[list[FrameFeatures], torch.cuda.Event | None]:
        """Upload and encode frames that `stage` prepared, uint8 (B, H, W, 3), beside what the GPU is doing.

        Returns:
            Features, and what to `wait` for before they are used.
        """
        if not self._is_cuda:
            return self.encode(list(frames.numpy())), None
        user = torch.cuda.current_stream(self._device)
        stream = self._stream_of_its_own(user)
        with computing_in(self._device, self._dtype), torch.cuda.stream(stream):
            levels = self._encoded(self.pixels.scale_on_device(frames.to(self._device, non_blocking=True)))
            is_ready = stream.record_event()
        for level in levels:
            level.record_stream(user)
        return _by_frame(levels), is_ready

    def wait(self, is_ready: torch.cuda.Event | None) -> None:
        """Let what the GPU is going to do wait for features; the CPU does not."""
        if is_ready is not None:
            torch.cuda.current_stream(self._device).wait_event(is_ready)

    def _encoded(self, pixels: Tensor) -> tuple[Tensor, ...]:
        # What a recording gives is overwritten by the next one.
        return tuple(level.clone() for level in self._forward(pixels))

    def _stream_of_its_own(self, user: torch.cuda.Stream) -> torch.cuda.Stream:
        if self._stream is None:
            self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
            # The weights may still be on their way to the GPU, or into their type.
            self._stream.wait_stream(user)
        return self._stream

    def _features(self, pixels: Tensor) -> tuple[Tensor, ...]:
        with computing_in(self._device, self._dtype):
            pyramid = self._model.forward_image(pixels.to(self._weights_dtype))["backbone_fpn"]
        return tuple(level.to(self._dtype) for level in pyramid)

    @property
    def _weights_dtype(self) -> torch.dtype:
        return torch.float32 if self._dtype == torch.float16 else self._dtype


def _by_frame(levels: tuple[Tensor, ...]) -> list[FrameFeatures]:
    stride_4, stride_8, embedding = levels
    return [
        FrameFeatures(embedding[i : i + 1], stride_8[i : i + 1], stride_4[i : i + 1]) for i in range(len(embedding))
    ]
