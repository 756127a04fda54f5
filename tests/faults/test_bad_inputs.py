"""A few of each group of the bad-input corpus through the real command line, and the corpus itself."""

from pathlib import Path

import pytest

from benchmarks import bad_inputs
from benchmarks.child import Answer
from benchmarks.corpus import FIXED_SHA256, MOST_BYTES, fixed_sha256, members, size_of, write_corpus
from benchmarks.members import Member

GROUPS = {
    "not media", "cut", "damaged", "odd but legal", "bombs", "names", "data sets", "weights", "addresses"
}  # fmt: skip


def test_every_group_is_there_and_names_are_their_own() -> None:
    every = members()
    assert {member.group for member in every} == GROUPS == {member.group for member in bad_inputs.quick(every)}
    assert len({member.name for member in every}) == len(every) > 300


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_few_of_each_group_are_refused_or_handled(tmp_path: Path) -> None:
    chosen = bad_inputs.quick(members())
    write_corpus(tmp_path / "corpus", chosen)
    found = bad_inputs.run_all(chosen, tmp_path / "corpus", patience=10.0)  # the machine may be busy
    assert {name: faults for name, faults in found.items() if faults} == {}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_corpus_is_small_and_the_same_everywhere(tmp_path: Path) -> None:
    every = members()
    write_corpus(tmp_path / "corpus", every)
    assert size_of(tmp_path / "corpus") <= MOST_BYTES
    assert fixed_sha256(tmp_path / "corpus", every) == FIXED_SHA256


REFUSED = Member("a.mp4", "not media", make=lambda path: path.touch())
SENTENCE = "ledetr: Cannot open 'a.mp4': it is empty.\n"


@pytest.mark.parametrize(
    ("code", "said", "files", "seconds", "nbytes", "fault"),
    [
        (3, SENTENCE, (), 0.1, 0, ""),
        (1, SENTENCE, (), 0.1, 0, "exit code 1"),
        (3, "Traceback (most recent call last):\n" + SENTENCE, (), 0.1, 0, "no sentence"),
        (3, "ledetr: no.\n", (), 0.1, 0, "does not name it"),
        (3, "a warning\n" + SENTENCE, (), 0.1, 0, "2 lines"),
        (3, SENTENCE, ("a_boxes.mp4",), 0.1, 0, "leaves a_boxes.mp4"),
        (3, SENTENCE, ("a_boxes.mp4.job.json",), 0.1, 0, "leaves a_boxes.mp4.job.json"),
        (3, SENTENCE, ("a_boxes.partial.mp4", "a_boxes.mp4.job.json"), 0.1, 0, ""),
        (3, SENTENCE, (), 2.5, 0, "takes 2.5 s"),
        (3, SENTENCE, (), 0.1, 400_000_000, "takes 400 MB"),
        (3, SENTENCE.replace("empty", "token=secret"), (), 0.1, 0, "a password is shown"),
        (0, "", ("a_boxes.mp4",), 0.1, 0, "exit code 0"),
    ],
)
def test_what_is_wrong_is_seen(
    code: int, said: str, files: tuple[str, ...], seconds: float, nbytes: int, fault: str
) -> None:
    answer = Answer(bad_inputs.Outcome(code, said, files), "", seconds, seconds, nbytes)
    faults = bad_inputs.faults_of(REFUSED, answer)
    assert faults == [] if fault == "" else any(one.startswith(fault) for one in faults)


def test_a_crash_and_a_hang_are_faults() -> None:
    assert bad_inputs.faults_of(REFUSED, Answer(None, "died of SIGSEGV", 0.1, 0.0, 0)) == ["died of SIGSEGV"]
