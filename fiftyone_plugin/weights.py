"""Where weights lie: bundled with the package, in a local directory, or on the Hugging Face hub at a pinned revision.

Downloads happen only here, and only when a model that is not bundled is asked for. Only safetensors, and PyTorch files
that are read with ``weights_only=True``, are ever loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fiftyone_plugin.errors import BackendError, ModelUnavailableError

__all__ = ["BUNDLED_DIRECTORY", "HubModel", "first_existing", "is_cached", "locate"]

BUNDLED_DIRECTORY = Path(__file__).parent / "bundled"


@dataclass(frozen=True, slots=True)
class HubModel:
    """Weights on the hub, fixed to one revision so that results do not change under the user."""

    repository: str
    revision: str
    """Full commit hash."""
    files: tuple[str, ...]
    """File names or glob patterns that are needed."""


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
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        path = snapshot_download(model.repository, revision=model.revision, allow_patterns=list(model.files))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ModelUnavailableError(
            f"{used_by}:{variant} needs {model.repository} from the Hugging Face hub, which is neither cached nor "
            f"reachable ({type(error).__name__}): connect once, give a local directory as {used_by}:/path, "
            f"or use --models bundled"
        ) from None
    return Path(path)


def is_cached(model: HubModel) -> bool:
    """Whether the weights are on disk, without touching the network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        snapshot_download(
            model.repository, revision=model.revision, allow_patterns=list(model.files), local_files_only=True
        )
    except (LocalEntryNotFoundError, OSError):
        return False
    return True


def first_existing(directory: Path, names: Sequence[str], *, used_by: str) -> Path:
    """The first of these files that a weights directory has.

    Raises:
        ModelUnavailableError: It has none of them.
    """
    for name in names:
        if (directory / name).is_file():
            return directory / name
    raise ModelUnavailableError(f"{used_by}: {directory} holds none of {', '.join(names)}: give a directory that does")
