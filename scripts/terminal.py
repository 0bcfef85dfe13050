"""Programs on a terminal of any size: what they write there, whether it is harmless, and what is on the screen then.

    python3 scripts/terminal.py OUT.svg COLUMNS ROWS SECONDS COMMAND...   a picture of the screen after so many seconds
"""

import fcntl, html, os, pty, re, select, signal, struct, sys, termios, time

ENTER, LEAVE = b"\x1b[?1049h\x1b[?25l\x1b[?7l", b"\x1b[?7h\x1b[?25h\x1b[?1049l"
# What our own view writes: to the corner, clear to the end of line or screen, colors.
OURS = re.compile(rb"\x1b\[(?:H|K|J|\d+m)|" + re.escape(ENTER) + rb"|" + re.escape(LEAVE))
COLORS = {0: None, 1: "strong", 2: "soft", 31: "bad", 32: "good", 33: "other", 36: "curve"}


class Terminal:
    """A program on a terminal."""

    def __init__(self, command, columns=80, rows=24, **environment):
        self.written = b""
        self.status = None
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ.update({"TERM": "xterm-256color", **environment})
            for name in [name for name in ("NO_COLOR",) if name in os.environ and name not in environment]:
                del os.environ[name]
            # The size is there before the program looks.
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            os.execvp(command[0], command)

    def read(self, seconds=60.0, until=None):
        """Reads until the program ends, `until` is there, or time is over; says whether it was not."""
        end = time.monotonic() + seconds
        start = len(self.written)
        while time.monotonic() < end:
            if until is not None and until in self.written[start:]:
                return True
            if not select.select([self.fd], [], [], 0.05)[0]:
                continue
            try:
                got = os.read(self.fd, 65536)
            except OSError:
                got = b""
            if not got:
                return until is None
            self.written += got
        return False

    def resize(self, columns, rows):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def keys(self, keys):
        os.write(self.fd, keys)

    def end(self, seconds=60.0):
        """Waits for the end of the program; its exit code."""
        if not self.read(seconds):
            os.kill(self.pid, signal.SIGKILL)
            raise AssertionError(f"not over after {seconds} s: {self.written[-2000:]!r}")
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def on_terminal(command, code=0, **options):
    """What a program writes to its end."""
    terminal = Terminal(command, **options)
    found = terminal.end()
    assert found == code, f"{command}: exit code {found}, expected {code}: {terminal.written[-2000:]!r}"
    return terminal.written


def assert_harmless(written, what, ours=re.compile(rb"\x1b\[(?:31|33|0)m")):
    """Nothing but characters, line ends, and sequences of our own."""
    text = ours.sub(b"", written).decode("utf-8").replace("\r\r\n", "\r\n")
    wrong = [c for c in text if (ord(c) < 32 and c not in "\r\n\t") or 127 <= ord(c) < 160
             or c in "\u061c\ufeff" or "\u200b" <= c <= "\u200f" or "\u2028" <= c <= "\u202e" or "\u2060" <= c <= "\u206f"]
    assert not wrong, f"{what}: {wrong!r} in {text[:4000]!r}"
    # A carriage return stands before the end of a line, where a terminal puts it, or goes back over what was written.
    assert "\r" not in text.replace("\r\n", ""), f"{what}: goes back in a line: {text[:2000]!r}"


def screen(written, columns, rows):
    """The other screen as lines of (character, color) when the program left it or was read last."""
    grid = [[(" ", None)] * columns for _ in range(rows)]
    written = written[written.rfind(ENTER) + len(ENTER):] if ENTER in written else written
    written = written.split(LEAVE)[0]
    frame = written.rfind(b"\x1b[H")
    # A frame that is still being written is not looked at.
    if b"\x1b[J" not in written[frame:]:
        frame = written.rfind(b"\x1b[H", 0, frame)
    row = column = 0
    color = None
    # A terminal puts a carriage return before each line end, also where there is one.
    for part in re.split(r"(\x1b\[\d*[A-Za-z]|\r+\n)", written[frame:].decode("utf-8", "replace")):
        if part.endswith("\n"):
            row, column = row + 1, 0
        elif part.endswith("m") and part.startswith("\x1b["):
            color = COLORS[int(part[2:-1])]
        elif not part.startswith("\x1b["):
            for c in part:
                assert row < rows and column < columns, f"row {row}, column {column} of {rows} by {columns}"
                grid[row][column] = (c, color)
                column += 1
    return grid


def svg(grid):
    """A picture of a screen."""
    wide, high = 8.4, 17
    columns, rows = len(grid[0]), len(grid)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {columns * wide + 20:.0f} {rows * high + 20}" font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="14">',
             "<style>rect{fill:#0d1117}text{fill:#e6edf3;white-space:pre}.strong{font-weight:bold}.soft{fill:#9198a1}.bad{fill:#f0803c}.good{fill:#2ec4a0}.other{fill:#f2b63c}.curve{fill:#4aa8e0}</style>",
             '<rect width="100%" height="100%" rx="6"/>']
    for number, line in enumerate(grid):
        column = 0
        while column < columns:
            color, text = line[column][1], ""
            start = column
            while column < columns and line[column][1] == color:
                text += line[column][0]
                column += 1
            if text.strip():
                kind = f' class="{color}"' if color else ""
                length = f' textLength="{len(text.rstrip()) * wide:.1f}"'
                parts.append(f'<text x="{10 + start * wide:.1f}" y="{24 + number * high}"{kind}{length} xml:space="preserve">{html.escape(text.rstrip())}</text>')
    return "\n".join(parts + ["</svg>", ""])


if __name__ == "__main__":
    out, columns, rows, seconds, *command = sys.argv[1:]
    columns, rows = int(columns), int(rows)
    terminal = Terminal(command, columns, rows)
    terminal.read(float(seconds))
    with open(out, "w", encoding="utf-8") as file:
        file.write(svg(screen(terminal.written, columns, rows)))
    try:
        terminal.keys(b"\x03")
        terminal.read(10)
    except OSError:
        pass
