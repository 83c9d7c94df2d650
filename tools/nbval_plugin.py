"""A pytest plugin: nbval that keeps what it ran, so that the book can show it.

A notebook whose cells all passed is written, with its outputs, to `_build/executed/`. Load it
with `-p tools.nbval_plugin`.
"""

import json
import os
import re
import time
from pathlib import Path

import nbformat
import pytest
from nbval import plugin as nbval

from tools.exercises import SOLVED

EXECUTED = Path("_build/executed")


def _execute(self, source, allow_stdin=None):
    """Like nbval's, with history, so that a trailing `expr;` stays silent as in Jupyter."""
    return self.kc.execute(
        source, store_history=True, stop_on_error=False, allow_stdin=bool(allow_stdin)
    )


nbval.RunningKernel.execute_cell_input = _execute


class Notebook(nbval.IPyNbFile):
    """An nbval notebook file that remembers its outputs."""

    def setup(self):
        self.started = time.time()
        super().setup()

    def collect(self):
        self.items = list(super().collect())
        return self.items

    def teardown(self):
        super().teardown()
        if not self.items or not all(getattr(item, "passed", False) for item in self.items):
            return
        for n, item in enumerate(self.items, 1):
            item.cell.outputs = [nbformat.from_dict(o) for o in item.test_outputs or []]
            item.cell.execution_count = n
        self.nb.metadata["course"] = {"seconds": round(time.time() - self.started, 1)}
        path = EXECUTED / place(self.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        # whole or not at all: a killed run must not leave half a notebook
        part = path.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(self.nb, indent=1), encoding="utf-8")
        part.replace(path)


def place(path: Path) -> Path:
    """Where a notebook stands in the repository; solved exercises stand for their twin."""
    path = path.relative_to(Path.cwd())
    return path.relative_to(SOLVED) if path.is_relative_to(SOLVED) else path


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path, parent):
    nodes = yield
    return [
        Notebook.from_parent(parent, path=n.path) if type(n) is nbval.IPyNbFile else n
        for n in nodes
    ]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if call.when == "call" and isinstance(item, nbval.IPyNbCell):
        item.passed = report.passed
        if report.failed and not item.parent.__dict__.get("first_failure"):
            item.parent.first_failure = True
            report.sections.append(("course", _what_failed(item, call)))
    return report


def _what_failed(item, call) -> str:
    """Chapter, cell and error in one line."""
    source = place(item.parent.path).with_suffix(".md")
    raised = call.excinfo.value
    text = getattr(raised, "inner_traceback", None) or str(raised)
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    errors = re.findall(
        r"^[\w.]*(?:Error|Exception|Interrupt|Timeout|Diverged)\b.*", text, re.M
    )
    error = errors[-1] if errors else text.strip().splitlines()[0] if text.strip() else "failed"
    first = item.cell.source.strip().splitlines()[0]
    return f"{source}, code cell {item.cell_num + 1} ({first!r}): {error}"


def pytest_terminal_summary(terminalreporter):
    for report in terminalreporter.getreports("failed"):
        for title, text in report.sections:
            if title == "course":
                terminalreporter.write_line(f"FAILED {text}", red=True)
