"""A stream on loopback for tests and soaks: an HTTP server that sends MPEG-TS, can be killed, and comes back.

RTSP and SRT need a server that is not installed here; the code behind an address is the same for all of them from the
demuxer on, and so are the deadlines and the tries to come back.
"""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from fractions import Fraction
from typing import Any

import av
import numpy as np

DATAGRAM_BYTES = 7 * 188  # what MPEG-TS over UDP has in one packet


class _Sink:
    """A file that is only written to; take() gives what came."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        data = b"".join(self._pieces)
        self._pieces.clear()
        return data


def transport_stream(
    picture: Callable[[int], np.ndarray],
    *,
    rate: Fraction = Fraction(25),
    codec: str = "libx264",
    frames: int | None = None,
    paced: bool = False,
    start_s: float = 0.0,
) -> Iterator[bytes]:
    """An MPEG-TS piece by piece: picture(i) is (H, W, 3) uint8 RGB of even size, a key frame every ten pictures.

    frames: None for endless. paced: each piece comes at its time, as a camera would send it. start_s: first time.
    """
    sink = _Sink()
    options = {"tune": "zerolatency", "preset": "ultrafast"} if codec == "libx264" else {}
    with av.open(sink, "w", format="mpegts", options={"flush_packets": "1"}) as output:
        stream: Any = output.add_stream(codec, rate=rate, options={**options, "g": "10", "bf": "0"})
        first = picture(0)
        stream.width, stream.height, stream.pix_fmt = first.shape[1], first.shape[0], "yuv420p"
        stream.codec_context.time_base = 1 / rate
        began_s, number = time.monotonic(), 0
        while frames is None or number < frames:
            frame = av.VideoFrame.from_ndarray(first if number == 0 else picture(number), "rgb24")
            frame.pts, frame.time_base = number + round(start_s * rate), 1 / rate
            output.mux(stream.encode(frame))
            if paced:
                time.sleep(max(0.0, began_s + float(number / rate) - time.monotonic()))
            yield sink.take()
            number += 1
        output.mux(stream.encode(None))
    yield sink.take()


class StreamServer:
    """Answers every request with what pieces() gives, until close. port: 0 for a free one."""

    def __init__(self, pieces: Callable[[], Iterator[bytes]], *, port: int = 0) -> None:
        self._pieces = pieces
        self._closing = threading.Event()
        self._silent = threading.Event()
        self._lock = threading.Lock()
        self._connections: list[socket.socket] = []
        self.requests = 0
        self._listener = socket.create_server(("127.0.0.1", port), reuse_port=False)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name="loopback", daemon=True).start()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}/live.ts"

    def fall_silent(self) -> None:
        """Keep the connections and send nothing more, until close."""
        self._silent.set()

    def close(self) -> None:
        """Die: refuse new connections and cut those that are there."""
        self._closing.set()
        with self._lock:
            for one in (self._listener, *self._connections):
                _shut(one)
            self._connections.clear()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # closed
            with self._lock:
                self._connections = [one for one in self._connections if one.fileno() >= 0]
                self._connections.append(connection)
                self.requests += 1
            threading.Thread(target=self._answer, args=(connection,), name="loopback", daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        try:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\n\r\n")
            for piece in self._pieces():
                if self._silent.is_set():
                    self._closing.wait()
                if self._closing.is_set():
                    break
                connection.sendall(piece)
        except OSError:  # the reader went away, or close cut it
            pass
        finally:
            _shut(connection)


def _shut(one: socket.socket) -> None:
    with suppress(OSError):  # not connected, or closed already
        one.shutdown(socket.SHUT_RDWR)
    one.close()


def over_lossy_udp(pieces: Iterator[bytes], *, lost: float, seed: int, pause_s: float = 0.0) -> Iterator[bytes]:
    """The same stream as it comes out of a real UDP socket behind a network of this quality.

    lost: share of datagrams that never arrive; as many change places with the next one, and as many come ten late.
    pause_s: between two datagrams, so that the socket's own buffer loses none besides.
    """
    chance = random.Random(seed)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taker,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as giver,
    ):
        taker.bind(("127.0.0.1", 0))
        taker.settimeout(0.2)
        late: list[tuple[int, bytes]] = []
        for number, datagram in enumerate(_datagrams(pieces)):
            fate = chance.random() / lost if lost else 3.0
            if fate < 1:
                continue
            if fate < 3:
                late.append((number + (1 if fate < 2 else 10), datagram))
                due = []
            else:
                due = [datagram]
            due += [old for at, old in late if at <= number]
            late = [(at, old) for at, old in late if at > number]
            for one in due:
                giver.sendto(one, taker.getsockname())
                yield taker.recv(65536)
            if pause_s:
                time.sleep(pause_s)


def _datagrams(pieces: Iterator[bytes]) -> Iterator[bytes]:
    waiting = b""
    for piece in pieces:
        waiting += piece
        while len(waiting) >= DATAGRAM_BYTES:
            yield waiting[:DATAGRAM_BYTES]
            waiting = waiting[DATAGRAM_BYTES:]
    if waiting:
        yield waiting
