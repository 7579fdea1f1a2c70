"""The portal itself as an operator runs it: its own processes, reached over HTTP and by its commands."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from email import policy
from email.parser import BytesParser
from pathlib import Path

from tests.neighbours import prepared, processes
from tests.neighbours.processes import NeighbourError, ReservedPort, wait_until

ROOT = Path(__file__).resolve().parents[2]
FLASK = [sys.executable, "-m", "flask", "--app", "app"]
START_SECONDS = 30.0
STOP_SECONDS = 15.0


def default_storage() -> dict[str, str]:
    """Return where a portal that is told nothing keeps its data; a run on PostgreSQL puts another in this place."""
    return {}


def drop_storage(_own: Mapping[str, str]) -> None:
    """Remove what ``default_storage`` gave; a run on PostgreSQL puts another in this place."""


def lay_tables(_instance: Path) -> None:
    """Put a database with the tables and nothing else into an instance folder; a test run puts this in its place."""


class Portal:
    """A portal with a port and an instance folder of its own. It can be stopped and started again."""

    def __init__(self, settings: Mapping[str, str], folder: Path, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._own_storage = {} if "ARKA_DATABASE_URL" in settings else default_storage()
        self.environment = _environment(folder) | {
            "ARKA_INSTANCE_PATH": str(folder / "instance"),
            "ARKA_PORT": str(port),
            **self._own_storage,
            **settings,
        }
        self.instance_path = Path(self.environment["ARKA_INSTANCE_PATH"])
        self._printed = {name: folder / name for name in ("stdout", "stderr")}
        self._process: processes.Stoppable | None = None

    @property
    def pid(self) -> int:
        """The process that was started; its workers are in the process group of the same number."""
        assert self._process is not None
        return self._process.pid

    def start(self, *, from_nothing: bool = False) -> None:
        """Serve and wait until ``/healthz`` answers 200. Raises NeighbourError with all that was printed.

        ``from_nothing``: as an operator starts it, where a new Python loads the portal, which takes its time.
        """
        with self._printed["stdout"].open("ab") as output, self._printed["stderr"].open("ab") as errors:
            if from_nothing:
                self._process = processes.start(
                    [*FLASK, "serve"], output=output, errors=errors, environment=self.environment, folder=ROOT
                )
            else:
                self._process = prepared.start(["serve"], self.environment, output=output, errors=errors)
        ready = processes.wait_until(lambda: self._is_healthy() or not self.is_running(), START_SECONDS, 0.05)
        if not ready or not self.is_running():
            self.kill()
            raise NeighbourError("the portal did not start:\n" + self.output())

    def stop(self, patience_seconds: float = STOP_SECONDS) -> int | None:
        """Ask it to stop (SIGTERM), wait, then end what is left. Return its exit status, negative for a signal."""
        if self._process is None:
            return None
        status = processes.stop(self._process, signal.SIGTERM, patience_seconds=patience_seconds)
        self._process = None
        return status

    def kill(self) -> None:
        """End it with all its workers by SIGKILL, as a power cut would."""
        if self._process is not None:
            processes.stop(self._process)
            self._process = None

    def drop(self) -> None:
        """Remove the data that is not in its folder. It does not run any more."""
        drop_storage(self._own_storage)

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def output(self) -> str:
        """Return what was printed so far, standard output before standard error."""
        return self.stdout() + self.stderr()

    def stdout(self) -> str:
        return self._text("stdout")

    def stderr(self) -> str:
        return self._text("stderr")

    def command(
        self, *arguments: str, input: str = "", timeout_seconds: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run one of the portal's commands with the same settings, whether it serves or not."""
        return prepared.run(arguments, self.environment, input=input, timeout_seconds=timeout_seconds)

    def command_from_nothing(self, *arguments: str, input: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command as an operator does: a new Python loads the portal, which takes its time."""
        return self._run([*FLASK, *arguments], input)

    def command_in_shell(self, line: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a line of bash, in which ``"$@"`` is a command from nothing."""
        return self._run(["bash", "-c", line, "bash", *FLASK, *arguments], "")

    def _run(self, command: list[str], input: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            input=input,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=self.environment,
            cwd=ROOT,
        )

    def mailed_link(self, recipient: str, page: str) -> str:
        """Wait for the file of a message to somebody with a link to a page, such as ``/reset/``; return its path."""
        found: list[str] = []

        def look() -> bool:
            for file in sorted((self.instance_path / "mail").glob("*.eml"), reverse=True):
                message = BytesParser(policy=policy.default).parsebytes(file.read_bytes())
                body = message.get_body(("plain",))
                text = body.get_content() if body and message["To"] == recipient else ""
                found.extend(re.findall(rf"{re.escape(self.url)}({page}[\w-]+)(?![\w/-])", text))
            return bool(found)

        assert wait_until(look, 15), f"no mail to {recipient} with a link to {page}"
        return found[0]

    def _text(self, name: str) -> str:
        path = self._printed[name]
        return path.read_text(errors="replace") if path.exists() else ""

    def _is_healthy(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


@contextlib.contextmanager
def running_portal(
    settings: Mapping[str, str] | None = None, workers: int = 2, *, from_nothing: bool = False
) -> Iterator[Portal]:
    """Yield a serving portal. ``settings`` are ``ARKA_...`` variables; it sees nothing else of our environment.

    ``from_nothing``: it starts as at an operator's, in an empty folder. Otherwise it is loaded and has its tables.
    """
    with contextlib.ExitStack() as stack:
        port = ReservedPort()
        stack.callback(port.release)
        folder = stack.enter_context(processes.temporary_folder("arka-portal-"))
        portal = Portal({"ARKA_WORKERS": str(workers), **(settings or {})}, folder, port.number)
        stack.callback(portal.drop)
        # To stop in order takes more than a second, and has tests of its own.
        stack.callback(portal.kill)
        if not from_nothing and "ARKA_DATABASE_URL" not in portal.environment:
            lay_tables(portal.instance_path)
        portal.start(from_nothing=from_nothing)
        yield portal


def _environment(home: Path) -> dict[str, str]:
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(home),
        "LANG": "C.UTF-8",
        # A developer's own .env must not reach the tests.
        "FLASK_SKIP_DOTENV": "1",
    }
