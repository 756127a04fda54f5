"""Turn a public checkpoint into a file that training starts from.

    python -m training.convert dfine_l_coco.pth --from dfine-l -o start_l.safetensors
    python -m training.convert efficientvit_l1_r224.pt --from efficientvit-l1 -m l -o backbone_l.safetensors

A detector becomes a weights file for `python -m training.train ... -m FILE`, a trunk becomes a backbone file for
`python -m training.train ... --backbone FILE`, or for --backbone here. The checkpoint is read once, as tensors and
nothing else: whatever else it asks for is refused and never run. Nothing is downloaded.
"""

import argparse
import json
import pickle
import re
import shlex
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ledetr.errors import OutputError, UsageError, WeightsError
from ledetr.files import sha256_of, whole_file
from ledetr.labels import COCO_CATEGORY_IDS, COCO_NAMES
from ledetr.model.backbone import build_backbone
from ledetr.model.config import VARIANTS, ModelConfig
from ledetr.model.ledetr import build_model
from ledetr.weights import save_weights
from ledetr.weights_file import MAX_TENSORS, read_header
from ledetr.weights_info import WeightsInfo
from training import edge
from training.backbone_file import described, load_backbone, save_backbone
from training.foreign import ORIGINS, Mapped, Origin, Report, map_detector, map_trunk
from training.release import one_line

MAX_BYTES = 4 << 30
"""Of a checkpoint; the largest official one, with optimiser and average, has about 1 GB."""
SEED = 0
"""Of the values that the checkpoint does not give."""
INPUT_HW = (640, 640)


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a .pth, .pt or .safetensors file, of the moving average where it has one.

    WeightsError, one sentence, for a file that is too large, damaged, not of tensors, or that would run code.
    """
    if not path.is_file():
        raise WeightsError(f"the checkpoint {str(path)!r} does not exist or is not a regular file")
    if path.stat().st_size > MAX_BYTES:
        raise WeightsError(f"the checkpoint {str(path)!r} has {path.stat().st_size} bytes, allowed are {MAX_BYTES}")
    if path.suffix == ".safetensors":
        read_header(path)
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"the checkpoint {str(path)!r} cannot be read: {error}") from error
    _check_archive(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError,
        RuntimeError,
        ValueError,
        EOFError,
        LookupError,
        TypeError,
        AttributeError,
        OSError,
    ) as error:
        raise WeightsError(_why_not_read(path, error)) from error
    return _tensors_of(path, content)


def _check_archive(path: Path) -> None:
    """A zip archive whose unpacked size is within bounds; older forms of torch's files are not read."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError) as error:
        raise WeightsError(
            f"{str(path)!r} is no intact checkpoint of PyTorch 1.6 or later (a zip archive) and no .safetensors file"
        ) from error
    if unpacked > MAX_BYTES:
        raise WeightsError(f"the checkpoint {str(path)!r} unpacks to {unpacked} bytes, allowed are {MAX_BYTES}")


def _why_not_read(path: Path, error: Exception) -> str:
    wanted = re.search(r"(?:GLOBAL|global|class|function) ['\"]?([\w.]+\.[\w.]+)", str(error))
    if isinstance(error, pickle.UnpicklingError):
        what = f"asks for {wanted[1][:80]} " if wanted else "asks for more than tensors "
        return (
            f"the checkpoint {str(path)!r} {what}when it is opened, which plain weights never need, so it was refused "
            "and nothing of it was run; get the file from its authors' own page"
        )
    return f"the checkpoint {str(path)!r} is damaged and cannot be read; copy it again"


def _tensors_of(path: Path, content: Any) -> dict[str, Tensor]:
    """ema.module, model or state_dict of a checkpoint, or the checkpoint itself; all its values must be tensors."""
    average = content.get("ema") if isinstance(content, Mapping) else None
    if isinstance(average, Mapping) and isinstance(average.get("module"), Mapping):
        content = average["module"]
    elif isinstance(content, Mapping):
        inner = (content.get(key) for key in ("model", "state_dict"))
        content = next((value for value in inner if isinstance(value, Mapping)), content)
    if not isinstance(content, Mapping) or not content or len(content) > MAX_TENSORS:
        raise WeightsError(f"the checkpoint {str(path)!r} holds no table of tensors")
    odd = [name for name, value in content.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if odd:
        raise WeightsError(f"the checkpoint {str(path)!r} holds {odd[0]!r:.80}, which is no tensor with a name")
    return {name.removeprefix("module."): value for name, value in content.items()}


def convert(path: Path, origin: Origin, target: Path, *, scale: str, backbone: Path | None, command: str) -> Report:
    """Read `path`, write `target`, and say what went where."""
    state = read_checkpoint(path)
    config = VARIANTS[scale]()
    came_from = f"{origin.title} ({origin.source}; {path.name}, SHA-256 {sha256_of(path)})"
    try:
        if origin.is_trunk:
            return _write_trunk(state, origin, config, target, came_from=came_from, command=command)
        return _write_detector(state, origin, config, target, backbone, came_from=came_from, command=command)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"{str(target)!r} cannot be written: {error}") from error


