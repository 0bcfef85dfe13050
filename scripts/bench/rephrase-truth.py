"""Tables of docs/benchmarks/rephrase.md from the rows of the example `rephrase_truth`."""

import collections
import sys

# The default limits, as in pipeline/src/rephrase/gates/; True: at least.
LIMITS = {
    "length_least": (0.7, True),
    "length_most": (1.6, False),
    "same_scripts": (0.8, True),
    "same_language": (1.0, True),
    "repeated_words": (0.2, False),
    "compression": (1.6, False),
    "copied_8grams": (0.6, False),
    "longest_copy": (0.6, False),
    "shared_words": (0.25, True),
    "numbers_kept": (0.95, True),
    "numbers_known": (0.95, True),
    "names_kept": (0.5, True),
    "names_known": (0.5, True),
    "names_swapped": (0.0, False),
    "names_replaced": (0.0, False),
    "literals_kept": (0.9, True),
    "literals_known": (0.9, True),
    "sentence_dropped": (4.0, False),
    "sentence_added": (4.0, False),
}
# Rules that compare surfaces: copies of prose miss them by construction.
SURFACE = {"copied_8grams", "longest_copy"}
FAULTS = ["number_changed", "name_replaced", "names_swapped", "sentence_dropped", "sentence_added", "end_cut"]
OTHERS = {
    "sentence_dropped": [2, 3, 4, 5, 6, 8],
    "sentence_added": [2, 3, 4, 5, 6, 8],
    "numbers_kept": [0.5, 0.7, 0.8, 0.9, 0.95],
    "numbers_known": [0.5, 0.7, 0.8, 0.9, 0.95],
    "names_kept": [0.3, 0.5, 0.6, 0.7, 0.8],
    "names_known": [0.3, 0.5, 0.6, 0.7, 0.8],
    "names_swapped": [0, 1, 2],
    "names_replaced": [0, 1, 2],
    "length_least": [0.6, 0.7, 0.75, 0.8],
    "shared_words": [0.15, 0.25, 0.3, 0.35],
    "copied_8grams": [0.4, 0.5, 0.6, 0.7],
}


def read(paths):
    rows = []
    for path in paths:
        with open(path) as file:
            head = next(file).rstrip("\n").split("\t")
            for line in file:
                row = dict(zip(head, line.rstrip("\n").split("\t")))
                row["values"] = {rule: None if row[rule] == "-" else float(row[rule]) for rule in LIMITS}
                rows.append(row)
    return rows


def misses(row, rule, limit=None):
    value, (default, least) = row["values"][rule], LIMITS[rule]
    limit = default if limit is None else limit
    return value is not None and (value < limit if least else value > limit)


def share(rows, test):
    return 100 * sum(map(test, rows)) / len(rows) if rows else float("nan")


def table(head, lines):
    print("| " + " | ".join(head) + " |")
    print("| --- " + "| ---: " * (len(head) - 1) + "|")
    for line in lines:
        print("| " + " | ".join(line) + " |")
    print()


def cell(x):
    return "" if x != x else f"{x:.1f}"


def main():
    rows = read(sys.argv[1:])
    faithful = [row for row in rows if row["fault"] == "faithful"]
    human = [row for row in faithful if row["pair"] != "copy"]
    pairs = sorted({row["pair"] for row in human})
    print(f"### Faithful passages that a rule rejects, in percent ({len(human)} passages)\n")
    lines = []
    for rule in LIMITS:
        by_pair = [share([r for r in human if r["pair"] == pair], lambda r: misses(r, rule)) for pair in pairs]
        lines.append([f"`{rule}`", cell(share(human, lambda r: misses(r, rule)))] + [cell(x) for x in by_pair])
    any_rule = lambda r: any(misses(r, rule) for rule in LIMITS)
    content = lambda r: any(misses(r, rule) for rule in LIMITS if rule not in SURFACE)
    for name, test in [("any rule", any_rule), ("any but the copy rules", content)]:
        by_pair = [share([r for r in human if r["pair"] == pair], test) for pair in pairs]
        lines.append([f"**{name}**", cell(share(human, test))] + [cell(x) for x in by_pair])
    table(["rule", "all"] + pairs, lines)

    print("### Planted faults that are caught, in percent (by all rules except those that compare surfaces)\n")
    corpora = sorted({row["corpus"] for row in rows})
    lines = []
    for fault in ["faithful"] + FAULTS:
        line = [f"`{fault}`"]
        for corpus in corpora:
            of = [r for r in rows if r["fault"] == fault and r["corpus"] == corpus]
            line.append(f"{cell(share(of, content))} of {len(of)}")
        lines.append(line)
    table(["planted"] + corpora, lines)

    print("### Which rule catches what, in percent (human versions)\n")
    lines = []
    for rule in LIMITS:
        caught = []
        for fault in FAULTS:
            of = [r for r in rows if r["fault"] == fault and r["pair"] != "copy"]
            caught.append(cell(share(of, lambda r: misses(r, rule))))
        lines.append([f"`{rule}`", cell(share(human, lambda r: misses(r, rule)))] + caught)
    table(["rule", "faithful"] + FAULTS, lines)

    print("### Other limits: caught / faithful passages lost, in percent (human versions)\n")
    best = collections.OrderedDict([
        ("sentence_dropped", "sentence_dropped"), ("sentence_added", "sentence_added"),
        ("numbers_kept", "number_changed"), ("numbers_known", "number_changed"),
        ("names_kept", "name_replaced"), ("names_known", "name_replaced"),
        ("names_replaced", "name_replaced"), ("names_swapped", "names_swapped"),
        ("length_least", "end_cut"),
    ])
    for rule, fault in best.items():
        of = [r for r in rows if r["fault"] == fault and r["pair"] != "copy"]
        cells = []
        for limit in OTHERS[rule]:
            caught, lost = share(of, lambda r: misses(r, rule, limit)), share(human, lambda r: misses(r, rule, limit))
            cells.append(f"{limit}: {caught:.0f} / {lost:.1f}")
        print(f"- `{rule}` on `{fault}`: " + ", ".join(cells))
    print()


main()
