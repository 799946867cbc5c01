"""The data that flows between the stages.

Frozen dataclasses, checked where they are made. NumPy at every boundary; tensors stay inside backends.
This module knows nothing of models, video files or FiftyOne.

Letters: N detections, K live tracks, T frames of a track, M embeddings, D embedding size, H and W frame size.
Boxes are ``xyxy`` in pixels, origin top left, right and bottom exclusive. Frame indices are 0-based and ranges
half-open ``[start, stop)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BoolArray",
    "Crop",
    "Decision",
    "Detections",
    "Encounter",
    "EncounterKind",
    "FloatArray",
    "Frame",
    "FrameMasks",
    "Gallery",
    "IntArray",
    "Outcome",
    "Repair",
    "RepairKind",
    "Rle",
    "Seed",
    "Source",
    "Support",
    "Track",
    "TrackingResult",
    "VideoInfo",
]

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


def _require(condition: bool, message: str) -> None:
    """Raise ``ValueError`` where a value breaks the contract of its type (a bug in a backend, not bad user input)."""
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What is known of a source before it is decoded."""

    source: str
    """Path or ``dataset:NAME`` as the user gave it."""
    width_px: int
    height_px: int
    frame_count: int
    """Number of frames; for a video file the container's claim until it was decoded to its end."""
    frames_per_second: float
    """Average rate; use `Frame.pts_seconds` for time, the rate may vary."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded frame."""

    index: int
    """0-based position in the video."""
    pts_seconds: float
    """Presentation time from the container; ``index / fps`` only where a source has no clock (folders)."""
    image_rgb: NDArray[np.uint8]
    """uint8 (H, W, 3)."""

    def __post_init__(self) -> None:
        _require(self.index >= 0, f"frame index {self.index}: must be 0 or more")
        image = self.image_rgb
        _require(
            image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3,
            f"image_rgb {image.dtype} {image.shape}: must be uint8 (H, W, 3)",
        )

    @property
    def height_px(self) -> int:
        return int(self.image_rgb.shape[0])

    @property
    def width_px(self) -> int:
        return int(self.image_rgb.shape[1])


@dataclass(frozen=True, slots=True)
class Rle:
    """A binary mask as COCO run-length encoding (compressed counts, column major). Functions: `geometry`."""

    height_px: int
    width_px: int
    counts: bytes


@dataclass(frozen=True, slots=True)
class Detections:
    """What a detector found in one frame: boxes without identity."""

    frame_index: int
    boxes_xyxy: FloatArray
    """float32 (N, 4), pixels, clipped to the frame."""
    scores: FloatArray
    """float32 (N,) in [0, 1], highest first."""
    phrases: tuple[str, ...]
    """N of the phrases that were asked for, exactly as they were asked."""

    def __post_init__(self) -> None:
        n = len(self.scores)
        _require(
            self.boxes_xyxy.shape == (n, 4) and self.scores.shape == (n,) and len(self.phrases) == n,
            f"boxes {self.boxes_xyxy.shape}, scores {self.scores.shape}, {len(self.phrases)} phrases: must agree on N",
        )

    def __len__(self) -> int:
        return len(self.phrases)

    @classmethod
    def empty(cls, frame_index: int) -> Detections:
        return cls(frame_index, np.zeros((0, 4), np.float32), np.zeros(0, np.float32), ())


@dataclass(frozen=True, slots=True)
class Seed:
    """What starts, or restarts, the propagation of one track on the current frame: exactly one of box, mask, points."""

    track_id: int
    box_xyxy: FloatArray | None = None
    """float32 (4,), pixels."""
    mask: BoolArray | None = None
    """bool (H, W)."""
    points_xy: FloatArray | None = None
    """float32 (P, 2), pixels."""
    point_labels: IntArray | None = None
    """int64 (P,): 1 on the object, 0 beside it."""

    def __post_init__(self) -> None:
        given = [v is not None for v in (self.box_xyxy, self.mask, self.points_xy)]
        _require(sum(given) == 1, f"seed of track {self.track_id}: give exactly one of box, mask and points")
        if self.box_xyxy is not None:
            _require(self.box_xyxy.shape == (4,), f"box_xyxy {self.box_xyxy.shape}: must be (4,)")
        if self.mask is not None:
            _require(self.mask.ndim == 2 and self.mask.dtype == np.bool_, "mask must be bool (H, W)")
        if self.points_xy is not None:
            labels = self.point_labels
            _require(
                labels is not None and self.points_xy.shape == (len(labels), 2) and len(labels) > 0,
                f"points_xy {self.points_xy.shape}: must be (P, 2) with P >= 1 point_labels",
            )


