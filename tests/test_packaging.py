"""What a user gets: a whole wheel, locks that install anywhere, and a package that works outside this checkout."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "cvj_ml"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCKS = ("dev", "runtime", "lowest", "uv", "build")


def lock_text(name: str) -> str:
    return (ROOT / "locks" / f"{name}.txt").read_text(encoding="utf-8")


def pins(name: str) -> dict[str, set[str]]:
    """Return each locked project's versions (two, where Python versions need different ones)."""
    found: dict[str, set[str]] = {}
    for line in lock_text(name).splitlines():
        if not line.startswith(" "):
            requirement = Requirement(line.removesuffix("\\").strip())
            (pin,) = requirement.specifier
            assert pin.operator == "=="
            found.setdefault(canonicalize_name(requirement.name), set()).add(pin.version)
    return found


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Run a command away from this checkout's source and environment; its output, or a failure that shows it."""
    clean = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=clean | environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder, cwd=ROOT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_holds_hashes_and_no_address(name: str) -> None:
    text = lock_text(name)
    assert pins(name)
    for entry in re.split(r"\n(?=\S)", text.strip()):
        assert "--hash=sha256:" in entry
    assert not re.search(r"://|--(?:extra-|default-)?index|--find-links|@ ", text)


@pytest.mark.parametrize(
    ("name", "extras"),
    [
        ("runtime", ()),
        ("dev", ("calendar", "dev", "mcp", "test", "tune")),
        ("lowest", ("calendar", "mcp", "postgres", "spark", "test", "tune")),
    ],
)
def test_a_lock_fulfils_the_declared_dependencies(name: str, extras: tuple[str, ...]) -> None:
    declared = [
        *PROJECT["dependencies"],
        *(line for extra in extras for line in PROJECT["optional-dependencies"][extra]),
    ]
    locked = pins(name)
    stale = []
    for requirement in map(Requirement, declared):
        versions = locked.get(canonicalize_name(requirement.name), set())
        if requirement.name != PROJECT["name"] and not (
            versions and all(map(requirement.specifier.contains, versions))
        ):
            stale.append(str(requirement))
    assert not stale, "run `make lock`"


def test_the_lowest_lock_holds_the_declared_bounds() -> None:
    """A bound that nothing installs is a claim that nobody tries; the tests' own packages are as in the other locks."""
    extras, lowest, dev = PROJECT["optional-dependencies"], pins("lowest"), pins("dev")
    bounds = {}
    for line in [
        *PROJECT["dependencies"],
        *(line for one in ("calendar", "mcp", "tune", "spark", "postgres") for line in extras[one]),
    ]:
        requirement = Requirement(line)
        (bound,) = (one.version for one in requirement.specifier if one.operator == ">=")
        bounds[canonicalize_name(requirement.name)] = Version(bound)
    found = {name: min(map(Version, lowest[name])) for name in bounds}
    assert found == bounds, "run `make lock`"
    tools = {canonicalize_name(Requirement(line).name) for line in extras["test"]}
    assert {name: lowest[name] for name in tools} == {name: dev[name] for name in tools}


def test_every_import_is_declared() -> None:
    """A package that only comes with another one may go with that one's next release."""
    extras = PROJECT["optional-dependencies"]
    offered = [
        *PROJECT["dependencies"],
        *(line for extra in extras if extra not in ("dev", "test") for line in extras[extra]),
    ]
    declared = {canonicalize_name(Requirement(line).name) for line in offered}
    distributions = packages_distributions()
    undeclared = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            for name in {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"cvj_ml"}:
                if not declared & {canonicalize_name(owner) for owner in distributions.get(name, [name])}:
                    undeclared.add(f"{path.relative_to(SOURCE)}: {name}")
    assert not undeclared


@pytest.mark.parametrize("name", ["runtime", "build"])
def test_a_part_of_the_lock_names_the_same_versions(name: str) -> None:
    dev = pins("dev")
    assert {project: dev.get(project) for project in pins(name)} == pins(name)


STUB = """#!/bin/sh
case "$*" in *"pip sync"*|*"-m pip install --require"*) echo "$@" >> {log} ;; esac
"""


def test_a_demonstration_installs_what_runs_and_takes_no_tool_away(tmp_path: Path) -> None:
    """The environment is a stub that notes down what it is asked to install."""
    shutil.copytree(ROOT / "locks", tmp_path / "locks")
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    log = tmp_path / "log"
    for name in ("python", "uv"):
        stub = tmp_path / ".venv" / "bin" / name
        stub.write_text(STUB.format(log=log))
        stub.chmod(0o755)

    def installed_by(target: str) -> list[str]:
        log.write_text("")
        run("make", "--no-print-directory", target, cwd=tmp_path, MAKEFLAGS="")
        (lines,) = [re.findall(r"locks/(\w+)\.txt", one) for one in log.read_text().splitlines() if "sync" in one] or [
            []
        ]
        return lines

    assert installed_by("runtime") == ["runtime", "build"]
    assert installed_by("runtime") == []
    assert installed_by("venv") == ["dev"]
    assert installed_by("runtime") == []
    (tmp_path / "pyproject.toml").write_text("# changed")
    assert installed_by("runtime") == ["dev"]


def test_the_changelog_has_an_entry_for_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## {re.escape(PROJECT['version'])}\b", text, re.MULTILINE)


