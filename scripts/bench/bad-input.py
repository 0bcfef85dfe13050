#!/usr/bin/env python3
"""Plants one defect of each kind in a file of 1000 good records, and counts what moe-data and datatrove read of it.

    python3 -m venv venv && venv/bin/pip install 'datatrove[io,processing]==0.10.1' warcio zstandard
    venv/bin/python scripts/bench/bad-input.py target/release/moe-data

Prints the table of docs/benchmarks/bad-input.md.
"""
import contextlib, gzip, io, json, logging, pathlib, random, subprocess, sys, tempfile

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

N = 1000
random.seed(1)
WORDS = [f"word{n}" for n in range(3000)]


def text(n):
    return f"Document {n}. " + " ".join(random.choice(WORDS) for _ in range(40))


TEXTS = [text(n) for n in range(N)]
LINES = [json.dumps({"id": f"d{n}", "text": t}).encode() + b"\n" for n, t in enumerate(TEXTS)]
HALF = N // 2


def jsonl_with(line):
    return b"".join(LINES[:HALF] + [line] + LINES[HALF:])


def members(lines, size=10, pack=gzip.compress):
    return [pack(b"".join(lines[i : i + size])) for i in range(0, len(lines), size)]


def damaged(blob, share=0.5, n=16):
    at = int(len(blob) * share)
    return blob[:at] + b"\xff" * n + blob[at + n :]


def joined(parts, i):
    return b"".join(damaged(part) if k == i else part for k, part in enumerate(parts))


def table():
    return pa.table({"id": [f"d{n}" for n in range(N)], "text": TEXTS})


def parquet():
    out = io.BytesIO()
    pq.write_table(table(), out, row_group_size=100, compression="zstd", use_dictionary=False)
    blob = bytearray(out.getvalue())
    column = pq.ParquetFile(io.BytesIO(blob)).metadata.row_group(5).column(1)
    # After the page header, which has statistics that are not needed.
    at = column.data_page_offset + column.total_compressed_size // 2
    blob[at : at + 16] = b"\xff" * 16
    return bytes(blob)


def arrow():
    out = io.BytesIO()
    with pa.ipc.new_file(out, table().schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        for batch in table().to_batches(max_chunksize=100):
            writer.write_batch(batch)
    blob = out.getvalue()
    # The longest frames are those of the texts, one per batch.
    starts = [i for i in range(len(blob)) if blob.startswith(b"\x28\xb5\x2f\xfd", i)]
    spans = sorted(zip(starts, starts[1:] + [len(blob)]), key=lambda s: s[0] - s[1])[:10]
    at = sorted(spans)[5][0]
    return blob[:at] + b"oops" + blob[at + 4 :]


def warc_record(n, extra=0):
    body = TEXTS[n].encode()
    head = (
        f"WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Record-ID: <urn:uuid:{n}>\r\nWARC-Target-URI: http://a.example/{n}\r\n"
        f"WARC-Date: 2026-01-01T00:00:00Z\r\nContent-Type: text/plain\r\nContent-Length: {len(body) + extra}\r\n\r\n"
    )
    return head.encode() + body + b"\r\n\r\n"


def warc(extra=0, pack=lambda blob: blob):
    return [pack(warc_record(n, extra if n == HALF else 0)) for n in range(N)]


BIG = b'{"id":"long","text":"' + b"a" * 50_000_000 + b'"}\n'
ZSTD = zstandard.ZstdCompressor(level=3, write_checksum=True).compress
# Kind, file, content, number of good records that a perfect reader could return.
KINDS = [
    ("a line that is no JSON", "a.jsonl", jsonl_with(b'{"id":"x","text":"unfinished\n'), N),
    ("a byte that is no UTF-8", "a.jsonl", jsonl_with(b'{"id":"x","text":"\xff"}\n'), N),
    ("NUL bytes between lines", "a.jsonl", jsonl_with(b"\0" * 100 + b"\n"), N),
    ("a line without text", "a.jsonl", jsonl_with(b'{"id":"x"}\n'), N),
    ("text that is a list", "a.jsonl", jsonl_with(b'{"id":"x","text":["a"]}\n'), N),
    ("a line of 50 MB", "a.jsonl", jsonl_with(BIG), N),
    ("gzip, cut at three quarters", "a.jsonl.gz", gzip.compress(b"".join(LINES))[: 3 * len(gzip.compress(b"".join(LINES))) // 4], None),
    ("gzip of 100 members, one damaged", "a.jsonl.gz", joined(members(LINES), 50), N - 10),
    ("gzip, garbage after the end", "a.jsonl.gz", gzip.compress(b"".join(LINES)) + b"garbage", N),
    ("zstd of 100 frames, one damaged", "a.jsonl.zst", joined(members(LINES, pack=ZSTD), 50), N - 10),
    ("an empty file", "a.jsonl", b"", 0),
    ("Parquet, a damaged page in one of 10 row groups", "a.parquet", parquet(), N - 100),
    ("Arrow, a damaged batch of 10", "a.arrow", arrow(), N - 100),
    ("WARC, a length that is too long", "a.warc", b"".join(warc(extra=700)), N - 1),
    ("WARC.gz, a damaged member", "a.warc.gz", joined(warc(pack=gzip.compress), HALF), N - 1),
    ("WARC.gz, cut inside the last record", "a.warc.gz", b"".join(warc(pack=gzip.compress))[:-60], N - 1),
]


def ours(binary, folder, name):
    recipe = folder / "recipe.toml"
    ids = "" if "warc" in name else 'id = "id"\n'
    recipe.write_text(
        f'[[source]]\nname = "a"\npaths = ["data/{name}"]\n{ids}[tokenizer]\ntrain = {{ vocab_size = 300 }}\n'
        "[limits]\nmax_bad_fraction = 1.0\n"
    )
    said = subprocess.run([binary, "build", "--recipe", recipe, "--out", folder / "out", "-q"], capture_output=True, text=True)
    ledger = folder / "out" / "ledger.json"
    if not ledger.exists():
        return f"fails: {said.stderr.strip().splitlines()[0][:60]}", ""
    source = json.loads(ledger.read_text())["sources"]["a"]
    causes = ", ".join(f"{cause} {count['docs']}" for cause, count in source["quarantined"].items())
    return source["kept"]["docs"], causes


def theirs(folder, name):
    from datatrove.pipeline import readers

    logging.disable(logging.CRITICAL)
    kind = {"parquet": "ParquetReader", "arrow": "IpcReader", "warc": "WarcReader"}.get(name.split(".")[1], "JsonlReader")
    n = 0
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            options = {"compression": "zstd"} if name.endswith(".zst") else {}
            for _ in getattr(readers, kind)(str(folder / "data"), **options).run():
                n += 1
    except BaseException as e:
        return f"{n}, then {type(e).__name__}"
    return n


def main():
    from loguru import logger

    logger.remove()
    binary = pathlib.Path(sys.argv[1]).resolve()
    print("| defect | good records | moe-data reads | its quarantine | datatrove 0.10.1 reads |\n| --- | ---: | ---: | --- | ---: |")
    for kind, name, content, good in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            (folder / "data").mkdir()
            (folder / "data" / name).write_bytes(content)
            kept, causes = ours(binary, folder, name)
            good = "-" if good is None else good
            print(f"| {kind} | {good} | {kept} | {causes} | {theirs(folder, name)} |", flush=True)


main()
