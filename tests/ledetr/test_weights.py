"""A weights file comes back as it was saved; every other file is refused with one sentence."""

import hashlib
import json
import math
import pickle
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from ledetr.errors import LeDetrError, UsageError, WeightsError
from ledetr.model.config import VARIANTS, ledetr_tiny
from ledetr.model.ledetr import LeDetr, build_model
from ledetr.weights import WeightsInfo, find_weights, load_model, read_info, save_weights
from ledetr.weights_file import search_folders

MakeInfo = Callable[..., WeightsInfo]


def document_of(path: Path) -> tuple[dict, bytes]:
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def write_document(path: Path, document: object, payload: bytes) -> Path:
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + payload)
    return path


def refusal(path: Path) -> str:
    """The one sentence with which a file is refused."""
    with pytest.raises(WeightsError) as caught:
        load_model(path)
    message = str(caught.value)
    assert path.name in message
    assert "\n" not in message
    assert len(message) < 1000
    return message


# --- there and back


def test_fp32_comes_back_bit_for_bit(tiny_weights: Path, tiny_model: LeDetr) -> None:
    model, _ = load_model(tiny_weights)
    assert not model.training
    for name, tensor in tiny_model.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


def test_fp16_rounds_matrices_and_keeps_vectors(tmp_path: Path, tiny_model: LeDetr, make_info: MakeInfo) -> None:
    save_weights(tmp_path / "half.safetensors", tiny_model, make_info(tiny_model.config))
    model, _ = load_model(tmp_path / "half.safetensors")
    for name, tensor in tiny_model.state_dict().items():
        expected = tensor.half().float() if tensor.is_floating_point() and tensor.ndim > 1 else tensor
        assert torch.equal(model.state_dict()[name], expected), name


def test_fp16_keeps_what_it_would_overflow(
    tmp_path: Path, make_model: Callable[..., LeDetr], make_info: MakeInfo
) -> None:
    model = make_model(ledetr_tiny())
    name = next(name for name, parameter in model.named_parameters() if parameter.ndim > 1)
    model.get_parameter(name).data.view(-1)[0] = 1e5
    save_weights(tmp_path / "large.safetensors", model, make_info(model.config))
    assert torch.equal(load_model(tmp_path / "large.safetensors")[0].state_dict()[name], model.state_dict()[name])


def test_info_comes_back(tiny_weights: Path, make_info: MakeInfo) -> None:
    info = read_info(tiny_weights)
    assert replace(info, path=None, sha256="") == make_info(ledetr_tiny())
    assert info.path == tiny_weights


def test_the_safetensors_package_reads_our_file(tiny_weights: Path, tiny_model: LeDetr) -> None:
    with safe_open(tiny_weights, framework="pt") as file:
        assert set(file.keys()) == set(tiny_model.state_dict())
        assert file.metadata()["scale"] == "tiny"
        for name, tensor in tiny_model.state_dict().items():
            assert torch.equal(file.get_tensor(name), tensor)


def test_sha256_is_that_of_the_payload(tiny_weights: Path) -> None:
    assert read_info(tiny_weights).sha256 == hashlib.sha256(document_of(tiny_weights)[1]).hexdigest()


def test_equal_weights_give_equal_files(tmp_path: Path, tiny_model: LeDetr, make_info: MakeInfo) -> None:
    for name in ("a.safetensors", "b.safetensors"):
        save_weights(tmp_path / name, tiny_model, make_info(tiny_model.config))
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_fewer_decoder_layers(tiny_weights: Path) -> None:
    model, info = load_model(tiny_weights, decoder_layers=1)
    assert model.config.decoder.eval_layers == 1
    assert info.config.decoder.eval_layers == 2
    with pytest.raises(UsageError, match="has 2 decoder layers, asked for 3"):
        load_model(tiny_weights, decoder_layers=3)


