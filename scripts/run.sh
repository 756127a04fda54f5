#!/bin/sh
# The window on the bundled clip; on Linux without a display the same chain, into a file.
set -eu
cd "$(dirname "$0")/.."
if [ "$(uname -s)" = Linux ] && [ -z "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ]; then
    echo "No display here: the bundled clip is annotated into a file instead of opening the window." >&2
    mkdir -p out
    .venv/bin/ledetr detect assets/sample.mp4 -m n -o out/sample_annotated.mp4 --overwrite
    echo "Annotated clip: $PWD/out/sample_annotated.mp4"
else
    exec .venv/bin/ledetr-app assets/sample.mp4
fi
