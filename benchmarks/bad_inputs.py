"""The bad-input corpus through the real command line: refused in one sentence, or handled; never broken.

    python -m benchmarks.bad_inputs                       # all, as a table; exit code 1 where one fails
    python -m benchmarks.bad_inputs --only "data sets" weights --keep corpus/
    python -m benchmarks.bad_inputs --quick               # a few of each group

Each member is given to `ledetr detect` or `ledetr eval` in a child process that lives long, so that what is measured
is the refusal and not the start. A refusal takes at most 2 s and 300 MB, is one sentence on stderr that names the file,
has the right exit code and no traceback, and leaves no file. Then all that are refused go through one command together
with two good files: these are done, and the exit code is 6.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av

from benchmarks.child import MEBIBYTE, Answer, Child
from benchmarks.corpus import FIXED_SHA256, MOST_BYTES, fixed_sha256, members, size_of, write_corpus
from benchmarks.members import Member
from ledetr.chain.sources import mask_url
from ledetr.paths import printable

MOST_S, MOST_EXTRA_BYTES = 2.0, 300 * 1_000_000
HANG_S = 20.0
ENGINE = ("--backend", "torch-cpu")
SECRETS = ("p%40ss", "pa@ss", "token=secret")


@dataclass(frozen=True, slots=True)
class Run:
    """One command line: its words, the empty folder it runs in."""

    words: tuple[str, ...]
    folder: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command line did: its exit code, what it said, and the files in its folder afterwards."""

    code: int
    said: str
    files: tuple[str, ...]


def prepare() -> Callable[[Run], Outcome]:
    """In the child: everything imported and run once; a model of the corpus is loaded once."""
    from ledetr.cli.main import main

    _keep_models()

    def run(one: Run) -> Outcome:
        os.chdir(one.folder)
        with _captured() as said:
            code = main(list(one.words))
        files = sorted(os.fsdecode(os.fsencode(str(path.relative_to(one.folder)))) for path in _files(Path(one.folder)))
        return Outcome(code, said.text, tuple(files))

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_corpus(folder / "c", [])
        (folder / "out").mkdir()
        for good in ("good.png", "good.mp4"):
            run(
                Run(
                    ("detect", str(folder / "c" / good), "-m", str(folder / "c/tiny.safetensors"), *ENGINE),
                    str(folder / "out"),
                )
            )
        os.chdir("/")
    return run


def _keep_models() -> None:
    """Loading the small model takes longer than refusing; a file is loaded once, as long as it stays the same."""
    from ledetr.detector import Detector

    real, kept = Detector.load, {}

    def load(model: Any = "n", **wishes: Any) -> Any:
        if not str(model).endswith("tiny.safetensors"):
            return real(model, **wishes)
        if "tiny" not in kept:
            kept["tiny"] = real(model, **wishes)
            kept["tiny"].close = lambda: None
        return kept["tiny"]

    Detector.load = load  # type: ignore[method-assign, assignment]


@dataclass
class _Said:
    text: str = ""


@contextlib.contextmanager
def _captured() -> Iterator[_Said]:
    """What is written to stderr, by Python and by libraries; stdout goes nowhere."""
    said = _Said()
    with tempfile.TemporaryFile() as file, Path(os.devnull).open("w", encoding="utf-8") as null:
        saved = os.dup(1), os.dup(2)
        os.dup2(null.fileno(), 1)
        os.dup2(file.fileno(), 2)
        python = sys.stdout, sys.stderr
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), write_through=True, encoding="utf-8")
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), write_through=True, encoding="utf-8")
        try:
            yield said
        finally:
            sys.stdout, sys.stderr = python
            for number, descriptor in zip((1, 2), saved, strict=True):
                os.dup2(descriptor, number)
                os.close(descriptor)
            file.seek(0)
            said.text = file.read().decode("utf-8", "replace")


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if not path.is_dir()]


