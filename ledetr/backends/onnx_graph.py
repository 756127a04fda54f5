"""The network as an ONNX graph, written by torch; what ONNX Runtime then runs and `ledetr export` gives away."""

from __future__ import annotations

import io
import warnings

import torch
from torch import nn

from ledetr.backends.deploy import deploy_module, example_inputs, output_names

OPSET = 17  # LayerNormalization as one operator; GridSample is there since 16


def onnx_bytes(
    network: nn.Module, input_hw: tuple[int, int], *, dynamic_batch: bool = False, ranked: bool = False
) -> bytes:
    """The deploy form as one self-contained ONNX file of opset 17 and fixed picture size.

    dynamic_batch: any number of pictures instead of one. ranked: with the last step inside (deploy.PixelsToRanked).
    Written by torch's tracing exporter: it needs no further package, and our forward passes never branch on a value.
    """
    inputs, outputs = example_inputs(input_hw, ranked=ranked), output_names(ranked=ranked)
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.inference_mode():
        # Tracing warns of Python numbers becoming constants, which is what a fixed size means.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            deploy_module(network, ranked=ranked),
            tuple(inputs.values()),
            buffer,  # type: ignore[arg-type]  # the tracing exporter writes to a buffer too; torch types the other one
            dynamo=False,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes={name: {0: "batch"} for name in (*inputs, *outputs)} if dynamic_batch else None,
        )
    return buffer.getvalue()
