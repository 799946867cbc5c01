"""Where weights lie."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub.constants
import pytest

from fiftyone_plugin.errors import ModelUnavailableError, OptionError
from fiftyone_plugin.weights import HubModel, is_cached, locate, resolve_device

MODEL = HubModel("somebody/something", "0123456789abcdef0123456789abcdef01234567", ("config.json", "model.safetensors"))


@pytest.fixture
def snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place in the hub's cache where a download would go, on a machine without network."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network here")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    path = tmp_path / "models--somebody--something" / "snapshots" / MODEL.revision
    path.mkdir(parents=True)
    return path


def test_locate_finds_what_is_cached_without_network(snapshot: Path) -> None:
    for name in MODEL.files:
        (snapshot / name).touch()
    assert is_cached(MODEL)
    assert locate("tiny", bundled=None, hub={"tiny": MODEL}, used_by="test") == snapshot


def test_locate_does_not_take_half_a_download_for_a_model(snapshot: Path) -> None:
    (snapshot / "config.json").touch()
    assert not is_cached(MODEL)
    with pytest.raises(ModelUnavailableError, match="test:tiny needs somebody/something"):
        locate("tiny", bundled=None, hub={"tiny": MODEL}, used_by="test")


def test_locate_without_network_does_not_try_again_and_again(
    snapshot: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub client's own retries take half a minute and write to stderr."""

    def sleep(_: float) -> None:
        raise AssertionError("waited for a retry")

    monkeypatch.setattr("time.sleep", sleep)
    with pytest.raises(ModelUnavailableError):
        locate("tiny", bundled=None, hub={"tiny": MODEL}, used_by="test")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("device", ["gpu", "cuda:first", "mps2", "", "cuda:999"])
def test_device_that_is_not_there_is_refused(device: str) -> None:
    with pytest.raises(OptionError, match=f"^device '{device}': ") as raised:
        resolve_device(device)
    assert "\n" not in str(raised.value)
