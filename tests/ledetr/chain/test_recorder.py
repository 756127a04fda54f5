"""The writer: exact times, files that appear whole or not at all, and what is left after every kind of end."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
from collections import namedtuple
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from ledetr.chain import output_files
from ledetr.chain.output_files import DiskWatch, choose_target, free_name, publish, reserve_part
from ledetr.chain.recorder import CODECS, VideoWriter, choose_codec
from ledetr.errors import OutputError, UsageError

resource = pytest.importorskip("resource", reason="limits of a process are a Unix thing")

NTSC_FILM = [n * 1001 for n in range(40)]
UNEVEN = [3510, 6000, 6900, 40000, 40090, 100000, 100001, 250000, 400000, 400900]


def grey(value: int, height: int = 48, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def noise(seed: int, height: int = 240, width: int = 320) -> np.ndarray:
    """A picture that does not compress."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def writer_for(path: Path, time_base: Fraction = Fraction(1, 24000), **options: object) -> VideoWriter:
    size = {"width": 64, "height": 48, **{k: options.pop(k) for k in ("width", "height") if k in options}}
    return VideoWriter(path, time_base=time_base, rate=Fraction(24000, 1001), **size, **options)


def times_of(path: Path) -> list[Fraction]:
    with av.open(str(path)) as container:
        return [frame.pts * frame.time_base for frame in container.decode(video=0)]


@pytest.mark.parametrize(
    ("time_base", "pts"),
    [(Fraction(1, 24000), NTSC_FILM), (Fraction(1, 90000), UNEVEN), (Fraction(1001, 24000), list(range(40))),
     (Fraction(1, 1000), [0, 33, 67, 100, 133]), (Fraction(1, 25), [0, 1, 2, 3, 7])],
)  # fmt: skip
def test_every_time_is_kept_exactly(tmp_path: Path, time_base: Fraction, pts: list[int]) -> None:
    writer = writer_for(tmp_path / "out.mp4", time_base)
    for number, time in enumerate(pts):
        writer.write(grey(5 * number), time)

    assert times_of(writer.finish()) == [time * time_base for time in pts]


def test_pictures_keep_their_order_and_their_brightness(tmp_path: Path) -> None:
    writer = writer_for(tmp_path / "out.mp4")
    for number, time in enumerate(NTSC_FILM):
        writer.write(grey(20 + 5 * number), time)

    with av.open(str(writer.finish())) as container:
        seen = [frame.to_ndarray(format="gray").mean() for frame in container.decode(video=0)]
    assert np.abs(np.diff(seen) - 5 * 219 / 255).max() < 2  # grey shows luma, which spans 219 levels


def test_the_index_is_in_front_and_nothing_else_is_left(tmp_path: Path) -> None:
    writer = writer_for(tmp_path / "out.mp4")
    for time in NTSC_FILM:
        writer.write(grey(100), time)
    data = writer.finish().read_bytes()

    assert 0 < data.index(b"moov") < data.index(b"mdat")
    assert b"moof" not in data
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def test_a_key_frame_comes_at_least_every_two_seconds(tmp_path: Path) -> None:
    writer = writer_for(tmp_path / "out.mp4", Fraction(1, 1000))
    for number in range(60):
        writer.write(grey(100), number * 150)  # 9 s at an uneven 6.7 fps, though 24 were announced

    with av.open(str(writer.finish())) as container:
        keys = [float(p.pts * p.time_base) for p in container.demux(video=0) if p.size and p.is_keyframe]
    assert np.diff([*keys, 9.0]).max() <= 2.15


def test_a_time_that_does_not_grow_is_moved_by_one_tick(tmp_path: Path) -> None:
    writer = writer_for(tmp_path / "out.mp4", Fraction(1, 24000))
    for time in (0, 1000, 1000, 900, 2000):
        writer.write(grey(100), time)

    assert [int(t * 24000) for t in times_of(writer.finish())] == [0, 1000, 1001, 1002, 2000]


@pytest.mark.parametrize(("width", "height"), [(63, 47), (64, 47), (63, 48), (1, 1)])
def test_odd_sizes_are_padded_by_one_line(tmp_path: Path, width: int, height: int) -> None:
    writer = writer_for(tmp_path / "out.mp4", width=width, height=height)
    writer.write(grey(200, height, width), 0)

    with av.open(str(writer.finish())) as container:
        frame = next(container.decode(video=0))
    assert (frame.width, frame.height) == (width + width % 2, height + height % 2)
    assert frame.to_ndarray(format="rgb24").min() > 190  # the line is more of the same, not black


