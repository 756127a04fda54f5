"""What a Le-DETR is made of, as frozen dataclasses, and the four scales as functions.

M, L and X follow table 6 of the paper (arXiv:2602.21010); what the paper leaves open is said where it is decided.
N is our own small scale: an EfficientNet-Lite0 trunk, two levels, 96 channels, so that public weights can start it.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class EfficientNatConfig:
    """EfficientNAT (paper section 3.4). depths count the blocks after each stage's stride-2 block."""

    kind: Literal["efficientnat"] = "efficientnat"
    widths: tuple[int, ...] = (32, 64, 128, 256, 512)
    depths: tuple[int, ...] = (1, 1, 1, 4, 4)
    down_expand: tuple[int, ...] = (16, 16, 16, 24)
    block_expand: tuple[int, ...] = (4, 4, 4, 4)
    na_heads: int = 16
    na_kernel: int = 7
    na_dilation: int = 1


@dataclass(frozen=True, kw_only=True)
class LiteNatConfig:
    """EfficientNet-Lite0 trunk with one neighborhood-attention layer in front of the last stride-32 block.

    Each stage row: blocks, kernel, stride, expansion, output channels. The last three strides give the levels.
    """

    kind: Literal["lite"] = "lite"
    stem: int = 32
    stages: tuple[tuple[int, int, int, int, int], ...] = (
        (1, 3, 1, 1, 16),
        (2, 3, 2, 6, 24),
        (2, 5, 2, 6, 40),
        (3, 3, 2, 6, 80),
        (3, 5, 1, 6, 112),
        (4, 5, 2, 6, 192),
    )
    # Stages whose output the encoder takes: stride 8 (side branch), 16 and 32.
    outputs: tuple[int, ...] = (2, 4, 5)
    na_heads: int = 6
    na_kernel: int = 7
    na_dilation: int = 1


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Hybrid encoder. fuse "csp_rep": RT-DETR's three levels by concatenation; "elan_sum": N's two by sums.

    naifi: "na1d" slides over the flattened row-major sequence, "na2d" over the map, "full" is plain AIFI.
    Kernel 63 of table 6 does not fit a 20 x 20 map in two dimensions, so it is read as one-dimensional.
    """

    dim: int = 256
    heads: int = 8
    ffn: int = 1024
    fuse: Literal["csp_rep", "elan_sum"] = "csp_rep"
    blocks: int = 3
    expansion: float = 1.0
    naifi: Literal["na1d", "na2d", "full"] = "na1d"
    naifi_kernel: int = 63
    # "post": LayerNorm after each residual sum, as in RT-DETR. "scaled": the layer adds nothing at start.
    naifi_residual: Literal["post", "scaled"] = "post"


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """D-FINE-style decoder. layers are trained, eval_layers are used; points are per level."""

    dim: int = 256
    heads: int = 8
    ffn: int = 1024
    layers: int = 6
    eval_layers: int = 6
    points: tuple[int, ...] = (3, 6, 3)
    queries: int = 300
    classes: int = 80
    reg_max: int = 32
    reg_scale: float = 4.0
    up: float = 0.5
    denoising: int = 200
    norm: Literal["layer", "rms"] = "layer"
    feed_forward: Literal["mlp", "swiglu"] = "mlp"
    gate: bool = True
    shared_box_head: bool = False
    select_projection: bool = True
    position_layers: int = 2
    position_hidden: int = 512
    # D-FINE computes the position code anew from each layer's box; the public small decoder keeps the first.
    position_each_layer: bool = True
    quality_act: Literal["relu", "silu"] = "relu"


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A whole network. pixel_mean and pixel_std are on the 0..255 scale and applied inside the model."""

    name: str
    backbone: EfficientNatConfig | LiteNatConfig
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    input_hw: tuple[int, int] = (640, 640)
    pixel_mean: float = 0.0
    pixel_std: float = 255.0

    @property
    def strides(self) -> tuple[int, ...]:
        """Strides of the levels that the decoder sees."""
        return (8, 16, 32) if self.encoder.fuse == "csp_rep" else (16, 32)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ModelConfig":
        """The config that to_dict described; ValueError names a key that is unknown or missing."""
        values = dict(values)
        backbone = dict(values.pop("backbone", {}))
        kinds: dict[str, type[EfficientNatConfig] | type[LiteNatConfig]] = {
            "efficientnat": EfficientNatConfig,
            "lite": LiteNatConfig,
        }
        kind = backbone.get("kind")
        if kind not in kinds:
            raise ValueError(f"backbone kind {kind!r} is not one of {', '.join(kinds)}")
        return _build(
            cls,
            {
                **values,
                "backbone": _build(kinds[kind], backbone),
                "encoder": _build(EncoderConfig, dict(values.get("encoder", {}))),
                "decoder": _build(DecoderConfig, dict(values.get("decoder", {}))),
            },
        )

    def with_classes(self, classes: int) -> "ModelConfig":
        """The same network with another number of classes."""
        return replace(self, decoder=replace(self.decoder, classes=classes))


