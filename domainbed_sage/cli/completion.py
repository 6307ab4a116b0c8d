"""`domainbed-sage completion`: a script that completes commands, options and file names in a shell."""

import argparse

SHELLS = ("bash", "zsh", "tcsh")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.epilog = 'For bash, in ~/.bashrc: eval "$(domainbed-sage completion bash)"'
    parser.add_argument("shell", choices=SHELLS)


def main(args: argparse.Namespace) -> int:
    """Print the script."""
    import shtab

    from domainbed_sage.cli import COMMANDS, make_parser

    parser = make_parser([name for name, *_ in COMMANDS])
    print(shtab.complete(parser, args.shell))
    return 0
