"""The same network as graphs of several forms in OpenVINO: what each form costs, and whether the function is the same.

    python benchmarks/graph_forms.py --models n --imgsz 416,640 --runs 100
    python benchmarks/graph_forms.py --models n --imgsz 640 --strips 1,2,4,8 --precision bf16

Forms: "plain" (the deploy form as it is) and the form for processors (model/processor.py), with the large maps of the
backbone in strips of so many MiB; a map is large from twice that on. They take turns run by run. cpu ms is processor
time of the whole process, which says something on a busy machine too. The difference is the largest of a box, in torch.
"""

import argparse
import json
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from openvino_layers import source_of  # beside this program; both are run as files

from ledetr.backends import random_network
from ledetr.backends.openvino_runtime import convert, openvino
from ledetr.cli.bench import describe_machine, describe_versions
from ledetr.model import strips
from ledetr.model.config import VARIANTS
from ledetr.model.ledetr import LeDetr
from ledetr.model.processor import ForProcessor
from ledetr.weights import find_weights, load_model

HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
MEBIBYTE = 2**20


def network_of(model: str) -> LeDetr:
    """The deploy form; random weights for scales that have none."""
    if model in VARIANTS and model != "n":
        return random_network(VARIANTS[model]()).fused()
    return load_model(find_weights(model))[0].fused()


def form_of(model: str, size_hw: tuple[int, int], strip_mib: float) -> ForProcessor:
    """The form for processors, with strips of this size."""
    strips.STRIP_BYTES = round(strip_mib * MEBIBYTE)
    strips.LARGE_BYTES = 2 * strips.STRIP_BYTES
    return ForProcessor(network_of(model), size_hw).eval()


def difference(form: ForProcessor, plain: LeDetr, size_hw: tuple[int, int]) -> float:
    """Largest difference of a box, in 0..1, between the rows of one answer and the nearest of the other."""
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, *size_hw, 3), dtype=np.uint8))
    with torch.inference_mode():
        found, wanted = form(pixels)[1][0], plain(pixels.permute(0, 3, 1, 2))[1][0]
    return float((found[:, None] - wanted[None]).abs().amax(-1).amin(1).max())


def compiled_of(
    plain: LeDetr, form: ForProcessor | None, size_hw: tuple[int, int], precision: str, threads: int | None
) -> Any:
    """Converted and compiled as the engine does."""
    options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1"}
    options["INFERENCE_PRECISION_HINT"] = HINTS[precision]
    if threads is not None:
        options["INFERENCE_NUM_THREADS"] = threads
    return openvino.Core().compile_model(convert(source_of(plain, form, size_hw)), "CPU", options)


def measured(requests: dict[str, Any], pixels: np.ndarray, runs: int) -> dict[str, dict[str, float]]:
    """Wall and processor milliseconds of each form, in turns."""
    wall: dict[str, list[float]] = {name: [] for name in requests}
    cpu: dict[str, list[float]] = {name: [] for name in requests}
    for number in range(runs + 3):
        for name, request in requests.items():
            start, start_cpu = time.perf_counter(), time.process_time()
            request.infer([pixels], share_inputs=True)
            if number >= 3:
                wall[name].append(1000 * (time.perf_counter() - start))
                cpu[name].append(1000 * (time.process_time() - start_cpu))
    return {
        name: {
            "median_ms": float(np.median(wall[name])),
            "min_ms": min(wall[name]),
            "cpu_ms": float(np.median(cpu[name])),
        }
        for name in requests
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--models", default="n")
    parser.add_argument("--imgsz", default="416")
    parser.add_argument("--strips", default="1,2,4", help="sizes of a strip in MiB")
    parser.add_argument("--precision", default="fp32", choices=list(HINTS))
    parser.add_argument("--threads", type=int)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for model in args.models.split(","):
        for side in (int(word) for word in args.imgsz.split(",")):
            size_hw = (side, side)
            plain = network_of(model)
            words = args.strips.split(",")
            forms = {f"strips of {word} MiB": form_of(model, size_hw, float(word)) for word in words}
            pixels = np.random.default_rng(0).integers(0, 256, (1, *size_hw, 3), dtype=np.uint8)
            differences = {name: difference(form, plain, size_hw) for name, form in forms.items()}
            requests = {
                name: compiled_of(plain, form, size_hw, args.precision, args.threads).create_infer_request()
                for name, form in [("plain", None), *forms.items()]
            }
            times = measured(requests, pixels, args.runs)
            for name, row in times.items():
                ratio = row["median_ms"] / times["plain"]["median_ms"]
                rows.append({"model": model, "imgsz": side, "form": name, "ratio": ratio, **row})
                rows[-1]["difference"] = differences.get(name, 0.0)
                print(
                    f"{model} {side} {args.precision} {name:16} median {row['median_ms']:8.2f} ms, least "
                    f"{row['min_ms']:8.2f}, cpu {row['cpu_ms']:8.2f}, {ratio:.3f} of plain, differs by "
                    f"{rows[-1]['difference']:.1e}",
                    flush=True,
                )
    if args.json is not None:
        document = {"command": shlex.join(["python", *sys.argv]), "machine": describe_machine()}
        document |= {"versions": describe_versions(), "precision": args.precision, "results": rows}
        args.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
