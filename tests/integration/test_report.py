"""The report job, and its page in a real browser: charts, sliders, light and dark, a phone, and no network."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from jobs import report
from pipeline.console.exits import ExitCode
from tests.compressed import compress
from tests.datasets import pixels
from tests.jobs import wait_until

pytestmark = pytest.mark.integration

HOSTILE = "<img src=x onerror=alert(1)> & ü.png"
PHONE = {"width": 375, "height": 740}
DESKTOP = {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def compressed(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset of colour, gray, alpha, JPEG, small and broken images, as a job leaves it."""
    images = tmp_path_factory.mktemp("images")
    for number in range(4):
        Image.fromarray(pixels(180, 260, gray=number == 2, seed=number)).save(images / f"{number}.png")
    Image.fromarray(pixels(170, 200, seed=7)).save(images / "photo.jpg", quality=90)
    Image.fromarray(pixels(40, 30, seed=8)).save(images / HOSTILE)
    with_alpha = Image.fromarray(pixels(170, 180, seed=9))
    with_alpha.putalpha(100)
    with_alpha.save(images / "alpha.png")
    (images / f"broken {HOSTILE}").write_bytes(b"<script>alert(2)</script>")
    output = tmp_path_factory.mktemp("compressed") / "out"
    compress(images, output, tiny_bundle)
    return output


@pytest.fixture(scope="module")
def page_file(compressed: Path, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    assert run(compressed, path, tiny_bundle, "--compare", "2") == ExitCode.DONE
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no browser: install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


def run(compressed: Path, path: Path, bundle: Path, *arguments: str) -> int:
    return report.main(
        ["--input", str(compressed), "--output", str(path), "--bundle", str(bundle), "--num-threads", "1", *arguments]
    )


def opened(browser: Browser, path: Path, *, dark: bool = False, phone: bool = False) -> tuple[Page, list[str]]:
    """Open the page; return it, and the list to which errors and requests are added."""
    context = browser.new_context(color_scheme="dark" if dark else "light", viewport=PHONE if phone else DESKTOP)  # type: ignore[arg-type]
    page, troubles = context.new_page(), list[str]()
    page.on("console", lambda message: troubles.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("dialog", lambda dialog: troubles.append(f"dialog {dialog.message}"))
    page.on("request", lambda request: None if request.url.startswith("data:") else troubles.append(request.url))
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-drawn]", timeout=120_000, state="attached")
    assert troubles.pop(0) == path.as_uri()
    return page, troubles


@pytest.mark.parametrize("phone", [False, True])
@pytest.mark.parametrize("dark", [False, True])
def test_charts_are_drawn_without_errors_or_requests(
    browser: Browser, page_file: Path, dark: bool, phone: bool
) -> None:
    page, troubles = opened(browser, page_file, dark=dark, phone=phone)
    assert troubles == []
    places = page.locator("[data-chart]").all()
    assert len(places) >= 8
    for place in places:
        assert place.locator("svg .mark-symbol path, svg .mark-rect path").count() > 0, place.get_attribute(
            "data-chart"
        )
    assert page.evaluate("document.documentElement.scrollWidth") <= (PHONE if phone else DESKTOP)["width"]
    assert page.evaluate("[...document.images].every((image) => image.naturalWidth > 0)")
    paper, ink = page.evaluate(
        "((s) => [s.backgroundColor, s.color].map((c) => Number(c.match(/\\d+/)[0])))(getComputedStyle(document.body))"
    )
    assert (paper < ink) is dark


def test_charts_follow_the_colour_scheme(browser: Browser, page_file: Path) -> None:
    page, _ = opened(browser, page_file)
    fill = "document.querySelector('[data-chart=stages] .mark-rect path').getAttribute('fill')"
    light = page.evaluate(fill)
    page.emulate_media(color_scheme="dark")
    wait_until(lambda: page.evaluate(fill) != light, "charts in dark colours")


def test_the_slider_follows_keys_and_the_mouse(browser: Browser, page_file: Path) -> None:
    page, troubles = opened(browser, page_file)
    place = page.locator(".compare").first
    slider = place.locator("input")
    slider.focus()
    page.keyboard.press("Home")
    assert place.evaluate("(place) => getComputedStyle(place.querySelector('.over')).clipPath").startswith("inset(0px")
    assert slider.input_value() == "0"
    page.keyboard.press("ArrowRight")
    assert place.evaluate("(place) => place.style.getPropertyValue('--at')") == "1%"
    place.scroll_into_view_if_needed()
    box = place.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + box["height"] / 2)
    assert abs(int(slider.input_value()) - 25) <= 1
    assert troubles == []


