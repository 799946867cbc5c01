"""One colour for one identity: the same everywhere, and a function of nothing but the track id.

The first ten are chosen by hand to stand out on grass, asphalt and skin; the first six stay apart for people with
red-green colour blindness too (a test simulates it). Further ids walk round the colour wheel by the golden angle.
"""

from __future__ import annotations

import colorsys

__all__ = ["Colour", "ink_on", "track_colour"]

Colour = tuple[int, int, int]
"""Red, green, blue, 0 to 255 each."""

_FIRST: tuple[Colour, ...] = (
    (255, 176, 0),
    (76, 134, 255),
    (232, 37, 125),
    (0, 217, 192),
    (254, 95, 0),
    (255, 242, 122),
    (107, 47, 214),
    (165, 222, 255),
    (255, 158, 216),
    (179, 18, 47),
)

_GOLDEN_TURN = 0.6180339887
_TONES = ((0.85, 0.95), (0.5, 1.0), (0.95, 0.7))
"""Saturation and value, taken in turn, so that neighbours on the wheel differ in lightness."""


def track_colour(track_id: int) -> Colour:
    """The colour of a track: stable, and distinct for small numbers of tracks. `track_id` is 1 or more."""
    place = track_id - 1
    if 0 <= place < len(_FIRST):
        return _FIRST[place]
    saturation, value = _TONES[track_id % len(_TONES)]
    red, green, blue = colorsys.hsv_to_rgb((track_id * _GOLDEN_TURN) % 1.0, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def ink_on(colour: Colour) -> Colour:
    """Black or white, whichever is easier to read on the colour (relative luminance of WCAG 2.1)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in colour)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return (255, 255, 255) if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else (16, 18, 22)
