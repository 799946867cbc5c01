"""Grounding DINO through transformers, with the bundled weights and with others."""

from __future__ import annotations

import shutil
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GroundingDinoForObjectDetection, GroundingDinoProcessor

from fiftyone_plugin.config import DetectionOptions
from fiftyone_plugin.detectors.grounding_dino import HUB, GroundingDino, make
from fiftyone_plugin.detectors.prompt import join_phrases, parse_prompt
from fiftyone_plugin.detectors.prompted import PromptedDetector
from fiftyone_plugin.errors import BackendError, ModelUnavailableError
from fiftyone_plugin.geometry import box_iou
from fiftyone_plugin.types import Frame
from fiftyone_plugin.weights import BUNDLED_DIRECTORY

BUNDLED = BUNDLED_DIRECTORY / "grounding_dino"

# Frame 0 of the bundled clip, boxes of what is seen (tests/detectors/conftest.py).
SHEEP = np.array([[19, 81, 71, 133], [252, 92, 304, 144], [55, 178, 110, 233], [228, 185, 278, 237]], np.float32)
DOG = np.array([[108, 116, 154, 164]], np.float32)


@pytest.fixture(scope="module")
def detector() -> GroundingDino:
    return make("bundled", "cpu")


def test_bundled_detector_finds_the_four_sheep_and_the_dog(detector: GroundingDino, flock: list[Frame]) -> None:
    (found,) = PromptedDetector(detector, parse_prompt("Sheep, dog")).detect(flock[:1])
    sheep = [i for i, phrase in enumerate(found.phrases) if phrase == "sheep"]
    dogs = [i for i, phrase in enumerate(found.phrases) if phrase == "dog"]
    assert (len(sheep), len(dogs)) == (4, 1)
    # Every true animal is hit by exactly one box of its own class.
    assert ((box_iou(found.boxes_xyxy[sheep], SHEEP) > 0.7).sum(axis=0) == 1).all()
    assert (box_iou(found.boxes_xyxy[dogs], DOG) > 0.7).all()


def test_bundled_detector_keeps_phrases_of_different_passes_apart(detector: GroundingDino, flock: list[Frame]) -> None:
    phrases = parse_prompt("sheep. dog. " + ". ".join(f"kind {n} of boat" for n in range(30)))
    prompted = PromptedDetector(detector, phrases, DetectionOptions(box_threshold=0.4))
    assert prompted.pass_count > 1
    (found,) = prompted.detect(flock[:1])
    hits = box_iou(SHEEP, found.boxes_xyxy).max(axis=1) > 0.7
    assert hits.any()
    assert "sheep" in found.phrases


def test_detect_agrees_with_post_processing_of_transformers(detector: GroundingDino, flock: list[Frame]) -> None:
    """An independent oracle for boxes in pixels and, of one phrase, for scores; tolerance 1e-3 px and 1e-5."""
    image = flock[0].image_rgb
    processor = GroundingDinoProcessor.from_pretrained(BUNDLED)
    model = GroundingDinoForObjectDetection.from_pretrained(BUNDLED, dtype=torch.float32).eval()
    inputs = processor(images=image, text=join_phrases(["a sheep"]), return_tensors="pt")
    with torch.inference_mode():
        outputs = model(**inputs)
    oracle = processor.post_process_grounded_object_detection(
        outputs, inputs["input_ids"], threshold=0.3, text_threshold=0.25, target_sizes=[image.shape[:2]]
    )[0]
    (answer,) = detector.detect([image], ["a sheep"])
    kept = answer.phrase_scores[:, 0] > 0.3
    np.testing.assert_allclose(answer.boxes_xyxy[kept], oracle["boxes"].numpy(), atol=1e-3)
    np.testing.assert_allclose(answer.phrase_scores[kept, 0], oracle["scores"].numpy(), atol=1e-5)


def test_detect_pads_images_of_different_shapes_into_one_batch(hub_like: Path, flock: list[Frame]) -> None:
    """Padding is masked, so boxes stay relative to each image; only the backbone looks a little past the border."""
    detector = make(str(hub_like), "cpu")
    tall, wide = flock[0].image_rgb[:, :150], flock[0].image_rgb[:120]
    alone = [detector.detect([image], ["sheep"])[0] for image in (tall, wide)]
    together = detector.detect([tall, wide], ["sheep"])
    for one, other in zip(alone, together, strict=True):
        assert one.boxes_xyxy.shape == other.boxes_xyxy.shape
        assert np.abs(one.phrase_scores.max() - other.phrase_scores.max()) < 0.05


def test_make_runs_float16_weights_in_float32(detector: GroundingDino) -> None:
    assert {parameter.dtype for parameter in detector._model.parameters()} == {torch.float32}


def test_make_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    make("bundled", "cpu")
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_make_touches_no_network_for_weights_on_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    shutil.copytree(BUNDLED, tmp_path / "copy")
    make("bundled", "cpu")
    make(str(tmp_path / "copy"), "cpu")


@pytest.mark.parametrize("variant", list(HUB))
def test_make_without_network_says_in_one_line_what_to_do(
    variant: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network here")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    with pytest.raises(
        ModelUnavailableError, match=r"neither cached nor reachable .* or use the bundled models"
    ) as caught:
        make(variant, "cpu")
    assert "\n" not in str(caught.value)


def test_hub_models_are_pinned_to_a_full_commit() -> None:
    assert all(len(model.revision) == 40 and "model.safetensors" in model.files for model in HUB.values())


def test_make_with_an_unknown_variant_lists_what_there_is() -> None:
    with pytest.raises(BackendError, match="grounding-dino:huge: must be one of bundled, tiny, base, or a local"):
        make("huge", "cpu")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        pytest.param("config.json", b"{", id="config-damaged"),
        pytest.param("model.safetensors", b"\0" * 64, id="weights-damaged"),
        pytest.param("tokenizer.json", None, id="tokenizer-missing"),
        pytest.param("model.safetensors", None, id="weights-missing"),
    ],
)
def test_make_with_a_damaged_directory_names_it(tmp_path: Path, file: str, content: bytes | None) -> None:
    directory = tmp_path / "damaged"
    shutil.copytree(BUNDLED, directory)
    (directory / file).unlink()
    if content is not None:
        (directory / file).write_bytes(content)
    with pytest.raises(ModelUnavailableError, match=f"grounding-dino: {directory}") as caught:
        make(str(directory), "cpu")
    assert "\n" not in str(caught.value)


def test_make_refuses_weights_with_gaps(tmp_path: Path) -> None:
    """transformers would fill them with random numbers and go on."""
    directory = tmp_path / "gaps"
    shutil.copytree(BUNDLED, directory)
    weights = load_file(directory / "model.safetensors")
    del weights["model.text_projection.weight"]
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelUnavailableError, match="is not a model that it can read"):
        make(str(directory), "cpu")
