"""The `polylance` command."""

import signal
import sys

from . import _polylance


def main() -> int:
    # Rust handles Ctrl-C. Python's handler would be called, too, and raise KeyboardInterrupt at the end.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    return _polylance.main(["polylance", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