@pytest.mark.parametrize("codec", CODECS)
def test_every_codec_writes_what_can_be_read(tmp_path: Path, codec: str) -> None:
    path = tmp_path / ("out.mkv" if codec == "ffv1" else "out.mp4")
    writer = writer_for(path, codec=codec)
    for time in NTSC_FILM[:10]:
        writer.write(grey(100), time)

    path = writer.finish()
    tolerance = Fraction(1, 1000) if path.suffix == ".mkv" else 0
    wanted = [time * Fraction(1, 24000) for time in NTSC_FILM[:10]]
    assert all(abs(got - want) <= tolerance for got, want in zip(times_of(path), wanted, strict=True))
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.codec.canonical_name == codec


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1", "vp9"])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_fewer_pictures_than_an_encoder_reorders_are_all_there(tmp_path: Path, codec: str, count: int) -> None:
    writer = writer_for(tmp_path / "out.mp4", codec=codec)
    for time in NTSC_FILM[:count]:
        writer.write(grey(100), time)
    assert times_of(writer.finish()) == [time * Fraction(1, 24000) for time in NTSC_FILM[:count]]


def test_hevc_in_mp4_has_the_tag_that_apple_plays(tmp_path: Path) -> None:
    writer = writer_for(tmp_path / "out.mp4", codec="hevc")
    writer.write(grey(100), 0)
    with av.open(str(writer.finish())) as container:
        assert container.streams.video[0].codec_context.codec_tag == "hvc1"


@pytest.mark.parametrize(
    ("name", "codec", "words"),
    [("out.webm", "h264", ".mp4 or .m4v or .mov or .mkv"), ("out.mp4", "ffv1", ".mkv"),
     ("out.mp4", "mpeg7", "h264, hevc"), ("out.avi", None, ".mp4, .m4v"), ("out", None, ".mp4")],
)  # fmt: skip
def test_codec_and_ending_must_go_together(name: str, codec: str | None, words: str) -> None:
    with pytest.raises(UsageError, match=words.replace(".", r"\.")):
        choose_codec(Path(name), codec)


def test_the_next_free_name_is_taken(tmp_path: Path) -> None:
    for name in ("out.mp4", "out (2).mp4"):
        (tmp_path / name).write_bytes(b"mine")
    assert free_name(tmp_path / "out.mp4").name == "out (3).mp4"

    writer = writer_for(tmp_path / "out.mp4")
    writer.write(grey(1), 0)
    assert writer.finish().name == "out (3).mp4"
    assert (tmp_path / "out.mp4").read_bytes() == b"mine"


def test_overwrite_replaces_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    path.write_bytes(b"old")
    writer = writer_for(path, overwrite=True)
    writer.write(grey(1), 0)
    assert path.read_bytes() == b"old"
    assert writer.finish() == path and path.stat().st_size > 500


def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    part = reserve_part(target)
    target.write_bytes(b"somebody else's")
    assert publish(part, target).name == "out (2).txt"
    assert target.read_bytes() == b"somebody else's"


def test_a_part_file_that_is_there_is_left_alone(tmp_path: Path) -> None:
    rescue = tmp_path / "out.part.mp4"
    rescue.write_bytes(b"all that is left")
    writer = writer_for(tmp_path / "out.mp4")
    writer.write(grey(1), 0)
    writer.finish()
    assert rescue.read_bytes() == b"all that is left"


@pytest.mark.parametrize("link", ["itself", "symbolic", "hard", "dots"])
def test_the_source_can_not_be_the_target(tmp_path: Path, link: str) -> None:
    source = tmp_path / "clip.mp4"
    source.write_bytes(b"precious")
    target = tmp_path / "target.mp4"
    if link == "symbolic":
        target.symlink_to(source)
    elif link == "hard":
        os.link(source, target)
    else:
        target = source if link == "itself" else tmp_path / ".." / tmp_path.name / "clip.mp4"

    with pytest.raises(UsageError, match="replace its own source"):
        choose_target(target, overwrite=True, sources=[source])
    assert source.read_bytes() == b"precious"


def test_a_missing_folder_and_a_folder_as_target_are_said(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="does not exist"):
        writer_for(tmp_path / "nowhere" / "out.mp4")
    (tmp_path / "dir.mp4").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        writer_for(tmp_path / "dir.mp4")


@pytest.mark.parametrize(
    ("code", "words"),
    [(errno.EACCES, "not permitted"), (errno.EROFS, "not permitted"), (errno.ENOSPC, "is full"),
     (errno.EIO, "Cannot write")],
)  # fmt: skip
def test_a_folder_that_refuses_is_said_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, words: str
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(output_files.os, "open", refuse)
    with pytest.raises(OutputError, match=words):
        writer_for(tmp_path / "out.mp4")
    assert list(tmp_path.iterdir()) == []


def test_a_name_too_long_is_said(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="too long"):
        writer_for(tmp_path / f"{'x' * 251}.mp4")


