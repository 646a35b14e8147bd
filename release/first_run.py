"""
Run the DAG of README.md as a new user would: in this environment, against a local Model Serving.

``python first_run.py README.md FOLDER`` writes a small project into the folder, as docs/guides/testing.md describes
one, and runs its test with pytest. Only the standard library and the installed packages are used.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

CODE = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
CONFTEST = """
import os
import subprocess
import sys
import tempfile

for name in [name for name in os.environ if name.startswith("AIRFLOW_")]:
    del os.environ[name]  # It may name a database or a secrets backend that is in use.
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp()
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__CORE__DAGS_FOLDER"] = os.path.abspath("dags")
subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=True, capture_output=True)

pytest_plugins = ["airflow_provider_hsml.testing"]
"""
TEST = """
import os
import pathlib
import sys

import airflow_provider_hsml
from airflow_provider_hsml import HsmlHook


def the_dag():
    try:
        from airflow.dag_processing.dagbag import DagBag
    except ImportError:
        from airflow.models import DagBag
    bag = DagBag(os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
    assert bag.import_errors == {}
    (dag,) = bag.dags.values()
    return dag


def test_the_dag_serves_a_model(hopsworks_serving):
    assert pathlib.Path(airflow_provider_hsml.__file__).is_relative_to(sys.prefix), "not the installed package"

    assert the_dag().test().state == "success"

    (deployment,) = HsmlHook().get_deployments()
    assert deployment.model_version == 1
    assert HsmlHook().get_deployment_state(deployment.name) == "Running"
"""


def dag_of(readme: str) -> str:
    """
    Return the one block of Python in README.

    :raises ValueError: there is none, or more than one
    """
    blocks = CODE.findall(readme)
    if len(blocks) != 1:
        message = (
            f"README.md: expected one block of Python, the first DAG; got {len(blocks)}.\nMove the others to the docs."
        )
        raise ValueError(message)
    return str(blocks[0])


def main(readme: Path, folder: Path) -> int:
    """Write the project and run it; return pytest's exit code."""
    for path, content in {
        "dags/readme.py": dag_of(readme.read_text()),
        "tests/conftest.py": CONFTEST,
        "tests/test_readme.py": TEST,
    }.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    return subprocess.run(command, cwd=folder, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()))
