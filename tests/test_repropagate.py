"""What is offered after an edit: how much there is to track anew, how long it takes, what is missing for it."""

from __future__ import annotations

import importlib
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from fiftyone_plugin import registry
from fiftyone_plugin.config import ModelChoice, PropagationOptions, TrackingOptions
from fiftyone_plugin.errors import ModelUnavailableError
from fiftyone_plugin.types import TrackingResult

pytestmark = pytest.mark.fiftyone


@pytest.fixture
def repropagate(labels: ModuleType) -> ModuleType:
    return importlib.import_module("fiftyone_plugin.repropagate")


@pytest.fixture
def summary(labels: ModuleType, result: TrackingResult) -> dict[str, Any]:
    """Sheep 1 (0-11), sheep 2 (0-2, 6-9), dog 3 (4-11), sheep 4 (11): half a second a frame."""
    tracks = (*result.tracks, replace_frames(result.tracks[0], 4, 11))
    settings = {"prompt": "sheep.", **TrackingOptions().as_dict()}
    made = replace(result, tracks=tracks, seconds=6.0, settings=settings, carried=tracks, repairs=())
    return dict(labels.summary_of(made))


def replace_frames(track: Any, track_id: int, frame: int) -> Any:
    return replace(
        track,
        track_id=track_id,
        frame_indices=track.frame_indices[frame : frame + 1],
        boxes_xyxy=track.boxes_xyxy[frame : frame + 1],
        masks=track.masks[frame : frame + 1],
        scores=track.scores[frame : frame + 1],
        mask_scores=track.mask_scores[frame : frame + 1],
        identity_confidence=track.identity_confidence[frame : frame + 1],
        sources=track.sources[frame : frame + 1],
    )


def with_models(summary: dict[str, Any], **models: str) -> dict[str, Any]:
    return {**summary, "settings": {**summary["settings"], "models": {**summary["settings"]["models"], **models}}}


def test_merge_offers_the_gap_between_two_tracks_only(repropagate: ModuleType, summary: dict[str, Any]) -> None:
    # Between sheep 2 (to 9) and sheep 4 (11) there is frame 10; the gap inside sheep 2 is none of this merge.
    offer = repropagate.offer_merge(summary, 2, 4)
    assert (offer.frames, offer.missing, offer.why_not) == (1, "", "")
    assert offer.seconds == pytest.approx(0.5 * 2 * (1 + 12))
    assert repropagate.offer_merge(summary, 2, 4, max_gap_frames=1) == offer


@pytest.mark.parametrize(
    ("keep", "other"), [(1, 2), (2, 2), (2, 77)], ids=["on_the_same_frames", "itself", "not_there"]
)
def test_merge_that_cannot_be_offers_nothing(
    repropagate: ModuleType, summary: dict[str, Any], keep: int, other: int
) -> None:
    assert repropagate.offer_merge(summary, keep, other) is None


def test_swap_offers_the_encounter_it_falls_in(repropagate: ModuleType, summary: dict[str, Any]) -> None:
    assert repropagate.offer_swap(summary, 1, 2, 4).frames == 3
    assert repropagate.offer_swap(summary, 1, 2, 4, 9).frames == 5
    assert repropagate.offer_swap(summary, 1, 2, 6) is None
    assert repropagate.offer_swap(summary, 1, 3, 4) is None


def test_what_takes_long_is_done_only_when_asked_for(repropagate: ModuleType, summary: dict[str, Any]) -> None:
    slow = {**summary, "seconds": 12 * 20.0}
    offer = repropagate.offer_merge(slow, 2, 4)
    assert "may take 9 min" in offer.why_not
    assert repropagate.choose(None, "tracks", offer, False) == (None, "")
    given, note = repropagate.choose(None, "tracks", offer, None)
    assert given is None
    assert note.startswith("Masks were not tracked anew: that may take 9 min")


@pytest.mark.parametrize(
    ("models", "reason"),
    [
        ({"propagator": "sam9:huge"}, "sam9:huge, with which the tracks were made, is not installed"),
        ({"propagator": "sam2:/nowhere/weights"}, "the weights /nowhere/weights are not there any more"),
        ({"propagator": "sam2:tiny"}, "sam2:tiny, with which the tracks were made, is not on this machine"),
        ({"embedder": "colour+dinov2:small"}, "dinov2:small, with which the tracks were made, is not on this machine"),
    ],
    ids=["unknown", "folder_gone", "not_cached", "part_not_cached"],
)
def test_models_that_are_not_here_are_named(
    repropagate: ModuleType,
    summary: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    models: dict[str, str],
    reason: str,
) -> None:
    monkeypatch.setattr(repropagate.weights, "is_cached", lambda model: False)
    offer = repropagate.offer_merge(with_models(summary, **models), 2, 4)
    assert offer.missing.startswith(reason)
    assert offer.why_not == offer.missing
    assert "\n" not in offer.missing


@pytest.mark.parametrize("settings", [{}, {"prompt": "", "imported_from": "x.txt"}, TrackingOptions().as_dict()])
def test_tracks_of_another_tool_have_no_models(
    repropagate: ModuleType, summary: dict[str, Any], settings: dict[str, Any]
) -> None:
    offer = repropagate.offer_merge({**summary, "settings": settings}, 2, 4)
    assert "came from another tool" in offer.missing
    with pytest.raises(ModelUnavailableError, match="came from another tool"):
        repropagate.ModelsOfRun(None, settings).fill([], [])


def test_models_are_those_of_the_run_and_made_once(
    repropagate: ModuleType,
    labels: ModuleType,
    dataset: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[tuple[Any, ...]] = []
    monkeypatch.setattr(
        registry, "make_propagator", lambda spec, *, device, options: made.append((spec, device, options))
    )
    monkeypatch.setattr(
        registry, "make_embedder", lambda spec, *, device, propagator: made.append((spec, device, propagator))
    )
    monkeypatch.setattr(repropagate, "_loaded", {})
    options = TrackingOptions(
        models=ModelChoice(propagator="sam2:tiny", embedder="dinov2:small"),
        propagation=PropagationOptions(memory_frames=3, frame_stride=4),
        device="cpu",
    )
    # A setting that a later version dropped does no harm.
    settings = {"prompt": "", **options.as_dict(), "propagation": {**options.as_dict()["propagation"], "gone": 1}}
    for _ in range(2):
        assert repropagate.ModelsOfRun(dataset.first(), settings).fill([], []) == ()
    assert made == [("sam2:tiny", "cpu", PropagationOptions(memory_frames=3)), ("dinov2:small", "cpu", None)]


def test_device_that_this_machine_has_not_is_replaced(repropagate: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert repropagate._device("cuda:1") == "cpu"
    assert repropagate._device("cpu") == "cpu"
