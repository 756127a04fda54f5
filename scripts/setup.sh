#!/bin/sh
# Makes .venv and installs the project into it. `setup.sh run` is enough for the program; `setup.sh dev` adds what the
# tests need. A stamp, keyed by pyproject.toml and constraints.txt, lets the next call end at once and offline.
set -eu
cd "$(dirname "$0")/.."
purpose=${1:-run}

say() { printf '%s\n' "$*" >&2; }

find_python() {
    for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    say "Le-DETR needs Python 3.11, 3.12 or 3.13 and found none; install one, or name it: make PYTHON=/path/to/python3.12"
    exit 1
}

# apt_install PACKAGE...: as root, or with sudo after a yes on the terminal; else one sentence. Returns 1 if nothing was done.
apt_install() {
    if ! command -v apt-get >/dev/null; then
        say "These system libraries are missing; please install them (Debian names): $*"
        return 1
    fi
    if [ "$(id -u)" = 0 ]; then
        as_root=
    elif command -v sudo >/dev/null && [ -t 0 ] && [ -t 2 ]; then
        printf 'System packages are missing: %s\nInstall them with "sudo apt-get install"? [y/N] ' "$*" >&2
        read -r answer
        case $answer in [yY]*) as_root=sudo ;; *) say "Not installed. Later: sudo apt-get install $*"; return 1 ;; esac
    else
        say "System packages are missing; please run: sudo apt-get install $*"
        return 1
    fi
    say "Installing system packages: $*"
    $as_root apt-get update -qq >&2 || say "The package lists could not be refreshed; trying with the old ones."
    if ! $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2; then
        say "apt-get could not install them; please install by hand: $*"
        return 1
    fi
}

install_system_libraries() {
    purpose_of_qt=offscreen
    if [ -n "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ]; then purpose_of_qt=window; fi
    missing=$("$python" ledetr/cli/system_libraries.py $purpose_of_qt)
    if [ -n "$missing" ]; then
        # Debian 13 and Ubuntu 24.04 renamed libglib2.0-0; apt follows the old name there.
        apt_install $missing || say "Going on without them; the window may not open."
    fi
}

make_environment() {
    if .venv/bin/python -c 'import pip' 2>/dev/null; then return; fi
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        apt_install "$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')" || exit 1
    fi
    say "Making .venv with $("$python" --version)"
    "$python" -m venv --clear .venv
}

python=$(find_python)
install_system_libraries
key=$("$python" -c 'import hashlib, sys; print(hashlib.sha256(b"".join(open(p, "rb").read() for p in sys.argv[1:])).hexdigest())' pyproject.toml constraints.txt)
for done_for in "$purpose" dev; do
    if [ "$(cat ".venv/ready-for-$done_for" 2>/dev/null)" = "$key $PWD" ] && .venv/bin/python -c '' 2>/dev/null; then exit 0; fi
done

make_environment
case $purpose in run) project=. ;; dev) project='.[dev]' ;; *) say "setup.sh run|dev"; exit 2 ;; esac
say "Installing Le-DETR and what it needs into .venv; the first time this fetches about 2 GB."
.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e "$project"
printf '%s\n' "$key $PWD" > ".venv/ready-for-$purpose"
