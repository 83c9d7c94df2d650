"""The way from a source to a page: twins, freshness, nbval, the cache, the one-line errors."""

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from lib import claims, data, device
from tests.claims import conftest
from tools import course, execute, notebooks

ROOT = Path(__file__).resolve().parent.parent
settle = conftest.settle  # the fixture
HEADER = """---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---
"""
CHAPTER = (
    HEADER
    + """
# A chapter

Prose about {cite:t}`glorot2010`, {cite:p}`he2015,lecun1998`, {glue:text}`gain` and
{claim}`NORM-01`; see [the other](other.md).

(a-target)=
## Code

```{code-cell} ipython3
:tags: [hide-input]

x = 6 * 7
print(x)
```

```{code-cell} ipython3
x;
```
"""
)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a chapter, a `lib`, and requirements, as the working directory."""
    (tmp_path / "chapters").mkdir()
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "a.py").write_text("A = 1\n")
    (tmp_path / "requirements.txt").write_text("torch==2.13.0\n")
    shutil.copy(ROOT / "references.bib", tmp_path)
    write(tmp_path, "one", CHAPTER)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(root, stem, text):
    source = root / "chapters" / f"{stem}.md"
    source.write_text(text, encoding="utf-8")
    twin = source.with_suffix(".ipynb")
    twin.write_text(notebooks.twin(source, root), encoding="utf-8")
    return twin


def twins(root):
    return sorted((root / "chapters").glob("*.ipynb"))


def mark_as_run(root):
    """What a passed run leaves, without running."""
    for path, key in execute.stale(twins(root), root).items():
        done = execute.executed(path, root)
        done.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, done)
        done.with_suffix(".key").write_text(key)
    assert not execute.stale(twins(root), root)


# -- twins ---------------------------------------------------------------------------------


def test_a_twin_has_the_code_and_no_outputs(project):
    (path,) = twins(project)
    cells = nbformat.read(path, as_version=4).cells
    assert [c.source for c in cells if c.cell_type == "code"] == ["x = 6 * 7\nprint(x)", "x;"]
    assert not any(c.get("outputs") for c in cells)
    assert [c.id for c in cells] == [f"one-{i:03d}" for i in range(len(cells))]
    assert [c.metadata.get("tags") for c in cells if c.cell_type == "code"] == [
        ["hide-input"],
        None,
    ]


def test_the_same_source_gives_the_same_bytes(project):
    source = project / "chapters" / "one.md"
    assert notebooks.twin(source, project) == notebooks.twin(source, project)


def test_a_twin_says_in_words_what_only_the_book_can_show(project):
    text = nbformat.read(twins(project)[0], as_version=4).cells[0].source
    assert "Glorot and Bengio (2010)" in text
    assert "(He et al., 2015; Le" in text
    assert '`numbers["gain"]`' in text
    assert "[the other](other.ipynb)" in text
    assert "{" not in text
    assert "a-target" not in str(nbformat.read(twins(project)[0], as_version=4))


def test_check_finds_a_stale_twin_and_one_without_source(project, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["notebooks", "--check"])
    notebooks.main()
    (project / "chapters" / "one.md").write_text(CHAPTER + "\nMore.\n", encoding="utf-8")
    with pytest.raises(SystemExit, match=r"one\.ipynb"):
        notebooks.main()
    write(project, "one", CHAPTER)
    (project / "chapters" / "gone.ipynb").write_text("{}")
    with pytest.raises(SystemExit, match=r"gone\.ipynb"):
        notebooks.main()


def test_check_finds_an_unformatted_cell(project, monkeypatch):
    write(project, "one", CHAPTER.replace("x = 6 * 7", "x=6*7"))
    monkeypatch.setattr(sys, "argv", ["notebooks", "--check"])
    with pytest.raises(SystemExit, match="make format"):
        notebooks.main()
    monkeypatch.setattr(sys, "argv", ["notebooks", "--format"])
    notebooks.main()
    assert (project / "chapters" / "one.md").read_text(encoding="utf-8") == CHAPTER


# -- freshness -----------------------------------------------------------------------------


def test_prose_runs_nothing(project):
    mark_as_run(project)
    write(project, "one", CHAPTER.replace("Prose about", "Words on"))
    assert not execute.stale(twins(project), project)


def test_a_change_of_code_runs_that_notebook_alone(project):
    write(project, "two", CHAPTER)
    mark_as_run(project)
    write(project, "two", CHAPTER.replace("6 * 7", "7 * 6"))
    assert [p.stem for p in execute.stale(twins(project), project)] == ["two"]


@pytest.mark.parametrize("what", ["lib", "requirements", "seed", "device", "torch", "mnist"])
def test_a_change_of_surroundings_runs_all(project, monkeypatch, what):
    write(project, "two", CHAPTER)
    mark_as_run(project)
    match what:
        case "lib":
            (project / "lib" / "a.py").write_text("A = 2\n")
        case "requirements":
            (project / "requirements.txt").write_text("torch==2.13.1\n")
        case "seed":
            monkeypatch.setenv("COURSE_SEED", "1" if device.course_seed() != 1 else "2")
        case "device":
            monkeypatch.setattr(device, "device", lambda: "another device")
        case "torch":
            monkeypatch.setattr(execute.metadata, "version", lambda name: "9.9")
        case "mnist":
            here = data.has_mnist()
            monkeypatch.setattr(data, "has_mnist", lambda: not here)
    assert len(execute.stale(twins(project), project)) == 2


def test_a_change_of_a_claim_runs_the_chapter_that_settles_it(project, monkeypatch):
    one = claims.load()["NORM-01"]
    mine = one.__class__(**{**vars(one), "settled_by": "chapters/one.md"})
    monkeypatch.setattr(claims, "load", lambda: {"NORM-01": mine})
    write(project, "two", CHAPTER)
    mark_as_run(project)
    wider = {r: m.__class__(**{**vars(m), "margin": 99.0}) for r, m in mine.measured.items()}
    changed = mine.__class__(**{**vars(mine), "measured": wider})
    monkeypatch.setattr(claims, "load", lambda: {"NORM-01": changed})
    assert [p.stem for p in execute.stale(twins(project), project)] == ["one"]
    reworded = mine.__class__(**{**vars(mine), "reason": "Other words."})
    monkeypatch.setattr(claims, "load", lambda: {"NORM-01": reworded})
    assert not execute.stale(twins(project), project)


# -- running -------------------------------------------------------------------------------


@pytest.fixture
def bare(monkeypatch):
    """Children load these plugins only: what else is installed takes each of them a second."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p xdist.plugin -p nbval.plugin")


