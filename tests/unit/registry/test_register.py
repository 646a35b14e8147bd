"""What happens between registering's requests; whole registrations are in tests/airflow/test_operators.py."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.hopsworks.api import Answer
from airflow_provider_hsml.hopsworks.errors import (
    DeadlineExceededError,
    HopsworksError,
    InvalidInputError,
    NoResponseError,
    RequestRefusedError,
    SupersededError,
    UnexpectedResponseError,
    UnsupportedError,
)
from airflow_provider_hsml.hopsworks.flow import drive
from airflow_provider_hsml.hopsworks.registry import register as register_
from airflow_provider_hsml.hopsworks.registry import trained_until
from airflow_provider_hsml.hopsworks.registry.register import CLAIMS, MARK, UNCLAIMED, NewModel, register
from tests.support.fake import LOST, PROJECT, UNSENT, FakeHopsworks, refusal

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_hsml.hopsworks.api import Call


class NotATime(datetime):
    """The missing date of pandas."""

    def isoformat(self, *_: Any, **__: Any) -> str:
        return "NaT"


PUT = "PUT modelregistries/119/models/digits_1"
MODEL = {"id": "digits_1", "name": "digits", "version": 1}


@pytest.fixture
def model(tmp_path: Path) -> NewModel:
    (tmp_path / "model.joblib").write_text("weights")
    return NewModel.read(model_name="digits", model_path=tmp_path, framework="SKLEARN", metrics={"accuracy": 0.9})


@pytest.fixture
def fake() -> FakeHopsworks:
    """A registry in which the version appears when it is put there."""
    fake = FakeHopsworks(files={"models": {"count": 0}})
    fake.on[PUT] = lambda: fake.files.update({"models/digits_1": MODEL})
    return fake


def run(fake: FakeHopsworks, model: NewModel) -> int:
    return fake.run(register(PROJECT, model, run_key="run", clock=fake.clock)).version


def test_the_files_go_first(fake: FakeHopsworks, model: NewModel) -> None:
    assert run(fake, model) == 1
    assert fake.sent[-1] == PUT
    assert [kind for kind in fake.sent if kind.startswith("DELETE")] == [], "nothing is left over"


def test_a_lost_answer_is_looked_for_and_nothing_deleted(fake: FakeHopsworks, model: NewModel) -> None:
    fake.faults[PUT] = [LOST]

    assert run(fake, model) == 1
    assert fake.sent.count(PUT) == 1
    assert not any("Models/digits/1" in kind for kind in fake.sent if kind.startswith("DELETE"))


def test_a_put_that_was_not_carried_out_is_sent_again(fake: FakeHopsworks, model: NewModel) -> None:
    fake.faults[PUT] = [refusal(503, 120009)]

    assert run(fake, model) == 1
    assert fake.sent.count(PUT) == 2


def test_numbers_that_are_all_taken(fake: FakeHopsworks, model: NewModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Hopsworks says to each folder, though it lists no version."""
    monkeypatch.setattr(register_, "MOST_NUMBERS", 3)
    for number in range(1, 6):
        fake.faults[f"POST dataset/Models/digits/{number}"] = [refusal(400, 110012)]

    with pytest.raises(UnexpectedResponseError, match="3 folders after it are taken"):
        run(fake, model)
    assert "POST dataset/Models/digits/4" not in fake.sent


def test_before_4_2_the_argument_wins_over_the_folders_own_file(fake: FakeHopsworks, tmp_path: Path) -> None:
    """There the model's files and the files beside them are in one folder."""
    (tmp_path / "model.joblib").write_text("weights")
    (tmp_path / "input_example.json").write_text("[[0]]")
    (tmp_path / "expected.json").write_text("{}")
    model = NewModel.read(model_name="digits", model_path=tmp_path, framework="SKLEARN", input_example=[[1]])

    uploaded: list[tuple[str, bytes]] = []

    def send(call: Call[Any]) -> Any:
        if call.upload is not None:
            uploaded.append((call.upload.filename, call.upload.content))
        return fake.send(call)

    drive(register(replace(PROJECT, has_files_folder=False), model, clock=fake.clock), send, fake.sleep)
    assert sorted(uploaded) == [
        ("expected.json", b"{}"),
        ("input_example.json", b"[[1]]"),
        ("model.joblib", b"weights"),
    ]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (date(2026, 1, 2), "2026-01-02T00:00:00+00:00"),
        (datetime(2026, 1, 2, 3), "2026-01-02T03:00:00+00:00"),  # noqa: DTZ001 - UTC without an offset
        ("2026-01-02T03:00:00+02:00", "2026-01-02T01:00:00+00:00"),
    ],
)
def test_times_of_training_data(given: Any, expected: str) -> None:
    assert trained_until.read_argument(given) == expected


