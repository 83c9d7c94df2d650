"""What the site's tests share: the pages as they were built, a server and a browser for them.

The pages are those that lie in `_build/html`, not a list kept by hand. A test that takes `page`
runs once for every page; `player_page` and `chapter` name the pages with a player and those
that a notebook made.
"""

import html
import http.server
import os
import re
import shutil
import threading
from functools import cache, partial
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "_build" / "html"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # nothing leaves the machine
]


def pages() -> list[str]:
    """Every page of the site, as a path below it."""
    found = (p.relative_to(SITE) for p in SITE.rglob("*.html"))
    return sorted(str(p) for p in found if p.parts[0] not in ("_static", "_sources"))


def looks(every: list[str]) -> list[tuple[str, int, str]]:
    """Page, width in px and theme. Colours do not depend on the middle width. Pages of
    exercises are alike: one is looked at in every way, the others in two."""
    ways = [(360, "light"), (360, "dark"), (768, "light"), (1440, "light"), (1440, "dark")]
    alike = [page for page in every if "/exercises/" in page][1:]
    return [(page, *way) for page in every for way in (ways[1::2] if page in alike else ways)]


def pytest_generate_tests(metafunc):
    every = pages()
    if "look" in metafunc.fixturenames:
        found = looks(every) or [("no site", 360, "light")]
        metafunc.parametrize("look", found, ids=["-".join(map(str, x)) for x in found])
    choices = {
        "page": lambda: every,
        "player_page": lambda: [p for p in every if "tt-controls" in read(p)],
        "chapter": lambda: [p for p in every if (ROOT / p).with_suffix(".ipynb").is_file()],
    }
    for name, choice in choices.items():
        if name in metafunc.fixturenames:
            # without a site there is one case, and it fails
            metafunc.parametrize(name, choice() if every else ["no site"])


@pytest.fixture(scope="session", autouse=True)
def site() -> "Site":
    """The site as files."""
    if not (SITE / "index.html").is_file():
        pytest.fail(f"there is no site at {SITE}: run `make book` first", pytrace=False)
    return Site()


class Site:
    """The pages, their sources and what they say."""

    root, path, pages = ROOT, SITE, staticmethod(pages)

    def raw(self, page: str) -> str:
        return read(page)

    def soup(self, page: str) -> BeautifulSoup:
        """The parsed page; drawings are empty, their contents only in `raw`."""
        return parse(page)

    def words(self, page: str) -> str:
        """The text of the article in one line."""
        return words_of(page)

    def mention(self, source: str, role: str) -> list[tuple[str, str, str]]:
        """Every {role}`name` of a MyST source, with the plain words beside it: before, name,
        after."""
        text = (ROOT / source).read_text(encoding="utf-8")
        text = re.sub(r"```\{code-cell\}.*?```", "", text, flags=re.S)
        near = r"[A-Za-z0-9, ]{0,30}"
        found = re.findall(rf"({near})\{{{role}\}}`([^`]+)`({near})", text)
        return [(a.lstrip(), name, b.rstrip()) for a, name, b in found]

    squeeze = staticmethod(lambda text: squeeze(text))


@cache
def read(page: str) -> str:
    return (SITE / page).read_text(encoding="utf-8")


@cache
def parse(page: str) -> BeautifulSoup:
    lean = re.sub(r"(<svg\b[^>]*>).*?</svg>", r"\1</svg>", read(page), flags=re.S)
    return BeautifulSoup(lean, "html.parser")


@cache
def words_of(page: str) -> str:
    article = parse(page).select_one("article") or parse(page)
    return squeeze(article.get_text())


def squeeze(text: str) -> str:
    """Text in one line, with straight quotes and plain spaces."""
    text = html.unescape(text).translate(
        str.maketrans({"“": '"', "”": '"', "‘": "'", "’": "'", "\xa0": " ", "…": "..."})
    )
    return re.sub(r"\s+", " ", text).strip()


# -- a server and a browser ----------------------------------------------------------------


class Quiet(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/favicon.ico":  # browsers ask for it beside the site, not in it
            self.send_response(204)
            return self.end_headers()
        return super().do_GET()

    def log_message(self, *args):
        pass


@pytest.fixture(scope="session")
def address(site):
    """The address under which the site is served."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=SITE))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def browser(site):
    """Chromium. Skips where none is installed, but not in CI: there its absence is a fault."""
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        why = f"no Chromium is installed (looked for {', '.join(BROWSERS)})"
        pytest.fail(why, pytrace=False) if os.environ.get("CI") else pytest.skip(why)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield running
        running.close()


class Tab:
    """A tab of the browser that remembers what went wrong on the page it shows."""

    def __init__(self, browser, address: str, **options):
        self.address = address
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(30_000)
        self.faults: list[str] = []
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda e: self.faults.append(f"page error: {e}"))
        self.page.on("request", self._request)
        self.page.on("requestfailed", self._failed)
        self.page.on("response", self._response)

    def open(self, name: str, *, width: int = 1440, scheme: str = "light"):
        """Load a page as a first visit, to the end, formulas included."""
        self.page.set_viewport_size({"width": width, "height": 900})
        self.page.emulate_media(color_scheme=scheme)
        self.faults.clear()
        self.page.goto("about:blank")  # else a #anchor of the same page would not load it
        self.faults.clear()
        self.page.goto(self.address + name)
        self.page.evaluate("window.MathJax?.startup?.promise?.then(() => null)")
        self.page.evaluate("document.fonts.ready.then(() => null)")
        return self.page

    def forget(self) -> None:
        """Make the next page a first visit again."""
        self.page.evaluate("localStorage.clear()")

    def _console(self, message):
        if message.type in ("error", "warning"):
            self.faults.append(f"console {message.type}: {message.text}")

    def _request(self, request):
        if not request.url.startswith((self.address, "data:", "blob:", "about:")):
            self.faults.append(f"request to elsewhere: {request.url}")

    def _failed(self, request):
        self.faults.append(f"request failed: {request.url} ({request.failure})")

    def _response(self, response):
        if response.status >= 400:
            self.faults.append(f"request failed: {response.url} ({response.status})")


@pytest.fixture(scope="session")
def tab(browser, address):
    tab = Tab(browser, address)
    yield tab
    tab.context.close()


@pytest.fixture
def new_tab(browser, address):
    """Make a tab of its own, with an empty cache and the options of a Playwright context."""
    made = []

    def new_tab(**options) -> Tab:
        made.append(Tab(browser, address, **options))
        return made[-1]

    yield new_tab
    for tab in made:
        tab.context.close()
