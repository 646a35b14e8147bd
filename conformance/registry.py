"""Steps: connection, files, model registry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conformance.steps import Session, expect, refused, step

CONNECTION, FILES, REGISTRY = "Connection", "Files", "Model registry"


@step(CONNECTION, "a key that is not known is refused")
def log_in_with_a_wrong_key(session: Session) -> None:
    refused(lambda: session.sdk.log_in("0123456789abcdef.not-a-key"), "320013", "Could not find project")


@step(CONNECTION, "log in, get the registry and serving handles")
def log_in(session: Session) -> None:
    session.registry, session.serving = session.sdk.log_in()
    expect(session.registry.project_name, session.sdk.project, "the registry's project")
    expect(session.serving.project_name, session.sdk.project, "model serving's project")


# --- Files ------------------------------------------------------------------------------------------------------------


@step(FILES, "make a folder, upload a file in several parts and an empty one, list, stat")
def upload(session: Session) -> None:
    files = session.sdk.files
    files.mkdir(session.resources)
    large, empty = session.folder / "large.bin", session.folder / "empty.bin"
    large.write_bytes(bytes(range(256)) * 4 * 1024 * 3)
    empty.write_bytes(b"")
    # The size of the parts is in MB for hsml, in bytes for hopsworks.
    chunk = 1 if session.sdk.name == "hsml" else 1024 * 1024
    files.upload(str(large), session.resources, chunk_size=chunk)
    expected = ["large.bin"]
    if session.sdk.name == "hopsworks":  # hsml 3.7 sends nothing at all for an empty file.
        files.upload(str(empty), session.resources)
        expected = ["empty.bin", "large.bin"]
    expect(sorted(session.sdk.list_files(session.resources)), expected, "the folder's files")
    expect(files.get(f"{session.resources}/large.bin")["attributes"]["size"], large.stat().st_size, "the size")
    expect(files.path_exists(f"{session.resources}/absent"), False, "a file that is not there exists")


@step(FILES, "an existing file is overwritten only when that is asked for")
def overwrite(session: Session) -> None:
    files, changed = session.sdk.files, session.folder / "changed.txt"
    for text in ("first", "second"):
        changed.write_text(text)
        files.upload(str(changed), session.resources, overwrite=text == "second")
    refused(lambda: files.upload(str(changed), session.resources), "exists")
    expect(read(session, f"{session.resources}/changed.txt"), b"second", "the file's content")


@step(FILES, "download, copy, move")
def copy_and_move(session: Session) -> None:
    files, here = session.sdk.files, session.resources
    project = session.sdk.project
    expect(read(session, f"{here}/large.bin"), (session.folder / "large.bin").read_bytes(), "the large file's content")
    files.copy(f"{here}/changed.txt", f"/Projects/{project}/{here}/copied.txt")
    files.move(f"{here}/copied.txt", f"/Projects/{project}/{here}/moved.txt")
    expect(files.path_exists(f"{here}/copied.txt"), False, "the source of the move still exists")
    expect(read(session, f"{here}/moved.txt"), b"second", "the moved file's content")


@step(FILES, "change permissions", local="it keeps no permissions of files")
def change_permissions(session: Session) -> None:
    session.sdk.files.chmod(f"{session.resources}/moved.txt", "u+x")


@step(FILES, "delete a file")
def delete_file(session: Session) -> None:
    session.sdk.files.rm(f"{session.resources}/moved.txt")
    expect(session.sdk.files.path_exists(f"{session.resources}/moved.txt"), False, "a deleted file exists")


@step(FILES, "upload a whole folder, list the project's datasets", since=(4, 6))
def upload_folder(session: Session) -> None:
    folder = session.folder / "tree"
    (folder / "below").mkdir(parents=True)
    (folder / "a.txt").write_text("a")
    (folder / "below" / "b.txt").write_text("b")
    session.sdk.files.upload(str(folder), session.resources)
    expect(read(session, f"{session.resources}/tree/below/b.txt"), b"b", "a file in a folder below")
    datasets = session.sdk.list_files("/")
    expect({"Models", "Resources"} <= set(datasets), True, f"Models and Resources among {datasets}")


def read(session: Session, path: str) -> bytes:
    """Return the content of a file in HopsFS."""
    local = session.folder / "downloaded"
    session.sdk.download(path, local)
    return local.read_bytes()


# --- Model registry ---------------------------------------------------------------------------------------------------


def trained(session: Session, factor: int) -> Path:
    """Train ``factor * (a + b)``, so that a prediction identifies its version."""
    import joblib
    from sklearn.linear_model import LinearRegression

    folder = session.folder / f"model{factor}"
    (folder / "notes").mkdir(parents=True, exist_ok=True)
    (folder / "notes" / "readme.txt").write_text(f"{factor} * (a + b)")
    rows = [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
    joblib.dump(LinearRegression().fit(rows, [factor * (a + b) for a, b in rows]), folder / "model.pkl")
    return folder


def described(session: Session, factor: int) -> dict[str, Any]:
    """Return all arguments for the creation of a model."""
    import numpy as np
    import pandas as pd
    from hsml.model_schema import ModelSchema
    from hsml.schema import Schema

    rows = pd.DataFrame({"a": [1.0], "b": [2.0]})
    return {
        "name": session.model,
        "metrics": {"accuracy": factor / 4, "loss": 1 / factor},
        "description": f"{factor} times the sum",
        "input_example": np.array([[1.0, 2.0]]),
        "model_schema": ModelSchema(input_schema=Schema(rows), output_schema=Schema(pd.DataFrame({"y": [3.0]}))),
    }


@step(REGISTRY, "create and save a model: a folder of files, metrics, schema, input example")
def save_model(session: Session) -> None:
    model = session.registry.sklearn.create_model(**described(session, 1))
    model.save(str(trained(session, 1)))
    expect(model.version, 1, "the first version")


@step(REGISTRY, "save further versions: of one file, under the next free number")
def save_versions(session: Session) -> None:
    for factor in (2, 3):
        model = session.registry.sklearn.create_model(**described(session, factor))
        model.save(str(trained(session, factor) / "model.pkl"))
        expect(model.version, factor, "the next version")


@step(REGISTRY, "a version that is there already is refused")
def save_version_twice(session: Session) -> None:
    model = session.registry.sklearn.create_model(**{**described(session, 1), "version": 1})
    refused(lambda: model.save(str(trained(session, 1))), "already exists")


@step(REGISTRY, "save a model whose files lie in HopsFS: copied, then moved")
def save_from_hopsfs(session: Session) -> None:
    files, folder = session.sdk.files, f"{session.resources}/exported"
    files.mkdir(folder)
    files.upload(str(trained(session, 1) / "model.pkl"), folder)
    for version, keep in ((1, True), (2, False)):
        model = session.registry.python.create_model(f"{session.model}_hopsfs", metrics={"accuracy": 1})
        model.save(folder, keep_original_files=keep)
        expect(model.version, version, "the version")
        expect(files.path_exists(f"{folder}/model.pkl"), keep, "the original file is there")


@step(REGISTRY, "save models of the other frameworks: TensorFlow, Torch, Python")
def save_frameworks(session: Session) -> None:
    folder = session.folder / "tensorflow"
    (folder / "variables").mkdir(parents=True)
    (folder / "variables" / "variables.index").write_bytes(b"index")
    (folder / "saved_model.pb").write_bytes(b"graph")
    registry = session.registry
    for framework, module in (
        ("TENSORFLOW", registry.tensorflow),
        ("TORCH", registry.torch),
        ("PYTHON", registry.python),
    ):
        name = f"{session.model}_{framework.lower()}"
        module.create_model(name).save(str(folder))
        expect(registry.get_model(name, version=1).framework, framework, "the framework")


@step(REGISTRY, "save a model for vLLM", hsml="hsml 3.7 knows no LLM models")
def save_llm(session: Session) -> None:
    folder = session.folder / "llm"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    session.registry.llm.create_model(f"{session.model}_llm").save(str(folder))
    expect(session.registry.get_model(f"{session.model}_llm", version=1).framework, "LLM", "the framework")


@step(REGISTRY, "get a model by name and version; one that is not there")
def get_model(session: Session) -> None:
    model = session.version(2)
    expect((model.name, model.version, model.framework), (session.model, 2, "SKLEARN"), "the model")
    expect(model.training_metrics, {"accuracy": 0.5, "loss": 0.5}, "its metrics")
    expect(model.description, "2 times the sum", "its description")
    expect(f"/models/{session.model}/2" in model.get_url(), True, f"its page in {model.get_url()}")
    if session.sdk.name == "hsml":  # hsml 3.7 raises the 404.
        refused(lambda: session.version(99), "404")
    else:
        expect(session.version(99), None, "a version that is not there")


@step(REGISTRY, "list the versions; the best by a metric, upwards and downwards")
def best_model(session: Session) -> None:
    models = session.registry.get_models(session.model)
    expect(sorted(model.version for model in models), [1, 2, 3], "the versions")
    expect(session.registry.get_models(f"absent{session.mark}"), [], "versions of a model that is not there")
    expect(session.registry.get_best_model(session.model, "accuracy", "max").version, 3, "the best by accuracy")
    expect(session.registry.get_best_model(session.model, "accuracy", "min").version, 1, "the worst by accuracy")
    expect(session.registry.get_best_model(session.model, "loss", "min").version, 3, "the best by loss")
    expect(session.registry.get_best_model(f"absent{session.mark}", "loss", "min"), None, "the best of none")


@step(REGISTRY, "read the input example and the schema back")
def read_example(session: Session) -> None:
    model = session.version(1)
    # The older SDK stores an array flat.
    expect(model.input_example in ([1.0, 2.0], [[1.0, 2.0]]), True, f"the input example {model.input_example}")
    columns = model.model_schema["input_schema"]["columnar_schema"]
    expect([column["name"] for column in columns], ["a", "b"], "the columns of the schema")


@step(REGISTRY, "download a model")
def download_model(session: Session) -> None:
    folder = Path(session.version(1).download())
    import joblib

    expect(round(float(joblib.load(folder / "model.pkl").predict([[1.0, 2.0]])[0]), 6), 3.0, "its prediction")
    expect((folder / "notes" / "readme.txt").read_text(), "1 * (a + b)", "a file in a folder below")


@step(REGISTRY, "tags of a model: set, list, delete")
def tag_model(session: Session) -> None:
    model = session.version(1)
    model.set_tag("owner", "team-a")
    model.set_tag("checked", {"by": "somebody", "times": 2})
    expect(model.get_tags(), {"owner": "team-a", "checked": {"by": "somebody", "times": 2}}, "the tags")
    model.delete_tag("owner")
    expect(list(model.get_tags()), ["checked"], "the tags that are left")


@step(REGISTRY, "get one tag of a model", hopsworks_4_6="the SDK itself raises a TypeError")
def get_tag(session: Session) -> None:
    expect(session.version(1).get_tag("checked"), {"by": "somebody", "times": 2}, "a tag")


@step(REGISTRY, "create a model with tags", since=(5, 1))
def create_with_tags(session: Session) -> None:
    tags = [{"name": "owner", "value": "team-b"}]
    model = session.registry.sklearn.create_model(**{**described(session, 4), "tags": tags})
    model.save(str(trained(session, 4)))
    expect(session.version(4).get_tags(), {"owner": "team-b"}, "the tags")


@step(REGISTRY, "ask for a model's feature view and training data", since=(4, 6))
def provenance(session: Session) -> None:
    model = session.version(1)
    expect(model.get_feature_view_provenance(), None, "the feature view's provenance")
    expect(model.get_training_dataset_provenance(), None, "the training dataset's provenance")


@step(REGISTRY, "delete a version of a model")
def delete_model(session: Session) -> None:
    session.version(3).delete()
    expect(
        [model.version for model in session.registry.get_models(session.model) if model.version == 3], [], "version 3"
    )
