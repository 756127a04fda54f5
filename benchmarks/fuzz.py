"""Bits flipped at random in files of every kind the product reads, in a child process; nothing may crash or hang.

    python -m benchmarks.fuzz --minutes 10 --seed 0
    python -m benchmarks.fuzz --only onnx --again 4711       # the one case of that number, to see what it does

Each case is a healthy file, broken in its header, index or payload as its number says, and read by our own reader of
that kind. Right is a result, or an error of ours (LeDetrError), within 5 s and 1 GiB. A crash, a hang, and an error
that is not ours are printed with the number that makes them again; the child is then started anew.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.child import MEBIBYTE, Child, quiet_libraries
from benchmarks.good_files import (
    animation,
    coco_document,
    image_bytes,
    write_json,
    write_tiny_weights,
    write_video,
)

HANG_S, ROOM_BYTES = 5.0, 1024 * MEBIBYTE
# A model of its size is built when it is loaded; others only read.
_SLOW = {"safetensors": 20.0}
# Lists that --resume goes on with, by the kind of file. MOT is only written, never read.
LISTS = {"oldjson": "json", "oldjsonl": "jsonl", "oldcsv": "csv", "oldcoco": "coco"}


@dataclass(frozen=True, slots=True)
class Case:
    """kind: key of READERS. number: which case. again: print what happens."""

    kind: str
    number: int
    folder: str


def write_good(folder: Path) -> dict[str, bytes]:
    """A healthy file of each kind, by its kind."""
    from ledetr.chain.resume import JobFile
    from ledetr.zones import Line, Zone, ZonePlan, save_zones
    from ledetr_app.settings import Settings, save_settings

    videos: dict[str, dict[str, Any]] = {
        "mp4": {"sound": True}, "mkv": {"sound": True}, "webm": {"codec": "libvpx-vp9"}, "ts": {}, "avi": {},
    }  # fmt: skip
    for kind, form in videos.items():
        write_video(folder / f"good.{kind}", **form)
    for kind, data in (
        ("jpg", image_bytes("JPEG")), ("png", image_bytes("PNG")), ("webp", image_bytes("WEBP")),
        ("tif", image_bytes("TIFF")), ("bmp", image_bytes("BMP")), ("gif", animation("GIF")),
    ):  # fmt: skip
        (folder / f"good.{kind}").write_bytes(data)
    write_tiny_weights(folder / "good.safetensors")
    (folder / "good.onnx").write_bytes(_small_onnx())
    write_json(folder / "good.coco", coco_document())
    write_json(folder / "good.results", [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}])
    square = ((0.1, 0.1), (0.9, 0.1), (0.9, 0.9), (0.1, 0.9))
    save_zones(ZonePlan((Zone("yard", square),), (Line("door", (0.1, 0.5), (0.9, 0.5)),)), folder / "good.zones")
    save_settings(folder / "good.settings", Settings())
    job = JobFile(folder / "good.mp4", folder / "good.mp4", "settings")
    job.write([folder / "good.part.mp4"], {"json": folder / "good.part.json"})
    (folder / "good.mp4.job.json").rename(folder / "good.job")
    for kind in LISTS:
        _write_list(folder / f"good.{kind}", kind)
    fragments = {"movflags": "frag_keyframe+delay_moov+default_base_moof", "frag_duration": "200000"}
    write_video(folder / "part.mp4", container_options=fragments).rename(folder / "good.part")
    (folder / "good.list").write_text("good.png\n# a remark\ngood.jpg\n", encoding="utf-8")
    return {path.suffix[1:]: path.read_bytes() for path in folder.glob("good.*")}


def _side(kind: str, path: Path, **form: Any) -> Any:
    from ledetr.chain.side_files import SIDE_FILES, SideHeader

    return SIDE_FILES[LISTS[kind]](path, SideHeader("clip.mp4", "n", False, ("person", "car")), **form)


def _write_list(path: Path, kind: str) -> None:
    import numpy as np

    from ledetr.chain.side_files import PictureResult
    from ledetr.detections import Detections

    side = _side(kind, path)
    for index in range(6):
        boxes = np.array([[1, 2, 30 + index, 40]] * (index % 3), np.float32).reshape(-1, 4)
        scores, ids = np.full(len(boxes), 0.5, np.float32), np.zeros(len(boxes), np.int64)
        found = Detections(boxes, scores, ids, class_names=("person", "car"), category_ids=(1, 3))
        side.add(PictureResult(index, index / 25, found))
    side.finish()


def _small_onnx() -> bytes:
    """A graph of three operators and a constant, as bytes of its protocol buffer."""

    def field(number: int, data: bytes) -> bytes:
        return bytes([number << 3 | 2, len(data)]) + data

    def node(op: bytes, source: bytes, target: bytes) -> bytes:
        return field(1, field(1, source) + field(2, target) + field(4, op))

    constant = field(5, b"\x08\x01\x10\x01" + field(8, b"count") + field(9, b"\0\0\xa0\x42"))
    graph = node(b"Relu", b"images", b"a") + node(b"TopK", b"a", b"b") + node(b"Identity", b"b", b"labels") + constant
    graph += field(12, field(1, b"labels"))
    assert len(graph) < 128  # one byte of length
    return b"\x08\x08" + field(7, graph) + field(14, field(1, b"key") + field(2, b"value"))


def broken(data: bytes, case: Case) -> bytes:
    """The same file with one of five kinds of damage, the same for the same case; whole below number 0."""
    if case.number < 0:
        return data
    chance = random.Random(f"{case.kind} {case.number}")
    result = bytearray(data)
    part = chance.choice(("header", "index", "payload"))
    edge = min(len(result), 300)
    low, high = {"header": (0, edge), "index": (len(result) - edge, len(result)), "payload": (0, len(result))}[part]
    what = chance.choice(("bits", "bits", "bits", "bytes", "cut", "doubled", "number"))
    for _ in range(chance.choice((1, 1, 2, 5, 20, 200))):
        at = chance.randrange(low, max(low + 1, min(high, len(result))))
        if what == "bits":
            result[at] ^= 1 << chance.randrange(8)
        elif what == "bytes":
            result[at] = chance.choice((0, 255, 127, 128, chance.randrange(256)))
        elif what == "number":  # lengths and counts, in both orders of their bytes
            value = chance.choice((2**31 - 1, 2**32 - 1, 2**31, 2**63 - 1, 0, 1 << chance.randrange(32)))
            result[at : at + 4] = (value & 0xFFFFFFFF).to_bytes(4, chance.choice(("big", "little")))
    if what == "cut":
        del result[chance.randrange(len(result)) :]
    elif what == "doubled":
        at, length = chance.randrange(len(result)), chance.randrange(1, 200)
        result[at:at] = result[at : at + length] * chance.choice((1, 3, 50))
    return bytes(result)


# How each kind is read. Each of these is what the product itself calls.


def _read_video(path: Path) -> object:
    """As an export reads it, and as the window plays it: pictures, sound, a jump, the end."""
    from ledetr.chain.clock import MonotonicClock
    from ledetr.chain.sources import VideoSpec
    from ledetr.chain.video_file import open_video_file
    from ledetr.chain.video_reader import Cut, VideoReader
    from ledetr.errors import SourceError

    count = 0
    try:
        with VideoReader(path, cut=Cut(max_frames=100), stopped=threading.Event()) as reader:
            count = sum(1 for _ in reader.items(reader.container.streams.audio))
    except SourceError:
        pass
    source = open_video_file(VideoSpec(path), clock=MonotonicClock())
    try:
        for _ in range(40):
            if source.read() is None:
                break
        source.seek(0.5)
        source.read()
    finally:
        source.close()
    return count


def _read_picture(path: Path) -> object:
    from ledetr.pictures import read_picture

    return read_picture(path).shape


def _read_weights(path: Path) -> object:
    """With a hash that is right, so that what is behind it is reached too."""
    from ledetr.weights import load_model

    return len(load_model(_with_right_hash(path))[0].state_dict())


def _with_right_hash(path: Path) -> Path:
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    if random.Random(data).random() < 0.5 or not 2 <= length <= len(data) - 8:
        return path
    try:
        header = json.loads(data[8 : 8 + length])
        from hashlib import sha256

        header["__metadata__"]["sha256"] = sha256(data[8 + length :]).hexdigest()
        text = json.dumps(header).encode()
    except (ValueError, KeyError, TypeError):
        return path
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    return path


def _read_onnx(path: Path) -> object:
    from ledetr.backends.onnx_file import check_seal, class_count, read_onnx

    file = read_onnx(path)
    if "ledetr_format" in file.metadata:
        check_seal(file)
    return class_count(file), len(file.nodes)


def _read_coco(path: Path) -> object:
    from ledetr.coco_file import read_coco

    return len(read_coco(path).truths)


def _read_results(path: Path) -> object:
    from ledetr.coco_file import read_coco
    from ledetr.predictions import read_predictions

    return len(read_predictions(path, read_coco(write_json(path.with_name("set.json"), coco_document()))))


def _read_settings(path: Path) -> object:
    from ledetr_app.settings import load_settings

    return load_settings(path).problem


def _read_zones(path: Path) -> object:
    from ledetr.zones import load_zones

    return load_zones(path).to_json()


def _read_job(path: Path) -> object:
    from ledetr.chain.resume import JobFile

    good = path.with_name("good.mp4")
    shutil.copy(good, path.with_name("good.part.mp4"))
    job = JobFile(good, good, "settings")
    path.replace(job.path)
    return job.past()


def _read_part(path: Path) -> object:
    from ledetr.chain.resume import usable_segment

    return usable_segment(path)


def _read_side(path: Path) -> object:
    """As --resume does: take over what an earlier run wrote of the first pictures."""
    side = _side(path.suffix[1:], path.with_name("new"), before=(path, 4))
    side.abort()
    return "taken over"


def _read_list(path: Path) -> object:
    from ledetr.chain.images import list_images
    from ledetr.chain.sources import ListSpec

    return len(list_images(ListSpec(path)))


READERS: dict[str, Callable[[Path], object]] = {
    **dict.fromkeys(("mp4", "mkv", "webm", "ts", "avi", "gif"), _read_video),
    **dict.fromkeys(("jpg", "png", "webp", "tif", "bmp"), _read_picture),
    "safetensors": _read_weights, "onnx": _read_onnx, "coco": _read_coco, "results": _read_results,
    **dict.fromkeys(LISTS, _read_side), "settings": _read_settings, "zones": _read_zones, "job": _read_job,
    "part": _read_part, "list": _read_list,
}  # fmt: skip


def prepare() -> Callable[[Case], str]:
    """In the child: gives for each case "read", "refused", or the error that is not ours."""
    quiet_libraries()
    import av  # noqa: F401 - loaded before the limit is set
    import torch

    import ledetr.chain.video_file
    import ledetr.predictions
    import ledetr.weights  # noqa: F401
    import ledetr_app.settings  # noqa: F401
    from ledetr.errors import LeDetrError

    torch.set_num_threads(1)
    good: dict[str, dict[str, bytes]] = {}

    def run(case: Case) -> str:
        folder = Path(case.folder)
        if case.folder not in good:
            good[case.folder] = {path.suffix[1:]: path.read_bytes() for path in folder.glob("good.*")}
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / f"case.{case.kind}"
            path.write_bytes(broken(good[case.folder][case.kind], case))
            if case.kind == "job":
                shutil.copy2(folder / "good.mp4", name)  # with its time, by which the job knows it
            os.chdir(name)
            try:
                READERS[case.kind](path)
            except LeDetrError as error:
                return "refused" if "\n" not in str(error) else f"two lines: {error}"
            except MemoryError:
                return "MemoryError"
            except Exception as error:
                return f"{type(error).__name__}: {str(error)[:200]}"
            finally:
                os.chdir("/")
            return "read"

    return run


def fuzz(kinds: list[str], seconds: float, seed: int) -> tuple[Counter[tuple[str, str]], list[str]]:
    """Cases in turn until the time is over: how many ended how, by kind, and a line for each that must not be."""
    counts: Counter[tuple[str, str]] = Counter()
    bad: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        write_good(Path(folder))
        children = {limit: Child(prepare, room_bytes=ROOM_BYTES, hang_s=limit) for limit in {HANG_S, *_SLOW.values()}}
        try:
            for child in children.values():
                child.start()
            end, number = time.monotonic() + seconds, seed * 1_000_000
            while time.monotonic() < end:
                for kind in kinds:
                    answer = children[_SLOW.get(kind, HANG_S)].ask(Case(kind, number, folder))
                    ended = answer.died or str(answer.value)
                    good = ended in ("read", "refused")
                    counts[kind, ended if good else "broke"] += 1
                    if not good:
                        bad.append(f"{kind} {number}: {ended}")
                        print(f"FAIL {bad[-1]}", file=sys.stderr, flush=True)
                number += 1
        finally:
            for child in children.values():
                child.__exit__()
    return counts, bad


def again(kind: str, number: int) -> str:
    """One case in this very process, with its traceback."""
    with tempfile.TemporaryDirectory() as folder:
        good = write_good(Path(folder))
        case = Case(kind, number, folder)
        path = Path(folder) / f"case.{kind}"
        path.write_bytes(broken(good[kind], case))
        return repr(READERS[kind](path))


def main() -> int:
    """Exit code 1 where something broke."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0, help="the first number is a million times this")
    parser.add_argument("--only", nargs="+", choices=list(READERS), default=list(READERS))
    parser.add_argument("--again", type=int, metavar="NUMBER", help="this case of the first kind, in this process")
    args = parser.parse_args()
    if args.again is not None:
        print(again(args.only[0], args.again))
        return 0
    counts, bad = fuzz(args.only, 60 * args.minutes, args.seed)
    print("| kind | cases | read | refused | broke |\n| --- | --- | --- | --- | --- |")
    for kind in args.only:
        read, refused, broke = (counts[kind, ended] for ended in ("read", "refused", "broke"))
        print(f"| {kind} | {read + refused + broke} | {read} | {refused} | {broke} |")
    print(f"\n{counts.total()} cases, seed {args.seed}.")
    for line in bad:
        print(f"FAIL {line}")
    print(f"{len(bad)} failures." if bad else "No crash, no hang, no error that is not ours.")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
