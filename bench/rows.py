"""Prints how many calls of a key were answered with 200, as its usage rows tell: ``rows.py KEY_ID``.

Run with the portal's settings in the environment.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sqlalchemy import func, select

from app import create_app
from extensions import db
from models import UsageRecord


def main() -> None:
    kept = select(func.count()).where(UsageRecord.api_key_id == sys.argv[1], UsageRecord.status == 200)
    with create_app().app_context():
        print(db.session.scalar(kept))


if __name__ == "__main__":
    main()
