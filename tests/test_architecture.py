"""Rules about the source itself: each is one that reviews would otherwise have to remember."""

from __future__ import annotations

import ast
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "cvj_ml"
MODULES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 400

# A dependency and the parts of the package that may import it, at the top of a file or inside a function.
CONFINED = {
    "duckdb": ("store", "setup", "customers", "engines"),
    "mlflow": ("tracking",),
    "pyspark": ("engines/spark",),
    "adbc_driver_manager": ("postgres",),
    "adbc_driver_postgresql": ("postgres",),
    "mcp": ("cli/mcp",),
}

# What removes, and what puts something in the place of what is there, with the modules that may.
REMOVES = {"rmtree", "unlink", "rmdir", "removedirs", "os.remove"}
REPLACES = {"rename", "renames", "os.replace", "shutil.move", "mkdtemp", "copyfile", "copytree"}
REPLACING = {
    "demo.py": "into a folder that it claimed",
    "night/champion.py": "of a bundle beside into its place, from which `remove` took a damaged one",
    "commands/measure.py": "of the history, below out",
    "night/layout.py": "of whole files and folders of nights",
    "night/writing.py": "of a staged night into its place, where there is none",
    "report/list_files.py": "of the scores from the folder of work into the staged night",
    "scoring/parts.py": "of a finished block",
    "store/containers.py": "of a whole copy of what a file holds, in the folder of its reading",
    "store/retention.py": "of stores, aside, and of a finished one into its place, where there is none",
    "store/scanning.py": "of a whole copy of a text file, in the folder of its reading",
    "tracking/registry.py": "of a bundle into a folder that does not exist or is empty",
}

ORDERING_CALLS = {
    *("less", "less_equal", "greater", "greater_equal", "equal", "not_equal", "isin"),
    *("lt", "le", "gt", "ge", "between", "searchsorted", "digitize", "minimum", "maximum"),
    *("bisect", "bisect_left", "bisect_right"),
}
SHAPES = {"shape", "size", "ndim", "dtype"}
OF_WINDOWS = re.findall(r"^def (\w+)", (PACKAGE / "windows.py").read_text(encoding="utf-8"), re.M)


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def each_node() -> Iterator[tuple[str, ast.AST]]:
    for path in MODULES:
        for node in ast.walk(parse(path)):
            yield relative(path), node


def imported_names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


def called_name(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def names_as_of(node: ast.AST) -> bool:
    """Return whether an expression is made of a value named like ``as_of``.

    Its length and shape do not count, nor does what a function of windows.py made of it.
    """
    if isinstance(node, ast.Call) and called_name(node) in {"len", *OF_WINDOWS}:
        return False
    if isinstance(node, ast.Attribute) and node.attr in SHAPES:
        return False
    name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
    return "as_of" in name.lower() or any(names_as_of(child) for child in ast.iter_child_nodes(node))


def comparisons_with_as_of(tree: ast.AST) -> list[int]:
    """Return the lines that compare something with an ``as_of``: in Python, through a function, or in SQL text.

    Allowed: ``is None``, and equality where both sides are an ``as_of`` ("the same night"), since neither decides
    what is past. Equality with any other instant is not: it draws the border that windows.py draws.
    """
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            for operator, left, right in zip(node.ops, sides, sides[1:], strict=False):
                named = names_as_of(left), names_as_of(right)
                harmless = isinstance(operator, ast.Is | ast.IsNot) or (
                    isinstance(operator, ast.Eq | ast.NotEq) and all(named)
                )
                if any(named) and not harmless:
                    lines.append(node.lineno)
        elif isinstance(node, ast.Call) and called_name(node) in ORDERING_CALLS:
            arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
            if isinstance(node.func, ast.Attribute):
                arguments.append(node.func.value)
            if any(names_as_of(argument) for argument in arguments):
                lines.append(node.lineno)
        elif isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str)):
            text = ast.unparse(node)
            if re.search(r"\bselect\b", text, re.I) and re.search(r"[<>=]\s*[$:{]?\w*as_of|as_of\w*\}?\s*[<>=]", text):
                lines.append(node.lineno)
    return lines


