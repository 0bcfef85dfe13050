"""Tables and the figure of an experiment, made from its receipts; used by run.py. Only the standard library is needed."""
import html, math, sys

# 97.5 % quantiles of Student's t for 1, 2, ... degrees of freedom.
T = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086]


def fail(message):
    sys.exit(f"run.py: {message}")


def metric(receipt, each):
    validation, name = receipt["validation"], each["name"]
    if "task" in each:
        answered = receipt["tasks"][each["task"]]
        return (answered["groups"][each["group"]] if "group" in each else answered)[each["number"]]
    if "start" in each:
        # NaN, which tables show as "-": the arm continues no other run.
        return receipt["start"][each["start"]] if "start" in receipt else math.nan
    layers = [value for key, value in validation.items() if key.startswith("validation/router/") and key.endswith("/" + {"maxvio": "maxvio", "effective": "e_eff"}.get(name, "?"))]
    if name == "loss":
        return validation["validation/ce"]
    if name == "dropped":
        return next(100 * found["dropped"] for found in receipt["capacities"] if found["capacity"] == "1.25")
    if not layers:
        fail(f"receipts have no metric {name!r}")
    return sum(layers) / len(layers)


def shown(value, digits):
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def interval(values):
    """Mean and half of the 95 % interval; no interval for one value."""
    mean, n = sum(values) / len(values), len(values)
    if n < 2:
        return mean, math.nan
    if n - 2 >= len(T):
        fail(f"the table of Student's t ends at {len(T) + 1} seeds")
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1))
    return mean, T[n - 2] * deviation / math.sqrt(n)


def grid(head, rows):
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def tables(plan, digest, receipts):
    arms = [arm["name"] for arm in plan["arm"]]
    seeds = [seed for seed in plan["seeds"] if all((arm, seed) in receipts for arm in arms)]
    if not seeds:
        fail("no seed has a receipt for every arm yet")
    for seed in seeds:
        if len({receipts[arm, seed]["start"]["parameters"] for arm in arms if "start" in receipts[arm, seed]}) > 1:
            fail(f"the arms of seed {seed} continue different runs: move their receipts away, and run them again")
    steps = sorted({receipt["steps"] for receipt in receipts.values()})
    plans = sorted({receipts[arm, seed]["plan"][:12] for arm in arms for seed in seeds})
    out = [f"Preregistration `{digest[:16]}`, {', '.join(map(str, steps))} steps, seeds {', '.join(map(str, seeds))}, {'plan' if len(plans) == 1 else 'plans'} {', '.join(f'`{plan}`' for plan in plans)}."]
    names, metrics = [each["name"] for each in plan["metric"]], {each["name"]: each for each in plan["metric"]}

    controls = {arm["name"]: arm.get("control", plan["control"]) for arm in plan["arm"]}
    # Pairs of an arm and its control, also for seeds that other arms do not have yet.
    pairs = {arm: [seed for seed in plan["seeds"] if (arm, seed) in receipts and (controls[arm], seed) in receipts] for arm in arms}

    def differences(arm, name):
        return [metric(receipts[arm, seed], metrics[name]) - metric(receipts[controls[arm], seed], metrics[name]) for seed in pairs[arm]]

    def told(arm, name):
        if arm == controls[arm]:
            return "0"
        mean, half = interval(differences(arm, name))
        if math.isnan(mean):
            return "-"
        if math.isnan(half):
            return f"{mean:+.3f}"
        text = f"{mean:+.3f} ± {half:.3f}"
        return f"**{text}**" if abs(mean) > half else text

    out.append("Means over seeds that every arm has:")
    values = {(arm, name): [metric(receipts[arm, seed], metrics[name]) for seed in seeds] for arm in arms for name in names}
    out.append(grid(["arm", *names], [[f"`{arm}`", *(shown(interval(values[arm, name])[0], 3) for name in names)] for arm in arms]))
    rows = [[f"`{arm}`", str(len(pairs[arm])), *(told(arm, name) for name in names)] for arm in arms]
    said = "mean and 95 % interval, bold where it excludes 0; one pair has no interval."
    if len(set(controls.values())) == 1:
        out.append(f"Difference to `{plan['control']}` of the same seed: {said}")
        out.append(grid(["arm", "pairs", *names], rows))
    else:
        out.append(f"Difference to the control of the same seed: {said}")
        out.append(grid(["arm", "control", "pairs", *names], [[row[0], f"`{controls[arm]}`", *row[1:]] for arm, row in zip(arms, rows)]))
    capacities = plan.get("capacities", [])

    def at(arm, capacity, key):
        found = [each[key] for seed in seeds for each in receipts[arm, seed]["capacities"] if each["capacity"] == capacity]
        return sum(found) / len(found)

    if len(capacities) > 1:
        out.append("Loss, and percent of dropped choices, when the same parameters are evaluated with this many slots per expert:")
        cells = [[f"`{arm}`", *(f"{at(arm, c, 'ce'):.3f}, {100 * at(arm, c, 'dropped'):.1f} %" for c in capacities)] for arm in arms]
        out.append(grid(["arm", *capacities], cells))
    for each in plan["metric"]:
        out.append(f"`{each['name']}`: {each['what']}. Expected: {each['expected']}.")
        begun = [seed for seed in plan["seeds"] if any((arm, seed) in receipts for arm in arms)]
        cell = lambda arm, seed: shown(metric(receipts[arm, seed], each), 4) if (arm, seed) in receipts else ""
        out.append(grid(["arm", *(f"seed {seed}" for seed in begun)], [[f"`{arm}`", *(cell(arm, seed) for seed in begun)] for arm in arms]))
    return "\n\n".join(out)


