"""
The connection form for Airflow up to 3.1, which asks the hook for it. Later versions read ``provider_info``.

Both use the one table of fields in ``provider_info``. This module is imported only when a form is shown.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from airflow_provider_hsml.provider_info import CONNECTION_FIELDS, UI_FIELD_BEHAVIOUR


def widgets() -> dict[str, Any]:
    """
    Build the form fields beyond host, port and password.

    Airflow 3 replaces them by its own fields, such as a switch or a choice. Airflow 2 shows them unchanged. There a
    flag is a text field: a checkbox would be ticked for a stored ``false`` when the connection is edited, and would
    then store ``true``. Airflow 2 shows a default only as a placeholder, so that it is not stored unless typed.
    """
    from wtforms import BooleanField, IntegerField, StringField  # noqa: PLC0415 - not installed with Airflow 3.2 and later
    from wtforms.validators import NumberRange, Optional, Regexp, any_of  # noqa: PLC0415

    kinds = {
        "string": StringField,
        "number": IntegerField,
        "boolean": BooleanField if AIRFLOW_V_3_0_PLUS else StringField,
    }
    fields = {}
    for name, field in CONNECTION_FIELDS.items():
        schema = field["schema"]
        kind = schema["type"][0]
        checks = [Optional()]
        if "enum" in schema:
            checks.append(any_of(schema["enum"]))
        if "minimum" in schema:
            checks.append(NumberRange(min=schema["minimum"]))
        if AIRFLOW_V_3_0_PLUS:
            options = {"default": schema.get("default")}
        else:
            from flask_appbuilder.fieldwidgets import BS3TextFieldWidget  # noqa: PLC0415

            options = {"widget": BS3TextFieldWidget()}
            if kind == "boolean":
                checks.append(Regexp("(?i)(true|false)$", message="Expected true or false."))
        fields[name] = kinds[kind](field["label"], checks, description=field["description"], **options)
    return fields


def behaviour() -> dict[str, Any]:
    """Return the hidden and relabeled fields, under the keys that the hook's method has to use."""
    return {name.replace("-", "_"): value for name, value in UI_FIELD_BEHAVIOUR.items()}
