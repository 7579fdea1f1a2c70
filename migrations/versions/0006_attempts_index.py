"""an index of attempts with ended secrets, which are no use of their key

Revises: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_ATTEMPTS = sa.text("code = 'invalid_api_key'")


def upgrade() -> None:
    op.create_index(
        "ix_usage_record_attempts",
        "usage_record",
        ["api_key_id", "started_at"],
        sqlite_where=_ATTEMPTS,
        postgresql_where=_ATTEMPTS,
    )


def downgrade() -> None:
    op.drop_index("ix_usage_record_attempts", table_name="usage_record")
