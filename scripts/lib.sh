# What the scripts share: `. "$(dirname "$0")/../lib.sh"` at the start. A script stops at the first error and sets `repo`, `target` and `here`, the
# folder of the script. Paths in arguments must be made absolute before a `cd`.
set -euo pipefail
shopt -s inherit_errexit
here=$(cd "$(dirname "$0")" && pwd)
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=$(realpath -m "${CARGO_TARGET_DIR:-$repo/target}")

# Prints the comment at the top of the script, and ends with exit code 2.
usage() {
    sed -n '2,${/^#/!q;s/^# \{0,1\}//p}' "$0" >&2
    exit 2
}

# Makes the folder `work`, which is removed when the script ends.
scratch() {
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
}

# release PACKAGE KIND NAME: compiles a release build, and prints the path of its program (KIND --bin) or example (KIND --example).
release() {
    cargo build --quiet --release --manifest-path "$repo/Cargo.toml" --package "$1" "$2" "$3" >&2
    case $2 in
    --example) echo "$target/release/examples/$3" ;;
    *) echo "$target/release/$3" ;;
    esac
}

# program NAME [PATH]: the path of moe-data or moe-train: the given one, or that of a release build.
program() {
    [ -n "${2:-}" ] || { release "$1" --bin "$1"; return; }
    command -v "$2" > /dev/null || { echo "$2: no such program; compile it first" >&2; return 1; }
    realpath "$(command -v "$2")"
}

# Sets `programs` to the folder of moe-data and moe-train: PROGRAMS, or that of a release build.
programs() {
    if [ -n "${PROGRAMS:-}" ]; then
        programs=$(realpath "$PROGRAMS")
    else
        cargo build --release --manifest-path "$repo/Cargo.toml" --package moe-data --package moe-train
        programs=$target/release
    fi
}

# gpu_features LIST: features of moe-train, separated by commas, in the form that cargo takes with any packages.
gpu_features() {
    sed 's#[^,]\+#moe-train/&#g' <<< "$1"
}

# example NAME [PACKAGE=moe-data]: the path of an example.
example() {
    release "${2:-moe-data}" --example "$1"
}

# venv FOLDER PACKAGE...: a virtual environment with these packages from PyPI, made if it is missing; prints its Python.
venv() {
    local folder=$1
    shift
    [ -x "$folder/bin/python" ] || python3 -m venv "$folder" >&2
    "$folder/bin/pip" install --quiet --disable-pip-version-check "$@" >&2
    echo "$folder/bin/python"
}

# debian PACKAGE...: installs packages of Debian.
debian() {
    local sudo
    sudo=$([ "$(id -u)" = 0 ] || echo sudo)
    $sudo apt-get update -qq
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "$@" > /dev/null
}

# The packages with which datatrove 0.10.1 runs the rules and signatures that are compared.
datatrove=(datatrove==0.10.1 spacy==3.8.18 'xxhash<4' orjson nltk)

# datasets_in_parts FOLDER: the texts of the quickstart in a new folder, as three files each that have some documents in common.
datasets_in_parts() {
    mkdir "$1"
    python3 - "$repo/datasets" "$1" <<'PY'
import gzip, sys
for name in ("bible_kjv_web", "django_docs_two_versions"):
    lines = gzip.open(f"{sys.argv[1]}/{name}.jsonl.gz", "rt").read().splitlines()
    for part in range(3):
        with open(f"{sys.argv[2]}/{name}.{part}.jsonl", "w") as file:
            file.write("\n".join(lines[part::3] + lines[:3]) + "\n")
PY
}
