"""The faults of docs/reliability.md, each provoked and judged, as one table.

    python -m benchmarks.faults                 # all that are covered
    python -m benchmarks.faults --only F3 F19
    python -m benchmarks.faults --kills 20      # and kill -9 at 20 random moments of an export, then --resume

A fault is provoked by the tests that stand in the table, with a fake source, model, disk or clock, or a real server on
loopback or a real child process. A row passes where all of its tests ran and passed; what nothing provokes yet is
printed as not covered, and a row whose tests were skipped as skipped.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
CHAIN = "tests/ledetr/chain"
APP = "tests/ledetr_app"
HERE = "tests/faults"


@dataclass(frozen=True, slots=True)
class Fault:
    """One row. tests: what provokes it, as pytest names it; none where nothing does. missing: what they leave out."""

    what: str
    expected: str
    tests: tuple[str, ...] = ()
    missing: str = ""


FAULTS = {
    "F1": Fault("source never answers", "sentence within 10 s, stop works",
                (f"{CHAIN}/test_camera.py::test_silence_while_opening_is_a_sentence_in_time",
                 f"{CHAIN}/test_pipeline.py::test_stop_from_everywhere")),
    "F2": Fault("answers, sends no media", "sentence in time",
                (f"{CHAIN}/test_camera.py::test_silence_in_the_middle_is_a_loss_in_time",), "an RTSP server"),
    "F3": Fault("dies in the middle", "said, last picture kept, tries go on",
                (f"{CHAIN}/test_pipeline.py::test_a_lost_live_source_is_brought_back",
                 f"{CHAIN}/test_camera.py::test_a_stream_is_live_and_its_end_is_a_loss",
                 f"{APP}/test_window.py::test_a_lost_source_dims_the_last_picture_and_says_since_when")),
    "F4": Fault("comes back", "new epoch, picture again",
                (f"{CHAIN}/test_pipeline.py::test_a_lost_live_source_is_brought_back",), "300 s, memory"),
    "F5": Fault("comes back with another size, rate, codec", "picture right, tracker told",
                (f"{HERE}/test_changed_streams.py::test_what_comes_back_as_another_stream_is_read_anew",)),
    "F6": Fault("1 packet in 20 lost, as many late and reordered", "no crash, damaged pictures counted, age bounded",
                (f"{HERE}/test_changed_streams.py::test_lost_late_and_reordered_packets_are_survived_and_counted",
                 f"{HERE}/test_changed_streams.py::test_a_stream_without_losses_has_nothing_damaged"),
                "UDP up to the reader: between it and the lossy UDP stands HTTP"),
    "F7": Fault("flaps every second", "retry delay grows, tries do not pile up",
                (f"{CHAIN}/test_pipeline.py::test_a_flapping_source_is_tried_more_and_more_slowly",
                 f"{CHAIN}/test_pipeline.py::test_tries_that_hang_do_not_pile_up")),
    "F8": Fault("wrong password, 404, no video", "the right sentence, no endless tries, password nowhere",
                (f"{CHAIN}/test_camera.py::test_refusals_are_told_apart",
                 f"{CHAIN}/test_camera.py::test_not_a_video",
                 f"{CHAIN}/test_pipeline.py::test_a_wrong_password_at_the_return_ends_the_tries",
                 f"{APP}/test_session.py::test_passwords_are_neither_shown_nor_remembered"), "TLS"),
    "F9": Fault("time goes back, jumps, repeats", "new epoch live, order kept in exports",
                (f"{CHAIN}/test_camera.py::test_a_jump_of_its_clock_begins_an_epoch",
                 f"{CHAIN}/test_recorder.py::test_a_time_that_does_not_grow_is_moved_by_one_tick")),
    "F10": Fault("camera unplugged, other in its place", "the same id only",
                 (f"{CHAIN}/test_camera.py::test_linux_cameras_by_name_and_stable_id",), "a real unplugging"),
    "F11": Fault("camera busy, refused", "sentence with what to do",
                 (f"{CHAIN}/test_camera.py::test_camera_errors_are_told_apart",)),
    "F12": Fault("painter slow", "one pending event at most, drops counted",
                 (f"{APP}/test_bridge.py::test_slow_painter_delays_no_one_else",
                  f"{CHAIN}/test_live_age.py::test_a_slow_painter_holds_nobody_up_and_what_it_misses_is_counted")),
    "F13": Fault("inference slow or stuck", "stop in time",
                 (f"{CHAIN}/test_pipeline.py::test_stop_from_everywhere",
                  f"{CHAIN}/test_pipeline.py::test_open_another_from_everywhere")),
    "F14": Fault("model cannot be loaded", "old model kept, window alive",
                 (f"{APP}/test_session.py::test_failed_switch_keeps_the_old_model_and_says_why",
                  f"{CHAIN}/test_pipeline.py::test_a_failing_model_ends_with_its_cause"), "real GPU memory"),
    "F15": Fault("driver lost", "one sentence, offer the CPU",
                 (f"{HERE}/test_lost_driver.py::test_it_is_one_sentence_that_offers_the_cpu_and_the_window_lives",
                  f"{HERE}/test_lost_driver.py::test_an_export_keeps_what_it_has"), "a real driver"),
    "F16": Fault("NaN, no boxes, boxes outside", "filtered, no crash",
                 ("tests/ledetr/test_decode.py::test_rows_that_are_not_finite_are_dropped",
                  "tests/ledetr/test_decode.py::test_nothing_above_the_floor",
                  "tests/ledetr/test_decode.py::test_huge_logits_give_scores_in_range")),
    "F17": Fault("disk full", "what is there plays, one sentence",
                 (f"{CHAIN}/test_recorder.py::test_a_disk_that_fills_up_leaves_a_file_that_plays",
                  f"{CHAIN}/test_recorder.py::test_the_disk_is_called_full_in_time",
                  f"{CHAIN}/test_recorder.py::test_no_room_for_the_final_form_is_said_and_all_is_kept")),
    "F18": Fault("folder refused, name too long, link to source", "refused before work starts",
                 (f"{CHAIN}/test_recorder.py::test_a_folder_that_refuses_is_said_before_anything_is_done",
                  f"{CHAIN}/test_recorder.py::test_a_name_too_long_is_said",
                  f"{CHAIN}/test_video.py::test_the_source_is_never_the_target")),
    "F19": Fault("kill -9", "at most 2 s lost, final name whole or absent, resume gives the same pictures",
                 (f"{CHAIN}/test_resume.py::test_after_kill_it_goes_on_with_at_most_two_seconds_lost",
                  f"{CHAIN}/test_resume.py::test_killed_again_and_again",
                  f"{CHAIN}/test_recorder.py::test_after_kill_the_part_file_plays_up_to_its_last_two_seconds")),
    "F20": Fault("Ctrl-C once, twice", "partial file plays, exit 130",
                 ("tests/ledetr/cli/test_detect.py::test_ctrl_c_keeps_a_partial_that_plays_and_exits_130",
                  f"{CHAIN}/test_video.py::test_asked_twice_the_part_file_stays_and_plays"), "a terminal"),
    "F21": Fault("settings broken", "set aside, not fatal",
                 (f"{APP}/test_settings.py::test_a_broken_file_is_set_aside_and_not_lost",), "two windows at once"),
    "F22": Fault("machine sleeps", "new epoch live, files and exports go on",
                 (f"{HERE}/test_sleep.py::test_a_live_source_goes_on_in_a_new_epoch",
                  f"{HERE}/test_sleep.py::test_a_file_that_plays_goes_on_where_it_was",
                  f"{HERE}/test_sleep.py::test_an_export_goes_on",
                  f"{HERE}/test_sleep.py::test_a_loss_that_the_sleep_made_is_tried_again_at_once"), "a real sleep"),
    "F23": Fault("screen scale changes while running", "overlay sharp, no crash",
                 (f"{HERE}/test_screens.py::test_moved_to_a_finer_screen_and_back_while_it_plays",),
                 "a screen that is pulled out"),
    "F24": Fault("model switched while running", "no frame of two models, old one released",
                 (f"{CHAIN}/test_pipeline.py::test_the_model_changes_between_two_frames_and_the_old_one_is_released",
                  f"{APP}/test_session.py::test_switch_goes_on_showing_pictures_and_closes_the_old_model"),
                 "50 switches on a GPU"),
    "F25": Fault("exception in a callback", "carried up, threads end, file closed",
                 (f"{CHAIN}/test_video.py::test_a_callback_that_fails_ends_all_stages",
                  f"{CHAIN}/test_pipeline.py::test_an_exception_in_a_callback_ends_the_session")),
}  # fmt: skip


class Outcomes:
    """A pytest plugin: outcomes of each test function, whatever its parameters."""

    def __init__(self) -> None:
        self.of: dict[str, Counter[str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count the call, and what went wrong before or after it."""
        if report.when == "call" or report.outcome != "passed":
            self.of.setdefault(report.nodeid.partition("[")[0], Counter())[report.outcome] += 1


