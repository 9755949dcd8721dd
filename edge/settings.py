"""All settings, section by section, with range, default and description; `edge/config.py` reads them.

The string below a field is its description: `config show` and `config schema` print it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from edge.hosts import Address, parse_address

TOPIC_LEVELS = r"^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$"
CAMERA_TOKENS = re.compile(
    r"auto|none|picamera:[0-9]{1,3}|v4l2:/dev/\S+|rtsps?://\S+|https?://\S+|gstreamer:.+|file:.+|fake:.+"
)
MICROPHONE_TOKENS = re.compile(r"auto|none|alsa:\S+|usb:[0-9a-fA-F]{4}:[0-9a-fA-F]{4}|file:.+|fake:.+")

MAX_NAME_BYTES = 200  # of each part of a path; Linux has 255, and files beside it have longer names


def _check_path(path: Path) -> Path:
    """Refuse paths that raise errors when they are opened or when a file beside them is named."""
    if not path.name:
        raise ValueError("not a file or directory with a name; write its path")
    if any(len(part.encode()) > MAX_NAME_BYTES for part in path.parts):
        raise ValueError(f"a name in the path is longer than {MAX_NAME_BYTES} bytes; use a shorter one")
    return path


FilePath = Annotated[Path, AfterValidator(_check_path)]

Context = Literal["home", "public", "research", "education", "workplace"]
Basis = Literal["medical", "safety"]


class Section(BaseModel):
    """A part of the configuration: frozen, no unknown keys, no silent conversion."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class DeviceSettings(Section):
    """Identity and place of this device; the place decides what it may publish."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,64}$")] = "room"
    """Name of the device in every topic; unique at its broker."""
    context: Context = "home"
    """home, public, research, education or workplace. In the last two, only group counts and fatigue
    are published, unless acknowledged_basis is set."""
    acknowledged_basis: Basis | None = None
    """medical or safety: the reason to publish everything in education or at the workplace."""


class CameraSettings(Section):
    """Source and rate of the frames."""

    source: str = "auto"
    """Token of the camera (`emotion-edge devices` lists them), file:clip.mp4, auto or none."""
    fps: Annotated[float, Field(ge=0.01, le=60)] = 10.0
    """Frames per second to process; frames beyond this rate are skipped."""
    width: Annotated[int, Field(ge=64, le=4096)] = 640
    """Frame width in pixels to request from the camera; files and network streams keep their own."""
    height: Annotated[int, Field(ge=64, le=4096)] = 480
    """Frame height in pixels to request from the camera; files and network streams keep their own."""

    @field_validator("source")
    @classmethod
    def _is_token(cls, value: str) -> str:
        return _token(value, CAMERA_TOKENS, "v4l2:/dev/v4l/by-id/..., rtsp://..., file:clip.mp4")


class MicrophoneSettings(Section):
    """Source of the audio, and the windows that it is cut into."""

    source: str = "auto"
    """Token of the microphone (`emotion-edge devices` lists them), file:speech.wav, auto or none."""
    window_s: Annotated[float, Field(ge=0.5, le=10)] = 3.0
    """Seconds of audio in each window; a longer one covers more speech and reacts more slowly."""
    hop_s: Annotated[float, Field(ge=0.1, le=10)] = 0.5
    """Seconds from one window to the next; each window with speech gives one voice prediction."""

    @field_validator("source")
    @classmethod
    def _is_token(cls, value: str) -> str:
        return _token(value, MICROPHONE_TOKENS, "alsa:CARD=..., usb:VID:PID, file:speech.wav")

    @model_validator(mode="after")
    def _hop_fits(self) -> MicrophoneSettings:
        if self.hop_s > self.window_s:
            raise ValueError(f"hop_s {self.hop_s} is longer than window_s {self.window_s}")
        return self


class ModelSettings(Section):
    """Models to run, each by name or by path.

    A name is looked up in `directory` first and then in the package. A path (with a `/`, or ending in
    `.json`) is a model card, with the files of the model beside it.
    """

    face: str = "face-cnn"
    """Model that classifies each face in a frame."""
    video: str = "video-lstm"
    """Model that classifies the last 1.5 s of a face, used with the face model it was trained with; none:
    classify each frame by itself."""
    voice: str = "voice-lstm"
    """Model that classifies windows of speech."""
    eyes: str = "eye-state"
    """Model that measures how far the eyes are open; none: fatigue is estimated without eyes."""
    fusion: str = "multimodal"
    """Model that fuses face and voice; used if fusion.method is network."""
    mouth: str = "mouth-state"
    """Model that recognises yawns; none: yawns are measured from the shape of the mouth."""
    directory: FilePath | None = None
    """Directory with cards and files of your own models, searched by name before those of the package."""


def is_card_path(name: str) -> bool:
    """Return whether a key of `[models]` holds the path of a card, not the name of a model."""
    return "/" in name or name.endswith(".json")


class InferenceSettings(Section):
    """Processor or accelerator that runs the models."""

    backend: Annotated[str, Field(pattern=r"^(auto|cpu|gpu|edgetpu|delegate:/.+)$")] = "auto"
    """auto (the fastest one with correct results), cpu, gpu, edgetpu, or a TFLite delegate library with its
    options: delegate:/path.so?key=value&key=value."""
    threads: Annotated[int, Field(ge=1, le=16)] = 1
    """CPU threads for each model."""


class FusionSettings(Section):
    """How the predictions from face and voice become one emotion, and when a new emotion is reported."""

    method: Literal["weighted_log", "max", "product", "mean", "bayes_sum", "network"] = "network"
    """Rule that fuses face and voice (weighted_log, max, product, mean, bayes_sum), or network: the model of
    models.fusion."""
    visual: Literal["image", "video", "mean", "product", "network"] = "mean"
    """What a face prediction uses: image (the current frame), video (the last 1.5 s), or both, combined by
    mean, product or network."""
    face_weight: Annotated[float, Field(ge=0, le=10)] = 1.0
    """Weight of the face relative to the voice; every method but network uses it."""
    voice_weight: Annotated[float, Field(ge=0, le=10)] = 0.6
    """Weight of the voice relative to the face; every method but network uses it."""
    enter: Annotated[float, Field(gt=0, lt=1)] = 0.45
    """Probability from which an emotion is reported instead of uncertain. Higher: fewer, surer reports."""
    exit: Annotated[float, Field(gt=0, lt=1)] = 0.35
    """Probability below which a reported emotion ends; at most enter. Lower: an emotion lasts longer."""
    min_dwell_s: Annotated[float, Field(ge=0, le=60)] = 0.8
    """Seconds that a new emotion must last before it is reported; 0 reports every change."""
    ema_s: Annotated[float, Field(ge=0, le=60)] = 0.8
    """Time constant in seconds of the average over time; 0: no average. Higher: smoother and slower."""
    max_skew_s: Annotated[float, Field(gt=0, le=60)] = 2.5
    """Age in seconds at which a prediction is dropped; a face without a newer one is then absent."""
    half_life_s: Annotated[float, Field(gt=0, le=60)] = 1.5
    """Age in seconds at which a prediction counts half as much as a new one."""

    @model_validator(mode="after")
    def _exit_below_enter(self) -> FusionSettings:
        if self.exit > self.enter:
            raise ValueError(f"exit {self.exit} is above enter {self.enter}; hysteresis needs exit <= enter")
        return self


class FatigueSettings(Section):
    """Limits of the fatigue levels; `edge/people/fatigue.py` gives their sources."""

    enabled: bool = True
    """Whether fatigue is estimated; it needs a camera."""
    perclos_tired: Annotated[float, Field(gt=0, lt=1)] = 0.12
    """Share of the time with closed eyes (PERCLOS, 0..1) that alone means tired; below perclos_drowsy."""
    perclos_drowsy: Annotated[float, Field(gt=0, lt=1)] = 0.20
    """Share of the time with closed eyes (PERCLOS, 0..1) that alone means drowsy."""
    microsleep_s: Annotated[float, Field(ge=0.3, le=2)] = 0.5
    """Seconds of closed eyes that count as a microsleep instead of a blink; must be below alarm_s."""
    alarm_s: Annotated[float, Field(ge=0.5, le=10)] = 1.0
    """Seconds of closed eyes that mean drowsy at once; must be below asleep_s."""
    asleep_s: Annotated[float, Field(ge=1, le=60)] = 3.0
    """Seconds of closed eyes that mean asleep at once."""
    window_s: Annotated[float, Field(ge=20, le=600)] = 60.0
    """Seconds over which closed eyes, blinks and microsleeps are counted. Longer: steadier and slower."""
    baseline_s: Annotated[float, Field(ge=10, le=600)] = 60.0
    """Seconds in which a person's usual blinks and head pose are learnt."""
    no_blink_s: Annotated[float, Field(ge=30, le=3600)] = 180.0
    """Seconds without a blink after which the level is uncertain: the face may be a photograph."""

    @model_validator(mode="after")
    def _in_order(self) -> FatigueSettings:
        for low, high in (
            ("perclos_tired", "perclos_drowsy"),
            ("microsleep_s", "alarm_s"),
            ("alarm_s", "asleep_s"),
        ):
            if getattr(self, low) >= getattr(self, high):
                raise ValueError(
                    f"{low} {getattr(self, low)} is not below {high} {getattr(self, high)}; lower it"
                )
        return self


