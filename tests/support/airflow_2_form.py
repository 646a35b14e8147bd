"""
The connection's form of Airflow 2, as a person uses it: Airflow's own web application, asked in its own process.

Reads from its argument, as JSON, the forms to send and the connections to press Test for; prints as JSON what came.
"""

# mypy: ignore-errors
# ruff: noqa: AIR311
# What is checked has Airflow 3, which has none of these.

from __future__ import annotations

import json
import sys

from airflow.models import Connection
from airflow.utils import db
from airflow.utils.session import create_session
from airflow.www.app import create_app

desired = json.loads(sys.argv[1])
db.initdb()
app = create_app(testing=True)
app.config["WTF_CSRF_ENABLED"] = False
manager = app.appbuilder.sm
manager.add_user("me", "me", "me", "me@example.com", manager.find_role("Admin"), password="me")
manager.get_session.remove()
client = app.test_client()
client.post("/login/", data={"username": "me", "password": "me"})


def row() -> dict[str, object]:
    with create_session() as session:
        stored = session.query(Connection).filter_by(conn_id="hsml_default").one()
        names = ("id", "conn_type", "host", "port", "login", "schema", "password", "extra")
        return {name: getattr(stored, name) for name in names}


came = {"page": client.get("/connection/add").text, "rows": [], "statuses": [], "edit": ""}
path = "/connection/add"
for fields in desired["forms"]:
    answer = client.post(path, data=fields)
    came["statuses"].append(answer.status_code)
    came["rows"].append(row())
    came["refused"] = answer.text
    path = f"/connection/edit/{came['rows'][0]['id']}"
came["edit"] = client.get(path).text
came["tests"] = [client.post("/api/v1/connections/test", json=one).get_json() for one in desired["tests"]]
print("CAME=" + json.dumps(came))
