"""The command line: `rlx train | eval | resume | sweep | export | plot | presets`, and those of language.

Bad input gets one line on standard error and exit status 2.
"""

import sys


def main(argv: list[str] | None = None) -> int:
    """Run one command; the console script `rlx`."""
    from rlx.cli.commands import run

    return run(sys.argv[1:] if argv is None else argv)