def test_abort_leaves_nothing(tmp_path: Path) -> None:
    writer = writer_for(tmp_path / "out.mp4")
    for time in NTSC_FILM:
        writer.write(grey(100), time)
    writer.abort()
    assert list(tmp_path.iterdir()) == []


def test_a_partial_file_plays_and_says_so_in_its_name(tmp_path: Path) -> None:
    writer = writer_for(tmp_path / "out.mp4")
    for time in NTSC_FILM[:25]:
        writer.write(grey(100), time)

    path = writer.keep_partial()
    assert path == tmp_path / "out.partial.mp4"
    assert times_of(path) == [t * Fraction(1, 24000) for t in NTSC_FILM[:25]]
    assert len(list(tmp_path.iterdir())) == 1


def test_no_picture_is_no_partial_file(tmp_path: Path) -> None:
    writer = writer_for(tmp_path / "out.mp4")
    assert writer.keep_partial() is None
    assert list(tmp_path.iterdir()) == []


def test_after_kill_the_part_file_plays_up_to_its_last_two_seconds(tmp_path: Path) -> None:
    script = f"""
        import os, signal
        from fractions import Fraction
        from pathlib import Path
        import numpy as np
        from ledetr.chain.recorder import VideoWriter
        writer = VideoWriter(Path({str(tmp_path / "out.mp4")!r}), width=64, height=48, time_base=Fraction(1, 25))
        for number in range(200):
            writer.write(np.full((48, 64, 3), number, np.uint8), number)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], timeout=60, check=False)

    assert ended.returncode == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == ["out.part.mp4"]
    times = times_of(tmp_path / "out.part.mp4")
    # 8 s were handed over; the encoder holds back less than a second, a fragment two.
    assert times == [Fraction(n, 25) for n in range(len(times))] and len(times) >= 200 - 75


def test_a_disk_that_fills_up_leaves_a_file_that_plays(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "out.mp4", width=320, height=240, time_base=Fraction(1, 25), rate=Fraction(25))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6_000_000, before[1]))  # writes beyond fail, as on a full disk
    try:
        with pytest.raises(OutputError, match="Cannot write"):
            for number in range(1000):
                writer.write(noise(number), number)
        path = writer.keep_partial()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert path is not None and [p.name for p in tmp_path.iterdir()] == ["out.partial.mp4"]
    times = []
    with av.open(str(path)) as container:
        try:
            for frame in container.decode(video=0):
                times.append(frame.pts)
        except av.error.InvalidDataError:
            pass  # the fragment in which the disk ran full
    assert len(times) >= 25 and times == sorted(times)


Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(
    ("total_mb", "free_mb", "full"),
    [(100_000, 2500, False), (100_000, 1500, True), (10_000, 600, False), (10_000, 400, True), (20, 3, False),
     (20, 1, True)],
)  # fmt: skip
def test_the_disk_is_called_full_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, total_mb: int, free_mb: int, full: bool
) -> None:
    monkeypatch.setattr(output_files.shutil, "disk_usage", lambda _: Usage(total_mb * 10**6, 0, free_mb * 10**6))
    if full:
        with pytest.raises(OutputError, match=r"nearly full: .* MB are left"):
            DiskWatch(tmp_path).check()
    else:
        DiskWatch(tmp_path).check()


def test_the_disk_is_looked_at_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[object] = []

    def look(folder: object) -> Usage:
        looks.append(folder)
        return Usage(10**12, 0, 10**12)

    monkeypatch.setattr(output_files.shutil, "disk_usage", look)
    times_s = iter((0.0, 0.4, 0.9, 1.1, 1.5, 2.2))
    watch = DiskWatch(tmp_path, now_s=lambda: next(times_s))
    for _ in range(6):
        watch.check()
    assert len(looks) == 3


def test_no_room_for_the_final_form_is_said_and_all_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = writer_for(tmp_path / "out.mp4")
    for time in NTSC_FILM:
        writer.write(grey(100), time)
    monkeypatch.setattr(output_files.shutil, "disk_usage", lambda _: Usage(10**12, 0, 1000))

    with pytest.raises(OutputError, match="are needed to complete the file"):
        writer.finish()
    path = writer.keep_partial()
    assert path is not None and len(times_of(path)) == len(NTSC_FILM)
    assert [p.name for p in tmp_path.iterdir()] == ["out.partial.mp4"]


def test_what_is_finished_stays_finished(tmp_path: Path) -> None:
    writer = writer_for(tmp_path / "out.mp4")
    writer.write(grey(100), 0)
    path = writer.finish()
    assert writer.keep_partial() == path
    writer.abort()
    assert len(times_of(path)) == 1
