"""Tables that depend on sizes only (masks, anchors, position codes), kept on the device where they are used.

A table is built once in NumPy and copied once to each device: a pass that copied from the host would be slow, and could
not be captured as a CUDA graph.
"""

from collections import OrderedDict

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.jit._trace import is_tracing

_KEPT = 256
_on_device: OrderedDict[tuple[int, torch.device, torch.dtype], tuple[np.ndarray, Tensor]] = OrderedDict()


def constant(table: np.ndarray, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The table as a tensor; the same array gives the same tensor again. Neither may be changed afterwards.

    `table` must be one that its builder keeps (lru_cache): arrays are told apart by identity.
    """
    if is_tracing():
        # A trace holds the table as a constant of the graph; it is run twice and must look the same both times.
        return torch.from_numpy(table).to(device, dtype)
    key = (id(table), device, dtype)
    kept = _on_device.get(key)
    if kept is not None and kept[0] is table:
        _on_device.move_to_end(key)
        return kept[1]
    # A tensor born in inference mode could never take part in training later.
    with torch.inference_mode(False):
        tensor = torch.from_numpy(table).to(device, dtype)
    if not isinstance(tensor, FakeTensor):
        _on_device[key] = (table, tensor)
        while len(_on_device) > _KEPT:
            _on_device.popitem(last=False)
    return tensor
