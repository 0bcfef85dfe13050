#!/usr/bin/env python3
"""How well the main text of pages is found: our reader, PyPI's trafilatura, and tags stripped, on pages whose text others have marked.

    python3 scripts/bench/extraction.py --program target/release/moe-data --work runs/extraction
    ... --trafilatura CHECKOUT      the 990 pages of a checkout of adbar/trafilatura, whose tests/ has evaldata.py, cache/ and eval/
    ... --articles CHECKOUT         the 181 pages of a checkout of scrapinghub/article-extraction-benchmark

Without a checkout the pages are those of trafilatura's own tests, which its source package 1.0.0 carries (fetched by pip, kept in --work; the
program is GPL 3, the pages are of third parties, so none is in this repository). Each page has snippets that belong to its text and
snippets that do not; a snippet that is found, or is not, counts as in trafilatura's evaluation: precision, recall and F1 over all pages.
Articles have their whole text: precision and recall of shingles of four words, as means over pages, as in that benchmark. `pip install
trafilatura` gives its row. -v names the snippets that we get wrong.
"""
import argparse, ast, collections, gzip, html, json, pathlib, re, shutil, subprocess, sys, tarfile

SDIST = "trafilatura==1.0.0"


def fail(message):
    sys.exit(f"extraction.py: {message}")


def test_pages(work):
    """Pages of trafilatura's tests, from its source package."""
    folder = work / "sdist"
    if not any(folder.glob("trafilatura-*.tar.gz")):
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "-d", folder, SDIST]
        if subprocess.run(list(map(str, command))).returncode != 0:
            fail(f"pip cannot download the source of {SDIST}")
    archive = next(folder.glob("trafilatura-*.tar.gz"))
    with tarfile.open(archive) as tar:
        members = {member.name.split("/", 1)[1]: member for member in tar if "/" in member.name}
        read = lambda name: tar.extractfile(members[name]).read()
        tree = ast.parse(read("tests/realworld_tests.py"))
        files, marks, url = {}, {}, None
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "MOCK_PAGES":
                files = ast.literal_eval(node.value)
        body = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "test_extract").body
        for node in body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and node.value.args:
                url = ast.literal_eval(node.value.args[0])
            elif isinstance(node, ast.Assert) and url in files:
                tests = node.test.values if isinstance(node.test, ast.BoolOp) and isinstance(node.test.op, ast.And) else [node.test]
                for test in tests:
                    if isinstance(test, ast.Compare) and isinstance(test.left, ast.Constant):
                        wanted = isinstance(test.ops[0], ast.In)
                        marks.setdefault(files[url], ([], []))[0 if wanted else 1].append(test.left.value)
        return {name: (read(f"tests/cache/{name}"), *found) for name, found in marks.items()}


def checkout_pages(folder):
    """Pages of trafilatura's evaluation."""
    tree = ast.parse((folder / "tests/evaldata.py").read_text(encoding="utf-8"))
    pages = next(ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign))
    found = {}
    for page in pages.values():
        path = next((path for sub in ("cache", "eval") if (path := folder / "tests" / sub / page["file"]).exists()), None)
        if path:
            found[page["file"]] = (path.read_bytes(), page.get("with", []), page.get("without", []))
    return found


def article_pages(folder):
    truth = json.loads((folder / "ground-truth.json").read_text(encoding="utf-8"))
    return {f"{name}.html": (gzip.decompress((folder / f"html/{name}.html.gz").read_bytes()), page["articleBody"]) for name, page in truth.items()}


def plain(text):
    return " ".join(text.split())


