#!/usr/bin/env python3
"""Two commands for a fresh machine: ``python3 dev.py run`` and ``python3 dev.py test``.

Needs only the standard library of Python 3.11 to 3.13. Each command makes its own environment from a
hashed lock file when there is none yet (or when the lock file or the interpreter changed), then hands
over: ``run`` to the portal's ``serve`` command, ``test`` to pytest. Further arguments are passed on.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
COMMANDS = {
    "run": (".venv", "requirements/run.txt", ["-m", "flask", "--app", "app", "serve"]),
    "test": (".venv-test", "requirements/test.txt", ["-m", "pytest"]),
}


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        sys.exit("usage: python3 dev.py run | test [arguments passed on]")
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        sys.exit(f"The portal runs on Python 3.11, 3.12 or 3.13; this is {sys.version.split()[0]}.")
    refuse_unreadable(ROOT / ".env")
    folder, lock_file, arguments = COMMANDS[sys.argv[1]]
    python = ready_environment(ROOT / folder, ROOT / lock_file)
    os.chdir(ROOT)
    os.execv(python, [str(python), *arguments, *sys.argv[2:]])


def refuse_unreadable(settings: Path) -> None:
    """Exit with a sentence about a file that cannot be read: Flask reads it before the portal can say so."""
    try:
        settings.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    except OSError as error:
        sys.exit(f"{settings} cannot be read: {error.strerror}.")
    except UnicodeDecodeError:
        sys.exit(f"{settings} is not text in UTF-8.")


def ready_environment(folder: Path, lock_file: Path) -> Path:
    """Return the interpreter of an environment that holds exactly what the lock file lists."""
    python = folder / "bin" / "python"
    mark = folder / "made-from"
    wanted = hashlib.sha256(lock_file.read_bytes() + sys.version.encode()).hexdigest()
    if mark.is_file() and mark.read_text() == wanted and python.exists():
        return python
    print(f"Making {folder.name} from {lock_file.relative_to(ROOT)} (once) ...", file=sys.stderr, flush=True)
    make_venv(folder)
    install(python, lock_file)
    mark.write_text(wanted)
    return python


def make_venv(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "venv", str(folder)]
    if subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0:
        return
    # Debian and Ubuntu keep venv's installer in a package of its own.
    package = f"python3.{sys.version_info[1]}-venv"
    if os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run(["apt-get", "update", "-q"], check=False, stdout=sys.stderr)
        subprocess.run(["apt-get", "install", "-y", "-q", package], check=False, stdout=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        if subprocess.run(command, stdout=sys.stderr).returncode == 0:
            return
    sys.exit(
        f"Python cannot make a virtual environment here. Install its venv module, then run this again:\n"
        f"  sudo apt install {package}"
    )


def install(python: Path, lock_file: Path) -> None:
    """Install with uv when it can be had, which is several times faster, else with pip."""
    pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
    # Certificates of the machine, as pip has them: a company's network may have its own.
    environment = {**os.environ, "UV_PYTHON_DOWNLOADS": "never", "UV_SYSTEM_CERTS": "true"}
    uv_lock = ROOT / "requirements" / "uv.txt"
    with_uv = subprocess.run([*pip, "install", "-q", "--require-hashes", "-r", str(uv_lock)], stderr=subprocess.DEVNULL)
    if with_uv.returncode == 0:
        uv = [str(python), "-m", "uv", "pip", "install", "-q", "--python", str(python)]
        uv += ["--require-hashes", "-r", str(lock_file)]
        if subprocess.run(uv, env=environment, stderr=subprocess.DEVNULL).returncode == 0:
            return
    done = subprocess.run([*pip, "install", "-q", "--require-hashes", "-r", str(lock_file)])
    if done.returncode != 0:
        sys.exit(f"Could not install what {lock_file.name} lists; the lines above say why.")


if __name__ == "__main__":
    main()
