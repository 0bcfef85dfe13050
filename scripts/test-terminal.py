"""What people see on a terminal: `moe-train watch` and `--ui` at any size, of runs that are killed and resumed; progress of long work; and a
corpus that gives orders to terminals, through every command that shows its names or texts. Run by test-pages.sh in its folder, with the
programs on PATH.
"""

import json, os, re, signal, subprocess, sys, time

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
from terminal import ENTER, LEAVE, OURS, Terminal, assert_harmless, on_terminal, screen

LAST = json.loads(open("corpus.jsonl", encoding="utf-8").read().splitlines()[4])["id"]


def plain(grid):
    return ["".join(c for c, _ in line).rstrip() for line in grid]


def hostile():
    """Names and texts with orders to terminals."""
    drops = subprocess.run(["moe-data", "why", f"hostile/{LAST}", "--json"], capture_output=True, text=True)
    assert drops.returncode == 0, drops.stderr
    commands = [
        ["moe-data", "why", f"hostile/{LAST}"],
        ["moe-data", "why", f"hostile/{LAST}", "--json"],
        ["moe-data", "dups", "--top", "50"],
        ["moe-data", "dups", "--cluster", "0"],
        ["moe-data", "explain", "0", "--full"],
        ["moe-data", "explain", "0", "--json"],
        ["moe-data", "--quiet", "where", LAST],
        ["moe-data", "--quiet", "diff", "out", "other", "--limit", "50"],
        ["moe-data", "inspect", "out"],
        ["moe-train", "sample", "runs/smoke", "--prompt", "\x1b[2J\x1b]0;title\x07\u202eback", "--max-tokens", "40"],
        ["moe-train", "watch", "--once", "runs/\x1b[2J\x07evil"],
    ]
    for command in commands:
        terminal = Terminal(command)
        code = terminal.end()
        # A document need not be in a cluster or in the plan; what is said then is looked at all the same.
        assert code in (0, 2, 3), f"{command}: exit code {code}: {terminal.written!r}"
        assert terminal.written, command
        assert_harmless(terminal.written, command)
    print(f"{len(commands)} commands on a corpus that gives orders to terminals: nothing is obeyed")


def at_any_size():
    """A finished run: its screen at several sizes, left as it was found."""
    for columns, rows in [(80, 24), (200, 60), (40, 10), (20, 5), (3, 2), (1, 1)]:
        written = on_terminal(["moe-train", "watch", "runs/smoke"], columns=columns, rows=rows)
        assert written.count(ENTER) == 1 and written.count(LEAVE) == 1, written
        assert_harmless(written, f"watch at {columns} x {rows}", OURS)
        shown = plain(screen(written, columns, rows))
        if (columns, rows) == (80, 24):
            text = "\n".join(shown)
            assert "step 20/20" in shown[0] and "done" in shown[0], text
            for word in ("loss", "tokens/s", "MaxVio", "validation", "load of each expert"):
                assert word in text, (word, text)
            assert any("\u2800" < c <= "\u28ff" for c in text), text
        # What stays says how the run stands.
        assert b"step 20/20" in written.split(LEAVE)[1], written
    quiet = subprocess.run(["moe-train", "watch", "runs/smoke"], capture_output=True)
    assert quiet.returncode == 0 and b"\x1b" not in quiet.stdout + quiet.stderr and b"step 20/20" in quiet.stdout, quiet
    state = json.loads(subprocess.run(["moe-train", "watch", "runs/smoke", "--once", "--json"], capture_output=True).stdout)
    assert (state["step"], state["status"]) == (20, "done"), state
    dumb = on_terminal(["moe-train", "watch", "runs/smoke"], TERM="dumb")
    assert b"\x1b" not in dumb, dumb
    colorless = on_terminal(["moe-train", "watch", "runs/smoke"], NO_COLOR="1")
    assert not re.search(rb"\x1b\[\d+m", colorless), colorless
    print("the view of a finished run at six sizes")


def lines(path):
    try:
        with open(path, "rb") as file:
            return file.read().count(b"\n")
    except FileNotFoundError:
        return 0


