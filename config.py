"""The one table of settings. Each is an environment variable ``ARKA_...`` or a line of ``.env``.

Read once by ``app.py``, checked as a whole, then frozen. ``docs/settings.md`` is made from this table.
"""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.headerregistry import Address
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit

import click
import limits.errors
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from services.gateway import brain_rules
from services.gateway.declared import read_providers
from services.gateway.providers import Provider
from services.hosts import is_host, is_ip_address, parted
from services.mail_transport import SmtpServer, is_address, read_sender
from services.master_keys import read_master_keys
from services.plans import PlanTable
from services.rate_limits import storage_from_uri
from services.restrictions import Network
from services.secret import Secret

PREFIX = "ARKA_"
ROOT = Path(__file__).resolve().parent
_NOT_TEXT = "is not text in UTF-8"


class ConfigurationError(click.ClickException):
    """One sentence for each setting that is wrong. A command that meets it prints it and stops."""


# ---- kinds: each reads one text or raises ValueError with the end of a sentence "ARKA_X must be ..."


def _text(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be empty")
    return value.strip()


def _number(least: int, most: int) -> Callable[[str], int]:
    def read(value: str) -> int:
        if not value.strip().isascii() or not value.strip().isdigit() or not least <= int(value) <= most:
            raise ValueError(f"must be a whole number from {least} to {most}")
        return int(value)

    return read


def _switch(value: str) -> bool:
    if value.strip().lower() in {"1", "true", "yes", "on"}:
        return True
    if value.strip().lower() in {"0", "false", "no", "off"}:
        return False
    raise ValueError("must be 1 or 0")


def _seconds(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = -1
    if not 0 < number <= 3600:
        raise ValueError("must be a number of seconds above 0 and up to 3600")
    return number


def _path(value: str) -> Path:
    try:
        return ROOT / Path(_text(value)).expanduser()
    except RuntimeError:
        raise ValueError("begins with a ~ for which there is no home folder") from None


def _read(path: Path) -> str:
    """Return the text of a file. Raises OSError, and ValueError with the end of a sentence."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        # Its own words would show a byte of a key.
        raise ValueError(_NOT_TEXT) from None


def _plans(value: str) -> PlanTable:
    return PlanTable.read(_path(value))


def _brain(value: str) -> brain_rules.Rules:
    return brain_rules.read(_path(value))


def _declared_providers(value: str) -> tuple[Provider, ...]:
    return read_providers(_path(value), _base_url)


def _host(value: str) -> str:
    text = _text(value)
    # As an address of the web has it.
    host = text[1:-1] if re.fullmatch(r"\[.*:.*\]", text) else text
    # What ends in a number is a misspelled address, and the name of an interface is nothing that the server takes.
    is_misspelled = not is_ip_address(host) and host.rpartition(".")[2].isdigit()
    if not is_host(host) or is_misspelled or "%" in host:
        raise ValueError("must be an address like 127.0.0.1 or ::1, or a name of this machine")
    return host


def _http_url(value: str) -> str:
    _web_address(value)
    return value.strip().rstrip("/")


def _base_url(value: str) -> str:
    return _http_url(_in_ascii(value))


def _web_address(value: str) -> SplitResult:
    text = _text(value)
    try:
        url = parted(text)
    except ValueError:
        raise ValueError("must be an http or https address with a host and a port that can be") from None
    plain = text.isprintable() and " " not in text
    if url.scheme not in {"http", "https"} or "@" in url.netloc or url.query or url.fragment or not plain:
        raise ValueError("must be an http or https address without user, query, fragment and spaces")
    return url


def _in_ascii(value: str) -> str:
    """Return an address that the portal sends requests to, which are ASCII."""
    if not value.isascii():
        raise ValueError("must be written in ASCII, a name from another script as xn--...")
    return value


def _database_url(value: str) -> str:
    value = value.strip()
    if not value.startswith(("sqlite:///", "postgresql://", "postgresql+psycopg://", "postgres://")):
        raise ValueError("must begin with sqlite:/// or postgresql://")
    if ":memory:" in value:
        raise ValueError("must name a file: every process would have a memory of its own")
    address = re.sub(r"^(postgresql|postgres)://", "postgresql+psycopg://", _with_absolute_file(value))
    try:
        url = make_url(address)
        # Reads what stands behind a question mark.
        url.get_dialect()().create_connect_args(url)
    except (ArgumentError, ValueError):
        raise ValueError("must be an address like postgresql://user:password@host:5432/name") from None
    if url.port is not None and not 0 < url.port < 65536:
        raise ValueError("must have a port from 1 to 65535")
    if (file := _sqlite_file(address)) and os.path.isdir(file):
        raise ValueError("must name a file, and names a folder")
    return address


def _sqlite_file(address: str | None) -> Path | None:
    """Return the file that an address names, None if it is none of SQLite's."""
    url = make_url(address) if address and address.startswith("sqlite:") else None
    return Path(url.database or "") if url else None


def _storage_uri(value: str) -> str:
    try:
        storage_from_uri(value.strip())
    except limits.errors.ConfigurationError:
        raise ValueError(
            "must be the address of a SQLite file or a Redis, like sqlite:////path/limits.db or redis://host:6379, "
            "with no options but those of its library"
        ) from None
    return _with_absolute_file(value.strip())


def _with_absolute_file(url: str) -> str:
    """Let a relative SQLite file mean the same for every library: one beside ``app.py``."""
    scheme, separator, path = url.partition("sqlite:///")
    return url if scheme or not separator else f"sqlite:///{Path(quote(str(ROOT))) / path}"


def _address_of(file: Path) -> str:
    """Return the address of a SQLite file, whatever signs are in its name."""
    return URL.create("sqlite", database=str(file)).render_as_string()


def _networks(value: str) -> tuple[Network, ...]:
    try:
        return tuple(ipaddress.ip_network(part.strip()) for part in value.split(",") if part.strip())
    except ValueError:
        raise ValueError("must be networks like 10.0.0.0/8, with commas between them") from None


def _key_prefix(value: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9]{1,15}", value):
        raise ValueError("must be 2 to 16 small letters and digits, a letter first")
    return value


def _email(value: str) -> str:
    if not re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", value.strip()) or not is_address(value.strip()):
        raise ValueError("must be an e-mail address")
    return value.strip()


def _one_of(*words: str) -> Callable[[str], str]:
    def read(value: str) -> str:
        if value not in words:
            raise ValueError(f"must be {', '.join(words[:-1])} or {words[-1]}")
        return value

    return read


def _signing_key(value: str) -> Secret:
    if len(value) < 32 or len(set(value)) < 8:
        raise ValueError(
            "must be at least 32 characters from a random generator, "
            "for example what `python3 -c 'import secrets; print(secrets.token_hex(32))'` prints"
        )
    return Secret(value)


def _secret_text(value: str) -> Secret:
    return Secret(_text(value))


def _issuer(value: str) -> str:
    url = _web_address(_in_ascii(value))
    if url.scheme == "http" and not is_loopback(url.hostname or ""):
        raise ValueError("must begin with https:// unless it is on this machine")
    # A slash at its end is part of its name.
    return value.strip()


def is_loopback(host: str) -> bool:
    """Tell whether nobody but this machine itself is reached, or reaches it, there."""
    return ipaddress.ip_address(host).is_loopback if is_ip_address(host) else host.lower() == "localhost"


def _domains(value: str) -> tuple[str, ...]:
    found = tuple(part.strip().lower() for part in value.split(",") if part.strip())
    if not found or any(not re.fullmatch(r"[^@\s,]+\.[^@\s,]+", domain) for domain in found):
        raise ValueError("must be domains like example.com, with commas between")
    return found


def _token(value: str) -> Secret:
    if len(value) < 16 or not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError("must be at least 16 letters, digits and signs without spaces")
    return Secret(value)


# ---- the table


def _setting(
    kind: Callable[[str], Any], default: str | None, meaning: str, *, shown: str = "", secret: bool = False
) -> Any:
    """A row: how its text is read, its default (None: made or derived, as ``shown`` says), and what it means."""
    return dataclasses.field(
        # A repr of the settings must not show keys, or the password inside an address.
        repr=not secret,
        metadata={"kind": kind, "default": default, "meaning": meaning, "shown": shown or default, "secret": secret},
    )


@dataclass(frozen=True)
class Settings:
    """Every setting of the portal, checked. Field ``host`` is ``ARKA_HOST``, and so on."""

    instance_path: Path = _setting(_path, "instance", "Folder for everything the portal writes.")
    host: str = _setting(_host, "127.0.0.1", "Address the server listens on, or a name of this machine.")
    port: int = _setting(_number(1, 65535), "5000", "Port the server listens on.")
    workers: int = _setting(_number(1, 256), None, "Number of server processes.", shown="one per core")
    threads: int = _setting(
        _number(1, 4096), "1200", "Most requests that one process works on at once; a stream takes one throughout."
    )
    drain_seconds: int = _setting(
        _number(0, 600),
        "0",
        "How long the portal still takes new requests after it was told to stop, while `/readyz` answers 503, so that "
        "a proxy can send callers elsewhere.",
    )
    stop_seconds: int = _setting(
        _number(1, 3600), "30", "How long requests and streams in flight then have to finish, before they are cut off."
    )
    public_url: str = _setting(
        _http_url,
        None,
        "Address under which people reach the portal. With https, cookies become secure.",
        shown="http://HOST:PORT, or localhost where HOST is all addresses",
    )
    trusted_proxies: int = _setting(
        _number(0, 10), "0", "How many reverse proxies of yours stand in front and set the X-Forwarded headers."
    )
    secret_key: Secret = _setting(
        _signing_key,
        None,
        "Signing key. Sessions and API-key digests depend on it: a new one ends them all.",
        shown="made once, in secret_key of the instance folder",
        secret=True,
    )
    master_keys: tuple[bytes, ...] = _setting(
        read_master_keys,
        None,
        "Vault key that seals stored secrets; several, the new one first, while it is being changed.",
        shown="made once, in master_key of the instance folder",
        secret=True,
    )
    database_url: str = _setting(
        _database_url,
        None,
        "SQLAlchemy URL of the database, SQLite or PostgreSQL.",
        shown="SQLite, portal.db in the instance folder",
        secret=True,
    )
    ratelimit_storage_uri: str = _setting(
        _storage_uri,
        None,
        "Where rate limits are counted, a URI of the `limits` library: SQLite or Redis.",
        shown="SQLite, limits.db in the instance folder",
        secret=True,
    )
    ratelimit_fallback: str = _setting(
        _one_of("refuse", "memory"),
        "refuse",
        "While rate limits cannot be counted: refuse calls with 503, or count in the memory of each process.",
    )
    openai_base_url: str = _setting(_base_url, "https://api.openai.com/v1", "OpenAI's API, version path included.")
    openrouter_base_url: str = _setting(
        _base_url, "https://openrouter.ai/api/v1", "OpenRouter's API, version path included."
    )
    declared_providers: tuple[Provider, ...] | None = _setting(
        _declared_providers,
        None,
        "TOML file that declares further OpenAI-compatible servers, see [providers.md](providers.md).",
        shown="none",
    )
    provider_connect_seconds: float = _setting(_seconds, "5", "Longest wait for a connection to a provider.")
    provider_read_seconds: float = _setting(_seconds, "300", "Longest wait for the next byte of a provider's answer.")
    provider_total_seconds: float = _setting(
        _seconds, "600", "Longest wait for a whole answer, or for the first byte of a stream, all tries together."
    )
    provider_retries: int = _setting(
        _number(0, 5), "1", "How often a provider that failed is asked again when no other serves the model."
    )
    breaker_failures: int = _setting(
        _number(1, 1000), "5", "Failures in a row after which a provider key is not used for a while."
    )
    breaker_seconds: float = _setting(_seconds, "30", "How long that while is; then one call tries again.")
    max_body_mb: int = _setting(_number(1, 1024), "10", "Largest request body, in megabytes of 1,000,000 bytes.")
    auth_failures_per_minute: int = _setting(
        _number(1, 1_000_000), "6000", "Failed authentications that one address may make on /v1 in a minute."
    )
    key_prefix: str = _setting(_key_prefix, "arka", "First part of every API key.")
    brand: str = _setting(_text, "ARKA", "Name of the portal on its pages.")
    sales_email: str = _setting(
        _email, "sales@arka-ai.com", "Where requests for a plan are sent, and what pages name as contact."
    )
    sign_up: str = _setting(
        _one_of("open", "closed"),
        "open",
        "Who may make an account: everybody, or only who is invited. See [accounts.md](accounts.md).",
    )
    second_factor: str = _setting(
        _one_of("optional", "required"),
        "optional",
        "required: whoever has no second factor can only set one up. See [sign-in.md](sign-in.md).",
    )
    oidc_issuer: str | None = _setting(
        _issuer,
        None,
        "Issuer of an OpenID Connect provider that people may sign in with, exactly as it calls itself.",
        shown="none",
    )
    oidc_client_id: str | None = _setting(_text, None, "What the portal is called there.", shown="none")
    oidc_client_secret: Secret | None = _setting(_secret_text, None, "Its secret there.", shown="none", secret=True)
    oidc_name: str = _setting(_text, "your organisation", "What the button calls it: “Sign in with ...”.")
    oidc_domains: tuple[str, ...] | None = _setting(
        _domains,
        None,
        "Domains, with commas between, whose addresses may make an account by it, even while sign-up is closed.",
        shown="none: every address, while sign-up is open",
    )
    oidc_trusted: bool = _setting(
        _switch,
        "0",
        "1: an address that it calls verified enters the account which has it. 0: its owner signs in once and agrees.",
    )
    oidc_second_factor: bool = _setting(_switch, "0", "1: the portal asks for no second factor of its own after it.")
    smtp_url: SmtpServer | None = _setting(
        SmtpServer.read,
        None,
        "Mail server: smtp://user:password@host:587, or smtps://. STARTTLS is required unless the server is on this "
        "machine or the address ends in ?starttls=off.",
        shown="none: mail is written to files in mail of the instance folder",
        secret=True,
    )
    mail_from: Address = _setting(
        read_sender, None, "Sender of the portal's mail.", shown="the brand, at no-reply@ the host of ARKA_PUBLIC_URL"
    )
    webhook_networks: tuple[Network, ...] = _setting(
        _networks,
        "",
        "Networks of yours, such as 10.0.0.0/8, that webhooks may reach although they are not public; there also by "
        "plain http.",
        shown="none",
    )
    plans: PlanTable = _setting(_plans, "services/plans.toml", "File with the table of plans.")
    brain: brain_rules.Rules = _setting(_brain, "services/gateway/brain.toml", "File with the rules of ARKAbrain.")
    demo: bool = _setting(
        _switch, "1", "1: the first start of an empty instance makes a demo workspace with a test key."
    )
    log_format: str = _setting(_one_of("json", "text"), "json", "Form of the log on standard error: json or text.")
    log_level: str = _setting(
        _one_of("debug", "info", "warning", "error"),
        "info",
        "Least weight of an entry in the log: debug, info, warning or error.",
    )
    metrics_token: Secret | None = _setting(
        _token,
        None,
        "Bearer token that /metrics asks for; without one it answers only requests from the machine itself.",
        shown="none",
        secret=True,
    )

    # Where the master keys come from when they are no setting.
    master_key_file: Path | None = None
    # Names that begin with ARKA_ and mean nothing, each with the nearest one that does.
    unknown: tuple[str, ...] = ()


# Where the field holds something other than the text that the setting gives.
_OTHER_NAMES = {
    "brain": "ARKA_BRAIN_FILE",
    "declared_providers": "ARKA_PROVIDERS_FILE",
    "master_keys": "ARKA_MASTER_KEY",
    "plans": "ARKA_PLANS_FILE",
}

# One makes no sense without the others.
_OIDC = ("oidc_issuer", "oidc_client_id", "oidc_client_secret")

_NAMES = {
    _OTHER_NAMES.get(field.name, PREFIX + field.name.upper()): field
    for field in dataclasses.fields(Settings)
    if field.metadata
}


def load(environment: Mapping[str, str]) -> Settings:
    """Read and check every setting. Raises ConfigurationError that names all that is wrong, at once."""
    values: dict[str, Any] = {}
    faults: list[str] = []
    for name, field in _NAMES.items():
        try:
            text = _given(environment, name, field.metadata["secret"])
            text = field.metadata["default"] if text is None else text
            values[field.name] = None if text is None else field.metadata["kind"](text)
        except ValueError as error:
            faults.append(f"{name} {error}.")
    if faults := faults or list(_contradictions(values)):
        raise ConfigurationError("\n".join(faults))
    values["unknown"] = tuple(_unknown(environment))
    return Settings(**_completed(values))


def _contradictions(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong about settings that are right each by itself."""
    if len({values[name] is None for name in _OIDC}) > 1:
        yield "ARKA_OIDC_ISSUER, ARKA_OIDC_CLIENT_ID and ARKA_OIDC_CLIENT_SECRET must be set together."
    for name in ("database_url", "ratelimit_storage_uri"):
        file = _sqlite_file(values[name])
        # The instance folder and those around it are made when they are missing.
        if file and not values["instance_path"].is_relative_to(file.parent) and not os.path.isdir(file.parent):
            yield f"{PREFIX}{name.upper()} names a file in {file.parent}, which is no folder."


def _given(environment: Mapping[str, str], name: str, secret: bool) -> str | None:
    """Return the text of a setting; a secret may instead be named by its file, ``NAME_FILE``.

    Raises ValueError with the end of a sentence.
    """
    if secret and name + "_FILE" in environment:
        if name in environment:
            raise ValueError(f"and {name}_FILE are both set")
        try:
            return _read(Path(environment[name + "_FILE"]))
        except OSError as error:
            raise ValueError(f"cannot be read from the file that {name}_FILE names: {error.strerror}") from None
        except ValueError as error:
            raise ValueError(f"cannot be read from the file that {name}_FILE names: it {error}") from None
    text = environment.get(name)
    if text is not None and not _is_text(text):
        raise ValueError(_NOT_TEXT)
    return text


def _is_text(value: str) -> bool:
    """Tell whether a value of the environment is UTF-8. Of other bytes nothing could be stored, shown or signed, and no
    address of a database could name a file of theirs."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _unknown(environment: Mapping[str, str]) -> list[str]:
    known = {*_NAMES, *(name + "_FILE" for name, field in _NAMES.items() if field.metadata["secret"])}
    found = []
    for name in sorted(environment):
        if name.startswith(PREFIX) and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            found.append(f"{name} is not a setting" + (f"; did you mean {near[0]}?" if near else "."))
    return found


def _completed(values: dict[str, Any]) -> dict[str, Any]:
    """Fill in what has no fixed default."""
    instance: Path = values["instance_path"]
    host = values["host"]
    if is_ip_address(host) and ipaddress.ip_address(host).is_unspecified:
        # It listens on all addresses of this machine, and which of them people use is not known.
        host = "localhost"
    host = f"[{host}]" if ":" in host else host
    derived = {
        "workers": _cores(),
        "public_url": f"http://{host}:{values['port']}",
        "database_url": _address_of(instance / "portal.db"),
        "ratelimit_storage_uri": _address_of(instance / "limits.db"),
    }
    values |= {name: value for name, value in derived.items() if values[name] is None}
    database, of_limits = (_sqlite_file(values[name]) for name in ("database_url", "ratelimit_storage_uri"))
    if database and of_limits and database.resolve() == of_limits.resolve():
        # A damaged file of limits is put aside and begun anew.
        raise ConfigurationError("ARKA_RATELIMIT_STORAGE_URI must name another file than the database's.")
    if values["mail_from"] is None:
        values["mail_from"] = _default_sender(values["brand"], values["public_url"])
    try:
        instance.mkdir(parents=True, exist_ok=True, mode=0o700)
        if values["secret_key"] is None:
            values["secret_key"] = _signing_key(_kept(instance / "secret_key"))
        if values["master_keys"] is None:
            values["master_key_file"] = instance / "master_key"
            values["master_keys"] = read_master_keys(_kept(values["master_key_file"]))
    except OSError as error:
        raise ConfigurationError(f"ARKA_INSTANCE_PATH: {instance} cannot be used: {error.strerror}.") from None
    except ValueError as error:
        raise ConfigurationError(f"A key file in {instance} is damaged: it {error}.") from None
    return values


def _default_sender(brand: str, public_url: str) -> Address:
    host = urlsplit(public_url).hostname or "localhost"
    if ":" in host:
        host = f"[IPv6:{host}]"
    elif re.fullmatch(r"[\d.]+", host):
        host = f"[{host}]"
    return Address(" ".join(brand.split()), "no-reply", host)


def _cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _kept(path: Path) -> str:
    """Return the random key in ``path``, made with mode 0600 when it is not there; of several makers one wins."""
    if not path.exists():
        draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return _read(path)


def settings_table() -> str:
    """Return the settings as a Markdown table, which is what ``docs/settings.md`` holds."""
    rows = ["| setting | default | meaning |", "| --- | --- | --- |"]
    for name, field in _NAMES.items():
        shown = field.metadata["shown"]
        default = f"`{shown}`" if field.metadata["default"] is not None else shown
        note = f" May come as `{name}_FILE`, the path of a file." if field.metadata["secret"] else ""
        rows.append(f"| `{name}` | {default} | {field.metadata['meaning']}{note} |")
    return "\n".join(rows) + "\n"
