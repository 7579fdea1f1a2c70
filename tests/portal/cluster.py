"""Several nodes over one PostgreSQL and one Valkey, behind nginx with the example's own file."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from config import ROOT
from tests.neighbours import processes
from tests.neighbours.portal import Portal, running_portal
from tests.neighbours.processes import ReservedPort, wait_until
from tests.portal.calls import PASSWORD, call

EXAMPLE = ROOT / "examples" / "cluster"
SHARED = {
    "ARKA_SECRET_KEY": "0123456789abcdef" * 4,
    "ARKA_MASTER_KEY": "fedcba9876543210" * 4,
    "ARKA_TRUSTED_PROXIES": "1",
    "ARKA_DEMO": "0",
}


@dataclass(frozen=True)
class Cluster:
    """Nodes, and the port of nginx in front of them."""

    nodes: list[Portal]
    port: int
    database_url: str

    def key(self, name: str, *options: str, workspace: str = "alice") -> str:
        """Make a test key in a workspace, by a command on the first node."""
        made = self.nodes[0].command("key", "create", "--workspace", workspace, "--name", name, "--test", *options)
        assert made.returncode == 0, made.stderr
        return made.stdout.strip()

    def is_ready(self, node: Portal) -> bool:
        try:
            return call(node.port, None, path="/readyz")[0] == 200
        except OSError:
            return False


@contextlib.contextmanager
def running_cluster(storage: dict[str, str], nodes: int = 2, **settings: str) -> Iterator[Cluster]:
    """Yield a cluster with alice's workspace, whose plan is as good as unlimited."""
    with contextlib.ExitStack() as stack:
        given = {**SHARED, **storage, **settings}
        # At the same moment, on an empty database.
        starting = [running_portal(given, workers=2) for _ in range(nodes)]
        with ThreadPoolExecutor() as at_once:
            portals = list(at_once.map(lambda portal: portal.__enter__(), starting))
        for one in starting:
            stack.push(one)
        portals[0].command("user", "create", "alice@northwind.example", input=PASSWORD + "\n")
        portals[0].command("workspace", "set-plan", "alice", "enterprise", "--requests-per-minute", "1000000")
        port = stack.enter_context(running_nginx([portal.port for portal in portals]))
        yield Cluster(portals, port, storage["ARKA_DATABASE_URL"])


@contextlib.contextmanager
def running_nginx(nodes: list[int]) -> Iterator[int]:
    """Run nginx with the example's file in front of these ports, and yield its own."""
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if nginx is None:
        pytest.skip("nginx is missing: apt install nginx-light")
    with contextlib.ExitStack() as stack:
        port = ReservedPort()
        stack.callback(port.release)
        folder = stack.enter_context(processes.temporary_folder("arka-nginx-"))
        path = folder / "nginx.conf"
        path.write_text(fitted(nodes, port.number, folder))
        # As root it would leave its folders to another user, who does not get into ours.
        more = "daemon off; user root;" if os.geteuid() == 0 else "daemon off;"
        with (folder / "log").open("wb") as log:
            process = processes.start(
                [nginx, "-p", str(folder), "-c", str(path), "-g", more], output=log, environment=os.environ, folder=ROOT
            )
            stack.callback(processes.stop, process)
        if not wait_until(lambda: answers(port.number), 10):
            raise processes.NeighbourError((folder / "log").read_text())
        yield port.number


def fitted(nodes: list[int], port: int, folder: Path) -> str:
    """The example's own file, with the addresses of a test."""
    text = (EXAMPLE / "nginx.conf").read_text()
    found = re.findall(r"^ +server 10\.77\.0\.\d+:5000 .*\n", text, re.MULTILINE)
    assert len(found) == 2
    server = found[0].replace("fail_timeout=3s", "fail_timeout=1s")
    ours = "".join(re.sub(r"10\.77\.0\.\d+:5000", f"127.0.0.1:{node}", server) for node in nodes)
    temporary = "".join(
        f"{name}_temp_path {folder};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    # A second in place of three, so that a node has drained after two.
    for given, used in (
        (" keepalive_timeout 3s;", " keepalive_timeout 1s;"),
        ("".join(found), ours),
        ("listen 8080;", f"listen 127.0.0.1:{port};"),
        ("pid /run/nginx.pid;", f"pid {folder}/nginx.pid;"),
        ("http {\n", "http {\n" + temporary),
    ):
        assert text.count(given) == 1, given
        text = text.replace(given, used)
    return text


def answers(port: int) -> bool:
    try:
        return call(port, None, path="/healthz")[0] == 200
    except OSError:
        return False
