"""Sources that do not wait: cameras and network streams, through FFmpeg.

Errors are told apart: SourceLost where trying again makes sense (no answer, connection refused, device unplugged),
SourceError where it does not (wrong password, no such path, no such codec). No message holds an address unmasked.
"""

import errno
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import av.device
from av.container import InputContainer

from ledetr.chain.clock import Clock
from ledetr.chain.colour import colour_of, orientation_of, upright_rgb
from ledetr.chain.decoding import PictureDecoder, demuxed
from ledetr.chain.sources import (
    OPEN_DEADLINE_S,
    READ_DEADLINE_S,
    CameraSpec,
    FrameSource,
    SourceInfo,
    SourceLost,
    UrlSpec,
)
from ledetr.chain.video_file import VideoFile, picture_stream
from ledetr.errors import SourceError
from ledetr.frame import Frame, FrameMeta

# A stream whose time leaps further than this, or goes back, has begun anew.
_LEAP_S = 10
# But a picture that is only so much older than the last one was overtaken on its way, as happens over UDP.
_OVERTAKEN_S = 1
# What an address may make FFmpeg open besides itself, e.g. by a redirect or a playlist; local files never.
_PROTOCOLS = {
    "rtsp": "rtsp,rtp,tcp,udp",
    "rtsps": "rtsp,rtsps,rtp,tcp,udp,tls",
    "rtmp": "rtmp,tcp",
    "http": "http,https,tcp,tls,crypto",
    "https": "http,https,tcp,tls,crypto",
    "srt": "srt,udp",
}
_CAMERA_FORMATS = {"Linux": "v4l2", "Darwin": "avfoundation", "Windows": "dshow"}
# Uncompressed pictures of this size do not fit through USB 2 at full rate, so MJPEG is asked for first.
_CAMERA_WISHES: tuple[dict[str, str], ...] = (
    {"input_format": "mjpeg", "video_size": "1280x720", "framerate": "30"},
    {"video_size": "1280x720", "framerate": "30"},
    {},
)


@dataclass(frozen=True, slots=True)
class CameraInfo:
    """A camera that is plugged in. id: for CameraSpec, the same after the next start where the system allows."""

    id: str
    name: str


def list_cameras() -> list[CameraInfo]:
    """The cameras of this machine, by name; opens none of them, but may take a moment."""
    if platform.system() == "Linux":
        return _linux_cameras(Path("/dev"), Path("/sys/class/video4linux"))
    devices = av.device.enumerate_input_devices(_camera_format())
    cameras = [device for device in devices if "video" in getattr(device, "media_types", ("video",))]
    return [CameraInfo(device.name, device.description or device.name) for device in cameras]


def _linux_cameras(dev: Path, sys_class: Path) -> list[CameraInfo]:
    stable = {link.resolve().name: link.name for link in sorted((dev / "v4l" / "by-id").glob("*-index0"))}
    cameras = []
    for node in sorted(dev.glob("video[0-9]*"), key=lambda node: int(node.name.removeprefix("video"))):
        index, name = sys_class / node.name / "index", sys_class / node.name / "name"
        # A camera has several nodes; the first gives the pictures, the others its metadata.
        if index.exists() and index.read_text().strip() != "0":
            continue
        label = name.read_text(errors="replace").strip() if name.exists() else node.name
        cameras.append(CameraInfo(stable.get(node.name, node.name.removeprefix("video")), label))
    return cameras


def open_camera(spec: CameraSpec, *, clock: Clock, epoch: int = 0) -> "LiveStream":
    """Open a camera; what it really gives stands in info. Raises SourceError."""
    device = _camera_file(spec.device)
    for wish in _CAMERA_WISHES:
        try:
            container = av.open(
                device, format=_camera_format(), options=wish, timeout=(OPEN_DEADLINE_S, READ_DEADLINE_S)
            )
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.EIO) and wish:
                continue  # it does not give this size or format; ask for less
            raise _camera_error(spec, error) from None
        return LiveStream(container, spec.display_name, clock=clock, epoch=epoch)
    raise SourceError(f"{spec.display_name} gives no picture format that can be read.")


def _camera_format() -> str:
    name = _CAMERA_FORMATS.get(platform.system())
    if name is None:
        raise SourceError(f"Cameras are not supported on {platform.system()}; use a file or an address.")
    return name