def row_of(fault: Fault, outcomes: Outcomes) -> tuple[str, str]:
    """What was seen, and the judgement: pass, FAIL, skipped or not covered."""
    if not fault.tests:
        return "nothing provokes it yet", "not covered"
    counts = [outcomes.of.get(test, Counter()) for test in fault.tests]
    total = sum(counts, Counter())
    seen = ", ".join(f"{count} {outcome}" for outcome, count in total.items()) or "no test found"
    if total["failed"] or not all(counts):
        return seen, "FAIL"
    return seen, "skipped" if any(not count["passed"] for count in counts) else "pass"


def print_table(chosen: list[str]) -> bool:
    """Provoke the faults and print the table; whether none failed."""
    outcomes = Outcomes()
    tests = sorted({test for name in chosen for test in FAULTS[name].tests})
    # In pytest's own words only what failed, and to the other stream, so that the table can be kept.
    stdout, sys.stdout = sys.stdout, sys.stderr
    try:
        if tests:
            pytest.main(
                ["-q", "--rootdir", str(ROOT), "--no-header", *(str(ROOT / test) for test in tests)], [outcomes]
            )
    finally:
        sys.stdout = stdout
    good = True
    print("| fault | provoked | expected | seen | verdict | not provoked |\n| --- | --- | --- | --- | --- | --- |")
    for name in chosen:
        fault = FAULTS[name]
        seen, verdict = row_of(fault, outcomes)
        good = good and verdict != "FAIL"
        print(f"| {name} | {fault.what} | {fault.expected} | {seen} | {verdict} | {fault.missing} |")
    covered = sum(bool(FAULTS[name].tests) for name in chosen)
    print(f"\n{covered} of {len(chosen)} faults are covered.")
    return good


