"""Operators as FiftyOne loads them: through its registry, from a plugins folder that links to this repository."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

PLUGIN = "@shepherd/tracking"


@pytest.fixture(scope="session")
def foo(fo: ModuleType) -> ModuleType:
    """The package `fiftyone.operators`."""
    import fiftyone.operators

    return fiftyone.operators


@pytest.fixture
def track_objects(foo: ModuleType) -> Any:
    return foo.get_operator(f"{PLUGIN}/track_objects")


@pytest.fixture
def preview_prompt(foo: ModuleType) -> Any:
    return foo.get_operator(f"{PLUGIN}/preview_prompt")


class Form:
    """A form as the App asks for it, flattened to what the tests look at."""

    def __init__(self, operator: Any, dataset: Any, params: dict[str, Any], **request: Any) -> None:
        from fiftyone.operators.executor import ExecutionContext, ValidationContext

        self.ctx = ExecutionContext({"dataset_name": dataset.name, "params": params, **request})
        resolved = operator.resolve_type(self.ctx, "inputs")
        self.properties = resolved.type.properties
        self.json = resolved.to_json()
        self.errors = {e.path.lstrip("."): e.reason for e in ValidationContext(self.ctx, resolved, operator).errors}
        self.options = operator.resolve_execution_options(self.ctx)

    def text(self, name: str) -> str:
        view = self.properties[name].view
        return f"{view.label}|{view.description or ''}"


@pytest.fixture
def form() -> type[Form]:
    """Draws a form: ``form(operator, dataset, params)``."""
    return Form
