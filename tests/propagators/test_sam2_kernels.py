"""The Triton kernels, run by Triton's interpreter on the CPU against plain torch; on a GPU the engine repeats this.

The interpreter must be chosen before Triton is imported, so a process of its own runs the cases below.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

triton = pytest.importorskip("triton")

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


GPUS = {
    "A100": (80, 163),
    "A10, GeForce RTX 30": (86, 99),
    "L4, GeForce RTX 40": (89, 99),
    "H100": (90, 227),
    "GeForce RTX 50": (120, 99),
}
"""Compute capability, and KiB of shared memory that a program may use (CUDA C++ Programming Guide, "Technical
Specifications per Compute Capability")."""


@pytest.fixture
def gpu_with(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], torch.device]]:
    """Makes Triton believe in a GPU with so many KiB of shared memory."""
    from fiftyone_plugin.propagators import sam2_kernels

    def made(shared_kib: int) -> torch.device:
        utilities = SimpleNamespace(get_device_properties=lambda _: {"max_shared_mem": 1024 * shared_kib})
        driver = SimpleNamespace(active=SimpleNamespace(utils=utilities))
        monkeypatch.setattr(sam2_kernels.triton.runtime, "driver", driver)
        return torch.device("cuda", 0)

    sam2_kernels._steps.cache_clear()
    yield made
    sam2_kernels._steps.cache_clear()


@pytest.mark.parametrize(("capability", "shared_kib"), GPUS.values(), ids=GPUS)
def test_attention_fits_the_shared_memory_of_a_gpu(
    capability: int, shared_kib: int, gpu_with: Callable[[int], torch.device]
) -> None:
    """Compiled for it, which takes no GPU; at the size of SAM 2.1."""
    from fiftyone_plugin.propagators import sam2_kernels

    keys_per_step, stages = sam2_kernels._steps(gpu_with(shared_kib))
    assert compiled_shared_bytes(capability, keys_per_step, stages) <= 1024 * shared_kib


def compiled_shared_bytes(capability: int, keys_per_step: int, stages: int) -> int:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from fiftyone_plugin.propagators import sam2_kernels

    constants = {"D": 256, "C": 64, "BLOCK_Q": 128, "BLOCK_K": keys_per_step, "PARTS": 1, "IS_WHOLE": False}
    types = {
        **dict.fromkeys(("queries", "keys", "values", "sums"), "*bf16"),
        "lengths": "*i32",
        **dict.fromkeys(("maxima", "weights_sums"), "*fp32"),
        "scale_log2": "fp32",
        **dict.fromkeys(constants, "constexpr"),
    }
    names = sam2_kernels._attend_kernel.arg_names
    # Addresses and strides are known to be multiples of 16, as they are when it is launched.
    aligned = [n for n in names if types.get(n, "").startswith("*") or "stride" in n or n == "query_count"]
    source = ASTSource(
        fn=sam2_kernels._attend_kernel,
        signature={name: types.get(name, "i32") for name in names},
        constexprs=constants,
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in aligned},
    )
    made = triton.compile(
        source, target=GPUTarget("cuda", capability, 32), options={"num_warps": 8, "num_stages": stages}
    )
    return int(made.metadata.shared)


if __name__ == "__main__":
    print(json.dumps({name: case() for name, case in CASES.items()}))
