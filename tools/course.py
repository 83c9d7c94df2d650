"""Build and test the course: what `make` calls. Standard library only, any Python >= 3.11.

usage: python tools/course.py book | test | check | format | notebooks | bench | clean

Every step is skipped when nothing it depends on has changed. What goes wrong is said in one
line; the full output of quiet steps is in `_build/log/`.
"""

import contextlib
import errno
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")
BUILD = ROOT / "_build"
LOG = BUILD / "log"
SITE = BUILD / "html"
NEEDED = 3.0  # GB for a new environment with the CPU build of torch


class Stop(Exception):
    """Something the reader has to mend; the message is the one line shown."""


def main(arguments: list[str]) -> int:
    commands = {
        "environment": environment,
        "notebooks": notebooks,
        "format": format_,
        "book": book,
        "check": check,
        "test": test,
        "bench": bench,
        "clean": clean,
    }
    if len(arguments) != 1 or arguments[0] not in commands:
        print(f"usage: make {' | '.join(commands)}", file=sys.stderr)
        return 2
    os.chdir(ROOT)
    try:
        commands[arguments[0]]()
    except Stop as stop:
        print(f"{arguments[0]}: {stop}", file=sys.stderr)
        return 1
    except OSError as error:
        reason = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or error
        print(f"{arguments[0]}: {reason}: {error.filename or ROOT}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{arguments[0]}: interrupted", file=sys.stderr)
        return 130
    return 0


# -- the steps -----------------------------------------------------------------------------


def environment() -> None:
    """Make `.venv` from requirements.txt, unless it stands already."""
    if sys.version_info < (3, 11):  # noqa: UP036  run by whatever Python is there
        raise Stop(f"needs Python 3.11 or newer, but this is {sys.version.split()[0]}")
    writable()
    stamp = VENV / "course.stamp"
    key = hashlib.sha256(
        b"".join((ROOT / f).read_bytes() for f in ("requirements.txt", "constraints.txt"))
        + (ROOT / "pyproject.toml").read_bytes()
        + f"{sys.version}{ROOT}".encode()
    ).hexdigest()
    if PYTHON.exists() and stamp.is_file() and stamp.read_text() == key:
        return
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < NEEDED:
        raise Stop(f"the environment needs {NEEDED:.0f} GB, but {ROOT} has {free:.1f} GB free")
    if not PYTHON.exists():
        made = quiet("environment", "making .venv", [sys.executable, "-m", "venv", str(VENV)])
        if made:
            shutil.rmtree(VENV, ignore_errors=True)
            raise Stop(
                "Python cannot make a virtual environment; on Debian and Ubuntu install "
                f"python3-venv (details: {made})"
            )
    pip = [PYTHON, "-m", "pip", "--disable-pip-version-check", "--no-input", "install"]
    steps = [
        (
            "packages",
            "installing packages (minutes, the first time)",
            [*pip, "-r", "requirements.txt"],
        ),
        ("lib", "installing lib", [*pip, "--no-deps", "--no-build-isolation", "-e", "."]),
    ]
    for name, what, command in steps:
        log = quiet(name, what, command)
        if log:
            raise Stop(f"pip failed: {last_error(log)} (all of it: {log})")
    stamp.write_text(key)


def notebooks() -> None:
    """Regenerate the notebook twins of the MyST sources."""
    environment()
    run([PYTHON, "-m", "tools.notebooks"], "the notebooks could not be made")


def format_() -> None:
    """Format code, also that in chapters, and bring the twins up to date."""
    environment()
    run([PYTHON, "-m", "tools.notebooks", "--format"], "the chapters could not be formatted")
    run([PYTHON, "-m", "ruff", "format", "--quiet", "--exclude", "*.ipynb", "."], "ruff failed")
    sources = ["--exclude", "*.ipynb"]  # whose faults have to be mended in the .md
    run([PYTHON, "-m", "ruff", "check", "--quiet", "--fix", *sources, "."], "ruff found faults")
    run([PYTHON, "-m", "ruff", "check", "--quiet", "."], "ruff found faults in a chapter")


def book() -> None:
    """Run what changed, then build the site without running anything."""
    notebooks()
    execute()
    build()
    print(f"\nThe book is at {(SITE / 'index.html').as_uri()}")


