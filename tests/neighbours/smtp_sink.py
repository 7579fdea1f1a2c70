"""A real mail server that keeps what it is sent, on a port of its own. It can be stopped, and made to refuse."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.neighbours.processes import ReservedPort

# Its running commentary would stand among what the portal logs.
logging.getLogger("mail.log").setLevel(logging.WARNING)


@dataclass(frozen=True)
class Received:
    """A message with what the client said around it."""

    sender: str
    recipients: list[str]
    message: EmailMessage
    encrypted: bool

    @property
    def text(self) -> str:
        return str(self.message.get_body(("plain",)).get_content())  # type: ignore[union-attr]

    @property
    def html(self) -> str:
        return str(self.message.get_body(("html",)).get_content())  # type: ignore[union-attr]


class SmtpSink:
    """Accepts mail from anybody, unless told otherwise."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"smtp://127.0.0.1:{port}"
        self.received: list[Received] = []
        # The answer to each message instead of accepting it, such as "451 later".
        self.refusal: str | None = None
        # Set while a message is being taken; the server goes on when ``go_on`` is set.
        self.taking = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()
        self.drop_at_quit = False
        # The same for the recipient, before the message is sent.
        self.recipient_refusal: str | None = None
        # Keep the message and end the connection without an answer, as a server that dies just then.
        self.drop_after_data = False
        self.logins: list[tuple[str, str]] = []
        self.certificate: ssl.SSLContext | None = None
        self._controller: Controller | None = None

    def start(self) -> None:
        if self._controller is None:
            self._controller = _Controller(self, hostname="127.0.0.1", port=self.port)
            self._controller.start()

    def stop(self) -> None:
        if self._controller is not None:
            self._controller.stop()
            self._controller = None

    # ---- what aiosmtpd calls

    async def handle_RCPT(self, _server: SMTP, _session: Any, envelope: Any, address: str, _options: Any) -> str:
        if self.recipient_refusal is not None:
            return self.recipient_refusal
        envelope.rcpt_tos.append(address)
        return "250 known"

    async def handle_DATA(self, server: SMTP, session: Any, envelope: Any) -> str:
        self.taking.set()
        await asyncio.get_running_loop().run_in_executor(None, self.go_on.wait, 20)
        if self.refusal is not None:
            return self.refusal
        message = message_from_bytes(envelope.content, policy=policy.default)
        self.received.append(
            Received(envelope.mail_from, list(envelope.rcpt_tos), message, session.ssl is not None)  # type: ignore[arg-type]
        )
        if self.drop_after_data:
            server.transport.abort()  # type: ignore[union-attr]
        return "250 kept"

    async def handle_QUIT(self, server: SMTP, _session: Any, _envelope: Any) -> str:
        if self.drop_at_quit:
            server.transport.abort()  # type: ignore[union-attr]
        return "221 bye"

    def authenticate(self, _server: SMTP, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.logins.append((data.login.decode(), data.password.decode()))
        return AuthResult(success=data.password == b"right", handled=False)


class _Controller(Controller):
    def __init__(self, sink: SmtpSink, **where: Any) -> None:
        super().__init__(sink, **where)
        self._sink = sink

    def factory(self) -> SMTP:
        return SMTP(
            self._sink,
            hostname="sink.example",
            tls_context=self._sink.certificate,
            authenticator=self._sink.authenticate,
            auth_require_tls=False,
            enable_SMTPUTF8=True,
        )


@contextmanager
def running_sink() -> Iterator[SmtpSink]:
    """Yield a mail server that listens."""
    port = ReservedPort()
    sink = SmtpSink(port.number)
    sink.start()
    try:
        yield sink
    finally:
        sink.go_on.set()
        sink.stop()
        port.release()


def make_certificate(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """Make a certificate for 127.0.0.1; return what a server needs, and the file by which clients can trust it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public, private = folder / "certificate.pem", folder / "key.pem"
    public.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)
    return context, public
