"""What FiftyOne finds in the plugin: it swallows errors and drops unlisted names, so this is asserted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.fiftyone

REPOSITORY = Path(__file__).resolve().parents[2]
MANIFEST = yaml.safe_load((REPOSITORY / "fiftyone.yml").read_text())


def test_registry_reports_no_errors_and_lists_our_operators(foo: ModuleType) -> None:
    from fiftyone.operators.registry import OperatorRegistry

    registry = OperatorRegistry()
    assert registry.list_errors() == []
    ours = {op.name for op in registry.list_operators(type="operator") if op.uri.startswith(MANIFEST["name"])}
    assert ours == set(MANIFEST["operators"])
    panels = {op.name for op in registry.list_operators(type="panel") if op.uri.startswith(MANIFEST["name"])}
    assert panels == set(MANIFEST["panels"])


def test_manifest_and_register_agree(foo: ModuleType) -> None:
    class Plugin:
        def __init__(self) -> None:
            self.names: list[str] = []

        def register(self, operator: Any) -> None:
            self.names.append(operator(_builtin=True).name)

    foo.list_operators()  # makes FiftyOne load the plugin
    (name,) = [n for n in sys.modules if n.startswith("fiftyone.plugins.") and n.endswith(".shepherd.tracking")]
    plugin = Plugin()
    sys.modules[name].register(plugin)
    assert plugin.names == [*MANIFEST["operators"], *MANIFEST["panels"]]


def test_manifest_version_is_that_of_the_package() -> None:
    import fiftyone_plugin

    assert MANIFEST["version"] == fiftyone_plugin.__version__


def test_manifest_files_exist() -> None:
    assert (REPOSITORY / MANIFEST["py_entry"]).is_file()
    assert (REPOSITORY / MANIFEST["js_bundle"]).is_file()
    assert (REPOSITORY / "operators/assets/shepherd.svg").is_file()


def test_entry_imports_no_model_library(fiftyone_environment: dict[str, str]) -> None:
    # Checked in a new process: in this one other tests may have imported anything.
    code = (
        "import sys, warnings; warnings.simplefilter('ignore'); import fiftyone.operators as foo;"
        "foo.get_operator('@shepherd/tracking/track_objects').config;"
        "print([m for m in ('torch', 'transformers', 'sam2', 'av') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert ran.stdout.strip().splitlines()[-1] == "[]"


def test_requirements_name_what_the_package_needs() -> None:
    import tomllib

    def names(lines: list[str]) -> set[str]:
        return {"".join(c if c.isalnum() or c in "-_" else " " for c in line).split()[0] for line in lines}

    lines = [x for x in (REPOSITORY / "requirements.txt").read_text().splitlines() if x and not x.startswith("#")]
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    # FiftyOne itself is there when it reads the file, and is checked by the version line of the manifest.
    assert names(lines) == (names(project["dependencies"]) - {"fiftyone"}) | {"sam2"}
