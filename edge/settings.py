"""What can be set, section by section, with its range and its default; `config` reads it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from edge.hosts import Address, parse_address

CAMERA_TOKENS = re.compile(
    r"auto|none|picamera:\d+|v4l2:/dev/\S+|rtsps?://\S+|https?://\S+|gstreamer:.+|file:.+|fake:.+"
)
MICROPHONE_TOKENS = re.compile(r"auto|none|alsa:\S+|usb:[0-9a-fA-F]{4}:[0-9a-fA-F]{4}|file:.+|fake:.+")

Context = Literal["home", "public", "research", "education", "workplace"]
Basis = Literal["medical", "safety"]


class Section(BaseModel):
    """A part of the configuration: frozen, no unknown keys, no silent conversion."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class DeviceSettings(Section):
    """Who this device is and where it stands, which decides what may leave it."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,64}$", description="part of every topic")] = "room"
    context: Context = "home"
    acknowledged_basis: Basis | None = None


class CameraSettings(Section):
    """Where pictures come from."""

    source: str = "auto"
    fps: Annotated[float, Field(gt=0, le=60)] = 10.0
    width: Annotated[int, Field(ge=64, le=4096)] = 640
    height: Annotated[int, Field(ge=64, le=4096)] = 480

    @field_validator("source")
    @classmethod
    def _is_token(cls, value: str) -> str:
        return _token(value, CAMERA_TOKENS, "v4l2:/dev/v4l/by-id/..., rtsp://..., file:clip.mp4")


class MicrophoneSettings(Section):
    """Where sound comes from, and how it is cut into windows."""

    source: str = "auto"
    window_s: Annotated[float, Field(ge=0.5, le=10)] = 3.0
    hop_s: Annotated[float, Field(ge=0.1, le=10)] = 0.5

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
    """Which artifacts run: names of cards in `directory`, or in the package when it is not set.

    `eyes` and `mouth` may be `none`, and are the package's where `directory` has none of that name.
    """

    face: str = "face-cnn"
    video: Annotated[str, Field(description="or none: every picture is judged by itself")] = "video-lstm"
    voice: str = "voice-lstm"
    eyes: str = "eye-state"
    fusion: Annotated[str, Field(description="asked where fusion.method is network")] = "multimodal"
    mouth: str = "mouth-state"
    directory: Path | None = None


class InferenceSettings(Section):
    """What the models run on."""

    backend: Annotated[
        str,
        Field(
            pattern=r"^(auto|cpu|gpu|edgetpu|delegate:/.+)$",
            description="auto (the fastest that answers rightly), cpu, gpu, edgetpu, or a delegate library "
            "with its options: delegate:/path.so?key=value&key=value",
        ),
    ] = "auto"
    threads: Annotated[int, Field(ge=1, le=16)] = 1


class FusionSettings(Section):
    """How two opinions become one, and when a change is believed."""

    method: Annotated[
        Literal["weighted_log", "max", "product", "mean", "bayes_sum", "network"],
        Field(description="a rule, or network: the model of models.fusion, which has weights of its own"),
    ] = "network"
    visual: Annotated[
        Literal["image", "video", "mean", "product", "network"],
        Field(description="what a face is judged by: the picture, the last 1.5 s, or both"),
    ] = "mean"
    face_weight: Annotated[float, Field(ge=0, le=10, description="in the rules")] = 1.0
    voice_weight: Annotated[float, Field(ge=0, le=10, description="in the rules")] = 0.6
    enter: Annotated[float, Field(gt=0, lt=1)] = 0.45
    exit: Annotated[float, Field(gt=0, lt=1)] = 0.35
    min_dwell_s: Annotated[float, Field(ge=0, le=60)] = 0.8
    ema_s: Annotated[float, Field(ge=0, le=60)] = 0.8
    max_skew_s: Annotated[float, Field(gt=0, le=60)] = 2.5
    half_life_s: Annotated[float, Field(gt=0, le=60)] = 1.5

    @model_validator(mode="after")
    def _exit_below_enter(self) -> FusionSettings:
        if self.exit > self.enter:
            raise ValueError(f"exit {self.exit} is above enter {self.enter}; hysteresis needs exit <= enter")
        return self


class FatigueSettings(Section):
    """When somebody counts as tired; `edge/people/fatigue.py` says where the defaults come from."""

    enabled: bool = True
    perclos_tired: Annotated[
        float, Field(gt=0, lt=1, description="share of time with closed eyes that is tired by itself")
    ] = 0.12
    perclos_drowsy: Annotated[float, Field(gt=0, lt=1, description="and that is drowsy")] = 0.20
    microsleep_s: Annotated[float, Field(ge=0.3, le=2, description="closed for longer is no blink")] = 0.5
    alarm_s: Annotated[float, Field(ge=0.5, le=10, description="closed for so long is drowsy at once")] = 1.0
    asleep_s: Annotated[float, Field(ge=1, le=60, description="and for so long asleep")] = 3.0
    window_s: Annotated[float, Field(ge=20, le=600, description="over which closed eyes are counted")] = 60.0
    baseline_s: Annotated[float, Field(ge=10, le=600, description="in which a person is learnt")] = 60.0
    no_blink_s: Annotated[
        float, Field(ge=30, le=3600, description="eyes open for longer may be those of a photograph")
    ] = 180.0

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
    """The broker, or the brokers of one cluster."""

    host: Annotated[
        str | tuple[str, ...],
        Field(description="one name or a list of them, each with a port of its own if need be: b.local:1884"),
    ] = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535, description="of the hosts that name none")] = 1883
    transport: Literal["tcp", "websockets"] = "tcp"
    path: Annotated[str, Field(pattern=r"^/[!-~]*$", description="of the websocket")] = "/mqtt"
    tls: bool = False
    username: str | None = None
    password_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Annotated[Path | None, Field(description="client certificate, PEM")] = None
    key_file: Annotated[Path | None, Field(description="its key, PEM, not encrypted")] = None
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$")] = "emotion"
    keepalive_s: Annotated[int, Field(ge=5, le=3600)] = 30
    stats_interval_s: Annotated[float, Field(ge=0)] = 60.0
    discovery: Annotated[bool, Field(description="announce the device to Home Assistant")] = True
    discovery_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$")] = "homeassistant"

    @field_validator("host", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        # Strict validation takes no list for a tuple, and a variable has no other way to name several.
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
            raise ValueError(f"host {self.host!r} is empty or names one broker twice; name each once")
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file belong together; set both or neither")
        files = [name for name in ("ca_file", "cert_file") if getattr(self, name)]
        if files and not self.tls:
            raise ValueError(f"{files[0]} is set, but nothing is encrypted; set tls = true")
        return self

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Every broker with its port, in the order of the configuration."""
        names = (self.host,) if isinstance(self.host, str) else self.host
        return tuple(parse_address(name, default_port=self.port) for name in names)


