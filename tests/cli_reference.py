"""The reference of the command line, made from the commands: ``python -m tests.cli_reference`` writes docs/cli.md."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import typer

from cvj_ml.cli import app

FILE = Path(__file__).resolve().parents[1] / "docs" / "cli.md"

HEAD = """# Commands

Made from the commands by `python -m tests.cli_reference`. [outputs.md](outputs.md) has the exit codes. What a command
tells on its way goes to stderr, its result to stdout (`--json`: one object).

`cvj-ml --version` tells the version. `cvj-ml --install-completion` teaches your shell (bash, zsh or fish) to complete
commands and options with the Tab key, by a line in its start-up file; `cvj-ml --show-completion` only prints what it
would write. Where no shell can be detected, in an image that is being built for example, name it:

```sh
eval "$(_CVJ_ML_COMPLETE=source_bash cvj-ml)"    # or source_zsh; for fish: _CVJ_ML_COMPLETE=source_fish cvj-ml | source
```
"""


def commands(command: Any, words: str = "cvj-ml") -> Iterator[tuple[str, Any]]:
    """Yield every command with its words, in the order of the help."""
    if hasattr(command, "commands"):
        for name, one in command.commands.items():
            yield from commands(one, f"{words} {name}")
    else:
        yield words, command


def command_of(words: Sequence[str]) -> tuple[Any, list[str]]:
    """Return the command that is called by the words behind ``cvj-ml``, and the words that follow its name."""
    command: Any = typer.main.get_command(app)
    rest = list(words)
    while hasattr(command, "commands"):
        command = command.commands[rest.pop(0)]
    return command, rest


def cell(text: str) -> str:
    """Return text as a cell of a Markdown table."""
    return re.sub(r"\s+", " ", text).strip().replace("|", "\\|")


def kind(annotation: Any) -> str:
    """Return what a parameter takes, in words."""
    if get_origin(annotation) is Literal:
        return " · ".join(f"`{one}`" for one in get_args(annotation))
    parts = [one for one in get_args(annotation) if one is not type(None)]
    if get_origin(annotation) is list:
        return f"{kind(parts[0])}, several"
    if parts:
        return kind(parts[0])
    return {bool: "", str: "text", int: "whole number", Path: "path"}[annotation]


def parameters(command: Any) -> Iterator[str]:
    """Yield a row for each argument and option."""
    hints = get_type_hints(command.callback)
    for one in command.params:
        if one.name == "help":
            continue
        argument = one.param_type_name == "argument"
        name = f"`{(one.metavar or one.name).upper()}`" if argument else ", ".join(f"`{name}`" for name in one.opts)
        default = "required" if one.required else "" if one.default in (None, False, (), []) else f"`{one.default}`"
        yield f"| {name} | {kind(hints[one.name])} | {cell(default)} | {cell(one.help or '')} |"


def reference() -> str:
    """Return the page."""
    parts = [HEAD]
    for words, command in commands(typer.main.get_command(app)):
        help_text = re.sub(r"(?<!\n)\n(?!\n)", " ", (command.help or "").strip())
        parts.append(f"## {words}\n\n{help_text}\n\n| | takes | default | |\n| --- | --- | --- | --- |")
        parts[-1] += "".join("\n" + row for row in parameters(command)) + "\n"
    return "\n".join(parts)


if __name__ == "__main__":
    FILE.write_text(reference(), encoding="utf-8")
