import os
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledetr.chain.sources import open_source, parse_source
from ledetr.errors import SourceError


def read_all(path: Path) -> tuple[object, list]:
    source = open_source(parse_source(path))
    frames = []
    while (frame := source.read()) is not None:
        frames.append(frame)
    source.close()
    return source, frames


def packet_times(path: Path) -> list[int]:
    """Times of the pictures as they stand in the file, without decoding: the independent reference."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return sorted(packet.pts for packet in container.demux(stream) if packet.pts is not None)


# Gaps of 1 to 90 ticks, as a variable rate has them.
VFR = [0, 3, 4, 50, 51, 52, 140, 141, 150, 200, 290, 291]


@pytest.mark.parametrize(
    ("name", "codec", "time_base", "pts", "options"),
    [
        ("cfr.mp4", "libx264", Fraction(1, 25), range(30), {}),
        ("ntsc.mp4", "libx264", Fraction(1001, 24000), range(30), {"bf": "3"}),
        ("vfr.mp4", "libx264", Fraction(1, 90000), [900 * t for t in VFR], {"bf": "2"}),
        ("late.mp4", "libx264", Fraction(1, 1000), [500 + t for t in VFR], {}),
        ("gap.mp4", "libx264", Fraction(1, 1000), [0, 40, 80, 60_080, 60_120], {}),
        ("vfr.mkv", "libx264", Fraction(1, 1000), VFR, {"bf": "2"}),
        ("vp9.webm", "libvpx-vp9", Fraction(1, 1000), [40 * t for t in range(20)], {}),
        ("one.mp4", "libx264", Fraction(1, 25), [0], {}),
        ("avi.avi", "mpeg4", Fraction(1, 25), range(20), {}),
    ],
)
def test_every_frame_with_its_exact_time(make_video, name, codec, time_base, pts, options) -> None:
    path = make_video(name, codec=codec, time_base=time_base, pts=list(pts), options=options)
    source, frames = read_all(path)
    assert [frame.meta.pts for frame in frames] == packet_times(path)
    wanted = [at * time_base for at in pts]
    if path.suffix != ".avi":  # AVI has no times but the number of the frame
        assert [frame.meta.pts * frame.meta.time_base for frame in frames] == pytest.approx(wanted, abs=1e-9)
        assert all(isinstance(frame.meta.time_base, Fraction) for frame in frames)
    assert [frame.meta.seq for frame in frames] == [frame.meta.index for frame in frames] == list(range(len(pts)))
    levels = [int(frame.rgb[20, 20, 0]) for frame in frames]
    assert levels == pytest.approx(
        [make_video.level(i) for i in range(len(pts))], abs=4
    )  # lossy, but grey steps are 37
    assert source.info.start_s == pytest.approx(float(frames[0].meta.pts_s))


def test_frames_are_read_only_rgb(make_video) -> None:
    _, frames = read_all(make_video(size=(66, 50)))
    assert frames[0].rgb.shape == (50, 66, 3)
    assert frames[0].rgb.dtype == np.uint8 and frames[0].rgb.flags.c_contiguous and not frames[0].rgb.flags.writeable


def test_what_it_says_of_itself(make_video) -> None:
    info = open_source(parse_source(make_video(sound=True))).info
    assert (info.width, info.height, info.live, info.seekable, info.has_audio) == (64, 48, False, True, True)
    assert (info.rate, info.frame_count, info.display_name) == (Fraction(25), 25, "clip.mp4")
    assert info.duration_s == pytest.approx(1.0, abs=0.05)
    assert not open_source(parse_source(make_video("mute.mp4"))).info.has_audio


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(targets=st.lists(st.floats(-0.5, 1.6), min_size=1, max_size=4))
@pytest.mark.parametrize("options", [{"bf": "0"}, {"bf": "3"}], ids=["no B-frames", "B-frames"])
def test_seek_shows_the_first_frame_at_or_after_the_target(make_video, options, targets) -> None:
    path = make_video(
        f"seek{options['bf']}.mp4", time_base=Fraction(1, 1000), pts=[5 * t for t in VFR], options=options
    )
    times = [Fraction(5 * t, 1000) for t in VFR]
    source = open_source(parse_source(path))
    for count, target in enumerate(targets, 1):
        source.seek(target)
        frame = source.read()
        wanted = round(Fraction(target) / source.info.time_base) * source.info.time_base  # whole ticks
        expected = next((t for t in times if t >= wanted), times[-1])
        assert frame.meta.pts * frame.meta.time_base == expected
        assert (frame.meta.epoch, frame.meta.seq) == (count, 0)
        rest = []
        while (later := source.read()) is not None:
            rest.append(later.meta.pts * later.meta.time_base)
        assert rest == [t for t in times if t > expected]
    source.close()


@pytest.mark.parametrize(
    ("time_base", "pts"),
    [
        (Fraction(1001, 30000), list(range(90))),
        (Fraction(1, 1000), [round(i * Fraction(1001, 24)) for i in range(90)]),  # 24000/1001 on a grid of 1 ms
    ],
)
def test_a_constant_rate_tells_the_number_after_a_jump(make_video, time_base, pts) -> None:
    source = open_source(parse_source(make_video(time_base=time_base, pts=pts, options={"bf": "2"})))
    for number in (40, 7, 89, 0):
        source.seek(source.info.start_s + float(pts[number] * time_base) - 0.001)
        assert source.read().meta.index == number


@pytest.mark.parametrize("options", [{"bf": "0", "g": "4"}, {"bf": "3", "g": "8"}], ids=["no B-frames", "B-frames"])
def test_a_variable_rate_tells_the_number_after_a_jump_where_each_packet_is_in_the_index(make_video, options) -> None:
    path = make_video("vfr.mp4", time_base=Fraction(1, 1000), pts=VFR, options=options)
    source, frames = open_source(parse_source(path)), []
    while (frame := source.read()) is not None:
        frames.append(frame.meta)
    for meta in frames[::-3] + frames[::2]:
        source.seek(meta.pts_s)
        assert (after := source.read().meta).index == meta.index and after.pts == meta.pts


def test_otherwise_the_number_is_not_known_after_a_jump(make_video) -> None:
    source = open_source(parse_source(make_video("no index.mkv", time_base=Fraction(1, 1000), pts=VFR)))
    source.seek(0.14)
    assert source.read().meta.index is None
    source.seek(0)
    assert [source.read().meta.index for _ in range(3)] == [0, 1, 2]


def test_what_is_skipped_is_counted(make_video) -> None:
    source = open_source(parse_source(make_video(time_base=Fraction(1, 25), pts=range(25))))
    frames = [source.read(), source.read(skip_to_s=0.39), source.read(), source.read(skip_to_s=0.2), source.read(99)]
    assert [frame.meta.index for frame in frames] == [frame.meta.seq for frame in frames] == [0, 10, 11, 12, 24]
    assert source.read(skip_to_s=99) is None


def test_epoch_begins_where_asked(make_video) -> None:
    source = open_source(parse_source(make_video()), epoch=7)
    assert source.read().meta.epoch == 7


def test_closing_twice_and_reading_after(make_video) -> None:
    source = open_source(parse_source(make_video()))
    source.close()
    source.close()
    assert source.read() is None


def cut(path: Path, share: float) -> Path:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    return path


def refusal(path: Path) -> str:
    with pytest.raises(SourceError) as caught:
        open_source(parse_source(path))
    assert caught.value.exit_code == 3
    text = str(caught.value)
    assert text.endswith(".") and ". " not in text and "\n" not in text  # one sentence
    return text


def test_missing_file(tmp_path) -> None:
    text = refusal(tmp_path / "no such.mp4")
    assert "'no such.mp4'" in text and "there is no such file" in text


def test_empty_file(tmp_path) -> None:
    (tmp_path / "empty.mp4").touch()
    assert refusal(tmp_path / "empty.mp4") == "Cannot open 'empty.mp4': the file is empty (0 bytes)."


@pytest.mark.parametrize("content", [b"x", b"hello, I am text\n" * 100, "Grüße".encode() * 50])
def test_text_named_mp4(tmp_path, content) -> None:
    (tmp_path / "text.mp4").write_bytes(content)
    assert refusal(tmp_path / "text.mp4") == "Cannot open 'text.mp4': it holds text, not a video."


@pytest.mark.parametrize("content", [b"\x7fELF\0\0" + bytes(500), b"PK\3\4" + bytes(300), b"%PDF-1.7\n\0" + bytes(300)])
def test_other_files_named_mp4(tmp_path, content) -> None:
    (tmp_path / "other.mp4").write_bytes(content)
    assert "'other.mp4': it is not a video that can be read" in refusal(tmp_path / "other.mp4")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_mp4_without_its_index(make_video, share) -> None:
    path = cut(make_video("cut.mp4", pts=range(100)), share)
    assert "'cut.mp4': the video was cut short, its index is missing" in refusal(path)


def test_a_cut_video_with_its_index_in_front_plays_as_far_as_it_goes(make_video) -> None:
    options = {"movflags": "faststart"}
    path = make_video("front.mp4", time_base=Fraction(1, 25), pts=range(100), container_options=options)
    times = packet_times(path)
    _, frames = read_all(cut(path, 0.7))
    assert 5 < len(frames) < 100
    assert [frame.meta.pts for frame in frames] == times[: len(frames)]


def test_audio_only(make_video) -> None:
    path = make_video("song.mp4", pictures=False, sound=True)
    assert refusal(path) == "'song.mp4' has sound but no pictures; choose a file with a video track."


def test_folder_named_mp4(tmp_path) -> None:
    (tmp_path / "a.mp4").mkdir()
    assert "holds no pictures" in refusal(tmp_path / "a.mp4")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipes_and_devices_are_not_waited_for(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "zero.mp4").symlink_to("/dev/zero")
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    assert "not an ordinary file" in refusal(tmp_path / "pipe.mp4")
    assert "not an ordinary file" in refusal(tmp_path / "zero.mp4")
    assert "'loop.mp4'" in refusal(tmp_path / "loop.mp4")


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{path}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{path}'\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    ],
    ids=["hls", "concat", "sdp"],
)  # fmt: skip
def test_a_playlist_cannot_name_other_files(make_video, tmp_path, text) -> None:
    (tmp_path / "list.mp4").write_text(text.format(path=make_video("secret.mp4")))
    assert "'list.mp4'" in refusal(tmp_path / "list.mp4")


@pytest.mark.parametrize("name", ["a b.mp4", "50%.mp4", 'it\'s "x".mp4', "-i.mp4", "🍳.mp4", "a:b.mp4", "pipe:1.mp4"])
def test_odd_names(make_video, name) -> None:
    _, frames = read_all(make_video("x.mp4").rename(make_video.folder / name))
    assert len(frames) == 25


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX only")
def test_a_name_that_is_no_text(make_video) -> None:
    path = make_video("x.mp4").rename(make_video.folder / os.fsdecode(b"a\xff.mp4"))
    source, frames = read_all(path)
    assert len(frames) == 25 and source.info.display_name == "a\ufffd.mp4"


def test_a_damaged_stretch_is_passed_over(make_video) -> None:
    path = make_video("hurt.mp4", time_base=Fraction(1, 1000), pts=range(0, 4000, 40), gop=5)
    with av.open(str(path)) as container:
        hurt = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size][40:50]
    data = bytearray(path.read_bytes())
    for pos, size in hurt:
        data[pos : pos + size] = bytes(size)
    path.write_bytes(data)
    source, frames = read_all(path)
    times = [frame.meta.pts for frame in frames]
    assert source.broken > 0 and 88 <= len(frames) < 100
    # Around the hole the decoder may give two frames in the wrong order; none is thrown away for that.
    assert set(times) <= set(packet_times(path)) and times[-1] == packet_times(path)[-1]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), min_size=1, max_size=30))
def test_flipped_bits_give_frames_or_one_sentence(make_video, flips) -> None:
    path = make_video.folder / "flip.mp4"
    if not (make_video.folder / "good.mp4").exists():
        make_video("good.mp4")
    data = bytearray((make_video.folder / "good.mp4").read_bytes())
    for where, bit in flips:
        data[int(where * len(data))] ^= 1 << bit
    path.write_bytes(data)
    try:
        source = open_source(parse_source(path))
        for _ in range(200):
            if source.read() is None:
                break
        source.close()
    except SourceError as error:
        assert "flip.mp4" in str(error)


# The eight ways to store a picture, as the 2 x 2 part (a, b, c, d) of the matrix in an MP4.
MATRICES = [
    (1, 0, 0, 1),
    (0, 1, -1, 0),
    (-1, 0, 0, -1),
    (0, -1, 1, 0),
    (-1, 0, 0, 1),
    (0, 1, 1, 0),
    (1, 0, 0, -1),
    (0, -1, -1, 0),
]


def set_matrix(path: Path, abcd: tuple[int, int, int, int]) -> None:
    """Write the display matrix into the track header of an MP4."""
    data = bytearray(path.read_bytes())
    header = data.index(b"tkhd") - 4
    a, b, c, d = (value << 16 for value in abcd)
    struct.pack_into(">9i", data, header + 8 + 40, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


@pytest.mark.parametrize("abcd", MATRICES, ids=str)
def test_all_eight_orientations_come_upright(tmp_path, abcd) -> None:
    # The upright picture: red top left, green top right, blue bottom left, white bottom right.
    upright = np.zeros((64, 96, 3), np.uint8)
    upright[:32, :48, 0] = upright[:32, 48:, 1] = upright[32:, :48, 2] = 255
    upright[32:, 48:] = 255
    a, b, c, d = abcd
    # A stored point (x, y) is shown at (a*x + c*y, b*x + d*y), shifted into view: build the stored picture from that.
    stored = np.zeros((64, 96, 3) if b == 0 else (96, 64, 3), np.uint8)
    for y in range(stored.shape[0]):
        for x in range(stored.shape[1]):
            shown_x, shown_y = a * x + c * y, b * x + d * y
            stored[y, x] = upright[shown_y % 64, shown_x % 96]  # one line off where turned; the centres do not see it
    path = tmp_path / "turned.mp4"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=25, options={"crf": "10"})
        stream.height, stream.width, stream.pix_fmt = *stored.shape[:2], "yuv420p"
        output.mux(stream.encode(av.VideoFrame.from_ndarray(stored, "rgb24")))
        output.mux(stream.encode(None))
    set_matrix(path, abcd)
    source, (frame,) = read_all(path)
    assert (source.info.width, source.info.height) == (96, 64) == (frame.meta.width, frame.meta.height)
    for y, x in ((16, 24), (16, 72), (48, 24), (48, 72)):
        assert frame.rgb[y, x] == pytest.approx(upright[y, x].astype(int), abs=12)


def test_real_variable_rate_clip(clip) -> None:
    path = clip("vtest_vfr.mp4")
    source, frames = read_all(path)
    assert len(frames) == 75
    assert [frame.meta.pts for frame in frames] == packet_times(path)
    assert frames[0].meta.pts != 0 and source.info.start_s == pytest.approx(0.039, abs=1e-3)
    gaps = np.diff([frame.meta.pts_s for frame in frames])
    assert gaps.min() < 0.05 and gaps.max() > 0.5


def test_real_rotated_clip_stands_upright(clip) -> None:
    path = clip("person_rotated.mp4")
    source, frames = read_all(path)
    assert (source.info.width, source.info.height, frames[0].meta.rotation_deg) == (768, 432, 90)
    with av.open(str(path)) as container:  # an independent reading: FFmpeg's own conversion, turned by NumPy
        stored = next(container.decode(video=0)).to_ndarray(format="rgb24")
    turned = np.rot90(stored, -1).astype(int)
    assert np.abs(frames[0].rgb.astype(int) - turned).mean() < 6  # another matrix or rounding, the same picture


@pytest.mark.parametrize("name", ["people_vp9.webm", "cars_hevc10_bt709.mp4", "person_dog_aac_bt709.mp4"])
def test_real_clips_read_to_the_end(clip, name) -> None:
    _, frames = read_all(clip(name))
    assert [frame.meta.pts for frame in frames] == packet_times(clip(name))
    assert frames[0].meta.colour.matrix == 1