def test_other_classes(tmp_path: Path, make_info: MakeInfo) -> None:
    config = ledetr_tiny(classes=2)
    info = make_info(config, class_names=("Eule", "Säge"), category_ids=(7, 3))
    save_weights(tmp_path / "two.safetensors", build_model(config), info)
    assert load_model(tmp_path / "two.safetensors")[1].class_names == ("Eule", "Säge")


# --- saving refuses what loading would refuse


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"class_names": ("a",)}, "1 class names and 80 category ids for a network of 80 classes"),
        ({"class_names": ("x" * 201,) * 80}, "class_names has an entry"),
        ({"class_names": ("red\x1b[31m",) * 80}, "class_names has an entry"),
        ({"input_hw": (100, 100)}, "multiples of 32"),
        ({"score_threshold": 1.5}, "score_threshold is no number in 0..1"),
        ({"ap": {"ap": math.nan}}, "ap has an entry"),
        ({"licence": "x" * 20_000}, "licence is longer"),
    ],
)
def test_unfit_info_is_not_written(
    tmp_path: Path, tiny_model: LeDetr, make_info: MakeInfo, changes: dict, words: str
) -> None:
    with pytest.raises(WeightsError, match=words):
        save_weights(tmp_path / "w.safetensors", tiny_model, make_info(tiny_model.config, **changes))
    assert list(tmp_path.iterdir()) == []


def test_not_finite_is_not_written(tmp_path: Path, make_model: Callable[..., LeDetr], make_info: MakeInfo) -> None:
    model = make_model(ledetr_tiny())
    next(model.parameters()).data.view(-1)[0] = math.inf
    with pytest.raises(WeightsError, match="not finite"):
        save_weights(tmp_path / "w.safetensors", model, make_info(model.config))
    assert list(tmp_path.iterdir()) == []


def test_a_failed_save_leaves_the_old_file(
    tmp_path: Path, tiny_model: LeDetr, make_info: MakeInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"old")

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        save_weights(path, tiny_model, make_info(tiny_model.config))
    assert [file.name for file in tmp_path.iterdir()] == ["w.safetensors"]
    assert path.read_bytes() == b"old"


# --- files that are refused


def test_pickle_renamed(tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    torch.save({"a": torch.zeros(3)}, path)
    assert "is a pickle" in refusal(path)
    path.write_bytes(pickle.dumps({"a": 1}))
    assert "is a pickle" in refusal(path)


@pytest.mark.parametrize("content", [b"", b"a", b"text that somebody renamed", b"\0" * 100, b"\xff" * 100])
def test_not_safetensors(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    refusal(path)


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.99])
def test_cut_short(tmp_path: Path, tiny_weights: Path, share: float) -> None:
    content = tiny_weights.read_bytes()
    path = tmp_path / "cut.safetensors"
    path.write_bytes(content[: int(len(content) * share)])
    assert "cut short" in refusal(path)


def test_one_flipped_bit_of_the_payload(tmp_path: Path, tiny_weights: Path) -> None:
    content = bytearray(tiny_weights.read_bytes())
    content[-100] ^= 1
    path = tmp_path / "flipped.safetensors"
    path.write_bytes(content)
    assert "is damaged: SHA-256" in refusal(path)


def test_nan_inside(tmp_path: Path, tiny_weights: Path) -> None:
    document, payload = document_of(tiny_weights)
    name, entry = next((n, e) for n, e in document.items() if n != "__metadata__" and e["dtype"] == "F32")
    begin = entry["data_offsets"][0]
    payload = payload[:begin] + struct.pack("<f", math.nan) + payload[begin + 4 :]
    document["__metadata__"]["sha256"] = hashlib.sha256(payload).hexdigest()
    message = refusal(write_document(tmp_path / "nan.safetensors", document, payload))
    assert "not finite" in message
    assert name in message


def test_a_file_of_somebody_else(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(3)}, path)
    assert "was not written by Le-DETR" in refusal(path)