@pytest.mark.parametrize("given", ["9999-12-31T23:59:59-05:00", "yesterday", "", 20240101, 1.5, NotATime(2026, 1, 1)])
def test_no_times_of_training_data(given: Any) -> None:
    with pytest.raises(InvalidInputError, match="trained_until"):
        trained_until.read_argument(given)


class TestTags:
    TAG = "PUT modelregistries/119/models/digits_1/tags/approval"

    @pytest.fixture
    def tagged(self, model: NewModel) -> NewModel:
        return replace(model, tags={"approval": "approved"})

    def test_come_last(self, fake: FakeHopsworks, tagged: NewModel) -> None:
        registered = fake.run(register(PROJECT, tagged, run_key="run", clock=fake.clock))

        assert fake.sent[-2:] == [PUT, self.TAG]
        assert registered.tags == {"approval": "approved"}

    @pytest.mark.parametrize("answer", [Answer(404, b""), refusal(404, 120004)])
    def test_a_hopsworks_without_them(self, fake: FakeHopsworks, tagged: NewModel, answer: Answer) -> None:
        fake.faults["tags"] = [answer] * 3

        with pytest.raises(UnsupportedError, match="no tags of models"):
            run(fake, tagged)
        assert self.TAG not in fake.sent

    def test_a_proxy_that_is_lost_for_a_moment(self, fake: FakeHopsworks, tagged: NewModel) -> None:
        fake.faults["tags"] = [Answer(404, b"")]

        run(fake, tagged)
        assert fake.sent[-1] == self.TAG

    def test_without_a_schema(self, fake: FakeHopsworks, tagged: NewModel) -> None:
        """The version is there, and a retry, once the schema is, sets the tag and no more."""
        fake.faults[self.TAG] = [refusal(404, 370000)]

        with pytest.raises(
            RequestRefusedError, match=r"set tag 'approval'.*\n.*ask an administrator to make it"
        ) as caught:
            run(fake, tagged)
        assert not caught.value.transient
        claim = next(path for path in fake.reads if "registered" in path).rpartition("/")[2]
        fingerprint = fake.run(tagged.source.fingerprint(PROJECT))
        fake.files[claim] = {"model_name": "digits", "model_version": 1, "files": fingerprint}
        fake.files[f"Models/digits/1/{MARK}"] = {"run": claim.removesuffix(".json")}
        fake.sent.clear()
        assert run(fake, tagged) == 1
        assert fake.sent == [self.TAG]


FOLDER = "DELETE dataset/Models/digits/1"


def test_a_refused_put_leaves_no_version(fake: FakeHopsworks, model: NewModel) -> None:
    """Neither an empty version nor a number that the next one skips, nor a claim that a retry would read."""
    fake.faults[PUT] = [refusal(422, 120001, "no")]

    with pytest.raises(RequestRefusedError):
        run(fake, model)
    assert fake.sent[-1] == FOLDER
    assert fake.sent[-2].startswith("DELETE dataset/Resources/airflow-provider-hsml/registered/")


@pytest.mark.parametrize("read", [refusal(500, 120000), Answer(200, json.dumps(MODEL).encode())])
def test_a_refused_put_deletes_nothing_that_may_be_registered(
    fake: FakeHopsworks, model: NewModel, read: Answer
) -> None:
    fake.faults[PUT] = [refusal(422, 120001, "it exists already")]
    fake.faults["digits_1"] = [read]

    with pytest.raises(RequestRefusedError, match="it exists already"):
        run(fake, model)
    assert FOLDER not in fake.sent


@pytest.mark.parametrize("fault", [UNSENT, refusal(429, 120001)])
def test_a_put_that_may_succeed_later_keeps_the_files(fake: FakeHopsworks, model: NewModel, fault: Any) -> None:
    fake.faults[PUT] = [fault] * 3

    with pytest.raises(HopsworksError):
        run(fake, model)
    assert FOLDER not in fake.sent