def test_every_ignore_is_anchored() -> None:
    """An entry that matches at any depth may drop a part of the package, since hatchling obeys .gitignore."""
    compiled_leftovers = {"__pycache__/", "*.py[cod]", "*.nbi", "*.nbc"}
    lines = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    entries = {line for line in lines if line and not line.startswith("#")}
    assert not [entry for entry in entries - compiled_leftovers if not entry.startswith(("/", "!/"))]


def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name.removeprefix("cvj_ml/") for name in archive.namelist() if name.startswith("cvj_ml/")}
        beside = {name for name in archive.namelist() if not name.startswith("cvj_ml/")}
    written = {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*")
        if path.is_file() and path.suffix not in {".pyc", ".nbi", ".nbc"}
    }
    assert packed == written
    assert {"py.typed", "__init__.py", "journey/presets/cvj8.yaml"} <= packed
    assert all(name.split("/")[0].endswith(".dist-info") for name in beside)
    assert any(name.endswith("licenses/LICENSE") for name in beside)


def test_the_description_names_files_of_the_source_distribution_and_links_to_none(wheel: Path, tmp_path: Path) -> None:
    """An index shows it away from the repository, where a relative link leads nowhere."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [one for one in archive.namelist() if one.endswith("METADATA")]
        description = archive.read(name).decode().split("\n\n", 1)[1]
    assert not [one for one in re.findall(r"\]\(([^)\s]+)\)", description) if "://" not in one]
    run(sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", tmp_path, cwd=ROOT)
    (built,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(built) as archive_of_source:
        packed = {one.partition("/")[2] for one in archive_of_source.getnames()}
    named = set(re.findall(r"`([\w/-]+\.md)(?:#[\w-]+)?`", description))
    assert len(named) > 15 and not named - packed


@pytest.mark.slow
def test_a_release_is_the_same_bytes_elsewhere_and_at_another_time(tmp_path: Path) -> None:
    """Another clone, time zone, umask and hash seed; the script itself builds twice, too."""
    clone = tmp_path / "elsewhere" / "clone"
    run("git", "clone", "--quiet", "--no-hardlinks", ROOT, clone, cwd=tmp_path)
    script, here, there = Path(".ci", "release.py"), tmp_path / "here", tmp_path / "there"
    run(sys.executable, script, here, cwd=ROOT, TZ="UTC", PYTHONHASHSEED="1")
    masked = f"umask 077; exec {sys.executable} {script} {there}"
    run("sh", "-c", masked, cwd=clone, TZ="Asia/Tokyo", PYTHONHASHSEED="2", SOURCE_DATE_EPOCH="1")
    written = {path.name: path.read_bytes() for path in here.iterdir()}
    assert written == {path.name: path.read_bytes() for path in there.iterdir()}
    stem = f"cvj_ml-{PROJECT['version']}"
    distributions = {f"{stem}-py3-none-any.whl", f"{stem}.tar.gz"}
    assert written.keys() == {*distributions, f"{stem}.cdx.json", "SHA256SUMS"}
    run("sha256sum", "--check", "--strict", "SHA256SUMS", cwd=here)
    parts = json.loads(written[f"{stem}.cdx.json"])
    assert (parts["bomFormat"], parts["metadata"]["component"]["version"]) == ("CycloneDX", PROJECT["version"])
    locked = {(name, version) for name, versions in pins("runtime").items() for version in versions}
    assert {(one["name"], one["version"]) for one in parts["components"]} == locked
    assert all(one["externalReferences"][0]["hashes"] for one in parts["components"])


@pytest.mark.slow
def test_the_installed_wheel_works_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    uv = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if uv is None:
        pytest.skip("uv is not installed; `make test` brings it")
    environment = tmp_path / "environment"
    python = environment / "bin" / "python"
    run(uv, "venv", "--quiet", "--python", sys.executable, environment, cwd=tmp_path)
    install = (uv, "pip", "install", "--quiet", "--python", python)
    # The runtime lock and nothing else, so that a dependency which only the tools bring is noticed.
    run(*install, "--require-hashes", "--requirement", ROOT / "locks" / "runtime.txt", cwd=tmp_path)
    run(*install, "--no-deps", wheel, cwd=tmp_path)
    run(uv, "pip", "check", "--quiet", "--python", python, cwd=tmp_path)

    import_all = (
        "import importlib, pkgutil, cvj_ml\n"
        "def stop(name): raise\n"
        "names = [m.name for m in pkgutil.walk_packages(cvj_ml.__path__, 'cvj_ml.', onerror=stop)]\n"
        "for name in names:\n"
        "    if not name.endswith('.__main__'):\n"
        "        importlib.import_module(name)\n"
        "print(cvj_ml.__file__, *names, sep='\\n')\n"
    )
    # Machine code is kept by what it was made of, so the checkout's serves the wheel as well.
    location, *names = run(python, "-I", "-c", import_all, cwd=tmp_path).splitlines()
    assert Path(location).is_relative_to(environment)
    modules = {
        ".".join(("cvj_ml", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")
        for path in SOURCE.rglob("*.py")
    }
    assert {"cvj_ml", *names} == modules

    out = tmp_path / "out"
    command = environment / "bin" / "cvj-ml"
    run(command, "demo", "--customers", "600", "--out", out, cwd=tmp_path)
    assert list(out.rglob("*.parquet"))
