#!/usr/bin/env bash
# Builds from and to an S3 server on this machine (moto, from PyPI, in a virtual environment) and compares the bytes
# with those of a build from files. About a minute after compiling.
#
#   bash scripts/test-s3.sh [MOE_DATA]
. "$(dirname "$0")/lib.sh"
binary=$(program moe-data "${1:-}")
scratch
server=
trap '[ -z "$server" ] || kill "$server"; rm -rf "$work"' EXIT
cd "$work"
python=$(venv "$work/venv" 'moto[server]==5.*' boto3)
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
venv/bin/moto_server -H 127.0.0.1 -p "$port" > moto.log 2>&1 &
server=$!
export AWS_ACCESS_KEY_ID=key AWS_SECRET_ACCESS_KEY=secret AWS_REGION=us-east-1
export AWS_ENDPOINT_URL=http://127.0.0.1:$port AWS_ALLOW_HTTP=true

cat > s3.py <<'PY'
import pathlib, sys, time
import boto3
s3 = boto3.client("s3", endpoint_url=sys.argv[1])
for _ in range(100):
    try:
        s3.list_buckets()
        break
    except Exception:
        time.sleep(0.2)
verb = sys.argv[2]
if verb == "up":
    s3.create_bucket(Bucket="corpus")
    s3.create_bucket(Bucket="result")
    for path in sorted(pathlib.Path("data").rglob("*")):
        if path.is_file():
            s3.upload_file(str(path), "corpus", path.relative_to("data").as_posix())
elif verb == "down":
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket="result"):
        for item in page.get("Contents", []):
            to = pathlib.Path("down") / item["Key"]
            to.parent.mkdir(parents=True, exist_ok=True)
            s3.download_file("result", item["Key"], str(to))
elif verb == "put":
    s3.put_object(Bucket="result", Key=sys.argv[3], Body=b"stale")
PY
s3() { "$python" s3.py "$AWS_ENDPOINT_URL" "$@"; }

# Every kind of reading: compressed streams, slices by bytes, a WARC file, text files; and one object larger than a block.
mkdir -p data/text data/plain
cp "$repo"/datasets/*.jsonl.gz "$repo/datasets/sqlite_docs_40.warc.gz" data/
cp "$repo/README.md" "$repo/ARCHITECTURE.md" data/text/
zcat data/django_docs_two_versions.jsonl.gz > data/plain/django.jsonl
python3 - <<'PY'
import json
with open("data/plain/large.jsonl", "w") as file:
    for n in range(60_000):
        text = f"Line {n} of a large file: " + " ".join(f"word{n * k % 997}" for k in range(1, 40))
        file.write(json.dumps({"id": f"large-{n}", "text": text}) + "\n")
PY
s3 up

recipe() {
    cat <<TOML
[[source]]
name = "bible"
paths = ["$1/bible_*.jsonl.gz"]
id = "id"
[[source]]
name = "plain"
paths = ["$1/plain"]
id = "id"
[[source]]
name = "pages"
paths = ["$1/sqlite_docs_40.warc.gz"]
[[source]]
name = "text"
paths = ["$1/text/*.md"]
[[filter]]
name = "length"
[tokenizer]
train = { vocab_size = 1000 }
[limits]
slice_bytes = "1MB"
TOML
}
recipe "$work/data" > files.toml
recipe "s3://corpus" > objects.toml
"$binary" build --recipe files.toml --out out -q --strict
"$binary" build --recipe objects.toml --out from-objects -q --strict
for name in MANIFEST.json ledger.json tokenizer.json shards; do
    diff -r "out/$name" "from-objects/$name"
done
echo "the same bytes from objects as from files"
"$binary" build --recipe objects.toml --out from-objects 2>&1 | grep -q "nothing changed"
echo "objects that did not change are not read again"

fails() {
    local expected=$1 status=0
    shift
    "$binary" "$@" > said 2>&1 || status=$?
    if [ "$status" != 2 ] || ! grep -q "$expected" said; then
        echo "exit code $status; expected 2 and \`$expected\` in:"
        cat said
        exit 1
    fi
}
s3 put taken/shards/notes.bin
fails "holds other files, such as .shards/notes.bin" build --recipe objects.toml --out s3://result/taken --work from-objects -q
"$binary" build --recipe objects.toml --out s3://result/run1 --work from-objects -q
s3 put run1/shards/mine.bin
s3 down
test -e down/run1/shards/bible-v0-00000.bin
rm -r down
# Under another name: what the first copy had and this one has not goes away, and what others put there stays.
sed 's/"bible"/"books"/' objects.toml > renamed.toml
"$binary" build --recipe renamed.toml --out s3://result/run1 --work from-objects -q
s3 down
test -e down/run1/shards/mine.bin
rm down/run1/shards/mine.bin
for name in MANIFEST.json ledger.json recipe.lock.toml tokenizer.json token_bytes.u16 shards .moe-data/build.json; do
    diff -r "from-objects/$name" "down/run1/$name"
done
test ! -e down/run1/work
"$binary" verify down/run1 > /dev/null
fails "written by this program" build --input s3://result/run1/ --out none
echo "the copy in the store is the output folder, without what an earlier copy had and next to what others put there"

rm -r down
while true; do
    status=0
    "$binary" build --plan-tasks --recipe renamed.toml --out s3://result/run3 --work from-tasks -q || status=$?
    [ $status = 8 ] || break
    "$binary" task run --work from-tasks --array 0/2 -q &
    "$binary" task run --work from-tasks --array 1/2 -q
    wait $!
done
[ $status = 0 ]
s3 down
diff -r from-tasks/shards down/run3/shards
for name in MANIFEST.json ledger.json tokenizer.json shards; do
    diff -r "from-objects/$name" "down/run3/$name"
done
echo "shares of tasks read objects, and give the same copy"

fails "no file is there" build --input s3://corpus/nothing/ --out none
fails "nowhere" build --input s3://nowhere/a.jsonl --out none
fails "needs --work" build --recipe files.toml --out s3://result/run2
fails "nowhere" build --recipe files.toml --out s3://nowhere/run2 --work none
echo "what is not there is said before any work"
