"""Draws sprites over a backdrop: the one renderer of random training scenes and of scripted scenes.

Knows what is to be seen at each instant (`Looks`, `Poses`, `Shots`), not why: motion and chance are made elsewhere
(`world`, `clips`). Runs on a CPU or a GPU; poses stay on the host, so that a GPU is never waited for.

Letters: B scenes, T frames of each, K slots, H and W frame size. A *slot* is a position in the drawing order: slot
K - 1 is nearest to the viewer. Positions are pixels, origin top left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fiftyone_plugin.synthetic.sprites import load_sprites
from fiftyone_plugin.types import BoolArray, FloatArray, IntArray

__all__ = ["BACKDROP_SCALE", "MARKS", "NO_OWNER", "Looks", "Poses", "Renderer", "Shots", "colour_matrices"]

NO_OWNER = 255
"""Value of an owner map where only the backdrop is seen."""
MARKS = 2
"""Round marks that every sprite may bear."""
BACKDROP_SCALE = 1.3
"""Size of a backdrop relative to the frame; a view that goes beyond it sees it reflected."""

_RGB_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_YIQ_TO_RGB = np.linalg.inv(_RGB_TO_YIQ)


@dataclass(frozen=True, slots=True, kw_only=True)
class Looks:
    """What never changes about the occupants of the slots."""

    sprite_indices: IntArray
    """int64 (B, K), rows of the atlas."""
    colour_matrices: FloatArray
    """float32 (B, K, 3, 3), applied to the sprite's RGB; see `colour_matrices`."""
    mark_places: FloatArray
    """float32 (B, K, MARKS, 3): x, y and radius of each mark, in units in which the sprite's square is [-1, 1]."""
    mark_colours: FloatArray
    """float32 (B, K, 3), RGB in [0, 1]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Poses:
    """Where the occupants are, and how they are turned."""

    centres_px: FloatArray
    """float32 (B, T, K, 2), x and y."""
    sizes_px: FloatArray
    """float32 (B, T, K): square root of the area of the sprite's square."""
    aspects: FloatArray
    """float32 (B, T, K): width over height of the sprite's square."""
    rotations_rad: FloatArray
    """float32 (B, T, K), clockwise."""
    facings: FloatArray
    """float32 (B, T, K): 1 as drawn (Noto's animals look to the left), -1 mirrored."""
    mark_opacities: FloatArray
    """float32 (B, T, K, MARKS) in [0, 1]."""
    is_present: BoolArray
    """bool (B, T, K)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shots:
    """What is behind the sprites, and how the picture is taken."""

    backdrops: Tensor
    """float32 (B, 3, h, w) in [0, 1]; h and w are the frame's times `BACKDROP_SCALE`."""
    view_offsets_px: FloatArray
    """float32 (B, T, 2): how far the view has gone to the right and down, seen from the middle of the backdrop."""
    light_rgb: FloatArray
    """float32 (B, T, 3): factors on the picture."""
    shadow_depths: FloatArray
    """float32 (B, T) in [0, 1): part of the light that a band of shadow takes away where it is darkest."""
    shadow_phases_rad: FloatArray
    """float32 (B, T): where the band is; 2 pi is one frame width."""
    blurs: FloatArray
    """float32 (B,) in [0, 1]: share of a 3 x 3 mean in the picture."""


def colour_matrices(
    hues_deg: NDArray[np.floating], saturations: NDArray[np.floating], gains: NDArray[np.floating]
) -> FloatArray:
    """Matrices (..., 3, 3) that turn the hue by so many degrees and multiply saturation and brightness (in YIQ)."""
    hues_rad = np.deg2rad(hues_deg)
    cosine, sine = np.cos(hues_rad) * saturations, np.sin(hues_rad) * saturations
    turn = np.zeros((*np.shape(hues_deg), 3, 3))
    turn[..., 0, 0] = 1
    turn[..., 1, 1], turn[..., 1, 2] = cosine, -sine
    turn[..., 2, 1], turn[..., 2, 2] = sine, cosine
    return np.asarray(_YIQ_TO_RGB @ turn @ _RGB_TO_YIQ * np.asarray(gains)[..., None, None], np.float32)


