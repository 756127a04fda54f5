"""How far exported ONNX files are from torch in ONNX Runtime and in OpenVINO: every scale, two sizes, batch 1, 2 and 7.

    python benchmarks/export_parity.py --models n,m,l,x --json out/export_parity.json

Weights are random and of a size that lets pictures make a difference, so that no error hides. The sizes are so
small that every position becomes a query: what differs is arithmetic, not the choice of queries. A figure is the
largest difference of an output divided by the largest number in that output, over all pictures; each row of the answer
is held against the nearest of torch's.
"""

import argparse
import json
import shlex
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from ledetr.backends import BackendInfo, RawOutputs, random_network
from ledetr.backends.onnx_graph import onnx_bytes
from ledetr.backends.openvino_runtime import openvino
from ledetr.cli.bench import describe_machine, describe_versions
from ledetr.export.drift import measure_drift
from ledetr.export.pictures import default_pictures
from ledetr.model.config import VARIANTS
from ledetr.model.half import half_precision

BATCHES = (1, 2, 7)
SIZES_HW = ((96, 96), (64, 160))


class OnnxInOpenVino:
    """An ONNX file as OpenVINO reads it, in float32."""

    def __init__(self, path: Path, input_hw: tuple[int, int]) -> None:
        self.info = BackendInfo("openvino", "cpu", "fp32", input_hw)
        core = openvino.Core()
        self._compiled = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(self, pixels: np.ndarray) -> RawOutputs:
        answer = self._compiled({"pixels": pixels})
        return RawOutputs(answer["logits"].copy(), answer["boxes_cxcywh"].copy())

    def close(self) -> None:
        self._compiled = None


class OnnxInRuntime:
    """The same in ONNX Runtime."""

    def __init__(self, path: Path, input_hw: tuple[int, int]) -> None:
        self.info = BackendInfo("onnx", "cpu", "fp32", input_hw)
        self._session: Any = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(self, pixels: np.ndarray) -> RawOutputs:
        return RawOutputs(*self._session.run(["logits", "boxes_cxcywh"], {"pixels": pixels}))

    def close(self) -> None:
        self._session = None


def enliven(network: torch.nn.Module) -> None:
    """Random values that keep the scale of activations: freshly initialised, all pictures give nearly the same."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
            else:
                parameter.add_(0.1 * noise)


def parity(scale: str, precision: str, input_hw: tuple[int, int]) -> list[dict[str, Any]]:
    """One row for each engine."""
    network = random_network(VARIANTS[scale]())
    enliven(network)
    deploy = network.fused()
    content = onnx_bytes(half_precision(deploy) if precision == "fp16" else deploy, input_hw, dynamic_batch=True)
    pictures = list(default_pictures(input_hw).values())
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(content)
        for engine in (OnnxInRuntime(path, input_hw), OnnxInOpenVino(path, input_hw)):
            drift = measure_drift(engine, network, pictures, BATCHES)
            engine.close()
            row = {"model": scale, "precision": precision, "input_hw": list(input_hw), "engine": engine.info.name}
            rows.append({**row, "relative": drift.relative, "drift": asdict(drift)})
    return rows


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--models", default="n,m,l,x")
    parser.add_argument("--precisions", default="fp32,fp16")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = []
    print("| scale | precision | size | engine | largest relative error |\n| --- | --- | --- | --- | --- |")
    for scale in args.models.split(","):
        for precision in args.precisions.split(","):
            for input_hw in SIZES_HW:
                for row in parity(scale, precision, input_hw):
                    size = f"{input_hw[1]}x{input_hw[0]}"
                    print(f"| {scale} | {precision} | {size} | {row['engine']} | {row['relative']:.1e} |", flush=True)
                    rows.append(row)
    if args.json is not None:
        document = {"command": shlex.join(["python", *sys.argv]), "machine": describe_machine()}
        document |= {"versions": describe_versions(), "batches": list(BATCHES), "results": rows}
        args.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
