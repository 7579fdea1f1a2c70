"""How mail leaves the portal: as files in a folder, or through a mail server. Neither keeps or logs anything else."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import smtplib
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from email import message_from_bytes, policy
from email.headerregistry import Address
from email.message import EmailMessage
from pathlib import Path
from typing import Protocol
from urllib.parse import parse_qsl, unquote

from email_validator import EmailNotValidError, validate_email

from services.hosts import parted
from services.secret import Secret

# For each step of the conversation. The claim on a message lasts longer than all of them together.
STEP_SECONDS = 20.0
_PORTS = {"smtp": 587, "smtps": 465}
# Lines stay whole in a file, so that a person can read it and copy a link; a mail server gets what every one can take.
_READABLE = policy.default.clone(max_line_length=998)
_WIRE = policy.SMTP.clone(cte_type="7bit")


@dataclass(frozen=True, slots=True)
class Texts:
    """What a message says, for mail programs without and with HTML."""

    text: str
    html: str


@dataclass(frozen=True, slots=True)
class Letter:
    """A message to one person. ``id`` and ``created_at`` stay the same however often it is tried."""

    id: str
    recipient: str
    subject: str
    texts: Texts
    created_at: datetime


class Transport(Protocol):
    """A way out of the portal. ``keeps_letters``: they stay where an operator can read them."""

    @property
    def keeps_letters(self) -> bool: ...

    def send(self, letter: Letter) -> None:
        """Hand the letter over. Any exception means that it has to be tried again."""

    def forget(self, before: datetime) -> None:
        """Remove what was kept of letters older than that."""

    def kept_text(self, letter_id: str, created_at: datetime) -> str | None:
        """Return what a letter says, if it is kept here."""


@dataclass(frozen=True, slots=True)
class Post:
    """What mail is made and sent with."""

    # Name of the template and the words for it.
    render: Callable[[str, Mapping[str, object]], Texts]
    transport: Transport


# ---- files


class Folder:
    """Writes each letter to a file of its own, readable by its owner only; the newest is the last by name."""

    keeps_letters = True

    def __init__(self, path: Path, sender: Address) -> None:
        self._path = path
        self._sender = sender

    def send(self, letter: Letter) -> None:
        """Write the file whole or not at all. A letter that is tried again takes the place of its first file."""
        self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = _file_name(letter.id, letter.created_at)
        draft = self._path / f".{name}.{os.getpid()}"
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(as_message(letter, self._sender, _READABLE).as_bytes())
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path / name)

    def kept_text(self, letter_id: str, created_at: datetime) -> str | None:
        """Read the letter's file; another node may have written it, or it is forgotten."""
        try:
            content = (self._path / _file_name(letter_id, created_at)).read_bytes()
        except OSError:
            return None
        message = message_from_bytes(content, policy=_READABLE)
        body = message.get_body(("plain",))
        return str(body.get_content()) if body else None

    def forget(self, before: datetime) -> None:
        """Delete the files that were written before that moment."""
        for path in [*self._path.glob("*.eml"), *self._path.glob(".*.eml.*")]:
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < before.timestamp():
                    path.unlink()


def _file_name(letter_id: str, created_at: datetime) -> str:
    return f"{created_at:%Y%m%dT%H%M%S.%fZ}-{letter_id}.eml"


# ---- a mail server


@dataclass(frozen=True, slots=True)
class SmtpServer:
    """Where mail is handed in. ``security`` is ``tls`` from the first byte, ``starttls``, or ``none``."""

    host: str
    port: int
    security: str
    username: str = ""
    password: Secret | None = None

    @classmethod
    def read(cls, address: str) -> SmtpServer:
        """Read ``smtp://user:password@host:port`` or ``smtps://...``.

        ``smtp`` means STARTTLS, which must succeed, unless the server is on this machine or the address ends in
        ``?starttls=off``. Raises ValueError with the end of a sentence, which repeats nothing of the address.
        """
        try:
            url = parted(address.strip())
        except ValueError:
            raise ValueError("must be an address like smtp://user:password@host:587") from None
        options = dict(parse_qsl(url.query, keep_blank_values=True))
        if url.scheme not in _PORTS or url.path not in ("", "/") or url.fragment:
            raise ValueError("must be an address like smtp://user:password@host:587, or begin with smtps://")
        if (url.username is None) != (url.password is None):
            raise ValueError("must have a user and a password, or neither")
        if options not in ({}, {"starttls": "off"}) or (options and url.scheme == "smtps"):
            raise ValueError("may have one option only: smtp://host:25?starttls=off")
        security = "tls" if url.scheme == "smtps" else "starttls"
        host = url.hostname or ""
        if security == "starttls" and (options or _is_here(host)):
            security = "none"
        password = None if url.password is None else Secret(unquote(url.password))
        return cls(host, url.port or _PORTS[url.scheme], security, unquote(url.username or ""), password)


