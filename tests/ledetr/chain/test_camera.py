"""Cameras without a camera, and network streams from a server in this process."""

import errno
import http.server
import socket
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from ledetr.chain import camera
from ledetr.chain.sources import SourceLost, open_source, parse_source
from ledetr.errors import SourceError


@pytest.fixture
def short_deadlines(monkeypatch) -> None:
    monkeypatch.setattr(camera, "OPEN_DEADLINE_S", 0.5)
    monkeypatch.setattr(camera, "READ_DEADLINE_S", 0.5)


# Cameras.


def test_linux_cameras_by_name_and_stable_id(tmp_path) -> None:
    dev, sys_class = tmp_path / "dev", tmp_path / "sys"
    (dev / "v4l/by-id").mkdir(parents=True)
    for node, name, index in (("video0", "Desk Cam\n", "0"), ("video1", "Desk Cam\n", "1"), ("video10", "Loop\n", "0")):
        (dev / node).touch()
        (sys_class / node).mkdir(parents=True)
        (sys_class / node / "name").write_text(name)
        (sys_class / node / "index").write_text(index)
    (dev / "v4l/by-id/usb-Desk_Cam-video-index0").symlink_to("../../video0")
    assert camera._linux_cameras(dev, sys_class) == [
        camera.CameraInfo("usb-Desk_Cam-video-index0", "Desk Cam"),
        camera.CameraInfo("10", "Loop"),
    ]


@pytest.mark.parametrize(
    ("system", "device", "file"),
    [
        ("Linux", "2", "/dev/video2"),
        ("Linux", "usb-Cam-index0", "/dev/v4l/by-id/usb-Cam-index0"),
        ("Linux", "../../etc/passwd", "/dev/v4l/by-id/passwd"),
        ("Darwin", "0", "0:none"),
        ("Windows", "Desk Cam", "video=Desk Cam"),
    ],
)
def test_the_devices_file(monkeypatch, system, device, file) -> None:
    monkeypatch.setattr(camera.platform, "system", lambda: system)
    assert camera._camera_file(device) == file


@pytest.mark.parametrize(
    ("code", "words", "lost"),
    [
        (errno.EBUSY, "is in use by another program", True),
        (errno.EACCES, "is not permitted", False),
        (errno.ENOENT, "There is no camera 0; no camera is plugged in", True),
        (errno.ETIMEDOUT, "does not answer", True),
    ],
)
def test_camera_errors_are_told_apart(monkeypatch, code, words, lost) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(code, "what FFmpeg says")

    monkeypatch.setattr(camera.platform, "system", lambda: "Linux")
    monkeypatch.setattr(camera, "list_cameras", list)
    monkeypatch.setattr(camera.av, "open", refuse)
    with pytest.raises(SourceError, match=words) as caught:
        open_source(parse_source("camera:0"))
    assert isinstance(caught.value, SourceLost) is lost


def test_mjpeg_is_asked_for_first_then_less(monkeypatch, make_video) -> None:
    asked: list[dict[str, str]] = []
    real_open, path = av.open, make_video()

    def fussy(_: str, *, options: dict[str, str], **__: Any) -> Any:
        asked.append(options)
        if options:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real_open(str(path))

    monkeypatch.setattr(camera.platform, "system", lambda: "Linux")
    monkeypatch.setattr(camera.av, "open", fussy)
    source = open_source(parse_source("camera:0"))
    assert asked[0]["input_format"] == "mjpeg" and asked[0]["video_size"] == "1280x720" and asked[-1] == {}
    assert source.info.live and (source.info.width, source.info.height) == (64, 48)  # what was given, not asked for
    source.close()


# Streams.


def live_ts(seconds: float, start_s: float = 0.0) -> bytes:
    """An MPEG-TS of grey pictures at 25 a second that begins at start_s."""
    path = Path.cwd() / f"live{start_s}.ts"
    with av.open(str(path), "w", format="mpegts", options={"muxdelay": "0"}) as output:
        stream: Any = output.add_stream("mpeg2video", rate=25, options={"g": "5", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 25)
        for i in range(int(25 * seconds)):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 100, np.uint8), "rgb24")
            frame.pts, frame.time_base = i + int(25 * start_s), Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path.read_bytes()


