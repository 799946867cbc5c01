"""Runs whose embedder looks with the propagator's eyes: one pass of the image encoder for each frame, and no more."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fiftyone_plugin import pipeline, registry
from fiftyone_plugin.config import AssociationOptions, IdentityOptions, ModelChoice, PropagationOptions, TrackingOptions
from fiftyone_plugin.embedders.combined import CombinedEmbedder
from fiftyone_plugin.pipeline import Backends, Checkpointing, ObjectPrompt, Progress
from fiftyone_plugin.pipeline.settle import Evidence
from fiftyone_plugin.propagators.sam2 import Sam2Propagator
from fiftyone_plugin.propagators.sam2_features import make
from fiftyone_plugin.propagators.sam2_image import ImageEncoder
from fiftyone_plugin.propagators.sam2_model import load_model
from fiftyone_plugin.propagators.stride import StridedPropagator
from fiftyone_plugin.synthetic.fakes import ScriptedDetector, ScriptedEmbedder
from fiftyone_plugin.types import Seed, TrackingResult

FRAMES = 12
OPTIONS = TrackingOptions(
    models=ModelChoice(embedder="sam2-features"), association=AssociationOptions(redetect_every_frames=0), device="cpu"
)
PLAIN = replace(OPTIONS, identity=IdentityOptions(repair=False))


class KilledError(Exception):
    """Stands for the end of the process: nothing behind it is run."""


def models_for(scene: Any, *, stride: int = 1) -> Backends:
    """True boxes, a small real SAM 2.1, and its features."""
    model = load_model("bundled", device="cpu", used_by="test", image_size=64)
    propagator: Any = Sam2Propagator(model, name="sam2:bundled", device="cpu")
    propagator = propagator if stride == 1 else StridedPropagator(propagator, stride=stride)
    return Backends(ScriptedDetector(scene.truth(), scene), propagator, make(None, "cpu", propagator))


@pytest.fixture
def scene(world: Any, block: Any) -> Any:
    """Two sheep and a dog that keep apart."""
    red, blue, green = (210, 40, 40), (40, 60, 220), (40, 190, 60)
    return world(
        [
            block("sheep", red, 10, 10, 2.0, side_px=28),
            block("sheep", blue, 110, 10, -1.0, side_px=28),
            block("dog", green, 60, 60, 1.0, side_px=28),
        ],
        FRAMES,
    )


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The pictures that went through an image encoder, in order."""
    pictures: list[bytes] = []
    original = ImageEncoder.encode

    def noting(self: ImageEncoder, images: Any) -> Any:
        pictures.extend(image.tobytes() for image in images)
        return original(self, images)

    monkeypatch.setattr(ImageEncoder, "encode", noting)
    return pictures


