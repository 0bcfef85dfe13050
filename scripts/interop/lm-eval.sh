#!/usr/bin/env bash
# Answers the same questions with `moe-train eval --tasks` and with lm-eval, which reads the model from `moe-train export --to hf`,
# compares every number and every log-likelihood, and prints the table of docs/interop.md.
# Input: RUN, a run or a checkpoint; DATA, a folder with arc_easy.jsonl.gz, blimp_*.jsonl.gz and gsm8k_test.jsonl.gz.
# PyTorch with its CUDA libraries is a download of 3 GB. WORK keeps it for later runs.
#
# Usage: scripts/interop/lm-eval.sh RUN DATA WORK [MOE_TRAIN]
. "$(dirname "$0")/../lib.sh"
[ $# -ge 3 ] || usage
run=$(realpath "$1")
data=$(realpath "$2")
mkdir -p "$3"
work=$(realpath "$3")
moe_train=$(program moe-train "${4:-moe-train}")
cd "$work"
python=$(venv "$work/venv" torch transformers==5.24.0 accelerate lm_eval==0.4.13)
export HF_HUB_OFFLINE=1 HF_DATASETS_CACHE="$work/cache" TOKENIZERS_PARALLELISM=false

rm -rf hf answers.jsonl
"$moe_train" --quiet export "$run" --to hf hf >/dev/null
definition() {
    printf '%s\n' "$2" "name = \"$1\"" >"$1.toml"
    if [ -n "${3:-}" ]; then printf '%s\n' "$3" >>"$1.toml"; fi
}
# Long contexts take PyTorch on a CPU long, so of these there are fewer.
zcat "$data/arc_easy.jsonl.gz" | sed -n 1,200p >arc_easy_200.jsonl
zcat "$data/gsm8k_test.jsonl.gz" | sed -n 1,200p >gsm8k_200.jsonl
arc="kind = \"choice\"
prompt = \"{{query}}\\nAnswer:\"
choices = \"choices\"
answer = \"gold\""
definition arc_easy "$arc" "data = \"$data/arc_easy.jsonl.gz\""
definition arc_easy_3_shots "$arc" "data = \"arc_easy_200.jsonl\"
shots.n = 3"
tasks=(arc_easy=arc_easy="$data/arc_easy.jsonl.gz" arc_easy_3_shots=arc_easy:3=arc_easy_200.jsonl)
for path in "$data"/blimp_*.jsonl.gz; do
    name=$(basename "$path" .jsonl.gz)
    definition "$name" "kind = \"choice\"
data = \"$path\"
choices = [\"{{sentence_good}}\", \"{{sentence_bad}}\"]
answer = 0"
    tasks+=("$name=blimp=$path")
done
definition gsm8k_last_word "kind = \"cloze\"
data = \"gsm8k_200.jsonl\"
text = \"{{question}}\""
definition gsm8k_solutions "kind = \"perplexity\"
data = \"gsm8k_200.jsonl\"
text = \"{{answer}}\""
tasks+=(gsm8k_last_word=last_word/question=gsm8k_200.jsonl gsm8k_solutions=whole/answer=gsm8k_200.jsonl)

files=()
for task in "${tasks[@]}"; do files+=("${task%%=*}.toml"); done
"$moe_train" --quiet eval "$run" --tasks "${files[@]}" --answers answers.jsonl --json >ours.json
"$python" "$here/check_lm_eval.py" hf ours.json answers.jsonl -- "${tasks[@]}"
