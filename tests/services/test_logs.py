"""The log is cleaned of secrets before it is written."""

from __future__ import annotations

import json
import logging

import pytest
import structlog

from services import logs
from services.key_format import KeyFormat

KEY = KeyFormat("arka").generate("secret", "live").reveal()
PROVIDER_KEY = "sk-proj-abcdefghijklmnop"


@pytest.fixture(autouse=True)
def _own_logging(capfd: pytest.CaptureFixture[str]) -> object:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    logs.configure("json")
    yield
    root.handlers[:], root.level = before, level


def test_keys_are_hidden_by_their_form(capfd: pytest.CaptureFixture[str]) -> None:
    structlog.get_logger("x").info(f"key {KEY} and {PROVIDER_KEY}", where=f"Bearer {KEY}", nested={"a": [KEY]})
    logging.getLogger("library").warning("GET /setup/abcDEF-1 with %s", PROVIDER_KEY)
    logging.getLogger("library").warning("redis://user:hunter2@cache:6379")
    written = capfd.readouterr().err
    for secret in (KEY, KEY[8:], PROVIDER_KEY, PROVIDER_KEY[3:], "hunter2", "abcDEF-1"):
        assert secret not in written
    assert "[hidden]" in written


def test_fields_named_like_a_secret_are_hidden(capfd: pytest.CaptureFixture[str]) -> None:
    structlog.get_logger("x").info("sign-in", password="hunter2", Authorization="hunter2", deep={"api_key": "hunter2"})
    assert "hunter2" not in capfd.readouterr().err


def test_tracebacks_are_cleaned(capfd: pytest.CaptureFixture[str]) -> None:
    try:
        raise ValueError(f"cannot use {KEY}")
    except ValueError:
        structlog.get_logger("x").exception("failed")
    written = capfd.readouterr().err
    assert "ValueError: cannot use [hidden]" in written
    assert KEY[8:] not in written


def test_the_level_is_the_least_weight_that_is_written(capfd: pytest.CaptureFixture[str]) -> None:
    for level, expected in (("debug", "abcd"), ("info", "bcd"), ("warning", "cd"), ("error", "d")):
        logs.configure("json", level)
        log = structlog.get_logger("portal")
        for write, word in ((log.debug, "a"), (log.info, "b"), (log.warning, "c"), (log.error, "d")):
            write(word)
        assert "".join(json.loads(line)["event"] for line in capfd.readouterr().err.splitlines()) == expected


def test_debug_is_cleaned_too_and_libraries_stay_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "debug")
    structlog.get_logger("portal").debug(f"key {KEY}", token="hunter2")
    for library in ("urllib3.connectionpool", "sqlalchemy.engine", "psycopg", "redis"):
        logging.getLogger(library).debug("GET https://hooks.example/T0/canary")
    written = capfd.readouterr().err
    assert "[hidden]" in written
    for secret in (KEY[8:], "hunter2", "canary"):
        assert secret not in written


def test_every_line_is_one_json_object_with_time_and_level(capfd: pytest.CaptureFixture[str]) -> None:
    structlog.get_logger("x").info("one\ntwo", number=1)
    (line,) = capfd.readouterr().err.splitlines()
    entry = json.loads(line)
    assert entry["event"] == "one\ntwo"
    assert entry["level"] == "info"
    assert entry["timestamp"].endswith("Z")


@pytest.mark.parametrize(
    "secret",
    [KEY, KEY.replace("_sk_", "_pk_"), PROVIDER_KEY, "sk-or-v1-0123456789abcdef"],
    # The keys are others in each process of the test run.
    ids=["secret", "publishable", "openai", "openrouter"],
)
def test_a_key_in_the_wrong_place_is_hidden_before_it_is_kept_or_told_back(secret: str) -> None:
    assert logs.hide_keys(f"the model {secret}, please") == "the model [hidden], please"
    assert logs.hide_keys("risk-free task_pk_, sk-short and gpt-4o") == "risk-free task_pk_, sk-short and gpt-4o"
