"""The real list of devices, as the menu gets it."""

import torch

from ledetr.backends import device_names


def test_the_processor_is_there_and_every_gpu_once():
    names = device_names()
    assert names["cpu"]
    assert all(name for name in names.values())
    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.version.cuda else []
    assert [word for word in names if word.startswith("cuda")] == gpus