@pytest.mark.parametrize(
    "code",
    [
        "occurred_at < as_of",
        "self.as_of <= t",
        "t >= snapshot.as_of - window",
        "a < b < as_of_us",
        "occurred_at == as_of",
        "np.less(instants, as_of)",
        "np.searchsorted(times, as_ofs[i])",
        "times.searchsorted(as_of)",
        "frame.as_of.le(t)",
        "np.minimum(end, as_of)",
        "AS_OF > t",
        "q = 'SELECT * FROM t WHERE visible_at < $as_of'",
        "q = f'SELECT * FROM t WHERE visible_at < {as_of}'",
    ],
)
def test_the_as_of_check_sees(code: str) -> None:
    assert comparisons_with_as_of(ast.parse(code))


@pytest.mark.parametrize(
    "code",
    [
        "as_of is None",
        "published.as_of == as_of",
        "len(as_of) == len(customers)",
        "as_of.shape == x.shape",
        "before(instants, as_of).sum() > 0",
        "max(quarter, cut - as_of)",
        "'as_of' in columns",
        "x = as_of + horizon",
    ],
)
def test_the_as_of_check_lets_pass(code: str) -> None:
    assert not comparisons_with_as_of(ast.parse(code))


def test_only_windows_compares_with_as_of() -> None:
    found = [
        f"{relative(path)}:{line}"
        for path in MODULES
        if relative(path) != "windows.py"
        for line in comparisons_with_as_of(parse(path))
    ]
    assert not found, "compare through a function of windows.py instead"


def test_imports_point_one_way(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from importlinter.application.use_cases import lint_imports
    from importlinter.configuration import configure

    configure()
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT / "src"))
    kept = lint_imports(config_filename=str(ROOT / "pyproject.toml"), cache_dir=None, no_logo=True)
    assert kept, capsys.readouterr().out


def test_the_layers_contract_has_no_way_around() -> None:
    from importlinter.api import read_configuration

    (contract,) = read_configuration(str(ROOT / "pyproject.toml"))["contracts_options"]
    assert contract["exhaustive"]
    assert not {"ignore_imports", "exhaustive_ignores"} & contract.keys()


def test_heavy_dependencies_stay_in_their_place() -> None:
    found = []
    for module, node in each_node():
        for name in imported_names(node):
            allowed = CONFINED.get(name.split(".")[0])
            if allowed and not any(module == f"{part}.py" or module.startswith(f"{part}/") for part in allowed):
                found.append(f"{module}:{node.lineno} imports {name}")
    assert not found


def test_folders_named_like_columns_are_no_columns() -> None:
    """A night lies in a folder ``as_of=…``, which pyarrow would read as a column unless it is told otherwise."""
    found = [
        f"{module}:{node.lineno}"
        for module, node in each_node()
        if isinstance(node, ast.Call)
        and called_name(node) in {"read_table", "read_parquet"}
        and not any(one.arg == "partitioning" for one in node.keywords)
    ]
    assert not found, "pass partitioning=None"


def test_nothing_is_pickled() -> None:
    found = []
    for module, node in each_node():
        if any(re.match(r"(pickle|cPickle|dill|cloudpickle|shelve|marshal)\b", name) for name in imported_names(node)):
            found.append(f"{module}:{node.lineno}")
        if {"joblib.dump", "joblib.load"} & set(imported_names(node)):
            found.append(f"{module}:{node.lineno}")
        if isinstance(node, ast.Attribute):
            owner = getattr(node.value, "id", "")
            if (owner == "joblib" and node.attr in {"dump", "load"}) or node.attr in {"to_pickle", "read_pickle"}:
                found.append(f"{module}:{node.lineno}")
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and getattr(node.value, "value", True):
            found.append(f"{module}:{node.value.lineno}")
    assert not found, "a pickle executes what it holds; save text, Parquet or JSON"


def removing_calls(tree: ast.AST, names: set[str]) -> list[int]:
    """Return the lines that call one of these functions, by its name alone or as that of a module."""
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name, owner = called_name(node), getattr(getattr(node.func, "value", None), "id", "")
            of_pandas = name == "rename" and (node.keywords or isinstance(node.args[0], ast.Constant))
            if {name, f"{owner}.{name}"} & names and not of_pandas:
                lines.append(node.lineno)
            # A temporary folder in a place of ours is removed there, too.
            if name in {"TemporaryDirectory", "NamedTemporaryFile"} and any(one.arg == "dir" for one in node.keywords):
                lines.append(node.lineno)
    return lines


