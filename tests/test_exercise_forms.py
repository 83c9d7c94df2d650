"""One source of exercises, three forms: for the page, for students, for instructors."""

import json
import sys
from pathlib import Path

import nbformat
import pytest

from tests.test_pipeline import HEADER
from tools import execute, exercises, notebooks

SOURCE = (
    HEADER
    + """
# Exercises: sums

*One exercise.*

```{code-cell} ipython3
x = 2
```

## 1. Double

Write `double`.

<details>
<summary>Hint 1</summary>

Twice.

</details>

<details class="solution">
<summary>Solution</summary>

```{code-cell} ipython3
:tags: [solution]

def double(x):
    \"\"\"Return 2x.\"\"\"
    if x:
        ### BEGIN SOLUTION
        secret = 2 * x
        return secret
        ### END SOLUTION
```

The secret is a factor.

</details>

```{code-cell} ipython3
:tags: [check, hide-input]

assert double(x) == 4
```

<details class="grading">
<summary>Further checks, for grading</summary>

```{code-cell} ipython3
:tags: [grade]

assert double(7) == 14
```

</details>
"""
)


@pytest.fixture
def source(tmp_path, monkeypatch):
    path = tmp_path / "chapters" / "exercises" / "sums.md"
    path.parent.mkdir(parents=True)
    path.write_text(SOURCE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return path


def cells(text):
    return nbformat.reads(text, as_version=4).cells


def code(text):
    return [c.source for c in cells(text) if c.cell_type == "code"]


STUB = 'def double(x):\n    """Return 2x."""\n    if x:\n        # YOUR CODE HERE\n'
STUB += "        raise NotImplementedError()"


def test_students_get_stubs_and_no_solution(source, tmp_path):
    text = notebooks.twin(source, tmp_path)
    assert code(text) == ["x = 2", STUB, "assert double(x) == 4", exercises.LATER]
    for secret in ("secret", "14", "SOLUTION", "solution</summary>", "grading"):
        assert secret not in text
    assert "<summary>Hint 1</summary>" in text


def test_instructors_get_all_with_the_marks_of_nbgrader(source, tmp_path):
    found = code(notebooks.for_instructors(source, tmp_path))
    assert "### BEGIN SOLUTION\n        secret = 2 * x" in found[1]
    assert found[3].splitlines() == [
        exercises.LATER,
        "### BEGIN HIDDEN TESTS",
        "assert double(7) == 14",
        "### END HIDDEN TESTS",
    ]


def test_both_have_the_same_metadata_for_nbgrader(source, tmp_path):
    student, teacher = (
        [c.metadata for c in cells(make(source, tmp_path)) if c.cell_type == "code"]
        for make in (notebooks.twin, notebooks.for_instructors)
    )
    assert student == teacher
    assert student[0] == {}
    about = [m["nbgrader"] for m in student[1:]]
    assert [m["grade_id"] for m in about] == ["sums-1-solution", "sums-1-check", "sums-1-grade"]
    assert [(m["solution"], m["grade"], m["locked"]) for m in about] == [
        (True, False, False),
        (False, True, True),
        (False, True, True),
    ]
    assert [m.get("points") for m in about] == [None, 1, 1]


def test_the_page_shows_the_stub_before_the_solution_and_runs_all(source):
    page = exercises.for_the_page(SOURCE)
    assert page.index(f"```python\n{STUB}\n```") < page.index('<details class="solution">')
    assert page.index(exercises.ON_THE_PAGE) < page.index("x = 2")
    for kept in ("secret = 2 * x", "The secret is a factor.", "double(7) == 14"):
        assert page.count(kept) == 1
    assert notebooks.CELL.findall(page) == notebooks.CELL.findall(SOURCE)


def test_nbval_runs_the_solved_version_and_keeps_it_under_the_name_of_the_twin(
    source, tmp_path
):
    twin = source.with_suffix(".ipynb")
    twin.write_text(notebooks.twin(source, tmp_path), encoding="utf-8")
    (key,) = execute.stale([twin], tmp_path).values()
    solved = execute.to_run(twin, tmp_path)
    assert solved == tmp_path / "_build" / "solved" / "chapters" / "exercises" / "sums.ipynb"
    assert any("secret = 2 * x" in c for c in code(solved.read_text(encoding="utf-8")))
    source.write_text(SOURCE.replace("2 * x\n", "x + x\n"), encoding="utf-8")
    assert list(execute.stale([twin], tmp_path).values()) != [key]
    source.write_text(SOURCE.replace("is a factor", "is two"), encoding="utf-8")
    assert list(execute.stale([twin], tmp_path).values()) == [key]


def test_a_chapter_is_run_as_it_is(tmp_path):
    twin = tmp_path / "chapters" / "one.ipynb"
    assert execute.to_run(twin, tmp_path) == twin


def test_a_solution_without_an_answer_is_refused():
    with pytest.raises(ValueError, match="BEGIN SOLUTION"):
        exercises.stub("def double(x):\n    return 2 * x\n")


def test_the_linter_reads_the_solved_version(source, tmp_path, monkeypatch):
    source.write_text(SOURCE.replace("2 * x\n", "two * x\n"), encoding="utf-8")
    source.with_suffix(".ipynb").write_text(notebooks.twin(source, tmp_path), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["notebooks", "--check"])
    with pytest.raises(SystemExit, match=r"F821.*two"):
        notebooks.main()


def test_the_folder_for_nbgrader(source, tmp_path, capsys):
    assert exercises.main(["out"]) == 0
    path = Path("out") / "sums" / "sums.ipynb"
    assert json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert str(path) in capsys.readouterr().out
    assert exercises.main([]) == 2