def test_what_ran_is_kept_and_reaches_the_cache(project, bare):
    todo = execute.stale(twins(project), project)
    assert execute.run(todo, project) == 0
    (path,) = twins(project)
    done = nbformat.read(execute.executed(path, project), as_version=4)
    code = [c for c in done.cells if c.cell_type == "code"]
    assert code[0].outputs[0].text == "42\n"
    assert code[1].outputs == []  # `x;` is silent, as in Jupyter
    assert not execute.stale(twins(project), project)

    from jupyter_cache import get_cache

    execute.fill_cache(twins(project), project)
    cache = get_cache(str(project / execute.CACHE))
    assert cache.match_cache_notebook(nbformat.read(path, as_version=4))
    cache.db.dispose()


def test_a_failing_cell_is_named_and_publishes_nothing(project, bare, capfd):
    write(project, "two", CHAPTER.replace("print(x)", "assert x == 41, 'not so'"))
    todo = execute.stale(twins(project), project)
    assert execute.run(todo, project) != 0
    said = capfd.readouterr().out
    assert "chapters/two.md, code cell 1 ('x = 6 * 7'): AssertionError: not so" in said
    assert [p.stem for p in execute.stale(twins(project), project)] == ["two"]
    assert not execute.executed(project / "chapters" / "two.ipynb", project).exists()


# -- settlements ---------------------------------------------------------------------------


def settled_notebook(root, stem, *ids):
    outputs = [
        nbformat.v4.new_output(
            "display_data",
            data={"text/plain": id},
            metadata={"course": {"claim": {"id": id, "regimes": {}}}},
        )
        for id in ids
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("", outputs=outputs)])
    path = root / "chapters" / f"{stem}.ipynb"
    done = execute.executed(path, root)
    done.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, done)
    return path


@pytest.fixture
def two_claims(monkeypatch):
    row = claims.load()["NORM-03"]
    rows = {
        id: row.__class__(**{**vars(row), "id": id, "settled_by": by})
        for id, by in (("A", "chapters/one.md"), ("B", None))
    }
    monkeypatch.setattr(claims, "load", lambda: rows)


def test_settlements_are_collected(project, two_claims):
    assert execute.collect([settled_notebook(project, "one", "A")], project) is None
    kept = json.loads((project / "_build" / "settled.json").read_text())
    assert kept["claims"]["A"]["settled_by"] == "chapters/one.md"


@pytest.mark.parametrize(
    ("stem", "ids", "problem"),
    [
        ("one", [], "claims.yml says settled by chapters/one.md, the run says None"),
        ("two", ["A"], "the run says chapters/two.md"),
        ("one", ["A", "B"], "B: claims.yml says settled by None"),
        ("one", ["A", "A"], "A is settled twice"),
    ],
)
def test_no_claim_is_settled_by_nothing_or_twice(project, two_claims, stem, ids, problem):
    assert problem in execute.collect([settled_notebook(project, stem, *ids)], project)


