"""Pictures to the same pictures with boxes: one to one file, a folder to a folder."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ledetr.chain.images import list_images
from ledetr.chain.inference import SCORE_FLOOR, FrameDetector
from ledetr.chain.mailbox import MEBIBYTE, ByteQueue
from ledetr.chain.output_files import (
    check_writable,
    choose_target,
    output_error,
    publish,
    reserve_part,
    say_what_is_kept,
)
from ledetr.chain.overlay import Style, draw_marks
from ledetr.chain.side_files import PictureResult, SideFile, SideHeader, open_side_files
from ledetr.chain.sources import FolderSpec, ImageSpec, ListSpec
from ledetr.chain.video import VideoProgress, style_of
from ledetr.detections import Detections
from ledetr.errors import Interrupted, LeDetrError, SourceError, UsageError
from ledetr.paths import printable
from ledetr.pictures import read_picture

# Pillow's name of the format for each ending we write. JPEG without colour subsampling: thin coloured lines smear.
_FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".jfif": "JPEG", ".png": "PNG", ".bmp": "BMP", ".webp": "WEBP",
            ".tif": "TIFF", ".tiff": "TIFF", ".ppm": "PPM", ".pgm": "PPM"}  # fmt: skip
_SAVE_OPTIONS = {"JPEG": {"quality": 92, "subsampling": 0}, "WEBP": {"quality": 92}}
_AHEAD_BYTES = 64 * MEBIBYTE


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagesReport:
    """What was done. path: of the picture or folder, None where none was wanted. failed: sources and why."""

    path: Path | None
    side_files: Mapping[str, Path]
    frames: int
    boxes: int
    boxes_by_class: Mapping[str, int]
    wall_s: float
    failed: tuple[tuple[Path, LeDetrError], ...]

    @property
    def fps(self) -> float:
        """End to end: pictures a second of reading, detecting, drawing and writing together."""
        return self.frames / self.wall_s if self.wall_s > 0 else 0.0


def process_images(
    spec: ImageSpec | FolderSpec | ListSpec,
    dst: Path | None,
    detector: FrameDetector,
    *,
    conf: float | None = None,
    class_ids: Sequence[int] | None = None,
    labels: bool = True,
    scores: bool = True,
    side_files: Mapping[str, Path] | None = None,
    overwrite: bool = False,
    max_frames: int | None = None,
    progress: Callable[[VideoProgress], None] | None = None,
    stop: threading.Event | None = None,
) -> ImagesReport:
    """Detect on every picture and write it with boxes to dst: a file for one picture, else a folder, made if missing.

    dst: None for side files alone. In a folder the pictures keep their names, and their places in sub-folders.
    A picture of a folder or list that cannot be read is reported in `failed`, and the others are done; a single one
    raises SourceError. Otherwise as process_video.
    """
    started_s = time.perf_counter()
    style = style_of(detector, conf, class_ids, labels, scores)
    paths = list_images(spec)[:max_frames]
    header = SideHeader(spec.display_name, detector.model_id, detector.random_weights, detector.class_names)
    targets = _Targets(spec, paths, dst)
    sides = open_side_files(side_files or {}, header, overwrite=overwrite, sources=paths)
    outputs = _Outputs(paths, targets, sides, style, overwrite)
    failed: list[tuple[Path, LeDetrError]] = []
    try:
        for number, (path, loaded) in enumerate(_loaded_ahead(paths)):
            if stop is not None and stop.is_set():
                raise Interrupted("Stopped as asked.")
            if isinstance(loaded, LeDetrError):
                if isinstance(spec, ImageSpec):
                    raise loaded
                failed.append((path, loaded))
                continue
            found, _ = detector.detect_frame(loaded, score_floor=min(SCORE_FLOOR, style.conf))
            outputs.add(number, loaded, style.shown(found))
            if progress is not None:
                progress(_progress(outputs.done, len(failed), len(paths), time.perf_counter() - started_s))
        if outputs.done == 0:
            raise SourceError(f"None of the {len(paths)} pictures can be read; the first: {failed[0][1]}")
        outputs.finish()
    except KeyboardInterrupt:
        raise  # asked twice: the part files stay as they are
    except BaseException as error:
        say_what_is_kept(error, outputs.keep_partial)
        raise
    return ImagesReport(
        path=outputs.written if isinstance(spec, ImageSpec) else dst,
        side_files={kind: side.path for kind, side in sides.items()},
        frames=outputs.done,
        boxes=outputs.classes.total(),
        boxes_by_class=dict(outputs.classes.most_common()),
        wall_s=time.perf_counter() - started_s,
        failed=tuple(failed),
    )


def check_folder(paths: Sequence[Path], dst: Path) -> None:
    """Raises OutputError where the results of these pictures cannot lie in the folder dst, UsageError where they must
    not; makes nothing."""
    if dst.exists() and any(dst.samefile(folder) for folder in {path.parent for path in paths} if folder.exists()):
        raise UsageError(f"The results would lie among their own sources in {dst}; choose another folder with -o.")
    check_writable(dst)


class _Outputs:
    """The pictures and the side files of one run."""

    def __init__(
        self, paths: Sequence[Path], targets: _Targets, sides: Mapping[str, SideFile], style: Style, overwrite: bool
    ) -> None:
        self._paths, self._targets, self._sides = paths, targets, sides
        self._style, self._overwrite = style, overwrite
        self._image_ids = _image_ids(paths)
        self.classes: Counter[str] = Counter()
        self.done = 0
        self.written: Path | None = None

    def add(self, number: int, rgb: np.ndarray, shown: Detections) -> None:
        path = self._paths[number]
        row = PictureResult(number, None, shown, self._targets.name_of(path), self._image_ids[number])
        for side in self._sides.values():
            side.add(row)
        target = self._targets.target_of(path)
        if target is not None:
            drawn = draw_marks(rgb, self._style.marks(shown, (rgb.shape[0], rgb.shape[1])))
            self.written = save_picture(drawn, target, overwrite=self._overwrite, sources=[path])
        self.classes.update(shown.names)
        self.done += 1

    def finish(self) -> None:
        for side in self._sides.values():
            side.finish()

    def keep_partial(self) -> str:
        """Half a sentence on what is done; nothing to say where that is nothing."""
        if self.done == 0:
            for side in self._sides.values():
                side.abort()
            return ""
        lists = " and ".join(str(side.keep_partial()) for side in self._sides.values())
        return f"{self.done} of {len(self._paths)} pictures are done{f', listed in {lists}' if lists else ''}"


def save_picture(rgb: np.ndarray, path: Path, *, overwrite: bool = False, sources: Sequence[Path] = ()) -> Path:
    """Write (H, W, 3) uint8 RGB in the format its ending names, whole or not at all; the name it got comes back."""
    kind = _FORMATS.get(path.suffix.lower())
    if kind is None:
        raise UsageError(f"{path.name} does not say what kind of picture to write; end it in {', '.join(_FORMATS)}.")
    target = choose_target(path, overwrite=overwrite, sources=sources)
    part = reserve_part(target)
    try:
        Image.fromarray(rgb).save(part, kind, **_SAVE_OPTIONS.get(kind, {}))
        return publish(part, target, overwrite=overwrite)
    except OSError as error:
        raise output_error(target, error) from error
    finally:
        part.unlink(missing_ok=True)


class _Targets:
    """Where each picture goes."""

    def __init__(self, spec: ImageSpec | FolderSpec | ListSpec, paths: Sequence[Path], dst: Path | None) -> None:
        self._dst = dst
        self._single = isinstance(spec, ImageSpec)
        self._base = spec.path if isinstance(spec, FolderSpec) else spec.path.parent
        if dst is None or self._single:
            return
        check_folder(paths, dst)
        _make_folder(dst)

    def name_of(self, path: Path) -> str:
        """For side files: relative to the folder that was named."""
        try:
            return printable(path.relative_to(self._base).as_posix())
        except ValueError:  # a list may name files elsewhere
            return printable(path.name)

    def target_of(self, path: Path) -> Path | None:
        """None where no pictures are wanted; makes the folder."""
        if self._dst is None or self._single:
            return self._dst
        inside = path.relative_to(self._base) if path.is_relative_to(self._base) else Path(path.name)
        if ".." in inside.parts:
            inside = Path(path.name)
        target = self._dst / inside
        _make_folder(target.parent)
        return target if target.suffix.lower() in _FORMATS else target.with_name(f"{target.name}.png")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error


def _image_ids(paths: Sequence[Path]) -> list[int]:
    """COCO names its pictures by their id; where all names are numbers they are used, else 1, 2, 3, ..."""
    stems = [path.stem for path in paths]
    if all(stem.isascii() and stem.isdigit() for stem in stems) and len(set(map(int, stems))) == len(stems):
        return [int(stem) for stem in stems]
    return list(range(1, len(paths) + 1))


def _loaded_ahead(paths: Sequence[Path]) -> Iterator[tuple[Path, np.ndarray | LeDetrError]]:
    """Pictures in order, each writable, or the reason why it cannot be read; the next ones are read meanwhile."""
    queue: ByteQueue[tuple[Path, np.ndarray | LeDetrError] | BaseException] = ByteQueue(_AHEAD_BYTES)
    thread = threading.Thread(target=_load_all, args=(paths, queue), name="pictures", daemon=True)
    thread.start()
    try:
        while (item := queue.take()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        queue.close()
        thread.join()


def _load_all(paths: Sequence[Path], queue: ByteQueue[tuple[Path, np.ndarray | LeDetrError] | BaseException]) -> None:
    try:
        for path in paths:
            try:
                rgb = read_picture(path)
            except LeDetrError as error:
                if not queue.put((path, error), 0):
                    return
            else:
                if not queue.put((path, rgb), rgb.nbytes):
                    return
    except BaseException as error:  # carried to the thread that waits
        queue.put(error, 0)
    queue.close(drain=True)


def _progress(done: int, failed: int, total: int, spent_s: float) -> VideoProgress:
    left_s = (total - done - failed) * spent_s / done
    return VideoProgress(done, total - failed, done / spent_s if spent_s else 0.0, left_s)
