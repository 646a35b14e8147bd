"""Models whose files are not on the worker's disk: in object storage, or in the cluster's own file system."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, ObjectStoragePath

from airflow_provider_hsml import RegisterModelOperator
from airflow_provider_hsml.hopsworks.errors import DeadlineExceededError, RequestRefusedError
from airflow_provider_hsml.hopsworks.registry import sources
from tests.support.tasks import FakeTaskInstance, changes, execute

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow_provider_hsml import HsmlHook
    from airflow_provider_hsml.local import LocalServing

pytestmark = [pytest.mark.airflow, pytest.mark.usefixtures("serving")]

_numbers = itertools.count()


@pytest.fixture
def name() -> str:
    return f"sourced{next(_numbers)}"


def register(name: str, path: Any, ti: FakeTaskInstance | None = None, **more: Any) -> Any:
    operator = RegisterModelOperator(task_id="task", model_name=name, model_path=path, framework="SKLEARN", **more)
    return execute(operator, ti)


def content(serving: LocalServing, path: str) -> bytes:
    return serving.world.project(serving.project_id).files.read(path).read_bytes()


def home(serving: LocalServing, name: str) -> str:
    """Give the folder with the files of the first version."""
    return f"Models/{name}/1" + ("/Files" if serving.world.line.has_files_folder else "")


def _works() -> bool:
    try:
        return bool(ObjectStoragePath("file:///").path)
    except TypeError:
        return False


@pytest.mark.skipif(not _works(), reason="Airflow 3.0 beside a universal_pathlib that is too new for it")
class TestObjectStorage:
    @pytest.fixture
    def bucket(self) -> str:
        """A folder of an object storage that is in memory."""
        import fsspec

        try:
            from airflow.sdk.io import attach
        except ImportError:  # Airflow 2
            from airflow.io.store import attach  # type: ignore[import-not-found,no-redef]
        files = fsspec.filesystem("memory")
        attach("memory", fs=files)
        bucket = f"memory://bucket{next(_numbers)}"
        files.pipe(f"{bucket}/model/model.joblib", b'{"answer": 1}')
        files.pipe(f"{bucket}/model/deep/er.txt", b"more")
        return bucket

    def test_a_folder(self, serving: LocalServing, name: str, bucket: str) -> None:
        assert register(name, f"{bucket}/model")["model_version"] == 1
        assert content(serving, f"{home(serving, name)}/model.joblib") == b'{"answer": 1}'
        assert content(serving, f"{home(serving, name)}/deep/er.txt") == b"more"

    def test_a_file(self, serving: LocalServing, name: str, model_file: Callable[..., Path]) -> None:
        register(name, f"file://{model_file(answer=3)}/model.joblib")

        assert json.loads(content(serving, f"{home(serving, name)}/model.joblib")) == {"answer": 3}

    def test_a_retry_registers_once(self, serving: LocalServing, name: str, bucket: str) -> None:
        ti = FakeTaskInstance()
        first = register(name, f"{bucket}/model", ti)
        serving.requests.clear()

        assert register(name, f"{bucket}/model/", ti) == first
        assert changes(serving) == []

    @pytest.mark.parametrize(
        ("path", "message"),
        [
            ("file:///no/such/place", "no such file or folder on this machine"),
            ("nosuch://bucket/model", "Airflow cannot read such URLs here"),
        ],
    )
    def test_what_is_not_there(self, serving: LocalServing, name: str, path: str, message: str) -> None:
        with pytest.raises(AirflowFailException, match=message):
            register(name, path)
        assert changes(serving) == []


class TestHopsfs:
    @pytest.fixture
    def folder(self, serving: LocalServing, name: str) -> str:
        """A model in the project's files."""
        files = serving.world.project(serving.project_id).files
        files.write(f"Resources/{name}/model.joblib", b'{"answer": 1}')
        files.write(f"Resources/{name}/deep/er.txt", b"more")
        serving.requests.clear()
        return f"hopsfs:/Projects/example/Resources/{name}"

    def test_a_folder_is_copied_inside_the_cluster(self, serving: LocalServing, name: str, folder: str) -> None:
        assert register(name, folder)["model_version"] == 1
        assert content(serving, f"{home(serving, name)}/model.joblib") == b'{"answer": 1}'
        assert content(serving, f"{home(serving, name)}/deep/er.txt") == b"more"
        assert content(serving, f"Resources/{name}/model.joblib") == b'{"answer": 1}'
        uploaded = [asked for asked in serving.requests if "/upload/" in asked.path]
        (mark,) = (asked for asked in uploaded if f"Models/{name}" in asked.path)
        assert mark.path.endswith(f"upload/Models/{name}/1")
        assert mark.body_bytes < 2000

    def test_a_file(self, serving: LocalServing, name: str, folder: str) -> None:
        register(name, f"{folder}/model.joblib")

        assert content(serving, f"{home(serving, name)}/model.joblib") == b'{"answer": 1}'

    def test_a_folder_with_one_file_of_its_own_name(self, serving: LocalServing, name: str) -> None:
        serving.world.project(serving.project_id).files.write(f"Resources/{name}/{name}", b"x")

        register(name, f"hopsfs:///Projects/example/Resources/{name}/")
        assert content(serving, f"{home(serving, name)}/{name}") == b"x"

    def test_a_retry_registers_once(self, serving: LocalServing, name: str, folder: str) -> None:
        ti = FakeTaskInstance()
        first = register(name, folder, ti)
        serving.requests.clear()

        assert register(name, folder, ti) == first
        assert changes(serving) == []
        serving.world.project(serving.project_id).files.write(f"Resources/{name}/model.joblib", b'{"answer": 222}')
        assert register(name, folder, ti)["model_version"] == 2

    def test_a_copy_that_takes_its_time(
        self, serving: LocalServing, name: str, folder: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The version is registered when all of it is there, with all its bytes."""
        files = serving.world.project(serving.project_id).files
        real = files.copy

        def slowly(path: str, destination: str) -> None:
            if path.endswith("model.joblib"):
                files.write(destination, b"{")
            else:
                real(path, destination)

        monkeypatch.setattr(files, "copy", slowly)
        looks = []
        real_listing = files.listing

        def listing(path: str, **more: Any) -> Any:
            if path.endswith(home(serving, name)):
                looks.append(path)
                if len(looks) == 2:
                    files.write(f"{home(serving, name)}/model.joblib", b'{"answer": 1}')
            return real_listing(path, **more)

        monkeypatch.setattr(files, "listing", listing)

        register(name, folder)
        assert len(looks) >= 2
        assert content(serving, f"{home(serving, name)}/model.joblib") == b'{"answer": 1}'

    def test_a_copy_whose_answer_is_lost(
        self, serving: LocalServing, name: str, folder: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is looked for, and not sent again, unless it never began."""
        files = serving.world.project(serving.project_id).files
        real, begins = files.copy, True

        def fail(path: str, destination: str) -> None:
            if begins:
                real(path, destination)
            raise OSError("the server stumbles over something else")

        monkeypatch.setattr(files, "copy", fail)
        monkeypatch.setattr(sources, "IN_DOUBT", 0.2)

        assert register(name, folder)["model_version"] == 1
        assert content(serving, f"{home(serving, name)}/deep/er.txt") == b"more"
        begins = False
        with pytest.raises(RequestRefusedError, match="copy '/Projects/example"):
            register(name, folder)

    def test_a_copy_that_is_never_complete(
        self, hook: HsmlHook, serving: LocalServing, name: str, folder: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sources, "COPY_SECONDS", 0.2)
        monkeypatch.setattr(serving.world.project(serving.project_id).files, "copy", lambda *_: None)

        with pytest.raises(DeadlineExceededError, match="is not complete after"):
            register(name, folder)
        assert hook.get_models(name) == []

    @pytest.mark.parametrize(
        ("path", "message"),
        [
            ("hopsfs:/Projects/example/Resources/nothere", "no such file or folder in HopsFS"),
            ("hopsfs:/Projects/other/Resources/x", "no such file or folder in HopsFS, or not one of this project"),
            ("hopsfs:Resources/x", "a path such as 'hopsfs:/Projects/"),
            ("hopsfs:/Projects/example/Resources/../x", "without empty parts"),
            ("hopsfs:/Projects/example/Models", "is inside it"),
        ],
    )
    def test_what_cannot_be_copied(self, hook: HsmlHook, name: str, folder: str, path: str, message: str) -> None:
        with pytest.raises(AirflowFailException, match=message):
            register(name, path)
        assert hook.get_models(name) == []

    def test_an_empty_folder(self, serving: LocalServing, name: str) -> None:
        serving.world.project(serving.project_id).files.make_folder(f"Resources/{name}")

        with pytest.raises(AirflowFailException, match="the folder is empty"):
            register(name, f"hopsfs:/Projects/example/Resources/{name}")
