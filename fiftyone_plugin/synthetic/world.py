"""Random scenes of the synthetic world: what the bundled models are trained and evaluated on.

A scene holds a main group of look-alikes of one class, which cross, cover one another, leave and return, and some
things of other classes. Knows nothing of models; the drawing is `renderer`'s, scripted scenes are `scenes`'.

Letters: B scenes, T frames of each, K slots, H and W frame size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fiftyone_plugin.errors import OptionError
from fiftyone_plugin.synthetic.renderer import (
    BACKDROP_SCALE,
    MARKS,
    Looks,
    Poses,
    Renderer,
    Shots,
    colour_matrices,
)
from fiftyone_plugin.synthetic.sprites import opaque_fractions
from fiftyone_plugin.synthetic.vocabulary import sprite_classes
from fiftyone_plugin.types import BoolArray, FloatArray, IntArray

__all__ = [
    "SLOTS",
    "RandomScenes",
    "SceneMix",
    "World",
    "class_indices",
    "owner_boxes",
    "owner_masks",
    "random_backdrops",
    "sample_scenes",
]

SLOTS = 8
"""Slots of a random scene."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneMix:
    """What random scenes are made of."""

    same_class: tuple[int, int] = (2, 5)
    """Fewest and most members of the main group."""
    objects: tuple[int, int] = (1, 7)
    """Fewest and most objects, the main group included; at most `SLOTS`."""
    group_probability: float = 0.8
    """Probability in [0, 1] that there is a main group; otherwise every object is of its own."""
    size_px: tuple[float, float] = (34.0, 105.0)
    """Smallest and largest object."""
    leaving_probability: float = 0.45
    """Probability in [0, 1] that an object turns round outside the frame, and so leaves and returns."""

    def __post_init__(self) -> None:
        for name in ("same_class", "objects"):
            low, high = getattr(self, name)
            if not 1 <= low <= high <= SLOTS:
                raise OptionError(f"{name} = ({low}, {high}): must be an increasing pair in [1, {SLOTS}]")
        for name in ("group_probability", "leaving_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise OptionError(f"{name} = {getattr(self, name)}: must lie in [0, 1]")


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomScenes:
    """B random scenes. Arrays are (B, K) where nothing else is said; lengths are parts of the frame's side."""

    looks: Looks
    class_indices: IntArray
    """int64, indices of `sprite_classes`."""
    is_active: BoolArray
    is_grouped: BoolArray
    """Member of the main group of look-alikes."""
    mark_opacities: FloatArray
    sizes_px: FloatArray
    aspects: FloatArray
    facings: FloatArray
    starts: FloatArray
    """(B, K, 2), x and y."""
    velocities: FloatArray
    """(B, K, 2), per unit of time."""
    walls: FloatArray
    """How far outside the frame an object turns round; negative is inside."""
    wander: FloatArray
    """(B, K, 2): amplitude of the swaying about the straight path."""
    wander_rate: FloatArray
    """Radians per unit of time; as all rates are."""
    rotation: FloatArray
    """(B, K, 3): mean (rad), amplitude (rad) and rate."""
    breathing: FloatArray
    """(B, K, 2): relative amplitude and rate of the changes in size."""
    phases_rad: FloatArray
    pan: FloatArray
    """(B, 2), of half a backdrop per unit of time; only the backdrop moves."""
    noise: FloatArray
    """(B,), standard deviation."""
    blurs: FloatArray
    """(B,) in [0, 1]."""
    lights: FloatArray
    """(B,), factor."""
    backdrop_seed: int

    def __len__(self) -> int:
        return len(self.class_indices)

    def poses(self, times: NDArray[np.floating], *, height_px: int, width_px: int) -> Poses:
        """Poses at the times (B, T); a unit of time is roughly a frame at 15 frames per second, fractions are fine."""
        t = np.asarray(times, np.float64)[..., None]
        phases = self.phases_rad[:, None]
        rate = self.wander_rate[:, None]
        walls = self.walls[:, None]
        straight = self.starts[:, None] + self.velocities[:, None] * t[..., None]
        x = _reflect(straight[..., 0], walls) + self.wander[:, None, :, 0] * np.sin(rate * t + phases)
        y = _reflect(straight[..., 1], walls * 0.6) + self.wander[:, None, :, 1] * np.sin(1.3 * rate * t + 2 * phases)
        mean, swing, swing_rate = np.moveaxis(self.rotation[:, None], -1, 0)
        depth, depth_rate = np.moveaxis(self.breathing[:, None], -1, 0)
        shape = x.shape

        def per_frame(array: FloatArray) -> FloatArray:
            return np.broadcast_to(array[:, None], shape)

        return Poses(
            centres_px=np.stack([x * width_px, y * height_px], -1).astype(np.float32),
            sizes_px=(self.sizes_px[:, None] * (1 + depth * np.sin(depth_rate * t + phases))).astype(np.float32),
            aspects=per_frame(self.aspects),
            rotations_rad=(mean + swing * np.sin(swing_rate * t + phases)).astype(np.float32),
            facings=per_frame(self.facings),
            mark_opacities=np.broadcast_to(self.mark_opacities[:, None, :, None], (*shape, MARKS)),
            is_present=np.broadcast_to(self.is_active[:, None], shape),
        )


def class_indices(*, held_out: bool = False) -> IntArray:
    """Indices of the classes that training sees, or of those that it never sees."""
    return np.array([i for i, c in enumerate(sprite_classes()) if c.is_held_out == held_out], np.int64)


def sample_scenes(
    rng: np.random.Generator, batch: int, *, mix: SceneMix | None = None, classes: Sequence[int] | None = None
) -> RandomScenes:
    """Draw random scenes.

    Args:
        rng: Where the chance comes from.
        batch: Number of scenes B.
        mix: What they are made of.
        classes: Indices of the classes to draw from; by default those that training sees.
    """
    mix = mix or SceneMix()
    pool = class_indices() if classes is None else np.asarray(classes, np.int64)
    shape = (batch, SLOTS)

    def uniform(low: float, high: float, *size: int) -> NDArray[np.float64]:
        return rng.uniform(low, high, size or shape)

    members = np.where(
        uniform(0, 1, batch, 1) < mix.group_probability,
        rng.integers(mix.same_class[0], mix.same_class[1] + 1, (batch, 1)),
        1,
    )
    objects = np.maximum(rng.integers(mix.objects[0], mix.objects[1] + 1, (batch, 1)), members).clip(max=SLOTS)
    is_grouped = np.arange(SLOTS) < members
    is_active = np.arange(SLOTS) < objects

    def shared(values: NDArray[np.floating]) -> NDArray[np.floating]:
        """The first member's value for the whole group, everyone's own for the others."""
        return np.where(is_grouped.reshape(*shape, *[1] * (values.ndim - 2)), values[:, :1], values)

    chosen = np.where(is_grouped, rng.choice(pool, (batch, 1)), rng.choice(pool, shape))
    table = sprite_classes()
    pictures = np.array([len(c.sprite_indices) for c in table])[chosen]
    first = np.array([c.sprite_indices[0] for c in table])[chosen]
    is_shape = np.array([c.is_shape for c in table])[chosen]
    sprite_indices = first + (shared(uniform(0, 1)) * pictures).astype(np.int64)

    # a look for the group, and a small difference for every member
    hues = shared(np.where(uniform(0, 1) < 0.7, uniform(-8, 8), uniform(-40, 40)))
    hues = hues + np.where(is_grouped, uniform(-14, 14), 0)
    saturations = shared(uniform(0.75, 1.25)) * np.where(is_grouped, uniform(0.8, 1.2), 1)
    gains = shared(uniform(0.8, 1.1)) * np.where(is_grouped, uniform(0.82, 1.15), 1)
    tints = shared(uniform(0.05, 1, *shape, 3)) * uniform(0.85, 1.15, *shape, 3)
    matrices = colour_matrices(hues, saturations, gains) * np.where(is_shape[..., None], tints, 1)[..., None]
    mark_places = np.stack(
        [uniform(-0.55, 0.55, *shape, MARKS), uniform(-0.55, 0.55, *shape, MARKS), uniform(0.1, 0.3, *shape, MARKS)], -1
    )
    mark_opacities = np.where(uniform(0, 1) < 0.5, uniform(0.5, 0.95), 0) * np.where(is_grouped, 1, 0.6)
    sizes = np.exp(uniform(float(np.log(mix.size_px[0])), float(np.log(mix.size_px[1]))))
    sizes = np.where(is_grouped, sizes[:, :1].clip(max=85) * uniform(0.82, 1.2), sizes)

    # most groups walk in one lane, so that they meet
    in_lane = is_grouped & (uniform(0, 1, batch, 1) < 0.65)
    lanes = uniform(0.12, 0.88)
    lanes = np.where(in_lane, lanes[:, :1] + uniform(-0.1, 0.1), lanes)
    speeds = np.exp(rng.uniform(np.log(0.003), np.log(0.035), shape)) * (uniform(0, 1) >= 0.12)
    to_left = np.where(uniform(0, 1) < 0.5, -1, 1)
    leaves = uniform(0, 1) < mix.leaving_probability
    order = np.argsort(rng.random(shape), axis=1)

    def shuffled(values: NDArray[np.generic]) -> NDArray[np.generic]:
        return np.take_along_axis(values, order.reshape(*shape, *[1] * (values.ndim - 2)), axis=1)

    def floats(values: NDArray[np.floating]) -> FloatArray:
        return np.asarray(shuffled(values), np.float32)

    return RandomScenes(
        looks=Looks(
            sprite_indices=np.asarray(shuffled(sprite_indices), np.int64),
            colour_matrices=floats(matrices),
            mark_places=floats(mark_places),
            mark_colours=floats(uniform(0, 1, *shape, 3)),
        ),
        class_indices=np.asarray(shuffled(chosen), np.int64),
        is_active=np.asarray(shuffled(is_active), np.bool_),
        is_grouped=np.asarray(shuffled(is_grouped & is_active), np.bool_),
        mark_opacities=floats(mark_opacities),
        sizes_px=floats(sizes),
        aspects=floats(np.exp(uniform(-0.25, 0.25, batch, 1)) * np.exp(uniform(-0.08, 0.08))),
        facings=floats(np.where(uniform(0, 1) < 0.5, -1.0, 1.0)),
        starts=floats(np.stack([uniform(0.08, 0.92), lanes], -1)),
        velocities=floats(np.stack([speeds * to_left, speeds * uniform(-0.35, 0.35)], -1)),
        walls=floats(np.where(leaves, uniform(0.05, 0.32), uniform(-0.12, 0.02))),
        wander=floats(np.stack([uniform(0, 0.05), uniform(0, 0.06)], -1)),
        wander_rate=floats(uniform(0.04, 0.22)),
        rotation=floats(
            np.stack(
                [
                    np.where(uniform(0, 1) < 0.8, uniform(-0.25, 0.25), uniform(-0.8, 0.8)),
                    uniform(0, 0.22),
                    uniform(0.03, 0.25),
                ],
                -1,
            )
        ),
        breathing=floats(np.stack([uniform(0, 0.15), uniform(0.02, 0.12)], -1)),
        phases_rad=floats(uniform(0, 2 * np.pi)),
        pan=np.asarray(uniform(-0.004, 0.004, batch, 2) * (uniform(0, 1, batch, 1) < 0.5), np.float32),
        noise=np.asarray(uniform(0, 0.035, batch), np.float32),
        blurs=np.asarray(uniform(0, 1, batch) * (uniform(0, 1, batch) < 0.35), np.float32),
        lights=np.asarray(uniform(0.85, 1.12, batch), np.float32),
        backdrop_seed=int(rng.integers(1 << 31)),
    )


class World:
    """Renders random scenes at one size on one device."""

    def __init__(self, *, height_px: int = 256, width_px: int = 256, device: str = "cpu") -> None:
        self.renderer = Renderer(height_px=height_px, width_px=width_px, device=device)
        self.height_px = height_px
        self.width_px = width_px
        self.device = self.renderer.device

    def poses(self, scenes: RandomScenes, times: NDArray[np.floating]) -> Poses:
        """Poses of the scenes at the times (B, T), in this world's pixels."""
        return scenes.poses(times, height_px=self.height_px, width_px=self.width_px)

    def render(self, scenes: RandomScenes, times: NDArray[np.floating]) -> tuple[Tensor, Tensor]:
        """Draw the scenes at the times (B, T).

        Returns:
            Images, float32 (B, T, 3, H, W) in [0, 1], and owner maps, uint8 (B, T, H, W). Backdrop and noise follow
            from `scenes.backdrop_seed`, but differ between a CPU and a GPU.
        """
        batch, frames = times.shape
        generator = torch.Generator(device=self.device).manual_seed(scenes.backdrop_seed)
        half_backdrop_px = np.array([self.width_px, self.height_px]) * BACKDROP_SCALE / 2
        shots = Shots(
            backdrops=random_backdrops(batch, self.height_px, self.width_px, generator),
            view_offsets_px=(np.clip(scenes.pan[:, None] * times[..., None], -0.22, 0.22) * half_backdrop_px).astype(
                np.float32
            ),
            light_rgb=np.broadcast_to(scenes.lights[:, None, None], (batch, frames, 3)),
            shadow_depths=np.zeros((batch, frames), np.float32),
            shadow_phases_rad=np.zeros((batch, frames), np.float32),
            blurs=scenes.blurs,
        )
        noise = torch.randn(
            (batch, frames, 3, self.height_px, self.width_px), generator=generator, device=self.device
        ) * torch.as_tensor(scenes.noise, device=self.device).view(batch, 1, 1, 1, 1)
        return self.renderer.render(scenes.looks, self.poses(scenes, times), shots, noise=noise)

    def whole_areas_px(self, scenes: RandomScenes, times: NDArray[np.floating]) -> FloatArray:
        """Area that each object would show if nothing covered it or cut it off: float32 (B, T, K)."""
        sizes = self.poses(scenes, times).sizes_px
        return np.asarray(sizes**2 * opaque_fractions()[scenes.looks.sprite_indices][:, None], np.float32)


def random_backdrops(batch: int, height_px: int, width_px: int, generator: torch.Generator) -> Tensor:
    """Backdrops for frames of this size: two colours, a horizon, noise of five scales and some flat clutter."""
    height, width = int(height_px * BACKDROP_SCALE), int(width_px * BACKDROP_SCALE)
    device = generator.device

    def uniform(channels: int = 1, side: int = 1) -> Tensor:
        return torch.rand((batch, channels, side, side), generator=generator, device=device)

    def enlarge(cells: Tensor) -> Tensor:
        return F.interpolate(cells, (height, width), mode="bilinear", align_corners=False)

    y = torch.linspace(0, 1, height, device=device)[None, None, :, None]
    x = torch.linspace(0, 1, width, device=device)[None, None, None, :]
    below = uniform(3) * 0.8 + 0.1
    above = (below + (uniform(3) - 0.5) * 0.5).clamp(0, 1)
    backdrop = torch.where(y > uniform() * 1.6 - 0.3, below, above).expand(batch, 3, height, width)
    for cells, amplitude in ((3, 0.45), (8, 0.35), (20, 0.25), (60, 0.22), (150, 0.18)):
        grey, coloured = uniform(1, cells) - 0.5, (uniform(3, cells) - 0.5) * uniform()
        backdrop = backdrop + enlarge(grey + coloured) * uniform() * amplitude
    for _ in range(5):
        opacity = (uniform() < 0.35) * (uniform() * 0.8 + 0.2)
        dx = (x - uniform()) / (uniform() * 0.2 + 0.02)
        dy = (y - uniform()) / (uniform() * 0.2 + 0.02)
        is_inside = torch.where(uniform() < 0.5, dx**2 + dy**2, torch.maximum(dx.abs(), dy.abs())) < 1
        backdrop = torch.lerp(backdrop, uniform(3).expand_as(backdrop), is_inside * opacity)
    return backdrop.clamp(0, 1)


def owner_masks(owners: Tensor, slots: int = SLOTS) -> Tensor:
    """Owner maps uint8 (..., H, W) to the visible part of every slot, bool (..., K, H, W)."""
    return owners.unsqueeze(-3) == torch.arange(slots, device=owners.device, dtype=owners.dtype)[:, None, None]


def owner_boxes(masks: Tensor) -> Tensor:
    """Tightest boxes ``xyxy`` in pixels of masks: bool (..., H, W) to float32 (..., 4); zeros for an empty mask."""
    height, width = masks.shape[-2:]

    def extent(is_set: Tensor, length: int) -> tuple[Tensor, Tensor]:
        index = torch.arange(length, device=masks.device)
        return torch.where(is_set, index, length).amin(-1), torch.where(is_set, index + 1, 0).amax(-1)

    left, right = extent(masks.any(-2), width)
    top, bottom = extent(masks.any(-1), height)
    boxes = torch.stack([left, top, right, bottom], -1).float()
    return boxes * masks.flatten(-2).any(-1, keepdim=True)


def _reflect(position: NDArray[np.floating], wall: NDArray[np.floating]) -> NDArray[np.floating]:
    """A straight path folded between -wall and 1 + wall."""
    length = 1 + 2 * wall
    unfolded = np.mod(position + wall, 2 * length)
    return np.asarray(np.where(unfolded > length, 2 * length - unfolded, unfolded) - wall)
