"""Scripted backends: a detector, a propagator and an embedder that answer from ground truth, with errors to order.

They satisfy `interfaces` and pass the same contract tests as real backends. Everything around the models (pipeline,
identity layer, runner, operators) can so be tested in milliseconds against errors that are known to the frame. Knows
nothing of real models.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fiftyone_plugin.geometry import box_iou, clip_boxes, decode_mask, mask_boxes, mask_iou
from fiftyone_plugin.interfaces import FrameSource, PhraseBoxes
from fiftyone_plugin.propagators.walk import Walk
from fiftyone_plugin.types import BoolArray, Crop, FloatArray, Frame, FrameMasks, Rle, Seed, Track

__all__ = [
    "Failure",
    "Loss",
    "ScriptedDetector",
    "ScriptedEmbedder",
    "ScriptedPropagator",
    "ScriptedSession",
    "StickyMask",
    "Swap",
    "Takeover",
]

_MIN_BINDING_IOU = 0.1


class ScriptedDetector:
    """Detects what the ground truth says, with misses, jitter and false alarms.

    A detector is given pictures, not frame numbers. So this one recognises a picture by a hash of its pixels, which it
    learns by walking through `frames` itself, no further than it must. It knows the pictures of that source only: for a
    clip that went through a video file, give the source that reads the file.

    Chance depends on the seed and the frame alone, not on the order of the calls.

    Args:
        truth: The true tracks; a detection's phrase is right where it equals the track's.
        frames: The pictures that will be asked about.
        miss_rate: Probability in [0, 1] that an object is not found in a frame.
        jitter_px: Standard deviation of each side of a box.
        false_alarms: Mean number of boxes on nothing in a frame.
        score: Mean score of a true detection, in [0, 1]; single ones lie within 0.1 of it.
        max_tokens: What `max_tokens` says; a word is a token, a text has two more.
        seed: Of all chance.
    """

    def __init__(
        self,
        truth: Sequence[Track],
        frames: FrameSource,
        *,
        miss_rate: float = 0.0,
        jitter_px: float = 0.0,
        false_alarms: float = 0.0,
        score: float = 0.8,
        max_tokens: int = 256,
        seed: int = 0,
    ) -> None:
        self._truth = tuple(truth)
        self._pictures = _PictureIndex(frames)
        self._miss_rate = miss_rate
        self._jitter_px = jitter_px
        self._false_alarms = false_alarms
        self._score = score
        self._max_tokens = max_tokens
        self._seed = seed

    @property
    def name(self) -> str:
        """Always the same."""
        return "scripted"

    @property
    def max_tokens(self) -> int:
        """As it was made."""
        return self._max_tokens

    def count_tokens(self, text: str) -> int:
        """Words and full stops, and two special tokens."""
        return len(text.replace(".", " . ").split()) + 2

    def detect(self, images_rgb: Sequence[NDArray[np.uint8]], phrases: Sequence[str]) -> list[PhraseBoxes]:
        """Answer from the ground truth; see `interfaces.Detector`.

        Raises:
            LookupError: A picture is none of the source's.
        """
        return [self._detect_one(image, phrases) for image in images_rgb]

    def _detect_one(self, image: NDArray[np.uint8], phrases: Sequence[str]) -> PhraseBoxes:
        frame = self._pictures.index_of(image)
        height, width = image.shape[:2]
        boxes: list[NDArray[np.float64]] = []
        scores: list[NDArray[np.float64]] = []
        for track in self._truth:
            row = int(np.searchsorted(track.frame_indices, frame))
            if row == len(track) or track.frame_indices[row] != frame:
                continue
            rng = np.random.default_rng((self._seed, frame, track.track_id))
            if rng.random() < self._miss_rate:
                continue
            boxes.append(track.boxes_xyxy[row] + self._jitter_px * rng.standard_normal(4))
            right = np.array([phrase == track.phrase for phrase in phrases])
            scores.append(np.where(right, self._score + rng.uniform(-0.1, 0.1), rng.uniform(0, 0.1)))
        rng = np.random.default_rng((self._seed, frame, 0))
        for _ in range(int(rng.poisson(self._false_alarms))):
            corner, side = rng.uniform((0, 0), (0.8 * width, 0.8 * height)), rng.uniform(0.1, 0.2) * width
            boxes.append(np.array([*corner, *(corner + side)]))
            right = np.arange(len(phrases)) == rng.integers(len(phrases))
            scores.append(np.where(right, rng.uniform(0.35, 0.55), 0.05))
        if not boxes:
            return PhraseBoxes(np.zeros((0, 4), np.float32), np.zeros((0, len(phrases)), np.float32))
        clipped = clip_boxes(np.asarray(boxes, np.float32), height_px=height, width_px=width)
        return PhraseBoxes(clipped, np.asarray(np.clip(scores, 0, 1), np.float32))


@dataclass(frozen=True, slots=True)
class Swap:
    """From this frame on, whoever was on one of the two true objects is on the other one."""

    frame: int
    objects: tuple[int, int]
    """Ids of ground-truth tracks."""


@dataclass(frozen=True, slots=True)
class Takeover:
    """From this frame on, whoever was on the first true object is on the second one (as others may be)."""

    frame: int
    left: int
    """Id of the ground-truth track that loses its track."""
    taken: int
    """Id of the ground-truth track that now has two."""


@dataclass(frozen=True, slots=True)
class Loss:
    """From this frame on, whoever was on this true object shows nothing until it is seeded again."""

    frame: int
    object: int


@dataclass(frozen=True, slots=True)
class StickyMask:
    """While this true object is away, its mask stays where it was last, and the object score stays high."""

    object: int


Failure = Swap | Takeover | Loss | StickyMask


class ScriptedPropagator:
    """Carries the true masks, and fails as it is told.

    A seed binds its track to the true object that it overlaps best; a seed on nothing stays on its own area, with a low
    mask score. Failures happen to true objects, since the ids of tracks are the pipeline's: they strike when a walk
    goes forwards over their frame, every time it does. A walk backwards goes wrong only in a `StickyMask`.

    Args:
        truth: The true tracks, with masks.
        failures: What goes wrong.
    """

    def __init__(self, truth: Sequence[Track], *, failures: Sequence[Failure] = ()) -> None:
        self._truth = {track.track_id: _TrueObject(track) for track in truth}
        self._failures = tuple(failures)
        known = set(self._truth)
        for failure in self._failures:
            if not _objects_of(failure) <= known:
                raise ValueError(f"{failure}: the ground truth has the objects {sorted(known)}")

    @property
    def name(self) -> str:
        """Always the same."""
        return "scripted"

    def open(self, *, height_px: int, width_px: int) -> ScriptedSession:
        """Begin a walk; see `interfaces.Propagator`."""
        return ScriptedSession(self._truth, self._failures, height_px=height_px, width_px=width_px)


class ScriptedSession:
    """One walk; see `interfaces.PropagationSession`.

    Attributes:
        forgotten: ``(frame, track_id)`` of everything that `forget` was told, for tests.
    """

    def __init__(
        self, truth: dict[int, _TrueObject], failures: Sequence[Failure], *, height_px: int, width_px: int
    ) -> None:
        self._truth = truth
        self._timed = sorted((f for f in failures if not isinstance(f, StickyMask)), key=lambda f: f.frame)
        self._sticky = {f.object for f in failures if isinstance(f, StickyMask)}
        self._size = (height_px, width_px)
        self._walk = Walk(height_px=height_px, width_px=width_px)
        self._bound: dict[int, _Binding] = {}
        self.forgotten: list[tuple[int, int]] = []

    @property
    def track_ids(self) -> tuple[int, ...]:
        """Live tracks, in the order they were first seeded."""
        return tuple(self._bound)

    def advance(self, frame: Frame) -> FrameMasks:
        """Go to the next frame; see `interfaces.PropagationSession`."""
        before = frame.index if self._walk.last_index is None else self._walk.last_index
        self._walk.advance(frame)
        for failure in self._timed:
            if before < failure.frame <= frame.index:
                self._strike(failure)
        return self._answer(list(self._bound))

    def seed(self, seeds: Sequence[Seed]) -> FrameMasks:
        """Bind tracks to what their seeds overlap; see `interfaces.PropagationSession`."""
        track_ids = self._walk.check_seeds(seeds)
        for seed in seeds:
            mask = self._seeded_area(seed)
            self._bound[seed.track_id] = _Binding(self._best_object(mask, self._now()), mask)
        return self._answer(track_ids)

    def forget(self, track_ids: Sequence[int]) -> None:
        """Only noted: a script has no memory that could be spoilt."""
        self._walk.check_live(track_ids, self.track_ids)
        self.forgotten += [(self._now(), track_id) for track_id in track_ids]

    def drop(self, track_ids: Sequence[int]) -> None:
        """End these tracks."""
        self._walk.check_live(track_ids, self.track_ids)
        for track_id in track_ids:
            del self._bound[track_id]

    @property
    def has_state(self) -> bool:
        """Always."""
        return True

    def state(self) -> dict[str, Any]:
        """Where the walk is, and what tracks are on; see `interfaces.ResumableSession`."""
        bound = [(track_id, on.object, on.last_mask) for track_id, on in self._bound.items()]
        return {"walk": self._walk.state(), "bound": bound}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on where another session was; see `interfaces.ResumableSession`."""
        self._walk.load_state(state["walk"])
        self._bound = {track_id: _Binding(on, mask) for track_id, on, mask in state["bound"]}

    def _now(self) -> int:
        return self._walk.frame.index

    def _strike(self, failure: Swap | Takeover | Loss) -> None:
        for binding in self._bound.values():
            if isinstance(failure, Swap) and binding.object in failure.objects:
                first, second = failure.objects
                binding.object = second if binding.object == first else first
            elif isinstance(failure, Takeover) and binding.object == failure.left:
                binding.object = failure.taken
            elif isinstance(failure, Loss) and binding.object == failure.object:
                binding.object, binding.last_mask = None, np.zeros(self._size, np.bool_)

    def _seeded_area(self, seed: Seed) -> BoolArray:
        """The area a seed speaks of: its mask, its box, or the smallest true mask that its points lie on."""
        if seed.mask is not None:
            return seed.mask.copy()
        area = np.zeros(self._size, np.bool_)
        if seed.box_xyxy is not None:
            x0, y0, x1, y1 = np.clip(np.round(seed.box_xyxy), 0, None).astype(int)
            area[y0:y1, x0:x1] = True
            return area
        points = np.asarray(seed.points_xy)[np.asarray(seed.point_labels) == 1].astype(int)
        inside = [p for p in points if 0 <= p[0] < self._size[1] and 0 <= p[1] < self._size[0]]
        for true_object in self._truth.values():
            mask = true_object.mask_at(self._now(), self._size)
            if any(mask[y, x] for x, y in inside) and (not area.any() or mask.sum() < area.sum()):
                area = mask
        return area

    def _best_object(self, area: BoolArray, frame: int) -> int | None:
        """The true object that fits a seed best; its box is compared too, since a seed may be a box."""
        best, best_iou = None, _MIN_BINDING_IOU
        for number, true_object in self._truth.items():
            mask = true_object.mask_at(frame, self._size)
            if not mask.any() or not area.any():
                continue
            of_masks = mask_iou(area[None], mask[None])[0, 0]
            of_boxes = box_iou(mask_boxes(area[None]), mask_boxes(mask[None]))[0, 0]
            iou = float(max(of_masks, of_boxes))
            if iou > best_iou:
                best, best_iou = number, iou
        return best

    def _answer(self, track_ids: Sequence[int]) -> FrameMasks:
        now = self._now()
        masks = np.zeros((len(track_ids), *self._size), np.bool_)
        mask_scores = np.zeros(len(track_ids), np.float32)
        object_scores = np.full(len(track_ids), -5.0, np.float32)
        for row, track_id in enumerate(track_ids):
            binding = self._bound[track_id]
            if binding.object is None:
                masks[row], certainty = binding.last_mask, (0.3, 1.0)
            else:
                true_mask, certainty = self._truth[binding.object].mask_at(now, self._size), (0.9, 5.0)
                if not true_mask.any() and binding.object in self._sticky:
                    true_mask, certainty = binding.last_mask, (0.5, 2.0)
                masks[row] = true_mask
                binding.last_mask = true_mask
            if masks[row].any():
                mask_scores[row], object_scores[row] = certainty
        return FrameMasks(now, np.array(track_ids, np.int64), masks, mask_scores, object_scores)


