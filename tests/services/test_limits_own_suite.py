"""The storage and strategy tests of ``limits`` itself, run against our storage, Redis, and our windows in Redis.

They are part of its source archive, which is downloaded for this and never kept. What they do not look at (several
processes, pruning, a file that fails, the clock, forks) is in ``test_rate_limits.py``.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path, PurePosixPath

import pytest

pytestmark = pytest.mark.waits

ROOT = Path(__file__).parents[2]
VERSION = "5.8.0"
SHA256 = "c9e0d74aed837e8f6f50d1fcebcf5fd8130957287206bc3799adaee5092655da"
FILES = ("tests/test_strategy.py", "tests/test_storage.py", "tests/integration/test_concurrency.py")
PASSED = 57
# What each kind of storage is not asked, and why. In our windows in Redis each hit has a row, so a million at once take
# longer than the two seconds of that test's window; /v1 counts at most a thousand at once.
LEFT_OUT = {"sqlite": [], "redis": [], "windows+redis": ["test_moving_window_huge_cost"]}
MARKERS = (
    "unit integration redis redis_sentinel redis_cluster memory mongodb memcached valkey valkey_cluster flaky asyncio"
)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _download(tmp_path_factory.mktemp("limits"))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", list(LEFT_OUT))
def test_our_storages_pass_the_tests_of_limits_itself(
    archive: Path, tmp_path: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    uri = f"sqlite:///{tmp_path}/limits.db"
    if kind != "sqlite":
        uri = kind + request.getfixturevalue("empty_redis_url").removeprefix("redis")
    folder = tmp_path / "suite"
    _unpack(archive, folder)
    chosen = " and ".join(f"not {name}" for name in ["Async", *LEFT_OUT[kind]])
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "limits_suite_plugin", "-k", chosen, *FILES],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "LIMITS_SUITE_URI": uri,
        },
        capture_output=True,
        text=True,
        timeout=540,
    )
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-2000:]
    last = result.stdout.strip().splitlines()[-1]
    assert re.match(rf"{PASSED - len(LEFT_OUT[kind])} passed, \d+ deselected in", last), last


def _download(folder: Path) -> Path:
    """Return the source archive, whose hash pip has checked, and so have we. Skips when it is not to be had."""
    wanted = folder / "wanted.txt"
    wanted.write_text(f"limits=={VERSION} --hash=sha256:{SHA256}\n")
    # What pip needs to look into a source archive may come as wheels.
    options = ["--no-deps", "--no-binary", "limits", "--require-hashes", "-r", str(wanted), "-d", str(folder)]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    try:
        done = subprocess.run(
            [*pip, "download", "-q", *options], cwd=folder, capture_output=True, text=True, timeout=300
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"the source archive of limits {VERSION} could not be downloaded in time")
    archive = folder / f"limits-{VERSION}.tar.gz"
    if done.returncode != 0 or not archive.is_file():
        # pip's words may name an address.
        assert "do not match" not in done.stderr, "the source archive of limits is another one than it was"
        pytest.skip(f"the source archive of limits {VERSION} could not be downloaded")
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == SHA256
    return archive


def _unpack(archive: Path, folder: Path) -> None:
    """Copy out the tests alone, so that the installed ``limits`` is tested and not the one beside them."""
    with tarfile.open(archive) as content:
        for member in content:
            name = PurePosixPath(member.name).relative_to(f"limits-{VERSION}")
            file = content.extractfile(member) if member.isfile() else None
            if file is not None and name.suffix == ".py" and name.parts[0] == "tests":
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(file.read())
    shutil.copy(Path(__file__).with_name("limits_suite_plugin.py"), folder)
    markers = "".join(f"    {name}: as declared by limits\n" for name in MARKERS.split())
    (folder / "pytest.ini").write_text(f"[pytest]\naddopts =\nmarkers =\n{markers}")
