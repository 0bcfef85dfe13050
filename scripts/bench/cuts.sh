#!/usr/bin/env bash
# Repeated text inside documents: what the two methods cut from real text, and the time and memory they take.
#
#   scripts/bench/cuts.sh DATA [MOE_DATA]
#
# DATA is a folder with django_docs_4.2.jsonl.gz and django_docs_5.2.jsonl.gz (fields id, path, version, text), books.jsonl.gz and
# peps_even.jsonl.gz (fields id, text). MOE_DATA is the program; without it a release build is made.
. "$(dirname "$0")/../lib.sh"
[ -d "${1:-}" ] || usage
data=$(realpath "$1")
program=$(program moe-data "${2:-}")
scratch
cd "$work"

origin() { # name, file, more keys
  printf '[[source]]\nname = "%s"\npaths = ["%s/%s"]\nid = "id"\n%b\n' "$1" "$data" "$2" "${3:-}"
}
rest=$(origin books books.jsonl.gz; origin peps peps_even.jsonl.gz)
apart=$(origin django42 django_docs_4.2.jsonl.gz; origin django52 django_docs_5.2.jsonl.gz)
family=$(origin django 'django_docs_*.jsonl.gz' 'family = "path"\nvariant = "version"\nvariants = ["5.2", "4.2"]')
for set in apart family; do
  for min_bytes in 0 500 100; do
    { printf '%s\n%s\n' "${!set}" "$rest"
      printf '[dedup.paragraph]\nmin_documents = 2\n'
      [ "$min_bytes" = 0 ] || printf '[dedup.substring]\nmin_bytes = %s\n' "$min_bytes"
      printf '[tokenizer]\ntrain = { vocab_size = 4096, sample_bytes = "1MB" }\n'
    } > recipe.toml
    rm -rf out
    echo "== sources $set, paragraphs in 2 documents, substrings of $min_bytes bytes (0: off)"
    python3 - "$program" <<'PY'
import resource, subprocess, sys
done = subprocess.run([sys.argv[1], "build", "--recipe", "recipe.toml", "--out", "out"], stderr=subprocess.PIPE, text=True)
keep = ("paragraph", "substring", "shard", "error", "out", "  ")
print("\n".join(line for line in done.stderr.splitlines() if line.startswith(keep)))
print(f"peak memory {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024:.0f} MiB")
sys.exit(done.returncode)
PY
    "$program" verify out > /dev/null && echo "verified"
  done
done
