"""Settings: one table, documented, checked at start."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from sqlalchemy import make_url

import config
from config import ROOT, ConfigurationError, Settings, load, settings_table
from services.rate_limits import RateLimits, storage_from_uri
from services.secret import Secret

CONTRACT = [
    "ARKA_INSTANCE_PATH",
    "ARKA_HOST",
    "ARKA_PORT",
    "ARKA_WORKERS",
    "ARKA_SECRET_KEY",
    "ARKA_MASTER_KEY",
    "ARKA_DATABASE_URL",
    "ARKA_RATELIMIT_STORAGE_URI",
    "ARKA_OPENAI_BASE_URL",
    "ARKA_OPENROUTER_BASE_URL",
    "ARKA_KEY_PREFIX",
    "ARKA_BRAND",
    "ARKA_SALES_EMAIL",
    "ARKA_DEMO",
]

# Where they are by default, for a test that puts the code elsewhere.
FILES = {
    "ARKA_PLANS_FILE": str(ROOT / "services" / "plans.toml"),
    "ARKA_BRAIN_FILE": str(ROOT / "services" / "gateway" / "brain.toml"),
}


def given(tmp_path: Path, **settings: str) -> Settings:
    return load({"ARKA_INSTANCE_PATH": str(tmp_path), **settings})


def test_the_documented_table_is_the_table() -> None:
    written = (ROOT / "docs" / "settings.md").read_text()
    assert settings_table() in written, "run: python -c 'import config; print(config.settings_table())'"


@pytest.mark.parametrize("name", CONTRACT)
def test_names_that_outsiders_rely_on_exist(name: str) -> None:
    assert f"| `{name}` |" in settings_table()


def test_nothing_else_in_the_code_reads_the_environment() -> None:
    for path in [
        *ROOT.glob("*.py"),
        *(p for f in ("blueprints", "commands", "models", "services") for p in ROOT.glob(f"{f}/**/*.py")),
    ]:
        if path.name in ("app.py", "dev.py"):
            continue
        assert not re.search(r"os\.environ|getenv", path.read_text()), path


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ARKA_INSTANCE_PATH", "~nosuchuser/arka"),
        ("ARKA_PLANS_FILE", "~nosuchuser/plans.toml"),
        ("ARKA_BRAIN_FILE", "~nosuchuser/brain.toml"),
        ("ARKA_PROVIDERS_FILE", "~nosuchuser/providers.toml"),
        ("ARKA_HOST", " "),
        ("ARKA_HOST", "999.1.1.1"),
        ("ARKA_HOST", "127.1"),
        ("ARKA_HOST", "[::1"),
        ("ARKA_HOST", "::g"),
        ("ARKA_HOST", "[localhost]"),
        ("ARKA_HOST", "fe80::1%lo"),
        ("ARKA_HOST", "my host"),
        ("ARKA_HOST", "localhost:5000"),
        ("ARKA_HOST", "http://localhost"),
        ("ARKA_HOST", f"{'x' * 64}.example"),
        ("ARKA_PORT", "eighty"),
        ("ARKA_PORT", "0"),
        ("ARKA_PORT", "²"),
        ("ARKA_WORKERS", "-1"),
        ("ARKA_SECRET_KEY", ""),
        ("ARKA_SECRET_KEY", "changeme"),
        ("ARKA_SECRET_KEY", "x" * 64),
        ("ARKA_MASTER_KEY", ""),
        ("ARKA_MASTER_KEY", "00" * 32),
        ("ARKA_MASTER_KEY", "not a key"),
        ("ARKA_DATABASE_URL", "mysql://localhost/portal"),
        ("ARKA_DATABASE_URL", "sqlite:///:memory:"),
        ("ARKA_DATABASE_URL", "sqlite:///"),
        ("ARKA_DATABASE_URL", f"sqlite:///{ROOT}"),
        ("ARKA_DATABASE_URL", f"sqlite:///{ROOT}/nowhere/portal.db"),
        ("ARKA_DATABASE_URL", f"sqlite:///{ROOT}/app.py/portal.db"),
        ("ARKA_DATABASE_URL", f"sqlite:////{'x' * 300}/portal.db"),
        ("ARKA_DATABASE_URL", "sqlite:///portal.db?timeout=soon"),
        ("ARKA_DATABASE_URL", "postgresql://h:abc/db"),
        ("ARKA_DATABASE_URL", "postgresql://h:99999/db"),
        ("ARKA_DATABASE_URL", "postgresql://h/db?host=a:x&host=b:y"),
        ("ARKA_RATELIMIT_STORAGE_URI", "mongodb://localhost"),
        # Each process would count for itself.
        ("ARKA_RATELIMIT_STORAGE_URI", "memory://"),
        ("ARKA_RATELIMIT_STORAGE_URI", "sqlite:///"),
        ("ARKA_RATELIMIT_STORAGE_URI", "sqlite:////limits.db?mode=ro"),
        ("ARKA_RATELIMIT_STORAGE_URI", f"sqlite:///{ROOT}/nowhere/limits.db"),
        ("ARKA_RATELIMIT_STORAGE_URI", "redis://localhost:port"),
        ("ARKA_RATELIMIT_STORAGE_URI", "redis://localhost/0?nonsense=1"),
        ("ARKA_OPENAI_BASE_URL", "ftp://provider.example"),
        ("ARKA_OPENAI_BASE_URL", "https://user:password@provider.example/v1"),
        ("ARKA_OPENAI_BASE_URL", "https://@provider.example/v1"),
        ("ARKA_OPENAI_BASE_URL", "https://provider.example:abc/v1"),
        ("ARKA_OPENAI_BASE_URL", "https://provider.example:99999/v1"),
        ("ARKA_OPENAI_BASE_URL", "https://provider.example:0/v1"),
        ("ARKA_OPENAI_BASE_URL", "https://provider example/v1"),
        ("ARKA_OPENAI_BASE_URL", "https://provider..example/v1"),
        ("ARKA_OPENAI_BASE_URL", f"https://{'x' * 64}.example/v1"),
        ("ARKA_OPENAI_BASE_URL", "https://provider.example/v 1"),
        ("ARKA_OPENAI_BASE_URL", "https://provider.example/v1\x7f"),
        ("ARKA_OPENAI_BASE_URL", "https://prövider.example/v1"),
        ("ARKA_OPENROUTER_BASE_URL", "https://[provider/v1"),
        ("ARKA_OIDC_ISSUER", "https://id.example:abc"),
        ("ARKA_OIDC_ISSUER", "https://id example"),
        ("ARKA_OIDC_ISSUER", "ftp://id.example"),
        ("ARKA_OIDC_ISSUER", "http://id.example"),
        ("ARKA_KEY_PREFIX", "Arka_"),
        ("ARKA_SALES_EMAIL", "nobody"),
        ("ARKA_SALES_EMAIL", "one@lumen.example,two@lumen.example"),
        ("ARKA_DEMO", "perhaps"),
        ("ARKA_LOG_FORMAT", "xml"),
        ("ARKA_LOG_LEVEL", "loud"),
        ("ARKA_METRICS_TOKEN", "short"),
        ("ARKA_METRICS_TOKEN", "with spaces in the middle"),
        ("ARKA_RATELIMIT_FALLBACK", "hope"),
        ("ARKA_PUBLIC_URL", "portal.example"),
        ("ARKA_PUBLIC_URL", "https://portal.example:abc"),
        ("ARKA_PUBLIC_URL", "https://portal.example:99999"),
        ("ARKA_PUBLIC_URL", "https://por tal.example"),
        ("ARKA_BRAND", " "),
        ("ARKA_SMTP_URL", "mail.example"),
        ("ARKA_SMTP_URL", "http://mail.example"),
        ("ARKA_SMTP_URL", "smtp://mail.example:port"),
        ("ARKA_SMTP_URL", "smtp://mail server.example"),
        ("ARKA_SMTP_URL", "smtp://mail.example/inbox"),
        ("ARKA_SMTP_URL", "smtp://user@mail.example"),
        ("ARKA_SMTP_URL", "smtp://mail.example?starttls=perhaps"),
        ("ARKA_SMTP_URL", "smtps://mail.example?starttls=off"),
        ("ARKA_MAIL_FROM", "nobody"),
        ("ARKA_WEBHOOK_NETWORKS", "localhost"),
        ("ARKA_WEBHOOK_NETWORKS", "10.0.0.1/8"),
        ("ARKA_MAIL_FROM", "ARKA <a@x.example> and more"),
    ],
)
def test_a_wrong_setting_stops_the_start_with_a_sentence_that_names_it(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{name} .+\.$"):
        load({"ARKA_INSTANCE_PATH": str(tmp_path), name: value})


@pytest.mark.parametrize("name", config._NAMES)
def test_bytes_that_are_not_text_stop_the_start_whatever_setting_they_are_in(tmp_path: Path, name: str) -> None:
    value = os.fsdecode(b"\xff0123456789abcdef0123456789abcdef")
    with pytest.raises(ConfigurationError) as caught:
        load({"ARKA_INSTANCE_PATH": str(tmp_path / "instance"), name: value})
    assert str(caught.value) == f"{name} is not text in UTF-8."
    assert list(tmp_path.iterdir()) == []


def test_all_faults_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        given(tmp_path, ARKA_PORT="x", ARKA_DEMO="x", ARKA_BRAND="")
    assert len(str(caught.value).splitlines()) == 3


def test_a_wrong_secret_is_not_repeated_in_the_complaint(tmp_path: Path) -> None:
    wrong = {
        "ARKA_SECRET_KEY": "hunter2",
        "ARKA_MASTER_KEY": "hunter2",
        "ARKA_SMTP_URL": "smtp://u:hunter2@[x",
        "ARKA_RATELIMIT_STORAGE_URI": "redis://u:hunter2@h/0?x=1",
        "ARKA_DATABASE_URL": "postgresql://u:hunter2@db:hunter2/portal",
        "ARKA_OPENAI_BASE_URL": "https://u:hunter2/x@provider.example",
        "ARKA_OPENROUTER_BASE_URL": "https://u:hunter2\u2100@provider.example",
        "ARKA_PUBLIC_URL": "https://u:hunter2@portal.example",
    }
    with pytest.raises(ConfigurationError) as caught:
        given(tmp_path, **wrong)
    assert {sentence.split()[0] for sentence in str(caught.value).splitlines()} == wrong.keys()
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("written", "host", "public_url"),
    [
        ("localhost", "localhost", "http://localhost:5000"),
        ("::1", "::1", "http://[::1]:5000"),
        ("[::1]", "::1", "http://[::1]:5000"),
        ("node-1.internal", "node-1.internal", "http://node-1.internal:5000"),
        ("0.0.0.0", "0.0.0.0", "http://localhost:5000"),
        ("::", "::", "http://localhost:5000"),
    ],
)
def test_the_host_is_an_address_or_a_name_and_shown_as_one_that_a_browser_can_open(
    tmp_path: Path, written: str, host: str, public_url: str
) -> None:
    settings = given(tmp_path, ARKA_HOST=written)
    assert (settings.host, settings.public_url) == (host, public_url)


def test_the_public_address_may_have_a_name_of_another_script(tmp_path: Path) -> None:
    assert given(tmp_path, ARKA_PUBLIC_URL="https://münchen.example/").public_url == "https://münchen.example"


@pytest.mark.parametrize("database", ["portal.db", "./portal.db"])
def test_rate_limits_are_not_kept_in_the_database_s_file(tmp_path: Path, database: str) -> None:
    uri = f"sqlite:///{tmp_path}/portal.db?timeout=1"
    with pytest.raises(ConfigurationError, match=r"^ARKA_RATELIMIT_STORAGE_URI .+\.$"):
        given(tmp_path, ARKA_DATABASE_URL=f"sqlite:///{tmp_path}/{database}", ARKA_RATELIMIT_STORAGE_URI=uri)


def test_a_name_that_means_nothing_is_told_with_the_nearest_one(tmp_path: Path) -> None:
    settings = given(tmp_path, ARKA_WORKRES="2", ARKA_MASTER_KEY_FILE=str(key_file(tmp_path)))
    assert settings.unknown == ("ARKA_WORKRES is not a setting; did you mean ARKA_WORKERS?",)


def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text("0123456789abcdef" * 4 + "\n")
    return path


def test_a_secret_may_come_in_a_file(tmp_path: Path) -> None:
    settings = given(tmp_path, ARKA_SECRET_KEY_FILE=str(key_file(tmp_path)))
    assert settings.secret_key == Secret("0123456789abcdef" * 4)


def not_text(path: Path) -> Path:
    path.write_bytes(bytes(range(256)))
    return path


def test_a_file_of_settings_that_is_not_text_is_told_and_nothing_of_it_shown(tmp_path: Path) -> None:
    file = str(not_text(tmp_path / "file"))
    names = [
        "ARKA_BRAIN_FILE",
        "ARKA_MASTER_KEY_FILE",
        "ARKA_PLANS_FILE",
        "ARKA_PROVIDERS_FILE",
        "ARKA_SECRET_KEY_FILE",
    ]
    with pytest.raises(ConfigurationError) as caught:
        given(tmp_path, **dict.fromkeys(names, file))
    sentences = sorted(str(caught.value).splitlines())
    assert [name in sentence for name, sentence in zip(names, sentences, strict=True)] == [True] * len(names)
    for sentence in sentences:
        if "KEY_FILE" in sentence:
            assert "is not text in UTF-8" in sentence
            assert "0x" not in sentence


def test_a_damaged_key_file_is_told(tmp_path: Path) -> None:
    not_text(tmp_path / "secret_key")
    with pytest.raises(ConfigurationError, match=r"is damaged: it is not text in UTF-8\.$"):
        given(tmp_path)


def test_a_secret_and_its_file_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="ARKA_SECRET_KEY_FILE are both set"):
        given(tmp_path, ARKA_SECRET_KEY_FILE=str(key_file(tmp_path)), ARKA_SECRET_KEY="0123456789abcdef" * 4)


def test_keys_are_made_once_with_mode_0600_and_kept(tmp_path: Path) -> None:
    first, second = given(tmp_path), given(tmp_path)
    assert first.secret_key == second.secret_key
    assert first.master_keys == second.master_keys
    for name in ("secret_key", "master_key"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("spelling", ["hex", "base64", "urlsafe"])
def test_a_master_key_may_be_spelled_in_the_usual_ways(tmp_path: Path, spelling: str) -> None:
    import base64

    key = bytes(range(200, 232))
    text = {
        "hex": key.hex(),
        "base64": base64.b64encode(key).decode(),
        "urlsafe": base64.urlsafe_b64encode(key).decode(),
    }[spelling]
    assert given(tmp_path, ARKA_MASTER_KEY=text).master_keys == (key,)


def test_several_master_keys_make_a_ring(tmp_path: Path) -> None:
    settings = given(tmp_path, ARKA_MASTER_KEY="0123456789abcdef" * 4 + "," + "fedcba9876543210" * 4)
    assert len(settings.master_keys) == 2


def test_settings_do_not_print_their_secrets(tmp_path: Path) -> None:
    settings = given(tmp_path)
    shown = repr(settings)
    assert (tmp_path / "secret_key").read_text().strip() not in shown
    assert settings.master_keys[0].hex() not in shown
    assert str(settings.master_keys[0]) not in shown


def test_postgresql_addresses_mean_the_installed_driver(tmp_path: Path) -> None:
    for scheme in ("postgres", "postgresql"):
        url = given(tmp_path, ARKA_DATABASE_URL=f"{scheme}://portal@db/portal").database_url
        assert url == "postgresql+psycopg://portal@db/portal"


def test_a_database_without_its_folder_is_told_before_anything_is_made(tmp_path: Path) -> None:
    instance, folder = tmp_path / "instance", tmp_path / "missing"
    with pytest.raises(ConfigurationError, match=f"^ARKA_DATABASE_URL names a file in {folder}, which is no folder"):
        given(instance, ARKA_DATABASE_URL=f"sqlite:///{folder}/portal.db")
    assert list(tmp_path.iterdir()) == []


def test_a_database_in_an_instance_folder_that_is_still_to_be_made_is_fine(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path}/new/portal.db"
    assert given(tmp_path / "new", ARKA_DATABASE_URL=address).database_url == address
    assert (tmp_path / "new").is_dir()


@pytest.mark.parametrize("name", ["a b", "a+b", "a%20b", "50%25", "100%", "a?b", "a#b", "a@b:c", "größe"])
def test_an_instance_folder_may_have_any_name_and_its_data_is_in_it(tmp_path: Path, name: str) -> None:
    instance = tmp_path / name
    settings = given(instance)
    assert make_url(settings.database_url).database == str(instance / "portal.db")
    storage = storage_from_uri(settings.ratelimit_storage_uri)
    assert RateLimits(storage).hit("name", 1).allowed
    storage.close()
    assert (instance / "limits.db").exists()


@pytest.mark.parametrize("setting", ["database_url", "ratelimit_storage_uri"])
def test_a_relative_address_names_a_file_beside_the_code_whatever_folder_that_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    folder = tmp_path / "50%25?"
    folder.mkdir()
    monkeypatch.setattr(config, "ROOT", folder)
    address = getattr(load({f"ARKA_{setting.upper()}": "sqlite:///odd%20name.db", **FILES}), setting)
    assert make_url(address).database == str(folder / "odd name.db")


def test_the_table_of_names_is_complete() -> None:
    assert set(config._NAMES) >= set(CONTRACT)
