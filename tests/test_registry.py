"""Names to backends, our own and those of other packages."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, EntryPoints
from types import ModuleType

import numpy as np
import pytest

from fiftyone_plugin import registry
from fiftyone_plugin.errors import BackendError, DependencyError
from fiftyone_plugin.interfaces import Embedder
from fiftyone_plugin.types import Crop, FloatArray, Frame

CROP = Crop(np.full((8, 8, 3), (200, 40, 40), np.uint8), np.ones((8, 8), np.bool_))


class HeightEmbedder:
    """A backend as another package would write one."""

    def __init__(self, variant: str | None, device: str) -> None:
        self.variant, self.device = variant, device

    @property
    def name(self) -> str:
        return "height"

    @property
    def dimension(self) -> int:
        return 2

    def embed(self, crops: Sequence[Crop]) -> FloatArray:
        return np.array([[1.0, 0.0]] * len(crops), np.float32).reshape(-1, 2)


@pytest.fixture
def other_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another package is installed, and declares an embedder of its own and one with a name that is taken."""
    module = ModuleType("other_package")
    module.make = HeightEmbedder  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "other_package", module)
    points = [EntryPoint(name, "other_package:make", "shepherd.embedders") for name in ("height", "colour")]

    def entry_points(*, group: str) -> EntryPoints:
        return EntryPoints(p for p in points if p.group == group)

    monkeypatch.setattr(registry, "entry_points", entry_points)


@pytest.mark.usefixtures("other_package")
def test_backend_of_another_package_is_made_with_variant_and_device() -> None:
    made = registry.make_embedder("height:tall", device="cuda:1")
    assert isinstance(made, HeightEmbedder)
    assert (made.variant, made.device) == ("tall", "cuda:1")
    assert registry.make_embedder("height").variant is None  # type: ignore[attr-defined]


@pytest.mark.usefixtures("other_package")
def test_backend_of_another_package_is_listed_and_cannot_take_a_name_of_ours() -> None:
    rows = {row["name"]: row for row in registry.overview() if row["kind"] == "embedders"}
    assert rows["height"]["state"] == "from another package"
    assert not isinstance(registry.make_embedder("colour"), HeightEmbedder)


@pytest.mark.usefixtures("other_package")
def test_error_for_an_unknown_name_lists_backends_of_other_packages_too() -> None:
    with pytest.raises(BackendError, match=r"embedder 'hight': must be one of .*colour.*height"):
        registry.make_embedder("hight")


@pytest.mark.parametrize(
    ("make", "spec", "message"),
    [
        (registry.make_detector, "yolo", r"detector 'yolo': must be one of grounding-dino, groundingdino-py"),
        (registry.make_propagator, "sam3", r"propagator 'sam3': must be one of sam2, sam2-reference"),
        (registry.make_embedder, "", r"embedder '': must be one of"),
        (registry.make_embedder, "colour+", r"embedder '': must be one of"),
        (registry.make_detector, "grounding-dino:huge", r"grounding-dino:huge: must be one of bundled, tiny, base, or"),
        (registry.make_propagator, "sam2:huge", r"sam2:huge.*bundled, tiny, small, base-plus, large"),
        (registry.make_embedder, "colour:huge", r"huge.*absolute.*relative"),
        (registry.make_embedder, "sam2-features:huge", r"sam2-features:huge.*bundled, tiny, small, base-plus, large"),
    ],
)
def test_unknown_name_or_variant_is_named_with_what_there_is(make: object, spec: str, message: str) -> None:
    with pytest.raises(BackendError) as caught:
        make(spec)  # type: ignore[operator]
    assert re.search(message, str(caught.value))


@pytest.mark.parametrize(
    ("missing", "command"),
    [
        pytest.param("torch", "pip install torch", id="torch"),
        pytest.param("sam2", "SAM2_BUILD_CUDA=0 pip install --no-build-isolation sam2==1.1.0", id="sam2"),
    ],
)
def test_missing_package_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, missing: str, command: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == missing else object())
    with pytest.raises(DependencyError) as caught:
        registry.make_propagator("sam2")
    assert str(caught.value) == f"propagator 'sam2' needs the package {missing!r}: {command}"


def test_overview_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "sam2" else object())
    states = {row["name"]: row["state"] for row in registry.overview()}
    assert states["sam2:bundled"] == "needs sam2"
    assert states["grounding-dino:bundled"] == "bundled"


def test_overview_has_every_variant_of_every_backend_and_its_state() -> None:
    rows = registry.overview()
    names = [(row["kind"], row["name"]) for row in rows]
    assert len(set(names)) == len(names)
    expected = {
        (kind, f"{name}:{variant}")
        for kind, entries in registry.BUILT_IN.items()
        for name, entry in entries.items()
        for variant in entry.variants
    }
    assert expected <= set(names)
    assert all(row["state"] for row in rows)
    states = {row["name"]: row["state"] for row in rows}
    assert states["colour:absolute"] == "ready, needs no weights"
    assert re.fullmatch(r"(cached|to be downloaded): [\w.-]+/[\w.-]+", states["sam2:large"])


class Propagator:
    """One that shares its image features, and has nothing else."""

    name = "other:tall"
    feature_size = 2

    def pool(self, frame: Frame, crops: Sequence[Crop]) -> FloatArray:
        return np.array([[0.0, 1.0]] * len(crops), np.float32)


def test_embedder_that_shares_is_given_the_propagator_also_beside_others() -> None:
    both = registry.make_embedder("colour+sam2-features", device="cpu", propagator=Propagator())  # type: ignore[arg-type]
    assert both.name == "colour+sam2-features:tall"
    assert both.embed([CROP])[0, -2:] * np.sqrt(2) == pytest.approx([0, 1])


def test_plus_combines_embedders_into_one() -> None:
    colour, reid = registry.make_embedder("colour", device="cpu"), registry.make_embedder("reid", device="cpu")
    both = registry.make_embedder("colour+reid", device="cpu")
    assert isinstance(both, Embedder)
    assert both.name == f"{colour.name}+{reid.name}"
    assert both.dimension == colour.dimension + reid.dimension
    embedded = both.embed([CROP, CROP])
    assert embedded.shape == (2, both.dimension)
    assert np.linalg.norm(embedded, axis=1) == pytest.approx([1.0, 1.0], abs=1e-5)
    # Both parts are in there with equal weight: the first half is the colour embedding, scaled.
    assert embedded[0, : colour.dimension] * np.sqrt(2) == pytest.approx(colour.embed([CROP])[0], abs=1e-5)
    assert both.embed([]).shape == (0, both.dimension)
