"""The bench runs, fills every row of its table, and its gates hold."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))

import gateways  # noqa: E402
import table  # noqa: E402

QUICK = ["--seconds", "0.3", "--rate", "20", "--streams", "6", "--events", "3", "--no-peers"]


@pytest.mark.alone
@pytest.mark.embedded
def test_one_command_prints_every_figure_and_the_gates_hold() -> None:
    command = [sys.executable, str(ROOT / "bench" / "run.py"), *QUICK]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith("|")]
    figures = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}
    for title, _, _ in table.FIGURES:
        assert len(figures[title]) == 3
        assert all(float(cell.replace(",", "")) > 0 for cell in figures[title]), title
    assert done.stdout.count("| held |") == 5
    assert "FAILED" not in done.stdout


@pytest.mark.parametrize("version", ["1.82.7", "1.82.8"])
def test_a_malicious_litellm_is_never_started(version: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gateways, "INSTALLED", tmp_path)
    monkeypatch.setenv("BENCH_LITELLM", str(tmp_path / "litellm"))
    monkeypatch.setattr(gateways, "version_of_litellm", lambda _script: version)
    found, notes = gateways.peers()
    assert not [one for one in found if one.name.startswith("LiteLLM")]
    assert any("malicious" in note for note in notes)