def kill_at_random(times: int, seed: int) -> bool:
    """Kill exports at random pictures and go on with each; whether every one came out as if nothing had happened."""
    tests = _resume_tests()
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder_name:
        folder = Path(folder_name)
        src, whole = tests.make_clip(folder / "clip.mp4"), folder / "whole.mp4"
        tests.export(src, whole, tests.OneBox())
        at_s = [time for time, _ in tests.pictures_of(whole)]
        worst_s = 0.0
        for number in range(times):
            dst = folder / f"{number:03}" / "whole.mp4"
            dst.parent.mkdir()
            frame = chance.randrange(2, tests.FRAMES)
            tests.run_until_killed(src, dst, frame)
            if dst.exists():
                print(f"kill at picture {frame}: the final name was there before the end")
                return False
            detector = tests.OneBox()
            tests.export(src, dst, detector, resume=True)
            tests.assert_same_results(dst, whole)
            kept = tests.FRAMES - detector.seen
            lost_s = float(at_s[frame - 1] - (at_s[kept] if kept else 0))
            worst_s = max(worst_s, lost_s)
            print(f"kill -9 at picture {frame:3} of {tests.FRAMES}: {kept:3} kept, {lost_s:.2f} s lost, same list")
        print(f"{times} kills: all resumed to the same pictures, times, sound and lists; at most {worst_s:.2f} s lost")
        return worst_s <= 2.0


def _resume_tests() -> ModuleType:
    path = ROOT / CHAIN / "test_resume.py"
    spec = util.spec_from_file_location("test_resume", path)
    assert spec is not None and spec.loader is not None  # a file of ours
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> int:
    """Exit code 0 where nothing failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=list(FAULTS), default=list(FAULTS), help="these rows")
    parser.add_argument("--kills", type=int, default=0, help="kill -9 at so many random moments; only that")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    args = parser.parse_args()
    os.chdir(ROOT)
    good = kill_at_random(args.kills, args.seed) if args.kills else print_table(args.only)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