def _camera_file(device: str) -> str:
    if platform.system() == "Linux":
        if device.isdigit():
            return f"/dev/video{device}"
        return device if device.startswith("/dev/") else f"/dev/v4l/by-id/{Path(device).name}"
    if platform.system() == "Darwin":
        return f"{device}:none"
    if device.isdigit():
        cameras = list_cameras()
        if int(device) >= len(cameras):
            raise SourceError(f"There is no camera {device}; {_cameras_there(cameras)}.")
        device = cameras[int(device)].name
    return f"video={device}"


def _camera_error(spec: CameraSpec, error: OSError) -> SourceError:
    name = spec.display_name
    if error.errno == errno.EBUSY:
        return SourceLost(f"{name} is in use by another program; close that and try again.")
    if error.errno in (errno.EACCES, errno.EPERM):
        return SourceError(f"Using {name} is not permitted; allow it in the system settings (Linux: group video).")
    if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return SourceLost(f"There is no {name}; {_cameras_there(list_cameras())}.")
    return SourceLost(f"{name} does not answer ({error.strerror or type(error).__name__}).")


def _cameras_there(cameras: list[CameraInfo]) -> str:
    if not cameras:
        return "no camera is plugged in"
    return "there are " + ", ".join(f"camera:{camera.id} ({camera.name})" for camera in cameras)


def open_url(spec: UrlSpec, *, clock: Clock, epoch: int = 0) -> FrameSource:
    """Open a network stream; a file on a web server can be sought and waits, all else is live. Raises SourceError."""
    scheme = spec.url.partition(":")[0].lower()
    options = {
        "protocol_whitelist": _PROTOCOLS[scheme],
        "analyzeduration": "2000000",
        "rw_timeout": str(int(READ_DEADLINE_S * 1_000_000)),
    }
    if scheme in ("rtsp", "rtsps"):
        options |= {"rtsp_transport": "tcp", "timeout": str(int(READ_DEADLINE_S * 1_000_000))}
    began_s = time.monotonic()
    try:
        container = av.open(spec.url, options=options, timeout=(OPEN_DEADLINE_S, READ_DEADLINE_S))
    except (av.error.FFmpegError, OSError, UnicodeError) as error:
        # Some of FFmpeg's readers call a silent server bad data; the time that went by tells the two apart.
        silent = time.monotonic() - began_s >= 0.9 * min(OPEN_DEADLINE_S, READ_DEADLINE_S)
        raise _url_error(spec.display_name, TimeoutError() if silent else error) from None
    if scheme in ("http", "https") and container.duration and container.size > 0:
        return VideoFile(container, spec.display_name, clock=clock, epoch=epoch)
    return LiveStream(container, spec.display_name, clock=clock, epoch=epoch)


def _url_error(name: str, error: Exception) -> SourceError:
    """The sentence for a failure; the error itself is not part of it, because its text holds the address."""
    if isinstance(error, av.error.HTTPUnauthorizedError | av.error.HTTPForbiddenError):
        return SourceError(f"{name} refused the user name or password; check both.")
    if isinstance(error, av.error.HTTPNotFoundError):
        return SourceError(f"{name} was not found on its server; check the path after the host.")
    if isinstance(error, av.error.HTTPClientError):
        return SourceError(f"{name} refused the request; check the address.")
    if isinstance(error, av.error.ProtocolNotFoundError):
        return SourceError(f"{name} leads to a kind of address that is not allowed or not known here.")
    if isinstance(error, av.error.InvalidDataError):
        return SourceError(f"{name} answered, but not with a video stream.")
    if isinstance(error, av.error.DecoderNotFoundError | av.error.DemuxerNotFoundError | UnicodeError):
        return SourceError(f"{name} sends a kind of video that cannot be read here.")
    if isinstance(error, av.error.ExitError | TimeoutError):
        return SourceLost(f"{name} did not answer in time; check the address and the network.")
    if isinstance(error, ConnectionRefusedError):
        return SourceLost(f"Cannot reach {name}: the connection was refused; check the address or wait.")
    reason = getattr(error, "strerror", None) or type(error).__name__
    return SourceLost(f"Cannot reach {name} ({reason}); check the address and the network.")


