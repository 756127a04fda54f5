"""Golden clips, made here, through the whole of process_video: frames, times, sound, colours, turn, and every end."""

import hashlib
import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from ledetr.backends.base import BackendInfo
from ledetr.chain.colour import colour_of, rgb_to_video_frame, tag_encoder, upright_rgb
from ledetr.chain.overlay import class_colour
from ledetr.chain.video import VideoProgress, VideoReport, needs_matroska, process_video
from ledetr.chain.video_reader import Cut
from ledetr.detections import Detections
from ledetr.errors import Interrupted, LeDetrError, OutputError, SourceError, UsageError
from ledetr.frame import Colour
from ledetr.labels import COCO_CATEGORY_IDS, COCO_NAMES

BT601 = Colour(matrix=6, full_range=False, primaries=6, transfer=6)
BT709 = Colour(matrix=1, full_range=False, primaries=1, transfer=1)


class TwoBoxes:
    """A detector that always sees a person on the left half and, less surely, a dog on the right; and counts."""

    model_id = "two"
    class_names = COCO_NAMES
    category_ids = COCO_CATEGORY_IDS
    score_threshold = 0.5
    info = BackendInfo("fake", "cpu", "fp32", (64, 64))

    def __init__(self, *, random_weights: bool = False, at_frame: Callable[[int], None] = lambda _: None) -> None:
        self.random_weights = random_weights
        self.shapes: list[tuple[int, ...]] = []
        self._at_frame = at_frame

    def detect_frame(self, rgb: np.ndarray, *, score_floor: float = 0.05, max_detections: int = 300) -> Any:
        self._at_frame(len(self.shapes))
        self.shapes.append(rgb.shape)
        height, width = rgb.shape[:2]
        boxes = np.array([[0, 0, width / 2, height], [width / 2, 0, width, height]], np.float32)
        found = Detections(
            boxes,
            np.array([0.9, 0.4], np.float32),
            np.array([0, 16]),
            class_names=self.class_names,
            category_ids=self.category_ids,
            model_id=self.model_id,
            score_floor=score_floor,
        )
        return found, SimpleNamespace(preprocess_ms=0.0, infer_ms=0.0, postprocess_ms=0.0)

    def close(self) -> None:
        pass


@dataclass(frozen=True, kw_only=True)
class Golden:
    """How to make a clip: pts in ticks of time_base; one AAC track for each pitch of sound_hz, begun at sound_start_s.

    turn: left degrees, mirrored. The picture is red, green, blue and white in its four quarters, as stored.
    """

    pts: Sequence[int] = tuple(range(0, 50 * 512, 512))
    time_base: Fraction = Fraction(1, 12800)
    size: tuple[int, int] = (128, 96)
    codec: str = "libx264"
    pix_fmt: str = "yuv420p"
    colour: Colour = BT601
    options: dict[str, str] = field(default_factory=lambda: {"crf": "18", "bf": "0"})
    turn: tuple[int, bool] = (0, False)
    sound_hz: Sequence[int] = ()
    sound_start_s: float = 0.0
    suffix: str = ".mp4"

    def make(self, folder: Path) -> Path:
        path = folder / f"golden{self.suffix}"
        with av.open(str(path), "w") as output:
            video = output.add_stream(self.codec, rate=Fraction(25), options=dict(self.options))
            video.width, video.height, video.pix_fmt = *self.size, self.pix_fmt
            video.time_base = video.codec_context.time_base = self.time_base
            tag_encoder(video.codec_context, self.colour)
            if self.turn != (0, False):
                video.set_display_rotation(self.turn[0], hflip=self.turn[1])
            sounds = [output.add_stream("aac", rate=48000, layout="stereo") for _ in self.sound_hz]
            for stream, hz in zip(sounds, self.sound_hz, strict=True):
                output.mux([p for frame in self._sound(hz) for p in stream.encode(frame)])
                output.mux(stream.encode(None))
            for number, time in enumerate(self.pts):
                frame = rgb_to_video_frame(quarters(*self.size, number), self.colour, self.pix_fmt)
                frame.pts, frame.time_base = time, self.time_base
                output.mux(video.encode(frame))
            output.mux(video.encode(None))
        return path

    def _sound(self, hz: int) -> list[av.AudioFrame]:
        """A tone with noise in it, so that no two packets are the same."""
        frames = []
        noise = np.random.default_rng(hz)
        length = int(48000 * float((self.pts[-1] - self.pts[0]) * self.time_base))
        for start in range(0, length, 1024):
            t = np.arange(start, start + 1024) / 48000
            samples = 0.2 * np.sin(2 * np.pi * hz * t) + noise.normal(0, 0.05, (2, 1024))
            frame = av.AudioFrame.from_ndarray(samples.astype(np.float32), "fltp", "stereo")
            frame.sample_rate, frame.time_base = 48000, Fraction(1, 48000)
            frame.pts = start + round(self.sound_start_s * 48000)
            frames.append(frame)
        return frames


