"""What `import fiftyone_plugin` offers, and what it costs."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import fiftyone_plugin
from fiftyone_plugin import api

FUNCTIONS = {
    "evaluate",
    "follow",
    "models",
    "open_source",
    "preview",
    "prompt_dataset",
    "read_tracks",
    "repair",
    "repair_dataset",
    "segment",
    "track",
    "track_dataset",
    "track_into_dataset",
    "write_tracks",
}
TYPES = {
    "AssociationOptions",
    "Decision",
    "DetectionOptions",
    "Encounter",
    "EvidenceOptions",
    "IdentityOptions",
    "InputError",
    "ModelChoice",
    "ObjectPrompt",
    "Repair",
    "Seed",
    "ShepherdError",
    "Track",
    "TrackingOptions",
    "TrackingResult",
}


def test_public_surface_is_pinned() -> None:
    """Adding or removing a name is a decision: change this list and the changelog with it."""
    assert set(fiftyone_plugin.__all__) == FUNCTIONS | TYPES | {"__version__"}


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_public_function_is_that_of_the_api_and_documented(name: str) -> None:
    function = getattr(fiftyone_plugin, name)
    assert function is getattr(api, name)
    assert inspect.getdoc(function)


@pytest.mark.parametrize("name", sorted(TYPES))
def test_public_type_is_a_documented_class(name: str) -> None:
    made = getattr(fiftyone_plugin, name)
    assert isinstance(made, type)
    assert inspect.getdoc(made)


def test_public_functions_take_settings_by_keyword_only() -> None:
    for name in FUNCTIONS:
        for parameter in inspect.signature(getattr(fiftyone_plugin, name)).parameters.values():
            if parameter.name in {"options", "on_progress", "should_stop", "overwrite", "field"}:
                assert parameter.kind is inspect.Parameter.KEYWORD_ONLY, (name, parameter.name)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'trak'"):
        _ = fiftyone_plugin.trak


def test_dir_lists_names_that_were_not_used_yet() -> None:
    assert set(fiftyone_plugin.__all__) <= set(dir(fiftyone_plugin))


@pytest.mark.parametrize(
    ("code", "forbidden"),
    [
        pytest.param("import fiftyone_plugin", ("torch", "transformers", "fiftyone", "numpy", "av"), id="package"),
        pytest.param("from fiftyone_plugin import TrackingOptions", ("torch", "fiftyone"), id="options"),
        pytest.param("from fiftyone_plugin import track", ("fiftyone", "transformers", "sam2"), id="track"),
        pytest.param(
            "from fiftyone_plugin.cli import main\ntry: main(['--version'])\nexcept SystemExit: pass",
            ("fiftyone", "transformers", "sam2"),
            id="shepherd --version",
        ),
    ],
)
def test_import_loads_nothing_heavy(code: str, forbidden: tuple[str, ...]) -> None:
    check = f"{code}\nimport sys\nprint(*[m for m in {forbidden!r} if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True, timeout=120)
    assert shown.stdout.splitlines()[-1].split() == []
