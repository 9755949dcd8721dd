"""Reads the configuration: defaults, then a TOML file, then `EMOTION_EDGE__SECTION__KEY` variables.

Every key is known here or refused with the nearest name; secrets are files, never values.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from edge.errors import ConfigError
from edge.hosts import Address, parse_address
from edge.secrets import check_secret_file, read_secret

ENV_PREFIX = "EMOTION_EDGE__"
MAX_SHOWN = 80  # characters of a refused value
DEFAULT_PATH = Path("/etc/emotion-edge/config.toml")

CAMERA_TOKENS = re.compile(
    r"auto|none|picamera:\d+|v4l2:/dev/\S+|rtsps?://\S+|https?://\S+|gstreamer:.+|file:.+|fake:.+"
)
MICROPHONE_TOKENS = re.compile(r"auto|none|alsa:\S+|usb:[0-9a-fA-F]{4}:[0-9a-fA-F]{4}|file:.+|fake:.+")


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach `host`."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name may lead anywhere


class Section(BaseModel):
    """A part of the configuration: frozen, no unknown keys, no silent conversion."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class DeviceSettings(Section):
    """Who this device is and where it stands, which decides what may leave it."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,64}$", description="part of every topic")] = "room"
    context: Literal["home", "public", "research", "education", "workplace"] = "home"
    acknowledged_basis: Literal["medical", "safety"] | None = None


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
    """Which artifacts run: names of cards in `directory`, or in the package when it is not set."""

    face: str = "face-cnn"
    voice: str = "voice-lstm"
    fusion: str | None = None
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

    method: Literal["weighted_log"] = "weighted_log"
    face_weight: Annotated[float, Field(ge=0, le=10)] = 1.0
    voice_weight: Annotated[float, Field(ge=0, le=10)] = 0.6
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
    """Nothing can be set here yet."""


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
    def address(self) -> tuple[str, int] | None:
        """Host and port of `bind`; None when nothing is served."""
        if self.bind in ("", "none"):
            return None
        host, _, port = self.bind.rpartition(":")
        return host.removeprefix("[").removesuffix("]"), int(port)

    @field_validator("bind")
    @classmethod
    def _is_address(cls, value: str) -> str:
        if value not in ("", "none") and not re.fullmatch(r"([\w.-]+|\[[0-9a-fA-F:.]+\]):\d{1,5}", value):
            raise ValueError("use HOST:PORT such as 127.0.0.1:8770 or [::1]:8770, or none")
        return value

    @model_validator(mode="after")
    def _open_needs_token(self) -> DashboardSettings:
        if self.address is not None and self.address[1] > 65535:
            raise ValueError(f"bind {self.bind!r}: ports end at 65535")
        if self.address is not None and self.token_file is None and not is_loopback(self.address[0]):
            raise ValueError(
                f"bind {self.bind!r} lets others in; set token_file, or bind to 127.0.0.1:{self.address[1]}"
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

    @model_validator(mode="after")
    def _password_needs_name(self) -> Config:
        if self.mqtt.password_file and not self.mqtt.username:
            raise ValueError("mqtt.password_file is set without mqtt.username; set both or neither")
        return self


def load_config(path: Path | None = None, *, environ: Mapping[str, str] = os.environ) -> Config:
    """Read `path` (or the default path where it exists), apply the environment, validate.

    Raises `ConfigError` with one sentence that names the key, its value and the remedy.
    """
    raw: dict[str, Any] = {}
    if path is None and DEFAULT_PATH.exists():
        path = DEFAULT_PATH
    if path is not None:
        try:
            raw = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(
                f"{path}: no such config file; `emotion-edge config show` prints one to start from"
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{path}: cannot be read ({error}); check its permissions and encoding"
            ) from error
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{path}: not valid TOML ({error}); correct that line") from error
    _apply_environment(raw, environ)
    return parse_config(raw, where=str(path) if path else "config")


def parse_config(raw: Mapping[str, Any], *, where: str = "config") -> Config:
    """Validate a mapping; raise `ConfigError` for the first thing that is wrong."""
    try:
        # TOML has no paths and no optionals, so values come as JSON would bring them.
        config = Config.model_validate(_with_paths(raw))
    except ValidationError as error:
        raise ConfigError(f"{where}: {_sentence(error)}") from None
    secrets = {
        "mqtt.password_file": config.mqtt.password_file,
        "mqtt.key_file": config.mqtt.key_file,
        "dashboard.token_file": config.dashboard.token_file,
    }
    for key, path in secrets.items():
        if path is not None:
            check_secret_file(path, key=key)
    return config


def read_password(settings: MqttSettings, *, environ: Mapping[str, str] = os.environ) -> str | None:
    """Return the broker password from `password_file`, else from `$CREDENTIALS_DIRECTORY/mqtt-password`."""
    if settings.password_file is not None:
        return read_secret(settings.password_file, key="mqtt.password_file")
    if directory := environ.get("CREDENTIALS_DIRECTORY"):
        credential = Path(directory) / "mqtt-password"
        if credential.exists():
            return read_secret(credential, key="credential") or None  # the unit makes an empty one
    return None


def state_directory(*, environ: Mapping[str, str] = os.environ) -> Path:
    """Return where state lives: systemd's `$STATE_DIRECTORY`, else `$XDG_STATE_HOME/emotion-edge`."""
    if directory := environ.get("STATE_DIRECTORY"):
        return Path(directory.split(":")[0])
    home = environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "emotion-edge"


