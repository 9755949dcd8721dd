"""TLS to the broker: certificate and host name are always verified; a client certificate is optional."""

from __future__ import annotations

import ssl

from edge.errors import ConfigError
from edge.settings import MqttSettings


def tls_context(settings: MqttSettings) -> ssl.SSLContext | None:
    """Return the context for `mqtt.tls`; None without TLS. Verification cannot be turned off.

    The trusted authorities are those of `mqtt.ca_file`, else those of the system; `mqtt.cert_file` and
    `mqtt.key_file` identify this device. Raises `ConfigError` for a file that is missing or not PEM, and for
    a key that does not match the certificate.
    """
    if not settings.tls:
        return None
    try:
        context = ssl.create_default_context(cafile=str(settings.ca_file) if settings.ca_file else None)
    except (OSError, ValueError) as error:  # SSLError is an OSError
        raise ConfigError(
            f"mqtt.ca_file {settings.ca_file}: {error}; give a PEM file, or unset the key"
        ) from None
    if settings.cert_file is not None:
        try:
            # An encrypted key must fail here: OpenSSL would ask for its passphrase on the terminal.
            context.load_cert_chain(settings.cert_file, settings.key_file, password=lambda: b"")
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"mqtt.cert_file {settings.cert_file}, mqtt.key_file {settings.key_file}: {error}; "
                "give a certificate and its own key, both PEM, the key not encrypted"
            ) from None
    context.sslsocket_class = _TlsSocket
    return context


class _TlsSocket(ssl.SSLSocket):
    """Closes itself when the handshake fails: paho-mqtt 2.2 leaves it open."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise
