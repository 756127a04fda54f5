"""Where OpenVINO spends the time: each executed layer's milliseconds and, of convolutions and products, its GFLOP/s.

    python benchmarks/openvino_layers.py --models n,d-fine-n --imgsz 416 --precision fp32 --runs 100 --top 30

Models are scales, weights files, plain .xml files of `ledetr export`, or peers of `ledetr bench --peers`. They take
turns run by run. A layer's figure is the median over the runs, as OpenVINO's own counters give it. Layers far below the
rate of the best ones are where a graph can be reshaped; what has no rate (layout changes, softmax, sampling) is pure
cost.
"""

import argparse
import json
import shlex
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ledetr.backends import random_network
from ledetr.backends.base import ModelSource
from ledetr.backends.openvino_runtime import convert, openvino
from ledetr.cli.bench import describe_machine, describe_versions
from ledetr.cli.peers import D_FINE, PeerForProcessor, peer_network
from ledetr.model.config import VARIANTS
from ledetr.model.ledetr import LeDetr
from ledetr.model.processor import ForProcessor
from ledetr.weights import find_weights, load_model

HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}


@dataclass
class Layers:
    """One compiled model and the times of its layers: (type, implementation, name) to milliseconds of each run."""

    name: str
    request: Any
    flops: dict[str, float]
    pixels: np.ndarray
    ms: dict[tuple[str, str, str], list[float]] = field(default_factory=lambda: defaultdict(list))

    def run(self, *, counted: bool) -> None:
        """Once; the counters are kept unless this is a warm-up."""
        self.request.infer([self.pixels], share_inputs=True)
        if not counted:
            return
        for info in self.request.profiling_info:
            if info.status == info.status.EXECUTED:
                milliseconds = 1000 * info.real_time.total_seconds()
                self.ms[info.node_type, info.exec_type, info.node_name].append(milliseconds)

    def rows(self) -> list[dict[str, Any]]:
        """Layers, slowest first."""
        rows = []
        for (kind, implementation, name), ms in self.ms.items():
            median = float(np.median(ms))
            flops = self.flops.get(name)
            rate = None if flops is None or median == 0 else round(flops / median / 1e6, 1)
            row = {"type": kind, "implementation": implementation, "name": name, "ms": median, "gflops_s": rate}
            rows.append(row)
        return sorted(rows, key=lambda row: -row["ms"])


def network_of(model: str, input_hw: tuple[int, int]) -> torch.nn.Module:
    """Deploy form of a scale (random weights where it has none), of a weights file, or of a peer."""
    if model in D_FINE or model == "rt-detrv2-r50":
        return peer_network(model, input_hw)
    if model in VARIANTS and model != "n":
        return random_network(VARIANTS[model]()).fused()
    return load_model(find_weights(model))[0].fused()


def open_layers(model: str, input_hw: tuple[int, int], precision: str, threads: int | None) -> Layers:
    """Converted as `ledetr bench` converts it, or as the file is; compiled with counters."""
    core = openvino.Core()
    graph = core.read_model(model) if model.endswith(".xml") else converted(model, input_hw)
    graph.reshape([1, *list(graph.inputs[0].partial_shape)[1:]])
    options = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1", "PERF_COUNT": True}
    options["INFERENCE_PRECISION_HINT"] = HINTS[precision]
    if threads is not None:
        options["INFERENCE_NUM_THREADS"] = threads
    compiled = core.compile_model(graph, "CPU", options)
    shape = [int(side) for side in compiled.inputs[0].shape]
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return Layers(model, compiled.create_infer_request(), _flops(graph, compiled), pixels)


def converted(model: str, input_hw: tuple[int, int]) -> Any:
    """An openvino.Model in the form for processors."""
    network = network_of(model, input_hw)
    graph = ForProcessor(network, input_hw) if isinstance(network, LeDetr) else PeerForProcessor(network)

    return convert(source_of(network, graph.eval(), input_hw))


def source_of(network: torch.nn.Module, graph: torch.nn.Module | None, input_hw: tuple[int, int]) -> ModelSource:
    """A network as the OpenVINO engine takes it, in the form `graph` where given; nothing is kept in the cache."""

    def no_onnx() -> bytes:
        raise RuntimeError("the OpenVINO engine converts from torch, not through ONNX")

    return ModelSource(
        key=None,
        input_hw=input_hw,
        build=lambda: network,
        example=lambda: torch.zeros((1, 3, *input_hw), dtype=torch.uint8),
        export_onnx=no_onnx,
        build_graph=None if graph is None else lambda: graph,
    )


def _flops(converted: Any, compiled: Any) -> dict[str, float]:
    """Operations (a multiply and an add are two) of each executed layer that convolves or multiplies matrices."""
    of_source = {op.get_friendly_name(): _flops_of(op) for op in converted.get_ops()}
    found = {}
    for node in compiled.get_runtime_model().get_ops():
        info = node.get_rt_info()
        names = str(info["originalLayersNames"].value) if "originalLayersNames" in info else ""
        total = sum(of_source.get(name) or 0 for name in names.split(","))
        if total:
            found[node.get_friendly_name()] = total
    return found


def _flops_of(op: Any) -> float | None:
    kind = op.get_type_name()
    if kind not in ("Convolution", "GroupConvolution", "MatMul"):
        return None
    out = float(np.prod([int(side) for side in op.output(0).shape]))
    weight = [int(side) for side in op.input(1).get_shape()]
    if kind == "MatMul":
        return 2 * out * weight[-1 if op.get_attributes()["transpose_b"] else -2]
    return 2 * out * float(np.prod(weight[1 if kind == "Convolution" else 2 :]))


def by_type(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sums over layers of one type and implementation."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["type"], row["implementation"]].append(row)
    total = sum(row["ms"] for row in rows)
    sums = []
    for (kind, implementation), members in groups.items():
        ms = sum(row["ms"] for row in members)
        layers = len(members)
        sums.append({"type": kind, "implementation": implementation, "layers": layers, "ms": ms, "share": ms / total})
    return sorted(sums, key=lambda row: -row["ms"])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--models", default="n")
    parser.add_argument("--imgsz", type=int, default=416)
    parser.add_argument("--precision", default="fp32", choices=list(HINTS))
    parser.add_argument("--threads", type=int)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--top", type=int, default=25, help="layers to list")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    size = (args.imgsz, args.imgsz)
    models = [open_layers(name, size, args.precision, args.threads) for name in args.models.split(",")]
    for number in range(args.runs + 5):
        for model in models:
            model.run(counted=number >= 5)
    document: dict[str, Any] = {"command": shlex.join(["python", *sys.argv]), "machine": describe_machine()}
    document |= {"versions": describe_versions(), "results": []}
    for model in models:
        rows = model.rows()
        document["results"].append({"model": model.name, "types": by_type(rows), "layers": rows})
        print(
            f"\n{model.name} at {args.imgsz}, {args.precision}: {sum(row['ms'] for row in rows):.2f} ms in all layers"
        )
        for row in by_type(rows):
            print(
                f"  {row['ms']:8.3f} ms {row['share']:6.1%}  {row['layers']:3} x {row['type']} {row['implementation']}"
            )
        print(f"  the {args.top} slowest:")
        for row in rows[: args.top]:
            rate = "" if row["gflops_s"] is None else f"{row['gflops_s']:7.1f} GFLOP/s"
            print(f"  {row['ms']:8.3f} ms {rate:15} {row['type']:18} {row['name']}")
    if args.json is not None:
        args.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
