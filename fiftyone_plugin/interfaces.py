"""What a backend must offer. Passing `tests/contract/` is the definition of a backend.

A backend writes as little as its job allows: batching, splitting of long prompts, thresholds, non-maximum suppression
and the cutting of crops are written once, by us (`detectors.prompted`, `embedders.evidence`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fiftyone_plugin.types import Crop, FloatArray, Frame, FrameMasks, Seed, VideoInfo

__all__ = [
    "Detector",
    "Embedder",
    "FeaturePool",
    "FeedableSession",
    "FrameSource",
    "PhraseBoxes",
    "PropagationSession",
    "Propagator",
    "ResumableSession",
]


@runtime_checkable
class FrameSource(Protocol):
    """Frames in order. Holds no more than a few of them at a time."""

    @property
    def info(self) -> VideoInfo: ...

    @property
    def warnings(self) -> tuple[str, ...]:
        """One line for everything that was wrong so far, such as where a damaged video stops."""
        ...

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[Frame]:
        """Yield the frames ``[start, stop)`` in order; may be called again, also for an earlier range.

        Raises:
            FrameRangeError: `start` is not inside the video, or `stop` is not after `start`.
        """
        ...


@dataclass(frozen=True, slots=True)
class PhraseBoxes:
    """Raw answer of a detector for one image, before thresholds: one row per box, one score per phrase."""

    boxes_xyxy: FloatArray
    """float32 (Q, 4), pixels of the image that was given."""
    phrase_scores: FloatArray
    """float32 (Q, P) in [0, 1]: how well box q fits phrase p."""


@runtime_checkable
class Detector(Protocol):
    """Finds objects of the named classes in single images."""

    @property
    def name(self) -> str: ...

    @property
    def max_tokens(self) -> int:
        """Tokens that one text may have, special tokens included."""
        ...

    def count_tokens(self, text: str) -> int:
        """Tokens of `text` with this detector's tokenizer, special tokens included."""
        ...

    def detect(self, images_rgb: Sequence[NDArray[np.uint8]], phrases: Sequence[str]) -> list[PhraseBoxes]:
        """Score every candidate box of every image against every phrase.

        Args:
            images_rgb: uint8 (H, W, 3) each; the sizes may differ.
            phrases: One to P phrases in lower case, that together fit into `max_tokens`.
        """
        ...


@runtime_checkable
class PropagationSession(Protocol):
    """One walk through consecutive frames of one video, forwards or backwards.

    The identity invariant: a `track_id` always means the object it was first seeded with; a slot is only a position
    in a batch. The order of calls on a frame is: `advance`, then any of `seed`, `forget`, `drop`.
    """

    @property
    def track_ids(self) -> tuple[int, ...]:
        """Live tracks, in the order they were first seeded."""
        ...

    def advance(self, frame: Frame) -> FrameMasks:
        """Go to the next frame and carry all live tracks there; the image is encoded once, whatever K is.

        Raises:
            ValueError: The frame has another size than the first, or goes against the direction of the walk.
        """
        ...

    def seed(self, seeds: Sequence[Seed]) -> FrameMasks:
        """Start tracks, or restart live ones, on the current frame, and return the masks of exactly these.

        A restarted track keeps its id and forgets the masks it had on this frame.

        Raises:
            ValueError: No frame yet, one track twice, or a mask of another size than the frame.
        """
        ...

    def forget(self, track_ids: Sequence[int]) -> None:
        """Keep the current frame out of the memory of these tracks; the next frames will not look back at it.

        A track that was first seeded on this frame keeps it, since it has nothing else to look back at.

        Raises:
            ValueError: A track is not live, or is named twice.
        """
        ...

    def drop(self, track_ids: Sequence[int]) -> None:
        """End these tracks and free their slots.

        Raises:
            ValueError: A track is not live, or is named twice.
        """
        ...


@runtime_checkable
class ResumableSession(PropagationSession, Protocol):
    """A session whose walk can go on in another process. Optional: without it, a video cut short starts over."""

    @property
    def has_state(self) -> bool:
        """Whether `state` may be called now; it is true again within a few frames."""
        ...

    def state(self) -> dict[str, Any]:
        """All that the next frames depend on, between two frames (the current frame itself is not part of it).

        Values are NumPy arrays, or plain: numbers, text, None, and lists, tuples, sets and mappings of these. The size
        depends on the live tracks, never on the length of the walk.
        """
        ...

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on where another session of the same propagator and frame size was; the next call must be `advance`.

        From there on, both give the same masks, bit for bit, on the same device.

        Raises:
            ValueError: This session has begun already.
        """
        ...


@runtime_checkable
class FeedableSession(PropagationSession, Protocol):
    """A session that gains from seeing frames ahead of `advance`. Optional."""

    def feed(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Pass frames on in order, having read a bounded number of them ahead; `advance` is called with each."""
        ...


@runtime_checkable
class Propagator(Protocol):
    """Carries masks from frame to frame."""

    @property
    def name(self) -> str: ...

    def open(self, *, height_px: int, width_px: int) -> PropagationSession:
        """Begin a walk through a video of this size; costs no forward pass."""
        ...


@runtime_checkable
class FeaturePool(Protocol):
    """Says what an image encoder makes of objects. Optional: a propagator that offers it shares its encoder.

    The embedder ``sam2-features`` then needs no pass of its own over the frames that objects are carried to.
    """

    @property
    def feature_size(self) -> int: ...

    def pool(self, frame: Frame, crops: Sequence[Crop]) -> FloatArray:
        """Average the features of a frame under the masks of crops of it: float32 (M, D), unit length.

        The frame is encoded only where it has not been already: it is the one that the latest session is on, or the
        one that was pooled last.
        """
        ...


@runtime_checkable
class Embedder(Protocol):
    """Turns masked crops into vectors that tell individuals apart."""

    @property
    def name(self) -> str: ...

    @property
    def dimension(self) -> int: ...

    def embed(self, crops: Sequence[Crop]) -> FloatArray:
        """Embed a batch of crops: float32 (M, D), unit length, in the order given; (0, D) for no crop."""
        ...
