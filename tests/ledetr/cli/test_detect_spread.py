"""`ledetr detect FOLDER --jobs N` and `--cluster ADDRESS`: complete outputs, each once, also when workers die."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from ledetr.backends.base import BackendInfo
from ledetr.chain.recorder import VideoWriter
from ledetr.chain.spread import Died, Event, Worker
from ledetr.cli import detect_spread as module
from ledetr.cli.main import main
from ledetr.detections import Detections
from ledetr.errors import WeightsError
from ledetr.labels import COCO_CATEGORY_IDS, COCO_NAMES

FRAMES = 12
FRAMES_OF_MANY = 60  # enough that a worker can be killed in the middle of a clip
ROOT = Path(__file__).parents[3]


class FakeDetector:
    """Sees one person everywhere; at_frame(n) is called before the n-th picture."""

    model_id = "n"
    class_names = COCO_NAMES
    category_ids = COCO_CATEGORY_IDS
    score_threshold = 0.5
    random_weights = False
    info = BackendInfo("fake", "cpu", "fp32", (64, 64))

    def __init__(self) -> None:
        self.frames = 0
        self.at_frame: Callable[[int], None] = lambda number: None

    def class_ids(self, names: Sequence[str]) -> list[int]:
        return [COCO_NAMES.index(name) for name in names]

    def detect_frame(self, rgb: np.ndarray, *, score_floor: float = 0.05, max_detections: int = 300) -> Any:
        self.at_frame(self.frames)
        self.frames += 1
        box = np.array([[5, 5, 40, 40]], np.float32)
        return Detections(
            box, np.array([0.9], np.float32), np.array([0]), class_names=COCO_NAMES, category_ids=COCO_CATEGORY_IDS
        ), None


class WorkerDied(BaseException):
    """What a fake worker dies of; no handler of the product is for it."""


class InProcessCrew:
    """Workers that do their task here and now."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._given: list[tuple[int, Any, int]] = []

    def room(self) -> int:
        return self.size - len(self._given)

    def give(self, number: int, task: Any, attempt: int) -> None:
        self._given.append((number, task, attempt))

    def events(self, timeout_s: float) -> list[Event]:
        number, task, attempt = self._given.pop(0)
        said: list[Any] = []
        try:
            return [Worker().run(number, task, attempt, said.append)]
        except WorkerDied:
            return [Died(number, "killed by SIGKILL")]

    def rest(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture
def detector(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeDetector:
    """The detector of all workers, which are no processes of their own."""
    fake = FakeDetector()
    monkeypatch.setattr(module, "_loaded", lambda model: fake)
    monkeypatch.setattr(module, "LocalCrew", InProcessCrew)
    monkeypatch.setattr(module, "find_weights", lambda model: Path(__file__))
    monkeypatch.chdir(tmp_path)
    return fake


def a_video(path: Path, frames: int = FRAMES) -> Path:
    writer = VideoWriter(path, width=64, height=48, time_base=Fraction(1, 25), rate=Fraction(25))
    for number in range(frames):
        writer.write(np.full((48, 64, 3), 5 * number % 250, np.uint8), number)
    return writer.finish()


def a_folder(path: Path, count: int, frames: int = FRAMES) -> Path:
    path.mkdir()
    for number in range(count):
        a_video(path / f"clip{number}.mp4", frames)
    return path


def frames_of(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def names_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_folder_becomes_a_folder(detector: FakeDetector, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a_folder(tmp_path / "clips", 3)
    (tmp_path / "clips" / "notes.txt").write_text("not a video")
    assert main(["detect", "clips", "--jobs", "2"]) == 0

    assert names_in(tmp_path / "clips_boxes") == ["clip0_boxes.mp4", "clip1_boxes.mp4", "clip2_boxes.mp4"]
    assert all(frames_of(path) == FRAMES for path in (tmp_path / "clips_boxes").iterdir())
    out, err = capsys.readouterr()
    assert "clip1.mp4 -> " in out and f"{FRAMES} pictures, {FRAMES} boxes (person {FRAMES})" in out
    assert f"3 of 3 videos, {3 * FRAMES} pictures" in out and err == ""


def test_the_same_lists_as_one_by_one(detector: FakeDetector, tmp_path: Path) -> None:
    a_folder(tmp_path / "clips", 2)
    assert main(["detect", "clips", "--jobs", "2", "--save-jsonl", "lists", "--save-csv", "lists", "-q"]) == 0
    assert names_in(tmp_path) == ["clips/clip0.mp4", "clips/clip1.mp4",
                                  *(f"lists/clip{n}.{kind}" for n in (0, 1) for kind in ("csv", "jsonl"))]  # fmt: skip
    lines = [json.loads(line) for line in (tmp_path / "lists" / "clip1.jsonl").read_text().splitlines()]
    assert [line["index"] for line in lines] == list(range(FRAMES))


def test_json_is_one_document(detector: FakeDetector, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a_folder(tmp_path / "clips", 2)
    assert main(["detect", "clips", "--jobs", "2", "-o", "out", "--json", "--classes", "person"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["model"], document["backend"]["name"], document["failed"]) == ("n", "fake", [])
    assert [row["output"] for row in document["results"]] == [str(tmp_path / f"out/clip{n}_boxes.mp4") for n in (0, 1)]
    assert [row["frames"] for row in document["results"]] == [FRAMES, FRAMES]


def test_names_that_differ_in_their_endings_alone_stay_apart(detector: FakeDetector, tmp_path: Path) -> None:
    a_folder(tmp_path / "clips", 1)
    a_video(tmp_path / "clips" / "clip0.mov")
    assert main(["detect", "clips", "--jobs", "1", "-o", "out", "-q"]) == 0
    assert names_in(tmp_path / "out") == ["clip0.mov_boxes.mp4", "clip0.mp4_boxes.mp4"]


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["clips", "-o", "out.mp4"], "out.mp4 names one file"),
        (["clips", "--save-json", "all.json"], "all.json names one file"),
        (["clips", "-o", "clips"], "among their own sources"),
        (["clips", "clips/clip0.mp4"], "named twice"),
        (["camera:0"], "no folder of videos"),
    ],
)
def test_wrong_use(
    detector: FakeDetector, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], sentence: str
) -> None:
    a_folder(tmp_path / "clips", 1)
    before = names_in(tmp_path)
    assert main(["detect", *words, "--jobs", "2", "-q"]) == 2
    assert sentence in capsys.readouterr().err and names_in(tmp_path) == before


def test_a_folder_without_videos(detector: FakeDetector, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["detect", "empty", "--jobs", "2"]) == 3
    assert main(["detect", "missing", "--jobs", "2"]) == 3
    assert "'empty/' holds no videos (" in capsys.readouterr().err


def test_a_sentence_for_each_that_fails_and_the_others_are_done(
    detector: FakeDetector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a_folder(tmp_path / "clips", 2)
    (tmp_path / "clips" / "text.mp4").write_text("no video")
    cut = (tmp_path / "clips" / "clip0.mp4").read_bytes()
    (tmp_path / "clips" / "zut.mp4").write_bytes(cut[: len(cut) * 9 // 10])
    assert main(["detect", "clips", "--jobs", "2", "-q", "-o", "out"]) == 6

    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert "'text.mp4'" in lines[0] and "'zut.mp4'" in lines[1]
    assert lines[2].startswith("ledetr: 2 of the videos could not be done, the other 2 are")
    assert [path.name for path in sorted((tmp_path / "out").glob("*.mp4"))] == ["clip0_boxes.mp4", "clip1_boxes.mp4"]

    (tmp_path / "clips" / "text.mp4").unlink()
    (tmp_path / "clips" / "zut.mp4").unlink()
    detector.frames = 0
    assert main(["detect", "clips", "--jobs", "2", "-q", "-o", "out", "--resume"]) == 0
    assert detector.frames == 0, "what was done is not done again"
    assert names_in(tmp_path / "out") == ["clip0_boxes.mp4", "clip1_boxes.mp4"]


def test_a_model_that_cannot_be_loaded_ends_all(
    detector: FakeDetector, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(model: Any) -> Any:
        raise WeightsError("no weights for model 'x'.")

    a_folder(tmp_path / "clips", 3)
    monkeypatch.setattr(module, "_loaded", refuse)
    assert main(["detect", "clips", "--jobs", "1", "-q"]) == 4
    assert capsys.readouterr().err == "ledetr: no weights for model 'x'.\n"


def test_another_worker_goes_on_where_one_died(
    detector: FakeDetector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a_folder(tmp_path / "clips", 2, frames=60)
    died = []

    def die_once(number: int) -> None:
        if number == 45 and not died:
            died.append(number)
            raise WorkerDied

    detector.at_frame = die_once
    assert main(["detect", "clips", "--jobs", "1", "-o", "out", "--save-jsonl", "out"]) == 0
    out = capsys.readouterr().out
    assert died and "A worker died at clip0.mp4 (killed by SIGKILL); another one went on with it." in out
    assert names_in(tmp_path / "out") == ["clip0.jsonl", "clip0_boxes.mp4", "clip1.jsonl", "clip1_boxes.mp4"]
    for number in (0, 1):
        assert frames_of(tmp_path / "out" / f"clip{number}_boxes.mp4") == 60
        assert len((tmp_path / "out" / f"clip{number}.jsonl").read_text().splitlines()) == 60


def test_a_worker_that_dies_after_its_receipt_makes_nothing_twice(
    detector: FakeDetector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_folder(tmp_path / "clips", 1)
    write_receipt = module.Stage.write_receipt
    died = []

    def write_and_die(stage: Any, given: Any) -> None:
        write_receipt(stage, given)
        if not died:
            died.append(stage.key)
            raise WorkerDied

    monkeypatch.setattr(module.Stage, "write_receipt", write_and_die)
    assert main(["detect", "clips", "--jobs", "1", "-o", "out", "-q"]) == 0
    assert died and detector.frames == FRAMES
    assert names_in(tmp_path / "out") == ["clip0_boxes.mp4"]


def test_one_that_kills_every_worker_is_named_and_the_others_are_done(
    detector: FakeDetector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a_folder(tmp_path / "clips", 2)

    def die(number: int) -> None:
        if not (tmp_path / "out" / "clip1_boxes.mp4").exists() and len(died) < 3:
            died.append(number)
            raise WorkerDied

    died: list[int] = []
    detector.at_frame = die
    assert main(["detect", "clips", "--jobs", "1", "-o", "out", "-q"]) == 6
    assert "'clip0.mp4' was given up: its worker died 3 times" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").glob("*.mp4")] == ["clip1_boxes.mp4"]


def test_another_command_at_work_in_the_folder_is_left_alone(
    detector: FakeDetector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import psutil

    a_folder(tmp_path / "clips", 1)
    (tmp_path / "out" / "unfinished").mkdir(parents=True)
    other = psutil.Process(os.getppid())
    owner = {"host": socket.gethostname(), "pid": other.pid, "began_s": other.create_time()}
    (tmp_path / "out" / "unfinished" / "owner.json").write_text(json.dumps(owner))
    assert main(["detect", "clips", "--jobs", "1", "-o", "out", "-q"]) == 2
    assert f"Process {other.pid} on" in capsys.readouterr().err
    assert names_in(tmp_path / "out") == ["unfinished/owner.json"]


@pytest.mark.parametrize(
    "address, sentence",
    [("nowhere", "is no address of a Ray cluster"), ("127.0.0.1:1", "No Ray cluster answers at 127.0.0.1:1")],
)
def test_a_cluster_that_is_not_there(
    detector: FakeDetector, tmp_path: Path, capsys: pytest.CaptureFixture[str], address: str, sentence: str
) -> None:
    pytest.importorskip("ray", reason="the extra `cluster` is not installed")
    a_folder(tmp_path / "clips", 1)
    assert main(["detect", "clips", "--cluster", address, "-o", "out", "-q"]) == 2
    assert sentence in capsys.readouterr().err


def test_without_ray_the_sentence_names_the_extra(
    detector: FakeDetector, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    a_folder(tmp_path / "clips", 1)
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["detect", "clips", "--cluster", "127.0.0.1:1", "-o", "out", "-q"]) == 2
    assert "pip install 'ledetr[cluster]'" in capsys.readouterr().err


# From here on with real processes: twenty clips, two workers, one of them killed while it writes.


def command(folder: Path, weights: Path, *words: str) -> list[str]:
    """The real command on a tiny network."""
    run = "import sys; from ledetr.cli.main import main; sys.exit(main())"
    return [
        sys.executable, "-c", run, "detect", "clips", "-m", str(weights), "--imgsz", "64", "--backend", "torch-cpu",
        "--conf", "0", "-o", "out", "--save-jsonl", "out", "--json", "-q", *words,
    ]  # fmt: skip


def kill_a_worker_that_writes(out: Path, process: subprocess.Popen[str]) -> int:
    """SIGKILL to the process that a job file with pictures beside it names; its number comes back."""
    pause = threading.Event()
    while process.poll() is None:
        for job in out.glob("unfinished/*/*.job.json"):
            parts = list(job.parent.glob("*.part.mp4"))
            if not parts or parts[0].stat().st_size < 2000:
                continue
            pid = int(json.loads(job.read_text())["pid"])
            os.kill(pid, signal.SIGKILL)
            return pid
        pause.wait(0.01)
    raise AssertionError(f"the command ended before a worker could be killed: {process.communicate()}")


def check_twenty_with_one_killed(tmp_path: Path, weights: Path, *words: str, environment: dict[str, str]) -> None:
    a_folder(tmp_path / "clips", 20, frames=FRAMES_OF_MANY)
    process = subprocess.Popen(
        command(tmp_path, weights, *words), cwd=tmp_path, text=True, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        kill_a_worker_that_writes(tmp_path / "out", process)
        out, err = process.communicate(timeout=900)
    finally:
        process.kill()
    assert process.returncode == 0, err
    document = json.loads(out)
    assert document["failed"] == [] and len(document["deaths"]) == 1
    expected = sorted([f"clip{n}_boxes.mp4" for n in range(20)] + [f"clip{n}.jsonl" for n in range(20)])
    assert names_in(tmp_path / "out") == expected
    for number in range(20):
        assert frames_of(tmp_path / "out" / f"clip{number}_boxes.mp4") == FRAMES_OF_MANY
        lines = (tmp_path / "out" / f"clip{number}.jsonl").read_text().splitlines()
        assert [json.loads(line)["index"] for line in lines] == list(range(FRAMES_OF_MANY))


def quiet_environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_twenty_clips_two_processes_one_killed(tiny_weights: Path, tmp_path: Path) -> None:
    check_twenty_with_one_killed(tmp_path, tiny_weights, "--jobs", "2", environment=quiet_environment())


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """Address and environment of a Ray cluster of two processors on this machine, which listens to loopback alone."""
    pytest.importorskip("ray", reason="the extra `cluster` is not installed")
    environment = {**quiet_environment(), "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "PYTHONPATH": str(ROOT)}
    folder = tmp_path_factory.mktemp("r")
    for _ in range(3):  # on a busy machine Ray gives up starting by itself
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        start = [
            str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--include-dashboard=false",
            "--node-ip-address=127.0.0.1", f"--port={port}", "--num-cpus=2", "--object-store-memory=100000000",
            f"--temp-dir={folder}", "--disable-usage-stats",
        ]  # fmt: skip
        head = subprocess.Popen(start, env=environment, stdout=subprocess.PIPE, text=True)
        assert head.stdout is not None
        for line in head.stdout:
            if "runtime started" in line:
                break
        if head.poll() is None:
            break
    else:
        pytest.skip("Ray does not start on this machine")
    try:
        yield f"127.0.0.1:{port}", environment
    finally:
        head.terminate()
        head.communicate(timeout=120)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_clips_two_ray_workers_one_killed(
    tiny_weights: Path, tmp_path: Path, cluster: tuple[str, dict[str, str]]
) -> None:
    address, environment = cluster
    check_twenty_with_one_killed(tmp_path, tiny_weights, "--cluster", address, "--jobs", "2", environment=environment)