class MqttSettings(Section):
    """Connection to the broker, or to the brokers of one cluster."""

    host: str | tuple[str, ...] = "127.0.0.1"
    """Name or IP address of the broker, or a list of them; each may have its own port: b.local:1884."""
    port: Annotated[int, Field(ge=1, le=65535)] = 1883
    """Port of the hosts that have none of their own."""
    transport: Literal["tcp", "websockets"] = "tcp"
    """tcp or websockets."""
    path: Annotated[str, Field(pattern=r"^/[!-~]*$")] = "/mqtt"
    """Path of the websocket; used if transport is websockets."""
    tls: bool = False
    """Whether the connection is encrypted."""
    username: str | None = None
    """User name at the broker; unset: connect without one."""
    password_file: FilePath | None = None
    """File with the password of username; only its owner and the service's groups may read it."""
    ca_file: FilePath | None = None
    """CA certificates that the broker's certificate is verified with, PEM; unset: those of the system."""
    cert_file: FilePath | None = None
    """Client certificate, PEM; needs key_file."""
    key_file: FilePath | None = None
    """Private key of cert_file, PEM, not encrypted; only its owner and the service's groups may read it."""
    prefix: Annotated[str, Field(pattern=TOPIC_LEVELS)] = "emotion"
    """First levels of every topic: PREFIX/DEVICE/state."""
    keepalive_s: Annotated[int, Field(ge=5, le=3600)] = 30
    """Seconds between keep-alive messages; the broker notices a lost device after 1.5 times this."""
    stats_interval_s: Annotated[float, Field(ge=0, le=86_400)] = 60.0
    """Seconds between two stats messages; 0: none."""
    discovery: bool = True
    """Whether the device announces itself to Home Assistant."""
    discovery_prefix: Annotated[str, Field(pattern=TOPIC_LEVELS)] = "homeassistant"
    """Home Assistant's discovery prefix."""

    @field_validator("host", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        # Strict validation takes no list for a tuple; an environment variable lists several with commas.
        if isinstance(value, str) and "," in value:
            return tuple(name.strip() for name in value.split(","))
        return tuple(value) if isinstance(value, list) else value

    @field_validator("host")
    @classmethod
    def _are_addresses(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for name in (value,) if isinstance(value, str) else value:
            parse_address(name, default_port=1883)
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> MqttSettings:
        addresses = self.addresses
        if len(set(addresses)) < len(addresses) or not addresses:
            raise ValueError(f"host {self.host!r} is empty or names a broker twice; name each broker once")
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file belong together; set both or neither")
        files = [name for name in ("ca_file", "cert_file") if getattr(self, name)]
        if files and not self.tls:
            raise ValueError(f"{files[0]} is set, but tls is false; set tls = true")
        return self

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Every broker with its port, in the order of the configuration."""
        names = (self.host,) if isinstance(self.host, str) else self.host
        return tuple(parse_address(name, default_port=self.port) for name in names)


class OutboxSettings(Section):
    """The queue on disk for events that are not sent yet; at a limit the oldest events are dropped."""

    path: FilePath | None = None
    """Database file; unset: outbox-DEVICE.sqlite3 in the state directory."""
    max_events: Annotated[int, Field(ge=1)] = 100_000
    """Largest number of waiting events."""
    max_bytes: Annotated[int, Field(ge=4096)] = 64 * 1024 * 1024
    """Largest total size in bytes of waiting events."""
    max_age_s: Annotated[float, Field(ge=0, le=10 * 365 * 86_400)] = 30 * 86_400.0
    """Seconds of daemon running time after which a waiting event is dropped; 0: never."""


class DashboardSettings(Section):
    """The status page and `/metrics`."""

    bind: str = "127.0.0.1:8770"
    """Address to listen on, HOST:PORT, or none; an address other than loopback needs token_file."""
    token_file: FilePath | None = None
    """File with the token that a client sends as `Authorization: Bearer`; unset: loopback only, no token."""

    @property
    def address(self) -> Address | None:
        """Host and port of `bind`; None when nothing is served."""
        if self.bind in ("", "none"):
            return None
        host, _, port = self.bind.rpartition(":")
        return Address(host.removeprefix("[").removesuffix("]"), int(port))

    @field_validator("bind")
    @classmethod
    def _is_address(cls, value: str) -> str:
        if value not in ("", "none"):
            host, _, port = value.rpartition(":")
            if not re.fullmatch(r"\[.+\]|[^:]+", host) or not re.fullmatch(r"[0-9]{1,5}", port):
                raise ValueError("use HOST:PORT such as 127.0.0.1:8770 or [::1]:8770, or none")
            parse_address(host, default_port=8770)
        return value

    @model_validator(mode="after")
    def _open_needs_token(self) -> DashboardSettings:
        if self.address is not None and self.address.port > 65535:
            raise ValueError(f"bind {self.bind!r}: the port is above 65535; use a free one such as 8770")
        if self.address is not None and self.token_file is None and not self.address.is_loopback:
            raise ValueError(
                f"bind {self.bind!r} is reachable from other machines; set token_file, or bind to "
                f"127.0.0.1:{self.address.port}"
            )
        return self


class HealthSettings(Section):
    """How the device protects itself from overheating."""

    soft_limit_c: Annotated[float, Field(ge=40, le=120)] = 78.0
    """Processor temperature in °C from which fewer frames are processed. A Raspberry Pi throttles itself at
    80 °C, a Jetson at 97 °C or more."""


class Config(Section):
    """All settings."""

    version: Literal[1] = 1
    """Version of this file's format."""
    device: DeviceSettings = DeviceSettings()
    camera: CameraSettings = CameraSettings()
    microphone: MicrophoneSettings = MicrophoneSettings()
    models: ModelSettings = ModelSettings()
    inference: InferenceSettings = InferenceSettings()
    fusion: FusionSettings = FusionSettings()
    fatigue: FatigueSettings = FatigueSettings()
    mqtt: MqttSettings = MqttSettings()
    outbox: OutboxSettings = OutboxSettings()
    dashboard: DashboardSettings = DashboardSettings()
    health: HealthSettings = HealthSettings()

    @property
    def watches_fatigue(self) -> bool:
        """Whether fatigue is estimated: it is enabled and a camera is configured."""
        return self.fatigue.enabled and self.camera.source != "none"

    @model_validator(mode="after")
    def _password_needs_name(self) -> Config:
        if self.mqtt.password_file and not self.mqtt.username:
            raise ValueError("mqtt.password_file is set without mqtt.username; set both or neither")
        return self


def _token(value: str, pattern: re.Pattern[str], examples: str) -> str:
    """Return the token with its kind in small letters; an address keeps its case."""
    kind, colon, rest = value.partition(":")
    token = f"{kind.lower()}{colon}{rest}"
    if not pattern.fullmatch(token):
        # The error has no value: it may be the address of a camera with its password.
        raise ValueError(
            f"not a source; use a token such as {examples}, auto or none (`emotion-edge devices` lists them)"
        )
    return token
