"""Settings in the file ``.env`` beside ``app.py``, in a portal of which this is a copy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from config import ROOT

pytestmark = pytest.mark.embedded

NOT_COPIED = {"instance", "tests"}
# What a worker does that is started afresh. Flask reads the file as well, but only for its commands.
LOAD = [sys.executable, "-c", "import app; app.create_app(app.load_settings())"]
COMMAND = [sys.executable, "-m", "flask", "--app", "app", "db", "upgrade"]
WAYS = pytest.mark.parametrize("way", [LOAD, COMMAND], ids=["worker", "command"])
NOT_TEXT = b"ARKA_BRAND=\xff\xfe\n"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The portal's own files in a folder of their own, its packages by links."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in ROOT.iterdir():
        if path.suffix == ".py":
            shutil.copy(path, folder)
        elif path.is_dir() and not path.name.startswith(".") and path.name not in NOT_COPIED:
            (folder / path.name).symlink_to(path)
    return folder


def run(copy: Path, command: list[str], **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(copy), "LANG": "C.UTF-8", **settings}
    return subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=120, check=False)


@WAYS
def test_a_setting_of_the_file_is_used_and_the_environment_wins_over_it(copy: Path, way: list[str]) -> None:
    written, given = copy.parent / "written", copy.parent / "given"
    (copy / ".env").write_text(f"# Where it keeps its data.\nARKA_INSTANCE_PATH='{written}'\nARKA_DEMO=0\n")
    done = run(copy, way)
    assert done.returncode == 0, done.stderr
    assert (written / "secret_key").exists()
    done = run(copy, way, ARKA_INSTANCE_PATH=str(given))
    assert done.returncode == 0, done.stderr
    assert (given / "secret_key").exists()
    assert not (copy / "instance").exists()


@WAYS
def test_a_wrong_value_in_the_file_stops_the_start_with_a_sentence_that_names_it(copy: Path, way: list[str]) -> None:
    (copy / ".env").write_text("ARKA_WORKERS=many\nARKA_DEMO=perhaps\n")
    done = run(copy, way)
    assert done.returncode != 0
    assert "ARKA_WORKERS must be a whole number from 1 to 256." in done.stderr
    assert "ARKA_DEMO must be 1 or 0." in done.stderr
    assert not (copy / "instance").exists()


@WAYS
def test_bytes_in_the_environment_that_are_not_text_stop_the_start_with_a_sentence(copy: Path, way: list[str]) -> None:
    given = os.fsdecode(b"\xff0123456789abcdef0123456789abcdef")
    done = run(copy, way, ARKA_SECRET_KEY=given, ARKA_BRAND=given)
    assert done.returncode != 0
    assert "ARKA_SECRET_KEY is not text in UTF-8.\nARKA_BRAND is not text in UTF-8.\n" in done.stderr
    assert "0123" not in done.stderr


@WAYS
def test_a_name_in_the_file_that_means_nothing_is_told_in_the_log(copy: Path, way: list[str]) -> None:
    (copy / ".env").write_text("ARKA_WORKRES=2\n")
    done = run(copy, way)
    assert done.returncode == 0, done.stderr
    assert "ARKA_WORKRES is not a setting; did you mean ARKA_WORKERS?" in done.stderr


def test_the_file_is_left_out_where_flask_leaves_it_out(copy: Path) -> None:
    (copy / ".env").write_text("ARKA_WORKERS=many\n")
    assert run(copy, LOAD, FLASK_SKIP_DOTENV="1").returncode == 0


@pytest.mark.parametrize("way", [LOAD, [sys.executable, "dev.py", "run"]], ids=["worker", "dev.py"])
def test_a_file_that_is_not_text_is_told_and_nothing_of_it_shown(copy: Path, way: list[str]) -> None:
    (copy / ".env").write_bytes(NOT_TEXT)
    done = run(copy, way)
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1].endswith(f"{copy / '.env'} is not text in UTF-8.")
    assert "0xff" not in done.stderr
