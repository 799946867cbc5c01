"""The script of a scene: who is in it, what they look like, where they walk, how it is lit and filmed.

Plain data and where it puts everybody in a frame. Knows nothing of pixels: `clips` draws it, `scenes` writes scripts.

Lengths are pixels of the meadow, whose origin is the top left of the frame as long as the camera stands still.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fiftyone_plugin.errors import OptionError
from fiftyone_plugin.synthetic.renderer import MARKS, Looks, Poses, colour_matrices
from fiftyone_plugin.synthetic.vocabulary import class_named, sprite_classes
from fiftyone_plugin.types import FloatArray, IntArray

__all__ = ["Actor", "Camera", "Light", "Look", "Scene", "Waypoint", "positions", "walk"]

_MARK_OPACITY = 0.85
_SWAY_RATE = 0.12
_GAIT_RATE = 0.25
_BREATHING_RATE = 0.06
_TURN_PERIOD_FRAMES = 48
_TURNED_PART = 0.35


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one individual looks like, compared with the picture of its class."""

    picture: int = 0
    """Which of the pictures of the class."""
    hue_deg: float = 0.0
    saturation: float = 1.0
    gain: float = 1.0
    """Factor on the brightness."""
    mark_rgb: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Colour of its two round marks, in [0, 1]."""
    mark_strength: float = 0.0
    """0 no marks, 1 marks in full."""
    mark_places: tuple[tuple[float, float, float], ...] = ((0.15, 0.1, 0.26), (-0.35, 0.2, 0.16))
    """x, y and radius of the two marks, in units in which the sprite's square is [-1, 1]."""

    def blended(self, other: Look, share: float) -> Look:
        """This look, with `share` in [0, 1] of the other one; 1 is the other one."""

        def mix(a: float, b: float) -> float:
            return a + (b - a) * share

        return Look(
            picture=other.picture if share == 1 else self.picture,
            hue_deg=mix(self.hue_deg, other.hue_deg),
            saturation=mix(self.saturation, other.saturation),
            gain=mix(self.gain, other.gain),
            mark_rgb=(
                mix(self.mark_rgb[0], other.mark_rgb[0]),
                mix(self.mark_rgb[1], other.mark_rgb[1]),
                mix(self.mark_rgb[2], other.mark_rgb[2]),
            ),
            mark_strength=mix(self.mark_strength, other.mark_strength),
            mark_places=tuple(
                (mix(a[0], b[0]), mix(a[1], b[1]), mix(a[2], b[2]))
                for a, b in zip(self.mark_places, other.mark_places, strict=True)
            ),
        )


@dataclass(frozen=True, slots=True)
class Waypoint:
    """Where somebody is at a frame; the way between two waypoints is straight and even."""

    frame: int
    x_px: float
    y_px: float