def execute() -> None:
    run([PYTHON, "-m", "tools.execute"], "a notebook or a claim failed, nothing is published")


def build() -> None:
    command = [BIN / "jupyter-book", "build", ".", "-W", "-n", "--keep-going"]
    log = quiet("book", "building the site", command)
    if not log and "Executing notebook" in (LOG / "book.log").read_text():
        log = LOG / "book.log"
    if log:
        # a half-built site must not look like a good one
        shutil.rmtree(BUILD / "html.failed", ignore_errors=True)
        with contextlib.suppress(OSError):
            SITE.rename(BUILD / "html.failed")
        raise Stop(f"the site could not be built: {last_error(log)} (all of it: {log})")


def check() -> None:
    """Lint, drift of generated files, unit tests: no notebook and no book."""
    environment()
    run([PYTHON, "-m", "ruff", "check", "--quiet", "."], "ruff found faults")
    run([PYTHON, "-m", "ruff", "format", "--quiet", "--check", "--exclude", "*.ipynb", "."],
        "files are not formatted: run `make format`")  # fmt: skip
    run(
        [PYTHON, "-m", "tools.notebooks", "--check"],
        "the notebooks are not those of the sources",
    )
    apart = [f"--ignore=tests/{part}" for part in ("claims", "exercises", "site")]
    tests("unit tests", "tests", *apart, "-n", "2")


def test() -> None:
    """All that `check` does, exercises, notebooks, claims, the site, the site in a browser."""
    check()
    tests("exercises", "tests/exercises", "-n", "2")
    execute()
    build()
    tests("site tests", "tests/site", "-rs", "-n", "2")


def bench() -> None:
    """Speed against torch and against plain loops, as ratios measured side by side."""
    environment()
    run([PYTHON, "-m", "tools.bench"], "the benchmark failed")


def clean() -> None:
    """Remove what was built; `.venv` stays."""
    shutil.rmtree(BUILD, ignore_errors=True)
    print("removed _build; remove .venv by hand to install anew")


# -- helpers -------------------------------------------------------------------------------


def surroundings() -> dict:
    data = os.environ.get("COURSE_DATA")  # relative to here, while kernels run in chapters/
    return (
        os.environ
        | ({"COURSE_DATA": str(Path(data).expanduser().resolve())} if data else {})
        | {
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
            "VIRTUAL_ENV": str(VENV),
        }
    )


def run(command: list, problem: str) -> None:
    """Run a step whose output is for the reader."""
    if subprocess.run([str(c) for c in command], env=surroundings()).returncode:
        raise Stop(problem)


def tests(what: str, *arguments: str) -> None:
    print(f"{what}:", flush=True)
    run([PYTHON, "-m", "pytest", *arguments], f"{what} failed")


def quiet(name: str, what: str, command: list) -> Path | None:
    """Run a step with its output in a log; return the log if it failed."""
    LOG.mkdir(parents=True, exist_ok=True)
    log, started = LOG / f"{name}.log", time.time()
    live = sys.stderr.isatty()
    with log.open("w", encoding="utf-8", errors="replace") as out:
        process = subprocess.Popen(
            [str(c) for c in command], stdout=out, stderr=subprocess.STDOUT, env=surroundings(),
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            while process.poll() is None:
                if live:
                    print(
                        f"\r{what} ... {time.time() - started:.0f} s ", end="", file=sys.stderr
                    )
                time.sleep(0.2)
        except KeyboardInterrupt:
            process.terminate()
            raise
    end = "\r" if live else ""
    print(f"{end}{what}: {time.time() - started:.0f} s  ", flush=True)
    return log if process.returncode else None


def last_error(log: Path) -> str:
    """The line of a log that says most about a failure."""
    lines = [x.strip() for x in log.read_text(errors="replace").splitlines() if x.strip()]
    marks = ("No space left", "ERROR:", "WARNING:", "Error:", "error:", "Executing notebook")
    for mark in marks:
        for line in lines:
            if mark in line:
                return line[:300]
    return lines[-1][:300] if lines else "it said nothing"


def writable() -> None:
    try:
        with tempfile.TemporaryFile(dir=ROOT):
            pass
    except OSError as error:
        full = error.errno == errno.ENOSPC
        raise Stop(f"{'the disk is full' if full else 'cannot write'}: {ROOT}") from None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