@dataclass(frozen=True, slots=True)
class FrameMasks:
    """What a propagator returns for one frame. Row order is free; `track_ids` names the rows."""

    frame_index: int
    track_ids: IntArray
    """int64 (K,), unique."""
    masks: BoolArray
    """bool (K, H, W); all False where the propagator believes the object is absent."""
    mask_scores: FloatArray
    """float32 (K,) in [0, 1]: predicted IoU of the mask."""
    object_scores: FloatArray
    """float32 (K,): logit of "the object is visible"; above 0 means yes."""

    def __post_init__(self) -> None:
        k = len(self.track_ids)
        _require(
            self.masks.ndim == 3
            and len(self.masks) == k
            and self.mask_scores.shape == (k,)
            and self.object_scores.shape == (k,),
            f"track_ids {self.track_ids.shape}, masks {self.masks.shape}, mask_scores {self.mask_scores.shape}, "
            f"object_scores {self.object_scores.shape}: must agree on K",
        )
        _require(len(set(self.track_ids.tolist())) == k, f"track_ids {self.track_ids.tolist()}: must be unique")

    def __len__(self) -> int:
        return len(self.track_ids)


@dataclass(frozen=True, slots=True)
class Crop:
    """A cut-out of one object: what embedders see."""

    image_rgb: NDArray[np.uint8]
    """uint8 (h, w, 3)."""
    mask: BoolArray
    """bool (h, w), True on the object."""
    frame: Frame | None = None
    """What it was cut out of, where that is at hand; an embedder may look at it, and keep the latest one at most."""
    left_px: int = 0
    """Column of `frame` in which the crop begins."""
    top_px: int = 0
    """Row of `frame` in which the crop begins."""

    def __post_init__(self) -> None:
        _require(
            self.image_rgb.ndim == 3 and self.image_rgb.shape[:2] == self.mask.shape and self.mask.size > 0,
            f"crop image {self.image_rgb.shape}, mask {self.mask.shape}: must agree and not be empty",
        )


class Source(StrEnum):
    """Where the mask of one frame of a track came from."""

    SEED = "seed"
    PROPAGATED = "propagated"
    REDETECTED = "redetected"
    REPAIRED = "repaired"
    RESEEDED = "reseeded"
    """Propagated anew into a gap: such a mask exists by a repair only, and is `REPAIRED` in its result."""


@dataclass(frozen=True, slots=True)
class Track:
    """Our estimate of one object over the video. A `track_id` never changes its meaning within one result."""

    track_id: int
    """1 or more, unique in the video across phrases."""
    phrase: str
    frame_indices: IntArray
    """int64 (T,), 0-based, strictly increasing; frames where the object is absent are left out."""
    boxes_xyxy: FloatArray
    """float32 (T, 4), pixels."""
    masks: tuple[Rle, ...] | None
    """T masks, or None for a track of boxes."""
    scores: FloatArray
    """float32 (T,) in [0, 1]: probability that the object is visible there."""
    mask_scores: FloatArray
    """float32 (T,) in [0, 1]: predicted IoU of the mask; 1 for given boxes."""
    identity_confidence: FloatArray
    """float32 (T,) in [0, 1]: probability that this is still the object the track began with."""
    sources: tuple[Source, ...]

    def __post_init__(self) -> None:
        t = len(self.frame_indices)
        _require(self.track_id >= 1, f"track_id {self.track_id}: must be 1 or more")
        _require(
            self.boxes_xyxy.shape == (t, 4)
            and self.scores.shape == (t,)
            and self.mask_scores.shape == (t,)
            and self.identity_confidence.shape == (t,)
            and len(self.sources) == t
            and (self.masks is None or len(self.masks) == t),
            f"track {self.track_id}: boxes {self.boxes_xyxy.shape}, scores {self.scores.shape}, {len(self.sources)} "
            f"sources, {'no' if self.masks is None else len(self.masks)} masks: must agree on T = {t}",
        )
        _require(
            bool(np.all(np.diff(self.frame_indices) > 0)),
            f"track {self.track_id}: frame_indices must be strictly increasing",
        )

    def __len__(self) -> int:
        return len(self.frame_indices)


@dataclass(frozen=True, slots=True)
class Gallery:
    """Clean views of one track (or tracklet)."""

    track_id: int
    frame_indices: IntArray
    """int64 (M,)."""
    embeddings: FloatArray | NDArray[np.float16]
    """float32 or float16 (M, D), unit length."""
    weights: FloatArray
    """float32 (M,) in [0, 1]: how clean each view is; 0 for one that is not to be used."""
    embedder_name: str
    part_sizes: tuple[int, ...] = ()
    """Sizes of the embeddings that each one is made of, summing to D; empty where it is one."""

    def __post_init__(self) -> None:
        m = len(self.frame_indices)
        _require(
            not self.part_sizes or sum(self.part_sizes) == self.embeddings.shape[1],
            f"gallery of track {self.track_id}: parts of {self.part_sizes} in embeddings {self.embeddings.shape}",
        )
        _require(
            self.embeddings.ndim == 2 and len(self.embeddings) == m and self.weights.shape == (m,),
            f"gallery of track {self.track_id}: embeddings {self.embeddings.shape}, weights {self.weights.shape}: "
            f"must agree on M = {m}",
        )

    def __len__(self) -> int:
        return len(self.frame_indices)


