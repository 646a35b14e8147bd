"""What is remembered of a deployment's promotions: written and read, whatever happens meanwhile."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hsml.hooks import HsmlHook
from airflow_provider_hsml.hopsworks import api
from airflow_provider_hsml.hopsworks.api import Answer
from airflow_provider_hsml.hopsworks.domain.deployment import Deployment
from airflow_provider_hsml.hopsworks.domain.journal_entry import (
    EntryState,
    JournalEntry,
    PreviousState,
    Rejection,
    ServedVersion,
    that_fit,
)
from airflow_provider_hsml.hopsworks.domain.rejection_key import rejection_key
from airflow_provider_hsml.hopsworks.errors import NoResponseError, UnexpectedResponseError
from airflow_provider_hsml.hopsworks.flow import Backoff
from airflow_provider_hsml.hopsworks.promotion import rejections
from airflow_provider_hsml.hopsworks.promotion.journal import FOLDER, KEPT, Journal, OutdatedDecision, open_journal
from airflow_provider_hsml.hopsworks.registry.upload import upload_bytes
from tests.support.fake import LOST, PROJECT, UNSENT, FakeHopsworks, row

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_hsml.local import LocalServing

SECRET = "hunter2-and-more"
UPLOAD = f"POST dataset/upload/{FOLDER}/digits"


def entry(state: EntryState = EntryState.PROMOTING, **changes: Any) -> JournalEntry:
    live = Deployment.from_json(row() | {"predictorEnvVars": [f"TOKEN={SECRET}"]})
    whole = JournalEntry(
        id="0123456789abcdef",
        state=state,
        run="dag/run/task/-1",
        at=1000.0,
        challenger=ServedVersion("demo", "digits", 2),
        desired={"model_version": 2},
        before=PreviousState.of(live),
        touches_env_vars=False,
        over=(1, "100"),
        rejected=(Rejection(ServedVersion("demo", "digits", 3), "it lies", 900.0),),
    )
    return dataclasses.replace(whole, **changes)


def files(serving: LocalServing) -> list[str]:
    """Give what all files of the journals hold."""
    return [
        path.read_text(errors="replace")
        for path in serving.root.rglob("*.json")
        if "airflow-provider-hsml" in path.parts
    ]


class TestAnEntry:
    @pytest.mark.parametrize("before", [entry().before, None])
    def test_comes_back_as_it_was(self, before: PreviousState | None) -> None:
        written = entry(before=before)

        assert JournalEntry.from_json(json.loads(json.dumps(written.to_json()))) == written

    @pytest.mark.parametrize(
        ("state", "at", "timeout", "expected"),
        [
            (EntryState.PROMOTING, 1000.0, 600.0, True),
            (EntryState.ROLLING_BACK, 1000.0, 600.0, True),
            (EntryState.PROMOTING, 300.0, 600.0, False),
            (EntryState.PROMOTING, 1000.0, 0.0, False),
            (EntryState.FAILED, 1000.0, 600.0, False),
            (EntryState.VERIFIED, 1000.0, 600.0, False),
        ],
    )
    def test_is_in_progress_for_its_timeout(self, state: EntryState, at: float, timeout: float, expected: bool) -> None:
        """A change that was left pending days ago is under way no longer."""
        assert entry(state, at=at, timeout=timeout).is_in_progress(1001.0) is expected

    def test_of_a_newer_version_of_this_is_read_as_far_as_it_is_known(self) -> None:
        data: Any = json.loads(json.dumps(entry().to_json()))
        for place in (data, data["before"], data["challenger"], data["rejected"][0]):
            place["newer"] = True

        assert JournalEntry.from_json(data) == entry()

    def test_of_an_older_version_lacks_what_came_later(self) -> None:
        data: Any = json.loads(json.dumps(entry().to_json()))
        for name in ("over", "is_rollback", "back_to", "restored", "reason"):
            del data[name]

        assert JournalEntry.from_json(data) == entry(over=None)

    @pytest.mark.parametrize(
        ("place", "odd"),
        [
            *(
                ((key,), 5)
                for key in ("id", "state", "run", "challenger", "wanted", "before", "reason", "asked", "over")
            ),
            *(((key,), []) for key in ("challenger", "wanted", "before", "over")),
            *(((key,), None) for key in ("id", "run", "at", "challenger", "wanted", "touches_env_vars", "rejected")),
            *(
                ((key,), "x")
                for key in ("at", "before", "passes", "is_rollback", "back_to", "over", "routes", "restored")
            ),
            *((("before", key), "x") for key in ("deployment_id", "version", "was_up", "served", "row")),
            *((("before", key), None) for key in ("deployment_id", "was_up", "served", "row")),
            (("before", "row", "modelVersion"), "1"),
            (("before", "row", "predictorResources"), "many"),
            (("challenger", "version"), "2"),
            (("rejected", 0, "served"), []),
            (("rejected", 0, "served"), None),
            (("rejected", 0, "reason"), 5),
            (("rejected", 0, "at"), None),
            (("over", 0), "x"),
        ],
        ids=str,
    )
    def test_of_an_odd_shape_is_none(self, place: tuple[Any, ...], odd: Any) -> None:
        data: Any = json.loads(json.dumps(entry().to_json()))
        inner = data
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = odd

        with pytest.raises((KeyError, TypeError, ValueError)):
            JournalEntry.from_json(data)

    def test_leaves_out_what_would_make_it_unreadable(self) -> None:
        rows = {"instances": [[0.0] * 1000] * 500}

        assert that_fit({"body": rows, "champion": "x" * 2_000_000, "old_names": ["a"]}) == {"old_names": ["a"]}

    def test_keeps_the_rejections_with_other_configurations(self) -> None:
        live = Deployment.from_json(row(modelVersion=2, predictor="b-0123456789abcdef.py"))
        ours, other = ServedVersion("demo", "digits", 2), ServedVersion("demo", "digits", 3)
        another_script = rejection_key(row(predictor="a-0123456789abcdef.py"), with_resources=False)
        this_one = rejection_key(live.raw, with_resources=True)
        kept = (Rejection(ours, "", 1.0, another_script), Rejection(other, "", 1.0))
        gone = (Rejection(ours, "", 1.0, this_one), Rejection(ours, "", 1.0))

        assert rejections.without(entry(rejected=(*kept, *gone)), live) == kept

    def test_knows_its_script_where_a_server_returns_the_name_only(self) -> None:
        path = "/Projects/demo/Resources/predict.py"
        served = ServedVersion("demo", "digits", 2)
        rejected = (Rejection(served, "", 1.0, rejection_key(row(predictor=path), with_resources=False)),)
        verified = entry(desired={"script_file": path}, rejected=rejected)

        assert rejections.without(verified, Deployment.from_json(row(predictor="predict.py"))) == ()


class TestAJournal:
    def test_has_no_entry_at_first(self, hook: HsmlHook) -> None:
        journal = hook.run(open_journal(hook.client.project, "none"))

        assert (journal.newest, journal.is_kept) == (None, True)

    def test_gives_what_was_written_last(self, hook: HsmlHook) -> None:
        journal = hook.run(open_journal(hook.client.project, "last"))
        hook.run(journal.write(entry()))
        hook.run(journal.write(entry(EntryState.VERIFIED)))

        assert hook.run(open_journal(hook.client.project, "last")).newest == entry(EntryState.VERIFIED)

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"id": 1}', b"\xff\xfe", b'{"before": 3}'])
    def test_with_a_broken_newest_entry_is_not_taken_for_an_older_one(
        self, hook: HsmlHook, content: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The newest entry may hold a change that is not verified, or the rejection of a version."""
        name = f"broken{len(content)}{content[-1:].hex()}"
        hook.run(hook.run(open_journal(hook.client.project, name)).write(entry()))
        hook.run(upload_bytes(hook.client.project, f"{FOLDER}/{name}/00000009-0000.json", content))
        monkeypatch.setattr(hook.client, "_attempts", 1)

        with pytest.raises(UnexpectedResponseError, match=r"delete the file .*00000009-0000\.json") as caught:
            hook.run(open_journal(hook.client.project, name))
        assert caught.value.transient
        hook.client.send(api.delete_path(hook.client.project, f"{FOLDER}/{name}/00000009-0000.json"))
        assert hook.run(open_journal(hook.client.project, name)).newest == entry()

    def test_with_a_list_that_lacks_its_rows_is_not_empty(self) -> None:
        fake = FakeHopsworks(row())
        fake.faults[f"{FOLDER}/digits"] = [Answer(200, b'{"count": 7, "items": []}')] * 2

        with pytest.raises(UnexpectedResponseError, match="it counts 7 rows"):
            fake.run(open_journal(PROJECT, "digits"))

    def test_is_listed_to_the_last_page(self) -> None:
        fake, names = FakeHopsworks(row()), ["00000002-aabcdef12.json", "00000001-aabcdef12.json"]
        pages = [{"count": 2, "items": [{"attributes": {"name": name}}]} for name in names]
        fake.faults[f"{FOLDER}/digits"] = [Answer(200, json.dumps(page).encode()) for page in reversed(pages)]
        fake.files[names[0]] = entry().to_json()

        journal = fake.run(open_journal(PROJECT, "digits"))
        assert (journal.names, journal.newest) == (names, entry())

    def test_leaves_files_of_others_alone(self, hook: HsmlHook) -> None:
        journal = hook.run(open_journal(hook.client.project, "others"))
        hook.run(journal.write(entry()))
        for other in ("notes.txt", "99999999.json", "zzzzzzzz-1.json"):
            hook.run(upload_bytes(hook.client.project, f"{FOLDER}/others/{other}", b"mine"))

        assert hook.run(open_journal(hook.client.project, "others")).newest == entry()

    def test_does_not_grow_for_ever(self, hook: HsmlHook) -> None:
        journal = hook.run(open_journal(hook.client.project, "many"))
        for number in range(KEPT + 6):
            hook.run(journal.write(entry(EntryState.VERIFIED, at=float(number))))

        journal = hook.run(open_journal(hook.client.project, "many"))
        assert len(journal.names) == KEPT
        assert journal.newest is not None
        assert journal.newest.at == KEPT + 5

    def test_of_two_at_once_ends_with_what_one_of_them_has_begun(self, hook: HsmlHook) -> None:
        """Also of the same promotion, to which both attach."""
        one, other = (hook.run(open_journal(hook.client.project, "two")) for _ in range(2))
        hook.run(one.write(entry()))
        with pytest.raises(OutdatedDecision):
            hook.run(other.write(entry(reason="the other")))
        other = hook.run(open_journal(hook.client.project, "two"))
        hook.run(other.write(entry(reason="the other")))
        hook.run(one.write(entry(EntryState.VERIFIED)))

        third = hook.run(open_journal(hook.client.project, "two"))
        assert len(third.names) == 2
        assert third.newest == entry(reason="the other")
        hook.run(third.write(entry(EntryState.ROLLED_BACK)))
        assert hook.run(open_journal(hook.client.project, "two")).newest == entry(EntryState.ROLLED_BACK)

    def test_of_two_that_began_at_the_same_moment_is_ended_by_the_newer(self, hook: HsmlHook) -> None:
        """Else its change would stay pending for ever."""
        journal = hook.run(open_journal(hook.client.project, "pair"))
        hook.run(journal.write(entry()))
        (begun,) = journal.names
        theirs = json.dumps(entry(reason="the other").to_json()).encode()
        hook.run(upload_bytes(hook.client.project, f"{FOLDER}/pair/{begun[:10]}00000000.json", theirs))
        hook.run(journal.write(entry(EntryState.VERIFIED)))

        assert hook.run(open_journal(hook.client.project, "pair")).newest == entry(EntryState.VERIFIED)

    def test_an_entry_that_was_not_stored_hides_none_of_another_run(self, hook: HsmlHook) -> None:
        journal = hook.run(open_journal(hook.client.project, "phantom"))
        journal.names.insert(0, "00000001-bffffffff.json")
        theirs = json.dumps(entry(reason="the other").to_json()).encode()
        for path in (FOLDER.rpartition("/")[0], FOLDER, f"{FOLDER}/phantom"):
            hook.client.send(api.make_folder(hook.client.project, path))
        hook.run(upload_bytes(hook.client.project, f"{FOLDER}/phantom/00000001-b00000000.json", theirs))

        assert not hook.run(journal.write(entry(EntryState.VERIFIED)))
        with pytest.raises(OutdatedDecision):
            hook.run(journal.write(entry()))
        assert hook.run(open_journal(hook.client.project, "phantom")).newest == entry(reason="the other")

    @pytest.mark.parametrize("number", range(4))
    def test_with_two_of_one_number_gives_the_one_that_begins(self, hook: HsmlHook, number: int) -> None:
        """Each has looked before the other wrote."""
        name = f"same{number}"
        one, other = (hook.run(open_journal(hook.client.project, name)) for _ in range(2))
        hook.run(other.write(entry()))
        (begun,) = other.names
        whole = hook.client.send(api.download(hook.client.project, f"{FOLDER}/{name}/{begun}")) or b""
        hook.client.send(api.delete_path(hook.client.project, f"{FOLDER}/{name}/{begun}"))
        hook.run(one.write(entry(EntryState.VERIFIED)))
        hook.run(upload_bytes(hook.client.project, f"{FOLDER}/{name}/{begun}", whole))

        assert hook.run(open_journal(hook.client.project, name)).newest == entry()

    def test_holds_no_value_of_an_environment_variable(
        self, hook: HsmlHook, serving: LocalServing, register: Callable[..., int]
    ) -> None:
        register("secretive", 1)
        spec = {"env_vars": {"TOKEN": SECRET}}
        hook.deploy_model("secretive", spec=spec)
        hook.deploy_model("secretive", spec={"env_vars": {"TOKEN": SECRET + "2"}, "resources": {"instances": 2}})
        register("secretive", 2)
        hook.deploy_model("secretive", spec=spec)

        held = [text for text in files(serving) if "secretive" in text]
        assert held
        assert not any(SECRET in text for text in held)
        assert any(json.loads(text)["touches_env_vars"] for text in held)

    def test_is_not_kept_by_a_key_that_may_not(
        self,
        serving: LocalServing,
        register: Callable[..., int],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """And then nothing is taken for verified that only looks so."""
        register("unkept", 1)
        monkeypatch.setenv("AIRFLOW_CONN_HSML_DEFAULT", json.dumps(serving.connection_fields("no.scope-of-files")))
        hook = HsmlHook()

        assert hook.deploy_model("unkept").action == "created"
        assert caplog.text.count("the journal is not kept from one run to the next") == 1
        assert not any("unkept" in text for text in files(serving))
        assert hook.deploy_model("unkept").verified_by is not None


LISTED = "dataset/Resources/airflow-provider-hsml/journal/digits"
READ = f"dataset/download/with_auth/{LISTED.removeprefix('dataset/')}/00000001-b1.json"


class TestAFileThatIsNotWhole:
    WHOLE = json.dumps(entry(rejected=()).to_json()).encode()

    def fake(self, *contents: bytes) -> FakeHopsworks:
        attributes = {"name": "00000001-b1.json", "size": len(self.WHOLE)}
        files = {"journal/digits": {"count": 1, "items": [{"attributes": attributes}]}}
        faults = {LISTED.partition("/")[2]: [], READ.partition("/")[2]: [Answer(200, one) for one in contents]}
        return FakeHopsworks(files=files, faults=faults)

    def test_is_read_again_while_another_run_may_be_writing_it(self) -> None:
        fake = self.fake(self.WHOLE[:-9], self.WHOLE)

        newest = fake.run(open_journal(PROJECT, "digits")).newest
        assert newest is not None
        assert newest.state is EntryState.PROMOTING
        assert fake.now == 1002

    @pytest.mark.parametrize("content", [b"", b"{}", b"<html>a login page</html>", WHOLE[:-9], WHOLE + b" "])
    def test_is_no_empty_journal(self, content: bytes) -> None:
        with pytest.raises(UnexpectedResponseError):
            self.fake(content, content).run(open_journal(PROJECT, "digits"))

    @pytest.mark.parametrize("answer", [Answer(200, b""), Answer(204, b""), Answer(200, b"null"), Answer(404, b"")])
    def test_a_listing_that_is_not_one(self, answer: Answer) -> None:
        fake = self.fake()
        fake.faults[LISTED.partition("/")[2]] = [answer, answer]

        with pytest.raises(UnexpectedResponseError):
            fake.run(open_journal(PROJECT, "digits"))

    def test_a_route_that_was_used_is_remembered(self) -> None:
        old: Any = json.loads(json.dumps(entry().to_json()))
        del old["routes"]

        assert JournalEntry.from_json(old).routes == ()
        assert Journal(PROJECT, "digits", newest=entry(back_to=3)).used_routes == ("versions",)
        assert Journal(PROJECT, "digits", newest=entry(routes=("tags",))).used_routes == ("tags",)


class TestAServerThatIsAway:
    def fake(self, *faults: Any) -> tuple[FakeHopsworks, Journal]:
        fake = FakeHopsworks(faults={UPLOAD: list(faults)})
        return fake, fake.run(open_journal(PROJECT, "digits"))

    def backoff(self, fake: FakeHopsworks) -> Backoff:
        return Backoff(first=1.0, most=10.0, deadline=fake.now + 60.0, clock=fake.clock)

    @pytest.mark.parametrize("fault", [UNSENT, LOST])
    def test_is_an_error_before_the_change(self, fault: str) -> None:
        fake, journal = self.fake(fault)

        with pytest.raises(NoResponseError):
            fake.run(journal.write(entry()))

    @pytest.mark.parametrize("fault", [UNSENT, LOST])
    def test_is_told_again_how_it_ended(self, fault: str) -> None:
        fake, journal = self.fake(fault)

        fake.run(journal.write(entry(EntryState.VERIFIED), self.backoff(fake)))

        assert fake.sent.count(UPLOAD) == 2

    def test_for_good_leaves_it_to_the_next_run(self, caplog: pytest.LogCaptureFixture) -> None:
        fake, journal = self.fake(*[UNSENT] * 99)

        fake.run(journal.write(entry(EntryState.VERIFIED), self.backoff(fake)))

        assert "the next run verifies deployment 'digits' again" in caplog.text
