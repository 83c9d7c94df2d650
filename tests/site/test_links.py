"""Every link leads somewhere: pages, anchors, claims, notebooks, a fork's launch links."""

import json
import os
import posixpath
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from bs4 import BeautifulSoup

SETTLED = Path("_build") / "settled.json"
SKIP = (".git", ".venv", "html*", "log", "tests", "__pycache__", ".doctrees", "*cache")


def targets(soup) -> list[str]:
    """What a page links to or loads, as written."""
    found = [tag.get(name) for tag in soup.find_all(True) for name in ("href", "src", "action")]
    return [target for target in found if target is not None]


def ids(raw: str) -> list[str]:
    """All ids of a page, those inside drawings too."""
    text = re.sub(r"<script\b.*?</script>|<!--.*?-->", "", raw, flags=re.S)
    return [m[2] for m in re.finditer(r"<[a-zA-Z][^<>]*?\sid=([\"'])(.*?)\1", text)]


def resolve(page: str, target: str) -> tuple[str, str]:
    """The file and the anchor that a link written on `page` means."""
    parts = urlsplit(target)
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page), unquote(parts.path)))
    return (path if parts.path else page), unquote(parts.fragment)


def test_internal_links_resolve(page, site):
    dead = []
    for target in targets(site.soup(page)):
        if urlsplit(target).scheme or target.startswith(("//", "/")):
            continue
        path, anchor = resolve(page, target)
        file = site.path / path
        if file.is_dir():
            path, file = posixpath.join(path, "index.html"), file / "index.html"
        if path.startswith("..") or not file.is_file():
            dead.append(f"{target}: there is no {path}")
        elif anchor and path.endswith(".html") and anchor not in ids(site.raw(path)):
            dead.append(f"{target}: {path} has no id {anchor!r}")
    assert not dead, f"{page}:\n" + "\n".join(sorted(set(dead)))


def test_links_leave_the_site_by_https_only(page, site):
    """No plain http, no path from the server's root (a site may live below one), no file."""
    allowed = ("https", "mailto", "data", "")
    wrong = [
        target
        for target in targets(site.soup(page))
        if urlsplit(target).scheme not in allowed or target.startswith("/")
    ]
    assert not wrong, f"{page}: {wrong}"


def test_no_page_names_the_machine_it_was_built_on(page, site):
    places = {f"{site.root}", f"{Path.home()}/", "file:/"} - {"//", "/"}
    raw = site.raw(page)
    found = [raw[max(0, i - 60) : i + 60] for p in places if (i := raw.find(p)) >= 0]
    assert not found, f"{page} names a path of this machine: {found}"


def test_ids_are_unique(page, site):
    twice = [id for id, n in Counter(ids(site.raw(page))).items() if n > 1]
    assert not twice, f"{page}: {twice}"


def test_drawings_find_what_they_refer_to(page, site):
    """Clip paths, markers and gradients: url(#x) and xlink:href="#x" inside SVG."""
    raw = site.raw(page)
    known = set(ids(raw))
    used = {
        name
        for svg in re.findall(r"<svg\b.*?</svg>", raw, re.S)
        for name in re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", svg)
    }
    assert used <= known, f"{page}: {used - known}"


def test_no_page_is_left_over_from_an_earlier_build(site):
    index = (site.path / "searchindex.js").read_text(encoding="utf-8")
    names = json.loads(index[index.index("{") : index.rindex("}") + 1])["docnames"]
    made = {f"{name}.html" for name in names} | {"search.html", "genindex.html"}
    assert set(site.pages()) == made


# -- claims --------------------------------------------------------------------------------


def settled(site) -> dict:
    return json.loads((site.root / SETTLED).read_text(encoding="utf-8"))["claims"]


def test_every_mention_of_a_claim_is_a_link(page, site):
    soup = site.soup(page)
    assert "data-claim=" not in site.raw(page)
    for link in soup.select("a.claim-id"):
        path, anchor = resolve(page, link["href"])
        assert (path, anchor) == ("claims.html", link.get_text().lower())


def test_cards_and_rows_link_to_each_other(site):
    """The card of every claim that a chapter settles, its row, and the way back."""
    ledger = site.soup("claims.html")
    cards = {
        card["id"].removeprefix("settles-").upper(): (page, card)
        for page in site.pages()
        for card in site.soup(page).select("div.claim[id^=settles-]")
    }
    by_chapters = {
        id: record["settled_by"]
        for id, record in settled(site).items()
        if record["settled_by"].startswith("chapters/")
    }
    assert set(cards) == set(by_chapters)
    for id, (page, card) in cards.items():
        assert page == by_chapters[id].replace(".md", ".html")
        link = card.select_one(".claim-head a.claim-id")
        assert resolve(page, link["href"]) == ("claims.html", id.lower())
        row = ledger.find(id=id.lower())
        assert "row-claim" in row["class"]
        back = [resolve("claims.html", a["href"]) for a in row.select("a[href]")]
        assert (page, card["id"]) in back, f"the row of {id} does not link back"
    for row in ledger.select(".row-claim"):
        if row["id"].upper() not in cards:
            assert not row.select("a[href*='#settles-']")


# -- notebooks to download, and launch links -----------------------------------------------


def test_the_notebook_can_be_downloaded(chapter, site):
    twin = Path(chapter).with_suffix(".ipynb")
    links = [resolve(chapter, t)[0] for t in targets(site.soup(chapter))]
    assert links.count(f"_sources/{twin}") == 1
    assert (site.path / "_sources" / twin).read_bytes() == (site.root / twin).read_bytes()


def launch_links(text: str) -> set[str]:
    """The buttons' links to other hosts."""
    buttons = BeautifulSoup(text, "html.parser").select(".article-header-buttons a[href]")
    return {a["href"] for a in buttons if urlsplit(a["href"]).netloc}


@pytest.fixture(scope="module")
def builds(site, tmp_path_factory):
    """The first notebooks of the course, built by two strangers: {variables: {page: html}}."""
    copy = tmp_path_factory.mktemp("course") / "course"
    shutil.copytree(site.root, copy, ignore=shutil.ignore_patterns(*SKIP))
    twins = sorted((site.root / "chapters").rglob("*.ipynb"), key=lambda p: len(p.parts))
    pages = [p.relative_to(site.root).with_suffix("") for p in {twins[0]: 1, twins[-1]: 1}]
    toc = {"format": "jb-book", "root": "index", "chapters": [{"file": str(p)} for p in pages]}
    config = yaml.safe_load((copy / "_config.yml").read_text(encoding="utf-8"))
    config["execute"] = {"execute_notebooks": "off"}  # links do not need outputs
    for name, content in (("_toc.yml", toc), ("_config.yml", config)):
        (copy / name).write_text(yaml.safe_dump(content), encoding="utf-8")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("GITHUB_", "BOOK_"))}
    command = [Path(sys.executable).with_name("jupyter-book"), "build", ".", "-q"]

    def build(**variables) -> dict[str, str]:
        env = kept | {"PYTHONPATH": str(copy), "GIT_CEILING_DIRECTORIES": str(copy.parent)}
        done = subprocess.run(
            command, cwd=copy, env=env | variables, capture_output=True, text=True, timeout=180
        )
        assert done.returncode == 0, done.stdout + done.stderr
        made = copy / "_build" / "html"
        return {
            f"{p}.html": (made / p).with_suffix(".html").read_text(encoding="utf-8")
            for p in pages
        }

    return {
        "unknown": build(),
        "fork": build(GITHUB_REPOSITORY="someone/fork", BOOK_BRANCH="launch"),
    }


def test_without_a_repository_there_are_no_launch_links(builds):
    for text in builds["unknown"].values():
        assert not launch_links(text)
        assert "btn-launch" not in text
        assert "mybinder.org" not in text


def test_launch_links_name_the_fork_the_notebook_and_the_branch(builds):
    for page, text in builds["fork"].items():
        twin = page.replace(".html", ".ipynb")
        found = launch_links(text)
        at = "someone/fork"
        needed = {
            f"https://mybinder.org/v2/gh/{at}/launch?urlpath=lab/tree/{twin}",
            f"https://colab.research.google.com/github/{at}/blob/launch/{twin}",
            f"https://github.com/{at}",
        }
        assert needed <= found, f"{page} lacks {needed - found} among {found}"
        strange = [link for link in found if at not in link]
        assert not strange, f"{page} points at another repository: {strange}"


def test_launch_links_are_those_of_this_repository(chapter, site):
    found = launch_links(site.raw(chapter))
    named = [re.search(r"(?:/gh/|/github/|github\.com/)([\w.-]+/[\w.-]+)", x) for x in found]
    names = {match and match[1] for match in named}
    known = os.environ.get("GITHUB_REPOSITORY")
    assert names == {known} if known else len(names) <= 1, found
