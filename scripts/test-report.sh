#!/bin/sh
# Loads a page of `moe-data rephrase report` in Chromium without a window: it must parse, show its samples and its charts, and
# ask for nothing beyond itself.
#
#   sh scripts/test-report.sh report.html [screenshot.png]
#
# Needs `chromium` (Debian package of that name). Takes a few seconds.
set -eu
page=$(realpath "${1:?the page}")
[ -f "$page" ] || { echo "$page is not there" >&2; exit 2; }
for name in chromium chromium-browser google-chrome; do
    command -v "$name" > /dev/null && browser=$name && break
done
[ "${browser:-}" ] || { echo "chromium is not installed" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
run() {
    timeout 50 "$browser" --headless --no-sandbox --disable-gpu --user-data-dir="$work/profile" --window-size=1280,1600 "$@" 2> "$work/log"
}
# The document as the browser understood it: what it did not close or nest as meant shows here.
run --dump-dom "file://$page" > "$work/dom.html"
count() { grep -o "$1" "$2" | wc -l; }
for tag in '<article' '<svg' '<table' '<del>' '<ins>'; do
    in_file=$(count "$tag" "$page"); in_dom=$(count "$tag" "$work/dom.html")
    [ "$in_file" -gt 0 ] || { echo "the page has no $tag"; exit 1; }
    [ "$in_file" = "$in_dom" ] || { echo "$tag: $in_file in the file, $in_dom in the browser"; exit 1; }
done
# Self-contained: no address of anything else, no script.
if grep -Eq '<(script|link|img|iframe)[ >]|@import|url\(' "$page"; then echo "the page needs other files"; exit 1; fi
if [ $# -gt 1 ]; then
    run --screenshot="$(realpath -m "$2")" "file://$page"
    [ -s "$2" ] || { echo "no screenshot was made"; cat "$work/log"; exit 1; }
fi
echo "$page: $(count '<article' "$page") samples, $(count '<svg' "$page") charts"
