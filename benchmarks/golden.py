"""Golden clips through the whole of process_video, judged by another build of FFmpeg, as one table.

    python -m benchmarks.golden                    # clips made here, one for each way in which videos differ
    python -m benchmarks.golden --more FOLDER      # and the videos of a folder

The clips are those of tests/ledetr/chain/test_video.py. What a clip and its result hold is read by ffprobe, and the
result is decoded by ffmpeg without a complaint, where both are there: not the build inside PyAV, which wrote them. Else
OpenCV's build counts and times the pictures, and the rest is said not to be judged. Exit code 1 where a row fails.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from importlib import util
from pathlib import Path
from typing import Any

import av
import cv2

from ledetr.chain.video import process_video

ROOT = Path(__file__).parents[1]
MOST_BYTES = 1.5  # times the source
SMALL_BYTES = 64 * 1024  # below, headers weigh more than pictures, so size says nothing
OPENCV_ROUNDING_S = 0.001


@dataclass(frozen=True, slots=True)
class Facts:
    """What a judge finds in a file. pictures: times. others: of each further track, time and hash of every packet.

    tags: matrix, range, primaries, transfer; turned: whether players are told to turn it. None: not judged.
    """

    pictures: tuple[Fraction, ...]
    others: tuple[tuple[tuple[Fraction, str], ...], ...] | None
    tags: tuple[str, ...] | None
    turned: bool | None
    complaint: str = ""


def facts_of_ffprobe(path: Path) -> Facts:
    """As the ffprobe on the path sees it; complaint: what ffmpeg says while it decodes."""
    probed = json.loads(_output("ffprobe", "-v", "error", "-show_streams", "-of", "json", path))["streams"]
    video = next(stream for stream in probed if stream["codec_type"] == "video")
    shown = json.loads(_output("ffprobe", "-v", "error", "-select_streams", f"{video['index']}",
                               "-show_entries", "frame=pts", "-of", "json", path))["frames"]  # fmt: skip
    pictures = tuple(int(frame["pts"]) * Fraction(video["time_base"]) for frame in shown if "pts" in frame)
    others = [_packets(path, stream) for stream in probed if stream["codec_type"] in ("audio", "subtitle")]
    tags = tuple(video.get(f"color_{name}", "unknown") for name in ("space", "range", "primaries", "transfer"))
    turned = any("displaymatrix" in side for side in video.get("side_data_list", ()))
    decoded = subprocess.run(
        ["ffmpeg", "-v", "error", "-nostdin", "-xerror", "-i", str(path), "-fps_mode", "passthrough",
         "-enc_time_base", "1:90000",
         "-f", "null", "-"],
        capture_output=True, text=True,
    )  # fmt: skip
    return Facts(pictures, tuple(others), tags, turned, decoded.stderr.strip())


def _packets(path: Path, stream: dict[str, Any]) -> tuple[tuple[Fraction, str], ...]:
    """Time and hash of every packet; AAC without the header that MPEG-TS puts on each and MP4 has no place for."""
    bare = ("-bsf:a", "aac_adtstoasc") if stream["codec_name"] == "aac" else ()
    listed = _output("ffmpeg", "-v", "error", "-nostdin", "-copyts", "-i", path, "-map", f"0:{stream['index']}", "-c",
                     "copy", *bare, "-avoid_negative_ts", "disabled", "-f", "framehash", "-hash", "sha256",
                     "-")  # fmt: skip
    lines = listed.decode().splitlines()
    time_base = next(Fraction(line.partition(": ")[2]) for line in lines if line.startswith("#tb 0: "))
    cells = [[cell.strip() for cell in line.split(",")] for line in lines if line and not line.startswith("#")]
    return tuple((int(pts) * time_base, data) for _, _, pts, _, size, data, *_ in cells if int(size))


def _output(*words: str | Path) -> bytes:
    return subprocess.run([str(word) for word in words], capture_output=True, check=True).stdout


def facts_of_opencv(path: Path) -> Facts:
    """As OpenCV's own FFmpeg sees it: pictures alone, with times to the microsecond."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    pictures = []
    while capture.grab():
        pictures.append(Fraction(round(1000 * capture.get(cv2.CAP_PROP_POS_MSEC)), 1_000_000))
    capture.release()
    return Facts(tuple(pictures), None, None, None)


@dataclass(frozen=True, slots=True)
class Row:
    """One clip. checks: by column, yes, no, or a word where it does not apply."""

    name: str
    pictures: str
    checks: dict[str, bool | str]
    size: float
    size_counts: bool

    @property
    def good(self) -> bool:
        """Whether nothing is wrong."""
        small = not self.size_counts or self.size <= MOST_BYTES
        return small and all(check is not False for check in self.checks.values())