def round_numbers(low, high):
    """Some round numbers from below `low` to above `high`, and their digits after the point."""
    raw = (high - low or 1) / 5
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [step * i for i in range(first, last + 1)], max(0, -math.floor(math.log10(step)))


def figure(plan, receipts):
    """SVG: the metric of `[figure]` by arm, a dot for each seed, a bar for the mean with its 95 % interval."""
    wanted = plan["figure"]
    each = next(each for each in plan["metric"] if each["name"] == wanted["metric"])
    rows = []
    for arm in plan["arm"]:
        values = [wanted.get("times", 1) * metric(receipts[arm["name"], seed], each) for seed in plan["seeds"] if (arm["name"], seed) in receipts]
        values = [value for value in values if not math.isnan(value)]
        if values:
            rows.append((arm.get("label", arm["name"]), values, *interval(values)))
    ends = [end for _, values, middle, half in rows for end in (*values, middle - (half if half == half else 0), middle + (half if half == half else 0))]
    ticks, digits = round_numbers(min(ends), max(ends))
    low, high = ticks[0], ticks[-1]
    left, width, step = 20 + 7 * max(len(label) for label, *_ in rows), 420, 30
    across = lambda value: left + width * (value - low) / (high - low or 1)
    height = 56 + step * len(rows) + 40
    parts = [f'<text x="12" y="24" font-weight="bold">{html.escape(wanted["title"])}</text>']
    for value in ticks:
        x = across(value)
        parts.append(f'<line x1="{x:.1f}" y1="44" x2="{x:.1f}" y2="{height - 36}" stroke="#ddd"/>')
        parts.append(f'<text x="{x:.1f}" y="{height - 20}" text-anchor="middle" fill="#555">{value:.{digits}f}</text>')
    for row, (label, values, middle, half) in enumerate(rows):
        y = 62 + step * row
        parts.append(f'<text x="{left - 10}" y="{y + 4}" text-anchor="end">{html.escape(label)}</text>')
        if half == half:
            parts.append(f'<line x1="{across(middle - half):.1f}" y1="{y}" x2="{across(middle + half):.1f}" y2="{y}" stroke="#1b6ca8" stroke-width="2"/>')
        parts.append(f'<rect x="{across(middle) - 2:.1f}" y="{y - 8}" width="4" height="16" fill="#1b6ca8"/>')
        parts += [f'<circle cx="{across(value):.1f}" cy="{y}" r="3.5" fill="#d1495b" fill-opacity="0.6"/>' for value in values]
    parts.append(f'<text x="{left + width / 2:.0f}" y="{height - 4}" text-anchor="middle" fill="#555">{html.escape(wanted["axis"])}</text>')
    size = f'width="{left + width + 40}" height="{height}" viewBox="0 0 {left + width + 40} {height}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
