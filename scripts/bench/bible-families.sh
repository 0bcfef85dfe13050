#!/usr/bin/env bash
# Builds of five English Bibles: how many chapters deduplication removes when it knows which chapters belong to
# one family, and when it does not. Prints the table of docs/benchmarks/dedup.md.
#
#   scripts/bench/bible-families.sh DATA [MOE_DATA]
#
# DATA is a folder with bible/{KJV,ASV,WEB,YLT,BBE}.jsonl.gz (fields id, version, group, text; group is the chapter). MOE_DATA is the
# program; without it a release build is made.
. "$(dirname "$0")/../lib.sh"
data=$(realpath "${1:?the folder with bible/}")
program=$(program moe-data "${2:-}")
scratch
cd "$work"
source='[[source]]\nname = "bible"\npaths = ["%s/bible/*.jsonl.gz"]\nid = "id"\n'
families='family = "group"\nvariant = "version"\nvariants = ["WEB", "KJV", "ASV", "BBE", "YLT"]\n'
rest='[tokenizer]\ntrain = { vocab_size = 4096, sample_bytes = "4MB" }\n[dedup.minhash]\nmax_source_removed = 1.0\n'
echo "| families | rule | exact duplicates | near-duplicates removed | put into a family | families | kept |"
echo "| --- | --- | ---: | ---: | ---: | ---: | ---: |"
row() { # name, rule, whether families are declared, keys
  { printf "$source" "$data"; [ "$3" = no ] || printf "$families"; printf "$rest"; printf "$4"; } > recipe.toml
  rm -rf out
  "$program" --quiet build --recipe recipe.toml --out out
  "$program" --quiet verify out
  python3 - "$1" "$2" <<'PY'
import json, sys
source = json.load(open("out/ledger.json"))["sources"]["bible"]
dropped = {reason: count["docs"] for reason, count in source["dropped"].items()}
joined = source.get("variants", {}).get("documents", 0) if sys.argv[1] == "found" else 0
kept = source["kept"]["docs"]
exact, near = dropped.pop("exact_duplicate", 0), dropped.pop("near_duplicate", 0)
assert not dropped, dropped
n_families = {"declared": len(json.load(open("groups.json"))), "none": kept, "found": kept - joined}[sys.argv[1]]
print(f"| {sys.argv[1]} | {sys.argv[2]} | {exact} | {near} | {joined} | {n_families} | {kept} |")
PY
}
python3 - "$data" <<'PY'
import glob, gzip, json, sys
groups = sorted({json.loads(line)["group"] for path in glob.glob(f"{sys.argv[1]}/bible/*.jsonl.gz") for line in gzip.open(path, "rt")})
json.dump(groups, open("groups.json", "w"))
PY
row declared "compared, Jaccard index 0.7" yes ''
row declared "candidates trusted (\`verify = \"off\"\`)" yes 'verify = "off"\n'
row none "compared, Jaccard index 0.7" no ''
row none "candidates trusted (\`verify = \"off\"\`)" no 'verify = "off"\n'
row none "candidates trusted, bands of the \`datatrove\` profile" no 'verify = "off"\nprofile = "datatrove"\n'
row found "compared, \`action = \"family\"\`" no 'action = "family"\n'
