"""The instance: its plans and its state."""

from __future__ import annotations

from flask import render_template

from blueprints.guards import current_person, operator_required
from blueprints.operator import bp
from services import customers, doctor, instance_state, outbox, vault_rotation
from services.parts import parts
from services.version import VERSION


@bp.get("/plans")
@operator_required
def plans() -> str:
    return render_template("operator/plans.html", plans=parts().plans, counts=customers.workspaces_on_plans())


@bp.get("/system")
@operator_required
def system() -> str:
    findings = list(doctor.examine())
    return render_template(
        "operator/system.html",
        findings=findings,
        faults=[finding for _, finding in findings if not finding.good],
        version=VERSION,
        limits_storage=instance_state.limits_storage(),
        tasks=instance_state.task_states(),
        processes=instance_state.living_processes(),
        mail=outbox.counts(),
        mail_as_files=outbox.kept_as_files(),
        master_keys=vault_rotation.standings(),
        sign_up_open=instance_state.sign_up_open(),
        second_factor=instance_state.has_second_factor(current_person()),
    )
