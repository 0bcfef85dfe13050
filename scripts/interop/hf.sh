#!/usr/bin/env bash
# Trains a small model of each class that `moe-train export` knows, exports it, and compares it with transformers (logits on packed and on
# single documents, greedy text) and with llama.cpp (greedy text, probabilities), and imports what transformers saves. Prints the table of
# docs/interop.md.
# Input: OUT, a folder with shards and a plan of 256 tokens per sample (`moe-data build && moe-data mix --seq-len 256`).
# PyTorch with its CUDA libraries is a download of 3 GB. WORK keeps it, and the models, for later runs.
#
# Usage: scripts/interop/hf.sh OUT WORK [MOE_TRAIN]
. "$(dirname "$0")/../lib.sh"
[ $# -ge 2 ] || usage
out=$(realpath "$1")
mkdir -p "$2"
work=$(realpath "$2")
moe_train=$(program moe-train "${3:-moe-train}")
cd "$work"
python=$(venv "$work/venv" torch transformers==5.24.0 safetensors gguf==0.19.0 numpy xllamacpp==2026.10.11549)

softmax="--set moe.router.score=softmax --set moe.balance.bias_rate=0"
check() {
    local name=$1
    shift
    if [ ! -d "runs/$name" ]; then
        "$moe_train" --quiet --shards "$out" --run "runs/$name" --preset tiny --steps 60 --set run.save_every=60 "$@"
    fi
    rm -rf "made/$name"
    mkdir -p "made/$name"
    "$moe_train" --quiet export "runs/$name" --to hf "made/$name/hf" --verify >"made/$name/verified"
    "$moe_train" --quiet eval "runs/$name" --shards "$out" --samples 24 --logits "made/$name/logits.safetensors" >/dev/null
    "$moe_train" --quiet sample "runs/$name" --prompt "And the LORD said unto" --temperature 0 --max-tokens 40 --json >"made/$name/greedy.json"
    for type in f32 f16 q8_0; do
        # What llama.cpp cannot compute is refused, and the table says so.
        "$moe_train" --quiet export "runs/$name" --to gguf "made/$name/$type.gguf" --type $type >"made/$name/$type.said" 2>&1 || true
    done
    "$python" "$here/check_hf.py" "$name" "made/$name"
    "$moe_train" --quiet import --from hf "made/$name/saved" --shards "$out" --run "made/$name/imported" --preset tiny --json >"made/$name/import.json"
    "$moe_train" inspect "runs/$name" --json >"made/$name/inspect.json"
    "$python" - "made/$name" <<'PY'
import json, sys
imported, original = (json.load(open(f"{sys.argv[1]}/{name}.json")) for name in ("import", "inspect"))
if imported["parameter_hash"] != original["state"]["parameter_hash"]:
    sys.exit("what transformers saved is not what was exported")
PY
}

"$python" "$here/check_hf.py"
check glm4 --set attention.qk_norm=true --set attention.rotary_fraction=0.5
check glm4-groups --set moe.router.kind=group_limited --set moe.router.group_limited.route_scale=2.5
yarn="--set attention.rope.scaling=yarn --set attention.rope.factor=4 --set attention.rope.original=64"
check glm4-yarn $yarn --set attention.rotary_fraction=0.5
check deepseek-yarn $yarn --set attention.kind=mla --set attention.mla.q_rank=48
check deepseek --set attention.kind=mla --set attention.mla.q_rank=48 --set model.norm_eps=1e-6
check deepseek-no-q-rank --set attention.kind=mla
check qwen3-moe $softmax --set moe.shared=0 --set attention.qk_norm=true --set model.dense_layers=0
check qwen3-moe-dense $softmax --set moe.shared=0 --set attention.qk_norm=true --set moe.router.norm_weights=false
check qwen2-moe $softmax --set moe.shared_gate=true
check mixtral $softmax --set moe.shared=0 --set model.dense_layers=0 --set model.tie_embeddings=false
check qwen3 --set model.dense_layers=3 --set attention.qk_norm=true --set attention.head_dim=64
check llama --set model.dense_layers=3
window="--set attention.kind=swa --set attention.swa.window=24"
check mixtral-window $softmax $window --set moe.shared=0 --set model.dense_layers=0
check mistral $window --set model.dense_layers=3