@pytest.mark.parametrize("fault", [refusal(403, 110050, "not yours"), LOST])
def test_a_claim_that_cannot_be_written_leaves_no_folder(fake: FakeHopsworks, model: NewModel, fault: Any) -> None:
    fake.faults["POST dataset/upload/Resources/airflow-provider-hsml/registered"] = [fault]

    with pytest.raises(HopsworksError):
        run(fake, model)
    assert fake.sent[-1] == FOLDER
    assert PUT not in fake.sent


def test_a_registry_that_is_late(fake: FakeHopsworks, model: NewModel) -> None:
    fake.on[PUT] = lambda: fake.after(20, lambda: fake.files.update({"models/digits_1": MODEL}))

    assert run(fake, model) == 1


def test_a_registry_that_never_shows_it(fake: FakeHopsworks, model: NewModel) -> None:
    del fake.on[PUT]

    with pytest.raises(DeadlineExceededError, match="did not show it within 120 s"):
        run(fake, model)


@pytest.mark.parametrize("tidied", [None, refusal(500, 120000)])
def test_an_upload_that_fails_takes_its_folder_along(fake: FakeHopsworks, model: NewModel, tidied: Any) -> None:
    upload = "POST dataset/upload/Models/digits/1/Files"
    fake.faults[upload] = [refusal(413, 110055, "too large")]
    fake.faults["DELETE dataset/Models/digits/1"] = [tidied]

    with pytest.raises(RequestRefusedError, match="too large"):
        run(fake, model)
    assert fake.sent[-1] == "DELETE dataset/Models/digits/1"
    assert PUT not in fake.sent


@pytest.mark.parametrize("fault", [LOST, UNSENT])
@pytest.mark.parametrize("upload", ["POST dataset/upload/Models/digits/1/Files", "POST dataset/Models/digits/1/Files"])
def test_an_upload_without_an_answer_is_continued_by_the_retry(
    fake: FakeHopsworks, model: NewModel, upload: str, fault: str
) -> None:
    """A clean-up without answers may delete the note and not the folder."""
    fake.faults[upload] = [fault] * 6

    with pytest.raises(NoResponseError):
        run(fake, model)
    assert not any(kind.startswith("DELETE") for kind in fake.sent)


def test_an_upload_without_an_answer_that_no_retry_finds_takes_its_folder_along(
    fake: FakeHopsworks, model: NewModel
) -> None:
    fake.faults["POST dataset/upload/Models/digits/1/Files"] = [LOST]

    with pytest.raises(NoResponseError):
        fake.run(register(PROJECT, model, clock=fake.clock))
    assert fake.sent[-1] == FOLDER


@pytest.mark.parametrize("fault", [LOST, UNSENT, refusal(500, 120000)])
def test_a_claim_that_cannot_be_deleted_keeps_its_folder(fake: FakeHopsworks, model: NewModel, fault: Any) -> None:
    """Else the retry would go on with a folder that is gone."""
    claim = f"{CLAIMS}/{hashlib.sha256(b'run').hexdigest()}.json"
    fake.faults["POST dataset/upload/Models/digits/1/Files"] = [refusal(500, 120000)]
    fake.faults[f"DELETE dataset/{claim}"] = [fault]

    with pytest.raises(HopsworksError):
        run(fake, model)
    assert fake.sent[-1] == f"DELETE dataset/{claim}"


@pytest.mark.parametrize("is_marked", [True, False])
def test_a_try_that_stood_still_gives_way_to_a_later_one(
    fake: FakeHopsworks, model: NewModel, *, is_marked: bool
) -> None:
    """The later one marks its version right after it has written the note."""
    claim = f"{CLAIMS}/{hashlib.sha256(b'run').hexdigest()}.json"
    files = fake.run(model.source.fingerprint(PROJECT))
    fake.on["POST dataset/Models/digits/1"] = lambda: fake.files.update(
        {
            claim: {"model_name": "digits", "model_version": 7, "files": files},
            **({f"Models/digits/7/{MARK}": {"run": hashlib.sha256(b"run").hexdigest()}} if is_marked else {}),
        }
    )

    with pytest.raises(SupersededError, match="another try of this task is registering its files as version 7"):
        run(fake, model)
    assert fake.sent[-1] == FOLDER
    assert claim in fake.files


