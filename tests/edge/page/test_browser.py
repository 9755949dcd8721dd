"""The status page in a real browser, with a real daemon and a real broker."""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from edge.delivery.embedded_broker import EmbeddedBroker
from edge.delivery.messages import fatigue_state, load_schema
from edge.delivery.subscriber import Listener, listen
from edge.people.fatigue import FatigueState
from edge.settings import MqttSettings
from tests.helpers.brokers import free_port, wait_until
from tests.system.test_system import daemon, environment

CHROMIUM = shutil.which("chromium")
CANARY = "canary-0123456789abcdef"


class Site:
    """A daemon with its page and its broker; a restart keeps the port."""

    def __init__(self, directory: Path, broker: EmbeddedBroker, **more: str) -> None:
        self.port = free_port()
        self.broker = broker
        self.log = directory / "daemon.log"
        self._env = environment(
            broker.host,
            broker.port,
            directory,
            EMOTION_EDGE__DASHBOARD__BIND=f"127.0.0.1:{self.port}",
            EMOTION_EDGE__INFERENCE__BACKEND="cpu",
            **more,
        )
        self._context: Any = None
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def start(self) -> None:
        """Start the daemon and wait for its page."""
        self._context = daemon(self._env, log=self.log)
        self.process = self._context.__enter__()
        wait_until(lambda: self.answers("/healthz", {"Authorization": f"Bearer {CANARY}"}), "the page")

    def stop(self) -> None:
        """End the daemon at once."""
        self._context.__exit__(None, None, None)

    def answers(self, path: str, headers: dict[str, str]) -> bool:
        """Return whether the server answers 200."""
        try:
            return self.ask("GET", path, headers=headers)[0] == 200
        except OSError:
            return False

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes, dict[str, str]]:
        """Return status, body and headers of one request."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)) as connection:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read(), {k.lower(): v for k, v in answer.getheaders()}

    def press(self, path: str, body: bytes = b'{"on": false}', **headers: str) -> int:
        """Press a button without a browser; return the status."""
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        return self.ask("POST", path, body, {"Content-Type": "application/json", **named})[0]

    def streamed(self) -> dict[str, Any]:
        """Return the next message of the stream."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)) as connection:
            connection.request("GET", "/stream")
            line = connection.getresponse().readline()
        message: dict[str, Any] = json.loads(line.removeprefix(b"data: "))
        return message


