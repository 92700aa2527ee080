"""The `polylance` command."""

import sys

from . import _polylance


def main() -> int:
    return _polylance.main(["polylance", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
