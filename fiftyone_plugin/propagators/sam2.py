"""SAM 2.1 as a streaming engine: frames come one by one, all live tracks move in one batch, memory is bounded.

The networks are those of the `sam2` package; its video predictor, which loads a whole video, keeps every output and
loops over the objects, is not used (it is the backend `sam2-reference`). From the same seeds both give the same masks,
with these differences, all on purpose:

- A restart of a live track is a conditioning frame without memory, as its first seed was. The official predictor
  treats a prompt on a frame that it has already tracked as a correction: it mixes it with the memory and the earlier
  mask, and files the frame as non-conditioning.
- Of the conditioning frames of a track the first and the most recent ones are kept; the official predictor keeps all.
- Pointers are always scaled for a window of 16 frames; the official predictor shrinks the window for shorter clips.

On a GPU the frames that `feed` passes on are encoded ahead, the work for each frame is one recorded CUDA graph, and the
next frame is begun before the caller has seen the current one: `docs/engine.md` says how and what it brings.

Knows nothing of why tracks are seeded, restarted or dropped.
"""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fiftyone_plugin.config import PropagationOptions
from fiftyone_plugin.propagators.cuda_graphs import GraphCache
from fiftyone_plugin.propagators.memory_bank import BankShape, MemoryBank, upload
from fiftyone_plugin.propagators.sam2_ahead import FramesAhead
from fiftyone_plugin.propagators.sam2_attention import MemoryAttention, has_kernels
from fiftyone_plugin.propagators.sam2_features import FramePooler
from fiftyone_plugin.propagators.sam2_heads import ObjectHeads, Prediction
from fiftyone_plugin.propagators.sam2_image import FrameFeatures, ImageEncoder
from fiftyone_plugin.propagators.sam2_masks import enlarge_masks
from fiftyone_plugin.propagators.sam2_model import best_dtype, check_switches, computing_in, load_model
from fiftyone_plugin.propagators.sam2_step import TrackStep
from fiftyone_plugin.propagators.walk import Walk
from fiftyone_plugin.types import Crop, FloatArray, Frame, FrameMasks, IntArray, Seed
from fiftyone_plugin.weights import resolve_device

__all__ = ["Sam2Propagator", "Sam2Session", "make"]

_NAME = "sam2"
_log = logging.getLogger(__name__)


def make(variant: str | None, device: str, options: PropagationOptions | None = None) -> Sam2Propagator:
    """Make the engine for a variant of `sam2_model.VARIANTS` or a local directory."""
    chosen = variant or "bundled"
    device = resolve_device(device)
    options = options or PropagationOptions()
    model = load_model(chosen, device=device, used_by=_NAME, image_scale=options.image_scale)
    return Sam2Propagator(model, name=f"{_NAME}:{chosen}", device=device, options=options)