@contextmanager
def serving(directory: Path, **more: str) -> Iterator[Site]:
    """Run broker, daemon and page while the block lasts."""
    with EmbeddedBroker(directory / "broker") as broker:
        site = Site(directory, broker, **more)
        site.start()
        try:
            yield site
        finally:
            site.stop()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One daemon for all tests that do not change it."""
    with serving(tmp_path_factory.mktemp("site")) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's chromium, without a window."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed: sudo apt install chromium")
    with sync_playwright() as playwright:
        # Chromium has no sandbox for root; these pages are trusted.
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@contextmanager
def open_page(browser: Browser, url: str, **context: Any) -> Iterator[Page]:
    """Open the page in a fresh browser context; fail on console errors and on requests to other hosts."""
    complaints: list[str] = []
    with closing(browser.new_context(**context)) as fresh:
        page = fresh.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda m: complaints.append(m.text) if "Security Policy" in m.text else None)
        page.on(
            "request",
            lambda r: None if r.url.startswith((url, "blob:", "data:")) else complaints.append(r.url),
        )
        page.goto(url)
        yield page
        assert fresh.cookies() == []
    assert complaints == []


@contextmanager
def subscribed(site: Site, *subtopics: str) -> Iterator[Listener]:
    """Subscribe to topics of the device."""
    settings = MqttSettings(host=site.broker.host, port=site.broker.port)
    with closing(listen(settings, *(f"emotion/lab/{subtopic}" for subtopic in subtopics))) as listener:
        assert listener.wait_ready(10)
        yield listener


def next_where(listener: Listener, condition: Any) -> Any:
    """Return the next payload that meets a condition."""
    for _ in range(200):
        message = listener.receive(10)
        assert message is not None, "no message in 10 s"
        payload = json.loads(message.payload) if message.payload[:1] == b"{" else message.payload.decode()
        if condition(payload):
            return payload
    raise AssertionError("none of 200 messages meets the condition")


def test_shows_what_was_published(site: Site, browser: Browser) -> None:
    """The emotion on the page is that of the newest `state` message, and all bars are drawn."""
    with open_page(browser, site.url) as page, subscribed(site, "state") as listener:
        payload = next_where(listener, lambda state: state["emotion"] in ("happiness", "surprise"))
        expect(page.locator("#emotion")).to_have_text(payload["emotion"], timeout=3000)
        expect(page.locator("#device")).to_have_text("lab")
        expect(page.locator("#status")).to_have_text("running")
        expect(page.locator("#broker")).to_contain_text("MQTT 3.1.1")
        expect(page.locator("#bars tbody tr")).to_have_count(7)
        expect(page.locator("#boxes rect")).not_to_have_count(0)
        expect(page.locator("#hour rect")).not_to_have_count(0)
        expect(page.locator("#facts")).to_contain_text("0 refused")


def drawn_fatigue(page: Page, room: FatigueState, *people: FatigueState) -> dict[str, Any]:
    """Make the page draw a published fatigue state; return the texts and numbers that it shows."""
    payload = fatigue_state(room, people, time=datetime(2026, 1, 2, tzinfo=UTC))
    read: dict[str, Any] = page.evaluate(
        """(state) => {
            drawFatigue(state);
            const meter = document.getElementById("tiredness");
            return {
                hidden: document.getElementById("fatigue").hidden,
                text: document.getElementById("tired").textContent,
                score: meter.getAttribute("aria-valuenow"),
                value: meter.getAttribute("aria-valuetext"),
                width: meter.firstElementChild.style.width,
                rows: [...document.querySelectorAll("#signs tr")]
                    .map((row) => [...row.cells].map((cell) => cell.textContent)),
            };
        }""",
        payload,
    )
    return read


def test_fatigue_meter_shows_level_reasons_and_numbers(site: Site, browser: Browser) -> None:
    """The meter, its text for screen readers and a column for each person; hidden when the room is empty."""
    one = FatigueState("person-1", "drowsy", 0.71, ("perclos", "microsleeps"), perclos=0.214, microsleeps=1)
    two = FatigueState("person-2", "uncertain", 0.0, ("eyes_not_visible",))
    with open_page(browser, site.url) as page:
        expect(page.locator("#content")).to_be_visible()
        shown = drawn_fatigue(page, replace(one, subject="room"), one, two)
        assert not shown["hidden"]
        assert shown["text"] == "drowsy: perclos, microsleeps"
        assert (shown["score"], shown["value"], shown["width"]) == ("71", "drowsy", "71%")
        assert shown["rows"][0] == ["", "person-1", "person-2"]
        assert ["level", "drowsy", "uncertain"] in shown["rows"]
        assert ["eyes closed", "21 %", "\u2013"] in shown["rows"]
        assert drawn_fatigue(page, FatigueState("room", "absent"))["hidden"]


def test_stream_matches_its_schema(site: Site) -> None:
    """Messages match `page.json`, payloads match their own schemas; the first message has the hour."""
    message = site.streamed()
    jsonschema.validate(message, load_schema("page"))
    assert message["hour"] is not None
    for subtopic, payload in message["payloads"].items():
        jsonschema.validate(payload, load_schema(subtopic.replace("/", "_")))


def test_keyboard_pauses_the_microphone(site: Site, browser: Browser) -> None:
    """Tab reaches the button, Enter presses it; OFF is published, then ON."""
    with open_page(browser, site.url) as page, subscribed(site, "microphone/enabled/state") as listener:
        button = page.locator("#microphone")
        expect(button).to_be_visible()
        for _ in range(10):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.id") == "microphone":
                break
        page.keyboard.press("Enter")
        expect(button).to_have_attribute("aria-pressed", "true")
        next_where(listener, lambda payload: payload == "OFF")
        expect(page.locator("#facts")).to_contain_text("microphoneoff")
        page.keyboard.press("Enter")
        expect(button).to_have_text("Pause microphone")
        next_where(listener, lambda payload: payload == "ON")


def test_preview_is_published(site: Site, browser: Browser) -> None:
    """No image before the click; the status topic reports the start and the end of the preview."""
    assert site.ask("GET", "/preview.jpg")[0] == 404
    with open_page(browser, site.url) as page, subscribed(site, "status") as listener:
        page.locator("#preview").click()
        next_where(listener, lambda status: status["preview"])
        expect(page.locator("#picture")).to_be_visible()
        assert page.locator("#picture").evaluate("img => img.decode().then(() => img.naturalWidth)") == 640
        expect(page.locator("#preview")).to_contain_text("Hide the camera")
        page.locator("#preview").click()
        next_where(listener, lambda status: not status["preview"])
        expect(page.locator("#picture")).to_be_hidden()
    assert site.ask("GET", "/preview.jpg")[0] == 404


def test_preview_is_for_one_page_and_ends_with_the_camera(site: Site, browser: Browser) -> None:
    """Another page gets no image and sees who has it; pausing ends the preview, and the caption is true."""
    with open_page(browser, site.url) as page, open_page(browser, site.url) as other:
        expect(page.locator("#caption")).to_have_text("Boxes only: no image leaves the device.")
        page.locator("#preview").click()
        expect(page.locator("#picture")).to_be_visible()
        expect(page.locator("#caption")).to_have_text("The camera image is shown on this page only.")
        expect(other.locator("#preview")).to_contain_text("End the preview of another page")
        expect(other.locator("#caption")).to_contain_text("Another page on this device shows")
        expect(other.locator("#picture")).to_be_hidden()
        for headers in ({}, {"X-Session": ""}, {"X-Session": "guessed"}):
            assert site.ask("GET", "/preview.jpg", headers=headers)[0] == 404
        try:
            other.locator("#camera").click()
            expect(page.locator("#picture")).to_be_hidden(timeout=2000)
            expect(page.locator("#caption")).to_have_text("The camera is paused.")
            expect(page.locator("#preview")).to_be_hidden()
            wait_until(lambda: site.press("/preview", b'{"on": true}', X_Session="a") == 409, "a refusal")
        finally:
            assert site.press("/camera/enabled", b'{"on": true}') == 204
        expect(page.locator("#preview")).to_have_text("Show the camera for 60 s", timeout=10_000)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone_needs_no_horizontal_scrolling(site: Site, browser: Browser, scheme: Any) -> None:
    """At a width of 360 pixels nothing overflows, and both colour schemes are applied."""
    with open_page(browser, site.url, viewport={"width": 360, "height": 740}, color_scheme=scheme) as page:
        expect(page.locator("#content")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        colours = page.locator("#now").evaluate(
            "e => [getComputedStyle(document.body).color, getComputedStyle(e).backgroundColor]"
        )
        light, dark = ("rgb(255, 255, 255)", "rgb(29, 31, 34)")
        assert colours[1] == (dark if scheme == "dark" else light)


def test_kiosk_is_readable_from_three_metres(site: Site, browser: Browser) -> None:
    """With ?kiosk the emotion is at least 100 pixels high, the buttons are hidden and nothing scrolls."""
    with open_page(browser, site.url, viewport={"width": 1280, "height": 720}) as page:
        page.goto(f"{site.url}?kiosk")
        expect(page.locator("#emotion")).to_be_visible()
        assert page.locator("#emotion").evaluate("e => parseFloat(getComputedStyle(e).fontSize)") >= 100
        expect(page.locator("#camera")).to_be_hidden()
        assert page.evaluate("document.documentElement.scrollHeight") <= 720


def test_page_reconnects_to_a_restarted_daemon(tmp_path: Path, browser: Browser) -> None:
    """While the daemon is gone the page reports a lost connection; after the restart it continues."""
    with serving(tmp_path) as site, open_page(browser, site.url) as page:
        expect(page.locator("#content")).to_be_visible()
        site.stop()
        expect(page.locator("#lost")).to_be_visible(timeout=10_000)
        site.start()
        expect(page.locator("#lost")).to_be_hidden(timeout=10_000)
        expect(page.locator("#bars tbody tr")).to_have_count(7, timeout=10_000)


def test_token_opens_the_page_and_stays_out_of_url_and_log(tmp_path: Path, browser: Browser) -> None:
    """Without the token the page stays empty; the token is accepted in the fragment and in the field."""
    token = tmp_path / "token"
    token.write_text(CANARY)
    token.chmod(0o600)
    with serving(tmp_path, EMOTION_EDGE__DASHBOARD__TOKEN_FILE=str(token)) as site:
        for path in ("/stream", "/metrics", "/preview.jpg"):
            assert site.ask("GET", path)[0] == 401
        assert site.press("/camera/enabled") == 401
        assert site.press("/camera/enabled", Authorization="Bearer wrong") == 401
        with open_page(browser, site.url) as page:
            expect(page.locator("#content")).to_be_hidden()
            page.locator("#token").fill(CANARY)
            page.keyboard.press("Enter")
            expect(page.locator("#content")).to_be_visible()
        with open_page(browser, site.url) as page:
            page.goto(f"{site.url}#token={CANARY}")
            page.reload()
            expect(page.locator("#content")).to_be_visible()
            assert CANARY not in page.url
        log = site.log.read_text()
    assert "running as lab" in log
    assert CANARY not in log


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b'{"on": true}', {}, 204),
        (b'{"on": true}', {"Origin": "http://127.0.0.1:1"}, 400),
        (b'{"on": true}', {"Origin": "null"}, 400),
        (b'{"on": true}', {"Content_Type": "text/plain"}, 400),
        (b'{"on": true}', {"Host": "evil.example"}, 400),
        (b'{"on": 1}', {}, 400),
        (b'{"on": true, "x": 1}', {}, 400),
        (b"\xff\xfe", {}, 400),
        (b"", {}, 400),
        (b" " * 1_000_000, {}, 400),
    ],
)
def test_buttons_accept_only_requests_of_this_page(
    site: Site, body: bytes, headers: dict[str, str], status: int
) -> None:
    """Other origins, host names, content types and bodies are refused, and the daemon runs on."""
    assert site.press("/camera/enabled", body, **headers) == status
    assert site.process is not None
    assert site.process.poll() is None


def test_headers_forbid_other_hosts(site: Site) -> None:
    """The content security policy permits only this host; no cookie, no cache."""
    for path in ("/", "/page.js", "/page.css"):
        status, _, headers = site.ask("GET", path)
        assert status == 200
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
        assert headers["cache-control"] == "no-store"
        assert "set-cookie" not in headers
    assert site.ask("GET", "/../config.py")[0] == 404


def test_workplace_shows_no_person_s_emotion(tmp_path: Path, browser: Browser) -> None:
    """In a restricted context the stream has only counts, which the page reports as withheld for one face."""
    with serving(tmp_path, EMOTION_EDGE__DEVICE__CONTEXT="workplace") as site:
        with open_page(browser, site.url) as page:
            expect(page.locator("#withheld")).to_contain_text("Fewer than five faces")
            expect(page.locator("#emotion")).to_have_text("group")
        message = site.streamed()
    assert set(message["payloads"]) == {"status", "group/state", "fatigue/state"}
    assert message["hour"] == []


def test_stop_does_not_wait_for_open_pages(tmp_path: Path, browser: Browser) -> None:
    """SIGTERM ends the daemon in time while a page reads its stream."""
    with serving(tmp_path) as site, open_page(browser, site.url) as page:
        expect(page.locator("#content")).to_be_visible()
        assert site.process is not None
        site.process.send_signal(signal.SIGTERM)
        assert site.process.wait(2.5) == 0
