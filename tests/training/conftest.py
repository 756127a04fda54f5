"""Small model files for the tests of this folder."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def write_dense(tmp_path: Path) -> Callable[..., Path]:
    """Writes an ONNX file that gives the same boxes for every picture, and their scores times its mean / 255."""
    onnx = pytest.importorskip("onnx", reason="needs the extra: ledetr[export]")
    pytest.importorskip("onnxruntime", reason="needs the extra: ledetr[train]")
    helper, tensor = onnx.helper, onnx.TensorProto

    def write(
        name: str,
        boxes: Sequence[Sequence[float]],
        scores: Sequence[Sequence[float]],
        *,
        size: tuple[int | str, int | str] = (32, 64),
        kind: int = tensor.FLOAT,
        picture: str = "images",
        classes: int | str | None = None,
        domain: str = "",
    ) -> Path:
        """boxes: (A, 4) in pixels of the input. scores: (A, K) for a white picture. The rest: to make it odd."""
        constants = {
            "some_boxes": np.array(boxes, np.float32)[None],
            "base": np.array(scores, np.float32)[None],
            "column": np.array([-1, 1, 1], np.int64),
            "white": np.array(255, np.float32),
            "nothing": np.array(0, np.float32),
        }
        nodes = [
            helper.make_node("Cast", [picture], ["floats"], to=tensor.FLOAT),
            helper.make_node("ReduceMean", ["floats"], ["mean4"], axes=[1, 2, 3]),
            helper.make_node("Reshape", ["mean4", "column"], ["mean"]),
            helper.make_node("Div", ["mean", "white"], ["brightness"]),
            helper.make_node("Mul", ["base", "brightness"], ["scores"]),
            helper.make_node("Mul", ["brightness", "nothing"], ["zero"]),
            helper.make_node("Add", ["some_boxes", "zero"], ["boxes"], domain=domain),
        ]
        if isinstance(classes, str):  # a last axis whose length depends on the picture
            nodes[4] = helper.make_node("Mul", ["base", "brightness"], ["every_score"])
            nodes += [
                helper.make_node("ReduceMax", ["floats"], ["brightest"], keepdims=0),
                helper.make_node("Cast", ["brightest"], ["count"], to=tensor.INT64),
                helper.make_node("Reshape", ["count", "one"], ["end"]),
                helper.make_node("Slice", ["every_score", "start", "end", "last"], ["scores"]),
            ]
            constants |= {"one": np.array([1]), "start": np.array([0]), "last": np.array([2])}
        columns = len(scores[0]) if classes is None else classes
        graph = helper.make_graph(
            nodes,
            "detector",
            [helper.make_tensor_value_info(picture, kind, ["N", 3, *size])],
            [
                helper.make_tensor_value_info("boxes", tensor.FLOAT, ["N", len(boxes), 4]),
                helper.make_tensor_value_info("scores", tensor.FLOAT, ["N", len(boxes), columns]),
            ],
            [onnx.numpy_helper.from_array(value, key) for key, value in constants.items()],
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] if domain else [])],
            ir_version=8,
        )
        onnx.save(model, tmp_path / name)
        return tmp_path / name

    return write
