from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from fiftyone_plugin import registry
from fiftyone_plugin.config import (
    PRESETS,
    AssociationOptions,
    DetectionOptions,
    EvidenceOptions,
    IdentityOptions,
    ModelChoice,
    TrackingOptions,
    preset,
)
from fiftyone_plugin.errors import BackendError, OptionError


@pytest.mark.parametrize(
    ("group", "name", "value"),
    [
        (DetectionOptions, "box_threshold", 1.01),
        (DetectionOptions, "box_threshold", -0.01),
        (DetectionOptions, "box_threshold", float("nan")),
        (DetectionOptions, "text_threshold", 2.0),
        (DetectionOptions, "max_nms_iou", -1.0),
        (DetectionOptions, "batch_frames", 0),
        (AssociationOptions, "redetect_every_frames", -1),
        (AssociationOptions, "min_match_iou", 1.5),
        (AssociationOptions, "min_untracked_fraction", -0.5),
        (AssociationOptions, "confirm_within_frames", -1),
        (AssociationOptions, "release_after_frames", -1),
        (AssociationOptions, "max_tracks", 0),
        (EvidenceOptions, "max_overlap", 1.2),
        (EvidenceOptions, "border_px", -1),
        (EvidenceOptions, "min_area_px", 0),
        (EvidenceOptions, "min_area_ratio", -0.1),
        (EvidenceOptions, "every_frames", 0),
        (IdentityOptions, "min_margin", -1.0),
    ],
)
def test_setting_outside_its_range_is_rejected_by_name_and_value(group: Any, name: str, value: float) -> None:
    with pytest.raises(OptionError) as caught:
        group(**{name: value})
    assert name in str(caught.value)
    assert str(value) in str(caught.value)
    assert "must" in str(caught.value)


@pytest.mark.parametrize(
    ("group", "values"),
    [
        (DetectionOptions, {"box_threshold": 0.0, "text_threshold": 1.0, "max_nms_iou": 0.0, "batch_frames": 1}),
        (AssociationOptions, {"redetect_every_frames": 0, "confirm_within_frames": 0, "release_after_frames": 0}),
        (EvidenceOptions, {"max_overlap": 1.0, "border_px": 0, "min_area_px": 1, "every_frames": 1}),
        (IdentityOptions, {"min_margin": 0.0, "repair": False}),
    ],
)
def test_setting_at_the_end_of_its_range_is_taken(group: Any, values: dict[str, Any]) -> None:
    made = group(**values)
    assert {name: getattr(made, name) for name in values} == values


@pytest.mark.parametrize(
    "group", [TrackingOptions, ModelChoice, DetectionOptions, AssociationOptions, EvidenceOptions, IdentityOptions]
)
def test_options_are_frozen(group: Any) -> None:
    made = group()
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(made, dataclasses.fields(group)[0].name, None)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_preset_names_backends_and_variants_that_exist(name: str) -> None:
    models = preset(name)
    for kind, spec in (("detectors", models.detector), ("propagators", models.propagator)):
        backend, _, variant = spec.partition(":")
        assert variant in registry.BUILT_IN[kind][backend].variants
    for part in models.embedder.split("+"):
        backend, _, variant = part.partition(":")
        entry = registry.BUILT_IN["embedders"][backend]
        assert not variant or variant in entry.variants


def test_preset_of_unknown_name_lists_those_there_are() -> None:
    with pytest.raises(BackendError, match=r"'turbo'.*bundled, fast, accurate"):
        preset("turbo")


def test_default_models_are_those_of_the_preset_bundled() -> None:
    assert TrackingOptions().models == preset("bundled")


def test_as_dict_survives_json_unchanged() -> None:
    options = TrackingOptions(
        models=preset("fast"), identity=IdentityOptions(min_margin=3.0), start=5, stop=50, device="cpu"
    )
    plain = options.as_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["models"]["propagator"] == "sam2:tiny"
    assert plain["identity"] == {"repair": True, "min_margin": 3.0, "counts": {}, "mend_masks": False}
    assert set(plain) == {f.name for f in dataclasses.fields(TrackingOptions)}
