#!/usr/bin/env bash
# Opens the pages of `moe-data report` and `moe-train report` in a real browser (Debian's chromium, installed where it is missing): of a
# corpus that tries to run scripts and to break out of the page, of two builds, and of a run. Nothing may run, every figure has to be there.
# Then the same corpus and runs on a terminal (test-terminal.py).
#   bash scripts/test-pages.sh [FOLDER OF THE PROGRAMS]
. "$(dirname "$0")/lib.sh"
programs=$(realpath "${1:-$target/debug}")
command -v chromium > /dev/null || debian chromium
scratch
trap '[ -n "${KEEP:-}" ] || rm -rf "$work"' EXIT
cd "$work"

python3 - << 'PYTHON'
import json, random
random.seed(1)
hostile = ["<script>document.title='run'</script>", "</title><img src=x onerror=\"document.title='run'\">", "]]></svg><script>document.title='run'</script>",
           "\u202eright to left\u202c", "\x1b[2J\x1b[31mterminal\x07", "'\"><b>", "&lt;already&gt;"]
words = [line.strip() for line in "the mountain of river and behind that with because have morning to winter wandering be stones under quiet gardens".split()]
with open("corpus.jsonl", "w") as file:
    for i in range(300):
        text = ". ".join(" ".join(random.choices(words, k=12)) for _ in range(20 if i % 3 else 1))
        name = f"{hostile[i % len(hostile)]}-{i}"
        file.write(json.dumps({"id": name, "text": f"{hostile[i % len(hostile)]} {text} {i}"}) + "\n")
    file.write('{"id": "<b>", "text": 5}\n')
with open("recipe.toml", "w") as file:
    file.write("""[[source]]
name = "hostile"
paths = ["corpus.jsonl"]
id = "id"
[[filter]]
name = "gopher_quality"
[dedup.minhash]
[tokenizer]
train = { vocab_size = 512 }
[limits]
max_bad_fraction = 0.1
""")
PYTHON
export PATH="$programs:$PATH"
moe-data build --quiet --recipe recipe.toml
# The same without copies, by another rule.
sed 's/name = "gopher_quality"/name = "length"\nmin_chars = 600/; s/\[dedup.minhash\]/[dedup.minhash]\nestimate = 50/' recipe.toml > other.toml
moe-data build --quiet --recipe other.toml --out other
moe-data mix --quiet --epochs 2 --seq-len 64
moe-train --quiet --shards out --preset smoke --run runs/smoke
moe-train --quiet eval runs/smoke --shards out --capacity 1,2,inf --record > /dev/null
moe-data report --json > build.json 2> /dev/null
moe-data report other --json > other.json 2> /dev/null
moe-data report --compare out other --json > compare.json 2> /dev/null
moe-train report runs/smoke --json > run.json 2> /dev/null

for page in out/report.html:build.json other/report.html:other.json compare.html:compare.json runs/smoke/report.html:run.json; do
    html=${page%%:*} json=${page##*:}
    for width in 400 1400; do
        chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --enable-logging=stderr --user-data-dir="$work/browser" \
            --no-first-run --disable-background-networking --disable-component-update --disable-sync \
            --window-size=$width,2000 --screenshot="$work/shot-$width.png" --dump-dom "file://$work/$html" > dom.html 2> console.log
        python3 - "$html" "$json" "$width" << 'PYTHON'
import json, re, sys
from html.parser import HTMLParser
html, numbers, width = sys.argv[1:]
dom = open("dom.html", encoding="utf-8").read()
figures = json.load(open(numbers))["figures"]
assert figures, "no figure"
found = re.findall(r'<figure id="([^"]+)"', dom)
assert found == [figure["id"] for figure in figures], (found, [figure["id"] for figure in figures])
assert dom.count('<svg xmlns="http://www.w3.org/2000/svg" class="figure"') == len(figures)
title = re.search(r"<title>(.*?)</title>", dom, re.S).group(1)
assert title != "run", title
class Tags(HTMLParser):
    def handle_starttag(self, tag, attributes):
        assert tag not in ("script", "img", "b", "iframe", "object"), tag
        assert not any(name.startswith("on") for name, _ in attributes), attributes
Tags().feed(dom)
console = [line for line in open("console.log", errors="replace") if "CONSOLE" in line]
assert not console, console
print(f"{html} at {width}: {len(figures)} figures")
PYTHON
        size=$(stat -c %s "$work/shot-$width.png")
        [ "$size" -gt 10000 ] || { echo "$html at $width: an empty picture ($size bytes)" >&2; exit 1; }
    done
done

moe-train --quiet --shards out --preset smoke --run runs/stopped --stop-after 5
cp -r runs/smoke $'runs/\e[2J\aevil'
python3 "$here/test-terminal.py"
