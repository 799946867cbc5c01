from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fiftyone_plugin import pipeline
from fiftyone_plugin.benchmarks.identity_injection import inject
from fiftyone_plugin.benchmarks.identity_views import ViewTable
from fiftyone_plugin.config import TrackingOptions
from fiftyone_plugin.pipeline import audit
from fiftyone_plugin.pipeline.settle import Evidence, settle
from fiftyone_plugin.synthetic.scenes import flock
from fiftyone_plugin.types import Track


def test_galleries_are_those_of_an_audit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The benchmark cuts every box out once; `pipeline.repair` looks at the video again for every version of the tracks.
    clip = flock(501, frames=24)
    truth = clip.ground_truth()
    # other ids on the same boxes, as in every injected case
    ids = [t.track_id for t in truth]
    version = tuple(replace(t, track_id=k) for t, k in zip(truth, [*ids[1:], ids[0]], strict=True))
    table = ViewTable.make("clip", clip.source, [truth], TrackingOptions().models.embedder, tmp_path)
    seen: list[Evidence] = []

    def keep(evidence: Evidence, *args: object, **settings: object) -> object:
        seen.append(evidence)
        return settle(evidence)

    monkeypatch.setattr(audit, "settle", keep)
    pipeline.repair(clip.source, version)
    (audited,) = seen
    ours = table.galleries(version)
    assert ours.keys() == audited.galleries.keys()
    for track_id, gallery in audited.galleries.items():
        np.testing.assert_array_equal(ours[track_id].frame_indices, gallery.frame_indices)
        # kept as float16
        np.testing.assert_allclose(ours[track_id].embeddings, gallery.embeddings, atol=2e-3)
        np.testing.assert_allclose(ours[track_id].weights, gallery.weights, atol=1e-5)
    assert (table.camera is None) == (audited.camera is None)


def test_a_table_is_read_back_without_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = flock(502, frames=8)
    truth: tuple[Track, ...] = clip.ground_truth()
    first = ViewTable.make("clip", clip.source, [truth], "colour", tmp_path)
    monkeypatch.setattr(type(clip.source), "frames", lambda *_: pytest.fail("opened the video"))
    again = ViewTable.make("clip", clip.source, [truth], "colour", tmp_path)
    np.testing.assert_array_equal(first.embeddings, again.embeddings)
    broken = inject(truth, "fragment", 1) or truth
    assert again.all_views(broken).keys() == {t.track_id for t in broken}