def flat(value: Any) -> Any:
    """Anything in a result, comparable with ``==`` to the last bit."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if hasattr(value, "__dataclass_fields__"):
        return [(f.name, flat(getattr(value, f.name))) for f in fields(value)]
    if isinstance(value, tuple | list):
        return [flat(v) for v in value]
    return value


def evidence_of(scene: Any, models: Backends, options: TrackingOptions = OPTIONS, **more: Any) -> Evidence:
    kept: list[Evidence] = []
    pipeline.track(scene, "sheep. dog.", options, backends=models, on_evidence=kept.append, **more)
    return kept[0]


@pytest.mark.parametrize("also", [False, True], ids=["alone", "with another one"])
def test_tracking_encodes_every_frame_once(scene: Any, encoded: list[bytes], also: bool) -> None:
    models = models_for(scene)
    pipeline.track(scene, "sheep. dog.", PLAIN, backends=models)
    without = list(encoded)
    assert len(without) == len(set(without)) == FRAMES
    encoded.clear()
    if also:
        models = replace(models, embedder=CombinedEmbedder([models.embedder, ScriptedEmbedder()]))
    evidence = evidence_of(scene, models)
    assert encoded == without
    assert len(evidence.galleries) == 3
    assert sum(len(g) for g in evidence.galleries.values()) > FRAMES
    (size,) = {g.embeddings.shape[1] for g in evidence.galleries.values()}
    assert size == models.embedder.dimension
    assert {g.embedder_name for g in evidence.galleries.values()} == {models.embedder.name}


def test_masks_do_not_change_because_features_are_shared(scene: Any) -> None:
    plain = pipeline.track(scene, "sheep. dog.", PLAIN, backends=models_for(scene))
    evidence = evidence_of(scene, models_for(scene))
    assert [flat(t) for t in evidence.tracks] == [flat(t) for t in plain.tracks]


def test_with_a_stride_frames_between_are_encoded_for_their_views(scene: Any, encoded: list[bytes]) -> None:
    strided = replace(OPTIONS, propagation=PropagationOptions(frame_stride=3))
    evidence = evidence_of(scene, models_for(scene, stride=3), strided)
    seen = {f for g in evidence.galleries.values() for f in g.frame_indices.tolist()}
    keys = {0, 3, 6, 9, FRAMES - 1}
    assert seen - keys
    pictures = {frame.image_rgb.tobytes() for frame in scene.frames() if frame.index in seen | keys}
    assert len(encoded) == len(pictures)
    assert set(encoded) == pictures


def test_audit_encodes_every_frame_once_by_itself(scene: Any, encoded: list[bytes]) -> None:
    embedder = models_for(scene).embedder
    result = pipeline.repair(scene, scene.truth(), OPTIONS, embedder=embedder)
    assert len(encoded) == len(set(encoded)) == FRAMES
    assert (len(result.tracks), result.repairs) == (3, ())


def test_audit_takes_the_weights_of_the_propagator_that_the_options_name(
    scene: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def make_embedder(spec: str, *, device: str, propagator: Any) -> Any:
        asked.append((spec, propagator))
        return ScriptedEmbedder()

    monkeypatch.setattr(registry, "make_embedder", make_embedder)
    options = replace(OPTIONS, models=ModelChoice(propagator="sam2:large", embedder="sam2-features"))
    pipeline.repair(scene, scene.truth(), options)
    assert asked == [("sam2-features", "sam2:large")]


def test_objects_pointed_at_share_features_too(scene: Any, encoded: list[bytes]) -> None:
    models = models_for(scene)
    first, second, _ = scene.truth()
    prompts = [ObjectPrompt(0, t.phrase, Seed(n, box_xyxy=t.boxes_xyxy[0])) for n, t in ((1, first), (2, second))]
    result = pipeline.follow(scene, prompts, OPTIONS, propagator=models.propagator, embedder=models.embedder)
    assert len(result.tracks) == 2
    assert len(encoded) == len(set(encoded)) == FRAMES


@pytest.mark.parametrize("cut", [5, 10])
@pytest.mark.parametrize("stride", [1, 2])
def test_killed_run_ends_as_uninterrupted(scene: Any, cut: int, stride: int, tmp_path: Path) -> None:
    """Features are no part of the checkpoint: a frame is encoded again by the process that goes on."""
    options = replace(OPTIONS, propagation=PropagationOptions(frame_stride=stride))

    def go(where: Checkpointing | None, killed_at: int | None = None) -> tuple[TrackingResult, Evidence]:
        def die(progress: Progress) -> None:
            if progress.frame_index == killed_at:
                raise KilledError

        kept: list[Evidence] = []
        result = pipeline.track(
            scene,
            "sheep. dog.",
            options,
            backends=models_for(scene, stride=stride),
            on_progress=die,
            on_evidence=kept.append,
            checkpointing=where,
        )
        return replace(result, seconds=0.0, peak_memory_mb=0.0), kept[0]

    where = Checkpointing(tmp_path / "run", resume=True, every_frames=2)
    with pytest.raises(KilledError):
        go(where, cut)
    assert pipeline.is_checkpoint(where.folder)
    (result, evidence), (whole, expected) = go(where), go(None)
    assert flat(result) == flat(whole)
    assert [flat(g) for g in evidence.galleries.values()] == [flat(g) for g in expected.galleries.values()]


@pytest.mark.parametrize("stride", [1, 2])
def test_models_that_options_name_share_one_encoder(stride: int, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[str] = []

    def load(variant: str, **_: Any) -> Any:
        loads.append(variant)
        return load_model("bundled", device="cpu", used_by="test", image_size=64)

    monkeypatch.setattr("fiftyone_plugin.propagators.sam2.load_model", load)
    monkeypatch.setattr("fiftyone_plugin.propagators.sam2_features.load_model", load)
    monkeypatch.setattr("fiftyone_plugin.pipeline.backends._loaded", {})
    models = ModelChoice(embedder="colour+sam2-features")
    made = Backends.load(replace(OPTIONS, models=models, propagation=PropagationOptions(frame_stride=stride)))
    assert loads == ["bundled"]
    assert made.embedder.name == "colour+sam2-features:bundled"