def _build(cls: type[T], values: dict[str, Any]) -> T:
    known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(f"{cls.__name__} has no field {unknown[0]!r}")
    try:
        return cls(**{key: _tuples(value) for key, value in values.items()})
    except TypeError as error:
        raise ValueError(f"{cls.__name__}: {error}") from error


def _tuples(value: Any) -> Any:
    """JSON knows lists only; configs are hashable and hold tuples."""
    return tuple(_tuples(v) for v in value) if isinstance(value, list | tuple) else value


def ledetr_n() -> ModelConfig:
    """About 3.3 M parameters, 416 px: for laptops without a GPU."""
    return ModelConfig(
        name="n",
        backbone=LiteNatConfig(),
        encoder=EncoderConfig(
            dim=96, heads=6, ffn=192, fuse="elan_sum", naifi="na2d", naifi_kernel=13, naifi_residual="scaled"
        ),
        decoder=DecoderConfig(
            dim=96,
            ffn=128,
            layers=3,
            eval_layers=3,
            points=(4, 2),
            queries=150,
            norm="rms",
            feed_forward="swiglu",
            gate=False,
            shared_box_head=True,
            select_projection=False,
            position_layers=3,
            position_hidden=96,
            position_each_layer=False,
            quality_act="silu",
        ),
        input_hw=(416, 416),
        pixel_mean=127.0,
        pixel_std=128.0,
    )


def ledetr_m() -> ModelConfig:
    """33 M parameters. Table 6 lists 4 decoder layers for inference, the text and table 4 say 5: we take 5."""
    return ModelConfig(
        name="m", backbone=EfficientNatConfig(depths=(1, 1, 1, 2, 2)), decoder=DecoderConfig(eval_layers=5)
    )


def ledetr_l() -> ModelConfig:
    """41 M parameters."""
    return ModelConfig(name="l", backbone=EfficientNatConfig(depths=(1, 1, 1, 4, 4)))


def ledetr_x() -> ModelConfig:
    """45 M parameters."""
    return ModelConfig(name="x", backbone=EfficientNatConfig(depths=(1, 2, 7, 15, 2)))


def ledetr_tiny(classes: int = 80) -> ModelConfig:
    """A few thousand parameters with every mechanism of M, L and X: for tests."""
    return ModelConfig(
        name="tiny",
        backbone=EfficientNatConfig(
            widths=(8, 8, 16, 16, 32),
            depths=(1, 1, 1, 1, 1),
            down_expand=(2, 2, 2, 2),
            block_expand=(2, 2, 2, 2),
            na_heads=4,
            na_kernel=3,
        ),
        encoder=EncoderConfig(dim=32, heads=4, ffn=32, blocks=1, naifi_kernel=5),
        decoder=DecoderConfig(
            dim=32,
            heads=4,
            ffn=32,
            layers=2,
            eval_layers=2,
            points=(2, 2, 1),
            queries=20,
            classes=classes,
            denoising=16,
            position_hidden=32,
        ),
        input_hw=(96, 96),
    )


VARIANTS: dict[str, Callable[[], ModelConfig]] = {"n": ledetr_n, "m": ledetr_m, "l": ledetr_l, "x": ledetr_x}