class LiveStream:
    """An open camera or stream; see FrameSource."""

    def __init__(self, container: InputContainer, name: str, *, clock: Clock, epoch: int = 0) -> None:
        self._container = container
        self._name = name
        self._clock = clock
        self._epoch = epoch
        self._seq = 0
        self._last_pts: int | None = None
        self._overtaken = 0
        try:
            self._stream = picture_stream(container, name)
            self._stream.thread_type = "SLICE"  # threads by frame would hold frames back
            self._decoder = PictureDecoder(self._stream)
            self._time_base = self._decoder.time_base
            self._frames = self._decode()
            self._pending: av.VideoFrame | None = self._next_decoded()
            self.info = self._describe(self._pending)
        except BaseException:
            container.close()
            raise

    def _describe(self, first: av.VideoFrame) -> SourceInfo:
        width, height = orientation_of(first).upright_size(first.width, first.height)
        return SourceInfo(
            source_id=self._name,
            display_name=self._name,
            live=True,
            width=width,
            height=height,
            rate=self._stream.average_rate or self._stream.guessed_rate,
            frame_count=None,
            duration_s=None,
            time_base=self._time_base,
            has_audio=bool(self._container.streams.audio),
        )

    @property
    def damaged(self) -> int:
        """Pictures so far that could not be decoded, were decoded from damaged data, or came too late to be shown."""
        return self._decoder.broken + self._decoder.damaged + self._overtaken

    def read(self, skip_to_s: float | None = None) -> Frame | None:
        """The next frame; never None, since a live stream that ends is lost."""
        decoded, self._pending = self._pending or self._next_decoded(), None
        while self._is_overtaken(decoded):
            self._overtaken += 1
            decoded = self._next_decoded()
        captured_ns = self._clock.now_ns()
        rgb = upright_rgb(decoded)
        pts, discontinuity = self._pts(decoded)
        meta = FrameMeta(
            source_id=self.info.source_id,
            epoch=self._epoch,
            seq=self._seq,
            pts=pts,
            time_base=self._time_base,
            t_capture_ns=captured_ns,
            width=rgb.shape[1],
            height=rgb.shape[0],
            rotation_deg=orientation_of(decoded).rotation_deg,
            colour=colour_of(decoded),
            wall_time_s=time.time(),
            discontinuity=discontinuity,
        )
        self._seq += 1
        return Frame(meta, rgb)

    def _is_overtaken(self, decoded: av.VideoFrame) -> bool:
        if decoded.pts is None or self._last_pts is None:
            return False
        return -_OVERTAKEN_S <= (decoded.pts - self._last_pts) * self._time_base < 0

    def _pts(self, decoded: av.VideoFrame) -> tuple[int, bool]:
        """The frame's time, and whether the stream's clock jumped before it, in which case a new epoch begins."""
        last = self._last_pts
        pts = decoded.pts if decoded.pts is not None else self._guessed_pts()
        self._last_pts = pts
        if last is None or 0 <= (pts - last) * self._time_base <= _LEAP_S:
            return pts, False
        self._epoch += 1
        self._seq = 0
        return pts, True

    def _guessed_pts(self) -> int:
        return 0 if self._last_pts is None else self._last_pts + self._decoder.nominal_ticks

    def _next_decoded(self) -> av.VideoFrame:
        try:
            decoded = next(self._frames, None)
        except av.error.ExitError:
            raise SourceLost(f"{self._name} sent no picture for {READ_DEADLINE_S:g} s.") from None
        except (av.error.FFmpegError, OSError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise SourceLost(f"{self._name} broke off ({reason}).") from None
        if decoded is None:
            raise SourceLost(f"{self._name} ended its stream.")
        return decoded

    def _decode(self) -> Iterator[av.VideoFrame]:
        for packet in demuxed(self._container, self._stream):
            yield from self._decoder.decode(packet)  # a lost packet breaks a picture or two, not the stream

    def seek(self, pts_s: float) -> None:
        """A live source has no past."""
        raise ValueError("a live source cannot be sought")

    def interrupt(self) -> None:
        """FFmpeg ends a waiting read after READ_DEADLINE_S at the latest; until then its thread is left alone."""

    def close(self) -> None:
        """Close the device or connection."""
        self._frames = iter(())
        self._container.close()
