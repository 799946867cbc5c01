"""The streaming engine against the official predictor, which is the independent oracle here.

The predictor is driven by its own public methods on a folder of JPEG files that it reads itself. A seed is given to it
before it has tracked that frame, which makes it a conditioning frame, as in our engine.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fiftyone_plugin.geometry import decode_mask, mask_boxes
from fiftyone_plugin.propagators.sam2 import Sam2Propagator, Sam2Session
from fiftyone_plugin.propagators.sam2_model import PREDICTOR_CLASS, load_model
from fiftyone_plugin.propagators.sam2_reference import make as make_reference
from fiftyone_plugin.synthetic.clips import SyntheticClip
from fiftyone_plugin.synthetic.scenes import leaving_and_returning
from fiftyone_plugin.types import Frame, FrameMasks, Seed, Track

FRAMES = 60
MIN_MEAN_IOU = 0.999
"""Both compute in float32, in different order; logits differ by some 1e-5, so pixels on the very edge may flip."""

Masks = dict[tuple[int, int], np.ndarray]
"""Binary masks by (track_id, frame)."""


@dataclass(frozen=True)
class Script:
    """What happens to the tracks, by frame."""

    seeds: dict[int, list[Seed]]
    drops: dict[int, list[int]]
    forgets: dict[int, list[int]]


@pytest.fixture(scope="module")
def clip() -> SyntheticClip:
    return leaving_and_returning(frames=FRAMES)


@pytest.fixture(scope="module")
def jpeg_folder(clip: SyntheticClip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("jpeg")
    for frame in clip.source.frames():
        Image.fromarray(frame.image_rgb).save(folder / f"{frame.index:05d}.jpg", quality=95)
    return folder


@pytest.fixture(scope="module")
def frames(jpeg_folder: Path) -> list[Frame]:
    return [Frame(i, i / 25, np.array(Image.open(p))) for i, p in enumerate(sorted(jpeg_folder.iterdir()))]


@pytest.fixture(scope="module")
def script(clip: SyntheticClip) -> Script:
    """Births on the first frame and midway, by box, mask and points; a restart, a drop, forgotten frames."""
    first, second = clip.ground_truth()
    gone = sorted(set(range(FRAMES)) - set(first.frame_indices.tolist()))
    # Proves that the clip has an absence, which both must live through.
    assert len(gone) > 3

    def mask(track: Track, frame: int) -> np.ndarray:
        return decode_mask(track.masks[int(np.flatnonzero(track.frame_indices == frame)[0])])

    def box(track: Track, frame: int) -> np.ndarray:
        return mask_boxes(mask(track, frame)[None])[0]

    rows, columns = np.nonzero(mask(second, 30))
    middle = np.array([[columns[len(columns) // 2], rows[len(rows) // 2]]], np.float32)
    return Script(
        seeds={
            0: [Seed(1, box_xyxy=box(first, 0)), Seed(2, mask=mask(second, 0))],
            12: [Seed(3, box_xyxy=box(second, 12))],
            30: [Seed(4, points_xy=middle, point_labels=np.array([1]))],
            33: [Seed(2, box_xyxy=box(second, 33)), Seed(5, mask=mask(second, 33))],
        },
        drops={25: [3]},
        forgets={frame: [1] for frame in (5, 6, 20)},
    )


@pytest.fixture(scope="module")
def model() -> Any:
    return load_model("bundled", device="cpu", used_by="test")


@pytest.fixture(scope="module")
def predictor() -> Any:
    return load_model("bundled", device="cpu", used_by="test", model_class=PREDICTOR_CLASS)


def run_engine(session: Any, frames: Iterable[Frame], script: Script) -> Masks:
    masks: Masks = {}

    def keep(answer: FrameMasks) -> None:
        for track_id, mask in zip(answer.track_ids.tolist(), answer.masks, strict=True):
            masks[track_id, answer.frame_index] = mask

    for frame in frames:
        keep(session.advance(frame))
        keep(session.seed(script.seeds.get(frame.index, [])))
        session.forget(script.forgets.get(frame.index, []))
        session.drop(script.drops.get(frame.index, []))
    return masks


def run_official(predictor: Any, state: Any, order: list[int], script: Script, *, reverse: bool = False) -> Masks:
    masks: Masks = {}
    for index in order:
        for seed in script.seeds.get(index, []):
            if seed.mask is not None:
                predictor.add_new_mask(state, index, seed.track_id, seed.mask)
            else:
                predictor.add_new_points_or_box(
                    state, index, seed.track_id, points=seed.points_xy, labels=seed.point_labels, box=seed.box_xyxy
                )
        steps = predictor.propagate_in_video(state, start_frame_idx=index, max_frame_num_to_track=0, reverse=reverse)
        ((_, track_ids, logits),) = list(steps)
        for track_id, logit in zip(track_ids, logits[:, 0], strict=True):
            masks[track_id, index] = (logit > 0).numpy()
        for track_id in script.forgets.get(index, []):
            row = state["obj_id_to_idx"][track_id]
            del state["output_dict_per_obj"][row]["non_cond_frame_outputs"][index]
        for track_id in script.drops.get(index, []):
            predictor.remove_object(state, track_id, strict=True)
    return masks


@pytest.fixture(scope="module")
def official(predictor: Any, jpeg_folder: Path, script: Script) -> Masks:
    state = predictor.init_state(str(jpeg_folder))
    return run_official(predictor, state, list(range(FRAMES)), script)


@pytest.fixture(scope="module")
def ours(model: Any, frames: list[Frame], script: Script) -> Masks:
    return run_engine(open_engine(model, frames), frames, script)


def open_engine(model: Any, frames: list[Frame], **settings: int) -> Sam2Session:
    propagator = Sam2Propagator(model, name="test", device="cpu", **settings)
    return propagator.open(height_px=frames[0].height_px, width_px=frames[0].width_px)


def mean_iou(a: Masks, b: Masks, track_id: int) -> float:
    """Over the frames of one track; two empty masks agree."""
    values = []
    for key in a:
        if key[0] == track_id:
            union = (a[key] | b[key]).sum()
            values.append(1.0 if union == 0 else (a[key] & b[key]).sum() / union)
    return float(np.mean(values))


def test_engine_answers_for_the_same_frames_as_the_predictor(ours: Masks, official: Masks) -> None:
    assert sorted(ours) == sorted(official)
    # Proves that the comparison below is not one of empty masks.
    assert np.mean([mask.any() for mask in official.values()]) > 0.5


@pytest.mark.parametrize(
    "track_id",
    [
        pytest.param(1, id="box on the first frame, absence, forgotten frames"),
        pytest.param(2, id="mask on the first frame, restart by box"),
        pytest.param(3, id="box midway, dropped"),
        pytest.param(4, id="point midway"),
        pytest.param(5, id="mask midway"),
    ],
)
def test_engine_gives_the_masks_of_the_predictor(track_id: int, ours: Masks, official: Masks) -> None:
    assert mean_iou(ours, official, track_id) >= MIN_MEAN_IOU


def test_padded_batches_give_the_same_masks(model: Any, frames: list[Frame], script: Script, ours: Masks) -> None:
    """The path for GPUs, all ages in one padded batch with a key mask, run on the CPU; in groups of two."""
    session = open_engine(model, frames, objects_per_batch=2)
    session._is_padded = True
    padded = run_engine(session, frames[:40], script)
    assert {track_id for track_id, _ in padded} == {1, 2, 3, 4, 5}
    for track_id in (1, 2, 3, 4, 5):
        assert mean_iou(padded, ours, track_id) >= MIN_MEAN_IOU


@pytest.mark.parametrize("settings", [{}, {"objects_per_batch": 2}], ids=["one batch", "groups of two"])
def test_running_ahead_gives_the_same_masks(
    settings: dict[str, int], model: Any, frames: list[Frame], script: Script, ours: Masks
) -> None:
    """The order of work on GPUs, run on the CPU: frames encoded ahead, the next one begun before this one is seen."""
    session = open_engine(model, frames, **settings)
    session._is_padded = session._runs_ahead = True
    ahead = run_engine(session, session.feed(iter(frames[:40])), script)
    assert sorted(ahead) == sorted(key for key in ours if key[1] < 40)
    for track_id in (1, 2, 3, 4, 5):
        assert mean_iou(ahead, ours, track_id) >= MIN_MEAN_IOU


def test_backward_walk_gives_the_masks_of_the_predictor(
    model: Any, predictor: Any, jpeg_folder: Path, frames: list[Frame], script: Script
) -> None:
    seeds = {seed.track_id: seed for seed in script.seeds[33]}
    backward = Script(seeds={33: [seeds[5]], 30: script.seeds[30]}, drops={}, forgets={})
    # The predictor skips a reverse walk that starts on frame 0, so the comparison ends before.
    order = list(range(33, 12, -1))
    expected = run_official(predictor, predictor.init_state(str(jpeg_folder)), order, backward, reverse=True)
    found = run_engine(open_engine(model, frames), [frames[i] for i in order], backward)
    assert sorted(found) == sorted(expected)
    for track_id in (4, 5):
        assert mean_iou(found, expected, track_id) >= MIN_MEAN_IOU


def test_reference_backend_gives_the_masks_of_the_predictor(
    frames: list[Frame], script: Script, official: Masks
) -> None:
    """Up to the restart: there the wrapper keeps the official treatment of a prompt on a tracked frame."""
    reference = make_reference("bundled", "cpu")
    session = reference.open(height_px=frames[0].height_px, width_px=frames[0].width_px)
    found = run_engine(session, frames[:33], script)
    assert {track_id for track_id, _ in found} == {1, 2, 3, 4}
    for track_id in (1, 2, 3, 4):
        assert mean_iou(found, official, track_id) >= MIN_MEAN_IOU


def test_seeds_beyond_the_limit_keep_the_first_and_the_latest(model: Any, frames: list[Frame], script: Script) -> None:
    """Where the official predictor keeps every conditioning frame, the bank holds four."""
    session = open_engine(model, frames)
    (seed,) = (s for s in script.seeds[0] if s.track_id == 1)
    for frame in frames[:7]:
        session.advance(frame)
        session.seed([seed])
    view = session.bank.read([1], 7, is_padded=False)
    assert view.pointer_ages.tolist() == [[7, 3, 2, 1]]
    assert torch.isfinite(view.maps).all()
