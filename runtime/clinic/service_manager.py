"""systemd's notification protocol, sd_notify(3): a datagram to the socket that it names."""

import os
import socket


def notify(message: str) -> None:
    """Tell systemd `READY=1`, `WATCHDOG=1`, `STOPPING=1`; nothing without a systemd that listens."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection:
        try:
            connection.connect(path.replace("@", "\0", 1) if path[0] == "@" else path)
            connection.send(message.encode())
        except OSError:  # a manager that has gone must not stop what it managed
            return
