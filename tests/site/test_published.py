"""What nbval ran is what the book shows: every figure, number, printed line and settlement."""

import json
import re
from pathlib import Path

import pytest

from lib import claims
from tools.exercises import LATER, is_exercises
from tools.notebooks import solved

HIDDEN = {"remove-cell", "remove-output", "remove_cell", "remove_output"}  # cells' tags
RECORD = "application/papermill.record/text/plain"


def text(data) -> str:
    """Notebook files hold text as one string or as a list of lines."""
    return data if isinstance(data, str) else "".join(data)


class Runs(dict):
    """Notebooks by the name of their page."""

    def __init__(self, folder: Path):
        for path in sorted(folder.rglob("*.ipynb")):
            if ".ipynb_checkpoints" not in path.parts:
                page = path.relative_to(folder).with_suffix(".html")
                self[str(page)] = json.loads(path.read_text(encoding="utf-8"))

    def __missing__(self, page):
        pytest.fail(f"the notebook of {page} was not run: run `make book`", pytrace=False)


@pytest.fixture(scope="module")
def executed(site) -> Runs:
    """Every notebook that nbval ran."""
    return Runs(site.root / "_build" / "executed")


def outputs(notebook: dict) -> list[dict]:
    """What a reader of the page is to see."""
    return [
        output
        for cell in notebook["cells"]
        if not HIDDEN & set(cell["metadata"].get("tags", []))
        for output in cell.get("outputs", [])
    ]


def numbers(notebook: dict) -> dict[str, str]:
    """The numbers that a run handed to the prose."""
    return {
        output["metadata"]["scrapbook"]["name"]: text(output["data"][RECORD]).strip("'")
        for cell in notebook["cells"]
        for output in cell.get("outputs", [])
        if "scrapbook" in output.get("metadata", {})
    }


def lean(markup: str) -> str:
    """Markup without what the page adds: white space, the links of claims, tables in reach."""
    added = r' (?:id="settles-[\w-]+"|data-claim="[\w-]+"|href="[^"]*#[\w-]+"|tabindex="0")'
    markup = re.sub(added, "", markup)
    return re.sub(r"\s+", " ", markup).replace("> <", "><")


def test_every_notebook_was_run_as_it_stands(site, executed):
    """The notebooks of the sources, the executed ones and the pages are the same ones."""
    twins = {f"chapters/{page}": twin for page, twin in Runs(site.root / "chapters").items()}
    assert set(executed) == set(twins)
    assert set(executed) <= set(site.pages())
    for page, twin in twins.items():
        source = (site.root / page).with_suffix(".md")
        if is_exercises(source):  # the twin has stubs
            twin = json.loads(solved(source, site.root))
        code = [text(c["source"]) for c in twin["cells"] if c["cell_type"] == "code"]
        ran = [c for c in executed[page]["cells"] if c["cell_type"] == "code"]
        assert [text(c["source"]) for c in ran] == code, page
        assert all(c["execution_count"] for c in ran), page


def test_the_page_shows_every_figure_and_card_of_the_run(chapter, site, executed):
    shown = lean(site.raw(chapter))
    for output in outputs(executed[chapter]):
        markup = text(output.get("data", {}).get("text/html", ""))
        figures = re.findall(r"<figure\b.*?</figure>", markup, re.S) or [markup]
        for figure in figures:
            assert lean(figure).strip() in shown, f"{chapter} lacks {figure[:300]}"


def test_the_page_shows_every_line_that_the_run_printed(chapter, site, executed):
    shown = site.words(chapter)
    for output in outputs(executed[chapter]):
        if output["output_type"] == "stream" and output["name"] == "stdout":
            said = re.sub(r"\x1b\[[0-9;]*m", "", text(output["text"]))
        elif output["output_type"] == "execute_result" and "text/html" not in output["data"]:
            said = text(output["data"].get("text/plain", ""))
        else:
            continue
        for line in filter(str.strip, said.splitlines()):
            assert site.squeeze(line) in shown, f"{chapter} lacks {line!r}"


def test_the_page_shows_no_error_and_no_warning_of_the_run(chapter, site, executed):
    for output in outputs(executed[chapter]):
        assert output["output_type"] != "error"
        assert output.get("name") != "stderr", f"{chapter}: {text(output['text'])[:300]}"
    assert not site.soup(chapter).select(".output.stderr, .output.traceback")


@pytest.fixture
def exercises(site):
    return [page for page in site.pages() if is_exercises(Path(page))]