def _write_trunk(
    state: dict[str, Tensor], origin: Origin, config: ModelConfig, target: Path, *, came_from: str, command: str
) -> Report:
    torch.manual_seed(SEED)
    backbone = build_backbone(config.backbone)
    mapped = map_trunk(origin, state, config, backbone.state_dict())
    _fill(backbone, mapped)
    info = described(
        config,
        figures={},
        trained_on="not trained since it was converted",
        command=one_line(command),
        started_from=one_line(f"{came_from}; {_in_line(mapped.report)}"),
        licence=f"{origin.licence} (the repository's); ImageNet's own terms bind its pictures",
    )
    save_backbone(target, backbone, info)
    return mapped.report


def _write_detector(
    state: dict[str, Tensor],
    origin: Origin,
    config: ModelConfig,
    target: Path,
    backbone: Path | None,
    *,
    came_from: str,
    command: str,
) -> Report:
    mapped = map_detector(origin, state, config, build_model(config, device="meta").state_dict())
    torch.manual_seed(SEED)
    model = build_model(mapped.config)
    trunk = "random values"
    if backbone is not None:
        of_trunk = load_backbone(backbone, model.backbone, mapped.config)
        trunk = f"{backbone.name} ({of_trunk.started_from})"
    _fill(model, mapped)
    info = WeightsInfo(
        name=config.name,
        config=mapped.config,
        class_names=COCO_NAMES,
        category_ids=COCO_CATEGORY_IDS,
        input_hw=INPUT_HW,
        trained_on="not trained since it was converted: a start for training, it does not detect",
        command=one_line(command),
        started_from=one_line(f"{came_from}; trunk from {trunk}; {_in_line(mapped.report)}"),
        licence=f"{origin.licence} (the repository's)",
    )
    save_weights(target, model, info, storage="fp32")
    return mapped.report


def _in_line(report: Report) -> str:
    return report.summary().replace("\n", "; ")


def _fill(module: torch.nn.Module, mapped: Mapped) -> None:
    """Put the mapped tensors in; the rest stays as it is."""
    module.load_state_dict({**module.state_dict(), **mapped.tensors}, strict=True)


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m training.convert", description="Turn a public checkpoint into a file that training starts from."
    )
    add = parser.add_argument
    add("checkpoint", type=Path, help="a .pth, .pt or .safetensors file that you have")
    add("--from", dest="origin", required=True, choices=tuple(ORIGINS), help="what the checkpoint is")
    add("-m", "--model", choices=("m", "l", "x"), help="scale to start (default: the origin's)")
    add("-o", "--output", type=Path, required=True, help="file to write, .safetensors")
    add("--backbone", type=Path, help="trunk of a detector's start: a backbone file of training.pretrain or of this")
    add("--report", type=Path, help="write which tensor went where, and why others did not, as JSON")
    add("-q", "--quiet", action="store_true", help="say nothing but the path of the file")
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    """Read, map, write, report."""
    words = sys.argv[1:] if words is None else words
    args = parse_arguments(words)
    origin: Origin = ORIGINS[args.origin]
    if args.output.suffix != ".safetensors":
        raise UsageError(f"the output must end in .safetensors, got {str(args.output)!r}")
    if args.output.resolve() == args.checkpoint.resolve():
        raise UsageError(f"the output {str(args.output)!r} is the checkpoint itself; name another file")
    if args.backbone is not None and origin.is_trunk:
        raise UsageError(f"{origin.title} is a trunk itself; --backbone goes with a detector")
    report = convert(
        args.checkpoint,
        origin,
        args.output,
        scale=args.model or origin.scale,
        backbone=args.backbone,
        command="python -m training.convert " + shlex.join(words),
    )
    if args.report is not None:
        _write_report(args.report, report)
    if not args.quiet:
        print(report.summary(), file=sys.stderr)
    print(args.output)


def _write_report(path: Path, report: Report) -> None:
    document = {
        "taken": report.taken,
        "skipped": report.skipped,
        "missing": list(report.missing),
        "notes": list(report.notes),
    }
    try:
        with whole_file(path) as part:
            part.write_text(json.dumps(document, indent=1))
    except OSError as error:
        raise OutputError(f"the report {str(path)!r} cannot be written: {error.strerror}") from error


if __name__ == "__main__":
    edge.run(main)
