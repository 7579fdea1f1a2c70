"""The chains of the audit log are verified from time to time, and what was found is kept for pages."""

from __future__ import annotations

from datetime import timedelta

import structlog
from sqlalchemy import and_, case, or_, select

from extensions import db
from models import AuditCheck, AuditHead, Workspace
from models.base import now, transaction
from services import audit_chain

# How old what is known of a chain may be, and of one that has grown since.
_FRESH_FOR = timedelta(hours=6)
_FRESH_FOR_GROWN = timedelta(minutes=10)

_log = structlog.get_logger("audit")


def verify_next() -> bool:
    """Verify the chain that has waited longest, if one is due. Returns whether there was one."""
    at = now()
    grown = AuditHead.number != AuditCheck.number
    due = (
        select(Workspace.id, Workspace.slug)
        .outerjoin(AuditCheck, AuditCheck.workspace_id == Workspace.id)
        .outerjoin(AuditHead, AuditHead.workspace_id == Workspace.id)
        .where(
            or_(
                AuditCheck.checked_at.is_(None),
                AuditCheck.checked_at < at - _FRESH_FOR,
                and_(grown, AuditCheck.checked_at < at - _FRESH_FOR_GROWN),
            )
        )
        .order_by(case((AuditCheck.checked_at.is_(None), 0), else_=1), AuditCheck.checked_at)
    )
    found = db.session.execute(due.limit(1)).first()
    if found is None:
        return False
    verify(found.id, found.slug)
    return True


def verify(workspace_id: str, slug: str) -> audit_chain.Verified:
    """Verify one chain and keep what was found. A break is told in the log when it is first seen."""
    db.session.rollback()
    at = now()
    found = audit_chain.verify(db.session, workspace_id)
    with transaction() as session:
        check = session.get(AuditCheck, workspace_id)
        if check is None:
            if session.get(Workspace, workspace_id) is None:
                return found
            check = AuditCheck(workspace_id=workspace_id)
            session.add(check)
        if found.broken is not None and found.broken != check.broken_number:
            _log.error("an audit log is not as it was written", workspace=slug, first_broken_entry=found.broken)
        check.number, check.broken_number, check.checked_at = found.number, found.broken, at
        session.flush()
    return found


def check_of(workspace: Workspace) -> AuditCheck | None:
    """Return what was found when the workspace's chain was last verified."""
    return db.session.get(AuditCheck, workspace.id)
