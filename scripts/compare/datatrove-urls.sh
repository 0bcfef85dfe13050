#!/bin/bash
# Compares the rule url_lists with the URLFilter of the Python package datatrove 0.10.1, with the lists that come with that
# package (4.6 million domains, 20,000 URLs, words), on some 20,000 URLs made from them. The package is installed into a
# temporary folder.
#
#   bash scripts/compare/datatrove-urls.sh
#
# Prints a Markdown table; ends with 1 when a verdict differs for no reason that docs/filters.md names.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$here/../../target}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cargo build --quiet --release --manifest-path "$here/../../Cargo.toml" -p moe-data --example apply_rules
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install --quiet 'datatrove==0.10.1' orjson tldextract fasteners pyahocorasick
HF_HOME="$scratch" "$scratch/venv/bin/python" "$here/datatrove_urls.py" "$target/release/examples/apply_rules"