def judged(name: str, source: Path, result: Path, seen: Facts, made: Facts, *, rounding_s: float = 0.0) -> Row:
    """Compare what is in the result with what is in the source; times may differ by one shift of all tracks alike."""
    shift = made.pictures[0] - seen.pictures[0] if made.pictures and seen.pictures else Fraction(0)
    checks: dict[str, bool | str] = {
        "same times": len(seen.pictures) == len(made.pictures)
        and all(abs(new - old - shift) <= rounding_s for old, new in zip(seen.pictures, made.pictures, strict=True)),
        "same packets": "not judged",
        "same tags": "not judged" if made.tags is None else made.tags == seen.tags,
        "upright": "not judged" if made.turned is None else not made.turned,
        "decodes": made.complaint == "",
    }
    if made.others is not None and seen.others is not None:
        moved = tuple(tuple((time + shift, data) for time, data in track) for track in seen.others)
        checks["same packets"] = made.others == moved if moved else "no sound"
    ratio = result.stat().st_size / source.stat().st_size
    return Row(
        name, f"{len(made.pictures)} of {len(seen.pictures)}", checks, ratio, source.stat().st_size >= SMALL_BYTES
    )


def golden_clips(tests: Any) -> dict[str, Callable[[Path], Path]]:
    """Name to a function that makes the clip in a folder."""
    clips: dict[str, Callable[[Path], Path]] = {name: golden.make for name, golden in tests.GOLDEN.items()}
    for left_deg in (0, 90, 180, 270):
        for mirrored in (False, True):
            name = f"turned by {left_deg}{', mirrored' if mirrored else ''}"
            clips[name] = tests.Golden(pts=range(0, 10 * 512, 512), turn=(left_deg, mirrored), sound_hz=[440]).make
    clips["subtitles"] = lambda folder: tests.with_subtitles(folder, tests.LINES)
    clips["starts before zero"] = tests.starts_before_zero
    return clips


def main(words: Sequence[str] | None = None) -> int:
    """Exit code 0 where every row is good."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--more", type=Path, help="a folder of videos, judged too")
    parser.add_argument("--only", help="clips whose name has this word")
    args = parser.parse_args(words)
    has_ffmpeg = bool(shutil.which("ffmpeg") and shutil.which("ffprobe"))
    facts_of = facts_of_ffprobe if has_ffmpeg else facts_of_opencv
    tests = _clips_of_the_tests()
    rows = []
    with tempfile.TemporaryDirectory() as folder_name:
        for number, (name, make) in enumerate(golden_clips(tests).items()):
            if args.only is None or args.only in name:
                folder = Path(folder_name) / f"{number}"
                folder.mkdir()
                rows.append(_through(name, make(folder), folder, tests.TwoBoxes(), facts_of))
        for source in sorted(args.more.iterdir()) if args.more else ():
            if source.is_file():
                rows.append(_through(source.name, source, Path(folder_name), tests.TwoBoxes(), facts_of))
    _print_table(rows, _judge(has_ffmpeg))
    return 0 if all(row.good for row in rows) else 1


def _through(name: str, source: Path, folder: Path, detector: Any, facts_of: Callable[[Path], Facts]) -> Row:
    # Subtitles of Matroska stay as they are in Matroska alone.
    result = folder / f"{source.stem} result{'.mkv' if name == 'subtitles' else '.mp4'}"
    process_video(source, result, detector, overwrite=True)
    rounding_s = OPENCV_ROUNDING_S if facts_of is facts_of_opencv else 0.0
    return judged(name, source, result, facts_of(source), facts_of(result), rounding_s=rounding_s)


def _judge(has_ffmpeg: bool) -> str:
    ours = ".".join(str(part) for part in av.library_versions["libavcodec"])
    if has_ffmpeg:
        other = _output("ffprobe", "-version").decode().splitlines()[0].partition(" Copyright")[0]
    else:
        build = cv2.getBuildInformation().split("avcodec:")[-1].splitlines()[0].strip()
        other = f"OpenCV {cv2.__version__}, libavcodec {build}"
    return f"Written by libavcodec {ours}; judged by {other}."


def _print_table(rows: Sequence[Row], judge: str) -> None:
    columns = list(rows[0].checks) if rows else []
    print(f"{judge}\n\n| clip | pictures | {' | '.join(columns)} | size | verdict |")
    print("| --- " * (len(columns) + 4) + "|")
    for row in rows:
        checks = [check if isinstance(check, str) else ("yes" if check else "NO") for check in
                  row.checks.values()]  # fmt: skip
        size = f"{row.size:.2f} x" if row.size_counts else f"{row.size:.2f} x (small)"
        print(f"| {row.name} | {row.pictures} | {' | '.join(checks)} | {size} | {'pass' if row.good else 'FAIL'} |")
    print(f"\n{sum(row.good for row in rows)} of {len(rows)} clips pass.")


def _clips_of_the_tests() -> Any:
    spec = util.spec_from_file_location("test_video", ROOT / "tests/ledetr/chain/test_video.py")
    assert spec is not None and spec.loader is not None  # a file of ours
    module = util.module_from_spec(spec)
    sys.modules["test_video"] = module  # its dataclasses ask for it
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    sys.exit(main())
