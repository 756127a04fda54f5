"""What the README tells people to type exists: commands, flags, extras, files. And no text names one machine."""

import re
import shlex
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

from ledetr.cli.main import COMMANDS, load_command
from ledetr.cli.sizes import SIZES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DOCUMENTS = sorted(path for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")))


def blocks_of(text: str, *languages: str) -> list[str]:
    """The fenced blocks that are marked with one of these languages; "" for those without a mark."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    return [block for language, block in fenced if language in languages]


def typed_lines(text: str) -> list[str]:
    """What a reader may type: lines of shell blocks, and code spans."""
    blocks = blocks_of(text, "sh", "powershell")
    lines = [line.split("  #")[0].split(" # ")[0].strip() for block in blocks for line in block.splitlines()]
    without_blocks = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return lines + re.findall(r"`([^`\n]+)`", without_blocks)


def commands(program: str) -> list[list[str]]:
    """Typed lines that call a program, as words, its folder taken off."""
    found = []
    for document in DOCUMENTS:
        for line in typed_lines(document.read_text(encoding="utf-8")):
            words = shlex.split(line.replace("\\", "/"), comments=False) if line.count("'") % 2 == 0 else []
            if words and words[0].rpartition("/")[2] == program:
                found.append(words)
    return found


def test_the_readers_below_find_something() -> None:
    assert len(commands("ledetr")) > 8 and len(commands("make")) > 3 and commands("ledetr-app")


@pytest.mark.parametrize("words", commands("ledetr"), ids=" ".join)
def test_ledetr_commands_exist_with_their_flags(words: list[str]) -> None:
    if len(words) == 1:
        return
    if words[1].startswith("-"):
        assert words[1] in ("--help", "--version", "--debug")
        return
    assert words[1] in COMMANDS
    assert {word for word in words[2:] if word.startswith("-")} <= flags_of(words[1]) | {"--help", "--debug"}


@cache
def flags_of(name: str) -> frozenset[str]:
    command = load_command(name)
    if not command.context_settings.get("ignore_unknown_options"):
        return frozenset(flag for part in command.params for flag in (*part.opts, *part.secondary_opts))
    # Hands its words on to a process of its own, which alone knows them.
    helped = subprocess.run(
        [sys.executable, "-m", "ledetr.cli.main", name, "--help"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return frozenset(re.findall(r"(?<![\w-])--?[a-z][\w-]*", helped.stdout))


@pytest.mark.parametrize("words", commands("make"), ids=" ".join)
def test_make_targets_exist(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in (word for word in words[1:] if "=" not in word):
        assert re.search(rf"^{re.escape(target)}:", makefile, flags=re.MULTILINE), target


def test_the_window_takes_the_flags_that_are_named() -> None:
    import ledetr_app.__main__ as app

    with pytest.raises(SystemExit) as stop:
        app.main(["--help"])
    assert stop.value.code == 0
    assert PYPROJECT["project"]["gui-scripts"]["ledetr-app"] == "ledetr_app.__main__:main"
    assert callable(app.main)


def test_extras_and_pins_that_are_named_exist() -> None:
    extras = PYPROJECT["project"]["optional-dependencies"]
    for document in DOCUMENTS:
        for named in re.findall(r'"\.\[([\w,]+)\]"', document.read_text(encoding="utf-8")):
            assert set(named.split(",")) <= set(extras)
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    for pin in re.findall(r"`(\w+==[\w.]+)`", README):
        assert pin in pins


def test_python_examples_compile() -> None:
    examples = blocks_of(README, "python")
    assert len(examples) == 2
    for example in examples:
        compile(example, "README.md", "exec")


@pytest.mark.weights
def test_the_first_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (320, 200), "grey").save("street.jpg")
    exec(compile(blocks_of(README, "python")[0], "README.md", "exec"), {})


def test_the_tree_is_the_tree() -> None:
    (tree,) = blocks_of(README, "")
    folder = ""
    for line in tree.splitlines():
        name = line.split()[0]
        folder = folder if line.startswith(" ") else name
        path = ROOT / (folder + name if line.startswith(" ") else name)
        assert path.exists(), name


def test_links_lead_somewhere() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
            if not target.startswith("https://"):
                assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_sizes_in_the_readme_are_those_of_the_models() -> None:
    for scale, size in SIZES.items():
        figures = (size.params_m, size.gflops, size.params_deploy_m, size.gflops_deploy)
        assert f"| {scale.upper()} | " + " | ".join(f"{figure:.1f}" for figure in figures) + " |" in README


def test_dependencies_have_their_reason() -> None:
    """One line each with a comment, as the next reader asks "why is this here?"."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    block = text[text.index("dependencies = [") : text.index("[project.scripts]")]
    for line in block.splitlines():
        if line.strip().startswith('"') and not line.strip().startswith('"ledetr['):
            assert "#" in line, line


def tracked_text_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    binary = {".png", ".webp", ".jpg", ".mp4", ".ttf", ".safetensors", ".onnx", ".ico"}
    paths = (ROOT / name for name in listed.stdout.split("\0") if name)
    return [path for path in paths if path.suffix not in binary and path.is_file()]


def test_no_text_names_a_folder_of_one_machine() -> None:
    """Paths of somebody's home or workplace: useless to others, and nobody's business."""
    # Put together here, so that this file does not name them.
    roots = "|".join(("/" + "work", "/" + "root", "/" + "home", "/" + "Users", "/" + "tmp"))
    pattern = re.compile(rf"(?<![\w.>/~-])(?:{roots})/[\w.]|[A-Z]:\\\\?Users\\")
    wrong = []
    for path in tracked_text_files():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if pattern.search(line):
                wrong.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert not wrong, "\n".join(wrong)