def quarters(width: int, height: int, number: int) -> np.ndarray:
    """Red, green, blue, and a grey that tells the number of the picture."""
    rgb = np.empty((height, width, 3), np.uint8)
    y, x = height // 2, width // 2
    rgb[:y, :x], rgb[:y, x:], rgb[y:, :x], rgb[y:, x:] = (
        (220, 20, 20),
        (20, 200, 20),
        (20, 20, 220),
        40 + 4 * (number % 50),
    )
    return rgb


GOLDEN = {
    "constant rate": Golden(),
    "variable rate": Golden(pts=[3510, 6000, 6900, 40000, 40090, 100000, 250000, 400900], time_base=Fraction(1, 90000)),
    "film at 24000/1001": Golden(pts=range(0, 60 * 1001, 1001), time_base=Fraction(1, 24000), sound_hz=[440]),
    "B-frames": Golden(options={"crf": "18", "bf": "3", "g": "20"}, sound_hz=[440]),
    "odd size": Golden(size=(129, 97), codec="ffv1", pix_fmt="yuv444p", options={}, suffix=".mkv",
                       time_base=Fraction(1, 1000), pts=range(0, 2000, 40)),
    "no sound": Golden(),
    "two sound tracks": Golden(sound_hz=[440, 880]),
    "sound that starts late": Golden(sound_hz=[440], sound_start_s=0.5),
    "starts off the millisecond": Golden(pts=range(3515, 90000, 3001), time_base=Fraction(1, 90000), sound_hz=[440],
                                         sound_start_s=0.50011),
    "ten bits": Golden(pix_fmt="yuv420p10le", colour=BT709),
    "ten bits, HEVC": Golden(codec="libx265", options={"crf": "12", "x265-params": "log-level=error"}, colour=BT709,
                             pix_fmt="yuv420p10le", sound_hz=[440]),
    "full range": Golden(colour=Colour(matrix=6, full_range=True, primaries=6, transfer=6)),
    "full colour": Golden(pix_fmt="yuv444p", options={"crf": "12", "bf": "0"}),
    "open groups of pictures": Golden(options={"crf": "18", "bf": "3", "g": "12", "x264-params": "open-gop=1"}),
    "untagged": Golden(colour=Colour()),
    "MPEG-TS": Golden(suffix=".ts", time_base=Fraction(1, 90000), pts=range(0, 50 * 3600, 3600)),
    "MPEG-TS with sound": Golden(suffix=".ts", time_base=Fraction(1, 90000), pts=range(0, 50 * 3600, 3600),
                                 sound_hz=[440, 880]),
    "VP9 in WebM": Golden(codec="libvpx-vp9", options={"crf": "20", "b": "0", "cpu-used": "8"}, suffix=".webm",
                          time_base=Fraction(1, 1000), pts=range(0, 2000, 40), colour=BT709),
    "one picture": Golden(pts=[0]),
}  # fmt: skip


