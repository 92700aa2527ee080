"""Drive the prompt of `polylance sql` on a pseudo-terminal.

    python tests/python/prompt.py STATE COMMAND…

STATE is the folder for the history. Types statements and keys, waits for the expected output after each, and ends with
the exit code of the command; stderr names output that did not appear.
"""

import os
import pty
import re
import select
import sys
import time

TIMEOUT = 120.0
TAB, CTRL_C, CTRL_D, UP = "\t", "\x03", "\x04", "\x1b[A"

# Input, and a pattern that must appear after it, followed by the prompt; `None` expects nothing.
DIALOGUE = [
    ("SELECT count(*) AS rows\r", None),
    ("FROM udhr;\r", r"\b90\b"),
    (f"SELECT max(arti{TAB}) AS last FROM udhr;\r", r"\b30\b"),
    ("\\d\r", r"udhr"),
    ("\\d udhr\r", r"embedding.*FixedSizeList"),
    ("SELECT nothing FROM udhr;\r", r"error.*nothing"),
    ("\\x\r", r"no command"),
    ("\\format json\r", r"format json"),
    ("SELECT lang FROM udhr WHERE article = 1 ORDER BY 1 LIMIT 1;\r", r'\{"lang":"en"\}'),
    (f"{UP}\r", r'\{"lang":"en"\}'),
    ("SELECT max(value % 7) FROM generate_series(1, 1000000000000);\r", None),
    (CTRL_C, r"statement was cancelled"),
    (f"SELECT 'lost{CTRL_C}", r"lost"),
    ("SELECT 41 + 1 AS answer;\r", r'"answer":42'),
]


class Terminal:
    def __init__(self, command: list, state: str):
        self.child, self.line = pty.fork()
        if self.child == 0:
            os.execvpe(command[0], command, os.environ | {"XDG_STATE_HOME": state, "TERM": "xterm", "NO_COLOR": "1"})
        self.seen = ""

    def read(self, seconds: float) -> bool:
        if not select.select([self.line], [], [], seconds)[0]:
            return False
        try:
            read = os.read(self.line, 1 << 16)
        except OSError:
            return False
        self.seen += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", read.decode(errors="replace"))
        return bool(read)

    def expect(self, pattern: str, again: str = "") -> None:
        """Waits for the pattern, and types `again` repeatedly until then."""
        end = time.monotonic() + TIMEOUT
        while not (found := re.search(pattern, self.seen, re.DOTALL)):
            if time.monotonic() > end:
                sys.exit(f"{pattern!r} did not appear in:\n{self.seen}")
            if not self.read(0.5) and again:
                self.type(again)
        self.seen = self.seen[found.end():]

    def type(self, keys: str) -> None:
        os.write(self.line, keys.encode())


def main() -> None:
    state, *command = sys.argv[1:]
    terminal = Terminal(command, state)
    terminal.expect("sql> ")
    for keys, answer in DIALOGUE:
        terminal.seen = ""
        terminal.type(keys)
        if answer is not None:
            # A statement that has not started yet cannot be interrupted.
            terminal.expect(f"(?:{answer}).*sql> \\s*$", again=CTRL_C if keys == CTRL_C else "")
    terminal.type(CTRL_D)
    while terminal.read(TIMEOUT):
        pass
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(terminal.child, 0)[1]))


if __name__ == "__main__":
    main()
