"""What every propagation session checks: the frames of a walk, its seeds, and the names of its tracks.

Knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fiftyone_plugin.types import BoolArray, Frame, FrameMasks, Seed

__all__ = ["Walk"]


class Walk:
    """A position in a video that moves one way only.

    Args:
        height_px: Height of every frame.
        width_px: Width of every frame.
    """

    def __init__(self, *, height_px: int, width_px: int) -> None:
        self.height_px = height_px
        self.width_px = width_px
        self.step = -1
        """Frames passed so far, less one; counts up in both directions."""
        self.is_backward = False
        self._frame: Frame | None = None
        self.last_index: int | None = None
        """Index of the latest frame; None before the first."""

    @property
    def frame(self) -> Frame:
        """The current frame.

        Raises:
            ValueError: There is none yet.
        """
        if self._frame is None:
            raise ValueError("no frame yet: call advance first")
        return self._frame

    def is_on(self, frame: Frame) -> bool:
        """Whether this very frame is the current one."""
        return self._frame is frame

    def advance(self, frame: Frame) -> None:
        """Make this the current frame.

        Raises:
            ValueError: It has another size, or goes against the direction of the walk.
        """
        if (frame.height_px, frame.width_px) != (self.height_px, self.width_px):
            raise ValueError(
                f"frame {frame.index} is {frame.height_px} x {frame.width_px} px: "
                f"must be {self.height_px} x {self.width_px} like the session"
            )
        last = self.last_index
        if last is not None:
            is_backward = frame.index < last
            if frame.index == last or (self.step > 0 and is_backward != self.is_backward):
                raise ValueError(f"frame {frame.index} after {last}: must go on in one direction")
            self.is_backward = is_backward
        self._frame, self.last_index = frame, frame.index
        self.step += 1

    def state(self) -> dict[str, Any]:
        """Where the walk is, in plain values; see `interfaces.ResumableSession`."""
        return {"step": self.step, "is_backward": self.is_backward, "last_index": self.last_index}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on where another walk was; there is no current frame until the next `advance`.

        Raises:
            ValueError: This walk has begun already.
        """
        if self.step >= 0:
            raise ValueError(f"the walk is at step {self.step}: only a new one can go on from a state")
        self.step, self.is_backward, self.last_index = state["step"], state["is_backward"], state["last_index"]

    def check_seeds(self, seeds: Sequence[Seed]) -> list[int]:
        """The tracks that seeds name.

        Raises:
            ValueError: There is no frame yet, a track is named twice, or a mask is not of the frame's size.
        """
        frame = self.frame
        for seed in seeds:
            if seed.mask is not None and seed.mask.shape != (self.height_px, self.width_px):
                raise ValueError(
                    f"mask of track {seed.track_id} on frame {frame.index} is {seed.mask.shape}: "
                    f"must be {(self.height_px, self.width_px)}"
                )
        track_ids = [seed.track_id for seed in seeds]
        if len(set(track_ids)) != len(track_ids):
            raise ValueError(f"seeds of tracks {track_ids}: must name each track once")
        return track_ids

    def check_live(self, track_ids: Sequence[int], live: Sequence[int]) -> None:
        """Make sure that all these tracks are live.

        Raises:
            ValueError: One is not, or is named twice.
        """
        if not set(track_ids) <= set(live) or len(set(track_ids)) != len(track_ids):
            raise ValueError(f"tracks {list(track_ids)}: must be live and named once; live are {list(live)}")

    def no_masks(self) -> FrameMasks:
        """The answer on a frame where no track is live."""
        none = np.zeros(0, np.float32)
        masks: BoolArray = np.zeros((0, self.height_px, self.width_px), np.bool_)
        return FrameMasks(self.frame.index, np.zeros(0, np.int64), masks, none, none)
