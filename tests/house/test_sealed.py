"""Whatever the vault has sealed is sealed anew when the master key changes. What is not would be lost with the old one.

A new column of sealed records has to be entered in ``SEALED_COLUMNS``, and who seals for it here, before this passes.
"""

from __future__ import annotations

import ast

from config import ROOT
from models import Base, ProviderKey, TotpSecret, WebhookSecret
from services.sealed_columns import SEALED_COLUMNS

OURS = ("*.py", "blueprints/**/*.py", "commands/**/*.py", "models/**/*.py", "services/**/*.py")
# Which column is filled by whom. ``form_seal`` is none of them: it has the signing key, and no form outlives an hour.
SEALS = {
    "services/provider_keys.py": ProviderKey,
    "services/totp.py": TotpSecret,
    "services/webhooks.py": WebhookSecret,
}
# They seal what others keep.
FOR_OTHERS = {"services/sealing.py", "services/vault_rotation.py"}


def seals(tree: ast.AST) -> bool:
    calls = (ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call))
    return any(call.endswith(("sealing.seal", "vault.seal")) for call in calls)


def test_every_column_that_is_called_sealed_is_sealed_anew() -> None:
    called = {mapper.class_ for mapper in Base.registry.mappers if "sealed" in mapper.columns}
    assert called == {column.model for column in SEALED_COLUMNS}
    assert len(called) == len(SEALED_COLUMNS)


def test_whoever_seals_has_a_column_that_is_sealed_anew() -> None:
    files = (path for pattern in OURS for path in ROOT.glob(pattern))
    found = {str(path.relative_to(ROOT)) for path in files if seals(ast.parse(path.read_text()))}
    assert found == SEALS.keys() | FOR_OTHERS
    assert set(SEALS.values()) == {column.model for column in SEALED_COLUMNS}
