#!/usr/bin/env python3
"""datatrove_urls.py PROGRAM: see run.sh."""
import json, pathlib, random, subprocess, sys, tarfile, tempfile
from collections import Counter

import datatrove
from datatrove.data import Document
from datatrove.pipeline.filters.url_filter import URLFilter, normalizer
from tldextract import TLDExtract

ASSETS = pathlib.Path(datatrove.__file__).parent / "assets"
REASONS = {"domain": "url_domain", "subdomain": "url_subdomain", "url": "url_listed", "hard_blacklisted": "url_hard_word",
           "soft_blacklisted": "url_soft_words", "blacklisted_subword": "url_substring"}


def urls(lists):
    """URLs that hit each list, nearly hit it, or hit none."""
    draw = random.Random(7)
    words = {name: [w.strip() for w in open(ASSETS / f"{name}.txt") if w[0] != "#" and w.strip()]
             for name in ["banned_words", "banned_subwords", "soft_banned_words"]}
    plain = "news page about article 2024 index shop world river live house amp id story".split()
    domains = draw.sample(open(lists / "domains").read().splitlines(), 8000)
    for domain in domains:
        host = draw.choice(["", "", "www.", "blog.", "a.b.", "x"]) + domain
        yield draw.choice(["http://", "https://"]) + host + draw.choice(["", "/", ":8080/x", "/a/b?c=d#e"])
    for url in draw.sample(open(lists / "urls").read().splitlines(), 2000):
        yield url
        yield "http://" + url
        yield url + "/x"
    for _ in range(8000):
        path = [draw.choice(plain) for _ in range(4)]
        for name in draw.sample(sorted(words), draw.randrange(3)):
            path[draw.randrange(4)] = draw.choice(words[name])
        joint = draw.choice(["-", "/", "_", "+", ""])
        yield f"https://{draw.choice(plain)}{draw.randrange(99)}.example{draw.choice(['.org', '.co.uk', '.com.br', '.github.io'])}/{joint.join(path)}"


def explanation(stage, url, our):
    """Why moe-data drops a URL that datatrove judges differently: its intentional differences."""
    host = stage.tldextractor(url)
    parts = ".".join(part for part in [host.subdomain, host.domain, host.suffix] if part).split(".")
    if our == "url_domain" and parts and all(part.isdigit() for part in parts):
        return "the address of a host is listed"
    if our == "url_subdomain" and any(".".join(parts[i:]) in stage.block_listed_domains for i in range(len(parts))):
        return "a host above it is listed"
    if our == "url_hard_word" and set(normalizer.split(url.lower())) & stage.banned_words:
        return "a word in another case"
    return "not explained"


def main(program):
    with tempfile.TemporaryDirectory() as scratch:
        lists = pathlib.Path(scratch)
        with tarfile.open(ASSETS / "url_filterblacklistsv0_3_0.tar.gz", "r:gz") as tar:
            tar.extractall(lists)
        asset = lambda name: [str(ASSETS / f"{name}.txt")]
        settings = {"domains": [str(lists / "domains")], "urls": [str(lists / "urls")], "hard_words": asset("banned_words"),
                    "soft_words": asset("soft_banned_words"), "substrings": asset("banned_subwords")}
        rules = lists / "rules.json"
        rules.write_text(json.dumps([{"name": "url_lists", "settings": settings}]))
        given = list(urls(lists))
        lines = "".join(json.dumps({"text": "", "url": url}) + "\n" for url in given).encode()
        out = subprocess.run([program, rules], input=lines, stdout=subprocess.PIPE, check=True).stdout
        ours = [json.loads(line)["dropped"] for line in out.splitlines()]
    stage = URLFilter()
    # The list of suffixes that comes with the package, so that nothing is downloaded.
    stage.tldextractor = TLDExtract(suffix_list_urls=())
    pairs = Counter()
    for url, our in zip(given, ours):
        result = stage.filter(Document(text="", id="", metadata={"url": url}))
        their = None if result is True else REASONS[result[1]]
        why = "" if their == our else explanation(stage, url, our)
        if why == "not explained":
            print(f"{their} / {our}: {url}", file=sys.stderr)
        pairs[their, our, why] += 1
    print("| datatrove | moe-data | because | URLs |\n|---|---|---|---|")
    for (their, our, why), n in sorted(pairs.items(), key=lambda item: -item[1]):
        print(f"| {their or 'kept'} | {our or 'kept'} | {why} | {n:,} |")
    sys.exit(any(why == "not explained" for _, _, why in pairs))


if __name__ == "__main__":
    main(*sys.argv[1:])