def words_of(member: Member, corpus: Path) -> tuple[str, ...]:
    """The command line of one member."""
    name = str(corpus / member.name) if member.make is not None or member.group not in ("addresses",) else member.name
    words = list(member.words)
    if "{}" not in words:
        words.append("{}")
    done = [name if word == "{}" else str(corpus / word) if word == "good.png" else word for word in words]
    if words[0] == "eval":
        done.append(str(corpus / "pictures"))
    if "-m" not in words:
        done += ["-m", str(corpus / "tiny.safetensors")]
    # Files of another form have an engine of their own.
    return tuple(done) if name.endswith((".onnx", ".xml")) else (*done, *ENGINE)


def faults_of(member: Member, answer: Answer, *, patience: float = 1.0) -> list[str]:
    """Everything that is wrong with how a member was met; nothing where it is as it must be."""
    if answer.died:
        return [answer.died]
    outcome: Outcome = answer.value
    faults = []
    if outcome.code not in member.codes:
        faults.append(f"exit code {outcome.code}: {outcome.said.strip()[-200:]}")
    if "Traceback" in outcome.said or "unexpected" in outcome.said:
        faults.append(f"no sentence: {outcome.said.strip()[-300:]}")
    if any(secret in outcome.said for secret in SECRETS):
        faults.append("a password is shown")
    if outcome.code == 0:
        return faults + _faults_of_result(member, outcome)
    sentences = [line for line in outcome.said.splitlines() if line.strip()]
    if len(sentences) != 1 or not sentences[0].startswith("ledetr: "):
        faults.append(f"{len(sentences)} lines on stderr: {outcome.said[:300]!r}")
    if not _is_named(member, outcome.said):
        faults.append(f"does not name it: {outcome.said.strip()[:200]}")
    # What --resume goes on from may stay.
    left = [name for name in outcome.files if ".partial." not in name and not name.endswith(".job.json")]
    if len(left) < len(outcome.files) and not any(".partial." in name for name in outcome.files):
        left = list(outcome.files)
    if left:
        faults.append(f"leaves {', '.join(left)}")
    if answer.seconds > MOST_S * patience and not outcome.files:
        faults.append(f"takes {answer.seconds:.1f} s")
    if answer.extra_bytes > MOST_EXTRA_BYTES:
        faults.append(f"takes {answer.extra_bytes / 1e6:.0f} MB")
    return faults


def _faults_of_result(member: Member, outcome: Outcome) -> list[str]:
    if member.words[0] == "eval":
        return []
    if len(outcome.files) != 1:
        return [f"gives {len(outcome.files)} files"]
    return []


def _is_named(member: Member, said: str) -> bool:
    """An address is named masked, and long names are cut."""
    name = mask_url(member.name) if "://" in member.name else printable(member.named or member.name)
    text = " ".join(said.split())
    stem = " ".join(name.split())[:30]
    return stem in text or ascii(stem)[1:-1] in text or member.group == "addresses"


def pictures_in(path: Path) -> int:
    """How many pictures a result holds."""
    with av.open(f"file:{path}") as container:
        return sum(1 for _ in container.decode(video=0))


def run_all(chosen: Sequence[Member], corpus: Path, *, patience: float = 1.0) -> dict[str, list[str]]:
    """Faults by the name of each member, and of the batches."""
    found: dict[str, list[str]] = {}
    refused: list[Member] = []
    with Child(prepare, room_bytes=2048 * MEBIBYTE, hang_s=HANG_S) as child:
        for member in chosen:
            with tempfile.TemporaryDirectory() as folder:
                run = Run(words_of(member, corpus), folder)
                answer = child.ask(run)
                if not answer.died and answer.seconds > MOST_S * patience and not answer.value.files:
                    answer = child.ask(run)  # once more: something else may have been busy
                found[member.name] = faults_of(member, answer, patience=patience)
                if answer.value is not None and answer.value.code == 0 and member.frames and not found[member.name]:
                    made = [path for path in _files(Path(folder)) if path.suffix in (".mp4", ".mkv", ".gif")]
                    count = pictures_in(made[0]) if made else 1
                    if count != member.frames:
                        found[member.name] = [f"has {count} pictures, and should have {member.frames}"]
                if answer.value is not None and answer.value.code == 3 and member.words == ("detect",):
                    refused.append(member)
        for at in range(0, len(refused), 20):
            some = refused[at : at + 20]
            found[f"batch {at // 20 + 1}: {len(some)} bad ones and 2 good ones"] = _batch(child, some, corpus)
    return found


