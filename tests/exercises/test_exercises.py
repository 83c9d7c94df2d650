"""Every stub fails, every solution passes, and a typical mistake is called by its name."""

import contextlib
import io
import re

import pytest

from lib.checks import WrongAnswer
from tests.exercises.conftest import KINDS, SOURCES, Cell, Exercises, execute, stub

ALL = {path.stem: Exercises(path) for path in SOURCES}
SEEDS = 20
WRONG = [
    pytest.param(topic, number, code, said, id=f"{topic}-{number}-{mistake}")
    for topic, page in ALL.items()
    for number, mistakes in page.wrong().items()
    for mistake, (code, said) in mistakes.items()
]


@pytest.fixture(autouse=True)
def quiet():
    with contextlib.redirect_stdout(io.StringIO()):
        yield


@pytest.fixture(params=ALL)
def page(request):
    return ALL[request.param]


def test_there_are_exercises():
    assert ALL


@pytest.mark.parametrize("seed", range(SEEDS))
def test_solutions_pass_under_every_seed(page, seed, monkeypatch):
    monkeypatch.setenv("COURSE_SEED", str(seed))
    page.run()


def test_stubs_fail_every_check(page):
    space = {}
    for cell in page.cells:
        if cell.kind in ("", "solution"):
            code = stub(cell.code) if cell.kind else cell.code
            with contextlib.suppress(Exception):  # nbgrader, too, goes on behind an error
                execute(Cell(cell.number, cell.kind, code), space)
        else:
            with pytest.raises((NotImplementedError, NameError, WrongAnswer)):
                execute(cell, space)


@pytest.mark.filterwarnings("ignore:Detected call of")  # a mistake that torch sees, too
@pytest.mark.parametrize(("topic", "number", "code", "said"), WRONG)
def test_a_typical_mistake_is_named(topic, number, code, said):
    page = ALL[topic]
    space = page.answered({number: code})
    with pytest.raises(WrongAnswer) as raised:
        execute(Cell(number, "check", page.cell(number, "check")), space)
    assert said in str(raised.value)


# -- the form ------------------------------------------------------------------------------


def test_every_exercise_has_two_wrong_answers(page):
    wrong = page.wrong()
    few = {n: len(wrong.get(n, {})) for n in page.numbers if len(wrong.get(n, {})) < 2}
    assert not few
    assert set(wrong) == set(page.numbers)
    for mistakes in wrong.values():
        said = [words for _, words in mistakes.values()]
        assert len(set(said)) == len(said), "two mistakes, one message"
        assert min(map(len, said)) > 8, "too few words to mean this mistake"


def test_every_exercise_has_a_solution_a_check_and_checks_for_grading_in_this_order(page):
    assert 4 <= len(page.numbers) <= 6
    kinds = [(c.number, c.kind) for c in page.cells if c.kind]
    assert kinds == [(n, kind) for n in page.numbers for kind in KINDS]
    assert page.text.count('<details class="solution">') == len(page.numbers)
    assert page.text.count('<details class="grading">') == len(page.numbers)


def test_headings_hints_and_times(page):
    parts = re.split(r"^## ", page.text, flags=re.M)[1:]
    assert [part.split(".")[0] for part in parts] == [str(n) for n in page.numbers]
    minutes = []
    for part in parts:
        hints = re.findall(r"^<summary>(Hint \d)</summary>$", part, re.M)
        assert len(hints) >= 2
        assert hints == [f"Hint {i + 1}" for i in range(len(hints))]
        minutes.append(int(re.search(r"^\*[^*\n]*, (\d+) minutes\.\*", part, re.M)[1]))
    told = re.search(r"about (\d+) minutes", page.text)
    assert int(told[1]) == sum(minutes)


def test_it_stands_behind_its_chapter(page):
    toc = (page.path.parents[2] / "_toc.yml").read_text(encoding="utf-8")
    topic = page.path.stem
    assert re.search(
        rf"- file: chapters/{topic}\n +sections:\n +- file: chapters/exercises/{topic}\n", toc
    )
    chapter = (page.path.parents[1] / f"{topic}.md").read_text(encoding="utf-8")
    assert f"(exercises/{topic}.md)" in chapter
