"""The Triton kernels, run by Triton's interpreter on the CPU against plain torch; on a GPU the engine repeats this.

The interpreter must be chosen before Triton is imported, so a process of its own runs the cases below.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")

MAX_ERROR = 1e-5


def attention(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    return (queries @ keys.T * keys.shape[1] ** -0.5).softmax(dim=-1) @ values


def attend_error(lengths: tuple[int, int] | None, parts: int) -> float:
    """Two rows that share their queries; only the first keys of each count, and what lies behind must not matter."""
    from fiftyone_plugin.propagators import sam2_kernels

    torch.manual_seed(0)
    queries, keys, values = torch.randn(1, 70, 32), torch.randn(2, 150, 32), torch.randn(2, 150, 16)
    for row, length in enumerate(lengths or ()):
        keys[row, length:], values[row, length:] = torch.nan, torch.nan
    limits = None if lengths is None else torch.tensor(lengths, dtype=torch.int32)
    found = sam2_kernels.attend(queries, keys, values, limits, multiprocessors=1, parts=parts, block_q=32, block_k=16)
    errors = []
    for row, length in enumerate(lengths or (150, 150)):
        wanted = attention(queries[0], keys[row, :length], values[row, :length]) if length else torch.zeros(70, 16)
        errors.append(float((found[row] - wanted).abs().max()))
    return max(errors)


def all_kernels() -> float:
    from fiftyone_plugin.propagators import sam2_kernels

    sam2_kernels.check("cpu", torch.float32, queries=40, width=64)
    return 0.0


def broken_kernel() -> float:
    """The check must notice."""
    from fiftyone_plugin.propagators import sam2_kernels

    sam2_kernels._LOG2_E = 1.0
    try:
        sam2_kernels.check("cpu", torch.float32, queries=40, width=64)
    except RuntimeError as error:
        return 0.0 if "attend is off by" in str(error) else 1.0
    return 1.0


CASES: dict[str, Callable[[], float]] = {
    "every kernel agrees with torch": all_kernels,
    "whole rows": lambda: attend_error(None, 1),
    "whole rows in three parts": lambda: attend_error(None, 3),
    "rows of different length": lambda: attend_error((150, 37), 1),
    "rows of different length in three parts": lambda: attend_error((150, 37), 3),
    "rows shorter than the parts": lambda: attend_error((16, 5), 3),
    "a row that is not used": lambda: attend_error((64, 0), 1),
    "a row that is not used, in parts": lambda: attend_error((64, 0), 2),
    "the check notices a kernel that answers wrongly": broken_kernel,
}


@pytest.fixture(scope="module")
def errors() -> dict[str, float]:
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, str(Path(__file__))]
    ran = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=120)
    found: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("case", CASES)
def test_kernel(case: str, errors: dict[str, float]) -> None:
    assert errors[case] < MAX_ERROR


if __name__ == "__main__":
    print(json.dumps({name: case() for name, case in CASES.items()}))
