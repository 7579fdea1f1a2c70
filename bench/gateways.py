"""What is measured side by side, and how each is started."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import provider

ROOT = Path(__file__).resolve().parent.parent
INSTALLED = ROOT / ".bench"
# Two releases that stole what they found.
MALICIOUS = {"1.82.7", "1.82.8"}


@dataclass(frozen=True)
class Place:
    """Where a gateway listens, where its provider is, and where it may write."""

    port: int
    workers: int
    provider_url: str
    folder: Path


@dataclass(frozen=True)
class Gateway:
    """``command`` makes the command line and the environment for a place."""

    name: str
    command: Callable[[Place], tuple[list[str], dict[str, str]]]
    headers: dict[str, str] = field(default_factory=dict)
    # A header in which the caller names the provider's address.
    provider_header: str | None = None
    path_up: str = "/"
    patience_seconds: float = 30.0


def portal(python: str, name: str, settings: dict[str, str], key: str) -> Gateway:
    """The portal as ``flask serve`` starts it."""

    def command(place: Place) -> tuple[list[str], dict[str, str]]:
        own = {**settings, "ARKA_PORT": str(place.port), "ARKA_WORKERS": str(place.workers)}
        return [python, "-m", "flask", "--app", "app", "serve"], {**plain_environment(), **own}

    return Gateway(name, command, {"Authorization": f"Bearer {key}"}, path_up="/healthz")


def passthroughs(python: str) -> tuple[list[Gateway], list[str]]:
    """Return bare Flask apps under the same server, one for each client that can be had, and why one is left out."""
    found = [_passthrough(python, "pass-through", "passthrough:app", {})]
    folder = Path(os.environ.get("BENCH_URLLIB3", INSTALLED / "urllib3"))
    if not (folder / "urllib3").is_dir():
        return found, ["urllib3 is not installed: see bench/README.md"]
    own = {"PYTHONPATH": str(folder)}
    return [*found, _passthrough(python, "pass-through (urllib3)", "passthrough_urllib3:app", own)], []


def _passthrough(python: str, name: str, app: str, more: dict[str, str]) -> Gateway:
    def command(place: Place) -> tuple[list[str], dict[str, str]]:
        granian = [python, "-m", "granian", "--interface", "wsgi", "--host", "127.0.0.1", "--port", str(place.port)]
        granian += ["--workers", str(place.workers), "--blocking-threads", "1200", "--backpressure", "4096"]
        granian += ["--backlog", "4096", "--no-log", "--working-dir", str(ROOT / "bench"), app]
        own = {"BENCH_PROVIDER": place.provider_url, "BENCH_PROVIDER_KEY": provider.KEY, **more}
        return granian, {**plain_environment(), **own}

    return Gateway(name, command, path_up="/healthz")


def peers() -> tuple[list[Gateway], list[str]]:
    """Return the peers that are installed, and why the others are left out."""
    found: list[Gateway] = []
    notes: list[str] = []
    for make in (_litellm, _portkey):
        made = make()
        if isinstance(made, str):
            notes.append(made)
        else:
            found.append(made)
    return found, notes


def plain_environment() -> dict[str, str]:
    """Nothing of ours but what programs need to run."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {**kept, "FLASK_SKIP_DOTENV": "1"}


def _litellm() -> Gateway | str:
    own = INSTALLED / "litellm" / "bin" / "litellm"
    script = str(own) if own.exists() else os.environ.get("BENCH_LITELLM") or shutil.which("litellm")
    if script is None:
        return "LiteLLM is not installed: see bench/README.md"
    version = version_of_litellm(script)
    if version is None or version in MALICIOUS:
        return f"LiteLLM {version or 'of unknown version'} is refused: 1.82.7 and 1.82.8 are malicious releases"

    def command(place: Place) -> tuple[list[str], dict[str, str]]:
        settings = place.folder / "litellm.yaml"
        parameters = {"model": "openai/bench-model", "api_base": place.provider_url, "api_key": provider.KEY}
        # JSON is YAML.
        told = {
            "model_list": [{"model_name": "bench-model", "litellm_params": parameters}],
            "general_settings": {"master_key": "sk-bench"},
            "litellm_settings": {"num_retries": 0, "telemetry": False},
        }
        settings.write_text(json.dumps(told))
        own = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "LITELLM_MODE": "PRODUCTION"}
        environment = {**plain_environment(), **own, "NO_DOCS": "True", "DISABLE_ADMIN_UI": "True"}
        environment["PATH"] = f"{Path(script).parent}:{environment.get('PATH', '')}"
        line = [script, "--config", str(settings), "--host", "127.0.0.1", "--port", str(place.port)]
        return [*line, "--num_workers", str(place.workers), "--run_granian"], environment

    return Gateway(f"LiteLLM {version}", command, {"Authorization": "Bearer sk-bench"}, None, "/health/liveliness", 180)


def version_of_litellm(script: str) -> str | None:
    """Return the version without running a line of LiteLLM's own."""
    python = Path(script).resolve().parent / "python"
    ask = "import importlib.metadata; print(importlib.metadata.version('litellm'))"
    command = [str(python if python.exists() else sys.executable), "-c", ask]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    return told.stdout.strip() or None


def _portkey() -> Gateway | str:
    folder = Path(os.environ.get("BENCH_PORTKEY", INSTALLED / "portkey"))
    script = folder / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    node = shutil.which("node")
    if node is None or not script.exists():
        return "Portkey's gateway is not installed: see bench/README.md"
    version = json.loads((script.parent.parent / "package.json").read_text())["version"]
    # It takes the provider's address and key from the caller.
    headers = {"Authorization": f"Bearer {provider.KEY}", "x-portkey-provider": "openai"}

    def command(place: Place) -> tuple[list[str], dict[str, str]]:
        own = {"TRUSTED_CUSTOM_HOSTS": "127.0.0.1,localhost", "NODE_ENV": "production"}
        return [node, str(script), f"--port={place.port}", "--headless"], {**plain_environment(), **own}

    return Gateway(f"Portkey {version}", command, headers, "x-portkey-custom-host", patience_seconds=60)