def outbox_path(config: Config) -> Path:
    """Return the outbox file: configured, or in the state directory, one per device id."""
    return config.outbox.path or state_directory() / f"outbox-{config.device.id}.sqlite3"


def switches_path(config: Config) -> Path:
    """Return where the switches are remembered: beside the outbox, one file per device id."""
    return outbox_path(config).with_name(f"switches-{config.device.id}.json")


def public_name(token: str) -> str:
    """Return the token of a source without user and password, for logs, errors and status topics."""
    return re.sub(r"\b(user-id|user-pw)=\S+", r"\1=***", re.sub(r"//[^/@\s]*@", "//***@", token))


def to_toml(config: Config) -> str:
    """Write the effective configuration as TOML; unset keys stand as comments."""
    lines = [f"version = {config.version}"]
    for name, section in config:
        if not isinstance(section, Section):
            continue
        lines += ["", f"[{name}]"]
        for key, value in section.model_dump(mode="json").items():
            value = public_name(value) if key == "source" else value
            lines.append(f"# {key} =" if value is None else f"{key} = {_toml_value(value)}")
    return "\n".join(lines) + "\n"


def _toml_value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list):
        return f"[{', '.join(_toml_value(item) for item in value)}]"
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _token(value: str, pattern: re.Pattern[str], examples: str) -> str:
    if not pattern.fullmatch(value):
        raise ValueError(
            f"{value!r} is not a source; use a token such as {examples}, auto or none "
            "(`emotion-edge devices` lists them)"
        )
    return value


def _with_paths(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Turn the strings of path keys into `Path`, since strict validation does not."""
    result: dict[str, Any] = dict(raw)
    for name, field in Config.model_fields.items():
        section, table = field.annotation, result.get(name)
        if not (isinstance(section, type) and issubclass(section, Section) and isinstance(table, Mapping)):
            continue
        paths = {key for key, item in section.model_fields.items() if "Path" in str(item.annotation)}
        result[name] = {k: Path(v) if k in paths and isinstance(v, str) else v for k, v in table.items()}
    return result


def _apply_environment(raw: dict[str, Any], environ: Mapping[str, str]) -> None:
    for variable, text in sorted(environ.items()):
        if not variable.startswith(ENV_PREFIX):
            continue
        *sections, key = variable[len(ENV_PREFIX) :].lower().split("__")
        table = raw
        for section in sections:
            table = table.setdefault(section, {})
            if not isinstance(table, dict):
                raise ConfigError(f"{variable}: {section} is not a section of the config")
        table[key] = text if _is_text([*sections, key]) else _parse_text(text)


def _is_text(location: list[str]) -> bool:
    """Tell whether the key takes words, so that a host named 10 stays a name."""
    field = _model_of(location[:-1]).model_fields.get(location[-1])
    return field is not None and any(name in str(field.annotation) for name in ("str", "Path"))


def _parse_text(text: str) -> object:
    """Read a variable as a TOML value where it is one, else as a string."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return value if isinstance(value, bool | int | float | str) else text


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    location = [str(part) for part in first["loc"]]
    key = ".".join(location)
    if first["type"] == "extra_forbidden":
        nearest = difflib.get_close_matches(location[-1], _keys_beside(location), n=1, cutoff=0.5)
        remedy = f"did you mean {nearest[0]}?" if nearest else "`emotion-edge config schema` lists all keys"
        return f"{key}: unknown key; {remedy}"
    message = first["msg"].removeprefix("Value error, ")
    if not key:
        return message
    value = ascii(first["input"]) if not isinstance(first["input"], Mapping) else "{...}"
    if len(value) > MAX_SHOWN:
        value = f"{value[:MAX_SHOWN]}... ({len(value)} characters)"
    return f"{key} = {value}: {message[0].lower()}{message[1:]}"


def _keys_beside(location: list[str]) -> list[str]:
    return list(_model_of(location[:-1]).model_fields)


def _model_of(sections: list[str]) -> type[BaseModel]:
    """Return the class of a section, or of the nearest one that is known."""
    model: type[BaseModel] = Config
    for name in sections:
        field = model.model_fields.get(name)
        if (
            field is None
            or not isinstance(field.annotation, type)
            or not issubclass(field.annotation, Section)
        ):
            break
        model = field.annotation
    return model
