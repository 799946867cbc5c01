"""What every detector must do. Passing this suite is the definition of a detector backend."""

from __future__ import annotations

import numpy as np
import pytest

from fiftyone_plugin.config import DetectionOptions
from fiftyone_plugin.detectors.prompted import PromptedDetector
from fiftyone_plugin.geometry import box_iou
from fiftyone_plugin.interfaces import Detector
from fiftyone_plugin.registry import make_detector
from fiftyone_plugin.synthetic.clips import SyntheticClip
from fiftyone_plugin.synthetic.fakes import ScriptedDetector
from fiftyone_plugin.synthetic.scenes import crossing
from fiftyone_plugin.types import Frame

BACKENDS = ("grounding-dino:bundled", "groundingdino-py:bundled", "scripted")
PHRASES = ("sheep", "dog", "fire truck")
SCORE_TOLERANCE = 1e-3
"""A batch, or another order of phrases, changes the order of sums and so the last bits."""


@pytest.fixture(scope="module")
def clip() -> SyntheticClip:
    return crossing(frames=8)


@pytest.fixture(scope="module")
def frames(clip: SyntheticClip) -> list[Frame]:
    return list(clip.source.frames())[:2]


@pytest.fixture(scope="module", params=BACKENDS)
def detector(request: pytest.FixtureRequest, clip: SyntheticClip) -> Detector:
    if request.param == "scripted":
        return ScriptedDetector(clip.ground_truth(), clip.source)
    if request.param.startswith("groundingdino-py"):
        pytest.importorskip("groundingdino", reason="the package groundingdino-py is optional")
    return make_detector(request.param, device="cpu")


def test_is_a_detector_with_a_name(detector: Detector) -> None:
    assert isinstance(detector, Detector)
    assert detector.name


def test_detect_answers_every_image_with_boxes_and_a_score_for_every_phrase(
    detector: Detector, frames: list[Frame]
) -> None:
    answers = detector.detect([frame.image_rgb for frame in frames], PHRASES)
    assert len(answers) == len(frames)
    for answer in answers:
        assert answer.boxes_xyxy.dtype == answer.phrase_scores.dtype == np.float32
        assert answer.boxes_xyxy.shape == (len(answer.phrase_scores), 4)
        assert answer.phrase_scores.shape[1:] == (len(PHRASES),)
        assert np.isfinite(answer.boxes_xyxy).all()
        assert ((answer.phrase_scores >= 0) & (answer.phrase_scores <= 1)).all()


def test_detect_finds_what_is_there_and_names_it(detector: Detector, clip: SyntheticClip, frames: list[Frame]) -> None:
    found = PromptedDetector(detector, PHRASES, DetectionOptions(box_threshold=0.35)).detect(frames)[0]
    truth = np.stack([track.boxes_xyxy[0] for track in clip.ground_truth()])
    assert set(found.phrases) == {"sheep"}
    assert ((box_iou(truth, found.boxes_xyxy) > 0.6).sum(axis=1) == 1).all()


def test_detect_does_not_depend_on_the_batch(detector: Detector, frames: list[Frame]) -> None:
    together = detector.detect([frame.image_rgb for frame in frames], PHRASES)
    for frame, answer in zip(frames, together, strict=True):
        (alone,) = detector.detect([frame.image_rgb], PHRASES)
        np.testing.assert_allclose(
            alone.phrase_scores.max(axis=0), answer.phrase_scores.max(axis=0), atol=SCORE_TOLERANCE
        )


def test_detect_does_not_depend_on_the_order_of_phrases(detector: Detector, frames: list[Frame]) -> None:
    images = [frames[0].image_rgb]
    (forward,), (backward,) = detector.detect(images, PHRASES), detector.detect(images, PHRASES[::-1])
    np.testing.assert_allclose(
        backward.phrase_scores.max(axis=0)[::-1], forward.phrase_scores.max(axis=0), atol=SCORE_TOLERANCE
    )


def test_detect_leaves_its_input_alone(detector: Detector, frames: list[Frame]) -> None:
    before = frames[0].image_rgb.copy()
    detector.detect([frames[0].image_rgb], PHRASES)
    np.testing.assert_array_equal(frames[0].image_rgb, before)


def test_detect_of_no_image_is_no_answer(detector: Detector) -> None:
    assert detector.detect([], PHRASES) == []


def test_count_tokens_counts_special_tokens_and_words(detector: Detector) -> None:
    assert detector.count_tokens("sheep.") > 2
    assert detector.count_tokens("sheep. fire truck.") > detector.count_tokens("sheep.")
    assert detector.count_tokens("sheep. dog.") <= detector.max_tokens


@pytest.mark.parametrize("backend", [b for b in BACKENDS if b != "scripted"])
def test_detect_takes_images_of_different_sizes_in_one_batch(backend: str, frames: list[Frame]) -> None:
    """Not for the scripted detector, which knows whole pictures only."""
    if backend.startswith("groundingdino-py"):
        pytest.importorskip("groundingdino", reason="the package groundingdino-py is optional")
    image = frames[0].image_rgb
    whole, strip = make_detector(backend, device="cpu").detect([image, image[100:200, :]], ("sheep",))
    assert whole.phrase_scores.max() > 0.35
    # The same sheep, 100 pixels higher in the strip.
    best, again = (
        whole.boxes_xyxy[whole.phrase_scores[:, 0].argmax()],
        strip.boxes_xyxy[strip.phrase_scores[:, 0].argmax()],
    )
    assert again[3] <= 110
    assert best[3] > 110
