from __future__ import annotations

import pytest

from fiftyone_plugin import benchmarks
from fiftyone_plugin.benchmarks.flocks import measure_clip
from fiftyone_plugin.errors import OptionError


def test_names_lists_every_script() -> None:
    assert {"flocks", "memory", "propagation"} <= set(benchmarks.names())


def test_unknown_benchmark_is_one_clear_line() -> None:
    with pytest.raises(OptionError, match="flocks"):
        benchmarks.run("sheepdog", [])


def test_repair_helps_on_a_fresh_flock() -> None:
    # Not a seed that anything was tuned on. One clip keeps the suite fast; twenty are in docs/measurements.md.
    row = measure_clip(204)
    plain, repaired = row["plain"], row["repaired"]
    assert repaired["IDSW"] * 2 <= plain["IDSW"]
    assert repaired["IDF1"] > plain["IDF1"] + 10
    assert repaired["HOTA"] > plain["HOTA"] + 10
