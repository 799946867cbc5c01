"""The FiftyOne App as a person uses it: a real server on our mongod, a real Chromium, and the few moves a test makes.

Screenshots go to ``test-artefacts/screenshots``, or to the folder named by ``SHEPHERD_SCREENSHOTS``. The selectors are
those of FiftyOne 1.22.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fiftyone_plugin.bundled.demo import demo_video_path
from fiftyone_plugin.video import open_source

REPOSITORY = Path(__file__).resolve().parents[2]
WINDOW = {"width": 1440, "height": 900}
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
]
SERVER_SECONDS = 90.0
CLICKS = 4
"""On a video, until it opens."""
PATIENCE_MS = 60_000
"""For what the App does by itself; a busy machine takes long to draw it."""

# FiftyOne shows an advertisement once; the invisible sheet behind it would swallow a click at some moment.
SEEN = 'localStorage["fiftyone-enterprise-tooltip-seen"] = "true"'


def find_chromium() -> str | None:
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"):
        if path := shutil.which(name):
            return path
    return None


def _missing(message: str) -> None:
    if os.environ.get("SHEPHERD_REQUIRE_BROWSER"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium, gone with its module: in Playwright's event loop no test could run an operator."""
    path = find_chromium()
    if path is None:
        _missing("no Chromium on the path: install it (apt-get install chromium)")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _missing("Playwright is not installed: pip install playwright")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def clip(browser: Any, labels: Any) -> Iterator[Any]:
    """A dataset with the demo clip; asked for after the browser, whose absence skips the test at once."""
    # Its path is seen in screenshots, which are shown in the guides.
    folder = Path(tempfile.mkdtemp(prefix="videos-"))
    path = Path(shutil.copy(demo_video_path(), folder / "flock.mp4"))
    target = labels.video_target("meadow", path, info=open_source(path).info)
    dataset = labels.dataset_of(target)
    yield dataset
    dataset.delete()
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def server(clip: Any, fiftyone_environment: dict[str, str], tmp_path_factory: Any) -> Iterator[str]:
    """Address of a running App server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    log = tmp_path_factory.mktemp("server") / "app.log"
    # Without --wait -1 the server leaves some seconds after the last tab was closed. The dataset is named because the
    # session that is started beside the server would else send every page to "No dataset selected".
    arguments = ["app", "launch", clip.name, "--remote", "--address", "127.0.0.1", "--port", str(port), "--wait", "-1"]
    code = f"import sys; sys.argv = ['fiftyone', *{arguments!r}]; from fiftyone.core.cli import main; main()"
    environment = {**os.environ, **fiftyone_environment, "OMP_NUM_THREADS": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, "-c", code], stdout=output, stderr=output, env=environment)
    try:
        deadline = time.monotonic() + SERVER_SECONDS
        while True:
            # The last line it writes; the port is open before that, but the session would still move the page.
            if "To exit" in log.read_text(errors="replace"):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the App server did not start: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class App:
    """What a person does in the App, one method a move. Every one waits until the App has done its part."""

    def __init__(self, page: Any, server: str, shots: Path) -> None:
        self.page = page
        self._server = server
        self._shots = shots

    def open(self, dataset: str) -> None:
        """Open a dataset and wait for its grid."""
        self.page.goto(f"{self._server}/datasets/{dataset}")
        self.page.wait_for_selector('[data-cy="fo-grid"] [data-cy="looker"]')
        self.page.wait_for_timeout(1000)

    def start_operator(self, label: str) -> Any:
        """Choose an operator in the operator browser; returns its form."""
        self.page.keyboard.press("`")
        search = self.page.locator(
            '[data-cy="operators-browser-search"] input, input[data-cy="operators-browser-search"]'
        )
        if not search.count():
            self.page.wait_for_selector('[data-cy="operators-browser-search"]')
        self.page.keyboard.type(label, delay=15)
        self.page.wait_for_timeout(500)
        self.page.keyboard.press("Enter")
        form = self.page.locator('[data-cy="operators-prompt-modal"]')
        form.wait_for()
        return form

    def press(self, form: Any, label: str) -> None:
        """Press a form's button once the App allows it: after every keystroke it asks the server first."""
        button = form.get_by_role("button", name=label, exact=True)
        button.wait_for()
        self.until(button.is_enabled, f"the button {label!r} to become active")
        self.page.wait_for_timeout(400)
        self.until(button.is_enabled, f"the button {label!r} to stay active")
        button.click()

    def open_first_sample(self) -> None:
        """Open the first video of the grid."""
        looker = self.page.locator('[data-cy="fo-grid"] [data-cy="looker"]').first
        for _ in range(CLICKS):
            if self.page.locator("#modal.modalon").count():
                break
            # Not into the upper left corner: there is the checkbox; nor on a tag, which would filter.
            box = looker.bounding_box()
            looker.click(position={"x": box["width"] * 0.6, "y": box["height"] * 0.92})
            # A new server's first page is sent to its dataset once more, and forgets what was clicked before that.
            self.page.wait_for_timeout(2500)
        self.page.wait_for_selector('[data-cy="modal-looker-container"] canvas[canvas-loaded="true"]')
        self.page.wait_for_timeout(1500)

    def open_panel(self, name: str, label: str) -> None:
        """Bring a panel of the open sample to the front: its tab if it has one, else through the plus sign."""
        tab = self.page.locator(f'#modal [data-cy="panel-tab-{name}"]')
        if not tab.count():
            self.page.locator('#modal [data-cy="new-panel-btn"]').click()
            self.page.get_by_text(label, exact=True).first.click()
            tab.wait_for()
        tab.click()

    def choose(self, place: int, wanted: str) -> None:
        """Choose an entry in a dropdown of the panel; they are counted from the top."""
        self.page.locator("#modal").get_by_role("combobox").nth(place).click()
        self.page.get_by_role("option", name=wanted, exact=True).click()
        self.settle()

    def dismiss(self) -> None:
        """Close the message that covers a corner of the page, if there is one."""
        button = self.page.get_by_role("button", name="Close notification").last
        # It goes by itself after some seconds, perhaps just now.
        with contextlib.suppress(Exception):
            button.click(timeout=2000)
        button.wait_for(state="detached")

    def settle(self) -> None:
        """Wait until the panel has answered: it shows a turning circle in its tab while it asks the server."""
        self.page.wait_for_timeout(1200)

    def until(self, is_done: Callable[[], Any], what: str, *, seconds: float = 60.0) -> Any:
        """Wait for something that the page, or the database, will say; returns what it said."""
        deadline = time.monotonic() + seconds
        while not (answer := is_done()):
            if time.monotonic() > deadline:
                self.shoot("timeout")
                raise AssertionError(f"waited {seconds:.0f} s for {what}")
            self.page.wait_for_timeout(200)
        return answer

    def shoot(self, name: str) -> Path:
        """Keep a screenshot; a blank one fails the test."""
        import cv2

        self._shots.mkdir(parents=True, exist_ok=True)
        path = self._shots / f"{name}.png"
        self.page.screenshot(path=str(path))
        assert cv2.imread(str(path)).std() > 8, f"{path} is blank"
        return path


@pytest.fixture
def app(browser: Any, server: str) -> Iterator[App]:
    """The App in a fresh browser window; errors of the page are kept beside the screenshots."""
    shots = Path(os.environ.get("SHEPHERD_SCREENSHOTS") or REPOSITORY / "test-artefacts" / "screenshots")
    context = browser.new_context(viewport=WINDOW)
    context.add_init_script(SEEN)
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    yield App(page, server, shots)
    shots.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=str(shots / "end.png"))
    # A sample that stays open would be open in the next window too: the server remembers.
    page.keyboard.press("Escape")
    context.close()
