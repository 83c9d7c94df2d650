"""The course's own Sphinx extension.

It shows on a page what the run left behind (figures, numbers, the ledger of claims), points
launch and source links at the repository this copy lives in, serves MathJax from the site
itself and mends what the theme gets wrong.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from importlib import metadata
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective, SphinxRole
from sphinx.util.logging import getLogger

from lib import cards, claims

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))
from tools import exercises  # noqa: E402  needs the path

EXECUTED = ROOT / "_build" / "executed"
SETTLED = ROOT / "_build" / "settled.json"
log = getLogger(__name__)


# -- what the run left ---------------------------------------------------------------------


def settled() -> dict:
    """`_build/settled.json`: the build's date and its settlements by id."""
    if not SETTLED.is_file():
        return {"built": None, "claims": {}}
    return json.loads(SETTLED.read_text(encoding="utf-8"))


def outputs(docname: str) -> list[dict]:
    """All outputs of an executed notebook."""
    path = (EXECUTED / docname).with_suffix(".ipynb")
    if not path.is_file():
        return []
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return [o for c in notebook["cells"] for o in c.get("outputs", [])]


class RunFigure(SphinxDirective):
    """```{run-figure} chapters/x key```: a figure that another page's run drew."""

    required_arguments = 2

    def run(self):
        docname, key = self.arguments
        self.env.note_dependency(str((EXECUTED / docname).with_suffix(".ipynb")))
        for output in outputs(docname):
            if output.get("metadata", {}).get("course", {}).get("figure") == key:
                html = output["data"]["text/html"]
                text = html if isinstance(html, str) else "".join(html)
                return [nodes.raw("", text, format="html")]
        raise self.error(f"the run of {docname} drew no figure with the key {key!r}")


class RunNumber(SphinxRole):
    """{run}`chapters/x name`: a number that another page's run handed to the prose."""

    def run(self):
        docname, name = self.text.split()
        self.env.note_dependency(str((EXECUTED / docname).with_suffix(".ipynb")))
        for output in outputs(docname):
            if output.get("metadata", {}).get("scrapbook", {}).get("name") == name:
                data = output["data"]["application/papermill.record/text/plain"]
                return [nodes.inline("", data if isinstance(data, str) else "".join(data))], []
        log.warning(
            "the run of %s left no number %r", docname, name, location=self.get_location()
        )
        return [], []


class Count(SphinxRole):
    """{count}`settled`: how many claims there are, of a verdict, settled, or waiting."""

    def run(self):
        self.env.note_dependency(str(SETTLED))
        return [nodes.inline("", str(counts()[self.text]))], []


def counts() -> dict[str, int]:
    all_claims = claims.load().values()
    done = settled()["claims"]
    looked_up = sum(c.settled_by == "reference" for c in all_claims)
    return {
        "all": len(all_claims),
        "measured": len(done),
        "settled": len(done) + looked_up,
        "waiting": len(all_claims) - len(done) - looked_up,
        **Counter(c.verdict for c in all_claims),
    }


# -- the ledger ----------------------------------------------------------------------------


class ClaimLink(SphinxRole):
    """{claim}`NORM-04`: a link to the row of a claim."""

    def run(self):
        if self.text not in claims.load():
            log.warning("no claim %r in claims.yml", self.text, location=self.get_location())
        html = f'<a class="claim-id" data-claim="{self.text}">{self.text}</a>'
        return [nodes.raw("", html, format="html")], []