class EncounterKind(StrEnum):
    """Why identities could have been exchanged."""

    CROSSING = "crossing"
    """Masks or boxes of two tracks touch."""
    OCCLUSION = "occlusion"
    """A track fades or jumps in place."""
    RETURN = "return"
    """A track left, and something of its class came."""


@dataclass(frozen=True, slots=True)
class Encounter:
    """An interval in which identities of one class could be exchanged."""

    encounter_id: int
    kind: EncounterKind
    phrase: str
    start: int
    """0-based first frame."""
    stop: int
    """Frame after the last."""
    track_ids: tuple[int, ...]
    """Tracks as they were propagated, before any repair."""

    def __post_init__(self) -> None:
        _require(self.stop > self.start >= 0, f"encounter [{self.start}, {self.stop}): must be a non-empty range")


class Outcome(StrEnum):
    """What was concluded: abstaining leaves everything as it was and asks a person."""

    KEEP = "keep"
    EXCHANGE = "exchange"
    REASSIGN = "reassign"
    ABSTAIN = "abstain"


@dataclass(frozen=True, slots=True)
class Decision:
    """What the identity layer concluded about one encounter, and from what."""

    encounter: Encounter
    outcome: Outcome
    margin: float
    """Advantage of the chosen hypothesis over the best other one, in log-odds (nats); 0 is undecided."""
    confidence: float
    """Probability in [0, 1] that the identities after the encounter are right, as they stand in the result."""
    terms: Mapping[str, float] = field(default_factory=dict)
    """The parts of the margin by name (appearance, motion, size, ...), in the same unit."""


class RepairKind(StrEnum):
    """What an edit does."""

    EXCHANGE = "exchange"
    """Tracks swap their futures."""
    REASSIGN = "reassign"
    """The future of a track becomes that of another one (a return recognised, a takeover undone)."""
    SPLIT = "split"
    """The future of a track becomes a new track."""
    TRIM = "trim"
    """Frames are taken out: the mask sat on nothing, or on an object that another track has."""
    RESEED = "reseed"
    """Masks were propagated anew into a gap: a track of its own, which this puts in place."""


@dataclass(frozen=True, slots=True)
class Support:
    """What the detector said of one propagated track whenever it looked."""

    track_id: int
    frame_indices: IntArray
    """int64 (L,): frames where the detector looked and the track had a mask."""
    matched: BoolArray
    """bool (L,): a detection was matched to the track."""
    phrases: tuple[str, ...]
    """L: phrase of the matched detection, empty where there was none."""


@dataclass(frozen=True, slots=True)
class Repair:
    """One edit of identities: data first, applied by `identity.repair.apply_repairs`, undone by leaving it out.

    A repair speaks of propagated tracks, never of labels, so that leaving one out does not change what the others mean.
    """

    repair_id: int
    kind: RepairKind
    start: int
    """0-based frame from which it holds."""
    stop: int | None
    """Frame after the last one; None is the end of the propagated track. TRIM and RESEED have one."""
    continues: Mapping[int, tuple[int, int] | None]
    """From `start` on, the key shows the object that track ``value[0]`` showed on frame ``value[1]``; None means an
    object not seen before (SPLIT) or nothing at all until `stop` (TRIM)."""
    relabels: Mapping[int, int | None]
    """What that came to in this result: propagated track to the id it got, None where frames were taken out."""
    margin: float
    """Log-odds (nats) in favour."""
    reason: str
    """One sentence a person can read."""
    encounter_id: int | None = None


@dataclass(frozen=True, slots=True)
class TrackingResult:
    """What a run returns."""

    video: VideoInfo
    tracks: tuple[Track, ...]
    encounters: tuple[Encounter, ...] = ()
    decisions: tuple[Decision, ...] = ()
    repairs: tuple[Repair, ...] = ()
    carried: tuple[Track, ...] = ()
    """The propagated tracks that `repairs` speaks of, before any of them; empty where nobody kept them."""
    frames_processed: int = 0
    seconds: float = 0.0
    """Wall time of the run."""
    peak_memory_mb: float = 0.0
    """Highest resident memory of the process, MiB."""
    warnings: tuple[str, ...] = ()
    """One line each: damaged video, nothing found, ..."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Prompt, options, model names and versions, ready for JSON."""
    was_stopped: bool = False
    """Somebody asked for it before the last frame; the tracks end there."""

    @property
    def needs_review(self) -> tuple[Decision, ...]:
        """Abstentions, the most doubtful first."""
        doubtful = [d for d in self.decisions if d.outcome is Outcome.ABSTAIN]
        return tuple(sorted(doubtful, key=lambda d: d.confidence))
