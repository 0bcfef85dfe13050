#!/usr/bin/env bash
# Compiles a crate of the workspace as cargo asks for, then runs clippy and rustdoc on it, for which warnings are errors:
#
#   RUSTC_WORKSPACE_WRAPPER=$PWD/scripts/lint-rustc.sh LINTED=DIR cargo test --workspace
#
# Both need only the metadata of dependencies, which a build makes anyway; `cargo clippy` and `cargo doc` would first check every dependency again.
# DIR, a new folder, gets an empty file for each crate and its features, so that a build in another profile does not do it again.
set -euo pipefail
"$@"
# Cargo also asks which compiler this is.
[ -n "${CARGO_CRATE_NAME-}" ] || exit 0

tools=$(dirname "$(command -v "$1")")
shift
# Arguments of both tools, those of clippy alone, and what tells this crate from others.
both=() clippy=() key=("$CARGO_MANIFEST_DIR")
is_library=
while [ $# -gt 0 ]; do
    case $1 in
        --crate-type)
            case $2 in lib | rlib | dylib | cdylib | staticlib | proc-macro) is_library=yes ;; esac
            both+=("$1" "$2") && shift
            ;;
        --cfg) both+=("$1" "$2") key+=("$2") && shift ;;
        --test) clippy+=("$1") key+=("$1") ;;
        *.rs) both+=("$1") key+=("$1") ;;
        -C)
            # Each would discard what the others keep there.
            case $2 in incremental=*) ;; *) both+=("$1" "$2") ;; esac
            shift
            ;;
        # A file that cargo does not know of would be taken for one that it waits for.
        --json=*) both+=("${1/artifacts,/}") ;;
        --emit=*) ;;
        --out-dir) shift ;;
        *) both+=("$1") ;;
    esac
    shift
done
linted=${LINTED:?names a folder}/$(printf '%s\n' "${key[@]}" | sha256sum | cut -c 1-16)
[ ! -e "$linted" ] || exit 0
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$tools/clippy-driver" "${both[@]}" "${clippy[@]}" --emit=metadata --out-dir "$scratch" -D warnings
[ -z "$is_library" ] || "$tools/rustdoc" "${both[@]}" --out-dir "$scratch/doc" -D warnings
touch "$linted"
