"""How many pictures a second: the model at batch 1 to 32, and a whole file beside each of its stages alone.

    python benchmarks/throughput.py --json out/throughput.json
    python benchmarks/throughput.py --clip out/clip_720p25.mp4 --json out/throughput.json   # (benchmarks/make_clip.py)

The curve is OpenVINO's, with its latency hint (one request at a time) and its throughput hint (as many at once as it
advises). The file is read, detected on, drawn on, encoded and written as `ledetr detect` does it; the stages alone are
decoding and conversion, detection on decoded pictures, and encoding of decoded pictures. Each stage alone has all
cores; together they share them, so the sum of their times is printed too.
"""

import argparse
import json
import shlex
import sys
import tempfile
import threading
import time
from fractions import Fraction
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from ledetr.backends.deploy import deploy_module, example_inputs, output_names
from ledetr.backends.openvino_runtime import convert_module, openvino
from ledetr.chain.recorder import VideoWriter
from ledetr.chain.video import process_video
from ledetr.chain.video_reader import Cut, Picture, VideoReader
from ledetr.cli.bench import describe_machine, describe_versions
from ledetr.detector import Detector
from ledetr.weights import find_weights, load_model

BATCHES = (1, 2, 4, 8, 16, 32)
PRECISIONS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
KEPT_PICTURES = 25  # decoded pictures that the later stages are fed with, over and over


def curve(model: str, imgsz: int | None, precision: str | None, seconds: float) -> list[dict[str, Any]]:
    """Pictures a second and milliseconds a picture at each batch and hint; each measured for about `seconds`."""
    network, info = load_model(find_weights(model))
    input_hw = info.input_hw if imgsz is None else (imgsz, imgsz)
    module = deploy_module(network.fused(), ranked=False)
    inputs = example_inputs(input_hw, ranked=False)
    ir = convert_module(module, inputs, output_names(ranked=False), dynamic_batch=True)
    rows = []
    for batch in BATCHES:
        ir.reshape([batch, *input_hw, 3])
        pixels = np.random.default_rng(batch).integers(0, 256, (batch, *input_hw, 3), dtype=np.uint8)
        for hint in ("LATENCY", "THROUGHPUT"):
            options = {"PERFORMANCE_HINT": hint}
            if precision is not None:
                options["INFERENCE_PRECISION_HINT"] = PRECISIONS[precision]
            compiled = openvino.Core().compile_model(ir, "CPU", options)
            requests = 1 if hint == "LATENCY" else compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
            fps = batch * _runs_a_second(compiled, pixels, requests, seconds)
            rows.append({"batch": batch, "hint": hint, "requests": requests, "pictures_s": round(fps, 2)})
            print(f"batch {batch:2}, {hint:10} with {requests} at once: {fps:7.1f} pictures a second", flush=True)
    return rows


def _runs_a_second(compiled: Any, pixels: np.ndarray, requests: int, seconds: float) -> float:
    queue = openvino.AsyncInferQueue(compiled, requests)
    for _ in range(2 * requests):  # warm-up
        queue.start_async([pixels], share_inputs=True)
    queue.wait_all()
    runs, start = 0, time.perf_counter()
    while runs < 2 * requests or time.perf_counter() - start < seconds:
        queue.start_async([pixels], share_inputs=True)
        runs += 1
    queue.wait_all()
    return runs / (time.perf_counter() - start)


def stages(clip: Path, model: str, precision: str, rounds: int) -> dict[str, Any]:
    """Pictures a second of each stage alone, and of all together; medians of rounds that take turns."""
    measured: dict[str, list[float]] = {"decode": [], "infer": [], "encode": [], "together": []}
    with Detector.load(model, precision=precision) as detector, tempfile.TemporaryDirectory() as folder:
        detector.warm_up()
        kept: list[Picture] = []
        for number in range(rounds):
            count, spent_s = _decode_only(clip, kept)
            measured["decode"].append(count / spent_s)
            measured["infer"].append(count / _infer_only(detector, kept, count))
            measured["encode"].append(count / _encode_only(clip, kept, count, Path(folder) / f"encoded{number}.mp4"))
            report = process_video(clip, Path(folder) / f"whole{number}.mp4", detector)
            measured["together"].append(report.fps)
        info = detector.info
    medians = {name: float(np.median(values)) for name, values in measured.items()}
    alone = {name: fps for name, fps in medians.items() if name != "together"}
    slowest = min(alone, key=lambda name: alone[name])
    one_after_other = 1 / sum(1 / fps for fps in alone.values())
    print(f"{clip.name}, {model} on {info.name} in {info.precision}, pictures a second:")
    for name, fps in medians.items():
        print(f"  {name:9} {fps:7.1f}")
    ratio = medians["together"] / alone[slowest]
    print(f"  together / slowest alone ({slowest}): {ratio:.2f}; one after the other it would be {one_after_other:.1f}")
    return {
        "clip": clip.name,
        "backend": info.name,
        "precision": info.precision,
        "fps": medians,
        "slowest": slowest,
        "ratio_to_slowest": ratio,
        "one_after_the_other_fps": one_after_other,
    }


def _decode_only(clip: Path, kept: list[Picture]) -> tuple[int, float]:
    """Pictures and seconds; the first pictures are kept."""
    count, start = 0, time.perf_counter()
    with VideoReader(clip, cut=Cut(), stopped=threading.Event()) as reader:
        for item in reader.items():
            if isinstance(item, Picture):
                count += 1
                if len(kept) < KEPT_PICTURES:
                    kept.append(item)
    return count, time.perf_counter() - start


def _infer_only(detector: Detector, kept: list[Picture], count: int) -> float:
    start = time.perf_counter()
    for picture in islice(cycle(kept), count):
        detector.detect_frame(picture.rgb)
    return time.perf_counter() - start


def _encode_only(clip: Path, kept: list[Picture], count: int, path: Path) -> float:
    start = time.perf_counter()
    with VideoReader(clip, cut=Cut(), stopped=threading.Event()) as reader:
        width, height = reader.size_wh
        rate = reader.rate or Fraction(25)
    writer = VideoWriter(path, width=width, height=height, time_base=1 / rate, rate=rate)
    for number, picture in enumerate(islice(cycle(kept), count)):
        writer.write(picture.rgb, number, 1)
    writer.finish()
    return time.perf_counter() - start


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", default="n")
    parser.add_argument("--imgsz", type=int)
    parser.add_argument("--precision", default="auto", choices=["auto", *PRECISIONS])
    parser.add_argument("--seconds", type=float, default=5.0, help="for each point of the curve")
    parser.add_argument("--clip", type=Path, help="a video; without it the curve alone")
    parser.add_argument("--rounds", type=int, default=3, help="of the file")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    document: dict[str, Any] = {"command": shlex.join(["python", *sys.argv]), "model": args.model}
    document |= {"machine": describe_machine(), "versions": describe_versions()}
    document["curve"] = curve(
        args.model, args.imgsz, None if args.precision == "auto" else args.precision, args.seconds
    )
    if args.clip is not None:
        document["file"] = stages(args.clip, args.model, args.precision, args.rounds)
    if args.json is not None:
        args.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