def walk(
    start_px: tuple[float, float], velocity_px: tuple[float, float], frame_count: int, *, start: int = 0
) -> tuple[Waypoint, ...]:
    """A straight walk from `start_px` at frame `start`, so many pixels (x, y) a frame, for `frame_count` frames."""
    (x, y), (dx, dy) = start_px, velocity_px
    return (Waypoint(start, x, y), Waypoint(start + frame_count, x + dx * frame_count, y + dy * frame_count))


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """One object of a scene.

    Leaving and returning is a way that leads out of the frame and back; hiding is a way behind scenery with a higher
    layer. To change sides unseen, put two waypoints outside the frame on consecutive frames.
    """

    class_name: str
    waypoints: tuple[Waypoint, ...]
    """At least one, in the order of time; it stands still before the first and after the last."""
    size_px: float = 52.0
    look: Look = field(default_factory=Look)
    layer: int = 0
    """Higher is nearer to the viewer; within a layer, later actors are."""
    is_scenery: bool = False
    """Stands still and is no identity: left out of the ground truth."""
    pose_change: float = 0.0
    """0 only sways; up to 1 turns back, grows, shrinks and stretches, and shows one mark on each of its sides."""
    phase_rad: float = 0.0
    """Shifts swaying and turning, so that no two actors move alike."""

    def __post_init__(self) -> None:
        class_named(self.class_name)
        frames = [w.frame for w in self.waypoints]
        if not frames or any(b <= a for a, b in pairwise(frames)):
            raise OptionError(f"waypoints at the frames {frames}: must be at least one, in the order of time")
        if not 0 <= self.pose_change <= 1:
            raise OptionError(f"pose_change = {self.pose_change}: must lie in [0, 1]")

    @property
    def sprite_index(self) -> int:
        """Row of the atlas."""
        pictures = sprite_classes()[class_named(self.class_name)].sprite_indices
        return pictures[self.look.picture % len(pictures)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """Where the top left of the frame is in the meadow. Without waypoints it stands still at (0, 0)."""

    waypoints: tuple[Waypoint, ...] = ()
    shake_px: float = 0.0
    """Amplitude of a slow sway of the hand."""

    def offsets_px(self, frames: IntArray) -> NDArray[np.float64]:
        """(T, 2)."""
        along = positions(self.waypoints, frames) if self.waypoints else np.zeros((len(frames), 2))
        sway = np.stack([np.sin(0.31 * frames), np.sin(0.23 * frames + 1)], -1)
        return np.asarray(along + self.shake_px * sway)


@dataclass(frozen=True, slots=True, kw_only=True)
class Light:
    """How the light changes."""

    drift: float = 0.0
    """0 steady; 1 brightness changes by a quarter and colour between warm and cold."""
    shadow: float = 0.0
    """0 none; 1 a band of cloud shadow that takes away 60 % of the light wanders through the picture."""
    period_frames: float = 90.0
    """Frames in which the light goes through all its changes once."""

    def __post_init__(self) -> None:
        for name, value in (("drift", self.drift), ("shadow", self.shadow)):
            if not 0 <= value <= 1:
                raise OptionError(f"{name} = {value}: must lie in [0, 1]")

    def gains_rgb(self, frames: IntArray) -> NDArray[np.float64]:
        """Factors on the picture: (T, 3)."""
        angle = 2 * np.pi * frames[:, None] / self.period_frames
        brightness = 0.25 * np.sin(angle)
        warmth = 0.15 * np.sin(1.7 * angle + 1) * np.array([1.0, 0.0, -1.0])
        return np.asarray(1 + self.drift * (brightness + warmth))

    def shadow_depths(self, frames: IntArray) -> NDArray[np.float64]:
        """(T,), see `renderer.Shots`."""
        return np.full(len(frames), 0.6 * self.shadow)

    def shadow_phases_rad(self, frames: IntArray) -> NDArray[np.float64]:
        """(T,), see `renderer.Shots`."""
        return np.asarray(2 * np.pi * frames / self.period_frames)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A whole script."""

    name: str
    actors: tuple[Actor, ...]
    frame_count: int
    width_px: int = 320
    height_px: int = 256
    frames_per_second: float = 15.0
    camera: Camera = field(default_factory=Camera)
    light: Light = field(default_factory=Light)
    noise: float = 0.01
    """Standard deviation of the noise of the picture, whose values lie in [0, 1]."""
    blur: float = 0.0
    """Share of a 3 x 3 mean in the picture, in [0, 1]."""
    seed: int = 0
    """Of the meadow and the noise."""

    def __post_init__(self) -> None:
        if self.frame_count < 1 or self.width_px < 16 or self.height_px < 16:
            raise OptionError(
                f"scene of {self.frame_count} frames, {self.width_px} x {self.height_px}: "
                f"must have at least one frame of 16 x 16"
            )
        if not 1 <= len(self.actors) < 255:
            raise OptionError(f"scene of {len(self.actors)} actors: must have 1 to 254")

    @property
    def drawing_order(self) -> tuple[int, ...]:
        """Indices of the actors, the farthest first: the actor of each slot of `looks` and `poses`."""
        return tuple(sorted(range(len(self.actors)), key=lambda i: self.actors[i].layer))

    def looks(self) -> Looks:
        """Looks of the actors as the renderer wants them, in drawing order, one scene."""
        looks = [self.actors[i].look for i in self.drawing_order]
        return Looks(
            sprite_indices=np.array([[self.actors[i].sprite_index for i in self.drawing_order]], np.int64),
            colour_matrices=colour_matrices(
                np.array([[k.hue_deg for k in looks]]),
                np.array([[k.saturation for k in looks]]),
                np.array([[k.gain for k in looks]]),
            ),
            mark_places=np.array([[k.mark_places for k in looks]], np.float32),
            mark_colours=np.array([[k.mark_rgb for k in looks]], np.float32),
        )

    def poses(self, frames: Sequence[int] | IntArray) -> Poses:
        """Poses of the actors in these frames, in drawing order, one scene, as the camera sees them."""
        index = np.asarray(frames, np.int64)
        offsets = self.camera.offsets_px(index)
        each = [_poses_of(self.actors[i], index) for i in self.drawing_order]

        def stacked(name: str) -> FloatArray:
            return np.stack([pose[name] for pose in each], axis=1)[None].astype(np.float32)

        return Poses(
            centres_px=np.asarray(stacked("centres") - offsets[:, None], np.float32),
            sizes_px=stacked("sizes"),
            aspects=stacked("aspects"),
            rotations_rad=stacked("rotations"),
            facings=stacked("facings"),
            mark_opacities=stacked("opacities"),
            is_present=np.ones((1, len(index), len(self.actors)), np.bool_),
        )


def positions(waypoints: Sequence[Waypoint], frames: IntArray) -> NDArray[np.float64]:
    """Where the way leads in these frames: (T, 2), pixels of the meadow."""
    at = [w.frame for w in waypoints]
    x = np.interp(frames, at, [w.x_px for w in waypoints])
    y = np.interp(frames, at, [w.y_px for w in waypoints])
    return np.stack([x, y], -1)


def _headings(waypoints: Sequence[Waypoint], frames: IntArray) -> NDArray[np.float64]:
    """1 where the way leads to the left (as Noto's animals look), -1 where it leads to the right: (T,)."""
    headings, last = [], 1.0
    for a, b in pairwise(waypoints):
        # a change of sides outside the frame takes a single frame, and is no walking
        if b.x_px != a.x_px and b.frame - a.frame > 1:
            last = 1.0 if b.x_px < a.x_px else -1.0
        headings.append(last)
    if not headings:
        return np.ones(len(frames))
    leg = np.searchsorted([w.frame for w in waypoints], frames, side="right") - 1
    return np.asarray(np.array(headings)[leg.clip(0, len(headings) - 1)], np.float64)


def _poses_of(actor: Actor, frames: IntArray) -> dict[str, NDArray[np.float64]]:
    """What one actor does in these frames, by the names that `Scene.poses` asks for: (T,), (T, 2), (T, MARKS)."""
    count, phase, change = len(frames), actor.phase_rad, actor.pose_change
    centres = positions(actor.waypoints, frames)
    facings = _headings(actor.waypoints, frames)
    still = np.zeros(count)
    if actor.is_scenery:
        sway_x = sway_y = rotations = breathing = stretch = still
    else:
        sway_x = 2.5 * np.sin(_SWAY_RATE * frames + phase)
        sway_y = 3.0 * np.sin(1.3 * _SWAY_RATE * frames + 2 * phase)
        rotations = (0.08 + 0.14 * change) * np.sin(_GAIT_RATE * frames + phase)
        breathing = (0.03 + 0.12 * change) * np.sin(_BREATHING_RATE * frames + phase)
        stretch = 0.25 * change * np.sin(0.11 * frames + 3 * phase)
    if change > 0:
        place_in_period = np.mod(frames / _TURN_PERIOD_FRAMES + phase / (2 * np.pi), 1)
        facings = np.where(place_in_period < _TURNED_PART, -facings, facings)
    opacity = _MARK_OPACITY * actor.look.mark_strength
    hidden = change * np.stack([facings < 0, facings > 0], -1)
    return {
        "centres": centres + np.stack([sway_x, sway_y], -1),
        "sizes": actor.size_px * (1 + breathing),
        "aspects": np.exp(stretch),
        "rotations": rotations,
        "facings": facings,
        "opacities": opacity * (1 - hidden[:, :MARKS]),
    }
