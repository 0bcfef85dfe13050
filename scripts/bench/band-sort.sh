#!/usr/bin/env bash
# Sorts SIZE band rows of 16 bytes within MEMORY and measures the disk and GNU sort for comparison.
#
#   scripts/bench/band-sort.sh SIZE [MEMORY=1GiB] [FOLDER=a temporary folder] [PEER_ROWS=20000000]
#
# FOLDER needs 16 bytes per row, and 33 more for each of PEER_ROWS (the rows as hexadecimal lines for GNU sort; 0 leaves it out).
# Prints JSON lines: disk, ours, and both at PEER_ROWS. The digest must be the same for any MEMORY.
. "$(dirname "$0")/../lib.sh"
size=${1:?rows to sort, such as 100000000}
memory=${2:-1GiB}
folder=$(mktemp -d "${3:-${TMPDIR:-/tmp}}/band-sort.XXXXXX")
peer=${4:-20000000}
trap 'rm -rf "$folder"' EXIT
free=$(df --output=avail -B1 "$folder" | tail -1)
need=$((size * 17 + peer * 80))
[ "$free" -gt "$need" ] || { echo "$folder has $free bytes free, $need are needed; name another folder or a smaller size" >&2; exit 2; }
program=$(example band_sort)

rate() { awk -v bytes="$1" -v start="$2" -v end="$3" 'BEGIN { printf "%.0f", bytes / (end - start) / 1e6 }'; }
now() { date +%s.%N; }
t0=$(now); dd if=/dev/zero of="$folder/disk" bs=4M count=512 oflag=direct status=none; t1=$(now)
dd if="$folder/disk" of=/dev/null bs=4M iflag=direct status=none; t2=$(now); rm "$folder/disk"
echo "{\"disk_write_mb_per_s\": $(rate 2147483648 "$t0" "$t1"), \"disk_read_mb_per_s\": $(rate 2147483648 "$t1" "$t2")}"

"$program" --rows "$size" --memory "$memory" --folder "$folder"

if [ "$peer" -gt 0 ]; then
    "$program" --rows "$peer" --memory 64MiB --folder "$folder"
    # GNU sort has no fixed-width binary mode; it gets the same rows as hexadecimal lines.
    python3 - "$peer" "$folder/lines" <<'PY'
import sys
n, out = int(sys.argv[1]), open(sys.argv[2], "w")
mask = (1 << 64) - 1
for first in range(0, n, 100000):
    lines = []
    for d in range(first, min(n, first + 100000)):
        x = d // 2 if d % 8 == 7 else d
        x = ((x ^ (x >> 30)) * 0xbf58476d1ce4e5b9) & mask
        x = ((x ^ (x >> 27)) * 0x94d049bb133111eb) & mask
        lines.append("%016x%016x\n" % (x ^ (x >> 31), d))
    out.writelines(lines)
PY
    t0=$(now); LC_ALL=C sort -S 64M --parallel=2 -T "$folder" "$folder/lines" | wc -l >/dev/null; t1=$(now)
    awk -v n="$peer" -v a="$t0" -v b="$t1" 'BEGIN { printf "{\"gnu_sort_rows\": %d, \"all_s\": %.2f, \"rows_per_s\": %.0f}\n", n, b - a, n / (b - a) }'
fi
