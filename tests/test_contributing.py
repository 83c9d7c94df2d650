"""The worked example of CONTRIBUTING.md, run as a reader would run it."""

import re
import subprocess
import sys
import textwrap
import types
from dataclasses import replace
from pathlib import Path

import jupytext
import pytest
import yaml

import lib
from lib import claims, device
from tools.notebooks import HEADER, formatted, twin

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def block(after: str, language: str) -> str:
    """The first fenced block of a language after a phrase."""
    fence = re.compile(rf"^( *)(`{{3,}}){language}\n(.*?)^ *\2$", re.M | re.S)
    found = fence.search(TEXT, TEXT.index(after))
    return textwrap.dedent(found[3])


CHAPTER = block("### 5.", "markdown")
LS_02 = {"effect": "loss with one set of labels minus another", "margin": 1e-6, "unit": "nats"}


@pytest.fixture
def example(tmp_path, monkeypatch):
    """The example's module and its claim, as if they stood in the repository."""
    path = tmp_path / "claims.yml"
    path.write_text(block("### 2.", "yaml"), encoding="utf-8")
    rows = dict(claims.load(path))
    monkeypatch.setattr(claims, "load", lambda: rows)
    module = types.ModuleType("lib.label_smoothing")
    exec(block("### 3.", "python"), vars(module))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(lib, "label_smoothing", module, raising=False)
    return rows


def cells():
    found = jupytext.reads(CHAPTER, fmt="md:myst").cells
    return [c.source for c in found if c.cell_type == "code"]


def test_the_chapter_runs_settles_its_claim_and_hands_over_its_numbers(example, monkeypatch):
    seeds = device.seeds
    monkeypatch.setattr(device, "seeds", lambda n: seeds(min(n, 10)))  # for speed
    settled, names = [], {}
    monkeypatch.setattr(claims, "settle", lambda *args: settled.append(claims.measure(*args)))
    monkeypatch.setattr(claims, "numbers", names)
    space = {}
    for source in cells():
        exec(source, space)
    assert [s.claim.id for s in settled] == list(example)
    assert set(re.findall(r"\{glue:text\}`(\w+)`", CHAPTER)) == set(names)
    assert set(re.findall(r"\{claim\}`([\w-]+)`", CHAPTER)) == set(example)


def test_the_figure_shown_elsewhere_is_one_that_the_chapter_draws():
    (stem, key) = re.search(r"\{run-figure\} chapters/(\w+) (\w+)", TEXT).groups()
    assert f"chapters/{stem}.md" in yaml.safe_load(block("### 2.", "yaml"))[0]["settled_by"]
    assert f'key="{key}"' in CHAPTER


def test_the_tests_of_the_example_pass(example):
    space = {}
    exec(block("### 4.", "python"), space)
    tests = {k: v for k, v in space.items() if k.startswith("test_")}
    assert len(tests) == 2
    for test in tests.values():
        (mark,) = test.pytestmark
        for value in mark.args[1]:
            test(value)


def test_the_test_that_settles_a_claim_does(example, monkeypatch):
    measure = claims.Measure(**LS_02, why="rounding", outcome="same")
    example["LS-02"] = replace(
        example["LS-01"], id="LS-02", predicts="same", measured={"claim": measure}
    )
    space, settled = {}, []
    exec(block("`settled_by` names", "python"), space)
    space["test_full_smoothing_ignores_the_label"](
        lambda *args: settled.append(claims.measure(*args).claim.id)
    )
    assert settled == ["LS-02"]


@pytest.mark.parametrize("after", ["### 3.", "### 4.", "`settled_by` names"])
def test_the_code_passes_the_linter_as_it_stands(after):
    for command in (("check", "--ignore=I001"), ("format", "--check")):
        ruff = [sys.executable, "-m", "ruff", *command, "--quiet", "--stdin-filename=x.py", "-"]
        done = subprocess.run(
            ruff, cwd=ROOT, input=block(after, "python"), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_chapter_has_the_header_and_makes_a_twin(tmp_path):
    path = tmp_path / "chapters" / "label_smoothing.md"
    path.parent.mkdir()
    path.write_text(CHAPTER, encoding="utf-8")
    assert HEADER.match(CHAPTER)
    assert formatted(CHAPTER) == CHAPTER
    assert twin(path, tmp_path).count('"cell_type": "code"') == len(cells())


def test_sections_stand_in_the_order_of_the_text():
    listed = re.search(r"left\nout: (The question.*?)\.\n", TEXT, re.S)[1]
    order = [s.strip() for s in listed.replace("\n", " ").split(",")]
    used = [re.split(":", s)[0] for s in re.findall(r"^## (.+)$", CHAPTER, re.M)]
    assert used == [s for s in order if s in used]


def test_the_row_has_the_fields_that_the_ledger_has():
    (row,) = yaml.safe_load(block("### 2.", "yaml"))
    real = yaml.safe_load((ROOT / "claims.yml").read_text(encoding="utf-8"))
    required = set.intersection(*(set(r) for r in real))
    assert required <= set(row)


@pytest.mark.parametrize("module", ["claims", "plots", "data"])
def test_every_name_of_lib_in_the_text_exists(module):
    __import__(f"lib.{module}")
    names = set(re.findall(rf"\b{module}\.([a-zA-Z]\w+)\b", TEXT)) - {"yml", "md"}
    assert len(names) > 1
    assert all(hasattr(getattr(lib, module), name) for name in names), names
