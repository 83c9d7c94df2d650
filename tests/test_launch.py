"""The stamp by which Colab installs the course: what it does and what it refuses."""

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from tools.launch import CELL_ID, stamped

ROOT = Path(__file__).resolve().parents[1]
TWINS = sorted((ROOT / "chapters").rglob("*.ipynb"))
REPOSITORY, COMMIT = "https://github.com/someone/a-fork", "0123456789abcdef" * 2 + "01234567"


def cells(text):
    return json.loads(text)["cells"]


def pip_lines(text, monkeypatch, on_colab):
    """What the first cell of a notebook hands to %pip."""
    lines = []
    shell = type("Shell", (), {"run_line_magic": lambda self, *args: lines.append(args)})()
    monkeypatch.delenv("COLAB_RELEASE_TAG", raising=False)
    if on_colab:
        monkeypatch.setenv("COLAB_RELEASE_TAG", "release")
    code = TransformerManager().transform_cell("".join(cells(text)[0]["source"]))
    exec(code, {"get_ipython": lambda: shell})
    return lines


@pytest.fixture
def twin():
    return TWINS[0].read_text(encoding="utf-8")


@pytest.mark.parametrize("path", TWINS, ids=lambda p: p.stem)
def test_a_stamped_notebook_is_valid_and_adds_one_cell(path):
    before = path.read_text(encoding="utf-8")
    after = stamped(before, REPOSITORY, COMMIT)
    nbformat.validate(nbformat.reads(after, as_version=4))
    assert cells(after)[0]["id"] == CELL_ID
    assert cells(after)[1:] == cells(before)
    assert {k: v for k, v in json.loads(after).items() if k != "cells"} == {
        k: v for k, v in json.loads(before).items() if k != "cells"
    }


def test_it_is_written_as_nbformat_writes(twin):
    text = stamped(twin, REPOSITORY, COMMIT)
    assert text == nbformat.writes(nbformat.reads(text, as_version=4), indent=1) + "\n"


def test_on_colab_it_installs_this_package_from_that_fork_at_that_commit(twin, monkeypatch):
    text = stamped(twin, REPOSITORY, COMMIT)
    ((magic, line),) = pip_lines(text, monkeypatch, on_colab=True)
    assert magic == "pip"
    assert line == f'install --quiet "trained-and-tested @ git+{REPOSITORY}@{COMMIT}"'


def test_elsewhere_it_does_nothing(twin, monkeypatch):
    assert pip_lines(stamped(twin, REPOSITORY, COMMIT), monkeypatch, on_colab=False) == []


def test_a_new_stamp_replaces_the_old_one(twin):
    once = stamped(twin, REPOSITORY, COMMIT)
    again = stamped(once, REPOSITORY, COMMIT[::-1])
    assert len(cells(again)) == len(cells(once))
    assert COMMIT not in again
    assert COMMIT[::-1] in again


@pytest.mark.parametrize(
    "repository",
    [
        "",
        "git@github.com:someone/a-fork",
        "http://github.com/someone/a-fork",
        "https://github.com/someone",
        'https://github.com/someone/a" --index-url "x',
        "https://name:secret@github.com/someone/a-fork",
    ],
)
def test_what_is_no_address_is_refused(twin, repository):
    with pytest.raises(ValueError, match="repository has to be"):
        stamped(twin, repository, COMMIT)


@pytest.mark.parametrize("commit", ["", "main", COMMIT[:7], COMMIT + "0", COMMIT.upper()])
def test_what_is_no_commit_is_refused(twin, commit):
    with pytest.raises(ValueError, match="commit has to be"):
        stamped(twin, REPOSITORY, commit)


def test_outputs_are_refused(twin):
    notebook = json.loads(twin)
    next(c for c in notebook["cells"] if c["cell_type"] == "code")["outputs"] = [{}]
    with pytest.raises(ValueError, match="outputs"):
        stamped(json.dumps(notebook), REPOSITORY, COMMIT)


def test_the_command_stamps_all_or_none(tmp_path, twin):
    paths = [tmp_path / "chapters" / name for name in ("a.ipynb", "exercises/b.ipynb")]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(twin, encoding="utf-8")

    def launch(*arguments):
        command = [sys.executable, "-S", str(ROOT / "tools" / "launch.py"), *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    failed = launch(REPOSITORY, "main")
    assert failed.returncode == 1
    assert failed.stderr.startswith("launch: commit has to be")
    assert all(path.read_text(encoding="utf-8") == twin for path in paths)
    assert launch(REPOSITORY, COMMIT).returncode == 0
    assert all(COMMIT in path.read_text(encoding="utf-8") for path in paths)
    assert launch().returncode == 2
    for path in paths:
        path.unlink()
    assert "no notebook" in launch(REPOSITORY, COMMIT).stderr
