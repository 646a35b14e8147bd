"""Steps: deployments, from creation to deletion."""

from __future__ import annotations

import contextlib
import io
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from conformance.steps import SCRIPTS, WAIT_SECONDS, Session, expect, refused, step

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

DEPLOYING, RUNNING, PREDICTING = "Deploying", "Running", "Predicting"
CHANGING, CONFIGURING, ENDING = "Changing", "Configuring", "Ending"
NO_STATUS = "the SDK itself refuses every status"
NO_OBJECTS = "the SDK itself takes only lists in them"
NO_ENVIRONMENT = "the SDK itself does not read it"
WRAPPED = "the SDK itself wraps the object in two lists"
CONFIG_SINCE, VARIABLES_SINCE = (4, 6), (5, 1)
"""The first of the releases with configuration files, and with environment variables of a script."""


def resources(cores: float = 1, instances: int = 1) -> Any:
    """Return resources, in the SDK's classes."""
    from hsml.resources import PredictorResources, Resources

    return PredictorResources(
        num_instances=instances,
        requests=Resources(cores=0.1, memory=128, gpus=0),
        limits=Resources(cores=cores, memory=512, gpus=0),
    )


def reachable(session: Session, file: Path) -> str:
    """Return the path of a file as the SDK expects it: on this machine, or before 5 in HopsFS after an upload."""
    if session.sdk.release >= (5, 0):
        return str(file)
    path = f"{session.resources}/{file.name}"
    if not session.sdk.files.path_exists(path):
        session.sdk.files.upload(str(file), session.resources)
    return f"/Projects/{session.sdk.project}/{path}"


def known(session: Session, purpose: str) -> Any:
    """Read a deployment again, as another program would."""
    return session.serving.get_deployment(session.named(purpose))


def start(deployment: Any) -> None:
    deployment.start(await_running=WAIT_SECONDS)
    expect(deployment.get_state().status, "Running", "the status")
    if deployment.model_name and not hasattr(deployment, "get_versions"):
        wait_for_route(deployment)


def wait_for_route(deployment: Any) -> None:
    """Wait until the ingress routes to a Running deployment: the SDKs before 5.2 do not."""
    ends = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            deployment.predict(inputs=[[1.0, 2.0]])
        except Exception as error:
            if "not created or running" not in str(error) or time.monotonic() > ends:
                raise
            time.sleep(0.5)
        else:
            return


def answers(deployment: Any, expected: float) -> None:
    """Wait for the new answer: the SDKs stop waiting at Running, when the previous version may still be answering."""
    ends = time.monotonic() + WAIT_SECONDS
    while (answer := predictions(deployment.predict(inputs=[[1.0, 2.0]]))) != [expected] and time.monotonic() < ends:
        time.sleep(0.5)
    expect(answer, [expected], "the prediction")


def stop(deployment: Any) -> None:
    deployment.stop(await_stopped=WAIT_SECONDS)
    expect(deployment.get_state().status, "Stopped", "the status")


def predictions(answer: Any) -> list[Any]:
    return [round(each, 6) if isinstance(each, float) else each for each in answer["predictions"]]


def printed(call: Any) -> str:
    """Return the output of a call that only prints."""
    with contextlib.redirect_stdout(io.StringIO()) as output:
        call()
    return output.getvalue()


# --- Deploying --------------------------------------------------------------------------------------------------------


@step(DEPLOYING, "model.deploy(), with nothing but the model")
def deploy_model(session: Session) -> None:
    deployment = session.version(1).deploy()
    expect(deployment.name, session.model, "the name that is derived")
    expect(deployment.get_state().status in ("Creating", "Created"), True, "it is created")
    deployment.delete(force=True)


@step(DEPLOYING, "model.deploy() with name, description and resources")
def deploy_model_with_resources(session: Session) -> None:
    name = session.named("main")
    deployment = session.version(1).deploy(name=name, description="the first", resources=resources())
    expect((deployment.name, deployment.model_version), (name, 1), "the deployment")
    expect(deployment.resources.limits.memory, 512, "its memory")