def test_a_try_gives_way_to_one_that_has_written_the_note_at_the_same_moment(
    fake: FakeHopsworks, model: NewModel
) -> None:
    claim = f"{CLAIMS}/{hashlib.sha256(b'run').hexdigest()}.json"
    files = fake.run(model.source.fingerprint(PROJECT))
    fake.on["POST dataset/upload/Models/digits/1"] = lambda: fake.files.update(
        {claim: {"model_name": "digits", "model_version": 2, "files": files}}
    )

    with pytest.raises(SupersededError, match="another try of this task is registering its files as version 2"):
        run(fake, model)
    assert fake.sent[-1] == FOLDER
    assert f"DELETE dataset/{claim}" not in fake.sent


def test_a_clean_up_that_was_answered_and_not_carried_out_is_repeated(fake: FakeHopsworks, model: NewModel) -> None:
    fake.faults["POST dataset/upload/Models/digits/1/Files"] = [refusal(413, 110055, "too large")]
    entry = Answer(200, json.dumps({"attributes": {"name": "1", "dir": True}}).encode())
    fake.faults["Models/digits/1"] = [None, entry]  # The first is the listing before the upload.

    with pytest.raises(RequestRefusedError, match="too large"):
        run(fake, model)
    assert fake.sent[-2:] == [FOLDER, FOLDER]


@pytest.mark.parametrize("upload", ["POST dataset/upload/Models/digits/1/Files", "POST dataset/upload/Models/digits/1"])
def test_an_upload_that_was_answered_and_not_carried_out(fake: FakeHopsworks, model: NewModel, upload: str) -> None:
    """A version without its model, or without the answers that it is verified by, is not registered."""
    mark = [] if upload.endswith("Files") else [None]  # The mark of the task is the first file beside the model's.
    fake.faults[upload] = [*mark, Answer(204, b"")]

    with pytest.raises(UnexpectedResponseError, match="the upload was answered, and the file does not exist"):
        run(fake, replace(model, input_example=[[1]]))
    assert PUT not in fake.sent
    assert fake.sent[-1] == FOLDER


def test_an_upload_that_was_cut_short(fake: FakeHopsworks, model: NewModel) -> None:
    fake.on["POST dataset/upload/Models/digits/1/Files"] = lambda: fake.uploaded["Models/digits/1/Files"].update(
        {"model.joblib": 3}
    )

    with pytest.raises(UnexpectedResponseError, match="has 3 bytes and not 7"):
        run(fake, model)
    assert PUT not in fake.sent


@pytest.mark.parametrize("fault", [LOST, UNSENT])
def test_a_number_that_was_perhaps_claimed_is_not_deleted(fake: FakeHopsworks, model: NewModel, fault: str) -> None:
    claim = "POST dataset/Models/digits/1"
    fake.faults[claim] = [fault]

    with pytest.raises(NoResponseError):
        run(fake, model)
    assert not any(kind.startswith("DELETE") for kind in fake.sent)


def test_a_retry_note_of_other_files_is_ignored(fake: FakeHopsworks, model: NewModel) -> None:
    fake.files["registered"] = {}
    fake.files[".json"] = {"files": "others", "model_name": "digits", "model_version": 7}

    assert run(fake, model) == 1


@pytest.mark.parametrize("is_registered", [True, False])
@pytest.mark.parametrize("mark", [None, {"run": "another task's"}])
def test_a_number_that_was_given_back_is_never_used_again(
    fake: FakeHopsworks, model: NewModel, mark: Any, is_registered: bool
) -> None:
    """Another task may have taken it meanwhile: its version is not this task's, and its files must stay."""
    files = fake.run(model.source.fingerprint(PROJECT))
    fake.files |= {f"Models/digits/7/{MARK}": mark} if mark else {}
    fake.files["registered"] = {}
    fake.files[".json"] = {"files": files, "model_name": "digits", "model_version": 7}
    fake.files |= {"models/digits_7": MODEL | {"id": "digits_7", "version": 7}} if is_registered else {}
    fake.faults[f"download/with_auth/Models/digits/7/{MARK}"] = [None if mark else refusal(404, 110008)] * 2

    assert run(fake, model) == 1
    assert not any("Models/digits/7" in kind for kind in fake.sent)


