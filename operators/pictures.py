"""Detections drawn on frames, as one picture that a form can show."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from fiftyone_plugin.types import Detections, Frame

__all__ = ["contact_sheet", "data_uri"]

COLOURS_RGB = (
    (255, 109, 4),
    (0, 158, 255),
    (46, 204, 64),
    (240, 60, 200),
    (255, 220, 0),
    (127, 90, 240),
    (0, 200, 180),
    (255, 65, 54),
)
"""One per class, in turn."""
TILE_WIDTH_PX = 640
JPEG_QUALITY = 85


def contact_sheet(shown: Sequence[tuple[Frame, Detections]], phrases: Sequence[str]) -> NDArray[np.uint8]:
    """Frames side by side, each with its detections.

    Args:
        shown: One or more frames of one size with what was found in them.
        phrases: Every phrase of the detections; their order gives the colours.

    Returns:
        uint8 (h, w, 3) RGB.
    """
    tiles = [_tile(frame, detections, phrases) for frame, detections in shown]
    columns = math.ceil(math.sqrt(len(tiles)))
    blank = np.zeros_like(tiles[0])
    tiles += [blank] * (-len(tiles) % columns)
    rows = [np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)]
    return np.vstack(rows)


def _tile(frame: Frame, detections: Detections, phrases: Sequence[str]) -> NDArray[np.uint8]:
    scale = TILE_WIDTH_PX / frame.width_px
    size = (TILE_WIDTH_PX, round(frame.height_px * scale))
    image = cv2.resize(frame.image_rgb, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    for box, score, phrase in zip(detections.boxes_xyxy, detections.scores, detections.phrases, strict=True):
        x0, y0, x1, y1 = (round(float(v) * scale) for v in box)
        colour = COLOURS_RGB[list(phrases).index(phrase) % len(COLOURS_RGB)]
        cv2.rectangle(image, (x0, y0), (x1, y1), colour, 2, cv2.LINE_AA)
        _caption(image, f"{phrase} {score:.2f}", (x0, y0), colour)
    _caption(image, f"frame {frame.index + 1}, {len(detections)} found", (0, 0), (30, 30, 30), (255, 255, 255))
    return np.asarray(image, np.uint8)


def _caption(
    image: NDArray[np.uint8],
    text: str,
    corner: tuple[int, int],
    background: tuple[int, int, int],
    colour: tuple[int, int, int] = (0, 0, 0),
) -> None:
    # The built-in font has no letters beyond ASCII.
    text = text.encode("ascii", "replace").decode()
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)
    x = min(max(corner[0], 0), max(image.shape[1] - width - 6, 0))
    y = max(corner[1], height + 8)
    cv2.rectangle(image, (x, y - height - 8), (x + width + 6, y), background, cv2.FILLED)
    cv2.putText(image, text, (x + 3, y - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, 1, cv2.LINE_AA)


def data_uri(image_rgb: NDArray[np.uint8]) -> str:
    """A picture as text that a browser shows: JPEG in base64.

    Args:
        image_rgb: uint8 (h, w, 3).
    """
    _, coded = cv2.imencode(
        ".jpg", cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    )
    return "data:image/jpeg;base64," + base64.b64encode(coded.tobytes()).decode()
