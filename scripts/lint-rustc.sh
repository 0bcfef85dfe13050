#!/usr/bin/env bash
# Compiles a crate of the workspace as cargo asks for, then runs clippy and rustdoc on it, for which warnings are errors:
#
#   RUSTC_WORKSPACE_WRAPPER=$PWD/scripts/lint-rustc.sh LINTED=DIR cargo test --workspace
#
# They need only the metadata of other crates, which is there then. `cargo clippy` and `cargo doc` would first check every dependency with its features
# for that. DIR gets an empty file for each crate and its features, so that a build in another profile does not do it again.
set -euo pipefail
"$@"
# Cargo also asks which compiler this is.
[ -n "${CARGO_CRATE_NAME-}" ] || exit 0

tools=$(dirname "$1")
shift
type="" features=()
# Those of both tools, and those of clippy alone.
both=() clippy=()
while [ $# -gt 0 ]; do
    case $1 in
        --crate-type) type=$2 both+=("$1" "$2") && shift ;;
        --cfg) features+=("$2") both+=("$1" "$2") && shift ;;
        --test) type=test clippy+=("$1") ;;
        # A file that cargo does not know of would be taken for one that it waits for.
        --json=*) both+=("${1/artifacts,/}") ;;
        --emit=*) ;;
        --out-dir) shift ;;
        *) both+=("$1") ;;
    esac
    shift
done
linted=${LINTED:?names a folder}/$(printf '%s\n' "${CARGO_MANIFEST_DIR-}" "$CARGO_CRATE_NAME" "$type" "${features[@]}" | sha256sum | cut -c 1-16)
[ ! -e "$linted" ] || exit 0
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$tools/clippy-driver" "${both[@]}" "${clippy[@]}" --emit=metadata --out-dir "$scratch" -D warnings
case $type in
    lib | cdylib) "$tools/rustdoc" "${both[@]}" --out-dir "$scratch/doc" -D warnings ;;
esac
touch "$linted"