def test_wrong_names_say_what_differs(tmp_path: Path, tiny_weights: Path) -> None:
    document, payload = document_of(tiny_weights)
    names = [name for name in document if name != "__metadata__"]
    document["evil\x1b[2J"[:4]] = document.pop(names[0])
    message = refusal(write_document(tmp_path / "names.safetensors", document, payload))
    assert f"1 missing: {names[0]!r}" in message
    assert "1 extra: 'evil'" in message


def test_wrong_shape_says_both(tmp_path: Path, tiny_weights: Path) -> None:
    document, payload = document_of(tiny_weights)
    name = next(n for n, e in document.items() if n != "__metadata__" and len(e["shape"]) == 2)
    shape = document[name]["shape"]
    document[name]["shape"] = [shape[0] * shape[1]]
    message = refusal(write_document(tmp_path / "shape.safetensors", document, payload))
    assert f"1 of another shape: {name!r} file {[shape[0] * shape[1]]} network {shape}" in message


def test_the_config_of_another_network(tmp_path: Path, tiny_weights: Path) -> None:
    document, payload = document_of(tiny_weights)
    document["__metadata__"]["config"] = json.dumps(VARIANTS["n"]().to_dict())
    message = refusal(write_document(tmp_path / "other.safetensors", document, payload))
    assert "does not fit the network 'n' it describes" in message
    assert "missing" in message
    assert "extra" in message


def _set(path: tuple[str, ...], value: object) -> Callable[[dict], None]:
    def change(config: dict) -> None:
        for key in path[:-1]:
            config = config[key]
        config[path[-1]] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        _set(("decoder", "layers"), 10**9),
        _set(("decoder", "queries"), 10**9),
        _set(("decoder", "layers"), True),
        _set(("decoder", "dim"), "wide"),
        _set(("decoder", "dim"), -32),
        _set(("decoder", "dim"), 33),
        _set(("decoder", "norm"), "batch"),
        _set(("decoder", "points"), []),
        _set(("decoder", "points"), 3),
        _set(("decoder", "eval_layers"), 5),
        _set(("decoder", "reg_scale"), [1]),
        _set(("encoder", "expansion"), 1e300),
        _set(("encoder", "expansion"), -1.0),
        _set(("encoder", "heads"), 0),
        _set(("encoder", "unknown"), 1),
        _set(("encoder",), None),
        _set(("backbone", "widths"), [8] * 1000),
        _set(("backbone", "widths"), [[8]]),
        _set(("backbone", "kind"), "resnet"),
        _set(("backbone",), 5),
        _set(("input_hw",), [96]),
        _set(("name",), 5),
        _set(("pixel_std",), 0.0),
    ],
)
def test_odd_configs(tmp_path: Path, tiny_weights: Path, change: Callable[[dict], None]) -> None:
    document, payload = document_of(tiny_weights)
    config = json.loads(document["__metadata__"]["config"])
    change(config)
    document["__metadata__"]["config"] = json.dumps(config)
    refusal(write_document(tmp_path / "odd.safetensors", document, payload))


@pytest.mark.parametrize(
    "key", ["scale", "config", "class_names", "category_ids", "input_hw", "ap", "licence", "sha256"]
)
def test_every_field_is_needed(tmp_path: Path, tiny_weights: Path, key: str) -> None:
    document, payload = document_of(tiny_weights)
    del document["__metadata__"][key]
    message = refusal(write_document(tmp_path / "short.safetensors", document, payload))
    assert key in message or "damaged" in message


def _entry(document: dict) -> dict:
    return next(e for name, e in document.items() if name != "__metadata__" and e["dtype"] == "F32")