def killed_and_resumed():
    """A run that is killed in a line and resumed while somebody watches it, who sees its end."""
    run = "runs/killed"
    # Each step with a checkpoint and a line: long enough to be seen on any machine.
    train = ["moe-train", "--quiet", "--shards", "out", "--preset", "smoke", "--run", run, "--set", "run.save_every=2", "--set", "data.batch=8"]
    first = subprocess.Popen(train)
    while lines(f"{run}/metrics.jsonl") < 3:
        assert first.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    watching = Terminal(["moe-train", "watch", run])
    assert watching.read(20, b"running"), watching.written
    first.send_signal(signal.SIGKILL)
    first.wait()
    with open(f"{run}/metrics.jsonl", "a") as file:
        file.write('{"step":99,"train/ce":')
    assert watching.read(20, b"not running"), watching.written
    watching.resize(50, 12)
    assert subprocess.run(["moe-train", "--quiet", "resume", run]).returncode == 0
    assert watching.end(30) == 0, watching.written
    assert_harmless(watching.written, "watch of a killed run", OURS)
    assert b"step 20/20" in watching.written.split(LEAVE)[1], watching.written
    print("a run that was killed and resumed is followed to its end")


def left_in_any_way():
    """The screen is given back after Ctrl-C, an error, a stop by an alarm; what was said is said again."""
    watching = Terminal(["moe-train", "watch", "runs/stopped"])
    assert watching.read(20, b"\x1b[J")
    watching.keys(b"\x03")
    assert watching.end(10) == 130
    assert watching.written.count(LEAVE) == 1 and watching.written.split(LEAVE)[1].strip(), watching.written

    base = ["moe-train", "--ui", "--shards", "out", "--preset", "smoke"]
    # Long enough that a fast machine does not end it before it has drawn a screen.
    training = Terminal([*base, "--run", "runs/ui", "--steps", "400"])
    assert training.read(60, b"\x1b[J"), training.written
    assert training.read(60, b"load of each expert"), training.written
    training.keys(b"\x03")
    code = training.end(60)
    after = training.written.split(LEAVE)[1]
    # It may have come to its end before the key.
    assert code in (0, 130) and (b"stopped after step" in after or b"trained 400 steps" in after), (code, after)
    assert_harmless(training.written, "--ui", OURS)

    # Weights grow by 99 in each step, whatever the gradient is.
    decay = ["optim.kind=lion", "optim.lr=10", "optim.lion.weight_decay=10"]
    wild = [*decay, "schedule.kind=constant", "schedule.warmup=0"]
    diverged = Terminal([*base, "--run", "runs/diverged", *(word for value in wild for word in ("--set", value))])
    code = diverged.end(60)
    assert code == 6 and b"error:" in diverged.written.split(LEAVE)[1], (code, diverged.written[-2000:])
    alarms = [json.loads(line) for line in open("runs/diverged/alarms.jsonl")]
    assert alarms[-1]["alarm"] == "non-finite", alarms
    looked = subprocess.run(["moe-train", "watch", "runs/diverged"], capture_output=True, text=True)
    assert looked.returncode == 6 and "diverged" in looked.stdout, looked

    quiet = subprocess.run([*base, "--run", "runs/no-terminal", "--stop-after", "1"], capture_output=True)
    assert quiet.returncode == 0 and b"\x1b" not in quiet.stderr and b"--ui needs a terminal" in quiet.stderr, quiet
    print("the screen is given back after Ctrl-C, at an error and at the end")


def progress():
    """Bars stay in their line of a narrow terminal, and files get no control sequences."""
    for command in [
        ["moe-data", "build", "--recipe", "recipe.toml", "--out", "again"],
        ["moe-data", "mix", "--out", "again", "--seq-len", "64"],
        ["moe-data", "verify", "again"],
        ["moe-data", "export", "--npy", "--out", "again"],
        ["moe-data", "tokenizer", "train", "corpus.jsonl", "--vocab-size", "300", "--output", "tokenizer.json"],
        ["moe-data", "tokenizer", "stats", "corpus.jsonl", "--tokenizer", "tokenizer.json"],
        ["moe-data", "report", "again"],
        ["moe-train", "eval", "runs/smoke", "--shards", "out"],
        ["moe-train", "export", "runs/smoke", "--to", "hf", "hf"],
    ]:
        terminal = Terminal(command, columns=60)
        code = terminal.end()
        assert code == 0, (command, code, terminal.written)
        for drawn in re.split(rb"\r\n?|\x1b\[\d*[A-Z]", terminal.written):
            text = re.sub(rb"\x1b\[[\d;?]*[A-Za-z]", b"", drawn).decode()
            is_bar = re.search(r" of .*%\)", text)
            assert not is_bar or len(text) <= 60, (command, len(text), text)
    print("bars of nine commands stay in a line of 60 columns")


if __name__ == "__main__":
    hostile()
    at_any_size()
    killed_and_resumed()
    left_in_any_way()
    progress()
