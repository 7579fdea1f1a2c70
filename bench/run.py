#!/usr/bin/env python3
"""Measures the portal beside a bare Flask pass-through and the peers that are installed; prints one table.

``python3 bench/run.py`` needs nothing but Python on Linux; bench/README.md tells the rest.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import gates
import gateways
import table
from gateways import Gateway, Place
from machine import Failed, Program, free_port, running
from provider import KEY, LIMITED

import dev

ROOT = HERE.parent
PAUSE_SECONDS = 0.1


@dataclass(frozen=True)
class Portal:
    """A portal that is measured, in one of the two ways to run it."""

    gateway: Gateway
    settings: dict[str, str]
    keys: dict[str, dict[str, str]]


@dataclass(frozen=True)
class Server:
    """A program that answers calls."""

    program: Program
    port: int
    headers: dict[str, str]


@dataclass(frozen=True)
class Started(Server):
    """A running gateway, and how many seconds it took from its start until it answered a call."""

    gateway: Gateway
    start_s: float


@dataclass
class Bench:
    """One run: where things are, and how long each point takes."""

    python: str
    folder: Path
    provider_port: int
    rounds: int
    seconds: float
    rate: int
    streams: int
    events: int

    @property
    def provider_url(self) -> str:
        return f"http://127.0.0.1:{self.provider_port}/v1"

    @property
    def all_cores(self) -> set[int]:
        return os.sched_getaffinity(0)

    @property
    def gateway_cores(self) -> set[int]:
        return {min(self.all_cores)}

    @property
    def other_cores(self) -> set[int]:
        return self.all_cores - self.gateway_cores or self.gateway_cores


def main() -> None:
    arguments = _arguments()
    _allow_many_files()
    python = _python_of_the_portal()
    with tempfile.TemporaryDirectory(prefix="arka-bench-") as name:
        bench = Bench(
            python, Path(name), free_port(), arguments.rounds, arguments.seconds,
            arguments.rate, arguments.streams, arguments.events,
        )  # fmt: skip
        environment = gateways.plain_environment()
        command = [
            sys.executable,
            str(HERE / "provider.py"),
            str(bench.provider_port),
            str(bench.events),
            str(PAUSE_SECONDS),
        ]
        provider = Program(command, environment, ROOT, bench.folder / "provider.log", bench.other_cores)
        with running(provider):
            provider.wait_until_up(f"http://127.0.0.1:{bench.provider_port}/stats", 10)
            try:
                ok = _measure_all(bench, provider, arguments)
            except Failed as error:
                sys.exit(str(error))
    sys.exit(0 if ok else 1)


def _measure_all(bench: Bench, provider: Program, arguments: argparse.Namespace) -> bool:
    portals = [_portal(bench, "portal", "sqlite")]
    more = {"ARKA_DATABASE_URL": arguments.database_url, "ARKA_RATELIMIT_STORAGE_URI": arguments.ratelimit_uri}
    if given := {name: value for name, value in more.items() if value}:
        portals.append(_portal(bench, "portal (PostgreSQL, Redis)", "grown", **given))
    contenders, notes = gateways.passthroughs(bench.python)
    contenders += [portal.gateway for portal in portals]
    if not arguments.no_peers:
        found, why_not = gateways.peers()
        contenders, notes = contenders + found, notes + why_not
    rows = _rounds(bench, provider, contenders, notes)
    without_key = _stats(bench)["without_key"]
    print("the gates ...", file=sys.stderr, flush=True)
    measured = {row.name for row in rows}
    able = [portal for portal in portals if portal.gateway.name in measured]
    held = [gate for portal in able for gate in _gates_or_failure(bench, portal)]
    held += _gates_of_all(bench, without_key, rows)
    print(table.text(rows, held, notes))
    return len(rows) >= 2 and able == portals and all(ok for _, _, ok in held)


def _rounds(bench: Bench, provider: Program, contenders: list[Gateway], notes: list[str]) -> list[table.Row]:
    """Return the row of each gateway that starts. All are up at once, and each point asks them one after the other: a
    machine is not the same from one minute to the next, and what disturbs it should meet all alike."""
    with _all_started(bench, contenders, notes, workers=1, cores=bench.gateway_cores) as up:
        rows = {each.gateway.name: _row(bench, each) for each in up}
        _measure_calls(bench, provider, up, rows)
        able = [each.gateway for each in up]
    with _all_started(bench, able, notes, workers=len(bench.all_cores), cores=bench.all_cores) as up:
        for each in up:
            # Not held on one core, as nobody starts it.
            row = rows[each.gateway.name]
            row.start_s = min(row.start_s, each.start_s)
        for number, each in _in_turn(bench, up):
            one = rows[each.gateway.name].rounds[number]
            seconds = bench.events * PAUSE_SECONDS
            one["streams"] = _load(bench, each, mode="streams", number=bench.streams, seconds=seconds)
        return [rows[each.gateway.name] for each in up]


def _row(bench: Bench, each: Started) -> table.Row:
    return table.Row(each.gateway.name, [{} for _ in range(bench.rounds)], each.start_s)


def _measure_calls(bench: Bench, provider: Program, up: list[Started], rows: dict[str, table.Row]) -> None:
    for each in up:
        _load(bench, each, mode="closed", number=16, seconds=min(2.0, bench.seconds))
    for point, mode, size in (("c16", "closed", 16), ("rate", "rate", bench.rate), ("c64", "closed", 64)):
        for number, each in _in_turn(bench, up):
            one = rows[each.gateway.name].rounds[number]
            one[point] = _load(bench, each, mode=mode, number=size, seconds=bench.seconds)
            if point == "rate":
                one["direct"] = _load_provider(bench, provider)


def _in_turn(bench: Bench, up: list[Started]) -> Iterator[tuple[int, Started]]:
    """Give each gateway once in each round, every other round from the last to the first."""
    for number in range(bench.rounds):
        for each in up if number % 2 == 0 else reversed(up):
            yield number, each


@contextlib.contextmanager
def _all_started(
    bench: Bench, contenders: list[Gateway], notes: list[str], *, workers: int, cores: set[int]
) -> Iterator[list[Started]]:
    """Give the gateways that start, one after the other; what does not is noted and left out."""
    with contextlib.ExitStack() as ends:
        up = []
        for gateway in contenders:
            print(f"starting {gateway.name} ...", file=sys.stderr, flush=True)
            try:
                up.append(ends.enter_context(_started(bench, gateway, workers=workers, cores=cores)))
            except Failed as error:
                notes.append(f"{gateway.name}: {error}")
        print("measuring ...", file=sys.stderr, flush=True)
        yield up


@contextlib.contextmanager
def _started(bench: Bench, gateway: Gateway, *, workers: int, cores: set[int]) -> Iterator[Started]:
    """Give a running gateway that has answered a call. Raises Failed."""
    place = Place(free_port(), workers, bench.provider_url, bench.folder)
    command, environment = gateway.command(place)
    began = time.monotonic()
    log = bench.folder / f"{gateway.name}.log"
    program = Program(command, environment, ROOT, log, cores)
    with running(program):
        program.wait_until_up(f"http://127.0.0.1:{place.port}{gateway.path_up}", gateway.patience_seconds)
        headers = _headers(bench, gateway)
        _first_answer(headers, place.port)
        yield Started(program, place.port, headers, gateway, time.monotonic() - began)


def _first_answer(headers: dict[str, str], port: int) -> None:
    for _ in range(20):
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/chat/completions", gates.BODY, {**headers, "Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                answer.read()
                return
        except (OSError, http.client.HTTPException):
            time.sleep(0.05)
    raise Failed("it does not answer a call")


def _load_provider(bench: Bench, provider: Program) -> dict[str, Any]:
    """Ask the provider itself at the fixed rate: what the gateway adds is the rest. Beside each gateway anew."""
    itself = Server(provider, bench.provider_port, {"Authorization": f"Bearer {KEY}"})
    return _load(bench, itself, mode="rate", number=bench.rate, seconds=bench.seconds)


def _output_and_memory(generator: subprocess.Popen[str], program: Program) -> tuple[str, float]:
    """Wait for what the generator prints, and look meanwhile how many MiB the program takes at most."""
    most = 0.0
    try:
        while True:
            try:
                output, _ = generator.communicate(timeout=0.5)
                return output, most
            except subprocess.TimeoutExpired:
                most = max(most, program.memory_mib())
    except BaseException:
        generator.kill()
        raise


def _load(bench: Bench, asked: Server, **order: Any) -> dict[str, Any]:
    body = json.loads(gates.BODY) | ({"stream": True} if order["mode"] == "streams" else {})
    told = json.dumps({**order, "port": asked.port, "headers": asked.headers, "body": json.dumps(body)})
    program = asked.program
    before = program.cpu_seconds()
    with subprocess.Popen(
        [sys.executable, str(HERE / "load.py"), told], stdout=subprocess.PIPE, text=True
    ) as generator:
        os.sched_setaffinity(generator.pid, bench.other_cores)
        output, most = _output_and_memory(generator, program)
    if generator.returncode != 0:
        raise Failed(f"what listens at port {asked.port} takes no connection any more")
    seen: dict[str, Any] = json.loads(output)
    cpu = program.cpu_seconds() - before
    count = seen["events"] if order["mode"] == "streams" else seen["good"] + seen["refused"]
    return {**seen, "cpu_ms": 1000 * cpu / count if count else math.nan, "memory_mib": max(most, program.memory_mib())}


def _gates_or_failure(bench: Bench, portal: Portal) -> list[table.Gate]:
    """Return the gates of one portal, or that it did not come so far: the figures are to be printed still."""
    try:
        return _gates_of(bench, portal)
    except Failed as error:
        return [(f"{portal.gateway.name}: runs for the gates", str(error), False)]


def _gates_of(bench: Bench, portal: Portal) -> list[table.Gate]:
    """Return the gates of one portal, each with what was found and whether it held."""
    name = portal.gateway.name
    environment = {**gateways.plain_environment(), **portal.settings}
    disable = [bench.python, "-m", "flask", "--app", "app", "key", "disable"]
    with _started(bench, portal.gateway, workers=2, cores=bench.all_cores) as up:
        port, program = up.port, up.program
        late = gates.accepted_after_revocation(port, portal.keys["revoked"], disable, environment, ROOT)
        allowed = gates.allowed_at_once(port, portal.keys["limited"])
        replies = gates.replies_until_killed(port, portal.keys["killed"], program, min(2.0, bench.seconds))
    kept = int(_told_by(bench, "rows.py", portal.settings, portal.keys["killed"]["id"]))
    killed = f"{name}: usage rows / answers received, after kill -9 of the whole tree"
    return [
        (f"{name}: calls accepted after a revocation had answered", str(late), late == 0),
        (killed, f"{kept} / {replies}", kept >= replies > 0),
        (f"{name}: allowed of {LIMITED} over 2 workers", str(allowed), allowed == LIMITED),
    ]


def _gates_of_all(bench: Bench, without_key: int, rows: list[table.Row]) -> list[table.Gate]:
    """Return the gates that all figures of the portals have to pass."""
    measured = [one for row in rows if row.name.startswith("portal") for one in row.rounds]
    points = [one[name] for one in measured for name in ("c16", "rate", "c64", "streams")]
    errors = sum(point["refused"] + point["broken"] for point in points)
    unfinished = sum(bench.streams - one["streams"]["complete"] for one in measured)
    return [
        ("requests at the provider without its key", str(without_key), without_key == 0),
        ("errors, and streams that did not end", f"{errors}, {unfinished}", errors == 0 and unfinished == 0),
    ]


def _portal(bench: Bench, title: str, folder: str, **more: str) -> Portal:
    """Make an instance, and what is to be called of it."""
    settings = {
        "ARKA_INSTANCE_PATH": str(bench.folder / folder),
        "ARKA_OPENAI_BASE_URL": bench.provider_url,
        "ARKA_DEMO": "0",
        **more,
    }
    keys = json.loads(_told_by(bench, "prepare.py", settings))
    return Portal(gateways.portal(bench.python, title, settings, keys["load"]["secret"]), settings, keys)


def _told_by(bench: Bench, script: str, settings: dict[str, str], *arguments: str) -> str:
    """Run a script that needs the portal's own code, and return what it prints."""
    told = subprocess.run(
        [bench.python, str(HERE / script), *arguments],
        env={**gateways.plain_environment(), **settings},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return told.stdout


def _headers(bench: Bench, gateway: Gateway) -> dict[str, str]:
    named = {gateway.provider_header: bench.provider_url} if gateway.provider_header else {}
    return {**gateway.headers, **named}


def _stats(bench: Bench) -> dict[str, int]:
    with urllib.request.urlopen(f"http://127.0.0.1:{bench.provider_port}/stats") as answer:
        told: dict[str, int] = json.load(answer)
        return told


def _python_of_the_portal() -> str:
    """Return this interpreter if it has what the portal needs, else that of ``dev.py run``."""
    command = [sys.executable, "-c", "import flask_limiter, granian"]
    if subprocess.run(command, capture_output=True, check=False).returncode == 0:
        return sys.executable
    folder, lock_file, _ = dev.COMMANDS["run"]
    return str(dev.ready_environment(ROOT / folder, ROOT / lock_file))


def _allow_many_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(65536, hard), hard))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure the portal beside what else is installed.")
    parser.add_argument("--rounds", type=int, default=3, help="how often each point is measured (3)")
    parser.add_argument("--seconds", type=float, default=3, help="how long each point takes in a round (3)")
    parser.add_argument("--rate", type=int, default=75, help="requests a second of the point at a fixed rate (75)")
    parser.add_argument("--streams", type=int, default=1000, help="streams at once (1000)")
    parser.add_argument("--events", type=int, default=50, help="events of a stream, 0.1 seconds apart (50)")
    parser.add_argument("--no-peers", action="store_true", help="leave out LiteLLM and Portkey")
    parser.add_argument("--database-url", help="an empty PostgreSQL database: measures the portal on it as well")
    parser.add_argument("--ratelimit-uri", help="a Redis for the same portal, such as redis://127.0.0.1:6379/9")
    return parser.parse_args()


if __name__ == "__main__":
    main()