class Sam2Propagator:
    """Carries masks with SAM 2.1.

    Args:
        model: A `SAM2Base` in evaluation mode and float32; its modules are turned into what is computed in, so it
            cannot be shared.
        name: Name in reports.
        device: Where the model lies.
        options: How it is run; `image_scale` and `frame_stride` are none of its business.
        max_seed_memories: Conditioning frames that a track looks back at, 2 or more: the first and the latest ones.
        objects_per_batch: Overrides that of `options`.
        dtype: What is computed in; None is the best that the device has.
    """

    def __init__(
        self,
        model: Any,
        *,
        name: str,
        device: str,
        options: PropagationOptions | None = None,
        max_seed_memories: int = 4,
        objects_per_batch: int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_switches(model, used_by=name)
        options = options or PropagationOptions()
        self._name = name
        self.device = device
        self.dtype = dtype or best_dtype(device)
        self.objects_per_batch = objects_per_batch or options.objects_per_batch
        """Halved when a batch does not fit the memory of the GPU."""
        self.encode_batch_frames = options.encode_batch_frames
        self.image_size: int = model.image_size
        is_cuda = torch.device(device).type == "cuda"
        # Encoding runs beside the rest, so that the two must not share working memory.
        self._graphs = [GraphCache(), GraphCache()] if is_cuda and options.graphs else []
        for_frames, for_objects = self._graphs or (None, None)
        began = time.perf_counter()
        uses_kernels = options.kernels and has_kernels(device, self.dtype)
        self._kernel_seconds = time.perf_counter() - began if uses_kernels else 0.0
        with torch.inference_mode():
            self.attention = MemoryAttention(model, device=device, dtype=self.dtype, use_kernels=uses_kernels)
            self.heads = ObjectHeads(model, dtype=self.dtype)
            self.encoder = ImageEncoder(model, device=device, dtype=self.dtype, graphs=for_frames)
        self._pooler = FramePooler(self.encoder, channels=model.hidden_dim)
        self._latest: weakref.ref[Sam2Session] | None = None
        self.step = TrackStep(model, self.heads, self.attention, device=device, dtype=self.dtype, graphs=for_objects)
        recent = model.num_maskmem - 1
        self.bank_shape = BankShape(
            tokens=(model.image_size // model.backbone_stride) ** 2,
            map_channels=model.mem_dim,
            pointer_channels=model.hidden_dim,
            max_seeds=max_seed_memories,
            max_recent_maps=min(recent, options.memory_frames or recent),
            max_recent_pointers=model.max_obj_ptrs_in_encoder - 1,
        )

    @property
    def name(self) -> str:
        """``sam2:VARIANT``."""
        return self._name

    @property
    def warm_up_seconds(self) -> float:
        """Spent so far on compiling and testing Triton kernels, and on recording CUDA graphs."""
        return self._kernel_seconds + sum(cache.seconds for cache in self._graphs)

    @property
    def recorded(self) -> tuple[str, ...]:
        """The CUDA graphs there are: what for, and the shape of the longest input, objects or frames first."""
        return tuple(name for cache in self._graphs for name in cache.recorded)

    def open(self, *, height_px: int, width_px: int) -> Sam2Session:
        """Begin a walk through a video of this size."""
        return Sam2Session(self, height_px=height_px, width_px=width_px)

    @property
    def feature_size(self) -> int:
        """Length of what `pool` gives for an object."""
        return self._pooler.feature_size

    def pool(self, frame: Frame, crops: Sequence[Crop]) -> FloatArray:
        """Average image features over objects; see `interfaces.FeaturePool`."""
        session = None if self._latest is None else self._latest()
        known = None if session is None else session.features_of(frame)
        return self._pooler.pool(frame, crops, known=known)

    def follow(self, session: Sam2Session) -> None:
        """Remember which session went on last: the frame that it is on is the one that is asked about."""
        self._latest = weakref.ref(session)

    def halve_batch(self, objects: int) -> None:
        """Carry fewer objects at once from now on, because so many did not fit the memory of the GPU."""
        self.objects_per_batch = max(objects // 2, 1)
        _log.warning(
            "%s: %d objects at once do not fit the memory of %s, going on with %d",
            self._name,
            objects,
            self.device,
            self.objects_per_batch,
        )
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


@dataclass(frozen=True, slots=True)
class _Carried:
    """What became of a batch of tracks on one frame: in part still on its way from the GPU."""

    track_ids: IntArray
    """(K,)."""
    logits: Tensor
    """float32 (K, 4h, 4w), on the CPU: above 0 on the object."""
    scores: Tensor
    """float32 (2, K), on the CPU: predicted IoU and object logit."""
    maps: Tensor
    pointers: Tensor
    is_ready: Any
    """CUDA event; None on a CPU."""

    def answer(self, frame: Frame, rows: IntArray) -> FrameMasks:
        """Wait until it has arrived, and make the masks; `rows` are those that are wanted.

        A GPU works on the next frame meanwhile.
        """
        if self.is_ready is not None:
            self.is_ready.synchronize()
        scores = self.scores.numpy()[:, rows]
        masks = enlarge_masks(self.logits.numpy()[rows], height_px=frame.height_px, width_px=frame.width_px)
        return FrameMasks(frame.index, self.track_ids[rows], masks, scores[0].clip(0, 1), scores[1])


class Sam2Session:
    """One walk; see `interfaces.PropagationSession` for the order of calls.

    On a CPU, tracks that look back at equally many frames share a batch, which needs no padding; elsewhere all tracks
    do, padded to a fixed length and to a power of two.
    """

    def __init__(self, propagator: Sam2Propagator, *, height_px: int, width_px: int) -> None:
        self._propagator = propagator
        self._walk = Walk(height_px=height_px, width_px=width_px)
        # A CPU gains nothing by either.
        self._is_cuda = self._is_padded = self._runs_ahead = torch.device(propagator.device).type == "cuda"
        self._features: FrameFeatures | None = None
        self._fed: FramesAhead | None = None
        self._begun: tuple[Frame, list[_Carried]] | None = None
        self._changed: set[int] = set()
        # As the official predictor keeps them: maps are rounded to 16 bits everywhere, pointers are not.
        map_dtype = torch.float16 if propagator.dtype == torch.float16 else torch.bfloat16
        with torch.inference_mode():
            self.bank = MemoryBank(
                propagator.bank_shape, map_dtype=map_dtype, pointer_dtype=propagator.dtype, device=propagator.device
            )

    @property
    def track_ids(self) -> tuple[int, ...]:
        """Live tracks, in the order they were first seeded."""
        return self.bank.track_ids

    @property
    def has_state(self) -> bool:
        """Always."""
        return True

    def state(self) -> dict[str, Any]:
        """All that the next frames depend on; see `interfaces.ResumableSession`."""
        return {"walk": self._walk.state(), "bank": self.bank.state()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on where another session was; see `interfaces.ResumableSession`.

        Raises:
            ValueError: This session has begun already.
        """
        self._walk.load_state(state["walk"])
        with torch.inference_mode():
            self.bank.load_state(state["bank"])

    def feed(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Pass frames on to whoever calls `advance` with them; on a GPU they are encoded ahead, in batches."""
        if not self._runs_ahead:
            yield from frames
            return
        self._fed = FramesAhead(frames, self._propagator.encoder, batch_frames=self._propagator.encode_batch_frames)
        try:
            yield from self._fed
        finally:
            self._fed = self._begun = None

    def advance(self, frame: Frame) -> FrameMasks:
        """Go to the next frame and carry all live tracks there.

        The image is encoded only if a track is live, or else when a seed is given on it.

        Raises:
            ValueError: The frame has another size than the session, or goes against the direction of the walk.
        """
        self._walk.advance(frame)
        self._propagator.follow(self)
        self._features = None
        live = self.bank.track_ids
        begun, self._begun = self._begun, None
        carried = begun[1] if begun is not None and begun[0] is frame else []
        if not live:
            return self._walk.no_masks()
        with computing_in(self._propagator.device, self._propagator.dtype):
            kept = [self._valid_rows(batch) for batch in carried]
            known = {int(t) for batch, rows in zip(carried, kept, strict=True) for t in batch.track_ids[rows]}
            missing = [t for t in live if t not in known]
            if missing:
                more = self._carry(self._current_features(), missing, step=self._walk.step)
                carried = [*carried, *more]
                kept += [np.arange(len(batch.track_ids)) for batch in more]
            for batch, rows in zip(carried, kept, strict=True):
                self._remember(batch, rows)
            self._changed.clear()
            self._begin_next(frame, live)
        return _in_order(live, [b.answer(frame, rows) for b, rows in zip(carried, kept, strict=True)])

    def seed(self, seeds: Sequence[Seed]) -> FrameMasks:
        """Start tracks, or restart live ones, on the current frame, and return the masks of exactly these.

        Raises:
            ValueError: No frame yet, one track twice, or a mask of another size than the frame.
        """
        track_ids = self._walk.check_seeds(seeds)
        if not seeds:
            return self._walk.no_masks()
        with computing_in(self._propagator.device, self._propagator.dtype):
            features = self._current_features()
            parts: list[Prediction] = []
            for seed in seeds:
                parts.append(self._segment(features, seed))
                if seed.track_id not in self.bank.track_ids:
                    self.bank.add(seed.track_id)
            prediction = Prediction.join(parts)
            maps = self._propagator.heads.remember(features, prediction, is_seed=True)
            self.bank.write_seeds(track_ids, self._walk.step, maps, prediction.pointers)
            self._changed.update(track_ids)
            carried = self._collect(track_ids, prediction, maps)
        return carried.answer(self._walk.frame, np.arange(len(track_ids)))

    def forget(self, track_ids: Sequence[int]) -> None:
        """Keep the current frame out of the memory of these tracks.

        The only seed of a track is kept even so: without one it could not be carried on.

        Raises:
            ValueError: A track is not live.
        """
        self._walk.check_live(track_ids, self.bank.track_ids)
        self.bank.forget(track_ids, self._walk.step)
        self._changed.update(track_ids)

    def drop(self, track_ids: Sequence[int]) -> None:
        """End these tracks and free their slots.

        Raises:
            ValueError: A track is not live.
        """
        self._walk.check_live(track_ids, self.bank.track_ids)
        for track_id in track_ids:
            self.bank.drop(track_id)

    def features_of(self, frame: Frame) -> FrameFeatures | None:
        """Features of this very frame, if it is the current one: as they are, or encoded now and kept for seeds."""
        if not self._walk.is_on(frame):
            return None
        with computing_in(self._propagator.device, self._propagator.dtype):
            return self._current_features()

    def _current_features(self) -> FrameFeatures:
        if self._features is None:
            frame = self._walk.frame
            self._features = None if self._fed is None else self._fed.features(frame)
            if self._features is None:
                (self._features,) = self._propagator.encoder.encode([frame.image_rgb])
        return self._features

    def _begin_next(self, frame: Frame, track_ids: Sequence[int]) -> None:
        """Carry the tracks to the next frame, so that the GPU works while the caller looks at this one.

        What the caller changes meanwhile is carried again.
        """
        following = None if self._fed is None else self._fed.after(frame)
        features = None if following is None or self._fed is None else self._fed.features(following)
        if following is not None and features is not None:
            self._begun = following, self._carry(features, track_ids, step=self._walk.step + 1)

    def _valid_rows(self, batch: _Carried) -> IntArray:
        """Rows of tracks that still live and whose memory is still what it was when the batch was carried."""
        live = set(self.bank.track_ids) - self._changed
        return np.flatnonzero([int(t) in live for t in batch.track_ids])

    def _carry(self, features: FrameFeatures, track_ids: Sequence[int], *, step: int) -> list[_Carried]:
        """Predict tracks on a frame, in batches; nothing is remembered yet."""
        propagator = self._propagator
        groups = [list(track_ids)] if self._is_padded else self.bank.layouts(track_ids, step)
        carried: list[_Carried] = []
        while groups:
            group = groups.pop(0)
            batch = group[: propagator.objects_per_batch]
            try:
                carried.append(self._carry_batch(features, batch, step=step))
            except torch.OutOfMemoryError:
                if len(batch) == 1:
                    raise
                propagator.halve_batch(len(batch))
                groups.insert(0, group)
                continue
            if group[len(batch) :]:
                groups.insert(0, group[len(batch) :])
        return carried

    def _carry_batch(self, features: FrameFeatures, track_ids: Sequence[int], *, step: int) -> _Carried:
        rows = len(track_ids)
        if self._is_padded:
            rows = min(1 << (rows - 1).bit_length(), max(self._propagator.objects_per_batch, rows))
        memory = self.bank.read(track_ids, step, is_padded=self._is_padded, rows=rows)
        prediction, maps = self._propagator.step.run(features, memory)
        return self._collect(track_ids, prediction.first(len(track_ids)), maps)

    def _remember(self, batch: _Carried, rows: IntArray) -> None:
        """Put what was carried to the current frame into the memory."""
        if len(rows) == 0:
            return
        maps, pointers = batch.maps[: len(batch.track_ids)], batch.pointers[: len(batch.track_ids)]
        if len(rows) < len(batch.track_ids):
            chosen = upload(rows, maps.device)
            maps, pointers = maps[chosen], pointers[chosen]
        self.bank.write_recent(batch.track_ids[rows].tolist(), self._walk.step, maps, pointers)

    def _segment(self, features: FrameFeatures, seed: Seed) -> Prediction:
        """Predict one seeded object from this frame alone."""
        heads, side = self._propagator.heads, self._propagator.image_size
        device = self._propagator.device
        if seed.mask is not None:
            mask = torch.from_numpy(seed.mask)[None, None].float().to(device)
            if seed.mask.shape != (side, side):
                mask = F.interpolate(mask, size=(side, side), mode="bilinear", align_corners=False, antialias=True)
            return heads.seed_masks(features, (mask >= 0.5).float()[:, 0])
        if seed.box_xyxy is not None:
            points, labels = seed.box_xyxy.reshape(2, 2), np.array([2, 3])
        else:
            assert seed.points_xy is not None
            assert seed.point_labels is not None
            points, labels = seed.points_xy, seed.point_labels
        scaled = torch.from_numpy(np.asarray(points, np.float32)) / torch.tensor(
            [self._walk.width_px, self._walk.height_px]
        )
        return heads.seed_points(
            features, (scaled * side)[None].to(device), torch.from_numpy(labels.astype(np.int32))[None].to(device)
        )

    def _collect(self, track_ids: Sequence[int], prediction: Prediction, maps: Tensor) -> _Carried:
        """Send mask logits and scores on their way to the CPU."""
        logits = prediction.mask_logits.float()
        scores = torch.stack([prediction.mask_scores.float(), prediction.object_logits.float()])
        is_ready = None
        if self._is_cuda:
            logits, scores = _to_cpu(logits), _to_cpu(scores)
            is_ready = torch.cuda.current_stream().record_event()
        else:
            logits, scores = logits.cpu(), scores.cpu()
        return _Carried(np.array(track_ids, np.int64), logits, scores, maps, prediction.pointers, is_ready)


def _to_cpu(tensor: Tensor) -> Tensor:
    """Copy without waiting; the caller waits for an event."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)


def _in_order(track_ids: Sequence[int], answers: list[FrameMasks]) -> FrameMasks:
    """Join answers, in the order of these tracks."""
    if len(answers) == 1 and answers[0].track_ids.tolist() == list(track_ids):
        return answers[0]
    row = {t: i for i, t in enumerate(t for answer in answers for t in answer.track_ids.tolist())}
    order = [row[t] for t in track_ids]
    return FrameMasks(
        answers[0].frame_index,
        np.array(track_ids, np.int64),
        np.concatenate([a.masks for a in answers])[order],
        np.concatenate([a.mask_scores for a in answers])[order],
        np.concatenate([a.object_scores for a in answers])[order],
    )
