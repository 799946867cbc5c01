"""A scripted scene as a video: frames on demand, ground truth, and files.

Frames are drawn in blocks that begin at multiples of `BLOCK_FRAMES`, and noise is seeded by the frame's index: every
walk, over whatever range, sees the same frames, and never more than a block of them is held. Knows nothing of detectors
or tracks other than the true ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import av
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fiftyone_plugin.errors import OutputError
from fiftyone_plugin.geometry import encode_mask, mask_boxes
from fiftyone_plugin.synthetic.actors import Scene
from fiftyone_plugin.synthetic.renderer import BACKDROP_SCALE, Renderer, Shots
from fiftyone_plugin.types import BoolArray, FloatArray, Frame, Rle, Source, Track, VideoInfo
from fiftyone_plugin.video.images import check_range

__all__ = ["BLOCK_FRAMES", "MIN_VISIBLE_PX", "SceneSource", "SyntheticClip"]

BLOCK_FRAMES = 8
"""Frames that are drawn together."""
MIN_VISIBLE_PX = 30
"""An object of which less is seen in a frame counts as absent there."""

_BACKDROP_STREAM, _NOISE_STREAM = 0, 1


class SyntheticClip:
    """The video of a scene.

    Args:
        scene: The script.
    """

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self._renderer = Renderer(height_px=scene.height_px, width_px=scene.width_px)

    @property
    def source(self) -> SceneSource:
        """The frames, as everything in Shepherd wants them."""
        return SceneSource(self)

    @property
    def identities(self) -> tuple[int, ...]:
        """Indices of the scene's actors that are no scenery: actor ``identities[n - 1]`` is track n."""
        return tuple(i for i, actor in enumerate(self.scene.actors) if not actor.is_scenery)

    def ground_truth(self) -> tuple[Track, ...]:
        """The true tracks, with the masks of what is seen; ids 1, 2, ... in the order of the actors.

        Frames where fewer than `MIN_VISIBLE_PX` are seen are left out; somebody who is never seen has no track.
        """
        return self._truth

    def write_video(self, path: str | Path) -> Path:
        """Write the clip as H.264 at a constant rate, and return the path.

        Raises:
            OutputError: The file cannot be written.
        """
        scene = self.scene
        rate = Fraction(scene.frames_per_second).limit_denominator(1000)
        try:
            with av.open(str(path), "w") as container:
                stream = container.add_stream("libx264", rate=rate, options={"crf": "14", "threads": "2"})
                stream.width, stream.height, stream.pix_fmt = scene.width_px, scene.height_px, "yuv420p"
                for frame in self.source.frames():
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(frame.image_rgb, format="rgb24")))
                container.mux(stream.encode())
        except OSError as error:
            raise OutputError(
                f"{path}: cannot be written ({error}): give a path in a folder you can write to"
            ) from None
        return Path(path)

    def write_frames(self, folder: str | Path) -> Path:
        """Write the clip as ``000000.png``, ``000001.png``, ... into a folder, and return the folder.

        Raises:
            OutputError: A file cannot be written.
        """
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            for frame in self.source.frames():
                Image.fromarray(frame.image_rgb).save(Path(folder) / f"{frame.index:06d}.png")
        except OSError as error:
            raise OutputError(f"{folder}: cannot be written ({error}): give a folder you can write to") from None
        return Path(folder)

    def draw_block(self, block: int, *, has_noise: bool = True) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Draw the frames ``[block * BLOCK_FRAMES, ...)``, up to the end of the clip.

        Args:
            block: Number of the block.
            has_noise: False leaves the noise of the picture out, which takes half the time.

        Returns:
            Images, uint8 (T, H, W, 3), and the index of the actor that is seen at each pixel, uint8 (T, H, W), or
            `renderer.NO_OWNER`.
        """
        start = block * BLOCK_FRAMES
        frames = np.arange(start, min(start + BLOCK_FRAMES, self.scene.frame_count))
        noise = torch.from_numpy(np.stack([self._noise(int(f)) for f in frames]))[None] if has_noise else None
        shots = self._shots(frames)
        images, slots = self._renderer.render(self.scene.looks(), self.scene.poses(frames), shots, noise=noise)
        actor_of_slot = np.arange(256).astype(np.uint8)
        actor_of_slot[: len(self.scene.actors)] = self.scene.drawing_order
        pictures = (images[0].permute(0, 2, 3, 1) * 255).round().to(torch.uint8).contiguous()
        return pictures.numpy(), actor_of_slot[slots[0].numpy()]

    def _noise(self, frame: int) -> FloatArray:
        rng = np.random.default_rng((self.scene.seed, _NOISE_STREAM, frame))
        shape = (3, self.scene.height_px, self.scene.width_px)
        return np.asarray(rng.standard_normal(shape, np.float32) * np.float32(self.scene.noise))

    def _shots(self, frames: NDArray[np.int64]) -> Shots:
        scene = self.scene
        return Shots(
            backdrops=self._meadow,
            view_offsets_px=scene.camera.offsets_px(frames)[None].astype(np.float32),
            light_rgb=scene.light.gains_rgb(frames)[None].astype(np.float32),
            shadow_depths=scene.light.shadow_depths(frames)[None].astype(np.float32),
            shadow_phases_rad=scene.light.shadow_phases_rad(frames)[None].astype(np.float32),
            blurs=np.array([scene.blur], np.float32),
        )

    @cached_property
    def _meadow(self) -> Tensor:
        """Grass under a strip of sky: (1, 3, h, w)."""
        rng = np.random.default_rng((self.scene.seed, _BACKDROP_STREAM))
        size = (int(self.scene.height_px * BACKDROP_SCALE), int(self.scene.width_px * BACKDROP_SCALE))
        y = torch.linspace(0, 1, size[0])[None, None, :, None]
        grass = torch.tensor([0.42, 0.62, 0.28])[None, :, None, None] * (1.1 - 0.35 * y)
        sky = torch.tensor([0.62, 0.78, 0.92])[None, :, None, None]
        meadow = torch.where(y > 0.24, grass, sky).expand(1, 3, *size)
        for cells, amplitude in ((6, 0.12), (40, 0.1), (160, 0.1)):
            patches = torch.from_numpy(rng.uniform(-0.5, 0.5, (1, 1, cells, cells)).astype(np.float32))
            meadow = meadow + amplitude * F.interpolate(patches, size, mode="bilinear", align_corners=False)
        return meadow.clamp(0, 1)

    @cached_property
    def _truth(self) -> tuple[Track, ...]:
        seen: dict[int, list[tuple[int, FloatArray, Rle]]] = {actor: [] for actor in self.identities}
        for block in range(-(-self.scene.frame_count // BLOCK_FRAMES)):
            for offset, owner in enumerate(self.draw_block(block, has_noise=False)[1]):
                for actor, rows in seen.items():
                    mask: BoolArray = owner == actor
                    if np.count_nonzero(mask) >= MIN_VISIBLE_PX:
                        rows.append((block * BLOCK_FRAMES + offset, mask_boxes(mask[None])[0], encode_mask(mask)))
        return tuple(
            _true_track(number, self.scene.actors[actor].class_name, rows)
            for number, (actor, rows) in enumerate(seen.items(), start=1)
            if rows
        )


class SceneSource:
    """The frames of a `SyntheticClip`, as a `FrameSource`."""

    def __init__(self, clip: SyntheticClip) -> None:
        self._clip = clip

    @property
    def info(self) -> VideoInfo:
        """Size, length and rate."""
        scene = self._clip.scene
        return VideoInfo(
            f"synthetic:{scene.name}", scene.width_px, scene.height_px, scene.frame_count, scene.frames_per_second
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """Nothing ever goes wrong here."""
        return ()

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[Frame]:
        """Yield the frames ``[start, stop)``; a `stop` beyond the end is the end.

        Raises:
            FrameRangeError: `start` is not inside the clip, or `stop` is not after `start`.
        """
        info = self.info
        return self._walk(start, check_range(start, stop, frame_count=info.frame_count, source=info.source))

    def _walk(self, start: int, stop: int) -> Iterator[Frame]:
        rate = self._clip.scene.frames_per_second
        for block in range(start // BLOCK_FRAMES, -(-stop // BLOCK_FRAMES)):
            images, _ = self._clip.draw_block(block)
            for offset, image in enumerate(images):
                index = block * BLOCK_FRAMES + offset
                if start <= index < stop:
                    yield Frame(index, index / rate, image.copy())


def _true_track(track_id: int, phrase: str, rows: list[tuple[int, FloatArray, Rle]]) -> Track:
    count = len(rows)
    certain = np.ones(count, np.float32)
    return Track(
        track_id=track_id,
        phrase=phrase,
        frame_indices=np.array([frame for frame, _, _ in rows], np.int64),
        boxes_xyxy=np.stack([box for _, box, _ in rows]),
        masks=tuple(mask for _, _, mask in rows),
        scores=certain,
        mask_scores=certain,
        identity_confidence=certain,
        sources=(Source.SEED, *[Source.PROPAGATED] * (count - 1)),
    )