class Server:
    """An HTTP server on a free port; answer(handler) does what it likes."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.answer: Any = None
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                try:
                    server.answer(self)
                except OSError:
                    return  # the reader went away

            def log_message(self, *_: Any) -> None:
                """Tests are quiet."""

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.port = self.http.server_address[1]
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def url(self, rest: str = "/live.ts", userinfo: str = "") -> str:
        return f"http://{userinfo}127.0.0.1:{self.port}{rest}"

    def send(self, body: bytes, code: int = 200, *, length: bool = False) -> Any:
        """An answer that sends body, and its length beforehand where it is a file, then ends."""

        def answer(handler: Any) -> None:
            handler.send_response(code)
            handler.send_header("Content-Type", "video/mp2t")
            if length:
                handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body)

        return answer

    def then_silent(self, body: bytes) -> Any:
        def answer(handler: Any) -> None:
            self.send(body)(handler)
            handler.wfile.flush()
            self.let_go.wait(60)

        return answer

    def close(self) -> None:
        self.let_go.set()
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server(tmp_path, monkeypatch) -> Iterator[Server]:
    monkeypatch.chdir(tmp_path)
    one = Server()
    yield one
    one.close()


def test_a_stream_is_live_and_its_end_is_a_loss(server) -> None:
    server.answer = server.send(live_ts(1))
    source = open_source(parse_source(server.url()), epoch=2)
    assert source.info.live and not source.info.seekable and (source.info.width, source.info.height) == (64, 48)
    frames = []
    with pytest.raises(SourceLost, match=r"127\.0\.0\.1.* (ended its stream|broke off)"):
        while True:
            frames.append(source.read())
    assert len(frames) >= 24  # a server that only hangs up may leave the last one in the decoder
    assert {frame.meta.epoch for frame in frames} == {2} and all(frame.meta.wall_time_s for frame in frames)
    gaps = np.diff([frame.meta.pts_s for frame in frames])
    assert gaps == pytest.approx(np.full(len(frames) - 1, 0.04), abs=1e-4)
    source.close()


@pytest.mark.parametrize("later_s", [0.0, 100.0], ids=["back", "ahead"])
def test_a_jump_of_its_clock_begins_an_epoch(server, later_s) -> None:
    server.answer = server.send(live_ts(1, start_s=50.0) + live_ts(1, start_s=later_s))
    source = open_source(parse_source(server.url()))
    frames = []
    with pytest.raises(SourceLost):
        while True:
            frames.append(source.read())
    jumps = [i for i, frame in enumerate(frames) if frame.meta.discontinuity]
    assert len(jumps) == 1 and frames[jumps[0]].meta.seq == 0
    assert [frame.meta.epoch for frame in frames] == [0] * jumps[0] + [1] * (len(frames) - jumps[0])


def test_silence_while_opening_is_a_sentence_in_time(short_deadlines) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        for scheme in ("http", "rtsp"):
            began = time.monotonic()
            with pytest.raises(SourceLost, match="did not answer in time") as caught:
                open_source(parse_source(f"{scheme}://user:se%40cret@127.0.0.1:{port}/x"))
            assert time.monotonic() - began < 5
            assert "cret" not in str(caught.value) and "user:***@127.0.0.1" in str(caught.value)


def test_silence_in_the_middle_is_a_loss_in_time(server, monkeypatch) -> None:
    monkeypatch.setattr(camera, "READ_DEADLINE_S", 2.0)  # to open it takes a busy machine longer than half a second
    server.answer = server.then_silent(live_ts(4))
    source = open_source(parse_source(server.url()))
    began = time.monotonic()
    with pytest.raises(SourceLost, match=r"sent no picture for 2 s|broke off"):
        for _ in range(1000):
            source.read()
    assert time.monotonic() - began < 8
    source.close()


@pytest.mark.parametrize(
    ("code", "words", "lost"),
    [
        (401, "refused the user name or password", False),
        (403, "refused the user name or password", False),
        (404, "was not found on its server", False),
        (410, "refused the request", False),
        (503, "Cannot reach", True),
    ],
)
def test_refusals_are_told_apart(server, code, words, lost) -> None:
    server.answer = server.send(b"", code)
    with pytest.raises(SourceError, match=words) as caught:
        open_source(parse_source(server.url("/x?token=abc", "user:geheim@")))
    assert isinstance(caught.value, SourceLost) is lost
    text = "".join(map(str, (caught.value, caught.value.__cause__, repr(caught.value))))
    assert "geheim" not in text and "abc" not in text and "***" in text


def test_refused_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(SourceLost, match="the connection was refused"):
        open_source(parse_source(f"http://127.0.0.1:{port}/"))


def test_not_a_video(server) -> None:
    server.answer = server.send(b"<html>hello</html>" * 100, length=True)
    with pytest.raises(SourceError, match="answered, but not with a video stream") as caught:
        open_source(parse_source(server.url()))
    assert not isinstance(caught.value, SourceLost)


@pytest.mark.parametrize("target", ["file://{path}", "concat:{path}|{path}", "subfile:,,start,0,end,0,,:{path}"])
def test_a_redirect_or_playlist_cannot_reach_local_files(server, make_video, target) -> None:
    secret = target.format(path=make_video("secret.mp4"))

    def redirect(handler: Any) -> None:
        handler.send_response(302)
        handler.send_header("Location", secret)
        handler.end_headers()

    server.answer = redirect
    with pytest.raises(SourceError):
        open_source(parse_source(server.url()))
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{secret}\n#EXT-X-ENDLIST\n"
    server.answer = server.send(playlist.encode())
    with pytest.raises(SourceError):
        open_source(parse_source(server.url("/list.m3u8")))


def test_a_file_on_a_web_server_can_be_sought(server, make_video) -> None:
    body = make_video("far.mp4", container_options={"movflags": "faststart"}).read_bytes()

    def ranged(handler: Any) -> None:
        span = handler.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0]
        first = int(span or 0)
        handler.send_response(206)
        handler.send_header("Accept-Ranges", "bytes")
        handler.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
        handler.send_header("Content-Length", str(len(body) - first))
        handler.end_headers()
        handler.wfile.write(body[first:])

    server.answer = ranged
    source = open_source(parse_source(server.url("/far.mp4")))
    assert source.info.seekable and not source.info.live
    source.seek(0.4)
    assert source.read().meta.pts_s == pytest.approx(0.4)
    source.close()


def test_an_unknown_scheme_of_the_build_is_said(monkeypatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise av.error.ProtocolNotFoundError(1, "Protocol not found", "srt://u:geheim@h")

    monkeypatch.setattr(camera.av, "open", refuse)
    with pytest.raises(SourceError, match="not allowed or not known here") as caught:
        open_source(parse_source("srt://u:geheim@h"))
    assert "geheim" not in str(caught.value)
