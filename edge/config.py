"""Reads the configuration from defaults, a TOML file and `EMOTION_EDGE__SECTION__KEY` variables; writes it.

An unknown key is an error that suggests the nearest known one. Secrets are kept in files of their own.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import json
import os
import re
import textwrap
import tomllib
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from edge.errors import ConfigError
from edge.masking import mask_credentials, shortened
from edge.secrets import check_secret_file, read_secret
from edge.settings import Config, ModelSettings, MqttSettings, Section, is_card_path

ENV_PREFIX = "EMOTION_EDGE__"
MODEL = "model"  # the annotation of a key that holds the name or the path of a model
MAX_REASON = 250  # characters of what is wrong with it
MAX_FILE_BYTES = 1 << 20
MAX_TEXT_BYTES = 4096  # of a value; the longest path on Linux, and much below the limit of MQTT
MAX_DEPTH = 4  # of sections and lists; the deepest key, `mqtt.host`, has 3
LARGEST = 2**63 - 1
ENCODINGS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
COMMENT_WIDTH = 100  # characters a line of `config show`
DEFAULT_PATH = Path("/etc/emotion-edge/config.toml")


def load_config(path: Path | None = None, *, environ: Mapping[str, str] = os.environ) -> Config:
    """Read `path` (or the default path if it exists), apply the environment, validate.

    Relative paths, also those of `file:` sources, are relative to the directory of the configuration file; in
    an environment variable, to the current directory.
    Raises `ConfigError` with one sentence that names the key, its value and the remedy.
    """
    raw: dict[str, Any] = {}
    if path is None and os.path.lexists(DEFAULT_PATH):
        path = DEFAULT_PATH
    if path is not None:
        raw = _parse_file(path)
        check_values(raw, where=str(path))
        raw = _anchored(raw, path.absolute().parent)
    where = str(path) if path else "config"
    _apply_environment(raw, environ)
    check_values(raw, where=where)
    raw = _anchored(raw, Path.cwd())
    return parse_config(raw, where=where)


def parse_config(raw: Mapping[str, Any], *, where: str = "config") -> Config:
    """Validate a mapping; raise `ConfigError` for its first error."""
    check_values(raw, where=where)
    try:
        # Strict validation takes no string for a path.
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
            return read_secret(credential, key="credential") or None  # the unit creates an empty one
    return None


def child_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment for a child process: without our variables, whose values may have a password."""
    return {name: value for name, value in environ.items() if not name.startswith(ENV_PREFIX)}


def state_directory(*, environ: Mapping[str, str] = os.environ) -> Path:
    """Return the directory for state: systemd's `$STATE_DIRECTORY`, else `$XDG_STATE_HOME/emotion-edge`."""
    if directory := environ.get("STATE_DIRECTORY"):
        return Path(directory.split(":")[0])
    home = environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "emotion-edge"


def outbox_path(config: Config) -> Path:
    """Return the outbox file: `outbox.path`, or one for each device id in the state directory."""
    return config.outbox.path or state_directory() / f"outbox-{config.device.id}.sqlite3"


def switches_path(config: Config) -> Path:
    """Return the file of the switches: next to the outbox, one for each device id."""
    return outbox_path(config).with_name(f"switches-{config.device.id}.json")


