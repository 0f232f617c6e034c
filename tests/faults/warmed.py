"""A process that has imported and compiled everything, and forks for each command: a real process in no time.

The child runs the console script's ``main`` with its own streams, limits and exit code, so a crash or a kill -9 ends
it alone, as it would end a command in a shell.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.trained import Outcome

ROOT = Path(__file__).resolve().parents[2]

# What CPython tells its audit hooks before it changes something on the disk.
_CHANGES = {"os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.truncate", "os.chmod", "os.link", "os.symlink"}


@dataclass
class Running:
    """A command that was started: its process, and the files of what it tells."""

    warmed: Warmed
    pid: int
    stdout: Path
    stderr: Path

    def told(self) -> str:
        """Return what stands on stderr by now."""
        return self.stderr.read_text()

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self) -> Outcome:
        """Wait for its end; the code is minus the signal's number where one ended it."""
        code = self.warmed.ask({"wait": self.pid})
        return Outcome(int(code), self.stdout.read_text(), self.stderr.read_text())


@dataclass
class Warmed:
    """The parent of the commands."""

    process: subprocess.Popen[str]
    folder: Path
    started: int = 0

    def ask(self, question: dict[str, Any]) -> Any:
        """Return the parent's answer."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, "the warmed parent has ended"
        return json.loads(answer)

    def start(self, *arguments: object, **limits: Any) -> Running:
        """Start a command; ``limits`` are those of `_live`."""
        self.started += 1
        stdout, stderr = (self.folder / f"{self.started}.{kind}" for kind in ("out", "err"))
        stdout.touch()
        stderr.touch()
        question = {"argv": [str(one) for one in arguments], "stdout": str(stdout), "stderr": str(stderr), **limits}
        return Running(self, int(self.ask(question)), stdout, stderr)

    def call(self, *arguments: object, **limits: Any) -> Outcome:
        """Run a command to its end."""
        return self.start(*arguments, **limits).wait()


@contextmanager
def warmed(folder: Path, config: Path, as_of: str) -> Iterator[Warmed]:
    """Yield a parent that has published a night of this configuration to be warm."""
    command = [sys.executable, "-m", "tests.faults.warmed", "nightly", str(config), "--as-of", as_of]
    path = os.pathsep.join((str(ROOT), str(ROOT / "src")))
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
    ) as process:
        try:
            assert process.stdout is not None
            answer = process.stdout.readline()
            assert answer and json.loads(answer) == 0, f"the warming night ended with {answer!r}"
            yield Warmed(process, folder)
        finally:
            process.kill()


def _live(question: dict[str, Any]) -> None:
    """Be the command.

    At the ``kill_at``-th change below ``under`` that Python makes on
    the disk it is killed before that change; ``count`` is a file to which the number of these changes is written.
    ``stdout`` and ``stderr`` are files; those named in ``closed`` are closed, those in ``abandoned`` are pipes whose
    reader has gone.
    """
    from cvj_ml import cli

    os.setsid()
    for name, stream in (("stdout", 1), ("stderr", 2)):
        handle = os.open(question[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(handle, stream)
        os.close(handle)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for name in question.get("abandoned", ()):
        reader, writer = os.pipe()
        os.dup2(writer, {"stdout": 1, "stderr": 2}[name])
        os.close(reader)
        os.close(writer)
    for name in question.get("closed", ()):
        os.close({"stdout": 1, "stderr": 2}[name])
        setattr(sys, name, None)  # as the interpreter has it where a stream is closed when it starts
        setattr(sys, f"__{name}__", None)
    os.environ.update(question.get("environment", {}))
    changes = _watch(question["under"], question.get("kill_at")) if "under" in question else []
    sys.argv = ["cvj-ml", *question["argv"]]
    code: Any = 0
    try:
        cli.main()
    except SystemExit as stop:
        code = stop.code or 0
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.flush()
    if "count" in question:
        Path(question["count"]).write_text("\n".join(changes))
    os._exit(int(code))


def _watch(under: str, kill_at: int | None) -> list[str]:
    """Note down each change below a folder, and die at one of them."""
    changes: list[str] = []

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            flags = arguments[2]
            if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR):
                return
        elif event not in _CHANGES:
            return
        paths = [os.fsdecode(one) for one in arguments if isinstance(one, str | bytes | os.PathLike)]
        if any(path.startswith(under) for path in paths):
            changes.append(f"{event} {' '.join(paths)}")
            if len(changes) == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    return changes


def _serve() -> None:
    """Warm up with the command of the command line, then fork for each that is asked for."""
    from tests.trained import call

    # Answers have a stream of their own: a command of the parent's must not get between them.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(found: int) -> None:
        print(found, file=answers, flush=True)

    ran = call(*sys.argv[1:])
    if ran.code:
        print(ran.err, file=sys.stderr)
    answer(ran.code)
    for line in sys.stdin:
        question = json.loads(line)
        if "wait" in question:
            answer(os.waitstatus_to_exitcode(os.waitpid(question["wait"], 0)[1]))
            continue
        pid = os.fork()
        if pid == 0:
            answers.close()
            _live(question)
        answer(pid)


if __name__ == "__main__":
    _serve()
