"""
The connection's form where Airflow asks the hook for it: up to 3.1. Later ones read it from the provider's description.

Both have it from the one table there. Imported when a form is shown, never with the hook.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from airflow_provider_hsml.provider_info import CONNECTION_FIELDS, UI_FIELD_BEHAVIOUR


def widgets() -> dict[str, Any]:
    """
    Make the fields beyond host, port and password.

    Airflow 3 puts fields of its own in the place of these, and makes a switch or a choice of them. Airflow 2 shows them
    as they are. There a flag is a text: a box would be ticked for a stored ``false`` when the connection is edited, and
    ``true`` be stored then. And a placeholder shows the default there: what nobody has typed is not stored.
    """
    from wtforms import BooleanField, IntegerField, StringField  # noqa: PLC0415 - not there on Airflow 3.2 and later
    from wtforms.validators import NumberRange, Optional, Regexp, any_of  # noqa: PLC0415

    kinds = {
        "string": StringField,
        "number": IntegerField,
        "boolean": BooleanField if AIRFLOW_V_3_0_PLUS else StringField,
    }
    made = {}
    for name, field in CONNECTION_FIELDS.items():
        schema = field["schema"]
        kind = schema["type"][0]
        checks = [Optional()]
        if "enum" in schema:
            checks.append(any_of(schema["enum"]))
        if "minimum" in schema:
            checks.append(NumberRange(min=schema["minimum"]))
        if AIRFLOW_V_3_0_PLUS:
            look = {"default": schema.get("default")}
        else:
            from flask_appbuilder.fieldwidgets import BS3TextFieldWidget  # noqa: PLC0415

            look = {"widget": BS3TextFieldWidget()}
            if kind == "boolean":
                checks.append(Regexp("(?i)(true|false)$", message="Expected true or false."))
        made[name] = kinds[kind](field["label"], checks, description=field["description"], **look)
    return made


def behaviour() -> dict[str, Any]:
    """Say what is hidden and what is called otherwise, in the names of this way."""
    return {name.replace("-", "_"): value for name, value in UI_FIELD_BEHAVIOUR.items()}