@step(DEPLOYING, "create_predictor() and predictor.deploy()")
def deploy_predictor(session: Session) -> None:
    predictor = session.serving.create_predictor(
        session.version(2), name=session.named("predictor"), resources=resources()
    )
    expect(predictor.deploy().model_version, 2, "the model's version")


@step(DEPLOYING, "create_predictor(), create_deployment() and deployment.save()")
def save_deployment(session: Session) -> None:
    predictor = session.serving.create_predictor(session.version(2))
    deployment = session.serving.create_deployment(predictor, name=session.named("saved"))
    deployment.save()
    expect((deployment.is_stopped(), deployment.is_running()), (True, False), "it is stopped, not running")


@step(DEPLOYING, "get a deployment by name and by id, list them all and by model")
def get_deployments(session: Session) -> None:
    serving = session.serving
    by_name = known(session, "main")
    expect(serving.get_deployment_by_id(by_name.id).name, by_name.name, "the deployment by its id")
    names = {session.named(purpose) for purpose in ("main", "predictor", "saved")}
    for listed in (serving.get_deployments(), serving.get_deployments(model=session.version(1))):
        expect(names <= {each.name for each in listed}, True, f"{sorted(names)} are among {listed}")
    if session.sdk.name == "hsml":  # hsml 3.7 raises the 404.
        refused(lambda: known(session, "absent"), "240000")
    else:
        expect(known(session, "absent"), None, "a deployment that is not there")


@step(DEPLOYING, "list deployments by status", hopsworks=NO_STATUS, hsml=NO_STATUS)
def get_deployments_by_status(session: Session) -> None:
    names = {session.named(purpose) for purpose in ("main", "predictor", "saved")}
    created = {each.name for each in session.serving.get_deployments(status="created")}
    expect(names <= created, True, f"{sorted(names)} are among {sorted(created)}")
    running = {each.name for each in session.serving.get_deployments(status="running")}
    expect(names & running, set(), "those that run")


@step(DEPLOYING, "a name that is taken: the same model's is given back, another's is refused")
def deploy_twice(session: Session) -> None:
    name = session.named("main")
    expect(session.version(1).deploy(name=name).id, known(session, "main").id, "the id")
    refused(lambda: session.version(2).deploy(name=name), "same name")


@step(DEPLOYING, "describe a deployment, its page, the endpoints")
def describe(session: Session) -> None:
    deployment = known(session, "main")
    expect(session.named("main") in printed(deployment.describe), True, "the description holds the name")
    expect(deployment.get_url().endswith(f"/deployments/{deployment.id}"), True, f"its page {deployment.get_url()}")
    endpoints = session.serving.get_inference_endpoints()
    expect("LOAD_BALANCER" in [each.type for each in endpoints], True, f"an endpoint for outside in {endpoints}")


# --- Running and predicting -------------------------------------------------------------------------------------------


@step(RUNNING, "start a scikit-learn model without a script")
def start_model(session: Session) -> None:
    deployment = known(session, "main")
    start(deployment)
    expect((deployment.is_running(), deployment.is_stopped()), (True, False), "it is running, not stopped")
    deployment.start()  # "already running"


@step(PREDICTING, "data={'instances': [...]}")
def predict_instances(session: Session) -> None:
    answer = known(session, "main").predict(data={"instances": [[1.0, 2.0], [3.0, 4.0]]})
    expect(predictions(answer), [3.0, 7.0], "the predictions")


@step(PREDICTING, "inputs= a list, and a list of lists")
def predict_inputs(session: Session) -> None:
    deployment = known(session, "main")
    expect(predictions(deployment.predict(inputs=[1.0, 2.0])), [3.0], "the prediction")
    expect(predictions(deployment.predict(inputs=[[1.0, 2.0], [3.0, 4.0]])), [3.0, 7.0], "the predictions")


@step(PREDICTING, "the model's own input example")
def predict_example(session: Session) -> None:
    answer = known(session, "main").predict(inputs=session.version(1).input_example)
    expect(predictions(answer), [3.0], "the prediction")


