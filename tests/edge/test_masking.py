"""Credentials are masked by one function, wherever they stand in a text."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.config import load_config, parse_config, to_toml
from edge.errors import ConfigError, DeviceError
from edge.health import Health
from edge.masking import credentials_in, mask_credentials
from edge.sources.camera import open_camera
from edge.sources.microphone import open_microphone
from edge.sources.worker import Worker
from edge.values import Source
from tests.helpers.brokers import wait_until


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("rtsp://admin:pw@cam.lan/1", "rtsp://***@cam.lan/1"),
        ("rtsp://admin:p@ss/w@rd@cam.lan:554/1", "rtsp://***@cam.lan:554/1"),
        ("HTTP://token@cam.lan/", "HTTP://***@cam.lan/"),
        ("http://cam.lan/v?user=admin&pwd=x%20y;z=1#t", "http://cam.lan/v?user=***&pwd=***"),
        ("rtsp:/me:p/w@cam.lan/1", "rtsp:/***@cam.lan/1"),
        ("rtsp:/word@cam.lan/1", "rtsp:/***@cam.lan/1"),
        ("rtsp//me:pw@cam.lan/1", "rtsp//***@cam.lan/1"),
        ("rtsp;//me:pw@cam.lan/1", "rtsp;//***@cam.lan/1"),
        ("file:/srv/rtsp:/me:pw@cam.lan/1", "file:/***@cam.lan/1"),
        ("me:pw@cam.lan/1", "***@cam.lan/1"),
        ("me:p//w@cam.lan/1", "***@cam.lan/1"),
        ("rtsp://me:pw", "rtsp://***"),
        ("rtsp://me:pw/1", "rtsp://***/1"),
        ("http://cam.lan/v?word&a=b'c\"d", "http://cam.lan/v?***&a=***"),
        (
            "it can't open 'rtsp://me:p w@cam.lan/1': no answer",
            "it can't open 'rtsp://***@cam.lan/1': no answer",
        ),
        (
            """gstreamer:souphttpsrc 'user-pw=a b' pwd=a"b c"d""",
            "gstreamer:souphttpsrc 'user-pw=***' pwd=***",
        ),
        ('gstreamer:souphttpsrc user-pw="a b', "gstreamer:souphttpsrc user-pw=***"),
        ("http://a:b@cam.lan/v?key=c", "http://***@cam.lan/v?key=***"),
        ("http://cam.lan/v?user=me@home.org&pwd=x", "http://***@***&pwd=***"),
        ("http://cam.lan/v;pwd=x@y&z=1", "http://***@***&z=***"),
        ("rtsp://cam.lan/user=me&password=x@y&channel=1", "rtsp://***@***&channel=***"),
        ("rtsp://me:p=w@cam.lan/1", "rtsp://***@cam.lan/1"),
        ("rtsp://a:p?w=1@cam.lan/1", "rtsp://***@***"),
        (
            "rtsp://cam.lan/user=admin&password=x&channel=1",
            "rtsp://cam.lan/user=***&password=***&channel=***",
        ),
        (
            "gstreamer:rtspsrc location=rtsp://a:b@cam.lan/1 user-id=me user-pw=hush ! decodebin",
            "gstreamer:rtspsrc location=rtsp://***@cam.lan/1 user-id=*** user-pw=*** ! decodebin",
        ),
        (
            """souphttpsrc user-pw = "a \\" b" proxy-pw='c d' extra-headers="h, Authorization=e" ! jpegdec""",
            "souphttpsrc user-pw = *** proxy-pw=*** extra-headers=*** ! jpegdec",
        ),
        ("srtsrc uri=srt://cam.lan:9 passphrase=hush", "srtsrc uri=srt://cam.lan:9 passphrase=***"),
        (
            "rtsp://a:b@one/1: no answer; rtsp://c:d@two/2: no answer",
            "rtsp://***@one/1: no answer; rtsp://***@two/2: no answer",
        ),
    ],
)
def test_credentials_are_masked(text: str, masked: str) -> None:
    """User info up to the last `@`, values of a URL and secret properties become `***`, and only once."""
    assert mask_credentials(text) == masked
    assert mask_credentials(masked) == masked


@pytest.mark.parametrize(
    "text",
    [
        "auto",
        "v4l2:/dev/v4l/by-id/usb-046d_C920_1A2B-video-index0",
        "file:/srv/clip.mp4?loop&speed=20",
        "fake:unplug?after=2",
        "alsa:CARD=Device,DEV=1",
        "gstreamer:nvarguscamerasrc sensor-id=0 ! video/x-raw,width=640",
        "rtsp://cam.lan:554/live/1",
        "mqtt://127.0.0.1:1883 (any MQTT client may join)",
        "write to me@example.org",
        "file:/srv//at-10:00/me@home.mp4?loop",
        "keyframe-interval=30 mqtt.password_file=/srv/password",
    ],
)
def test_everything_else_stays(text: str) -> None:
    """Tokens and addresses without credentials are unchanged."""
    assert mask_credentials(text) == text
    assert credentials_in(text) == []


def test_found_credentials_are_what_is_masked() -> None:
    """Each masked value is found, user and password also separately."""
    found = credentials_in("gstreamer:rtspsrc location=rtsp://me:hush@cam.lan/1?k=v user-pw=secret")
    assert set(found) == {"me:hush", "me", "hush", "v", "secret"}


