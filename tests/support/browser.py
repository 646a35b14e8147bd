"""A real Chromium."""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

_FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)


@contextlib.contextmanager
def opened() -> Iterator[Any]:
    """Open a browser; without one, the test is skipped."""
    browsers = pytest.importorskip("playwright.sync_api", reason="make check-all installs playwright")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium on PATH")
    with (
        browsers.sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium, args=list(_FLAGS)) as browser,
    ):
        yield browser
