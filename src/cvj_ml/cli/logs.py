"""What a program that collects logs is told: one JSON object a line on stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Literal

Level = Literal["info", "warning", "error"]


class JsonLines:
    """Tells a log: ``time``, ``level``, ``station``, ``message``, and numbers by their names."""

    def __init__(self) -> None:
        self._station = ""

    def say(self, message: str, **numbers: float | None) -> None:
        """Write a line; what is a warning for people is of that level."""
        said = message.removeprefix("warning: ")
        self.write("info" if said == message else "warning", said, **numbers)

    @contextmanager
    def step(self, title: str) -> Iterator[Callable[[int, int], None]]:
        """Write a line when a step begins, and one with its seconds when it is done."""
        self._station, began = title, time.perf_counter()
        self.write("info", "begins")
        yield lambda done, of: None
        self.write("info", "done", seconds=round(time.perf_counter() - began, 3))
        self._station = ""

    def write(self, level: Level, message: str, **more: object) -> None:
        """Write one line."""
        line = {
            "time": datetime.now().astimezone().isoformat(timespec="milliseconds"),
            "level": level,
            "station": self._station,
            "message": message,
            **more,
        }
        print(json.dumps(line, ensure_ascii=False), file=sys.stderr, flush=True)
