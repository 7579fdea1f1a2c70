"""A portal whose providers are the fake one, and keys to call it with."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask import Flask

from services import provider_keys
from services.secret import Secret
from tests.neighbours.fake_provider import FakeProvider
from tests.people import Person


@pytest.fixture
def environment(environment: dict[str, str], provider: FakeProvider) -> dict[str, str]:
    return environment | {
        "ARKA_OPENAI_BASE_URL": provider.openai_base_url,
        "ARKA_OPENROUTER_BASE_URL": provider.openrouter_base_url,
        "ARKA_PROVIDER_READ_SECONDS": "2",
    }


@pytest.fixture
def connect(app: Flask, alice: Person) -> Callable[[str, str], None]:
    """Connect alice's workspace: ``connect("openai", key)``."""

    def connect(name: str, key: str) -> None:
        provider_keys.save(alice.workspace, name, Secret(key), actor=alice.actor)

    return connect
