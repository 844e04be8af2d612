"""Python runs this at the start of every process that has this folder on its path: no way out but loopback.

Whatever asks for another address, or for any name to be looked up, is refused and written down in the file $WATCHED; so
is what MLflow's switch of telemetry stood at whenever a module that may send some was imported for the first time.
"""

import ipaddress
import os
import sys

#: What is known to send telemetry, look for updates or fetch models by itself, and what imports such a thing.
MAY_SEND = {"duckdb", "huggingface_hub", "ibis", "mlflow", "monai", "pyspark", "torch", "transformers", "wandb", "wfdb"}
_imported: set[str] = set()


def _write(line: str) -> None:
    handle = os.open(os.environ["WATCHED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(handle, f"{os.getpid()} {line}\n".encode())
    os.close(handle)


def _is_here(address: object) -> bool:
    if isinstance(address, str | bytes) or not isinstance(address, tuple):
        return True  # of a Unix socket
    try:
        return ipaddress.ip_address(address[0]).is_loopback
    except ValueError:
        return False


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if event == "import":
        name = str(arguments[0])
        if name in MAY_SEND and name not in _imported:
            _imported.add(name)
            _write(f"import {name} telemetry-disabled={os.environ.get('MLFLOW_DISABLE_TELEMETRY')}")
    elif event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        if arguments[1] is not None and not _is_here(arguments[1]):
            _refuse(event, arguments[1])
    elif event == "socket.bind":
        if not _is_here(arguments[1]):
            _refuse(event, arguments[1])
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo"):
        host = arguments[0]
        if host is not None and not _is_here(host if isinstance(host, tuple) else (host,)):
            _refuse(event, host)


def _refuse(event: str, what: object) -> None:
    _write(f"{event} {what!r}")
    raise OSError(f"{event} of {what!r} is not allowed here")


if "WATCHED" in os.environ:
    sys.addaudithook(_hook)
