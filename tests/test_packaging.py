"""What the repository carries besides the course: pins, papers, workflows, no stray files."""

import ast
import functools
import json
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LIMIT = 2**20  # bytes of one file


@functools.cache
def files() -> list[Path]:
    """All files of the repository: tracked, or neither tracked nor ignored."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("git does not say which files belong to the repository")
    return [ROOT / name for name in sorted({*listed} - {""}) if (ROOT / name).is_file()]


def texts() -> dict[str, str]:
    """The text files of the repository by their path."""
    found = {}
    for path in files():
        raw = path.read_bytes()
        if b"\0" not in raw:
            found[path.relative_to(ROOT).as_posix()] = raw.decode("utf-8")
    return found


def pins(name: str) -> dict[str, str]:
    """Package, as pip spells it, -> version, of a requirements file."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return {
        canonical(package): version
        for package, version in re.findall(r"^([\w.-]+)==([^\s;#]+)", text, re.M)
    }


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


# Pins and dependencies


@pytest.mark.parametrize(
    "name", ["requirements.txt", "constraints.txt", "binder/requirements.txt"]
)
def test_every_requirement_is_pinned(name):
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    wanted = [line for line in lines if line.strip() and not line.startswith(("#", "-"))]
    assert len(pins(name)) == len(wanted) > 10


def test_requirements_and_constraints_agree():
    ours, below = pins("requirements.txt"), pins("constraints.txt")
    both = ours.keys() & below.keys()
    assert len(both) > 10
    assert {p: ours[p] for p in both} == {p: below[p] for p in both}


def test_binder_has_our_pins_and_a_torch_without_cuda():
    binder, ours = pins("binder/requirements.txt"), pins("constraints.txt")
    ours |= pins("requirements.txt")
    assert binder.pop("torch") == ours.pop("torch") + "+cpu"
    assert canonical("jupyterlab") in binder  # only Binder needs it
    assert not {p: v for p, v in binder.items() if p != "jupyterlab" and ours.get(p) != v}


def test_binder_has_what_lib_needs():
    needed = {canonical(re.match(r"[\w.-]+", d)[0]) for d in PROJECT["dependencies"]}
    assert needed <= set(pins("binder/requirements.txt"))
    assert needed <= set(pins("requirements.txt")) | set(pins("constraints.txt"))


def test_binder_has_a_python_that_the_package_takes():
    major, minor = re.fullmatch(
        r"python-(\d+)\.(\d+)\n", (ROOT / "binder" / "runtime.txt").read_text(encoding="utf-8")
    ).groups()
    least = re.fullmatch(r">=(\d+)\.(\d+)", PROJECT["requires-python"]).groups()
    assert (int(major), int(minor)) >= tuple(map(int, least))


