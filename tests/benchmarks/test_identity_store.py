from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from fiftyone_plugin.benchmarks import identity_store as store
from fiftyone_plugin.identity.camera import CameraPath
from fiftyone_plugin.pipeline.settle import Evidence
from fiftyone_plugin.types import Gallery, Track


def test_evidence_comes_back_as_it_was(
    tmp_path: Path, crossing: list[Track], make_gallery: Callable[..., Gallery]
) -> None:
    camera = CameraPath(3, np.tile(np.eye(2, 3), (5, 1, 1)))
    evidence = Evidence(tuple(crossing), {1: make_gallery(1, range(4), [1] * 4)}, {}, camera)
    store.save(tmp_path / "kept.safetensors", {"value": evidence})
    back = store.load(tmp_path / "kept.safetensors")["value"]
    assert isinstance(back, Evidence)
    np.testing.assert_array_equal(back.tracks[1].boxes_xyxy, crossing[1].boxes_xyxy)
    np.testing.assert_array_equal(back.galleries[1].embeddings, evidence.galleries[1].embeddings)
    assert back.camera is not None
    assert back.camera.first_frame == 3
    np.testing.assert_array_equal(back.camera.to_first, camera.to_first)


def test_a_damaged_or_missing_file_is_no_file(tmp_path: Path) -> None:
    assert store.load(tmp_path / "nothing.safetensors") is None
    (tmp_path / "broken.safetensors").write_bytes(b"\x00" * 40)
    assert store.load(tmp_path / "broken.safetensors") is None


def test_fingerprint_changes_with_any_value_but_not_with_their_order() -> None:
    assert store.fingerprint({"a": 1, "b": 2}) == store.fingerprint({"b": 2, "a": 1})
    assert store.fingerprint({"a": 1, "b": 2}) != store.fingerprint({"a": 1, "b": 3})
