"""Forms about workspaces. The services judge what is given."""

from __future__ import annotations

from wtforms import SelectField, StringField
from wtforms.validators import ValidationError

from blueprints.forms import PortalForm, stripped, zone_choices
from models import Workspace
from services import names

_NAME = {"maxlength": names.LENGTH, "autocomplete": "off"}


class NewWorkspaceForm(PortalForm):
    """Another workspace needs a name and nothing else."""

    name = StringField("Name", filters=[stripped], render_kw=_NAME)


class SettingsForm(PortalForm):
    """Name and default zone of a workspace."""

    name = StringField("Name", filters=[stripped], render_kw=_NAME)
    time_zone = SelectField("Default time zone", validate_choice=False)

    def __init__(self, workspace: Workspace) -> None:
        super().__init__(data={"name": workspace.name, "time_zone": workspace.time_zone})
        self.time_zone.choices = zone_choices(workspace.time_zone)


class DeleteForm(PortalForm):
    """The last question before everything goes."""

    name = StringField(
        "Type the workspace’s name to confirm",
        filters=[stripped],
        render_kw={"autocomplete": "off", "spellcheck": "false"},
    )

    def __init__(self, workspace: Workspace) -> None:
        super().__init__()
        self.workspace = workspace

    def validate_name(self, field: StringField) -> None:
        # A page shows several spaces as one, so they are compared as one.
        if (field.data or "").split() != self.workspace.name.split():
            raise ValidationError(f"Type “{self.workspace.name}” exactly as it is written")