def ours(program, pages, work):
    """What a build keeps of the pages, by the names of their files."""
    folder, out = work / "pages", work / "out"
    for path in (folder, out, work / "text"):
        shutil.rmtree(path, ignore_errors=True)
    folder.mkdir(parents=True)
    names = {}
    for i, (name, page) in enumerate(pages.items()):
        names[f"{i:04d}.html"] = name
        (folder / f"{i:04d}.html").write_bytes(page)
    recipe = work / "recipe.toml"
    recipe.write_text('[[source]]\nname = "pages"\npaths = ["pages"]\n[dedup]\nexact = false\n[limits]\nmax_bad_fraction = 1.0\n')
    for command in (["build", "--recipe", recipe, "--text-only", "--out", out], ["export", "--jsonl", work / "text", "--out", out]):
        done = subprocess.run([str(part) for part in (program, "-q", *command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            fail(f"{done.stderr}exit code {done.returncode}")
    texts = {}
    for path in (work / "text").rglob("*.zst"):
        lines = subprocess.run(["zstd", "-dc", str(path)], stdout=subprocess.PIPE, check=True).stdout
        for line in lines.splitlines():
            record = json.loads(line)
            texts[names[pathlib.PurePath(record["id"]).name.split("#")[0]]] = record["text"]
    return {name: texts.get(name, "") for name in pages}


def stripped(page):
    text = re.sub(r"(?is)<!--.*?-->|<(script|style|head)\b.*?</\1>", " ", page.decode("utf-8", "replace"))
    return html.unescape(re.sub(r"(?s)<[^>]*>", " ", text))


def snippet_row(pages, texts, verbose):
    counts = collections.Counter()
    for name, (_, wanted, unwanted) in pages.items():
        text = plain(texts[name])
        for kind, snippets in (("with", wanted), ("without", unwanted)):
            for snippet in snippets:
                found = plain(snippet) in text
                counts[kind, found] += 1
                if verbose and found != (kind == "with"):
                    print(f"    {name}: {'lacks' if kind == 'with' else 'has'} `{plain(snippet)[:90]}`")
    right, missed, furniture = counts["with", True], counts["with", False], counts["without", True]
    return right / max(1, right + furniture), right / max(1, right + missed)


def shingles(text):
    words = re.findall(r"\w+", text)
    n = min(4, len(words))
    return collections.Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1)) if n else collections.Counter()


def article_row(pages, texts):
    precision = recall = 0.0
    for name, (_, truth) in pages.items():
        found, expected = shingles(texts[name]), shingles(truth)
        both = sum((found & expected).values())
        precision += both / max(1, sum(found.values()))
        recall += both / max(1, sum(expected.values()))
    return precision / len(pages), recall / len(pages)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=pathlib.Path, required=True, help="moe-data")
    parser.add_argument("--work", type=pathlib.Path, required=True, help="folder for the pages and the build")
    parser.add_argument("--trafilatura", type=pathlib.Path, help="checkout of adbar/trafilatura")
    parser.add_argument("--articles", type=pathlib.Path, help="checkout of scrapinghub/article-extraction-benchmark")
    parser.add_argument("-v", action="store_true", help="name what is wrong")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    if args.articles:
        pages, score = article_pages(args.articles), lambda pages, texts, verbose: article_row(pages, texts)
    else:
        pages, score = checkout_pages(args.trafilatura) if args.trafilatura else test_pages(args.work), snippet_row
    sources = {name: page[0] for name, page in pages.items()}
    systems = {"moe-data": lambda: ours(args.program, sources, args.work), "tags stripped": lambda: {n: stripped(p) for n, p in sources.items()}}
    try:
        import trafilatura

        name = f"trafilatura {trafilatura.__version__}"
        systems[name] = lambda: {n: trafilatura.extract(p) or "" for n, p in sources.items()}
        systems[f"{name}, no comments"] = lambda: {n: trafilatura.extract(p, include_comments=False) or "" for n, p in sources.items()}
    except ImportError:
        print("no trafilatura: `pip install trafilatura` for its row")
    print(f"{len(pages)} pages" + ("" if args.articles else f", {sum(len(p[1]) for p in pages.values())} snippets in, {sum(len(p[2]) for p in pages.values())} out"))
    for name, extract in systems.items():
        precision, recall = score(pages, extract(), args.v and name == "moe-data")
        print(f"{name:<32} P {precision:.3f}  R {recall:.3f}  F1 {2 * precision * recall / max(1e-9, precision + recall):.3f}")


if __name__ == "__main__":
    main()
