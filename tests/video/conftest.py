"""Clips that are made on the spot, small and with content that differs in every frame."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

MakeClip = Callable[..., Path]


def picture(number: int, *, width: int = 96, height: int = 64) -> np.ndarray:
    """A moving texture with a block that says which frame it is."""
    rng = np.random.default_rng(7)
    tiles = rng.integers(0, 255, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
    image = np.roll(tiles.repeat(4, 0).repeat(4, 1)[:height, :width], number * 3, axis=1)
    image[8:24, 8:40] = [(number * 37) % 256, (number * 91) % 256, 255 - number % 256]
    return image


@pytest.fixture
def make_clip(tmp_path: Path) -> MakeClip:
    def make(
        name: str = "clip.mp4",
        *,
        frames: int = 60,
        codec: str = "libx264",
        rate: int = 15,
        ticks: list[int] | None = None,
        width: int = 96,
        height: int = 64,
        pixel_format: str = "yuv420p",
        encoder: dict[str, str] | None = None,
        container: dict[str, str] | None = None,
    ) -> Path:
        """`ticks` are presentation times in milliseconds, for a variable frame rate."""
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        default = {"g": "10", "bf": "3"} if codec == "libx264" else {}
        with av.open(f"file:{path}", "w", options=container or {}) as out:
            stream: Any = out.add_stream(codec, rate=rate, options=encoder if encoder is not None else default)
            stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
            if ticks is not None:
                stream.codec_context.time_base = Fraction(1, 1000)
            for number in range(frames):
                frame = av.VideoFrame.from_ndarray(picture(number, width=width, height=height), "rgb24")
                if ticks is not None:
                    frame.pts, frame.time_base = ticks[number], Fraction(1, 1000)
                out.mux(stream.encode(frame))
            out.mux(stream.encode())
        return path

    return make
