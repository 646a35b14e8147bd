"""The console in a real Chromium, as somebody who follows a link from Airflow sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.local.test_console_promotions import FAILED, FIRST, entry, write
from tests.support import browser

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.local.conftest import Client

pytestmark = pytest.mark.slow


@pytest.fixture
def page() -> Iterator[Any]:
    """A page that notes what goes wrong in it, and whom it asks."""
    with browser.opened() as chromium:
        page = chromium.new_page()
        page.problems = []
        page.on("console", lambda message: page.problems.append(message.text))
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.on("requestfailed", lambda request: page.problems.append(request.url))
        yield page


def test_from_a_project_to_an_answer(page: Any, client: Client) -> None:
    number = client.running(modelVersion=2)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))

    page.goto(f"{client.serving.url}/p/119")
    page.get_by_role("link", name="digits", exact=True).first.click()
    assert page.url.endswith(f"/p/119/deployments/{number}")
    page.get_by_label("Request body (JSON)").fill('{"instances": [[1], [2]]}')
    page.get_by_role("button", name="Predict").click()
    answer = page.get_by_label("Answer")
    answer.wait_for()

    assert "from model version 2" in answer.inner_text()
    assert '"predictions"' in answer.inner_text()
    page.get_by_role("link", name="digits 2").first.click()
    page.get_by_role("navigation").get_by_role("link", name="digits").click()
    assert page.locator("circle.served").count() == 1
    assert page.problems == []
    assert all(url.startswith((client.serving.url, "data:")) for url in asked), "nothing from elsewhere"


@pytest.mark.usefixtures("unhurried")
def test_a_page_follows_what_is_under_way(page: Any, client: Client) -> None:
    number = client.put()["id"]
    client.until(number, "Created")
    client.give("POST", f"/serving/{number}?action=START")

    page.goto(f"{client.serving.url}/p/119/deployments/{number}")

    assert page.locator("h1 .status").inner_text() == "Starting"
    page.locator("h1 .status", has_text="Running").wait_for(timeout=30_000)


@pytest.fixture
def history(client: Client) -> None:
    """Promotions of which each way to end is there, and a metric with an outlier."""
    failed = entry("z", "failed", 3, 1, 300, reason="an unbroken_reason_" + 30 * "very_" + "long")
    write(client.serving.world.project(119).files, *FIRST, *FAILED, failed)
    for number in range(4, 9):
        metrics = {"accuracy": 0.9 + number / 1000, "loss": -1.23457e-100 if number == 8 else 1e9 + number}
        client.serving.world.register_model("digits", {"model.pkl": b"x"}, metrics=metrics)


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize("width", [420, 1280])
def test_no_label_of_a_chart_is_cut_off(page: Any, client: Client, width: int) -> None:
    client.running()
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(f"{client.serving.url}/p/119/models/digits")

    cut_off = page.evaluate(
        """() => [...document.querySelectorAll("svg text")].filter(text => {
            const own = text.getBoundingClientRect(), whole = text.closest("svg").getBoundingClientRect();
            return own.left < whole.left || own.right > whole.right || own.top < whole.top || own.bottom > whole.bottom;
        }).map(text => text.textContent)"""
    )
    assert page.locator("svg text").count() > 15
    assert cut_off == []
    assert page.locator("svg").first.locator("text", has_text="rolled back").count() == 1
    assert page.locator("path").count() == 1, "one value is out of range"


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize("width", [390, 420, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_fits_its_window(page: Any, client: Client, width: int, scheme: str) -> None:
    number = client.running()
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=scheme)
    for path in ("", f"/deployments/{number}", "/models/digits", "/models/digits/1", "/models/digits/2"):
        page.goto(f"{client.serving.url}/p/119{path}")

        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
