"""The site as `make docs` builds it, opened as a file in a real Chromium."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import browser

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_search_works_without_a_server_and_nothing_is_fetched(tmp_path: Path) -> None:
    pytest.importorskip("mkdocstrings", reason="make docs installs it")
    subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        check=True,
        timeout=300,
    )
    asked: list[str] = []
    failed: list[str] = []
    found = {}
    with browser.opened() as chromium:
        page = chromium.new_page(viewport={"width": 1280, "height": 900})
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: failed.append(str(error)))
        for word in ("pytest", "rmse", "retry", "rollback"):
            page.goto((tmp_path / "site" / "index.html").as_uri())
            page.fill("input.md-search__input", word)
            page.wait_for_selector(".md-search-result__link")
            found[word] = page.eval_on_selector_all(".md-search-result__link", "links => links.map(one => one.href)")

    assert any("guides/testing.html" in link for link in found["pytest"])
    assert any("guides/compare.html" in link for link in found["rmse"])
    assert any("guides/" in link for link in found["retry"])
    assert any("guides/rollback.html" in link for link in found["rollback"])
    assert {url.partition(":")[0] for url in asked} <= {"file", "data"}
    assert not failed