def imports(source: str) -> set[str]:
    """The top-level packages that a module imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"lib"}


def test_every_import_of_lib_is_declared():
    extras = PROJECT.get("optional-dependencies", {}).values()
    wanted = [d for some in (PROJECT["dependencies"], *extras) for d in some]
    declared = {canonical(re.match(r"[\w.-]+", d)[0]) for d in wanted}
    homes = metadata.packages_distributions()
    found = {
        (path.name, name)
        for path in (ROOT / "lib").rglob("*.py")
        for name in imports(path.read_text(encoding="utf-8"))
    }
    assert ("claims.py", "yaml") in found
    missing = {
        (file, name)
        for file, name in found
        if not {canonical(d) for d in homes.get(name, [name])} & declared
    }
    assert not missing


def test_imports_are_seen_wherever_they_stand():
    source = "import os, a.b\ndef f():\n    from c.d import e\n    from lib import x"
    assert imports(source) == {"a", "c"}


# Papers


def test_the_citation_is_that_of_the_package():
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cff["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(cff)
    assert cff["version"] == PROJECT["version"]
    assert [a["name"] for a in cff["authors"]] == [a["name"] for a in PROJECT["authors"]]
    assert " AND ".join(cff["license"]) == PROJECT["license"]


def test_the_licence_names_both_licences_and_every_folder():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    for words in ("MIT License", "CC BY 4.0", "creativecommons.org/licenses/by/4.0/"):
        assert words in text
    top = {name.split("/")[0] for name in texts() if "/" in name}
    assert {"lib", "tools", "tests"} <= top
    spoken_for = {name for name in top if f"{name}/" in text or name == "chapters"}
    assert top == spoken_for


PAPERS = ("README.md", "CONTRIBUTING.md")


def anchor(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("name", PAPERS)
def test_links_of_the_papers_lead_somewhere(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    links = [t for t in re.findall(r"\]\(([^)\s]+)\)", text) if not t.startswith("https:")]
    assert links
    for link in links:
        path, _, part = link.partition("#")
        target = ROOT / (path or name)
        assert target.is_file(), link
        titles = (
            re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.M) if part else []
        )
        assert not part or part in map(anchor, titles), link


@pytest.mark.parametrize("name", PAPERS)
def test_commands_of_the_papers_exist(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    told = set(re.findall(r"(?:^|`|=\w+ )make (\w+)", text, re.M))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.search(r"^\.PHONY: (.+)$", makefile, re.M)[1].split())
    assert {"book", "test"} <= told <= targets


# Files

PRIVATE = [
    r"(?<![\w.}])/(?:home|Users)/\w+",
    r"(?<![\w.}])/(?:root)\b",
    r"\b[A-Z]:\\+Users\b",
]
# a folder above the checkout that says something of this machine
PRIVATE += [
    rf"(?<![\w.}}]){re.escape(str(p))}\b"
    for p in (ROOT, ROOT.parent, Path.home())
    if p.as_posix() not in ("/", "/tmp", "/opt", "/srv", "/mnt", "/home", "/var", "/usr/src")
]
REGISTRY = [
    r"https?://[^/\s]*(?:pypi|pythonhosted|anaconda|npmjs|yarnpkg|crates|debian|ubuntu)",
    r"(?i)index[-_]url(?![-_])\W{0,3}\s*(?!https://download\.pytorch\.org/whl/cpu\b)https?:",
]


def matches(patterns: list[str], text: str) -> list[str]:
    return [m[0] for p in patterns for m in re.finditer(p, text)]


def test_no_file_names_a_private_path():
    found = {name: matches(PRIVATE, text) for name, text in texts().items()}
    assert not {name: hits for name, hits in found.items() if hits}


def test_no_file_names_a_package_registry():
    found = {name: matches(REGISTRY, text) for name, text in texts().items()}
    assert not {name: hits for name, hits in found.items() if hits}


@pytest.mark.parametrize(
    "path", [("", "home", "ada", "x"), ("", "Users", "ada"), ("", "root", "x"), ROOT.parts]
)
def test_a_private_path_would_be_seen(path):
    text = "/".join(path).replace("//", "/")
    for around in ("{}", 'open("{}/data")', "see {}, or"):
        assert matches(PRIVATE, around.format(text)), text
    for harmless in ("/root_of/x", "lib/homes/x", "http://x.org/home/x", "{root}/x", "~/x"):
        assert not matches(PRIVATE, harmless), harmless


@pytest.mark.parametrize("host", ["py{}.org/simple", "files.python{}.org", "registry.{}.org"])
def test_a_registry_would_be_seen(host):
    word = {"py{}.org/simple": "pi", "files.python{}.org": "hosted"}.get(host, "npmjs")
    scheme = "https:" + "//"
    assert matches(REGISTRY, scheme + host.format(word))
    assert matches(REGISTRY, f"--extra-index-url {scheme}mirror.example/simple")
    assert matches(REGISTRY, f"PIP_INDEX_URL: {scheme}mirror.example/simple")
    assert not matches(REGISTRY, f"--extra-index-url {scheme}download.pytorch.org/whl/cpu")


def carried(notebook: dict) -> bool:
    """Whether a notebook carries anything of a run."""
    code = [c for c in notebook["cells"] if c["cell_type"] == "code"]
    return any(c["outputs"] or c["execution_count"] is not None for c in code)


def test_no_notebook_carries_outputs():
    found = [p for p in files() if p.suffix == ".ipynb"]
    assert found
    assert not [p for p in found if carried(json.loads(p.read_text(encoding="utf-8")))]


@pytest.mark.parametrize("change", [{"outputs": [{}]}, {"execution_count": 1}])
def test_outputs_would_be_seen(change):
    cell = {"cell_type": "code", "outputs": [], "execution_count": None}
    assert not carried({"cells": [cell]})
    assert carried({"cells": [{"cell_type": "markdown"}, cell | change]})


def test_no_file_is_large():
    assert len(files()) > 20
    assert not [str(p) for p in files() if p.stat().st_size > LIMIT]


# Automation


def steps(path: Path) -> list[dict]:
    jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


BUILDS = re.compile(
    r"\b(pytest|jupyter-book|jupyter|sphinx-build|ruff|nbval|pip|tools[./](?!launch\b)\w+)\b"
)


def test_there_are_three_workflows():
    assert [p.stem for p in WORKFLOWS] == ["gpu", "publish", "test"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
def test_a_workflow_builds_with_make_alone(path):
    commands = [step["run"] for step in steps(path) if "run" in step]
    made = [m for c in commands for m in re.findall(r"^make (\w+)$", c, re.M)]
    assert made[-1] == ("book" if path.stem == "publish" else "test")
    assert not [c for c in commands if BUILDS.search(c)]


def test_a_build_without_make_would_be_seen():
    for command in ("python -m pytest", "jupyter-book build .", "python tools/course.py book"):
        assert BUILDS.search(command)
    assert not BUILDS.search("python3 tools/launch.py A B")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
def test_a_workflow_may_do_no_more_than_it_needs(path):
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["group"]
    writes = {
        (name, scope)
        for name, job in workflow["jobs"].items()
        for scope, access in job.get("permissions", {}).items()
        if access == "write"
    }
    allowed = {("launch", "contents"), ("deploy", "pages"), ("deploy", "id-token")}
    assert writes == (allowed if path.stem == "publish" else set())
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 90
    for step in steps(path):
        assert re.fullmatch(r"actions/[\w-]+@v\d+", step.get("uses", "actions/x@v1"))
        if step.get("uses", "").startswith("actions/checkout") and not writes:
            assert step["with"]["persist-credentials"] is False
        # what somebody else names must not become part of a command
        assert not re.search(r"\$\{\{", step.get("run", ""))


def test_the_tested_pythons_begin_with_the_least_one():
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8"))
    pythons = workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert f">={pythons[0]}" == PROJECT["requires-python"]
    assert all(isinstance(p, str) for p in pythons)  # 3.10 would be 3.1


def test_commit_hooks_fetch_nothing():
    text = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    (repo,) = yaml.safe_load(text)["repos"]
    assert repo["repo"] == "local"
    for hook in repo["hooks"]:
        assert hook["language"] == "system"
        assert hook["entry"].startswith(".venv/bin/")
    entries = " ".join(hook["entry"] for hook in repo["hooks"])
    for word in ("ruff check", "ruff format", "tools.notebooks --check", Path(__file__).name):
        assert word in entries


@pytest.mark.parametrize("name", [".ci/run", "binder/postBuild"])
def test_scripts_can_run_and_parse(name):
    path = ROOT / name
    assert path.stat().st_mode & 0o111
    assert "set -euo pipefail" in path.read_text(encoding="utf-8")
    subprocess.run(["bash", "-n", str(path)], check=True)


@pytest.mark.parametrize("given", [None, "", "near", "{absolute}"])
def test_ci_runs_make_test_with_data_that_notebooks_find(given, tmp_path):
    """The real script in a copy of the place, with a `make` that says what it was given."""
    checkout, beside = tmp_path / "a checkout", tmp_path / "shared" / "data"
    for folder in (checkout / ".ci", checkout / "near", beside, tmp_path / "bin"):
        folder.mkdir(parents=True)
    script = checkout / ".ci" / "run"
    script.write_text((ROOT / ".ci" / "run").read_text(encoding="utf-8"), encoding="utf-8")
    for name, body in {
        "make": 'echo "$*|$COURSE_DATA|$COURSE_SEED|$PWD"',
        "chromium": "exit 0",
    }.items():
        tool = tmp_path / "bin" / name
        tool.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
        tool.chmod(0o755)
    environment = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"}
    if given is not None:
        environment["COURSE_DATA"] = given.format(absolute=checkout / "near")
    told = subprocess.run(
        ["bash", str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    expected = checkout / "near" if given else beside
    assert told.stdout == f"test|{expected}|0|{checkout}\n", told.stderr
