"""The summary of a night, posted to a web address when the night becomes the current one: counts, never people.

This is the only thing in the package that opens a connection to where a configuration says, besides databases and the
registry. What it does, or fails to do, changes nothing about the night.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from cvj_ml.io import sorted_json
from cvj_ml.night.layout import POSTED, replace_file
from cvj_ml.run import Watcher

_SECONDS = 10
"""How long an answer may take."""

_PAUSE = 1.0
"""Seconds between the two tries."""


def post_once(out: Path, night: Path, url: str, summary: Mapping[str, Any], watcher: Watcher) -> None:
    """Post the summary of the current night, unless this was done before; a failure is a warning.

    ``<out>/POSTED.json`` keeps the night that was posted last: the same command again posts what failed, and nothing
    that arrived. The caller holds the lock of ``out``.
    """
    name = {"night": night.relative_to(out).as_posix()}
    if _posted(out) == name:
        return
    fault = _post(url, summary)
    if fault is not None:
        time.sleep(_PAUSE)
        fault = _post(url, summary)
    if fault is None:
        try:
            replace_file(out / POSTED, sorted_json(name))
        except OSError as error:
            watcher.say(f"warning: {out / POSTED} cannot be written ({error.strerror}): the next run posts again.")
        return
    watcher.say(
        f"warning: deliver.webhook: the summary could not be posted to {urlsplit(url).hostname} in two tries: {fault}."
        " The night is published all the same; the same command again posts the summary."
    )


def _posted(out: Path) -> Any:
    try:
        return json.loads((out / POSTED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Takes a redirect for a failure: nobody has said that the summary may go anywhere else."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        return None


def _post(url: str, summary: Mapping[str, Any]) -> str | None:
    """Post a document as JSON; return what went wrong, without the address, None where it arrived."""
    body = json.dumps(summary, ensure_ascii=False, sort_keys=True).encode()
    headers = {"Content-Type": "application/json; charset=utf-8", "User-Agent": "cvj-ml"}
    request = urllib.request.Request(url, body, headers, method="POST")
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=_SECONDS):
            return None
    except urllib.error.HTTPError as error:
        with error:
            return f"the server answers {error.code}"
    except urllib.error.URLError as error:
        return f"no connection ({type(error.reason).__name__})"
    except TimeoutError:
        return f"no answer within {_SECONDS} s"
    except (OSError, HTTPException, ValueError) as error:
        return f"the connection failed ({type(error).__name__})"