class Renderer:
    """Draws frames of one size on one device."""

    def __init__(self, *, height_px: int, width_px: int, device: str = "cpu") -> None:
        self.height_px = height_px
        self.width_px = width_px
        self.device = torch.device(device)
        self._sprites = torch.from_numpy(load_sprites().copy()).to(self.device).float() / 255

    @torch.no_grad()
    def render(self, looks: Looks, poses: Poses, shots: Shots, *, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Draw all frames of all scenes.

        Args:
            looks: What the occupants look like.
            poses: Where they are.
            shots: Backdrop and light.
            noise: float (B, T, 3, H, W), added last; None for none.

        Returns:
            Images, float32 (B, T, 3, H, W) in [0, 1], and owner maps, uint8 (B, T, H, W): the slot that is seen at each
            pixel, or `NO_OWNER`.
        """
        scenes, frames, slots = poses.sizes_px.shape
        images = self._backdrops(shots)
        owners = torch.full(
            (scenes * frames, self.height_px, self.width_px), NO_OWNER, dtype=torch.uint8, device=self.device
        )
        for slot in range(slots):
            if poses.is_present[:, :, slot].any():
                self._draw(images, owners, slot, looks, poses)
        blur = self._tensor(np.repeat(shots.blurs, frames))[:, None, None, None]
        if shots.blurs.any():
            images = torch.lerp(images, F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1), blur)
        images = images * self._light(shots)
        if noise is not None:
            images = images + noise.reshape(images.shape)
        shape = (scenes, frames, 3, self.height_px, self.width_px)
        return images.clamp(0, 1).view(shape), owners.view(scenes, frames, self.height_px, self.width_px)

    def _tensor(self, array: NDArray[np.floating] | BoolArray) -> Tensor:
        # a copy, since torch takes no read-only arrays, such as broadcast ones
        return torch.as_tensor(np.array(array, np.float32), device=self.device)

    def _backdrops(self, shots: Shots) -> Tensor:
        """The part of each backdrop that is in view: (B * T, 3, H, W)."""
        frames = shots.view_offsets_px.shape[1]
        y = torch.linspace(-1, 1, self.height_px, device=self.device)
        x = torch.linspace(-1, 1, self.width_px, device=self.device)
        grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
        half_size_px = np.array([self.width_px, self.height_px]) / 2
        offsets = self._tensor(shots.view_offsets_px.reshape(-1, 2) / half_size_px)
        grid = (torch.stack([grid_x, grid_y], -1)[None] + offsets[:, None, None]) / BACKDROP_SCALE
        backdrops = shots.backdrops.repeat_interleave(frames, 0) if frames > 1 else shots.backdrops
        return F.grid_sample(backdrops, grid, align_corners=False, padding_mode="reflection")

    def _light(self, shots: Shots) -> Tensor:
        """Factors on the pictures: (B * T, 3, 1, W), or (B * T, 3, 1, 1) where no shadow falls."""
        light = self._tensor(shots.light_rgb.reshape(-1, 3))[:, :, None, None]
        if not shots.shadow_depths.any():
            return light
        x = torch.linspace(0, 2 * torch.pi, self.width_px, device=self.device)
        phases = self._tensor(shots.shadow_phases_rad.reshape(-1, 1))
        darkness = (0.5 - 0.5 * torch.cos(x - phases)) * self._tensor(shots.shadow_depths.reshape(-1, 1))
        return light * (1 - darkness)[:, None, None, :]

    def _draw(self, images: Tensor, owners: Tensor, slot: int, looks: Looks, poses: Poses) -> None:
        """Put one slot over all frames, in place. Only a window around each sprite is touched."""
        count = len(images)
        frames = poses.sizes_px.shape[1]
        centres = poses.centres_px[:, :, slot].reshape(count, 2)
        half_sizes = poses.sizes_px[:, :, slot].reshape(count) / 2
        aspects = poses.aspects[:, :, slot].reshape(count)
        radius = float((half_sizes * np.sqrt(aspects + 1 / aspects)).max())
        side = int(np.ceil(2 * radius)) + 2
        size_px = np.array([min(side, self.width_px), min(side, self.height_px)])
        limits = np.array([self.width_px, self.height_px]) - size_px
        corners = np.clip(np.floor(centres - size_px / 2), 0, limits).astype(np.int64)

        columns = torch.as_tensor(corners[:, :1] + np.arange(size_px[0]), device=self.device)
        rows = torch.as_tensor(corners[:, 1:] + np.arange(size_px[1]), device=self.device)
        from_centre_x = (columns + 0.5 - self._tensor(centres[:, :1]))[:, None, :]
        from_centre_y = (rows + 0.5 - self._tensor(centres[:, 1:]))[:, :, None]
        rotations = poses.rotations_rad[:, :, slot].reshape(count, 1, 1)
        cosine, sine = self._tensor(np.cos(rotations)), self._tensor(np.sin(rotations))
        half_widths = half_sizes * np.sqrt(aspects) * poses.facings[:, :, slot].reshape(count)
        half_heights = half_sizes / np.sqrt(aspects)
        u = (cosine * from_centre_x + sine * from_centre_y) / self._tensor(half_widths)[:, None, None]
        v = (cosine * from_centre_y - sine * from_centre_x) / self._tensor(half_heights)[:, None, None]

        def per_frame(array: FloatArray) -> Tensor:
            return self._tensor(np.repeat(array[:, slot], frames, axis=0))

        sprite_indices = torch.as_tensor(np.repeat(looks.sprite_indices[:, slot], frames), device=self.device)
        texture = F.grid_sample(self._sprites[sprite_indices], torch.stack([u, v], -1), align_corners=False)
        colour = torch.einsum("nij,njhw->nihw", per_frame(looks.colour_matrices), texture[:, :3])
        mark_places, mark_colours = per_frame(looks.mark_places), per_frame(looks.mark_colours)[:, :, None, None]
        opacities = poses.mark_opacities[:, :, slot].reshape(count, MARKS)
        for mark in range(MARKS):
            if not opacities[:, mark].any():
                continue
            mark_x, mark_y, mark_radius = mark_places[:, mark, :, None, None].unbind(1)
            inside = (u - mark_x) ** 2 + (v - mark_y) ** 2 < mark_radius**2
            weight = inside * self._tensor(opacities[:, mark])[:, None, None]
            colour = torch.lerp(colour, mark_colours.expand_as(colour), weight[:, None])
        present = self._tensor(poses.is_present[:, :, slot].reshape(count, 1, 1))
        alpha = texture[:, 3] * present

        frame = torch.arange(count, device=self.device)[:, None, None]
        at = (frame, rows[:, :, None], columns[:, None, :])
        channel = torch.arange(3, device=self.device)[None, :, None, None]
        at_colours = (frame[:, None], channel, rows[:, None, :, None], columns[:, None, None, :])
        images[at_colours] = torch.lerp(images[at_colours], colour.clamp(0, 1), alpha[:, None])
        owners[at] = torch.where(alpha > 0.5, slot, owners[at]).to(torch.uint8)
