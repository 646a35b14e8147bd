"""Which file is meant, and getting it into the project."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.hopsworks.api import API, Answer, Call
from airflow_provider_hsml.hopsworks.domain import diff, script_file
from airflow_provider_hsml.hopsworks.domain.settings import Script
from airflow_provider_hsml.hopsworks.errors import InvalidInputError, NoResponseError, RequestRefusedError
from airflow_provider_hsml.hopsworks.flow import drive
from airflow_provider_hsml.hopsworks.rollout import scripts
from tests.support.fake import PROJECT, refusal

if TYPE_CHECKING:
    from pathlib import Path

CONTENT = b"class Predict: ...\n"
HASH = hashlib.sha256(CONTENT).hexdigest()[:16]
OURS = f"/Projects/demo/Resources/airflow-provider-hsml/scripts/predict-{HASH}.py"


class Files:
    """The project's files, as far as scripts need them."""

    def __init__(self, *, there: dict[str, bytes] | None = None, upload: Any = None, scope: bool = True) -> None:
        self.there = dict(there or {})
        self.upload = upload
        """How an upload ends; None: well."""
        self.scope = scope
        self.sent: list[str] = []

    def send(self, call: Call[Any]) -> Any:
        if not self.scope:
            return call.outcome(refusal(403, 320004, "scope DATASET_VIEW"))
        below = call.path.removeprefix(f"{API}/project/119/dataset/").replace("%2F", "/")
        if call.method == "GET":
            name = below.removeprefix("download/with_auth/")
            found = self.there.get(name)
            return call.outcome(
                refusal(400, 110011)
                if found is None
                else Answer(200, found if call.raw else b'{"attributes": {"name": "a"}}')
            )
        self.sent.append(below)
        if call.upload is not None:
            if isinstance(self.upload, Exception):
                raise self.upload
            if self.upload is not None:
                self.upload()
                return call.outcome(refusal(400, 110012))
            self.there[f"{below.removeprefix('upload/')}/{call.upload.filename}"] = call.upload.content
        return call.outcome(Answer(200, b'{"attributes": {"name": "a"}}'))

    def provide(self, script: Script) -> None:
        drive(scripts.provide(PROJECT, "script_file", script), self.send, lambda _: None)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "predict.py"
    path.write_bytes(CONTENT)
    return path


def ours(file: Path) -> Script:
    script = script_file.absolute(PROJECT, {"script_file": script_file.read("spec.script_file", str(file))})[
        "script_file"
    ]
    assert isinstance(script, Script)
    return script


class TestReading:
    @pytest.mark.parametrize(
        "given",
        [
            "/Projects/demo/Resources/predict.py",
            "hopsfs:/Projects/demo/Resources/predict.py",
            "hopsfs:///Projects/demo/Resources/predict.py",
            "hdfs:///Projects/demo/Resources/predict.py",
            "hdfs://namenode:8020/Projects/demo/Resources/predict.py",
        ],
    )
    def test_one_in_the_project(self, given: str) -> None:
        script = script_file.read("spec.script_file", given)

        assert (script.path, script.content) == ("/Projects/demo/Resources/predict.py", None)

    def test_one_of_this_machine_is_named_by_its_content(self, file: Path) -> None:
        assert ours(file) == Script(OURS, CONTENT)
        assert ours(file).name == f"predict-{HASH}.py"

    def test_its_content_is_in_no_repr(self, file: Path) -> None:
        assert "class Predict" not in repr(ours(file))

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ("predict.txt", r"spec.script_file: expected a file whose name ends in \.py"),
            ("nowhere/predict.py", "expected a file of the machine where the task runs"),
            ("s3://bucket/predict.py", r"a path /Projects/<project>/\.\.\."),
            ("hdfs://namenode/user/predict.py", "a path /Projects/"),
            ("/Projects/demo/../other/predict.py", "without '..'"),
            ("/Projects//predict.py", "without '..'"),
            ("", "spec.script_file"),
            (7, "spec.script_file"),
            (True, "spec.script_file"),
        ],
    )
    def test_what_is_none(self, given: Any, message: str) -> None:
        with pytest.raises(InvalidInputError, match=message):
            script_file.read("spec.script_file", given)

    def test_an_empty_file(self, tmp_path: Path) -> None:
        (tmp_path / "empty.py").touch()

        with pytest.raises(InvalidInputError, match=r"empty\.py: 0 bytes"):
            script_file.read("spec.script_file", tmp_path / "empty.py")

    def test_one_of_another_project(self) -> None:
        with pytest.raises(InvalidInputError, match=r"spec.script_file: expected a file in project 'demo'"):
            script_file.absolute(PROJECT, {"script_file": Script("/Projects/other/Resources/predict.py")})

    @pytest.mark.parametrize(
        "live",
        [OURS, OURS.rpartition("/")[2], f"/Projects/demo/Models/m/1/Artifacts/3/predictor-predict-{HASH}.py"],
    )
    def test_is_compared_by_its_name(self, live: str, file: Path) -> None:
        assert diff.differences({"predictor": live}, {"script_file": ours(file)}) == {}
        assert diff.differences({"predictor": "other.py"}, {"script_file": ours(file)})


class TestProviding:
    def test_is_uploaded_once(self, file: Path) -> None:
        files = Files()

        files.provide(ours(file))
        sent = len(files.sent)
        files.provide(ours(file))

        assert files.there == {OURS.removeprefix("/Projects/demo/"): CONTENT}
        assert len(files.sent) == sent

    def test_another_task_uploads_it_at_the_same_time(self, file: Path) -> None:
        files = Files()
        files.upload = lambda: files.there.update({OURS.removeprefix("/Projects/demo/"): CONTENT})

        files.provide(ours(file))

    def test_the_upload_fails(self, file: Path) -> None:
        with pytest.raises(NoResponseError):
            Files(upload=NoResponseError("away")).provide(ours(file))
        with pytest.raises(RequestRefusedError, match="110012"):
            Files(upload=lambda: None).provide(ours(file))

    def test_something_else_has_its_name(self, file: Path) -> None:
        files = Files(there={OURS.removeprefix("/Projects/demo/"): b"# half"})

        with pytest.raises(InvalidInputError, match=r"has another content\.\nDelete the file"):
            files.provide(ours(file))
        assert files.sent == [], "it is not overwritten"

    def test_one_in_the_project_must_be_there(self) -> None:
        script = Script("/Projects/demo/Resources/predict.py")

        Files(there={"Resources/predict.py": b"#"}).provide(script)
        with pytest.raises(
            InvalidInputError, match=r"spec.script_file: there is no '/Projects/demo/Resources/predict.py'"
        ):
            Files().provide(script)

    def test_a_key_that_may_not(self, file: Path) -> None:
        with pytest.raises(InvalidInputError, match="scopes DATASET_VIEW and DATASET_CREATE"):
            Files(scope=False).provide(ours(file))

    def test_a_key_that_may_not_look_leaves_it_to_the_server(self) -> None:
        Files(scope=False).provide(Script("/Projects/demo/Resources/predict.py"))