@step(PREDICTING, "invalid input for the model is answered with an error; so is a body without instances")
def predict_badly(session: Session) -> None:
    deployment = known(session, "main")
    refused(lambda: deployment.predict(inputs=[["a", "b"]]))
    refused(lambda: deployment.predict(data={"rows": [[1.0, 2.0]]}), "instances")
    refused(lambda: known(session, "saved").predict(inputs=[[1.0, 2.0]]), "not created or running")


@step(PREDICTING, "the URL that other HTTP clients use", since=(5, 1))
def predict_by_url(session: Session) -> None:
    import requests

    url = known(session, "main").get_inference_url()
    answer = requests.post(
        url,
        json={"instances": [[1.0, 2.0]]},
        headers={"Authorization": f"ApiKey {session.sdk.key}"},
        timeout=30,
        verify=False,  # noqa: S501 - as the SDK itself does it
    )
    expect(predictions(answer.json()), [3.0], f"the prediction of {url}")


@step(RUNNING, "logs: the last lines of each instance")
def logs(session: Session) -> None:
    deployment = known(session, "main")
    output = printed(lambda: deployment.get_logs(tail=50))
    expect(f"{deployment.name}-predictor-" in output, True, f"the instance is named in {output!r}")


@step(RUNNING, "read_logs and tail_logs", since=(5, 1))
def read_logs(session: Session) -> None:
    deployment = known(session, "main")
    expect(bool(deployment.read_logs(tail=20).strip()), True, "there are logs")
    followed = "".join(deployment.tail_logs(since="2020-01-01T00:00:00Z", interval=0.5, timeout=2))
    expect(isinstance(followed, str), True, "it can be followed")


# --- Changing ---------------------------------------------------------------------------------------------------------


@step(CHANGING, "update in place: another version of the model, while it runs")
def update(session: Session) -> None:
    deployment = known(session, "main")
    deployment.model_version = 2
    deployment.predictor.description = "the second"  # The SDKs do not send a description set on the deployment itself.
    deployment.save(await_update=WAIT_SECONDS)
    expect(known(session, "main").description, "the second", "the description")
    answers(deployment, 6.0)


@step(CHANGING, "update to a new version of the deployment", since=(5, 2))
def update_with_new_version(session: Session) -> None:
    deployment = known(session, "main")
    deployment.model_version = 1
    deployment.save(await_update=WAIT_SECONDS, new_version=True)
    expect(deployment.version, 2, "the deployment's version")
    answers(deployment, 3.0)


@step(CHANGING, "get_versions and rollback", since=(5, 2))
def roll_back(session: Session) -> None:
    deployment = known(session, "main")
    versions = deployment.get_versions()
    expect([(each.version, each.active) for each in versions], [(2, True), (1, False)], "the versions")
    deployment.rollback(1, await_update=WAIT_SECONDS)
    expect(known(session, "main").version, 1, "the active version")
    answers(deployment, 6.0)
    refused(lambda: deployment.rollback(99), "99")


@step(CHANGING, "restart", since=(5, 1))
def restart(session: Session) -> None:
    deployment = known(session, "main")
    deployment.restart(await_stopped=WAIT_SECONDS, await_running=WAIT_SECONDS)
    expect(deployment.get_state().status, "Running", "the status")


@step(CHANGING, "tags of a deployment: set, get, list, delete", since=(5, 1))
def tag_deployment(session: Session) -> None:
    deployment = known(session, "main")
    deployment.add_tag("owner", "team-a")
    deployment.add_tag("checked", {"times": 2})
    expect(deployment.get_tag("owner"), "team-a", "a tag")
    expect(deployment.get_tags(), {"owner": "team-a", "checked": {"times": 2}}, "the tags")
    deployment.delete_tag("owner")
    expect(list(deployment.get_tags()), ["checked"], "the tags that are left")