def _batch(child: Child, bad: Sequence[Member], corpus: Path) -> list[str]:
    """All of them in one command, the good ones in the middle and at the end."""
    names = [str(corpus / member.name) for member in bad]
    names.insert(len(names) // 2, str(corpus / "good.png"))
    model = ("-m", str(corpus / "tiny.safetensors"))
    with tempfile.TemporaryDirectory() as folder:
        words = ("detect", "-o", "out", *model, *ENGINE, "--", *names, str(corpus / "good.mp4"))
        answer = child.ask(Run(words, folder))
    if answer.died:
        return [answer.died]
    outcome: Outcome = answer.value
    faults = [] if outcome.code == 6 else [f"exit code {outcome.code}: {outcome.said.strip()[-300:]}"]
    good = {"out/good_boxes.png", "out/good_boxes.mp4"}
    whole = {name for name in outcome.files if ".partial." not in name and not name.endswith(".job.json")}
    if whole != good:
        faults.append(f"files are {sorted(whole)}")
    return faults


def quick(every: Sequence[Member]) -> list[Member]:
    """A few of each group, the same ones each time."""
    seen: Counter[str] = Counter()
    few = []
    for member in every:
        seen[member.group] += 1
        if seen[member.group] % 9 == 1:
            few.append(member)
    return few


def checked_corpus(folder: Path, chosen: Sequence[Member], *, all_of_them: bool) -> list[str]:
    """Write it; what is wrong with the corpus itself."""
    write_corpus(folder, chosen)
    faults = []
    if (size := size_of(folder)) > MOST_BYTES:
        faults.append(f"the corpus has {size} bytes, allowed are {MOST_BYTES}")
    if all_of_them and (actual := fixed_sha256(folder, chosen)) != FIXED_SHA256:
        faults.append(f"the members that are the same everywhere have the SHA-256 {actual}")
    return faults


def main() -> int:
    """Exit code 1 where a member fails."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", nargs="+", metavar="GROUP", help="these groups")
    parser.add_argument("--names", nargs="+", metavar="NAME", help="these members")
    parser.add_argument("--quick", action="store_true", help="a few of each group")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="write the corpus there, and leave it")
    parser.add_argument("--patience", type=float, default=1.0, help="times the 2 s, for a machine that is busy")
    args = parser.parse_args()
    every = members()
    chosen = [one for one in every if args.only is None or one.group in args.only]
    chosen = [one for one in chosen if args.names is None or one.name in args.names]
    chosen = quick(chosen) if args.quick else chosen
    with tempfile.TemporaryDirectory() as folder:
        corpus = args.keep or Path(folder) / "corpus"
        found = {"the corpus": checked_corpus(corpus, chosen, all_of_them=len(chosen) == len(every))}
        size = size_of(corpus)
        found |= run_all(chosen, corpus, patience=args.patience)
    return 0 if print_table(chosen, found, size) else 1


def print_table(chosen: Sequence[Member], found: dict[str, list[str]], size: int) -> bool:
    """Groups with their numbers, then each failure; whether there is none."""
    groups = Counter(member.group for member in chosen)
    good = Counter(member.group for member in chosen if not found[member.name])
    print("| group | members | as they must be |\n| --- | --- | --- |")
    for group, count in groups.items():
        print(f"| {group} | {count} | {good[group]} |")
    print(f"\n{len(chosen)} members, {size / 1e6:.1f} MB.")
    failed = {name: faults for name, faults in found.items() if faults}
    for name, faults in failed.items():
        print(f"FAIL {name[:80]!a}: {'; '.join(ascii(fault) for fault in faults)}")
    print(f"{len(failed)} failures." if failed else "No failure.")
    return not failed


if __name__ == "__main__":
    sys.exit(main())
