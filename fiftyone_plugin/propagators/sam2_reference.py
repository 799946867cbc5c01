"""The `sam2` package's own video predictor behind our interface: the yardstick for parity tests and benchmarks.

Objects run one by one and every output of every frame is kept, as the package does it; so memory grows with the length
of the video. Nothing of the predictor is changed: its state is filled by hand, because the package makes one only from
a file, and its loop over the frames is opened, because ours come one by one.

Official behaviour that differs from `sam2`: a seed on a frame to which a track was already carried is a correction of
that frame's mask, with memory, and is filed as a non-conditioning frame.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from fiftyone_plugin.propagators.sam2_image import PixelScaler
from fiftyone_plugin.propagators.sam2_model import PREDICTOR_CLASS, inference, load_model
from fiftyone_plugin.propagators.walk import Walk
from fiftyone_plugin.types import Frame, FrameMasks, Seed
from fiftyone_plugin.weights import resolve_device

__all__ = ["ReferenceSession", "Sam2Reference", "make"]

_NAME = "sam2-reference"
_UNKNOWN_LENGTH = 10**9
"""Frames of a video whose end is not known. The predictor only compares with it."""


def make(variant: str | None, device: str) -> Sam2Reference:
    """Wrap the official predictor for a variant of `sam2_model.VARIANTS` or a local directory."""
    chosen = variant or "bundled"
    device = resolve_device(device)
    predictor = load_model(chosen, device=device, used_by=_NAME, model_class=PREDICTOR_CLASS)
    return Sam2Reference(predictor, name=f"{_NAME}:{chosen}", device=device)


class Sam2Reference:
    """Carries masks with the official predictor.

    Args:
        predictor: A `SAM2VideoPredictor` in evaluation mode.
        name: Name in reports.
        device: Where it lies.
    """

    def __init__(self, predictor: Any, *, name: str, device: str) -> None:
        self._name = name
        self.predictor = predictor
        self.device = device
        self.pixels = PixelScaler(predictor.image_size, device=device)
        self.mask_score = torch.zeros(())
        """Predicted IoU of the mask that was predicted last; the predictor computes it and throws it away."""
        self._record_mask_scores()

    @property
    def name(self) -> str:
        """``sam2-reference:VARIANT``."""
        return self._name

    def open(self, *, height_px: int, width_px: int) -> ReferenceSession:
        """Begin a walk through a video of this size."""
        return ReferenceSession(self, height_px=height_px, width_px=width_px)

    def _record_mask_scores(self) -> None:
        track_step = self.predictor._track_step

        def recording(*args: Any, **kwargs: Any) -> Any:
            outputs = track_step(*args, **kwargs)
            self.mask_score = outputs[1][2].max()
            return outputs

        self.predictor._track_step = recording


class ReferenceSession:
    """One walk; see `interfaces.PropagationSession`. Keeps every output, so its memory grows with every frame."""

    def __init__(self, reference: Sam2Reference, *, height_px: int, width_px: int) -> None:
        self._reference = reference
        self._walk = Walk(height_px=height_px, width_px=width_px)
        self._images: dict[int, torch.Tensor] = {}
        self._mask_scores: dict[int, torch.Tensor] = {}
        self._state = self._empty_state()

    @property
    def track_ids(self) -> tuple[int, ...]:
        """Live tracks, in the order they were first seeded."""
        return tuple(self._state["obj_ids"])

    def advance(self, frame: Frame) -> FrameMasks:
        """Go to the next frame and carry all live tracks there, one by one.

        Raises:
            ValueError: The frame has another size than the session, or goes against the direction of the walk.
        """
        self._walk.advance(frame)
        self._images.clear()
        self._images[frame.index] = self._reference.pixels.scale([frame.image_rgb])[0]
        with inference(self._reference.device):
            for row in range(len(self.track_ids)):
                self._carry(row)
        return self._to_masks(self.track_ids)

    def seed(self, seeds: Sequence[Seed]) -> FrameMasks:
        """Start tracks, or correct live ones, on the current frame, and return the masks of exactly these.

        Raises:
            ValueError: No frame yet, one track twice, or a mask of another size than the frame.
        """
        track_ids = self._walk.check_seeds(seeds)
        predictor, state, index = self._reference.predictor, self._state, self._walk.frame.index
        with inference(self._reference.device):
            for seed in seeds:
                if seed.mask is not None:
                    predictor.add_new_mask(state, index, seed.track_id, torch.from_numpy(seed.mask))
                else:
                    predictor.add_new_points_or_box(
                        state,
                        index,
                        seed.track_id,
                        points=seed.points_xy,
                        labels=seed.point_labels,
                        box=seed.box_xyxy,
                    )
                self._mask_scores[seed.track_id] = self._reference.mask_score
            if seeds:
                # Memories of seeds are made from the current frame, so before the next one comes.
                predictor.propagate_in_video_preflight(state)
        return self._to_masks(track_ids)

    def forget(self, track_ids: Sequence[int]) -> None:
        """Take the current frame out of the memory of these tracks; seeds that started a track are kept.

        Raises:
            ValueError: A track is not live.
        """
        self._walk.check_live(track_ids, self.track_ids)
        for track_id in track_ids:
            self._outputs(track_id)["non_cond_frame_outputs"].pop(self._walk.frame.index, None)

    def drop(self, track_ids: Sequence[int]) -> None:
        """End these tracks.

        Raises:
            ValueError: A track is not live.
        """
        self._walk.check_live(track_ids, self.track_ids)
        for track_id in track_ids:
            self._reference.predictor.remove_object(self._state, track_id, strict=True, need_output=False)
            del self._mask_scores[track_id]

    def _carry(self, row: int) -> None:
        """One round of the loop in the predictor's `propagate_in_video` (sam2_video_predictor.py, lines 585-619)."""
        state, index = self._state, self._walk.frame.index
        outputs = state["output_dict_per_obj"][row]
        outputs["non_cond_frame_outputs"][index], _ = self._reference.predictor._run_single_frame_inference(
            inference_state=state,
            output_dict=outputs,
            frame_idx=index,
            batch_size=1,
            is_init_cond_frame=False,
            point_inputs=None,
            mask_inputs=None,
            reverse=self._walk.is_backward,
            run_mem_encoder=True,
        )
        state["frames_tracked_per_obj"][row][index] = {"reverse": self._walk.is_backward}
        self._mask_scores[state["obj_idx_to_id"][row]] = self._reference.mask_score

    def _outputs(self, track_id: int) -> Any:
        return self._state["output_dict_per_obj"][self._state["obj_id_to_idx"][track_id]]

    def _to_masks(self, track_ids: Sequence[int]) -> FrameMasks:
        if not track_ids:
            return self._walk.no_masks()
        index = self._walk.frame.index
        outputs = [self._outputs(track_id) for track_id in track_ids]
        latest = [o["cond_frame_outputs"].get(index) or o["non_cond_frame_outputs"][index] for o in outputs]
        _, logits = self._reference.predictor._get_orig_video_res_output(
            self._state, torch.cat([output["pred_masks"] for output in latest])
        )
        return FrameMasks(
            index,
            np.array(track_ids, np.int64),
            (logits[:, 0] > 0).cpu().numpy(),
            torch.stack([self._mask_scores[track_id] for track_id in track_ids]).float().clamp(0, 1).cpu().numpy(),
            torch.cat([output["object_score_logits"][:, 0] for output in latest]).float().cpu().numpy(),
        )

    def _empty_state(self) -> dict[str, Any]:
        """What `init_state` makes of a video file (sam2_video_predictor.py, lines 58-100), for a video yet to come."""
        device = torch.device(self._reference.device)
        names = ("point_inputs", "mask_inputs", "output_dict", "temp_output_dict", "frames_tracked")
        return {
            "images": self._images,
            "num_frames": _UNKNOWN_LENGTH,
            "offload_video_to_cpu": False,
            "offload_state_to_cpu": False,
            "video_height": self._walk.height_px,
            "video_width": self._walk.width_px,
            "device": device,
            "storage_device": device,
            "cached_features": {},
            "constants": {},
            "obj_id_to_idx": OrderedDict(),
            "obj_idx_to_id": OrderedDict(),
            "obj_ids": [],
            **{f"{name}_per_obj": {} for name in names},
        }
