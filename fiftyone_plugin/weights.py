"""Where weights lie: bundled with the package, in a local directory, or on the Hugging Face hub at a pinned revision.

Downloads happen only here, and only when a model that is not bundled is asked for. Only safetensors, and PyTorch files
that are read with ``weights_only=True``, are ever loaded.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fiftyone_plugin.errors import BackendError, ModelUnavailableError, OptionError

__all__ = [
    "BUNDLED_DIRECTORY",
    "HubModel",
    "first_existing",
    "is_cached",
    "load_quietly",
    "locate",
    "resolve_device",
]

BUNDLED_DIRECTORY = Path(__file__).parent / "bundled"
_PROBE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class HubModel:
    """Weights on the hub, fixed to one revision so that results do not change under the user."""

    repository: str
    revision: str
    """Full commit hash."""
    files: tuple[str, ...]
    """Names of the files that are needed, all of them."""


def locate(variant: str, *, bundled: str | None, hub: dict[str, HubModel], used_by: str) -> Path:
    """Find the directory with the weights of a variant, downloading them if need be.

    Args:
        variant: ``bundled``, a key of `hub`, or a local directory.
        bundled: Name of the folder below `BUNDLED_DIRECTORY`, or None where nothing is bundled.
        hub: Hub models by variant.
        used_by: Backend name, for messages.

    Raises:
        BackendError: The variant is neither known nor a directory.
        ModelUnavailableError: The hub cannot be reached and nothing is cached.
    """
    if variant == "bundled" and bundled is not None:
        return BUNDLED_DIRECTORY / bundled
    if variant in hub:
        return _download(hub[variant], used_by=used_by, variant=variant)
    directory = Path(variant).expanduser()
    if directory.is_dir():
        return directory
    known = [*(["bundled"] if bundled else []), *hub]
    raise BackendError(f"{used_by}:{variant}: must be one of {', '.join(known)}, or a local directory with the weights")


def _download(model: HubModel, *, used_by: str, variant: str) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    cached = _cached_directory(model)
    if cached is not None:
        return cached
    try:
        # The download itself would try again and again, for half a minute and on stderr, if there is no network.
        HfApi().model_info(model.repository, revision=model.revision, timeout=_PROBE_SECONDS)
        path = snapshot_download(model.repository, revision=model.revision, allow_patterns=list(model.files))
    except Exception as error:  # which classes there are depends on the HTTP library of the installed hub client
        raise ModelUnavailableError(
            f"{used_by}:{variant} needs {model.repository} from the Hugging Face hub, which is neither cached nor "
            f"reachable ({type(error).__name__}): connect once, give a local directory as {used_by}:/path, "
            f"or use the bundled models"
        ) from error
    return Path(path)


def is_cached(model: HubModel) -> bool:
    """Whether the weights are on disk, all of them, without touching the network."""
    return _cached_directory(model) is not None


def _cached_directory(model: HubModel) -> Path | None:
    from huggingface_hub import snapshot_download

    try:
        path = Path(snapshot_download(model.repository, revision=model.revision, local_files_only=True))
    except OSError:
        return None
    # A download that was interrupted leaves a directory without some of the files.
    return path if all((path / name).is_file() for name in model.files) else None


def first_existing(directory: Path, names: Sequence[str], *, used_by: str) -> Path:
    """The first of these files that a weights directory has.

    Raises:
        ModelUnavailableError: It has none of them.
    """
    for name in names:
        if (directory / name).is_file():
            return directory / name
    raise ModelUnavailableError(f"{used_by}: {directory} holds none of {', '.join(names)}: give a directory that does")


@contextmanager
def load_quietly(directory: Path, *, used_by: str) -> Iterator[None]:
    """Read a model in transformers' format without its progress bars, log lines and warnings on the user's terminal.

    Raises:
        ModelUnavailableError: What is in the directory is damaged or belongs to another kind of model.
    """
    from safetensors import SafetensorError
    from transformers.utils import logging

    verbosity, had_progress_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelUnavailableError(
            f"{used_by}: {directory} is not a model that it can read ({type(error).__name__}): give another directory"
        ) from error
    finally:
        logging.set_verbosity(verbosity)
        if had_progress_bar:
            logging.enable_progress_bar()


def resolve_device(device: str) -> str:
    """``auto`` to the best device of this machine; another one unchanged, if this machine has it.

    Raises:
        OptionError: It has not, or there is no such device.
    """
    if device == "cpu":
        return device
    import torch

    if device != "auto":
        _require_device(device, torch)
        return device
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _require_device(device: str, torch: Any) -> None:
    kind, _, number = device.partition(":")
    if kind not in ("cuda", "mps") or (number and not number.isdigit()):
        raise OptionError(f"device {device!r}: must be auto, cpu, cuda, cuda:N (N from 0) or mps")
    count = torch.cuda.device_count() if kind == "cuda" else int(torch.backends.mps.is_available())
    if count <= int(number or 0):
        there = f"this machine has {count} such devices" if count else "torch finds no such device on this machine"
        raise OptionError(f"device {device!r}: {there}; give auto or cpu")
