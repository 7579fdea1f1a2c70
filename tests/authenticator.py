"""A passkey device in software: real keys and signatures, made as WebAuthn level 3 says, and wrong ones on demand."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import struct
from dataclasses import dataclass, field
from typing import Any

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

_PRESENT, _VERIFIED, _MAY_BE_BACKED_UP, _IS_BACKED_UP, _ATTESTED = 0x01, 0x04, 0x08, 0x10, 0x40


@dataclass
class Authenticator:
    """Holds one passkey for each answer to ``make``; ``origin`` is where the browser says it is."""

    origin: str = "http://localhost:5000"
    verifies: bool = True
    backed_up: bool = False
    keys: dict[bytes, ec.EllipticCurvePrivateKey] = field(default_factory=dict)
    handle: bytes = b""
    count: int = 0

    def make(self, options: str, *, rp_id: str | None = None) -> str:
        """Answer the options of a registration."""
        asked = json.loads(options)
        key, credential_id = ec.generate_private_key(ec.SECP256R1()), os.urandom(32)
        self.keys[credential_id], self.handle = key, decoded(asked["user"]["id"])
        point = key.public_key().public_numbers()
        cose = cbor2.dumps({1: 2, 3: -7, -1: 1, -2: point.x.to_bytes(32, "big"), -3: point.y.to_bytes(32, "big")})
        data = self._data(rp_id or asked["rp"]["id"], _ATTESTED)
        data += bytes(16) + struct.pack(">H", len(credential_id)) + credential_id + cose
        attested = cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": data})
        said = self._said("webauthn.create", asked["challenge"])
        return self._answer(
            credential_id,
            {"clientDataJSON": encoded(said), "attestationObject": encoded(attested), "transports": ["internal"]},
        )

    def use(self, options: str, *, rp_id: str | None = None, credential_id: bytes | None = None) -> str:
        """Answer the options of a sign-in, with the newest passkey unless another one is named."""
        asked = json.loads(options)
        credential_id = credential_id or list(self.keys)[-1]
        self.count += 1
        data, said = self._data(rp_id or asked["rpId"]), self._said("webauthn.get", asked["challenge"])
        signature = self.keys[credential_id].sign(data + hashlib.sha256(said).digest(), ec.ECDSA(SHA256()))
        return self._answer(
            credential_id,
            {
                "clientDataJSON": encoded(said),
                "authenticatorData": encoded(data),
                "signature": encoded(signature),
                "userHandle": encoded(self.handle),
            },
        )

    def _data(self, rp_id: str, flags: int = 0) -> bytes:
        flags |= _PRESENT | (_VERIFIED if self.verifies else 0)
        flags |= _MAY_BE_BACKED_UP | _IS_BACKED_UP if self.backed_up else 0
        return hashlib.sha256(rp_id.encode()).digest() + bytes([flags]) + struct.pack(">I", self.count)

    def _said(self, kind: str, challenge: str) -> bytes:
        return json.dumps({"type": kind, "challenge": challenge, "origin": self.origin, "crossOrigin": False}).encode()

    def _answer(self, credential_id: bytes, response: dict[str, Any]) -> str:
        name = encoded(credential_id)
        answer = {"id": name, "rawId": name, "type": "public-key", "response": response, "clientExtensionResults": {}}
        return json.dumps(answer)


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
