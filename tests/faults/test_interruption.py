"""A signal inside a query: DuckDB is ended at once, the exit code is the signal's, and nothing is left."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

QUERY = """
SELECT log.* FROM log, range(1000000000) a, range(1000000000) b WHERE a.range + b.range < 0
"""
"""It would take years and needs no memory."""


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_inside_a_query(tmp_path: Path, number: signal.Signals, code: int) -> None:
    (tmp_path / "log.csv").write_text("customer_id,occurred_at,event\na,2024-01-01,purchase\n")
    source = {"query": QUERY, "files": {"log": "log.csv"}}
    settings = {
        "name": "shop", "time_zone": "UTC", "history_from": "2024-01-01", "sources": {"log": source}, "journey": "cvj8",
    }  # fmt: skip
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump(settings))
    # Whoever starts the tests in the background of a shell starts them with SIGINT ignored, and that is inherited.
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    run = f"{heed}; from cvj_ml.cli import main; main()"
    command = [sys.executable, "-c", run, "check", "shop.yaml", "--as-of", "2024-02-01"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    try:
        end = time.monotonic() + 120
        while not list(tmp_path.glob("out/store/.staging-*/*/landed/*")):
            assert process.poll() is None and time.monotonic() < end, process.communicate()[1]
            time.sleep(0.05)
        time.sleep(1)
        sent = time.monotonic()
        process.send_signal(number)
        _, told = process.communicate(timeout=60)
        assert time.monotonic() - sent < 20
    finally:
        process.kill()
    assert process.returncode == code, told
    assert f"stopped by {number.name}; what was half-done is removed" in told and "Traceback" not in told
    assert not [path for path in (tmp_path / "out" / "store").iterdir() if path.name.startswith(".staging")]
