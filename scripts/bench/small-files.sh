#!/usr/bin/env bash
# A build of many small text files, and its fsync calls.
#
#   scripts/bench/small-files.sh [MOE_DATA] [FILES]
#
# MOE_DATA is the program [default: a release build of this repository], FILES the number of files of 1,024 bytes [10000].
. "$(dirname "$0")/../lib.sh"
program=$(program moe-data "${1:-}")
n=${2:-10000}
scratch
cd "$work"
python3 - "$n" <<'PY'
import os, random, sys

random.seed(3)
words = "the of and to in that with for was on be as at by this had not are but from or have an they which one you were her all she".split()
os.mkdir("in")
for i in range(int(sys.argv[1])):
    text = ""
    while len(text) < 1024:
        text += " ".join(random.choice(words) for _ in range(12)).capitalize() + f" {random.randint(0, 99999)}. "
    with open(f"in/f{i:05}.txt", "w") as file:
        file.write(text[:1024])
PY
time "$program" build --input in --out out
if command -v strace > /dev/null; then
  strace -c -f -e trace=fsync -o calls "$program" build --input in --out again -q
  grep fsync calls
fi