class OutboxSettings(Section):
    """The queue on disk in front of the broker."""

    path: Path | None = None
    max_events: Annotated[int, Field(ge=1)] = 100_000
    max_bytes: Annotated[int, Field(ge=4096)] = 64 * 1024 * 1024
    max_age_s: Annotated[float, Field(ge=0, description="of time that the daemon ran; 0 = any age")] = (
        30 * 86_400.0
    )


class DashboardSettings(Section):
    """The status page and `/metrics`."""

    bind: Annotated[str, Field(description="HOST:PORT, or none")] = "127.0.0.1:8770"
    token_file: Path | None = None

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
        if value not in ("", "none") and not re.fullmatch(r"([\w.-]+|\[[0-9a-fA-F:.]+\]):\d{1,5}", value):
            raise ValueError("use HOST:PORT such as 127.0.0.1:8770 or [::1]:8770, or none")
        return value

    @model_validator(mode="after")
    def _open_needs_token(self) -> DashboardSettings:
        if self.address is not None and self.address.port > 65535:
            raise ValueError(f"bind {self.bind!r}: ports end at 65535")
        if self.address is not None and self.token_file is None and not self.address.is_loopback:
            raise ValueError(
                f"bind {self.bind!r} lets others in; set token_file, or bind to 127.0.0.1:{self.address.port}"
            )
        return self


class HealthSettings(Section):
    """When the device spares itself."""

    soft_limit_c: Annotated[
        float,
        Field(
            ge=40,
            le=120,
            description="processor temperature from which fewer pictures are looked at; a Raspberry Pi slows "
            "itself down at 80, a Jetson at 97 or more",
        ),
    ] = 78.0


class Config(Section):
    """Everything that can be set."""

    version: Literal[1] = 1
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
        """Whether fatigue is looked for: there may be a camera, and nobody switched it off."""
        return self.fatigue.enabled and self.camera.source != "none"

    @model_validator(mode="after")
    def _password_needs_name(self) -> Config:
        if self.mqtt.password_file and not self.mqtt.username:
            raise ValueError("mqtt.password_file is set without mqtt.username; set both or neither")
        return self


def _token(value: str, pattern: re.Pattern[str], examples: str) -> str:
    if not pattern.fullmatch(value):
        raise ValueError(
            f"{value!r} is not a source; use a token such as {examples}, auto or none "
            "(`emotion-edge devices` lists them)"
        )
    return value
