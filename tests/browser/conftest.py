"""A real browser in front of the running product.

The browser is Debian's Chromium, driven by Playwright: `NHOOD_TEST_BROWSER` names another one.
`NHOOD_TEST_SCREENSHOTS` names a folder that keeps what the tests saw.
"""

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from tests.chromium import MISSING, find_browser
from tests.folders import folder_for_servers
from tests.product import Product, Workspace

ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
# What Chromium says of a page that was answered with an error status, as ours are on purpose.
_STATUS = "Failed to load resource: the server responded with a status of 4"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    # Not longer than a module: Playwright keeps a loop running in this thread, in which no test
    # with a loop of its own can run.
    path = find_browser()
    if path is None:
        pytest.fail(MISSING, pytrace=False)
    with sync_playwright() as playwright:
        # Each start gets a profile of its own, which is gone at the end.
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS, headless=True)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def product() -> Iterator[Product]:
    with folder_for_servers("browser") as folder:
        found = Product(folder)
        try:
            found.up()
            yield found
        finally:
            found.down()


@pytest.fixture
def workspace(product: Product) -> Iterator[Workspace]:
    found = Workspace.make(product)
    yield found
    found.client.close()


@dataclass
class Person:
    """Somebody at a browser of their own; what the browser complains about is kept.

    Attributes:
        complaints: Errors of the console, broken policies and failed loads.
    """

    page: Page
    shots: Path
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not message.text.startswith(_STATUS):
            self.complaints.append(message.text)

    def shoot(self, name: str) -> None:
        """Keep a picture, and see that nothing sticks out at the side."""
        self.page.screenshot(path=self.shots / f"{name}.png", full_page=True)
        wide = self.page.evaluate(
            "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        )
        assert wide[0] <= wide[1], f"{name}: {wide[0]} px in a window of {wide[1]} px"

    @property
    def focused(self) -> str:
        """Name what has the keyboard: its text, or its label or name."""
        return self.page.evaluate(
            "(e => e === document.body ? '' : e.labels?.[0]?.innerText || e.innerText || e.name)"
            "(document.activeElement)"
        ).strip()


@pytest.fixture
def person(chromium: Browser, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Person]:
    """One person; parametrise indirectly with options of the browser's context."""
    kept = os.environ.get("NHOOD_TEST_SCREENSHOTS")
    shots = Path(kept) if kept else tmp_path
    context = chromium.new_context(**getattr(request, "param", {}))
    context.set_default_timeout(15_000)
    found = Person(context.new_page(), shots)
    yield found
    context.close()
    assert found.complaints == []


@dataclass
class DevelopersPage:
    """Where customers go in the end; keeps with what they came."""

    url: str
    came: list[dict[str, str]] = field(default_factory=list)


@pytest.fixture
def home() -> Iterator[DevelopersPage]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            if self.path.startswith("/back"):
                found.came.append({name: value for name, (value,) in query.items()})
                found.came[-1]["referer"] = self.headers.get("referer", "")
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><link rel=icon href='data:,'><title>Home</title>")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = DevelopersPage(f"http://127.0.0.1:{server.server_port}/back")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield found
    server.shutdown()
    thread.join()
    server.server_close()