def test_the_folder_stays_as_long_as_a_retry_finds_its_note(fake: FakeHopsworks, model: NewModel) -> None:
    """Else the retry would find a number that is no longer its own."""
    fake.faults[PUT] = [refusal(422, 120001, "no")]
    note = f"DELETE dataset/Resources/airflow-provider-hsml/registered/{hashlib.sha256(b'run').hexdigest()}.json"
    fake.faults[note] = [refusal(403, 110050)]

    with pytest.raises(RequestRefusedError, match="no"):
        run(fake, model)
    assert fake.sent[-1] == note


CLAIM = "POST dataset/Models/digits/1"


@pytest.mark.parametrize("fault", [LOST, Answer(502, b"<html>"), Answer(200, b"")])
def test_a_claim_whose_answer_is_lost_is_ours_if_its_folder_stays_empty(
    fake: FakeHopsworks, model: NewModel, fault: Any
) -> None:
    fake.faults[CLAIM] = [fault]
    fake.files["Models/digits/1"] = {"count": 0, "items": []}

    assert run(fake, model) == 1
    assert fake.now >= 1000 + UNCLAIMED
    assert "POST dataset/Models/digits/2" not in fake.sent


@pytest.mark.parametrize("seconds", [0, 5])
def test_a_claim_whose_answer_is_lost_may_be_another_tasks(fake: FakeHopsworks, model: NewModel, seconds: int) -> None:
    fake.faults[CLAIM] = [LOST]
    fake.files["Models/digits/1"] = {"count": 0, "items": []}
    theirs = {"count": 1, "items": [{"attributes": {"name": MARK, "size": 1}}]}
    fake.after(seconds, lambda: fake.files.update({"Models/digits/1": theirs}))

    with pytest.raises(NoResponseError):
        run(fake, model)
    assert fake.sent[-1] == CLAIM


def test_of_several_claims_to_an_empty_folder_one_is_confirmed(fake: FakeHopsworks, model: NewModel) -> None:
    fake.faults[CLAIM] = [LOST]
    fake.faults[f"{CLAIM}/Files"] = [refusal(400, 110047)]
    fake.files["Models/digits/1"] = {"count": 0, "items": []}

    with pytest.raises(NoResponseError):
        run(fake, model)
    assert fake.sent[-1] == f"{CLAIM}/Files"


@pytest.mark.parametrize(("items", "ours"), [([], True), ([{"attributes": {"name": "Files", "dir": True}}], False)])
def test_a_given_number_whose_folder_is_left_of_an_earlier_try(
    fake: FakeHopsworks, model: NewModel, items: list[Any], ours: bool
) -> None:
    fake.faults[CLAIM] = [refusal(400, 110047)]
    fake.files["Models/digits/1"] = {"count": len(items), "items": items}
    numbered = replace(model, version=1)
    if ours:
        assert run(fake, numbered) == 1
    else:
        with pytest.raises(InvalidInputError, match="exists already"):
            run(fake, numbered)


def test_numbers_that_only_the_registry_knows_are_taken(fake: FakeHopsworks, model: NewModel) -> None:
    fake.files["models"] = {"count": 1, "items": [{"id": "digits_6", "name": "digits", "version": 6}]}
    fake.files["models/digits_7"] = MODEL | {"id": "digits_7", "version": 7}

    assert run(fake, model) == 7


@pytest.mark.parametrize("answer", [Answer(200, b""), Answer(204, b""), Answer(200, b"null"), Answer(200, b"{}")])
def test_an_empty_answer_to_a_claim_is_no_number_that_another_has_taken(
    fake: FakeHopsworks, model: NewModel, answer: Answer
) -> None:
    fake.faults["POST dataset/Models/digits/1"] = [answer]

    with pytest.raises(UnexpectedResponseError):
        run(fake, model)
    assert "POST dataset/Models/digits/2" not in fake.sent


@pytest.mark.parametrize("content", [Answer(200, b""), Answer(200, b"{"), Answer(200, b"[]"), Answer(200, b"null")])
def test_a_claim_that_cannot_be_read_is_no_missing_claim(fake: FakeHopsworks, model: NewModel, content: Answer) -> None:
    """Else the retry would register the same files as another version."""
    run(fake, model)
    claim = next(path for path in fake.reads if path.endswith(".json"))
    fake.files[claim] = {"attributes": {"name": "claim.json", "size": len(content.content)}}
    fake.faults[f"download/with_auth/{claim}"] = [content]
    fake.sent.clear()

    with pytest.raises(UnexpectedResponseError):
        run(fake, model)
    assert fake.sent == []
