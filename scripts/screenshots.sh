#!/usr/bin/env bash
# Makes the images in docs/images/: pages in a browser and the view in a terminal, of what the quickstart left in out/ and runs/tiny, and of a second
# build that removes near-duplicates. Needs chromium and Pillow; meant for people to look at, so not part of .ci/run.
#   PROGRAMS=target/release bash scripts/quickstart.sh && bash scripts/screenshots.sh target/release [FOLDER WITH out/ AND runs/]
. "$(dirname "$0")/lib.sh"
programs=$(realpath "${1:-$target/release}")
export PATH="$programs:$PATH"
made=$(realpath "${2:-.}")
images=$repo/docs/images
scratch
# The recipe with another rule and near-duplicates is next to the quickstart's recipe, so that its paths lead to the same files.
recipe=$repo/configs/.screenshots.toml
trap 'rm -rf "$work" "$recipe"' EXIT
mkdir -p "$images"
{ cat "$repo/configs/build.toml"; printf '\n[[filter]]\nname = "length"\nmin_chars = 3000\n[dedup.minhash]\nestimate = 300\n'; } > "$recipe"
# Names on the pages are those of the quickstart.
cd "$work"
ln -s "$made/out" out
ln -s "$made/runs" runs
moe-data build --quiet --recipe "$recipe" --out near
moe-data report --quiet near -o near.html
moe-data report --quiet out -o build.html
moe-data report --quiet --compare out near -o compare.html
moe-train --quiet report runs/tiny -o run.html

# NAME PAGE HEIGHT [SECTION]: the upper end of a page, or one section of it alone.
picture() {
    python3 - "$2" "${4:-}" << 'PYTHON'
import re, sys
page, section = sys.argv[1:]
text = open(page, encoding="utf-8").read()
if section:
    whole = re.findall(r'<section id="[^"]+">.*?</section>', text, re.S)
    kept = next(part for part in whole if part.startswith(f'<section id="{section}"'))
    start, end = text.index(whole[0]), text.rindex("</main>")
    text = re.sub(r"<header>.*?</header>|<nav .*?</nav>", "", text[:start], flags=re.S) + kept + text[end:]
open("shown.html", "w", encoding="utf-8").write(text)
PYTHON
    chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --user-data-dir="$work/browser" --no-first-run \
        --disable-background-networking --disable-component-update --disable-sync --force-device-scale-factor=0.8 \
        --window-size=1180,"$3" --screenshot="$work/$1.png" "file://$work/shown.html" 2> /dev/null
    python3 - "$work/$1.png" "$images/$1.png" << 'PYTHON'
import sys
from PIL import Image
image = Image.open(sys.argv[1]).convert("RGB")
image.quantize(64, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(sys.argv[2], optimize=True)
PYTHON
    echo "docs/images/$1.png $(stat -c %s "$images/$1.png") bytes"
}
picture build build.html 1250
picture duplicates near.html 560 duplicates
picture plan build.html 1500 plan
picture run run.html 1350
picture routing run.html 1400 section-routing
picture compare compare.html 1250
python3 "$here/terminal.py" "$images/watch.svg" 100 30 2 moe-train watch runs/tiny