@step(CHANGING, "change a stopped deployment; an invalid change is refused")
def change_stopped(session: Session) -> None:
    deployment = known(session, "saved")
    deployment.model_version = 1
    deployment.save()
    expect(known(session, "saved").model_version, 1, "the model's version")
    deployment.model_version = 99
    refused(deployment.save, "240006", "240019", "240016", "not found", "does not exist")


# --- Configuring ------------------------------------------------------------------------------------------------------


@step(CONFIGURING, "a predictor script; predict by rows that are objects")
def deploy_script(session: Session) -> None:
    options: dict[str, Any] = {}
    if session.sdk.release >= CONFIG_SINCE:
        config = session.folder / "settings.json"
        config.write_text('{"threshold": 0.5}')
        options = {"config_file": reachable(session, config)}
    if session.sdk.release >= VARIABLES_SINCE:
        options["env_vars"] = {"CONFORMANCE": "a=b"}
    deployment = session.version(1).deploy(
        name=session.named("script"),
        script_file=reachable(session, SCRIPTS / "predictor.py"),
        resources=resources(),
        **options,
    )
    start(deployment)
    rows = [{"a": 1.0, "b": 2.0}, {"a": 3.0, "b": 4.0}]
    expect(predictions(deployment.predict(inputs=rows)), [3.0, 7.0], "the predictions for objects")


@step(CONFIGURING, "inputs= one row that is an object", hopsworks_4_6=WRAPPED, hopsworks_5_1=WRAPPED)
def predict_object(session: Session) -> None:
    answer = known(session, "script").predict(inputs={"a": 1.0, "b": 2.0})
    expect(predictions(answer), [3.0], "the prediction for an object")


@step(
    CONFIGURING,
    "data={'instances': [...]} of rows that are objects",
    hopsworks_4_6=NO_OBJECTS,
)
def predict_instances_of_objects(session: Session) -> None:
    rows = [{"a": 1.0, "b": 2.0}, {"a": 3.0, "b": 4.0}]
    answer = known(session, "script").predict(data={"instances": rows})
    expect(predictions(answer), [3.0, 7.0], "the predictions for instances")


@step(CONFIGURING, "environment variables of a script: its deployment, its model")
def script_variables(session: Session) -> None:
    deployment = known(session, "script")
    rows = [{"variable": name} for name in ("DEPLOYMENT_NAME", "MODEL_NAME", "MODEL_VERSION")]
    expect(predictions(deployment.predict(inputs=rows)), [deployment.name, session.model, "1"], "the variables")


@step(CONFIGURING, "a configuration file", since=CONFIG_SINCE)
def script_config(session: Session) -> None:
    answer = known(session, "script").predict(inputs=[{"config": True}])
    expect(predictions(answer), ['{"threshold": 0.5}'], "the file that the script reads")


@step(CONFIGURING, "environment variables of one's own", since=VARIABLES_SINCE)
def script_own_variables(session: Session) -> None:
    deployment = known(session, "script")
    expect(deployment.env_vars, {"CONFORMANCE": "a=b"}, "the variables of the deployment")
    answer = deployment.predict(inputs=[{"variable": "CONFORMANCE"}])
    expect(predictions(answer), ["a=b"], "the value that the script reads")


@step(CONFIGURING, "a script's output is in the logs")
def script_logs(session: Session) -> None:
    deployment = known(session, "script")
    output = printed(lambda: deployment.get_logs(tail=200))
    expect("conformance: 2 rows" in output, True, f"the script's output is in {output[-500:]!r}")


@step(CONFIGURING, "download the files of a deployment")
def download_artifact(session: Session) -> None:
    deployment = known(session, "script")
    if session.sdk.name == "hsml":
        deployment.download_artifact()
    else:
        folder = session.folder / "artifact"
        deployment.download_artifact_files(str(folder))
        names: Iterable[str] = sorted(path.name for path in folder.rglob("*") if path.is_file())
        expect([name for name in names if name.endswith("predictor.py")] != [], True, f"the script is among {names}")


@step(CONFIGURING, "update a deployment that was read back: its script stays")
def update_script(session: Session) -> None:
    deployment = known(session, "script")
    deployment.resources = resources(cores=2)
    deployment.save(await_update=WAIT_SECONDS)
    expect(known(session, "script").resources.limits.cores, 2, "the cores")
    answers(deployment, 3.0)
    stop(deployment)


