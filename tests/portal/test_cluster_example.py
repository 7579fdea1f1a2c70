"""The example of a cluster holds together: what it names exists, what nodes must share they share."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

import config
from config import ROOT
from tests.portal.cluster import EXAMPLE

COMPOSE: dict[str, Any] = yaml.safe_load((EXAMPLE / "compose.yaml").read_text())
NODES = {name: service for name, service in COMPOSE["services"].items() if name.startswith("portal-")}
NGINX = (EXAMPLE / "nginx.conf").read_text()
SECRET_NAMES = {"ARKA_SECRET_KEY", "ARKA_MASTER_KEY", "ARKA_DATABASE_URL", "ARKA_METRICS_TOKEN"}


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """The example's folder as it is after its first step."""
    folder = tmp_path / "cluster"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("secrets"))
    subprocess.run([folder / "make-secrets"], check=True)
    return folder


def test_every_file_it_names_is_there(made: Path) -> None:
    for service in NODES.values():
        context = (EXAMPLE / service["build"]["context"]).resolve()
        assert context == ROOT
        assert (context / service["build"]["dockerfile"]).is_file()
    for secret in COMPOSE["secrets"].values():
        assert (made / secret["file"]).is_file()
    mounted = [volume.split(":")[0] for volume in COMPOSE["services"]["nginx"]["volumes"]]
    assert [path for path in mounted if not (made / path).is_file()] == []
    assert (EXAMPLE / ".gitignore").read_text().split() == ["secrets/"]


def test_its_lines_about_tls_belong_together() -> None:
    text = (EXAMPLE / "compose.yaml").read_text().replace('    ports: ["80:8080"]\n', "", 1)
    commented_out = re.compile(r"^( *)# (ports:|secrets:|tls_\w+:|  file:)", re.MULTILINE)
    with_tls = yaml.safe_load(commented_out.sub(r"\1\2", text))
    nginx = with_tls["services"]["nginx"]
    assert nginx["ports"] == [*COMPOSE["services"]["nginx"]["ports"], "443:443"]
    assert "# listen 443 ssl;" in NGINX
    read = re.findall(r"# ssl_certificate(?:_key)? +/run/secrets/(\w+);", NGINX)
    assert sorted(read) == sorted(nginx["secrets"]) == ["tls_certificate", "tls_key"]
    assert {name: with_tls["secrets"][name]["file"] for name in read} == {name: f"./secrets/{name}" for name in read}
    readme = (EXAMPLE / "README.md").read_text()
    assert all(f"`secrets/{name}`" in readme for name in read)


def test_its_settings_exist_and_the_secrets_it_makes_are_good_ones(made: Path, tmp_path: Path) -> None:
    settings = {
        name: str(made / "secrets" / Path(value).name) if name.endswith("_FILE") else value
        for name, value in next(iter(NODES.values()))["environment"].items()
    }
    loaded = config.load({**settings, "ARKA_INSTANCE_PATH": str(tmp_path / "instance")})
    assert loaded.unknown == ()
    assert loaded.database_url.startswith("postgresql+psycopg://portal:")
    assert loaded.ratelimit_storage_uri == "redis://valkey:6379"
    assert stat.S_IMODE((made / "secrets").stat().st_mode) == 0o700
    assert len({path.read_text() for path in (made / "secrets").iterdir()}) == len(COMPOSE["secrets"])
    again = subprocess.run([made / "make-secrets"], capture_output=True, check=False)
    assert again.returncode != 0, "secrets that are in use are not made anew"


def test_nodes_share_all_settings_and_nothing_that_they_write() -> None:
    assert len(NODES) >= 2
    settings = [service["environment"] for service in NODES.values()]
    assert all(one == settings[0] for one in settings)
    assert {name + "_FILE" for name in SECRET_NAMES} <= set(settings[0])
    assert not SECRET_NAMES & set(settings[0]), "secrets come by file"
    folders = [service["volumes"] for service in NODES.values()]
    assert len({str(volumes) for volumes in folders}) == len(NODES)
    assert all(volumes[0].endswith(":/data") for volumes in folders)


def test_services_use_only_what_is_declared_and_each_says_how_it_is() -> None:
    for name, service in COMPOSE["services"].items():
        assert set(service["networks"]) <= set(COMPOSE["networks"]), name
        assert set(service.get("secrets", [])) <= set(COMPOSE["secrets"]), name
        named = [volume.split(":")[0] for volume in service.get("volumes", []) if not volume.startswith(".")]
        assert set(named) <= set(COMPOSE["volumes"]), name
        assert set(service.get("depends_on", {})) <= set(COMPOSE["services"]), name
        assert service["healthcheck"]["test"][0] == "CMD", name
        used = {value.rpartition("/")[2] for key, value in service.get("environment", {}).items() if "_FILE" in key}
        assert used <= set(service.get("secrets", [])), name
    assert "outside" not in COMPOSE["services"]["postgres"]["networks"]
    assert "outside" not in COMPOSE["services"]["valkey"]["networks"]


def seconds_to_start(name: str) -> int:
    """How long a service may take until it is well, after everything that it waits for is."""
    return int(COMPOSE["services"][name]["healthcheck"]["start_period"].removesuffix("s"))


def test_a_first_start_may_take_as_long_as_all_that_comes_before_it() -> None:
    """Who is found unwell too early makes ``docker compose up --wait`` fail."""
    assert all(seconds_to_start(name) >= 10 for name in COMPOSE["services"])
    for name, node in NODES.items():
        # Made ready by then, as the node starts only after them; nginx is well when a node is.
        assert all(found["condition"] == "service_healthy" for found in node["depends_on"].values())
        before = max(map(seconds_to_start, node["depends_on"]))
        assert seconds_to_start("nginx") >= before + seconds_to_start(name)


def test_nginx_knows_every_node_and_times_fit_together() -> None:
    for service in NODES.values():
        assert f"server {service['networks']['inside']['ipv4_address']}:5000 " in NGINX
    settings = next(iter(NODES.values()))["environment"]
    drain, stop = int(settings["ARKA_DRAIN_SECONDS"]), int(settings["ARKA_STOP_SECONDS"])
    assert "fail_timeout=3s" in NGINX
    assert "keepalive_timeout 3s" in NGINX
    assert drain > 3
    for service in NODES.values():
        assert int(service["stop_grace_period"].removesuffix("s")) > drain + stop + 5
    table = config.Settings.__dataclass_fields__
    total = float(table["provider_total_seconds"].metadata["default"])
    assert f"proxy_read_timeout {int(total) + 20}s;" in NGINX
    megabytes = int(table["max_body_mb"].metadata["default"])
    assert f"client_max_body_size {megabytes + 1}m;" in NGINX


def test_nginx_repeats_no_post_and_replaces_what_callers_say_of_themselves() -> None:
    assert "proxy_next_upstream error timeout;" in NGINX
    assert "underscores_in_headers off;" in NGINX
    for name in ("X-Forwarded-For   $remote_addr", "X-Forwarded-Proto $scheme", "X-Forwarded-Host  $http_host"):
        assert f"proxy_set_header {name};" in NGINX
    for name in ("Forwarded", "X-Real-IP", "X-Forwarded-Port", "X-Forwarded-Prefix"):
        assert any(line.split() == ["proxy_set_header", name, '"";'] for line in NGINX.splitlines()), name