@pytest.mark.parametrize(
    "change",
    [
        lambda d: _entry(d).update(dtype="F64"),
        lambda d: _entry(d).update(dtype=[]),
        lambda d: _entry(d).update(dtype="I64"),
        lambda d: _entry(d).update(shape=[-1]),
        lambda d: _entry(d).update(shape=[2.5]),
        lambda d: _entry(d).update(shape=[True]),
        lambda d: _entry(d).update(shape=[2**40, 2**40]),
        lambda d: _entry(d).update(shape=None),
        lambda d: _entry(d).update(shape=[1] * 1000),
        lambda d: _entry(d).update(data_offsets=[0, 2**63]),
        lambda d: _entry(d).update(data_offsets=[4, 0]),
        lambda d: _entry(d).update(data_offsets=[0]),
        lambda d: _entry(d).pop("shape"),
        lambda d: _entry(d).update(extra=1),
        lambda d: d.update({"hole": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}),
        lambda d: d.update({"x" * 5000: {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}),
        lambda d: d.update({"": 5}),
        lambda d: d.update({"__metadata__": [1]}),
        lambda d: d["__metadata__"].update(scale=5),
        lambda d: d["__metadata__"].update(class_names=json.dumps(["a"] * 100_001)),
        lambda d: d["__metadata__"].update(category_ids=json.dumps([1.5] * 80)),
        lambda d: d["__metadata__"].update(ap="[" * 100_000),
        lambda d: d["__metadata__"].update(ap="NaN"),
        lambda d: d["__metadata__"].update(score_threshold="true"),
        lambda d: d["__metadata__"].update(trained_on="\x1b[2J"),
    ],
)
def test_odd_headers(tmp_path: Path, tiny_weights: Path, change: Callable[[dict], None]) -> None:
    document, payload = document_of(tiny_weights)
    change(document)
    refusal(write_document(tmp_path / "odd.safetensors", document, payload))


@pytest.mark.parametrize(
    "text", [b"[]", b"5", b"{", b"\xff\xfe{}", b"[" * 1_000_000, b'{"a":1,"a":1}', b'"' + b"a" * 99]
)
def test_headers_that_are_no_object(tmp_path: Path, text: bytes) -> None:
    refusal(write_document(tmp_path / "odd.safetensors", text, b""))


def test_huge_header_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 2**30))
        file.truncate(2**31)  # sparse: takes no disk
    assert "header of 1073741824 bytes, allowed are" in refusal(path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=st.lists(st.tuples(st.integers(0, 2**30), st.integers(0, 7)), min_size=1, max_size=10))
def test_flipped_bits_of_the_header(tmp_path: Path, tiny_weights: Path, flips: list[tuple[int, int]]) -> None:
    """A damaged header is refused, or says the same in its names and shapes; nothing but our own error comes out."""
    content = bytearray(tiny_weights.read_bytes())
    header_end = 8 + struct.unpack("<Q", content[:8])[0]
    for position, bit in flips:
        content[position % header_end] ^= 1 << bit
    path = tmp_path / "flipped.safetensors"
    path.write_bytes(content)
    try:
        _, info = load_model(path)
    except LeDetrError as error:
        assert "\n" not in str(error)
    else:
        assert info.sha256 == read_info(tiny_weights).sha256


# --- finding


def test_explicit_path(tiny_weights: Path) -> None:
    assert find_weights(tiny_weights) == tiny_weights
    assert find_weights(str(tiny_weights)) == tiny_weights


def test_missing_path(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"none\.safetensors' does not exist"):
        find_weights(tmp_path / "none.safetensors")
    with pytest.raises(WeightsError, match="is a folder, not a weights file"):
        find_weights(tmp_path)


def test_unknown_name() -> None:
    with pytest.raises(WeightsError, match="unknown model 'q': known are n, m, l, x"):
        find_weights("q")
    with pytest.raises(WeightsError, match=r"unknown model 'N' \(did you mean 'n'\?\): known are"):
        find_weights("N")


def test_order_of_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert search_folders()[-1] == tmp_path / "user data" / "weights"
    folders = (tmp_path / "package", tmp_path / "user")
    monkeypatch.setattr("ledetr.weights_file.search_folders", lambda: folders)
    with pytest.raises(WeightsError) as caught:
        find_weights("m")
    assert all(str(folder) in str(caught.value) for folder in folders)
    assert "random_weights=True" in str(caught.value)
    for folder in reversed(folders):
        folder.mkdir()
        (folder / "ledetr_m.safetensors").touch()
        assert find_weights("m").parent == folder
