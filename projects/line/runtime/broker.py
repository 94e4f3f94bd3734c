"""Results to an MQTT broker, each at least once; by `id` a receiver recognises a repeated message."""

import json
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from paho.mqtt import client
from paho.mqtt.enums import CallbackAPIVersion

from projects.errors import MMXrayError

ACKNOWLEDGED = 10.0  # seconds to wait for the broker's acknowledgement


class BrokerError(MMXrayError, ValueError):
    """The address of a broker cannot be used; one line with the remedy."""


class Broker:
    """A connection to a broker, which reconnects when it breaks.

    Args:
        address: `mqtt[s]://[USER@]HOST[:PORT]/TOPIC`.
        password: File with the user's password; None for no password.
        ca: File with the CA certificates (PEM) that verify the broker's; None for the system's.

    Raises:
        BrokerError: The address is not of this form, or a file cannot be read.
    """

    def __init__(self, address: str, password: Path | None = None, ca: Path | None = None):
        parts = urlsplit(address)
        self.topic = unquote(parts.path.strip('/'))
        try:
            port = parts.port or (8883 if parts.scheme == 'mqtts' else 1883)
        except ValueError:
            port = 0
        if parts.scheme not in ('mqtt', 'mqtts') or not parts.hostname or not port or parts.password:
            raise BrokerError(
                f'{address}: expected mqtt[s]://[USER@]HOST[:PORT]/TOPIC, the password in a file'
            )
        if not self.topic or set(self.topic) & set('#+\0'):
            raise BrokerError(
                f'{address}: expected a topic without wildcards, such as mqtt://broker/line7/xray'
            )
        self._client = client.Client(CallbackAPIVersion.VERSION2)
        try:
            if parts.username:
                secret = password.read_text().strip() if password else None
                self._client.username_pw_set(unquote(parts.username), secret)
            if parts.scheme == 'mqtts':
                self._client.tls_set_context(ssl.create_default_context(cafile=ca))
        except (OSError, UnicodeDecodeError) as error:
            raise BrokerError(f'{password or ca}: expected a file of text ({error})') from None
        # Results without an acknowledgement wait on the disk, not in this process.
        self._client.max_queued_messages_set(1)
        self._client.reconnect_delay_set(1, 10)  # seconds; by default up to two minutes
        self._client.connect_async(parts.hostname, port)
        self._client.loop_start()

    def send(self, result: dict[str, Any]) -> bool:
        """Send a result and wait for the broker's acknowledgement; returns whether the broker sent one."""
        if not self._client.is_connected():
            return False
        sent = self._client.publish(self.topic, json.dumps(result), qos=1)
        try:
            sent.wait_for_publish(ACKNOWLEDGED)
        except (RuntimeError, ValueError):  # not connected any more, or the queue is full
            return False
        return bool(sent.is_published())

    def close(self) -> None:
        """End the connection."""
        self._client.disconnect()
        self._client.loop_stop()