class Ledger(SphinxDirective):
    """The whole ledger: a section per chapter, a row per claim, with this build's numbers."""

    def run(self):
        for path in (SETTLED, claims.find_claims()):
            self.env.note_dependency(str(path))
        by_chapter: dict[str, list] = {}
        for claim in claims.load().values():
            by_chapter.setdefault(claim.chapter, []).append(claim)
        done = settled()["claims"]
        made = [nodes.raw("", _filters(list(by_chapter)), format="html")]
        for chapter, rows in by_chapter.items():
            title = _title(chapter)
            section = nodes.section(ids=[f"ledger-{chapter.replace('_', '-')}"])
            section += nodes.title(title, title)
            n = sum(c.id in done for c in rows)
            section += nodes.paragraph("", f"{n} of {len(rows)} measured in this build.")
            for claim in rows:
                section += self.row(claim, done.get(claim.id))
            made.append(section)
        return made

    def row(self, claim: claims.Claim, record: dict | None) -> nodes.container:
        row = nodes.container(
            classes=["row-claim", f"claim-{claim.verdict}"], ids=[claim.id.lower()]
        )
        looked_up = claim.settled_by == "reference"
        state = "measured" if record else "looked up" if looked_up else "waiting"
        if state == "waiting" and claim.settled_by:
            state = "not run here"
        shown = "measured" if record else "waiting"
        row += nodes.raw(
            "",
            f'<p class="claim-head" data-chapter="{claim.chapter}" '
            f'data-verdict="{claim.verdict}" data-state="{shown}">'
            f'<a class="claim-id" href="#{claim.id.lower()}">{claim.id}</a> '
            f'<span class="claim-verdict">{cards.VERDICT_WORDS[claim.verdict]}</span> '
            f'<span class="claim-state">{state}</span></p>',
            format="html",
        )
        row += self.prose(claim.statement, "claim-statement")
        if record:
            row += nodes.raw("", cards.card(claim, record, heading=False), format="html")
        about = [claim.reason]
        if claim.verdict == "conditional" and not record:
            about += [f"Where it holds: {claim.where}. Where it does not: {claim.where_not}."]
        if not (record or looked_up):
            about += [f"How it will be settled: {claim.plan}"]
        if claim.references:
            about += ["{cite:t}`" + ",".join(claim.references) + "`."]
        about += [_said(claim)]
        row += nodes.raw("", "<details><summary>Why, and who says so</summary>", format="html")
        for text in about:
            row += self.prose(text, "claim-why")
        row += nodes.raw("", "</details>", format="html")
        if record and claim.settled_by.startswith("chapters/"):
            href = f"{claim.settled_by.removesuffix('.md')}.html#settles-{claim.id.lower()}"
            row += nodes.raw(
                "",
                f'<p class="claim-meta"><a href="{href}">'
                f"Measured in {_title(claim.chapter)}</a></p>",
                format="html",
            )
        return row

    def prose(self, text: str, style: str) -> nodes.container:
        box = nodes.container(classes=[style])
        self.state.nested_parse(StringList(text.splitlines(), "claims.yml"), 0, box)
        return box


TITLES = {
    "batch_norm": "Batch normalization",
    "pretraining": "Pretraining with RBMs and DBNs",
    "schedules": "Learning-rate schedules",
    "hyperparameter_search": "Hyper-parameter search",
}
KINDS = {
    "text": "",
    "code": " in a listing",
    "output": " in a printed output",
    "implied": " without saying it outright",
}


def _title(chapter: str) -> str:
    return TITLES.get(chapter, chapter.replace("_", " ").capitalize())


def _said(claim: claims.Claim) -> str:
    if not claim.notes:
        return "None of the five study notes says it; we added it."
    one = len(claim.notes) == 1
    return f"Said by {'note' if one else 'notes'} {', '.join(claim.notes)}{KINDS[claim.kind]}."


def _filters(chapters: list[str]) -> str:
    options = "".join(f'<option value="{c}">{_title(c)}</option>' for c in chapters)
    verdicts = "".join(
        f'<option value="{v}">{w}</option>' for v, w in cards.VERDICT_WORDS.items()
    )
    return (
        '<form class="ledger-filter" hidden>'
        f'<label>Chapter <select name="chapter"><option value="">all</option>{options}</select>'
        f'</label><label>Verdict <select name="verdict"><option value="">all</option>{verdicts}'
        '</select></label><label>State <select name="state"><option value="">all</option>'
        '<option value="measured">measured</option><option value="waiting">waiting</option>'
        '</select></label><label>Words <input name="words" type="search"></label>'
        '<output aria-live="polite"></output></form>'
    )


