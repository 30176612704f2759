"""What this disk and this network do at best: no program can be faster than these."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from measuring.lan import Desk
from measuring.session import MIB, Figures, Size

RECEIVER = """
import socket, ssl, sys
with socket.create_server((sys.argv[1], 9)) as listener:
    print("listening", flush=True)
    connection, _ = listener.accept()
    if len(sys.argv) > 2:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sys.argv[2])
        connection = context.wrap_socket(connection, server_side=True)
    buffer = bytearray(1 << 18)
    while connection.recv_into(buffer) and buffer[0] != 1:
        pass
    connection.sendall(b"!")
"""
SENDER = """
import socket, ssl, sys, time
connection = socket.create_connection((sys.argv[1], 9))
if len(sys.argv) > 2:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = context.wrap_socket(connection)
block = bytes(1 << 18)
start = time.monotonic()
for _ in range(2048):
    connection.sendall(block)
connection.sendall(bytes([1]) * (1 << 19))
connection.recv(1)
print(2050 * (1 << 18) / 1e6 / (time.monotonic() - start))
"""
CERTIFICATE = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=bench")


def limits(desks: Sequence[Desk], scratch: Path, size: Size) -> Figures:
    """Each of them once."""
    return {
        f"limit: write {size.big_mib} MiB and fsync, s": [_write(scratch / "limit.bin", size.big_mib)],
        f"limit: {size.small_files} files of 4 KiB, written and renamed, s": [_small(scratch / "renamed", size.small_files, False)],
        f"limit: {size.small_files} files, written, fsynced, renamed, s": [_small(scratch / "synced", size.small_files, True)],
        "limit: a 20 KiB file written, fsynced, renamed, s": _saves(scratch / "one"),
        "limit: plain TCP between the desks, MB/s": [_speed(desks)],
        "limit: TLS between the desks, MB/s": [_speed(desks, str(_certificate(scratch)))],
    }


def _write(path: Path, mib: int) -> float:
    block = os.urandom(MIB)
    os.sync()
    start = time.monotonic()
    with path.open("wb") as file:
        for _ in range(mib):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    took = time.monotonic() - start
    path.unlink()
    return took


def _small(folder: Path, count: int, durable: bool) -> float:
    data = random.randbytes(4096)
    os.sync()
    start = time.monotonic()
    for number in range(count):
        path = folder / f"{number // 100:03}" / f"{number:06}.dat"
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, data, durable)
    return time.monotonic() - start


def _saves(folder: Path) -> list[float]:
    folder.mkdir()
    times = []
    for number in range(20):
        start = time.monotonic()
        _replace(folder / f"{number % 4}", random.randbytes(20 * 1024), True)
        times.append(time.monotonic() - start)
    return times


def _replace(path: Path, data: bytes, durable: bool) -> None:
    beside = path.with_suffix(".new")
    with beside.open("wb") as file:
        file.write(data)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    beside.rename(path)


def _certificate(scratch: Path) -> Path:
    path = scratch / "bench.pem"
    subprocess.run([*CERTIFICATE, "-keyout", str(path), "-out", str(path.with_suffix(".crt"))], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + path.with_suffix(".crt").read_bytes())
    return path


def _speed(desks: Sequence[Desk], *certificate: str) -> float:
    sender, receiver = desks[:2]
    words = (receiver.address, *certificate)
    listen = subprocess.Popen(receiver.command(sys.executable, "-c", RECEIVER, *words), stdout=subprocess.PIPE, text=True)
    try:
        assert listen.stdout is not None
        listen.stdout.readline()
        sent = subprocess.run(sender.command(sys.executable, "-c", SENDER, *words), capture_output=True, text=True, check=True)
        return float(sent.stdout)
    finally:
        listen.kill()
        listen.communicate()