@cache
def field_descriptions(section: type[BaseModel]) -> dict[str, str]:
    """Return the string below each field of a section, by field.

    Read from the source only when they are printed: pydantic's `use_attribute_docstrings` reads it at every
    start, which takes half a second on a small device.
    """
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(section))).body
    assert isinstance(definition, ast.ClassDef)
    return {
        field.target.id: inspect.cleandoc(below.value.value)
        for field, below in pairwise(definition.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
        and isinstance(below.value.value, str)
    }


def config_schema() -> dict[str, Any]:
    """Return the JSON Schema of the configuration, with the description of each field."""
    schema = Config.model_json_schema()
    for section in (Config, *(field.annotation for field in Config.model_fields.values())):
        if isinstance(section, type) and issubclass(section, BaseModel):
            part = schema if section is Config else schema["$defs"][section.__name__]
            for name, description in field_descriptions(section).items():
                part["properties"][name]["description"] = description
    return schema


def to_toml(config: Config) -> str:
    """Write the effective configuration as TOML, each key below its description; an unset key is a comment.

    Credentials are masked.
    """
    lines = [*_comment(field_descriptions(Config)["version"]), f"version = {config.version}"]
    for name, section in config:
        if not isinstance(section, Section):
            continue
        descriptions = field_descriptions(type(section))
        lines += ["", *_comment(type(section).__doc__), f"[{name}]"]
        for key, value in section.model_dump(mode="json").items():
            value = mask_credentials(value) if isinstance(value, str) else value
            lines += _comment(descriptions[key])
            lines.append(f"# {key} =" if value is None else f"{key} = {_toml_value(value)}")
    return "\n".join(lines) + "\n"


def _parse_file(path: Path) -> dict[str, Any]:
    """Read a TOML file; raise `ConfigError`."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no such file; `emotion-edge config show` prints a configuration to start from"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_FILE_BYTES} bytes; give the configuration file")
    for mark, encoding in ENCODINGS.items():
        if content.startswith(mark):
            raise ConfigError(f"{path}: the file is {encoding}; save it as UTF-8")
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    except RecursionError:
        raise ConfigError(f"{path}: its values are nested too deeply; lists of a list are not used") from None
    except ValueError as error:  # also an integer of more than 4300 digits
        raise ConfigError(f"{path}: not valid TOML ({shortened(str(error))}); correct that line") from None


def _comment(text: str | None) -> list[str]:
    """Return `text` as comment lines."""
    words = " ".join((text or "").split())
    return textwrap.wrap(
        words, COMMENT_WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False
    )


def _toml_value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list):
        return f"[{', '.join(_toml_value(item) for item in value)}]"
    # A JSON string is a TOML string, except that TOML escapes DEL too.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def check_values(raw: Mapping[str, Any], *, where: str) -> None:
    """Raise `ConfigError` for a value that no key can have, before anything works with it.

    These are texts with NUL, invalid or too long, numbers beyond 64 bits, and sections in sections.
    """

    def check(name: str, value: object, depth: int) -> None:
        items: Iterable[tuple[object, object]] = ()
        problem = _problem(value) if depth <= MAX_DEPTH else "is nested too deeply; remove a level"
        if isinstance(value, Mapping):
            items = value.items()
        elif isinstance(value, list | tuple):
            items = enumerate(value)
        if problem:
            raise ConfigError(f"{where}: {shortened(name)} {problem}")
        for key, item in items:
            check(f"{name}.{key}" if name else str(key), item, depth + 1)

    check("", raw, 0)


def _problem(value: object) -> str:
    """Return what is wrong with a single value, and the remedy; empty where nothing is."""
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, int) and abs(value) > LARGEST:
        return f"is an integer above {LARGEST}; use a smaller one"
    if not isinstance(value, str):
        return ""
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        return f"= {shortened(ascii(value))}: not valid UTF-8; write the text as UTF-8"
    if "\0" in value:
        return f"= {shortened(ascii(value))}: has a NUL character; remove it"
    if size > MAX_TEXT_BYTES:
        return f"= {shortened(ascii(value))}: has {size} bytes; use at most {MAX_TEXT_BYTES}"
    return ""


def _with_paths(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Turn the strings of path keys into `Path`, because strict validation does not."""
    return _mapped(raw, lambda kind, value: Path(value) if "Path" in kind else value)


def _anchored(raw: Mapping[str, Any], directory: Path) -> dict[str, Any]:
    """Make relative paths absolute; they start at `directory`."""

    def anchor(kind: str, value: str) -> str:
        if "Path" in kind or (kind == MODEL and is_card_path(value)):
            return str(directory / _expanded(value))
        # A suffix such as `?loop` stays.
        kind, _, name = value.partition(":")
        return f"file:{directory / _expanded(name)}" if kind.lower() == "file" else value

    return _mapped(raw, anchor)


def _expanded(path: str) -> Path:
    """Replace `~` and `~user`; raise `ConfigError` where there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ConfigError(
            f"config: {shortened(ascii(path))}: no such home directory; write the path from / on"
        ) from None


def _mapped(raw: Mapping[str, Any], change: Callable[[str, str], object]) -> dict[str, Any]:
    """Return the sections with each string of a known key replaced by `change(annotation, value)`."""
    result: dict[str, Any] = dict(raw)
    for name, field in Config.model_fields.items():
        section, table = field.annotation, result.get(name)
        if not (isinstance(section, type) and issubclass(section, Section) and isinstance(table, Mapping)):
            continue
        kinds = {
            key: MODEL if section is ModelSettings and item.annotation is str else str(item.annotation)
            for key, item in section.model_fields.items()
        }
        result[name] = {
            key: change(kinds[key], value) if key in kinds and isinstance(value, str) else value
            for key, value in table.items()
        }
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
                raise ConfigError(
                    f"{shortened(variable)}: {shortened(section)} is a value, not a section; "
                    "use EMOTION_EDGE__SECTION__KEY"
                )
        table[key] = text if _is_text([*sections, key]) else _parse_text(text)


def _is_text(location: list[str]) -> bool:
    """Return whether the key takes strings, so that a host named 10 stays a name."""
    field = _model_of(location[:-1]).model_fields.get(location[-1])
    return field is not None and any(name in str(field.annotation) for name in ("str", "Path"))


def _parse_text(text: str) -> object:
    """Parse a variable as a TOML value if it is one, else return it as a string."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):  # ValueError: also an integer of more than 4300 digits
        return text
    return value if isinstance(value, bool | int | float | str) else text


def _sentence(error: ValidationError) -> str:
    """Return the first error as one sentence: key, value, what is wrong, remedy."""
    first = error.errors()[0]
    location = [str(part) for part in first["loc"]]
    key = shortened(".".join(location))
    if first["type"] == "extra_forbidden":
        nearest = difflib.get_close_matches(location[-1], _keys_beside(location), n=1, cutoff=0.5)
        remedy = f"did you mean {nearest[0]}?" if nearest else "`emotion-edge config show` prints all keys"
        return f"{key}: unknown key; {remedy}"
    message = shortened(first["msg"].removeprefix("Value error, "), limit=MAX_REASON)
    if first["type"] == "literal_error":
        words = re.findall(r"'([^']*)'", message)
        nearest = difflib.get_close_matches(str(first["input"]), words, n=1, cutoff=0.5)
        message += f"; did you mean {nearest[0]}?" if nearest else ""
    if not key:
        return message
    value = shortened(ascii(first["input"])) if not isinstance(first["input"], Mapping) else "{...}"
    return f"{key} = {value}: {message[0].lower()}{message[1:]}"


def _keys_beside(location: list[str]) -> list[str]:
    return list(_model_of(location[:-1]).model_fields)


def _model_of(sections: list[str]) -> type[BaseModel]:
    """Return the class of a section, or of the innermost section that is known."""
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