class Mosaic(SphinxDirective):
    """Every claim as a square: its colour the verdict, filled once this build measured it."""

    def run(self):
        for path in (SETTLED, claims.find_claims()):
            self.env.note_dependency(str(path))
        done, n = settled()["claims"], counts()
        columns, step = 27, 13
        squares = []
        for i, claim in enumerate(claims.load().values()):
            x, y = i % columns * step + 1, i // columns * step + 1
            known = claim.id in done or claim.settled_by == "reference"
            state = "measured" if known else "waiting"
            squares.append(
                f'<rect class="claim-{claim.verdict} is-{state}" x="{x}" y="{y}" width="10" '
                f'height="10" rx="2"/>'
            )
        width, height = columns * step, -(-n["all"] // columns) * step
        alt = (
            f"{n['all']} squares, one for each claim. {n['holds']} hold, "
            f"{n['conditional']} hold under conditions, {n['false']} are false, "
            f"{n['open']} are open. {n['settled']} are filled in: they are settled."
        )
        key = "".join(
            f'<span class="claim-{v}"><span class="swatch"></span>{n[v]} {words}</span>'
            for v, words in {
                "holds": "hold",
                "conditional": "hold under conditions",
                "false": "are false",
                "open": "are open",
            }.items()
        )
        html = (
            '<figure class="tt-figure tt-mosaic"><svg role="img" '
            f'aria-label="{alt}" viewBox="0 0 {width} {height}" width="{width * 2}" '
            f'height="{height * 2}">{"".join(squares)}</svg>'
            f'<figcaption><span class="tt-key">{key}</span></figcaption></figure>'
        )
        return [nodes.raw("", html, format="html")]


class BuildInfo(SphinxDirective):
    """One line: on what, from which seed and when the numbers on this site were measured."""

    def run(self):
        self.env.note_dependency(str(SETTLED))
        return [nodes.paragraph("", build_line(), classes=["build-info"])]


def build_line() -> str:
    run = settled()
    records = list(run["claims"].values())
    if not records:
        return "This build has measured nothing yet."
    r = records[0]
    versions = ", ".join(f"{name} {v}" for name, v in r["versions"].items())
    return f"Measured on {run['built']} on {r['device']}, seed {r['seed']}, with {versions}."


def link_claims(app, pagename, templatename, context, doctree):
    """Point every mention of a claim at its row, and give every card its anchor."""
    body = context.get("body")
    if not body or "data-claim" not in body:
        return
    ledger = context["pathto"]("claims")

    def link(match: re.Match) -> str:
        id = match[1].lower()
        href = f"#{id}" if pagename == "claims" else f"{ledger}#{id}"
        return f'<a class="claim-id" href="{href}">'

    def anchor(match: re.Match) -> str:
        return f'<div id="settles-{match[3].lower()}" {match[1]}{match[2]}{match[3]}'

    body = re.sub(
        r'<div (class="claim [^>]*>)(<p class="claim-head"><a class="claim-id" data-claim=")'
        r"([\w-]+)",
        anchor,
        body,
    )
    context["body"] = re.sub(r'<a class="claim-id" data-claim="([\w-]+)">', link, body)


def show_stubs(app, docname, source):
    """Put what the student gets before every solution of an exercise."""
    if exercises.is_exercises(Path(docname)):
        source[0] = exercises.for_the_page(source[0])


# -- freshness -----------------------------------------------------------------------------


def outdated(app, env, added, changed, removed):
    """Pages whose outputs, or what shows them, changed although their source did not."""
    shown_by = [*(ROOT / "_ext").glob("*.py"), *(ROOT / "_static").iterdir()]
    shown_by += [ROOT / p for p in ("lib/claims.py", "lib/cards.py", "tools/exercises.py")]
    own = hashlib.sha256(b"".join(p.read_bytes() for p in sorted(shown_by))).hexdigest()
    known, now = getattr(env, "course_outputs", {}), {"own": own}
    for docname in env.found_docs:
        path = (EXECUTED / docname).with_suffix(".ipynb")
        if path.is_file():
            now[docname] = hashlib.sha256(path.read_bytes()).hexdigest()
    env.course_outputs = now
    if known.get("own") != own:  # Sphinx looks at none of these
        return env.found_docs - added - changed
    stale = {d for d, key in now.items() if d != "own" and known.get(d) != key}
    return stale - added - changed


# -- links that follow the fork ------------------------------------------------------------


def repository() -> str:
    """The https address of the repository of this copy, or '' where none is known."""
    if name := os.environ.get("GITHUB_REPOSITORY"):
        return f"{os.environ.get('GITHUB_SERVER_URL', 'https://github.com')}/{name}"
    try:
        url = subprocess.run(
            ["git", "-C", str(ROOT), "remote", "get-url", "origin"],
            capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return ""
    found = re.fullmatch(
        r"(?:https?://(?:[^@/]*@)?|(?:ssh://)?git@)([\w-]+(?:\.[\w-]+)+)(?::\d+)?[:/]"
        r"([\w.~-]+(?:/[\w.-]+)*/[\w.-]+?)(?:\.git)?/?",
        url,
    )
    return f"https://{found[1]}/{found[2]}" if found else ""


def configure(app, config):
    options = config.html_theme_options
    options["repository_url"] = url = repository()
    options["repository_branch"] = os.environ.get("BOOK_BRANCH", "main")
    options["use_repository_button"] = options["use_issues_button"] = bool(url)
    if not url:
        options["launch_buttons"] = {}
    options.setdefault("navbar_persistent", [])  # one search button, not two
    options["extra_footer"] = f'<p class="build-info">{build_line()}</p>'
    config.html_context["default_mode"] = "auto"  # without it the theme warns on every page
    config.mathjax_path = "mathjax/tex-chtml.js"


def offer_notebook(app, pagename, templatename, context, doctree):
    """Offer the notebook twin for download, also where no launch link can be made."""
    twin = (ROOT / pagename).with_suffix(".ipynb")
    if twin.is_file():
        context["ipynb_source"] = f"{pagename}.ipynb"
        copy = Path(app.outdir) / "_sources" / f"{pagename}.ipynb"
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(twin, copy)


# -- MathJax from the site, and the theme's faults ------------------------------------------

FIXES = [
    # a summary's own text names it
    (r'<summary aria-label="Toggle hidden content">', "<summary>"),
    (r'(<button class="btn search-button-field[^>]*?) aria-label="Search"', r"\1"),
    (r'(<i class="theme-switch [^>]*?) title="[^"]*"', r'\1 aria-hidden="true"'),
    (
        r'<div class="sidebar-primary-items__start sidebar-primary__section">',
        '<div class="sidebar-primary-items__start sidebar-primary__section" role="region" '
        'aria-label="Course contents">',
    ),
    # what opens a branch of the contents has no name
    (r"<summary>(<span class=\"toctree-toggle\")", r'<summary aria-label="Pages below">\1'),
    # a wide table scrolls by itself, and the keyboard has to reach it
    (r'<table class="table">', '<table class="table" tabindex="0">'),
    (r' role="doc-biblioentry"', ""),  # deprecated, and its list holds other things too
    (r'<div role="list" class="citation-list">', '<div class="citation-list">'),
]


EXERCISE_FIXES = [
    ("Show code cell source", "The check, as code"),
    ("Hide code cell source", "The check, as code"),
    (r' *<span class="c1">### (?:BEGIN|END) SOLUTION</span>\n', ""),  # marks for machines
]


def finish(app, error):
    """After writing: MathJax and its fonts, mended pages, clean notebooks to download."""
    if error or app.builder.format != "html":
        return
    out = Path(app.outdir)
    dist = metadata.distribution("sphinx-mathjax-offline")
    source = Path(dist.locate_file("sphinx-mathjax-offline/static/mathjax"))
    target = out / "_static" / "mathjax"
    if not target.is_dir():
        fonts = "output/chtml/fonts/woff-v2"
        shutil.copytree(source / fonts, target / fonts)
        shutil.copy2(source / "tex-chtml.js", target)
    for page in out.rglob("*.html"):
        old = new = page.read_text(encoding="utf-8")
        fixes = FIXES + EXERCISE_FIXES * exercises.is_exercises(page)
        for pattern, replacement in fixes:
            new = re.sub(pattern, replacement, new)
        if new != old:
            page.write_text(new, encoding="utf-8")
    for download in (out / "_sources").rglob("*.ipynb"):
        shutil.copyfile(ROOT / download.relative_to(out / "_sources"), download)


def setup(app):
    for listeners in app.events.listeners.values():  # sphinx_thebe asks a CDN, and throws
        listeners[:] = [
            x
            for x in listeners
            if not getattr(x.handler, "__module__", "").startswith("sphinx_thebe")
            or x.handler.__name__ == "st_static_path"
        ]
    app.add_directive("run-figure", RunFigure)
    app.add_directive("ledger", Ledger)
    app.add_directive("mosaic", Mosaic)
    app.add_directive("build-info", BuildInfo)
    app.add_role("run", RunNumber())
    app.add_role("count", Count())
    app.add_role("claim", ClaimLink())
    app.connect("config-inited", configure)
    app.connect("env-get-outdated", outdated)
    app.connect("source-read", show_stubs)
    app.connect("html-page-context", link_claims)
    app.connect("html-page-context", offer_notebook, priority=400)  # before the theme's buttons
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
