"""Any propagator on every n-th frame only, with the masks between interpolated.

Frames that objects are carried to are *key frames* here: the first one, every n-th after it, and the last one. The
masks of a frame between two key frames are known once the second has been seen, so a session reads up to n frames
ahead; only frames that come through `feed` are skipped. Knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from fiftyone_plugin.geometry import mask_boxes
from fiftyone_plugin.interfaces import FeedableSession, PropagationSession, Propagator, ResumableSession
from fiftyone_plugin.types import BoolArray, FloatArray, Frame, FrameMasks, Seed

__all__ = ["StridedPropagator", "StridedSession", "interpolate_mask"]


class StridedPropagator:
    """Carries objects to every n-th frame.

    Args:
        propagator: What carries them.
        stride: n, 2 or more.
    """

    def __init__(self, propagator: Propagator, *, stride: int) -> None:
        self.propagator = propagator
        """As it was given."""
        self._stride = stride

    @property
    def name(self) -> str:
        """That of the propagator, and the stride."""
        return f"{self.propagator.name}/{self._stride}"

    def open(self, *, height_px: int, width_px: int) -> StridedSession:
        """Begin a walk through a video of this size."""
        return StridedSession(self.propagator.open(height_px=height_px, width_px=width_px), stride=self._stride)


class StridedSession:
    """One walk; see `interfaces.PropagationSession`.

    Seeds belong on key frames. On a frame between two of them nothing can be seeded any more, as soon as a track is
    live: the objects have been carried past it.
    """

    def __init__(self, session: PropagationSession, *, stride: int) -> None:
        self._session = session
        self._stride = stride
        self._between: dict[int, Frame] = {}
        """Skipped frames by index, each with the key frame that follows it."""
        self._earlier: FrameMasks | None = None
        self._later: tuple[Frame, FrameMasks] | None = None
        self._frame: Frame | None = None
        self._is_begun = False
        """The first key frame lies behind."""

    @property
    def track_ids(self) -> tuple[int, ...]:
        """Live tracks, in the order they were first seeded."""
        return self._session.track_ids

    def feed(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Pass frames on to whoever calls `advance` with them, having looked ahead to the next key frame."""
        skipped: dict[int, list[Frame]] = {}
        keys: Iterator[Frame] = _key_frames(iter(frames), self._stride, skipped, is_first=not self._is_begun)
        if isinstance(self._session, FeedableSession):
            keys = self._session.feed(keys)
        for key in keys:
            between = skipped.pop(key.index)
            self._between = {frame.index: key for frame in between}
            yield from between
            yield key

    def advance(self, frame: Frame) -> FrameMasks:
        """Go to the next frame: carry all live tracks to it, or between two key frames interpolate.

        Raises:
            ValueError: See `interfaces.PropagationSession`.
        """
        self._frame, self._is_begun = frame, True
        later, self._later = self._later, None
        key = self._between.get(frame.index)
        if later is not None and later[0] is frame:
            self._earlier = self._only_live(later[1])
            return self._earlier
        if key is None or self._earlier is None or not self._session.track_ids:
            if key is not None:
                return _no_masks(frame)
            self._earlier = self._session.advance(frame)
            return self._earlier
        if later is None:
            later = key, self._session.advance(key)
        self._later = later
        part = (frame.index - self._earlier.frame_index) / (key.index - self._earlier.frame_index)
        return _interpolated(frame, self._only_live(self._earlier), self._only_live(later[1]), part)

    def seed(self, seeds: Sequence[Seed]) -> FrameMasks:
        """Start tracks, or restart live ones, on the current frame.

        Raises:
            ValueError: The frame is not a key frame and tracks have been carried past it; or see
                `interfaces.PropagationSession`.
        """
        if self._later is not None and seeds:
            assert self._frame is not None
            raise ValueError(
                f"seeds on frame {self._frame.index}: tracks have been carried to frame {self._later[0].index} "
                f"already; with a stride of {self._stride} seed on every {self._stride}th frame"
            )
        if self._frame is not None and self._frame.index in self._between and seeds:
            self._session.advance(self._frame)
        born = self._session.seed(seeds)
        if seeds:
            self._earlier = _joined(self._earlier, born)
        return born

    def forget(self, track_ids: Sequence[int]) -> None:
        """Keep the current frame out of the memory of these tracks; one between two key frames was never in it.

        Raises:
            ValueError: A track is not live, or is named twice.
        """
        if self._later is None:
            self._session.forget(track_ids)

    def drop(self, track_ids: Sequence[int]) -> None:
        """End these tracks and free their slots.

        Raises:
            ValueError: A track is not live, or is named twice.
        """
        self._session.drop(track_ids)

    @property
    def has_state(self) -> bool:
        """On key frames only: past one, the objects are ahead of the frame."""
        is_resumable = isinstance(self._session, ResumableSession) and self._session.has_state
        return is_resumable and self._later is None and (self._frame is None or self._frame.index not in self._between)

    def state(self) -> dict[str, Any]:
        """All that the next frames depend on; see `interfaces.ResumableSession`."""
        assert isinstance(self._session, ResumableSession)
        return {"session": self._session.state(), "is_begun": self._is_begun, "earlier": _packed(self._earlier)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on where another session was; see `interfaces.ResumableSession`.

        Raises:
            ValueError: This session has begun already.
        """
        assert isinstance(self._session, ResumableSession)
        self._session.load_state(state["session"])
        self._is_begun, self._earlier = state["is_begun"], _unpacked(state["earlier"])

    def _only_live(self, answer: FrameMasks) -> FrameMasks:
        keep = np.isin(answer.track_ids, self._session.track_ids)
        if keep.all():
            return answer
        return FrameMasks(
            answer.frame_index,
            answer.track_ids[keep],
            answer.masks[keep],
            answer.mask_scores[keep],
            answer.object_scores[keep],
        )


def interpolate_mask(earlier: BoolArray, later: BoolArray, part: float) -> BoolArray:
    """A mask on its way from one to another: its box moves evenly, and its outline within the box does.

    Outlines are blended as distances to them (Raya and Udupa, "Shape-based interpolation of multidimensional objects",
    IEEE Trans. Med. Imag. 1990), after both masks were brought to the size of the box between. Where one of the two is
    empty, the nearer one counts.

    Args:
        earlier: bool (H, W).
        later: bool (H, W).
        part: Where between, in [0, 1].
    """
    boxes = mask_boxes(np.stack([earlier, later]))
    if not boxes.any(axis=1).all():
        return (earlier if part < 0.5 else later).copy()
    box = (1 - part) * boxes[0] + part * boxes[1]
    x0, y0, x1, y1 = np.round(box).astype(int).tolist()
    size = max(x1 - x0, 1), max(y1 - y0, 1)
    blended = (1 - part) * _outline_distance(earlier, boxes[0], size) + part * _outline_distance(later, boxes[1], size)
    mask = np.zeros_like(earlier)
    inside = blended > 0
    mask[y0 : y0 + size[1], x0 : x0 + size[0]] = inside[: mask.shape[0] - y0, : mask.shape[1] - x0]
    return mask


def _outline_distance(mask: BoolArray, box_xyxy: FloatArray, size: tuple[int, int]) -> FloatArray:
    """Signed distance to the outline, above 0 inside, of the mask in its box, scaled to (width, height): (h, w)."""
    x0, y0, x1, y1 = box_xyxy.astype(int).tolist()
    part = cv2.resize(mask[y0:y1, x0:x1].astype(np.float32), size, interpolation=cv2.INTER_LINEAR) >= 0.5
    # A rim of nothing: outside of its box there is no object, also where the box is filled.
    solid = np.pad(part, 1).astype(np.uint8)
    inside = cv2.distanceTransform(solid, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    outside = cv2.distanceTransform(1 - solid, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray((inside - outside)[1:-1, 1:-1], np.float32)


def _key_frames(
    frames: Iterator[Frame], stride: int, skipped: dict[int, list[Frame]], *, is_first: bool
) -> Generator[Frame, None, None]:
    """Yield the key frames; put the frames before each into `skipped`, under its index."""
    try:
        between: list[Frame] = []
        for frame in frames:
            if is_first or len(between) + 1 == stride:
                skipped[frame.index], between, is_first = between, [], False
                yield frame
            else:
                between.append(frame)
        if between:
            *rest, last = between
            skipped[last.index] = rest
            yield last
    finally:
        if isinstance(frames, Generator):
            frames.close()


def _interpolated(frame: Frame, earlier: FrameMasks, later: FrameMasks, part: float) -> FrameMasks:
    rows = {t: k for k, t in enumerate(earlier.track_ids.tolist())}
    at = np.array([rows[t] for t in later.track_ids.tolist()], np.int64)
    masks = [interpolate_mask(earlier.masks[i], later.masks[k], part) for k, i in enumerate(at.tolist())]
    return FrameMasks(
        frame.index,
        later.track_ids,
        np.stack(masks) if masks else later.masks,
        np.asarray((1 - part) * earlier.mask_scores[at] + part * later.mask_scores, np.float32),
        np.asarray((1 - part) * earlier.object_scores[at] + part * later.object_scores, np.float32),
    )


def _joined(answer: FrameMasks | None, born: FrameMasks) -> FrameMasks:
    """The answer on a key frame with the seeds' masks in place of what they replace."""
    if answer is None or answer.frame_index != born.frame_index:
        return born
    keep = ~np.isin(answer.track_ids, born.track_ids)
    return FrameMasks(
        born.frame_index,
        np.concatenate([answer.track_ids[keep], born.track_ids]),
        np.concatenate([answer.masks[keep], born.masks]),
        np.concatenate([answer.mask_scores[keep], born.mask_scores]),
        np.concatenate([answer.object_scores[keep], born.object_scores]),
    )


def _packed(answer: FrameMasks | None) -> dict[str, Any] | None:
    """An answer in plain values and arrays, eight pixels a byte."""
    if answer is None:
        return None
    return {
        "frame_index": answer.frame_index,
        "track_ids": answer.track_ids,
        "masks": np.packbits(answer.masks, axis=None),
        "shape": answer.masks.shape,
        "mask_scores": answer.mask_scores,
        "object_scores": answer.object_scores,
    }


def _unpacked(kept: Mapping[str, Any] | None) -> FrameMasks | None:
    if kept is None:
        return None
    shape = tuple(kept["shape"])
    masks = np.unpackbits(kept["masks"], count=int(np.prod(shape))).reshape(shape).astype(np.bool_)
    return FrameMasks(kept["frame_index"], kept["track_ids"], masks, kept["mask_scores"], kept["object_scores"])


def _no_masks(frame: Frame) -> FrameMasks:
    none = np.zeros(0, np.float32)
    masks: BoolArray = np.zeros((0, frame.height_px, frame.width_px), np.bool_)
    return FrameMasks(frame.index, np.zeros(0, np.int64), masks, none, none)
