"""How long a person waits for the review panel of a long video: the first time, in a browser that has seen nothing.

The App server is new, the browser's cache is empty, and no panel was open before: the panel's modules, the video and
what the page needs to draw are all met for the first time.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from fiftyone_plugin import geometry
from fiftyone_plugin.bundled.demo import demo_video_path
from fiftyone_plugin.types import Decision, Encounter, EncounterKind, Outcome, Source, Track, TrackingResult
from fiftyone_plugin.video import open_source

pytestmark = [pytest.mark.browser, pytest.mark.fiftyone, pytest.mark.slow]

FRAMES, TRACKS, DOUBTS = 1000, 20, 40
OPEN_SECONDS = 2.0
"""On two cores that have nothing else to do."""
REST_SECONDS = 30.0
IDLE_SECONDS = 0.15
"""Work in a second of an App that only waits; looking at it is part of that."""
BUSY_LOAD = 1.5
"""Processes that want a core, by core, from which on time on the clock says nothing; the test itself makes one."""


@pytest.fixture(scope="module")
def clip(browser: Any, labels: Any) -> Iterator[Any]:
    """The demo clip over and over for 1,000 frames, with 20 tracks with masks on every frame, and forty doubts."""
    folder = Path(tempfile.mkdtemp(prefix="videos-"))
    path = folder / "long.mp4"
    again = ["-stream_loop", "9", "-i", demo_video_path(), "-frames:v", FRAMES, "-c", "copy", path]
    subprocess.run(["ffmpeg", "-v", "error", *map(str, again)], check=True, timeout=60)
    info = open_source(path).info
    assert info.frame_count == FRAMES
    target = labels.video_target("long", path, info=info)
    labels.write_tracks(target, "tracks", _long_result(info))
    dataset = labels.dataset_of(target)
    yield dataset
    dataset.delete()
    path.unlink()
    folder.rmdir()


def _long_result(info: Any) -> TrackingResult:
    ones = np.ones(FRAMES, np.float32)
    tracks = []
    for number in range(TRACKS):
        x, y = 10 + 60 * (number % 5), 8 + 60 * (number // 5)
        mask = np.zeros((info.height_px, info.width_px), np.bool_)
        mask[y : y + 45, x : x + 45] = True
        tracks.append(
            Track(
                track_id=number + 1,
                phrase="sheep",
                frame_indices=np.arange(FRAMES),
                boxes_xyxy=np.tile(np.array([x, y, x + 45, y + 45], np.float32), (FRAMES, 1)),
                masks=(geometry.encode_mask(mask),) * FRAMES,
                scores=ones,
                mask_scores=ones,
                identity_confidence=ones,
                sources=(Source.PROPAGATED,) * FRAMES,
            )
        )
    doubts = [
        Encounter(n, EncounterKind.CROSSING, "sheep", 24 * n, 24 * n + 8, (n % TRACKS + 1, (n + 7) % TRACKS + 1))
        for n in range(1, DOUBTS + 1)
    ]
    return TrackingResult(
        video=info,
        tracks=tuple(tracks),
        encounters=tuple(doubts),
        decisions=tuple(Decision(d, Outcome.ABSTAIN, 0.4, 0.55, {"appearance": 0.4}) for d in doubts),
        repairs=(),
        frames_processed=FRAMES,
        seconds=1.0,
        settings={"prompt": "sheep", "start": 0, "stop": None},
    )


class _Work:
    """What happens from now on: seconds on the clock, and seconds that this test, its server and its browser work."""

    def __init__(self) -> None:
        self._before = self._busy()
        self._start = time.perf_counter()

    @staticmethod
    def _busy() -> float:
        total = 0.0
        for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += sum(process.cpu_times()[:2])
        return total

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._start

    @property
    def cpu_seconds(self) -> float:
        return self._busy() - self._before


def _rest(page: Any) -> None:
    """Wait until the App has nothing to do any more: it reads labels of a video ahead, in the background."""
    deadline, quiet = time.monotonic() + REST_SECONDS, 0
    while quiet < 2 and time.monotonic() < deadline:
        work = _Work()
        page.wait_for_timeout(1000)
        quiet = quiet + 1 if work.cpu_seconds < IDLE_SECONDS else 0


def test_panel_of_a_long_video_is_there_in_time(app: Any, clip: Any) -> None:
    page = app.page
    app.open(clip.name)
    page.wait_for_timeout(3000)  # a new server moves its first page once more
    app.open_first_sample()
    _rest(page)  # the App itself is loaded, the video is open
    tab = page.locator('#modal [data-cy="panel-tab-review_tracks"]')
    if not tab.count():
        page.locator('#modal [data-cy="new-panel-btn"]').click()
        tab = page.get_by_text("Review tracks", exact=True).first
    tab.wait_for()
    work = _Work()
    tab.click()
    seen: dict[str, float] = {}
    for name, part in (
        ("words", page.get_by_text("Crossing: sheep").first),
        ("timeline", page.locator("[data-cy=shepherd-timeline] rect").nth(TRACKS)),
        ("crops", page.locator('#modal img[src^="data:image"]').first),
    ):
        part.wait_for(state="attached")
        seen[name] = work.seconds
    picture = page.locator('#modal img[src^="data:image"]').first
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 500
    # One frame later it is on the screen.
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    seconds = work.seconds
    parts = ", ".join(f"{name} {at:.2f}" for name, at in seen.items())
    told = f"opened in {seconds:.2f} s ({parts}), {work.cpu_seconds:.2f} s of work in all processes"
    print(told)
    app.shoot("review-long")
    assert page.get_by_text("0 of 40").count()
    # The marks can be clicked, as those of a plot can.
    last = page.get_by_role("button", name="to review: crossing, frames 961 to 968").first
    last.click()
    page.get_by_text("frames 961 to 968").first.wait_for()
    app.settle()
    app.shoot("review-long-marked")
    others = os.getloadavg()[0] / (os.cpu_count() or 1)
    if seconds >= OPEN_SECONDS and others > BUSY_LOAD:
        pytest.skip(f"{told}; but the machine is busy with other things (load {others:.1f} a core)")
    assert seconds < OPEN_SECONDS, told
