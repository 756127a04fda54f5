"""What a user who installs the wheel gets: the three packages, the assets, and nothing that belongs to developers."""

import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import ledetr

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    pytest.importorskip("hatchling", reason="the build backend is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def test_contents(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"ledetr", "ledetr_app", "training", f"ledetr-{ledetr.__version__}.dist-info"}
    for wanted in ("ledetr/py.typed", "ledetr/__init__.py", "ledetr_app/__main__.py"):
        assert wanted in names


def test_every_tracked_asset_of_a_user_is_inside(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    here = [
        path for path in (ROOT / "assets").rglob("*") if path.suffix in (".svg", ".ttf", ".mp4", ".safetensors", ".md")
    ]
    larger = tuple(f"ledetr_{scale}.safetensors" for scale in "mlx")
    assert here
    for path in here:
        name = f"ledetr/{path.relative_to(ROOT).as_posix()}"
        assert (name in names) is not path.name.startswith(larger), name


def test_metadata(wheel: zipfile.ZipFile) -> None:
    folder = f"ledetr-{ledetr.__version__}.dist-info"
    metadata = Parser().parsestr(wheel.read(f"{folder}/METADATA").decode())
    assert metadata["Name"] == "ledetr" and metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == "<3.14,>=3.11"
    base = [need for need in metadata.get_all("Requires-Dist") if "extra ==" not in need]
    assert not [need for need in base if need.startswith(("torchvision", "opencv-python>", "opencv-python<"))]
    assert any(need.startswith("opencv-python-headless") for need in base)
    scripts = wheel.read(f"{folder}/entry_points.txt").decode()
    assert "ledetr = ledetr.cli.main:script" in scripts and "ledetr-app = ledetr_app.__main__:main" in scripts


def test_it_runs_from_the_wheel_alone(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    """Unpacked where no source tree is beside it: commands run, and the assets are found inside the package."""
    wheel.extractall(tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import ledetr, ledetr_app.resources as resources\n"
        f"assert ledetr.__file__.startswith({str(tmp_path)!r}), ledetr.__file__\n"
        "print(resources.asset('icons/app.svg'))\n"
        "from ledetr.weights_file import search_folders\n"
        "print(search_folders()[0])\n"
        "from ledetr.cli.main import main\n"
        "sys.exit(main(['--version']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    icon, weights, version = done.stdout.splitlines()
    assert Path(icon) == tmp_path / "ledetr/assets/icons/app.svg"
    assert Path(weights) == tmp_path / "ledetr/assets/weights"
    assert version == f"ledetr {ledetr.__version__}"