@step(CONFIGURING, "a transformer in front of the predictor, and its logs")
def deploy_transformer(session: Session) -> None:
    transformer = session.serving.create_transformer(script_file=reachable(session, SCRIPTS / "transformer.py"))
    deployment = session.version(1).deploy(
        name=session.named("transformer"), transformer=transformer, resources=resources()
    )
    start(deployment)
    answer = deployment.predict(inputs=[[1.0, 2.0]])
    expect((predictions(answer), answer["transformed"]), ([30.0], "yes"), "the transformed prediction")
    output = printed(lambda: deployment.get_logs(component="transformer", tail=200))
    expect("conformance: transforming" in output, True, f"the transformer's output is in {output[-500:]!r}")


@step(CONFIGURING, "take the transformer away again")
def remove_transformer(session: Session) -> None:
    deployment = known(session, "transformer")
    deployment.transformer = None
    if session.sdk.name == "hsml":  # The scripts of an existing artifact cannot be changed.
        deployment.artifact_version = "CREATE"
    deployment.save(await_update=WAIT_SECONDS)
    expect(known(session, "transformer").transformer, None, "the transformer")
    answers(deployment, 3.0)
    stop(deployment)


@step(CONFIGURING, "an inference logger with a topic of its own, a batcher")
def logger_and_batcher(session: Session) -> None:
    from hsml.inference_batcher import InferenceBatcher
    from hsml.inference_logger import InferenceLogger
    from hsml.kafka_topic import KafkaTopic

    deployment = session.version(1).deploy(
        name=session.named("logger"),
        inference_logger=InferenceLogger(kafka_topic=KafkaTopic("CREATE", 1, 1), mode="ALL"),
        inference_batcher=InferenceBatcher(enabled=True, max_batch_size=32, max_latency=5000, timeout=5),
        resources=resources(),
    )
    live = known(session, "logger")
    expect(live.inference_logger.mode, "ALL", "the logger's mode")
    expect(live.inference_logger.kafka_topic.name not in (None, "NONE", "CREATE"), True, "the topic has a name")
    expect((live.inference_batcher.enabled, live.inference_batcher.max_batch_size), (True, 32), "the batcher")
    while deployment.get_state().status == "Creating":
        time.sleep(0.5)
    deployment.predictor.description = "described"
    deployment.save()
    expect(known(session, "logger").inference_logger.mode, "ALL", "the logger's mode after an update")


@step(CONFIGURING, "scaling at creation", since=(4, 6))
def scaling(session: Session) -> None:
    from hsml.scaling_config import PredictorScalingConfig

    session.version(1).deploy(
        name=session.named("scaling"),
        scaling_configuration=PredictorScalingConfig(min_instances=1, max_instances=3, scale_metric="RPS", target=70),
    )
    live = known(session, "scaling")
    expect((live.scaling_configuration.min_instances, live.scaling_configuration.max_instances), (1, 3), "the scaling")


@step(
    CONFIGURING,
    "an environment at creation, read back",
    since=(4, 6),
    hopsworks_4_6=NO_ENVIRONMENT,
    hopsworks_5_1=NO_ENVIRONMENT,
)
def deploy_in_environment(session: Session) -> None:
    session.version(1).deploy(name=session.named("environment"), environment="pandas-inference-pipeline")
    expect(known(session, "environment").environment, "pandas-inference-pipeline", "the environment")


@step(CONFIGURING, "tags at creation", since=(5, 1))
def deploy_with_tags(session: Session) -> None:
    deployment = session.version(1).deploy(name=session.named("tags"), tags=[{"name": "owner", "value": "team-b"}])
    expect(deployment.get_tags(), {"owner": "team-b"}, "the tags")


