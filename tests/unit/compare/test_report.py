"""The report is one file for people: complete, without anything from elsewhere, and safe whatever is in it."""

from __future__ import annotations

import html.parser
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from airflow_provider_hsml.hopsworks.compare.compare import compare
from airflow_provider_hsml.hopsworks.compare.report import report
from airflow_provider_hsml.hopsworks.compare.scored import Rows, Scored
from airflow_provider_hsml.hopsworks.domain.journal_entry import ServedVersion

if TYPE_CHECKING:
    from airflow_provider_hsml.hopsworks.domain.comparison import Comparison

EVIL = "<script>alert(1)</script>\"'&\x1b[31m\u202e"
VOID = {"meta", "line", "circle", "rect", "br"}


class Page(html.parser.HTMLParser):
    """The elements of a page, which have to be closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [str(value) for name, value in attrs if name in ("src", "href", "action") or "://" in str(value)]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data


def scored(version: int, predictions: list[Any], name: str = "fraud") -> Scored:
    return Scored(ServedVersion("demo", name, version), predictions, latencies=[0.01] * 100)


def classes() -> Comparison:
    chance = np.random.default_rng(0)
    labels = np.array(["no", EVIL])[(chance.random(1000) < 0.3).astype(int)]
    other = np.where(labels == "no", EVIL, "no")
    before = np.where(chance.random(1000) < 0.85, labels, other)
    after = np.where(chance.random(1000) < 0.9, labels, other)
    rows = Rows(labels.tolist(), slices={EVIL: [EVIL, "other"] * 500})
    versions = scored(1, before.tolist()), scored(2, after.tolist())
    return compare(*versions, rows, ["accuracy", f"recall:{EVIL}"], resamples=200)


def numbers() -> Comparison:
    chance = np.random.default_rng(0)
    labels = chance.normal(50, 10, 500)
    before, after = labels + chance.normal(0, 3, 500), labels + chance.normal(0, 2, 500)
    return compare(
        scored(1, before.tolist()), scored(2, after.tolist()), Rows(labels.tolist()), ["mae", "r2"], resamples=200
    )


def unlabelled() -> Comparison:
    return compare(scored(1, [1, 0] * 100), scored(2, [1] * 200), Rows(), ["accuracy"])


def alone() -> Comparison:
    return compare(None, scored(2, [1, 0] * 100, EVIL), Rows([1, 0] * 100), ["accuracy", "f1"])


def backfill() -> Comparison:
    from datetime import UTC, datetime

    until = datetime(2026, 1, 1, tzinfo=UTC)
    rows = Rows([1, 0] * 100, times=[until] * 200)
    return compare(scored(1, [1, 0] * 100), scored(2, [1] * 200), rows, ["accuracy"], trained_until=(until, until))


MADE = [classes, numbers, unlabelled, alone, backfill]


@pytest.mark.parametrize("made", MADE)
def test_is_one_sound_page_without_scripts_or_other_hosts(made: Any) -> None:
    text = report(made())
    page = Page(text)

    assert page.open == []
    assert "script" not in page.tags
    assert page.links == []
    assert not re.search(r"url\(|@import|https?://", text)
    assert "default-src 'none'" in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert not re.search(r"\bnan\b", page.text.lower())
    assert "None" not in page.text
    assert len(text) < 100_000


def test_shows_what_was_measured() -> None:
    comparison = classes()
    page = Page(report(comparison))

    for title in ("Rows", "Metrics", "Slices that got worse", "Confusion matrices", "Classes", "Answers", "Latency"):
        assert title in page.text
    assert f"{comparison.metrics['accuracy'].champion:.4g}" in page.text
    assert "Rows that got worse" in page.text
    assert page.tags.count("svg") >= 2
    assert "&lt;script&gt;alert(1)" in report(comparison)


def test_of_numbers_has_a_histogram() -> None:
    page = Page(report(numbers()))

    assert page.tags.count("rect") == 40
    assert "Confusion" not in page.text
    assert "less is better" in page.text


def test_without_a_champion_says_so() -> None:
    page = Page(report(alone()))

    assert "No version served, so only this one was measured." in page.text


def test_has_the_title_that_is_given() -> None:
    assert "<title>Tonight &amp; before</title>" in report(unlabelled(), title="Tonight & before")