class ScriptedEmbedder:
    """Embeds the mean colour of a crop, so that what looks alike to a person who squints is alike.

    For tests of everything that uses embeddings, where the right answer must be plain: crops of one colour come out
    the same, far colours come out unlike (random Fourier features of a Gaussian kernel on RGB). It is no re-identifier.

    Args:
        dimension: Size of the embedding, even.
        width: Colour difference, in [0, 255], at which the similarity has fallen to 0.6.
        noise: Standard deviation of what is added to each embedding, relative to its length; seeded by the crop.
        seed: Of the features and the noise.
    """

    def __init__(self, *, dimension: int = 64, width: float = 40.0, noise: float = 0.0, seed: int = 0) -> None:
        if dimension < 2 or dimension % 2:
            raise ValueError(f"dimension = {dimension}: must be even and 2 or more")
        self._dimension = dimension
        self._noise = noise
        self._seed = seed
        self._frequencies = np.random.default_rng((seed, 1)).standard_normal((3, dimension // 2)) / width

    @property
    def name(self) -> str:
        """Always the same."""
        return "scripted"

    @property
    def dimension(self) -> int:
        """As it was made."""
        return self._dimension

    def embed(self, crops: Sequence[Crop]) -> FloatArray:
        """Embed crops; see `interfaces.Embedder`. An empty mask counts the whole crop."""
        embeddings = np.zeros((len(crops), self._dimension), np.float32)
        for row, crop in enumerate(crops):
            mask = crop.mask if crop.mask.any() else np.ones_like(crop.mask)
            angles = crop.image_rgb[mask].mean(axis=0) @ self._frequencies
            features = np.concatenate([np.cos(angles), np.sin(angles)])
            features /= np.linalg.norm(features)
            if self._noise:
                rng = np.random.default_rng((self._seed, int.from_bytes(_digest(crop.image_rgb))))
                features = features + self._noise * rng.standard_normal(self._dimension) / np.sqrt(self._dimension)
            embeddings[row] = features / np.linalg.norm(features)
        return embeddings


@dataclass(slots=True)
class _Binding:
    """What a track is on."""

    object: int | None
    last_mask: BoolArray


class _TrueObject:
    """A ground-truth track by frame."""

    def __init__(self, track: Track) -> None:
        if track.masks is None:
            raise ValueError(f"ground-truth track {track.track_id}: must have masks")
        self._masks: dict[int, Rle] = dict(zip(track.frame_indices.tolist(), track.masks, strict=True))

    def mask_at(self, frame: int, size: tuple[int, int]) -> BoolArray:
        """What is seen of it in a frame: bool (H, W)."""
        rle = self._masks.get(frame)
        return decode_mask(rle) if rle is not None else np.zeros(size, np.bool_)


class _PictureIndex:
    """Finds the frame number of a picture by its content."""

    def __init__(self, frames: FrameSource) -> None:
        self._source = frames
        self._ahead: Iterator[Frame] | None = None
        self._known: dict[bytes, int] = {}

    def index_of(self, image_rgb: NDArray[np.uint8]) -> int:
        wanted = _digest(image_rgb)
        if self._ahead is None:
            self._ahead = self._source.frames()
        while wanted not in self._known:
            frame = next(self._ahead, None)
            if frame is None:
                raise LookupError(
                    f"picture of {image_rgb.shape}: is none of the {len(self._known)} of {self._source.info.source}: "
                    f"give the scripted detector the same source as the pipeline"
                )
            self._known.setdefault(_digest(frame.image_rgb), frame.index)
        return self._known[wanted]


def _digest(image_rgb: NDArray[np.uint8]) -> bytes:
    content = hashlib.blake2b(np.ascontiguousarray(image_rgb).tobytes(), digest_size=8)
    content.update(repr(image_rgb.shape).encode())
    return content.digest()


def _objects_of(failure: Failure) -> set[int]:
    if isinstance(failure, Swap):
        return set(failure.objects)
    if isinstance(failure, Takeover):
        return {failure.left, failure.taken}
    return {failure.object}