class Relay:
    """Hands each letter to a mail server, in a conversation of its own. TLS certificates are verified."""

    keeps_letters = False

    def __init__(self, server: SmtpServer, sender: Address) -> None:
        self._server = server
        self._sender = sender

    def send(self, letter: Letter) -> None:
        message = as_message(letter, self._sender, _WIRE)
        smtp = self._connected()
        try:
            self._introduce(smtp)
            smtp.send_message(message, self._sender.addr_spec, [_spelled(letter.recipient)])
        finally:
            # Once it is accepted, a failing farewell must not have it sent again.
            with contextlib.suppress(smtplib.SMTPException, OSError):
                smtp.quit()
            smtp.close()

    def forget(self, before: datetime) -> None:
        """Nothing is kept here."""

    def kept_text(self, letter_id: str, created_at: datetime) -> str | None:
        """Nothing is kept here."""
        return None

    def _connected(self) -> smtplib.SMTP:
        # Its own name is given, because the library would ask the name service for one.
        where, name = (self._server.host, self._server.port), self._sender.domain
        if self._server.security == "tls":
            context = ssl.create_default_context()
            return smtplib.SMTP_SSL(*where, local_hostname=name, timeout=STEP_SECONDS, context=context)
        return smtplib.SMTP(*where, local_hostname=name, timeout=STEP_SECONDS)

    def _introduce(self, smtp: smtplib.SMTP) -> None:
        if self._server.security == "starttls":
            # Raises when the server does not offer it, so nothing is ever said in the clear.
            smtp.starttls(context=ssl.create_default_context())
        if self._server.password is not None:
            smtp.login(self._server.username, self._server.password.reveal())


# ---- what both need


def as_message(letter: Letter, sender: Address, form: policy.EmailPolicy[EmailMessage]) -> EmailMessage:
    """Make the message. Its id is the same at every try, so that mailboxes can tell a repetition."""
    message = EmailMessage(form)
    message["From"] = sender
    message["To"] = _address(letter.recipient)
    message["Subject"] = letter.subject
    message["Date"] = letter.created_at
    message["Message-ID"] = f"<{letter.id}@{sender.domain.strip('[]')}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(letter.texts.text)
    message.add_alternative(letter.texts.html, subtype="html")
    return message


def read_sender(text: str) -> Address:
    """Read ``Name <name@example.com>`` or the address alone. Raises ValueError with the end of a sentence."""
    name, opening, rest = text.strip().rpartition("<")
    plain = rest.removesuffix(">") if opening else rest
    try:
        return _address(plain, name.strip().strip('"'))
    except ValueError:
        raise ValueError("must be an e-mail address, or one with a name: ARKA <no-reply@example.com>") from None


def is_address(text: str) -> bool:
    """Tell whether this is one e-mail address and nothing besides it."""
    try:
        _address(text)
    except ValueError:
        return False
    return True


def _address(text: str, name: str = "") -> Address:
    """Return the address in the form headers take. Raises ValueError for whatever is not exactly one address."""
    username, at, domain = text.rpartition("@")
    forbidden = any(not letter.isprintable() or letter in ' ,;<>"@' for letter in username + domain)
    if not (username and at and domain) or forbidden:
        raise ValueError("not an e-mail address")
    return Address(name, username, domain)


def _spelled(recipient: str) -> str:
    """Return the address as every mail server takes it, if it has such a spelling."""
    with contextlib.suppress(EmailNotValidError):
        found = validate_email(recipient, check_deliverability=False, test_environment=True)
        return found.ascii_email or found.normalized
    return recipient


def _is_here(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"
