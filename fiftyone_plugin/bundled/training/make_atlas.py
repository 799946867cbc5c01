"""Make the sprite atlas from Noto Color Emoji and a few drawn shapes.

    python -m fiftyone_plugin.bundled.training.make_atlas --font NotoColorEmoji.ttf --output atlas.npz

The font comes with Debian's ``fonts-noto-color-emoji``. Other versions of it have slightly other pictures.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fiftyone_plugin.errors import InputError
from fiftyone_plugin.synthetic.sprites import SPRITE_SIDE_PX
from fiftyone_plugin.synthetic.vocabulary import sprite_classes

__all__ = ["draw_shape", "fit_sprite", "main"]

_DRAWN_SIDE_PX = 96
_MARGIN_PX = 3
_FONT_SIZE = 109
"""The only size of the font's bitmaps."""
_CANVAS_PX = 192
_SHAPE_COLOUR = (235, 235, 235, 255)
_POLYGONS = {"triangle": 3, "pentagon": 5, "hexagon": 6}


def fit_sprite(picture: Image.Image) -> NDArray[np.uint8]:
    """Cut a picture to its ink and scale it into a sprite: RGBA to uint8 (4, side, side).

    Transparent pixels get the mean colour, so that bilinear sampling makes no dark fringe.
    """
    rows, columns = np.nonzero(np.asarray(picture)[..., 3] > 8)
    ink = picture.crop((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
    scale = (_DRAWN_SIDE_PX - 2 * _MARGIN_PX) / max(ink.size)
    size = (max(1, round(ink.width * scale)), max(1, round(ink.height * scale)))
    square = Image.new("RGBA", (_DRAWN_SIDE_PX, _DRAWN_SIDE_PX), (0, 0, 0, 0))
    square.paste(
        ink.resize(size, Image.Resampling.LANCZOS), ((_DRAWN_SIDE_PX - size[0]) // 2, (_DRAWN_SIDE_PX - size[1]) // 2)
    )
    rgba = np.asarray(square, np.float32)
    alpha = rgba[..., 3:] / 255
    mean = (rgba[..., :3] * alpha).sum((0, 1)) / max(float(alpha.sum()), 1.0)
    rgba = np.concatenate([np.where(alpha > 0, rgba[..., :3], mean), rgba[..., 3:]], -1)
    factor = _DRAWN_SIDE_PX // SPRITE_SIDE_PX
    halved = rgba.reshape(SPRITE_SIDE_PX, factor, SPRITE_SIDE_PX, factor, 4).mean((1, 3))
    return np.asarray(halved.round().transpose(2, 0, 1), np.uint8)


def draw_shape(name: str) -> NDArray[np.uint8]:
    """Draw one of the plain shapes of the vocabulary as a near-white sprite."""
    picture = Image.new("RGBA", (_CANVAS_PX, _CANVAS_PX), (0, 0, 0, 0))
    draw = ImageDraw.Draw(picture)
    if name in _POLYGONS:
        angles = 2 * np.pi * np.arange(_POLYGONS[name]) / _POLYGONS[name]
        corners = [(float(96 + 90 * np.sin(a)), float(96 - 90 * np.cos(a))) for a in angles]
        draw.polygon(corners, fill=_SHAPE_COLOUR)
    elif name == "circle":
        draw.ellipse((6, 6, 186, 186), fill=_SHAPE_COLOUR)
    elif name == "oval":
        draw.ellipse((6, 46, 186, 146), fill=_SHAPE_COLOUR)
    elif name == "square":
        draw.rectangle((10, 10, 182, 182), fill=_SHAPE_COLOUR)
    elif name == "rectangle":
        draw.rectangle((6, 50, 186, 142), fill=_SHAPE_COLOUR)
    elif name == "heart":
        t = np.linspace(0, 2 * np.pi, 80)
        x = 96 + 86 * np.sin(t) ** 3
        y = 90 - 5.4 * (13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
        draw.polygon([(float(a), float(b)) for a, b in zip(x, y, strict=True)], fill=_SHAPE_COLOUR)
    elif name == "cross":
        draw.rectangle((70, 8, 122, 184), fill=_SHAPE_COLOUR)
        draw.rectangle((8, 70, 184, 122), fill=_SHAPE_COLOUR)
    elif name == "arrow":
        draw.polygon([(6, 70), (100, 70), (100, 20), (186, 96), (100, 172), (100, 122), (6, 122)], fill=_SHAPE_COLOUR)
    elif name == "crescent":
        draw.ellipse((6, 6, 186, 186), fill=_SHAPE_COLOUR)
        draw.ellipse((60, 0, 210, 150), fill=(0, 0, 0, 0))
    else:
        raise ValueError(f"shape {name!r}: is not one of the vocabulary's")
    return fit_sprite(picture)


def _draw_emoji(codepoint: int, font: ImageFont.FreeTypeFont) -> NDArray[np.uint8]:
    picture = Image.new("RGBA", (160, 160), (0, 0, 0, 0))
    ImageDraw.Draw(picture).text((12, 12), chr(codepoint), font=font, embedded_color=True)
    if (np.asarray(picture)[..., 3] > 8).sum() < 200:
        raise InputError(f"U+{codepoint:X}: the font has no picture of it: give Noto Color Emoji 2.038 or newer")
    return fit_sprite(picture)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line above."""
    parser = argparse.ArgumentParser(description="Make the sprite atlas.")
    parser.add_argument("--font", type=Path, default=Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"))
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args(argv)
    if not arguments.font.is_file():
        raise InputError(f"--font {arguments.font}: no such file: install fonts-noto-color-emoji, or give its path")
    font = ImageFont.truetype(str(arguments.font), _FONT_SIZE)
    sprites: list[NDArray[np.uint8]] = []
    for entry in sprite_classes():
        sprites += [draw_shape(entry.name)] if entry.is_shape else [_draw_emoji(c, font) for c in entry.codepoints]
    np.savez_compressed(arguments.output, rgba=np.stack(sprites))
    print(f"{arguments.output}: {len(sprites)} sprites")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
