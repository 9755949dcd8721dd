"""The errors that reach a user: each message names the thing, its value and the remedy.

EdgeError
|- ConfigError (ValueError)         exit 3   a key, a type, a value out of range
|- ModelError (ValueError)          exit 4   a file, hash, shape, label or golden vector
|- DeviceError (OSError)            exit 5   a camera, a microphone, an accelerator
|- BrokerError (ConnectionError)    exit 6   the broker refused, or did not start
|- MediaError (ValueError)          exit 1   a file that cannot be read
`- OutboxError (OSError)            exit 1   the queue on disk: full, read-only, unreadable
"""

from __future__ import annotations

from edge.masking import mask_credentials, printable

EXIT_OK = 0
EXIT_FAILURE = 1
EXIT_USAGE = 2


class EdgeError(Exception):
    """Root of all errors raised on purpose; `exit_code` is what the command line returns.

    Credentials in the message are masked and control characters escaped, because messages reach logs, status
    topics and the terminal.
    """

    exit_code = EXIT_FAILURE

    def __init__(self, message: str) -> None:
        super().__init__(mask_credentials("\n".join(map(printable, message.split("\n")))))


class ConfigError(EdgeError, ValueError):
    """The configuration cannot be used."""

    exit_code = 3


class ModelError(EdgeError, ValueError):
    """A model artifact cannot be trusted or run."""

    exit_code = 4


class DeviceError(EdgeError, OSError):
    """A device is missing, busy, silent or not permitted; `reason` is a stable code for the status topic."""

    exit_code = 5

    def __init__(self, message: str, *, reason: str = "no_device") -> None:
        super().__init__(message)
        self.reason = reason


class BrokerError(EdgeError, ConnectionError):
    """The broker refused this client, or the embedded broker did not start."""

    exit_code = 6


class MediaError(EdgeError, ValueError):
    """An image, audio or video file cannot be read."""


class OutboxError(EdgeError, OSError):
    """The queue on disk cannot be read or written now; it recovers when the disk does.

    `reason` is a stable code for the status: `disk_full read_only locked not_permitted corrupt not_writable`.
    """

    def __init__(self, message: str, *, reason: str = "not_writable") -> None:
        super().__init__(message)
        self.reason = reason
