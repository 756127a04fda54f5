#!/bin/sh
# Every figure of docs/benchmarks.md and docs/latency.md, in order, on an idle machine. Results go to out/.
#
#     sh benchmarks/all.sh [FOLDER WITH coco_val_dev.json AND coco_train/]     about 50 minutes on two cores
#
# Minutes are those of two cores of a 2023 server; each step stands alone and may be run by itself.
set -u
cd "$(dirname "$0")/.."
data=${1:-../shared/data}
python=.venv/bin/python
ledetr=.venv/bin/ledetr
mkdir -p out
status=0
step() {
    printf '\n== %s minutes: %s\n' "$1" "$2"
    shift
    sh -c "$1" || { status=1; printf '!! ended with an error or missed its bar: %s\n' "$1"; }
}

# Beside peers: the same conversion, engine and precision, turn by turn.
step 3 "$ledetr bench -m n --imgsz 416,640 --peers --precision fp32 --runs 200 --json > out/bench_n_fp32.json"
step 2 "$ledetr bench -m n --imgsz 416,640 --peers --precision bf16 --runs 200 --json > out/bench_n_bf16.json"
step 5 "$ledetr bench -m m,l,x --random-weights --peers --precision fp32 --runs 30 --warmup 3 --json > out/bench_mlx_fp32.json"
step 4 "$ledetr bench -m m,l,x --random-weights --peers --precision bf16 --runs 30 --warmup 3 --json > out/bench_mlx_bf16.json"
# What the forms of the graph cost, each beside the plain one.
step 3 "$python benchmarks/graph_forms.py --models n --imgsz 416,640 --runs 100 --json out/graph_forms_n.json"
step 4 "$python benchmarks/graph_forms.py --models l --imgsz 640 --runs 20 --json out/graph_forms_l.json"
# Layer by layer.
step 1 "$python benchmarks/openvino_layers.py --models n,d-fine-n --imgsz 416 --runs 100 --json out/layers_416.json"
step 1 "$python benchmarks/openvino_layers.py --models n,d-fine-n --imgsz 640 --runs 100 --json out/layers_640.json"
step 2 "$python benchmarks/openvino_layers.py --models l,d-fine-l --imgsz 640 --runs 15 --json out/layers_l.json"
# Engines and precisions: average precision on the annotated set, and time.
step 6 "$python benchmarks/engines.py $data/coco_val_dev.json --calibrate $data/coco_train --json out/engines.json --markdown out/engines.md"
# Files of half precision and int8, and where int8 spends its time.
step 3 "$ledetr export -m n -o out/n_fp16.onnx --precision fp16 --accuracy-on $data/coco_val_dev.json --overwrite --json > out/export_fp16.json"
step 5 "$ledetr export -m n -o out/n_int8.xml --precision int8 --calibrate $data/coco_train --accuracy-on $data/coco_val_dev.json --overwrite --json > out/export_int8.json"
step 1 "$python benchmarks/openvino_layers.py --models n,out/n_int8.xml --imgsz 416 --runs 100 --json out/layers_int8.json"
# Exports beside torch.
step 6 "$python benchmarks/export_parity.py --json out/export_parity.json"
# Throughput.
step 1 "$python benchmarks/make_clip.py out/clip_720p25.mp4"
step 4 "$python benchmarks/throughput.py --clip out/clip_720p25.mp4 --json out/throughput.json"
# Memory, and the time to the first boxes.
step 8 "$python benchmarks/switching.py --rounds 20 --imgsz 160 --json out/switching.json"
exit $status