def test_hostile_names_are_shown_as_they_are(browser: Browser, page_file: Path) -> None:
    page, _ = opened(browser, page_file)
    assert page.locator("bdi", has_text=HOSTILE).count() >= 1
    assert page.locator("[onerror]").count() == 0
    assert page.locator(".sheet img").count() == 7
    assert (page.get_by_alt_text(HOSTILE, exact=True).get_attribute("title") or "").startswith(HOSTILE)


def test_a_report_is_replaced_only_when_asked(compressed: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("mine")
    assert run(compressed, path, tiny_bundle, "--compare", "0") == ExitCode.WRONG_USAGE
    assert path.read_text() == "mine"
    assert run(compressed, path, tiny_bundle, "--compare", "0", "--overwrite") == ExitCode.WRONG_USAGE
    assert path.read_text() == "mine"  # only a report is ever replaced
    path.unlink()
    assert run(compressed, path, tiny_bundle, "--compare", "0") == ExitCode.DONE
    first = path.stat().st_mtime_ns
    assert run(compressed, path, tiny_bundle, "--compare", "0", "--overwrite") == ExitCode.DONE
    assert path.stat().st_mtime_ns > first
    assert "Savings at equal quality" not in path.read_text()


def test_dataset_and_report_may_be_on_an_object_store(compressed: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    store.put(f"{compressed}/", "/bucket/compressed", recursive=True)
    arguments = ["--bundle", str(tiny_bundle), "--compare", "0", "--originals", str(tmp_path)]
    where = ["--input", "memory://bucket/compressed", "--output", "memory://bucket/report.html"]
    assert report.main([*where, *arguments]) == ExitCode.DONE
    text = store.cat_file("/bucket/report.html").decode()
    assert "The original cannot be read any more" in text  # they are not in the folder that was named
    assert "data:image/webp" in text
    assert report.main([*where, *arguments]) == ExitCode.WRONG_USAGE


def test_wrong_inputs_and_bundles_are_told(
    compressed: Path, tmp_path: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x").mkdir()
    assert run(tmp_path / "x", tmp_path / "r.html", tiny_bundle) == ExitCode.WRONG_USAGE
    assert "is not a compressed dataset" in capsys.readouterr().err
    assert report.main(["--input", str(compressed), "--output", str(tmp_path / "r.html")]) == ExitCode.WRONG_USAGE
    assert "pass the bundle that compressed it" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["one", "none"])
def test_one_image_and_no_image_have_reports(browser: Browser, tiny_bundle: Path, tmp_path: Path, kind: str) -> None:
    (tmp_path / "in").mkdir()
    if kind == "one":
        Image.fromarray(np.zeros((20, 30), np.uint8)).save(tmp_path / "in" / "black.png")
    else:
        (tmp_path / "in" / "empty.png").write_bytes(b"")
    compress(tmp_path / "in", tmp_path / "out", tiny_bundle)
    assert run(tmp_path / "out", tmp_path / "report.html", tiny_bundle) == ExitCode.DONE
    page, troubles = opened(browser, tmp_path / "report.html")
    assert troubles == []
    assert page.locator("h1").inner_text().startswith("1 image" if kind == "one" else "None of 1")
