"""One script per question, each run as ``shepherd bench NAME`` or ``python -m fiftyone_plugin.benchmarks.NAME``."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence

from fiftyone_plugin.errors import OptionError

__all__ = ["names", "run"]


def names() -> list[str]:
    """The benchmarks there are; a module with an underscore in its name is a part of one."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if "_" not in module.name)


def run(name: str, arguments: Sequence[str]) -> None:
    """Run one with its own arguments.

    Raises:
        OptionError: No benchmark of that name.
    """
    if name not in names():
        raise OptionError(f"benchmark {name!r}: must be one of {', '.join(names())}")
    importlib.import_module(f"{__name__}.{name}").main(list(arguments))