def test_a_test_that_settles_leaves_a_record(settle, monkeypatch, tmp_path):
    monkeypatch.setattr(conftest, "RECORDS", tmp_path / "records")
    monkeypatch.chdir(ROOT)
    settlement = settle("NORM-03", [0.13 + 0.001 * k for k in range(10)])
    (path,) = (tmp_path / "records").iterdir()
    by = {"settled_by": "tests/test_pipeline.py"}
    assert json.loads(path.read_text()) == settlement.record() | by
    path.unlink()
    with pytest.raises(claims.ClaimError):
        settle("NORM-03", [0.001 * k for k in range(10)])
    assert not path.exists()


STAND_IN = """
from types import SimpleNamespace

def measure(id, effects):
    assert min(effects) > 0
    return SimpleNamespace(record=lambda: {"id": id})
"""  # imports no torch, which would take each child seconds


def test_tests_that_settle_run_when_something_changed(project, bare, monkeypatch):
    (project / "lib" / "__init__.py").touch()
    (project / "lib" / "claims.py").write_text(STAND_IN)
    (project / "tests" / "claims").mkdir(parents=True)
    shutil.copy(conftest.__file__, project / "tests" / "claims" / "conftest.py")
    test = project / "tests" / "claims" / "test_x.py"
    test.write_text("def test_it(settle):\n    settle('NORM-03', [0.13, 0.14])\n")
    row = claims.load()["NORM-03"]
    mine = row.__class__(**{**vars(row), "settled_by": "tests/claims/test_x.py"})
    monkeypatch.setattr(claims, "load", lambda: {"NORM-03": mine})
    assert execute.run_claim_tests(project) == 0
    (path,) = (project / execute.BY_TESTS).glob("*.json")
    assert json.loads(path.read_text())["settled_by"] == "tests/claims/test_x.py"
    assert execute.collect([], project) is None
    path.write_text("kept, since nothing changed")
    assert execute.run_claim_tests(project) == 0
    assert path.read_text() == "kept, since nothing changed"
    test.write_text(test.read_text().replace("0.13", "0.0"))
    assert execute.run_claim_tests(project) != 0  # a zero effect: the claim must not settle
    assert not path.exists()


# -- one-line errors -----------------------------------------------------------------------


def one_line(capsys):
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "Traceback" not in said
    return said


def test_a_full_disk_is_said_in_one_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(course, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(course, "PYTHON", tmp_path / ".venv" / "bin" / "python")
    usage = shutil.disk_usage(ROOT)._replace(free=10**8)
    monkeypatch.setattr(course.shutil, "disk_usage", lambda path: usage)
    assert course.main(["environment"]) == 1
    assert "0.1 GB free" in one_line(capsys)


@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "cannot write")]
)
def test_a_folder_that_cannot_be_written(monkeypatch, capsys, number, words):
    def refuse(**options):
        raise OSError(number, "no")

    monkeypatch.setattr(course.tempfile, "TemporaryFile", refuse)
    assert course.main(["book"]) == 1
    assert words in one_line(capsys)


def test_an_old_python_is_said_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(course.sys, "version_info", (3, 10, 1))
    assert course.main(["book"]) == 1
    assert "needs Python 3.11 or newer" in one_line(capsys)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_without_a_python_says_so():
    done = subprocess.run(
        ["make", "PYTHON=", "book"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "needs Python 3.11 or newer" in done.stderr.splitlines()[0]


def test_a_failed_build_leaves_no_site_behind(monkeypatch, tmp_path, capsys):
    html = tmp_path / "_build" / "html"
    html.mkdir(parents=True)
    log = tmp_path / "log.txt"
    log.write_text("reading\n/x/index.md:8: WARNING: unknown document\nmore\n")
    monkeypatch.setattr(course, "BUILD", tmp_path / "_build")
    monkeypatch.setattr(course, "SITE", html)
    monkeypatch.setattr(course, "quiet", lambda *a: log)
    with pytest.raises(course.Stop, match="unknown document"):
        course.build()
    assert not html.exists()
    assert (tmp_path / "_build" / "html.failed").is_dir()


def test_a_build_that_runs_a_notebook_is_refused(monkeypatch, tmp_path):
    logs = tmp_path / "log"
    logs.mkdir()
    (logs / "book.log").write_text("x.md: Executing notebook using local CWD [mystnb]\n")
    monkeypatch.setattr(course, "LOG", logs)
    monkeypatch.setattr(course, "BUILD", tmp_path)
    monkeypatch.setattr(course, "SITE", tmp_path / "html")
    monkeypatch.setattr(course, "quiet", lambda *a: None)
    with pytest.raises(course.Stop, match="Executing notebook"):
        course.build()
