"""The bench runs, fills every row of its table, and its gates hold."""

from __future__ import annotations

import subprocess
import sys
from math import isfinite
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))

import gateways  # noqa: E402
import table  # noqa: E402

QUICK = ["--seconds", "0.3", "--rate", "20", "--streams", "6", "--events", "3", "--no-peers"]


@pytest.mark.alone
@pytest.mark.embedded
def test_one_command_prints_every_figure_of_both_portals_and_the_gates_hold(
    postgres_url: str, empty_redis_url: str
) -> None:
    command = [sys.executable, str(ROOT / "bench" / "run.py"), *QUICK]
    command += ["--database-url", postgres_url, "--ratelimit-uri", empty_redis_url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith("|")]
    figures = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}
    for title, _, _ in table.FIGURES:
        # Three gateways, and the portal's ratio to the others.
        assert len(figures[title]) == 5
        if title.startswith("added "):
            # So few calls may by chance be answered no later than by the provider itself.
            assert all(cell == "-" or isfinite(float(cell)) for cell in figures[title]), title
        else:
            assert all(float(cell.replace(",", "")) > 0 for cell in figures[title]), title
    assert done.stdout.count("| held |") == 8
    assert "FAILED" not in done.stdout


def test_added_latency_is_what_is_left_without_the_provider_s_own() -> None:
    point = {"per_second": 1, "cpu_ms": 1, "p50_ms": 1, "p99_ms": 1, "memory_mib": 1, "own_cpu": 0.5}
    streams = {"complete": 1, "first_p50_ms": 1, "first_p99_ms": 1, "cpu_ms": 1}

    def row(name: str, p50: float, p99: float) -> table.Row:
        rate, direct = {"p50_ms": p50, "p99_ms": p99}, {"p50_ms": 1.0, "p99_ms": 4.0}
        return {
            "name": name, "c16": point, "c64": point, "rate": rate, "direct": direct, "streams": streams, "start_s": 1,
        }  # fmt: skip

    lines = table.text([row("pass-through", 2.0, 3.0), row("portal", 4.5, 9.0)], [], []).splitlines()
    assert "| added p50 ms at a fixed rate | 1.00 | 3.50 | 3.50 |" in lines
    assert "| added p99 ms at a fixed rate | -1.00 | 5.00 | - |" in lines


@pytest.mark.parametrize("version", ["1.82.7", "1.82.8"])
def test_a_malicious_litellm_is_never_started(version: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gateways, "INSTALLED", tmp_path)
    monkeypatch.setenv("BENCH_LITELLM", str(tmp_path / "litellm"))
    monkeypatch.setattr(gateways, "version_of_litellm", lambda _script: version)
    found, notes = gateways.peers()
    assert not [one for one in found if one.name.startswith("LiteLLM")]
    assert any("malicious" in note for note in notes)