LOGINS = (
    "rstp://me:can/ary@cam.lan/1",
    "rtsp:/me:canary@cam.lan/1",
    "rtsp//me:canary@cam.lan/1",
    "me:canary@cam.lan/1",
    "rtsp://me:my canary@cam.lan/1",
    f"rtsp://me:{'canary' * 40} @cam.lan/1",
    "hhtp://cam.lan/v?user=me&pwd=canary",
    "hhtp://cam.lan/v?canary",
    "gstreamr:rtspsrc location=rtsp://cam.lan user-pw=canary",
    "rtsp ://me:canary@cam.lan/1",
)


@pytest.mark.parametrize("key", ["camera.source", "microphone.source", "mqtt.host"])
@pytest.mark.parametrize("value", LOGINS)
def test_refused_value_is_named_without_credentials(key: str, value: str) -> None:
    """The error for an address that is not valid has its key, and no part of its password."""
    section, name = key.split(".")
    with pytest.raises(ConfigError, match=rf"{key} = ") as caught:
        parse_config({section: {name: value}})
    assert "canary" not in str(caught.value)


def test_error_has_no_control_characters() -> None:
    """A name from a file or an argument cannot move the cursor of a terminal; lines stay lines."""
    assert str(DeviceError("a\x1b[2Jb\u202ec\nd")) == "a\\x1b[2Jb\\u202ec\nd"


# Without `&` in a query value, which ends there; without quotes and spaces, which end a word.
SPECIAL = "@/#?&=:;%+$!*()[]{}<>|^~`.,-_\\ab7"


@given(st.text(SPECIAL, max_size=6), st.text(SPECIAL, max_size=6))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_random_password_is_masked(left: str, right: str) -> None:
    """No part of a password with special characters is left, in a URL, a pipeline and in a sentence."""
    password = f"canary{left}canary{right}canary"
    for text in (
        f"rtsp://me:{password}@cam.lan/1",
        f"rstp://{password}@cam.lan",
        f"rtsp:/me:{password}@cam.lan/1",
        f"me:{password}@cam.lan/1",
        f"http://cam.lan/v.mjpg?user=me&pwd={password.replace('&', '')}",
        f"http://cam.lan/user=me&password={password.replace('&', '')}&channel=1",
        f"gstreamer:rtspsrc location=rtsp://me:{password}@cam.lan/1 ! decodebin",
        f"gstreamer:souphttpsrc user-pw='{password}' ! jpegdec",
        f"could not open 'rtsp://me:{password}@cam.lan/1': no answer",
    ):
        assert "canary" not in mask_credentials(text)


def test_kind_of_a_source_may_have_capitals(tmp_path: Path) -> None:
    """`RTSP://` and `File:` are what they are in small letters; the rest keeps its case."""
    config = parse_config({"camera": {"source": "RTSP://Me:Pw@Cam.lan/A"}, "microphone": {"source": "NONE"}})
    assert config.camera.source == "rtsp://Me:Pw@Cam.lan/A"
    assert config.microphone.source == "none"
    (tmp_path / "c.toml").write_text('[camera]\nsource = "File:A.mp4"\n')
    assert load_config(tmp_path / "c.toml", environ={}).camera.source == f"file:{tmp_path}/A.mp4"


@pytest.mark.parametrize("token", ["rtps://me:canary@cam.lan/1", "canary://me:canary@cam.lan/1?pw=canary"])
def test_errors_have_no_credentials(token: str) -> None:
    """A token of an unknown kind is named without its credentials."""
    for opener in (lambda: open_camera(token, fps=10, width=64, height=48), lambda: open_microphone(token)):
        with pytest.raises(DeviceError) as caught:
            opener()
        assert "me:canary" not in str(caught.value)
        assert "=canary" not in str(caught.value)
        assert "cam.lan" in str(caught.value)


def test_faults_have_no_credentials(caplog: pytest.LogCaptureFixture) -> None:
    """A driver's error that contains a URL reaches neither the log nor the fault with its password."""
    details: list[str] = []
    health = Health()
    health.subscribe(lambda _component, _reason, detail: details.append(detail))

    class NoHandler:
        def handle(self, _item: int, /) -> None: ...

        def forget(self) -> None: ...

    def fail() -> Source[int]:
        raise DeviceError("could not connect to rtsp://me:canary@cam.lan/1")

    worker = Worker("camera", fail, NoHandler(), health)
    with caplog.at_level(logging.DEBUG):
        worker.start()
        wait_until(lambda: bool(details), "the fault")
        worker.close()
    assert details == ["could not connect to rtsp://***@cam.lan/1"]
    assert "canary" not in caplog.text


def test_config_show_has_no_credentials() -> None:
    """`config show` prints sources without credentials."""
    config = parse_config({"camera": {"source": "rtsp://me:can/ary@cam.lan/1?pw=canary"}})
    assert 'source = "rtsp://***@cam.lan/1?pw=***"' in to_toml(config)


def test_special_characters_of_a_password_are_explained() -> None:
    """A camera that cannot be reached with `#` or `/` in its password is named with their codes."""
    with pytest.raises(DeviceError, match=r"no video there; .* write %23 for #, %2F for /$") as caught:
        open_camera("rtsp://me:can#a/ry@127.0.0.1:1/live", fps=10, width=64, height=48)
    assert "can#a" not in str(caught.value)
    with pytest.raises(DeviceError, match=r"user and password$"):
        open_camera("rtsp://me:canary@127.0.0.1:1/live", fps=10, width=64, height=48)