def test_solutions_are_closed_and_checks_have_run(exercises, site):
    for page in exercises:
        article = site.soup(page).select_one("article")
        numbers = range(1, len(article.select("details.solution")) + 1)
        assert [d.summary.get_text() for d in article.select("details.solution")] == [
            "Solution" for _ in numbers
        ]
        assert not article.select("details[open]")
        for n in numbers:
            assert f"Exercise {n}: right." in site.words(page)


def test_a_page_shows_the_stub_of_each_solution_and_no_marks(exercises, site):
    for page in exercises:
        text = site.soup(page).select_one("article").get_text()
        stubs = text.count("# YOUR CODE HERE")
        assert stubs >= len(site.soup(page).select("details.solution"))
        assert "### BEGIN" not in text
        assert "### END" not in text


def test_what_a_page_of_exercises_offers_holds_no_solution(exercises, site):
    """The notebook behind the download button, and the one that launch links open."""
    for page in exercises:
        offered = site.path / "_sources" / Path(page).with_suffix(".ipynb")
        text = offered.read_text(encoding="utf-8")
        assert text == (site.root / page).with_suffix(".ipynb").read_text(encoding="utf-8")
        assert "raise NotImplementedError()" in text
        assert LATER in text
        assert "SOLUTION" not in text


def test_solved_exercises_stay_within_their_budget(executed):
    seconds = {
        page: notebook["metadata"]["course"]["seconds"]
        for page, notebook in executed.items()
        if is_exercises(Path(page))
    }
    assert sum(seconds.values()) < 240, seconds


def test_the_build_ran_nothing(site):
    log = (site.root / "_build" / "log" / "book.log").read_text(encoding="utf-8")
    assert "Executing notebook" not in log


def test_settlements_are_those_of_the_run(site, executed):
    built = json.loads((site.root / "_build" / "settled.json").read_text(encoding="utf-8"))
    found = {
        record["id"]: record | {"settled_by": page.replace(".html", ".md")}
        for page, notebook in executed.items()
        for record in claims.records_of(notebook)
    }
    for path in (site.root / "_build" / "settled_by_tests").glob("*.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        assert record["id"] not in found
        found[record["id"]] = record
    assert built["claims"] == found
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", built["built"])


def test_every_page_says_what_its_numbers_were_measured_on(page, site):
    built = json.loads((site.root / "_build" / "settled.json").read_text(encoding="utf-8"))
    said = site.squeeze(site.soup(page).select_one("footer .build-info").get_text())
    for record in list(built["claims"].values())[:1]:
        for fact in (built["built"], record["device"], f"seed {record['seed']}"):
            assert str(fact) in said
        for name, version in record["versions"].items():
            assert f"{name} {version}" in said


def sources(site) -> list[str]:
    found = [page.replace(".html", ".md") for page in site.pages()]
    return [source for source in found if (site.root / source).is_file()]


def test_numbers_in_prose_are_those_of_the_run(site, executed):
    """{glue:text} on a chapter, {run} on any page; with the words beside them."""
    wrong = []
    for source in sources(site):
        page = source.replace(".md", ".html")
        asked = [(m, page, m[1]) for m in site.mention(source, "glue:text")]
        asked += [
            (m, f"{name.split()[0]}.html", name.split()[1])
            for m in site.mention(source, "run")
            for name in [m[1]]
        ]
        shown = site.words(page)
        for (before, _, after), origin, name in asked:
            name, _, spec = name.partition(":")
            number = numbers(executed[origin]).get(name)
            if number is None:
                wrong.append(f"{source}: the run of {origin} left no number {name!r}")
                continue
            number = format(float(number), spec) if spec else number
            expected = site.squeeze(f"{before}{number}{after}")
            if expected not in shown:
                wrong.append(f"{page} does not say {expected!r} ({name})")
    assert not wrong, "\n".join(wrong)


def test_every_number_of_a_run_is_used(site, executed):
    """A number that no page mentions is left over from a sentence that is gone."""
    used = {
        (Path(source).with_suffix(".html").as_posix(), m[1].partition(":")[0])
        for source in sources(site)
        for m in site.mention(source, "glue:text")
    } | {
        (f"{m[1].split()[0]}.html", m[1].split()[1])
        for source in sources(site)
        for m in site.mention(source, "run")
    }
    left = {(p, name) for p, notebook in executed.items() for name in numbers(notebook)} - used
    assert not left, sorted(left)
