"""What the corpus and the fuzzer found: each has broken once."""

import warnings
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from ledetr.chain.decoding import PictureDecoder, demuxed
from ledetr.chain.output_files import choose_target, reserve_part
from ledetr.chain.recorder import VideoWriter
from ledetr.chain.resume import usable_segment
from ledetr.chain.side_files import CsvFile, SideHeader
from ledetr.coco_file import inside, read_json
from ledetr.errors import OutputError, SourceError
from ledetr.pictures import read_picture


class Stream:
    average_rate, guessed_rate, time_base = Fraction(25), None, Fraction(1, 25)


@pytest.mark.parametrize("error", [av.error.ArgumentError, av.error.PermissionError, av.error.InvalidDataError])
def test_whatever_a_decoder_calls_damage_is_damage(error: Any) -> None:
    """GIF's calls it "invalid argument", and others "operation not permitted"."""

    class Packet:
        def decode(self) -> list[Any]:
            raise error(1, "what FFmpeg says")

    decoder = PictureDecoder(Stream())
    assert decoder.decode(Packet()) == [] and decoder.broken == 1
    with pytest.raises(av.error.InvalidDataError):
        for _ in range(1000):
            decoder.decode(Packet())


def test_tracks_that_appear_later_do_not_end_in_an_index_error() -> None:
    class Container:
        def demux(self, streams: Any) -> Any:
            yield from streams
            raise IndexError("list index out of range")

    assert list(demuxed(Container(), ["one", "two"])) == ["one", "two"]


@pytest.mark.parametrize("name", ["4:4:4.mp4", "http:x.mkv", "concat:a|b.mp4", "100%d.mp4"])
def test_a_result_may_have_a_name_like_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    writer = VideoWriter(Path(name), width=64, height=48, time_base=Fraction(1, 25))
    for number in range(3):
        writer.write(np.full((48, 64, 3), 50 * number, np.uint8), number)
    assert writer.finish() == Path(name) and [path.name for path in tmp_path.iterdir()] == [name]
    with av.open(f"file:{name}") as container:
        assert sum(1 for _ in container.decode(video=0)) == 3


def test_a_result_with_a_name_that_is_too_long_is_said(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="too long for this disk"):
        reserve_part(choose_target(tmp_path / f"{'a' * 300}.png"))


def test_a_damaged_picture_says_nothing_besides_its_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(path)
    data = bytearray(path.read_bytes())
    at = int.from_bytes(data[4:8], "little")
    data[at + 2 + 12 * 3 + 4 : at + 2 + 12 * 3 + 8] = (2**31 - 1).to_bytes(4, "little")
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            read_picture(path)
        except SourceError as error:
            assert "a.tif" in str(error)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["x" * 5000, "x" * 256, "a/" * 600 + "a.png", "\ud800.png"])
def test_a_picture_of_a_data_set_whose_name_cannot_be(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceError, match="no name of a file") as caught:
        inside(tmp_path, name, named_by=Path("set.json"))
    assert "set.json" in str(caught.value) and len(str(caught.value)) < 400


def test_a_data_set_that_is_no_file(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe.json")
    for path in (tmp_path / "pipe.json", Path("/dev/zero"), tmp_path):
        with pytest.raises(SourceError, match="no ordinary file"):
            read_json(path)
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate((1 << 30) + 1)
    with pytest.raises(SourceError, match="larger than 1 GiB"):
        read_json(tmp_path / "huge.json")


@pytest.mark.parametrize("number", [4, 64, 169])
def test_a_part_file_that_is_damaged_is_used_or_not(tmp_path: Path, number: int) -> None:
    """Without a video track, with tags that are no text, with a track of no kind: the fuzzer's own cases."""
    from benchmarks.fuzz import Case, broken
    from benchmarks.good_files import write_video

    fragments = {"movflags": "frag_keyframe+delay_moov+default_base_moof", "frag_duration": "200000"}
    whole = write_video(tmp_path / "part.mp4", container_options=fragments)
    path = tmp_path / "case.part"
    path.write_bytes(broken(whole.read_bytes(), Case("part", number, "")))
    segment = usable_segment(path)
    assert segment is None or segment.packets[0] > 0


def test_too_little_memory_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: Any) -> Any:
        raise MemoryError

    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    monkeypatch.setattr("ledetr.pictures._rgb", none_left)
    with pytest.raises(SourceError, match=r"'a\.png': there is too little memory"):
        read_picture(tmp_path / "a.png")


def test_an_empty_table_cannot_be_taken_over(tmp_path: Path) -> None:
    (tmp_path / "old.csv").touch()
    side = CsvFile(tmp_path / "new.csv", SideHeader("a", "n", False, ()), before=(tmp_path / "old.csv", 0))
    side.abort()
    assert [path.name for path in tmp_path.iterdir()] == ["old.csv"]