@pytest.mark.parametrize(
    "code",
    [
        "shutil.rmtree(path)",
        "path.unlink(missing_ok=True)",
        "folder.rmdir()",
        "os.remove(path)",
        "rmtree(path)",
        "tempfile.TemporaryDirectory(prefix='.x-', dir=out)",
    ],
)
def test_the_check_of_removals_sees(code: str) -> None:
    assert removing_calls(ast.parse(code), REMOVES)


def test_only_one_module_removes() -> None:
    """What `ownership.remove` takes lies below a folder with its marker; nothing goes around it."""
    found = {relative(path): removing_calls(parse(path), REMOVES) for path in MODULES}
    (registry,) = found.pop("tracking/registry.py")
    assert (
        'TemporaryDirectory(prefix=".fetch-", dir=target.parent)'
        in ((PACKAGE / "tracking" / "registry.py").read_text().splitlines()[registry - 1])
    ), "a new folder beside an exported bundle, which only its maker removes"
    assert [module for module, lines in found.items() if lines] == ["ownership.py"]


def test_what_replaces_is_known() -> None:
    found = {relative(path) for path in MODULES if removing_calls(parse(path), REPLACES)}
    assert found - {"ownership.py"} == set(REPLACING)


def test_compiled_code_is_serial() -> None:
    found = []
    for module, node in each_node():
        if isinstance(node, ast.keyword) and node.arg == "parallel" and getattr(node.value, "value", True):
            found.append(f"{module}:{node.value.lineno}")
        if isinstance(node, ast.Name | ast.Attribute) and "prange" in {
            getattr(node, "id", ""),
            getattr(node, "attr", ""),
        }:
            found.append(f"{module}:{node.lineno}")
    assert not found, "numba's parallel=True can abort the process under Python threads"


def test_modules_are_short_and_named_after_their_subject() -> None:
    long = [relative(path) for path in MODULES if len(path.read_text(encoding="utf-8").splitlines()) > MAX_LINES]
    assert not long, f"over {MAX_LINES} lines: make a package with the same import path"
    vague = {"util", "utils", "helper", "helpers"}
    assert not [module for module in map(relative, MODULES) if vague & set(re.split(r"[/_.]", module))]


def test_one_name_is_one_thing() -> None:
    """No two modules of one name (a command's two files apart), and no two public classes."""
    modules = [path for path in MODULES if path.name != "__init__.py"]
    for spared in ("cli", "commands"):
        stems = Counter(path.stem for path in modules if path.parent.name != spared)
        assert not [name for name, count in stems.items() if count > 1]
    classes = Counter(
        node.name
        for path in MODULES
        for node in parse(path).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert not [name for name, count in classes.items() if count > 1]


def test_files_name_no_machine_and_no_registry() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        pytest.skip("not a git checkout, so there is no list of the project's files")
    # Written in two parts so that this file does not find itself.
    hosts = ["py" + "pi.org", "python" + "hosted.org", "registry.npm" + "js", "ana" + "conda.org"]
    path_of_a_machine = re.compile(r"(?<![\w.}/~-])/(?:" + "root|home|Users|work|workspace|opt" + r")/[\w.]")
    found = []
    for name in sorted(set(filter(None, listed.stdout.split("\0")))):
        path = ROOT / name
        try:
            text = path.read_text(encoding="utf-8")
        except (UnicodeDecodeError, FileNotFoundError):
            continue
        for number, line in enumerate(text.splitlines(), start=1):
            if path_of_a_machine.search(line) or any(host in line.lower() for host in hosts):
                found.append(f"{name}:{number}")
    assert not found


def test_tests_stand_in_the_room_of_what_they_test() -> None:
    """What concerns one room stands in a folder of its name; what goes through several stands above them."""
    tests = ROOT / "tests"
    apart = {"faults", "mutation"}  # what is broken, and where; planted faults
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir()}
    folders = {path.parent.name for path in tests.rglob("test_*.py") if path.parent != tests}
    assert folders - apart <= rooms