def video_of(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def times_of(path: Path) -> list[Fraction]:
    return [frame.pts * frame.time_base for frame in video_of(path)]


def sound_of(path: Path) -> list[list[tuple[Fraction, str]]]:
    """Time and hash of every packet, for each sound track."""
    tracks = []
    with av.open(str(path)) as container:
        count = len(container.streams.audio)
    for number in range(count):
        with av.open(str(path)) as container:
            packets = [packet for packet in container.demux(audio=number) if packet.size]
            tracks.append(
                [(p.pts * p.time_base, hashlib.sha256(without_header(bytes(p))).hexdigest()) for p in packets]
            )
    return tracks


def without_header(aac: bytes) -> bytes:
    """MPEG-TS puts 7 bytes (ADTS, ISO/IEC 13818-7 6.2; no CRC here) before each packet; MP4 has no place for them."""
    return aac[7:] if aac[:2] == b"\xff\xf1" else aac


@pytest.mark.parametrize("name", GOLDEN)
def test_a_golden_clip_comes_back_with_its_frames_times_sound_and_tags(tmp_path: Path, name: str) -> None:
    source = GOLDEN[name].make(tmp_path)
    detector = TwoBoxes()
    report = process_video(source, tmp_path / "out.mp4", detector)

    before, after = times_of(source), times_of(tmp_path / "out.mp4")
    assert len(after) == len(before) == report.frames == len(detector.shapes) == len(GOLDEN[name].pts)
    # MPEG-TS begins anywhere; there all tracks move together so that the first is at zero.
    moved = before[0] - after[0] if name.startswith("MPEG-TS") else 0
    assert after == [time - moved for time in before]
    assert sound_of(tmp_path / "out.mp4") == [[(at - moved, data) for at, data in track] for track in sound_of(source)]
    assert colour_of(video_of(tmp_path / "out.mp4")[0]) == colour_of(video_of(source)[0])


@pytest.mark.parametrize("name", GOLDEN)
def test_pictures_keep_their_colours_and_their_order(tmp_path: Path, name: str) -> None:
    source = GOLDEN[name].make(tmp_path)
    process_video(source, tmp_path / "out.mp4", TwoBoxes(), conf=0.95)  # nothing is drawn

    for number, frame in enumerate(video_of(tmp_path / "out.mp4")):
        rgb = upright_rgb(frame).astype(int)
        wanted = quarters(*GOLDEN[name].size, number).astype(int)
        for y, x in [(20, 20), (20, 110), (80, 20), (80, 110)]:
            assert np.abs(rgb[y, x] - wanted[y, x]).max() <= 12, (number, y, x)


@pytest.mark.parametrize("left_deg", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_all_eight_turns_come_out_upright_and_unmarked(tmp_path: Path, left_deg: int, mirrored: bool) -> None:
    source = Golden(pts=range(0, 5 * 512, 512), turn=(left_deg, mirrored)).make(tmp_path)
    detector = TwoBoxes()
    process_video(source, tmp_path / "out.mp4", detector, conf=0.95)

    upright = np.rot90(quarters(128, 96, 0), left_deg // 90)
    upright = upright[:, ::-1] if mirrored else upright
    frame = video_of(tmp_path / "out.mp4")[0]
    assert frame.side_data.get("DISPLAYMATRIX") is None
    assert detector.shapes[0] == upright.shape
    rgb = frame.to_ndarray(format="rgb24").astype(int)
    for y, x in [(10, 10), (10, -10), (-10, 10), (-10, -10)]:
        assert np.abs(rgb[y, x] - upright[y, x]).max() <= 14


def test_boxes_are_drawn_where_they_were_found(tmp_path: Path) -> None:
    source = Golden(size=(320, 240)).make(tmp_path)
    process_video(source, tmp_path / "out.mp4", TwoBoxes())

    rgb = upright_rgb(video_of(tmp_path / "out.mp4")[0]).astype(int)
    assert np.abs(rgb[120, 1] - class_colour(0)).max() < 60  # the left edge of the person's box
    assert np.abs(rgb[60, 80] - (220, 20, 20)).max() < 14  # inside it
    assert np.abs(rgb[60, 240] - (20, 200, 20)).max() < 14  # the dog is below the threshold


@pytest.mark.parametrize("left_deg", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_turned_clip_keeps_its_times_and_its_sound(tmp_path: Path, left_deg: int, mirrored: bool) -> None:
    source = Golden(
        pts=[0, 512, 700, 9000, 12800], turn=(left_deg, mirrored), options={"crf": "18", "bf": "2"}, sound_hz=[440]
    ).make(tmp_path)
    process_video(source, tmp_path / "out.mp4", TwoBoxes())
    assert (
        times_of(tmp_path / "out.mp4") == times_of(source) == [Fraction(n, 12800) for n in (0, 512, 700, 9000, 12800)]
    )
    assert sound_of(tmp_path / "out.mp4") == sound_of(source)


def with_subtitles(folder: Path, lines: Sequence[tuple[float, str]]) -> Path:
    """A golden clip with sound, and these lines as an SRT track, each shown for half a second."""
    clip, words = Golden(sound_hz=[440]).make(folder), folder / "words.srt"
    stamp = "00:00:0{:.3f}".format
    blocks = [
        f"{number}\n{stamp(at)} --> {stamp(at + 0.5)}\n{text}\n".replace(".", ",")
        for number, (at, text) in enumerate(lines, 1)
    ]
    words.write_text("\n".join(blocks), encoding="utf-8")
    path = folder / "subtitled.mkv"
    with av.open(str(clip)) as pictures, av.open(str(words)) as text, av.open(str(path), "w") as output:
        tracks = [(stream, output.add_stream_from_template(stream, opaque=True)) for stream in pictures.streams]
        track = output.add_stream_from_template(text.streams[0], opaque=True)
        track.metadata["language"] = "deu"
        copies = {id(stream): copy for stream, copy in tracks} | {id(text.streams[0]): track}
        packets = [packet for source in (pictures, text) for packet in source.demux() if packet.size]
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            packet.stream = copies[id(packet.stream)]
            output.mux(packet)
    return path


def subtitles_of(path: Path) -> list[tuple[Fraction, Fraction, bytes]]:
    """Start, length and words of every packet of the first track of subtitles."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(subtitles=0) if packet.size]
        return [(p.pts * p.time_base, p.duration * p.time_base, bytes(p)) for p in packets]


LINES = [(0.25, "Guten Tag"), (1.0, "Zwei Hunde: <i>drüben</i>")]


def test_subtitles_are_copied_with_their_times_and_language(tmp_path: Path) -> None:
    source = with_subtitles(tmp_path, LINES)
    process_video(source, tmp_path / "out.mkv", TwoBoxes())
    assert [text.decode() for _, _, text in subtitles_of(source)] == [text for _, text in LINES]
    assert subtitles_of(tmp_path / "out.mkv") == subtitles_of(source)
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert [stream.language for stream in container.streams.subtitles] == ["deu"]


def test_subtitles_that_do_not_fit_are_named_and_all_else_is_kept(tmp_path: Path) -> None:
    source = with_subtitles(tmp_path, LINES)
    report = process_video(source, tmp_path / "out.mp4", TwoBoxes())
    assert report.notes == ("Track 2 (subtitle) is left out: .mp4 files cannot hold it.",)
    (old,), (new,) = sound_of(source), sound_of(tmp_path / "out.mp4")
    assert [packet for _, packet in new] == [packet for _, packet in old]
    assert report.frames == 50 and times_of(tmp_path / "out.mp4") == times_of(source)


def test_the_result_is_not_much_larger_than_the_source(clip: Any, tmp_path: Path) -> None:
    source, target, _ = processed(clip, "person_dog_aac_bt709.mp4", tmp_path)
    assert target.stat().st_size <= 1.5 * source.stat().st_size


def starts_before_zero(folder: Path, suffix: str = ".ts") -> Path:
    """Pictures and sound from -0.4 s on. MPEG-TS says so; MP4 has an edit list that hides what is before zero."""
    path = folder / f"negative{suffix}"
    golden = Golden(pts=range(0, 20 * 3600, 3600), sound_hz=[440])
    with av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as output:
        video = output.add_stream("libx264", rate=25, options={"crf": "18", "bf": "2"})
        video.width, video.height, video.pix_fmt = 128, 96, "yuv420p"
        video.time_base = video.codec_context.time_base = Fraction(1, 90000)
        tag_encoder(video.codec_context, BT601)
        sound = output.add_stream("aac", rate=48000, layout="stereo")
        packets = []
        for number in range(20):
            frame = rgb_to_video_frame(quarters(128, 96, number), BT601)
            frame.pts, frame.time_base = -36000 + 3600 * number, Fraction(1, 90000)
            packets += video.encode(frame)
        packets += video.encode(None)
        for block in replace(golden, time_base=Fraction(1, 90000))._sound(440):
            block.pts -= 19200
            packets += sound.encode(block)
        for packet in sorted([*packets, *sound.encode(None)], key=lambda packet: packet.dts * packet.time_base):
            output.mux(packet)
    return path


def test_a_start_before_zero_moves_all_tracks_alike(tmp_path: Path) -> None:
    source = starts_before_zero(tmp_path)
    process_video(source, tmp_path / "out.mp4", TwoBoxes())
    before, after = times_of(source), times_of(tmp_path / "out.mp4")
    assert before[0] == Fraction(-36000, 90000) and len(before) == 20
    (old,), (new,) = sound_of(source), sound_of(tmp_path / "out.mp4")
    shift = after[0] - before[0]
    assert after == [time + shift for time in before] and min(after[0], new[0][0]) >= 0
    assert [data for _, data in new] == [data for _, data in old] and len(new) > 30
    # Sound has a clock of 1/48000 s, so its times are next to those of the source's 1/90000 s.
    assert all(abs(b - a - shift) <= Fraction(1, 48000) for (a, _), (b, _) in zip(old, new, strict=True))


def test_what_an_edit_list_hides_before_zero_stays_hidden(tmp_path: Path) -> None:
    source = starts_before_zero(tmp_path, ".mp4")
    process_video(source, tmp_path / "out.mp4", TwoBoxes(), conf=0.95)
    assert times_of(tmp_path / "out.mp4") == times_of(source) == [Fraction(3600 * n, 90000) for n in range(10)]
    greys = [int(upright_rgb(frame)[80, 110, 0]) for frame in video_of(tmp_path / "out.mp4")]
    assert np.abs(np.array(greys) - [40 + 4 * n for n in range(10, 20)]).max() <= 3


def test_non_square_pixels_stay_so(tmp_path: Path) -> None:
    path = tmp_path / "anamorphic.mp4"
    with av.open(str(path), "w") as output:
        video = output.add_stream("libx264", rate=25)
        video.width, video.height = 128, 96
        video.codec_context.sample_aspect_ratio = Fraction(4, 3)
        video.set_display_rotation(90)
        output.mux(video.encode(rgb_to_video_frame(quarters(128, 96, 0), BT601)))
        output.mux(video.encode(None))
    process_video(path, tmp_path / "out.mp4", TwoBoxes())
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(3, 4)


def test_title_and_chapters_and_languages_are_kept(tmp_path: Path) -> None:
    source = tmp_path / "titled.mp4"
    made = Golden(sound_hz=[440, 880]).make(tmp_path)
    with av.open(str(made)) as given, av.open(str(source), "w") as output:
        output.metadata["title"] = "Zwei Töne"
        output.set_chapters(
            [{"id": 1, "start": 0, "end": 1000, "time_base": Fraction(1, 1000), "metadata": {"title": "one"}}]
        )
        copies = {stream.index: output.add_stream_from_template(stream, opaque=True) for stream in given.streams}
        copies[1].metadata["language"], copies[2].metadata["language"] = "deu", "fra"
        for packet in given.demux():
            if packet.size:
                packet.stream = copies[packet.stream.index]
                output.mux(packet)
    process_video(source, tmp_path / "out.mp4", TwoBoxes())

    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.metadata["title"] == "Zwei Töne"
        assert [chapter["metadata"]["title"] for chapter in container.chapters()] == ["one"]
        assert [stream.language for stream in container.streams.audio] == ["deu", "fra"]


def test_matroska_keeps_times_to_a_millisecond_and_the_sound_as_it_is(tmp_path: Path) -> None:
    source = GOLDEN["film at 24000/1001"].make(tmp_path)
    process_video(source, tmp_path / "out.mkv", TwoBoxes())

    before, after = times_of(source), times_of(tmp_path / "out.mkv")
    shift = after[0] - before[0]  # Matroska knows no time before zero, so the lead-in of AAC moves all tracks
    assert max(abs(b + shift - a) for a, b in zip(after, before, strict=True)) <= Fraction(1, 1000)
    (old,), (new,) = sound_of(source), sound_of(tmp_path / "out.mkv")
    assert [packet for _, packet in new] == [packet for _, packet in old]
    assert max(abs(b[0] + shift - a[0]) for a, b in zip(new, old, strict=True)) <= Fraction(1, 1000)


def test_sound_that_the_container_cannot_hold_is_refused_before_work(tmp_path: Path) -> None:
    source = tmp_path / "old.mkv"
    with av.open(str(source), "w", format="avi") as output:
        video, sound = output.add_stream("libx264", rate=25), output.add_stream("adpcm_ms", rate=44100)
        video.width, video.height = 128, 96
        sound.layout = "mono"
        output.mux(video.encode(rgb_to_video_frame(quarters(128, 96, 0), BT601)))
        output.mux(video.encode(None))
    detector = TwoBoxes()
    with pytest.raises(OutputError, match=r"cannot hold the track 1 .*--no-audio"):
        process_video(source, tmp_path / "out.mp4", detector)
    assert detector.shapes == [] and needs_matroska(source)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old.mkv"]
    assert process_video(source, tmp_path / "out.mp4", detector, audio=False).frames == 1


def test_without_sound_on_request(tmp_path: Path) -> None:
    source = GOLDEN["two sound tracks"].make(tmp_path)
    process_video(source, tmp_path / "out.mp4", TwoBoxes(), audio=False)
    assert sound_of(tmp_path / "out.mp4") == []


def test_more_than_eight_bits_are_said(tmp_path: Path) -> None:
    report = process_video(GOLDEN["ten bits"].make(tmp_path), tmp_path / "out.mp4", TwoBoxes())
    assert report.notes == ("The source has 10 bits a colour (standard range); the result has 8, standard range.",)


def test_side_files_say_what_the_picture_shows(tmp_path: Path) -> None:
    source = GOLDEN["variable rate"].make(tmp_path)
    paths = {kind: tmp_path / f"out.{kind}" for kind in ("json", "jsonl", "csv", "coco")}
    report = process_video(source, None, TwoBoxes(), side_files=paths)

    frames = json.loads(paths["json"].read_text())["frames"]
    assert [frame["index"] for frame in frames] == list(range(8))
    assert [frame["pts_s"] for frame in frames] == [round(float(time), 6) for time in times_of(source)]
    assert all([box["class_name"] for box in frame["detections"]] == ["person"] for frame in frames)
    assert len(json.loads(paths["coco"].read_text())) == report.boxes == 8
    assert report.path is None and report.boxes_by_class == {"person": 8} and report.side_files == paths


def test_threshold_below_the_floor_and_classes(tmp_path: Path) -> None:
    source = Golden(pts=[0, 512]).make(tmp_path)
    report = process_video(
        source, None, TwoBoxes(), conf=0.01, class_ids=[16], side_files={"json": tmp_path / "a.json"}
    )
    assert report.boxes_by_class == {"dog": 2}


def test_random_weights_are_written_on_the_picture(tmp_path: Path) -> None:
    source = Golden(size=(320, 240), pts=[0, 512]).make(tmp_path)
    process_video(source, tmp_path / "learnt.mp4", TwoBoxes(), conf=0.95)
    process_video(source, tmp_path / "random.mp4", TwoBoxes(random_weights=True), conf=0.95)

    learnt, random = (upright_rgb(video_of(tmp_path / f"{name}.mp4")[0])[:40, :120] for name in ("learnt", "random"))
    assert (np.abs(learnt.astype(int) - random).max(-1) > 40).mean() > 0.1


CUTS = {
    "start": (Cut(start_s=1.0), range(25, 50)),
    "end": (Cut(end_s=1.0), range(25)),
    "middle": (Cut(start_s=0.5, end_s=1.5), range(13, 38)),
    "some frames": (Cut(max_frames=7), range(7)),
    "stride": (Cut(stride=3), range(0, 50, 3)),
    "stride and some": (Cut(start_s=0.4, stride=10, max_frames=3), range(10, 40, 10)),
}


@pytest.mark.parametrize("name", CUTS)
def test_a_part_of_a_video_has_the_right_pictures_and_the_sound_beside_them(tmp_path: Path, name: str) -> None:
    cut, numbers = CUTS[name]
    source = Golden(options={"crf": "18", "bf": "2", "g": "10"}, sound_hz=[440]).make(tmp_path)
    process_video(source, tmp_path / "out.mp4", TwoBoxes(), conf=0.95, cut=cut)

    start = Fraction(round(cut.start_s * 12800), 12800)
    assert times_of(tmp_path / "out.mp4") == [Fraction(n, 25) - start for n in numbers]
    old, new = dict(map(reversed, sound_of(source)[0])), sound_of(tmp_path / "out.mp4")[0]
    assert all(abs(old[packet] - start - time) <= Fraction(1, 24000) for time, packet in new)
    greys = [int(upright_rgb(frame)[80, 110, 0]) for frame in video_of(tmp_path / "out.mp4")]
    assert np.abs(np.array(greys) - [40 + 4 * n for n in numbers]).max() <= 3


def test_a_part_that_holds_nothing_is_said(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no picture in the part"):
        process_video(Golden().make(tmp_path), tmp_path / "out.mp4", TwoBoxes(), cut=Cut(start_s=100))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["golden.mp4"]


def test_stop_keeps_a_partial_that_plays_in_sync(tmp_path: Path) -> None:
    source = Golden(pts=range(0, 200 * 512, 512), sound_hz=[440]).make(tmp_path)
    stop = threading.Event()

    def stop_at_60(progress: VideoProgress) -> None:
        if progress.frames == 60:
            stop.set()

    with pytest.raises(Interrupted, match=r"pictures are kept in .*out\.partial\.mp4 and .*out\.partial\.json"):
        process_video(
            source,
            tmp_path / "out.mp4",
            TwoBoxes(),
            side_files={"json": tmp_path / "out.json"},
            progress=stop_at_60,
            stop=stop,
        )
    kept = ["golden.mp4", "out.mp4.job.json", "out.partial.json", "out.partial.mp4"]
    assert sorted(p.name for p in tmp_path.iterdir()) == kept
    times = times_of(tmp_path / "out.partial.mp4")
    assert 60 <= len(times) < 200 and times == times_of(source)[: len(times)]
    sound = sound_of(tmp_path / "out.partial.mp4")[0]
    assert sound == sound_of(source)[0][: len(sound)]
    assert len(json.loads((tmp_path / "out.partial.json").read_text())["frames"]) == len(times)


def test_stop_after_the_last_picture_is_no_interruption(tmp_path: Path) -> None:
    stop = threading.Event()
    source = Golden().make(tmp_path)
    report = process_video(
        source, tmp_path / "out.mp4", TwoBoxes(), stop=stop, progress=lambda p: stop.set() if p.frames == 50 else None
    )
    assert report.frames == 50 and report.path == tmp_path / "out.mp4"


def test_stop_before_the_first_picture_leaves_nothing(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted, match="nothing was written"):
        process_video(Golden().make(tmp_path), tmp_path / "out.mp4", TwoBoxes(), stop=stop)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["golden.mp4"]


class Refusal(Exception):
    pass


def test_a_detector_that_fails_is_the_cause_that_comes_out(tmp_path: Path) -> None:
    def fail_at_20(number: int) -> None:
        if number == 20:
            raise Refusal("the card is gone")

    before = threading.active_count()
    with pytest.raises(Refusal, match="the card is gone") as caught:
        process_video(Golden().make(tmp_path), tmp_path / "out.mp4", TwoBoxes(at_frame=fail_at_20))
    assert "20 pictures are kept" in caught.value.__notes__[0]
    assert len(times_of(tmp_path / "out.partial.mp4")) == 20
    assert threading.active_count() == before


def test_a_callback_that_fails_ends_all_stages(tmp_path: Path) -> None:
    def fail(progress: VideoProgress) -> None:
        raise Refusal("no")

    before = threading.active_count()
    with pytest.raises(Refusal):
        process_video(Golden().make(tmp_path), tmp_path / "out.mp4", TwoBoxes(), progress=fail)
    assert threading.active_count() == before


def test_asked_twice_the_part_file_stays_and_plays(tmp_path: Path) -> None:
    def interrupt(progress: VideoProgress) -> None:
        if progress.frames == 150:
            raise KeyboardInterrupt

    source = Golden(pts=range(0, 200 * 512, 512)).make(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        process_video(source, tmp_path / "out.mp4", TwoBoxes(), progress=interrupt)
    assert not (tmp_path / "out.mp4").exists()
    assert len(times_of(tmp_path / "out.part.mp4")) >= 50


def test_progress_counts_to_the_total_and_knows_the_time_left(tmp_path: Path) -> None:
    seen: list[VideoProgress] = []
    report = process_video(Golden().make(tmp_path), tmp_path / "out.mp4", TwoBoxes(), progress=seen.append)
    assert [p.frames for p in seen] == list(range(1, 51)) and {p.total for p in seen} == {50}
    assert seen[-1].seconds_left == 0 and report.fps > 0 and set(report.stage_ms) == {"read", "detect", "write"}


def test_a_cut_file_is_a_failed_job_with_its_beginning_kept(tmp_path: Path) -> None:
    source = Golden(options={"crf": "1", "bf": "0"}, size=(320, 240)).make(tmp_path)
    whole = tmp_path / "whole.mp4"
    process_video(source, whole, TwoBoxes(), conf=0.95)  # index in front
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * 0.6)])

    with pytest.raises(SourceError, match=r"cut\.mp4.* kept in .*out\.partial\.mp4"):
        process_video(cut, tmp_path / "out.mp4", TwoBoxes())
    assert not (tmp_path / "out.mp4").exists()
    assert 0 < len(times_of(tmp_path / "out.partial.mp4")) < 50


@pytest.mark.parametrize("content", [b"", b"x", b"this is text\n" * 50, b"\x00\x00\x00\x18ftypmp42" + bytes(500)])
def test_what_is_no_video_is_one_sentence_and_leaves_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.mp4").write_bytes(content)
    with pytest.raises(SourceError, match=r"bad\.mp4"):
        process_video(tmp_path / "bad.mp4", tmp_path / "out.mp4", TwoBoxes())
    assert [path.name for path in tmp_path.iterdir()] == ["bad.mp4"]


def test_the_source_is_never_the_target(tmp_path: Path) -> None:
    source = Golden().make(tmp_path)
    before = source.read_bytes()
    (tmp_path / "link.mp4").symlink_to(source)
    for target in (source, tmp_path / "link.mp4"):
        with pytest.raises(UsageError, match="own source"):
            process_video(source, target, TwoBoxes(), overwrite=True)
    with pytest.raises(UsageError, match="own source"):
        process_video(source, None, TwoBoxes(), side_files={"json": source}, overwrite=True)
    assert source.read_bytes() == before


def test_a_source_named_like_the_part_file_survives(tmp_path: Path) -> None:
    made = Golden().make(tmp_path)
    source = made.rename(tmp_path / "out.part.mp4")
    before = source.read_bytes()
    process_video(source, tmp_path / "out.mp4", TwoBoxes())
    assert source.read_bytes() == before and len(times_of(tmp_path / "out.mp4")) == 50


def test_a_picture_size_that_changes_is_said(tmp_path: Path) -> None:
    parts = [Golden(size=size, suffix=".ts", pts=range(0, 20 * 512, 512)) for size in ((128, 96), (160, 96))]
    joined = tmp_path / "joined.ts"
    data = b""
    for part in parts:
        made = part.make(tmp_path)
        data += made.read_bytes()
        made.unlink()
    joined.write_bytes(data)
    with pytest.raises(LeDetrError, match=r"changes its picture size .* from 128x96 to 160x96"):
        process_video(joined, tmp_path / "out.mp4", TwoBoxes())


def processed(clip: Callable[[str], Path], name: str, tmp_path: Path) -> tuple[Path, Path, VideoReport]:
    source = clip(name)
    return source, tmp_path / "out.mp4", process_video(source, tmp_path / "out.mp4", TwoBoxes())


@pytest.mark.parametrize(
    ("name", "frames"), [("vtest_vfr.mp4", 75), ("cars_hevc10_bt709.mp4", 75), ("people_vp9.webm", 80)]
)
def test_real_clips_keep_frames_times_and_tags(clip: Any, tmp_path: Path, name: str, frames: int) -> None:
    source, target, report = processed(clip, name, tmp_path)
    assert report.frames == frames and times_of(target) == times_of(source)
    assert colour_of(video_of(target)[0]) == colour_of(video_of(source)[0])


def test_a_real_clip_keeps_its_aac_byte_for_byte(clip: Any, tmp_path: Path) -> None:
    source, target, _ = processed(clip, "person_dog_aac_bt709.mp4", tmp_path)
    assert sound_of(target) == sound_of(source) and len(sound_of(target)[0]) == 215
    assert times_of(target) == times_of(source)


def test_a_real_phone_video_comes_out_upright(clip: Any, tmp_path: Path) -> None:
    source, target, _ = processed(clip, "person_rotated.mp4", tmp_path)
    before, after = video_of(source)[0], video_of(target)[0]
    assert (before.width, before.height, after.width, after.height) == (432, 768, 768, 432)
    assert after.side_data.get("DISPLAYMATRIX") is None
    rgb = upright_rgb(after).astype(int)
    assert rgb[-20:, :, 0].mean() > rgb[-20:, :, 2].mean() + 60  # the wooden floor lies at the bottom
    assert times_of(target) == times_of(source)


needs_ffmpeg = pytest.mark.skipif(
    not (shutil.which("ffmpeg") and shutil.which("ffprobe")), reason="no ffmpeg here, a second build to ask"
)


def run_ffmpeg(*words: str | Path) -> str:
    command = ["ffmpeg", "-v", "error", "-nostdin", "-y", *map(str, words)]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout


def probed(path: Path, entries: str, tracks: str) -> Any:
    command = ["ffprobe", "-v", "error", "-show_entries", entries, "-select_streams", tracks, "-of", "json", str(path)]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)


# What the other build says of the pictures: times, tags and clock.
PICTURE_ENTRIES = (
    "frame=pts,media_type:stream=codec_type,color_space,color_range,color_primaries,color_transfer,time_base"
)


@needs_ffmpeg
@pytest.mark.parametrize("name", [name for name in GOLDEN if GOLDEN[name].suffix == ".mp4"])
def test_another_build_reads_the_same_from_the_result(tmp_path: Path, name: str) -> None:
    source = GOLDEN[name].make(tmp_path)
    process_video(source, tmp_path / "out.mp4", TwoBoxes())
    assert probed(tmp_path / "out.mp4", PICTURE_ENTRIES, "v") == probed(source, PICTURE_ENTRIES, "v")
    md5_of_sound = [run_ffmpeg("-i", path, "-map", "0:a?", "-c", "copy", "-f", "streamhash", "-")
                    for path in (source, tmp_path / "out.mp4")] if GOLDEN[name].sound_hz else ["", ""]  # fmt: skip
    assert md5_of_sound[0] == md5_of_sound[1]
    assert run_ffmpeg("-xerror", "-i", tmp_path / "out.mp4", "-f", "null", "-") == ""  # decodes without a complaint


@needs_ffmpeg
def test_a_clip_that_begins_in_the_middle_of_a_group_keeps_what_players_show(tmp_path: Path) -> None:
    """Cut without encoding: an edit list hides the pictures before the start, and sound begins before zero."""
    made = Golden(options={"crf": "18", "bf": "2", "g": "25"}, sound_hz=[440]).make(tmp_path)
    source = tmp_path / "cut.mp4"
    run_ffmpeg("-ss", "0.52", "-i", made, "-c", "copy", source)
    process_video(source, tmp_path / "out.mp4", TwoBoxes(), conf=0.95)

    greys = [int(upright_rgb(frame)[80, 110, 0]) for frame in video_of(tmp_path / "out.mp4")]
    assert np.abs(np.array(greys) - [40 + 4 * n for n in range(13, 50)]).max() <= 3
    shown = [int(frame["pts"]) for frame in probed(source, "frame=pts", "v")["frames"]]
    assert times_of(tmp_path / "out.mp4") == [Fraction(pts, 12800) for pts in shown]
    (old,), (new,) = sound_of(source), sound_of(tmp_path / "out.mp4")
    assert [packet for _, packet in new] == [packet for _, packet in old]


@needs_ffmpeg
def test_subtitles_of_an_mp4_stay_in_an_mp4(tmp_path: Path) -> None:
    source = tmp_path / "subtitled.mp4"
    run_ffmpeg("-i", with_subtitles(tmp_path, LINES), "-c", "copy", "-c:s", "mov_text", source)
    process_video(source, tmp_path / "out.mp4", TwoBoxes())
    # The muxer fills the gaps between words with empty ones.
    old, new = ([line for line in subtitles_of(path) if len(line[2]) > 2] for path in (source, tmp_path / "out.mp4"))
    assert old == new and [text[2:11] for _, _, text in new] == [b"Guten Tag", b"Zwei Hund"]