@step(CONFIGURING, "an endpoint without a model, asked by its URL", since=(5, 1))
def deploy_endpoint(session: Session) -> None:
    import requests

    endpoint = session.serving.create_endpoint(
        name=session.named("endpoint"), script_file=reachable(session, SCRIPTS / "endpoint.py")
    )
    deployment = endpoint.deploy()
    start(deployment)
    ends = time.monotonic() + WAIT_SECONDS
    while True:
        answer = requests.get(
            f"{deployment.get_endpoint_url()}/hello",
            headers={"Authorization": f"ApiKey {session.sdk.key}"},
            timeout=30,
            verify=False,  # noqa: S501 - as the SDK itself does it
        )
        if answer.status_code != HTTPStatus.NOT_FOUND or time.monotonic() > ends:
            break
        time.sleep(0.5)  # SDKs before 5.2 do not wait for the ingress.
    expect((answer.status_code, answer.text), (200, deployment.name), "the endpoint's answer")
    stop(deployment)


@step(CONFIGURING, "the serving tool DEFAULT, with a script")
def deploy_on_default(session: Session) -> None:
    deployment = session.version(1).deploy(
        name=session.named("default"),
        script_file=reachable(session, SCRIPTS / "predictor.py"),
        serving_tool="DEFAULT",
        resources=resources(),
    )
    start(deployment)
    expect(predictions(deployment.predict(inputs=[[1.0, 2.0]])), [3.0], "the prediction")
    stop(deployment)


@step(CONFIGURING, "TensorFlow Serving starts, or fails with a reason where there is none")
def deploy_tensorflow(session: Session) -> None:
    model = session.registry.get_model(f"{session.model}_tensorflow", version=1)
    deployment = model.deploy(name=session.named("tensorflow"), resources=resources())
    refused(lambda: deployment.start(await_running=WAIT_SECONDS), "TENSORFLOW_SERVING")
    expect(deployment.get_state().status, "Failed", "the status")
    stop(deployment)


@step(CONFIGURING, "vLLM starts, or fails with a reason where there is none", hsml="hsml 3.7 knows no LLM models")
def deploy_llm(session: Session) -> None:
    config = session.folder / "vllm.yaml"
    config.write_text("max_model_len: 512\n")
    model = session.registry.get_model(f"{session.model}_llm", version=1)
    deployment = model.deploy(name=session.named("llm"), config_file=reachable(session, config), resources=resources())
    refused(lambda: deployment.start(await_running=WAIT_SECONDS), "VLLM")
    stop(deployment)


# --- Ending -----------------------------------------------------------------------------------------------------------


@step(ENDING, "a model that is deployed cannot be deleted, nor a deployment that runs")
def delete_too_early(session: Session) -> None:
    refused(session.version(2).delete, "360009")
    refused(known(session, "main").delete, "not stopped")


@step(ENDING, "stop; it answers no more, and starts again")
def stop_and_start(session: Session) -> None:
    deployment = known(session, "main")
    stop(deployment)
    refused(lambda: deployment.predict(inputs=[[1.0, 2.0]]), "not created or running")
    deployment.stop()  # "already stopped"
    start(deployment)
    expect(predictions(deployment.predict(inputs=[[1.0, 2.0]])), [6.0], "the prediction")
    stop(deployment)


@step(ENDING, "delete the deployments: one that is stopped, one that runs by force")
def delete_deployments(session: Session) -> None:
    mine = [
        each for each in session.serving.get_deployments() if each.name.startswith((session.named(""), session.model))
    ]
    for deployment in mine:
        deployment.delete(force=deployment.name != session.named("main"))
    left = {each.name for each in session.serving.get_deployments()}
    expect({each.name for each in mine} & left, set(), "the deployments that are left")


@step(ENDING, "delete the models and files, log out")
def clean_up(session: Session) -> None:
    names = ["", "_hopsfs", "_tensorflow", "_torch", "_python", "_llm"]
    for name in (f"{session.model}{suffix}" for suffix in names):
        for model in session.registry.get_models(name):
            model.delete()
        expect(session.registry.get_models(name), [], f"versions of {name}")
    session.sdk.files.rm(session.resources)
    session.sdk.log_out()
