"""The command ``usae``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import usae
from usae.cli import (
    completion,
    consistency,
    controls,
    evaluate,
    exchange,
    explore,
    extract,
    maximize,
    openmp,
    process,
    top_examples,
    train,
)
from usae.cli.options import Parser, add_threads, print_json, use_threads


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, 2 for bad usage, input or networks, 130 after Ctrl-C, 143 after SIGTERM."""
    with process.prepared(whole=arguments is None):
        try:
            options = _parser().parse_args(arguments)
            if arguments is None:  # the process is the command's own
                openmp.set_up(getattr(options, "threads", None))
            options.run(options)
            if sys.stdout is not None:
                sys.stdout.flush()  # here, where an error of it is told in a line
        except KeyboardInterrupt:
            process.tell("interrupted")
            return process.INTERRUPTED
        except process.Terminated as signal:
            process.tell(f"ended by {signal}")
            return signal.exit_code
        except BrokenPipeError:
            return process.reader_has_gone()
        except MemoryError as error:
            process.show_traceback(error)
            process.tell(error if isinstance(error, usae.UsaeError) else f"out of memory: {error or 'no more is free'}")
            return process.BAD_INPUT
        except (usae.UsaeError, OSError, ImportError) as error:  # ImportError: an extra that is not installed
            process.show_traceback(error)
            process.tell(error)
            return process.BAD_INPUT
        except Exception as error:  # of a network, which may raise anything, or a fault of usae
            process.show_traceback(error)
            process.tell(process.unforeseen(error))
            return process.BAD_INPUT
    return 0


def _parser() -> Parser:
    parser = Parser(prog="usae", description=usae.__doc__)
    parser.add_argument("--version", action="version", version=f"usae {usae.__version__}")
    commands = parser.add_subparsers(metavar="command", required=True)

    demo = commands.add_parser("demo", help="train on three networks and photographs, and show the concepts they share")
    demo.add_argument("--output", default="demo-output", metavar="FOLDER", help="folder for the results (%(default)s)")
    demo.add_argument("--small", action="store_true", help="run for a few seconds only, to check that everything works")
    demo.add_argument("--seed", type=int, default=0, help="seed of everything random (%(default)s)")
    demo.add_argument(
        "--networks",
        choices=("pretrained", "small"),
        default="pretrained",
        help="those of the extra demo, or the package's own, which take less time (%(default)s)",
    )
    add_threads(demo)
    demo.set_defaults(run=_demo)

    extract.add_to(commands)
    train.add_to(commands)
    evaluate.add_to(commands)
    controls.add_to(commands)
    consistency.add_to(commands)
    top_examples.add_to(commands)
    maximize.add_to(commands)
    explore.add_to(commands)
    exchange.add_to(commands)

    info = commands.add_parser("info", help="show the version and what the installed core uses")
    info.add_argument("--json", action="store_true", help="print JSON, for programs")
    info.set_defaults(run=_info)

    completion.add_to(commands, parser)
    return parser


def _demo(options: argparse.Namespace) -> None:
    use_threads(options)
    from usae.demo import run  # imports torch

    run(output=options.output, small=options.small, seed=options.seed, networks=options.networks)


def _info(options: argparse.Namespace) -> None:
    config, refused = usae.show_config(), None
    try:
        usae.UniversalSAE(1, 1).initialize({"any": 1})  # the first use of the kernels, which refuses an unknown USAE_KERNELS
    except usae.InvalidInputError as error:
        config["kernels"], refused = str(error), error
    if options.json:
        print_json(config)
    else:
        for name, value in config.items():
            print(f"{name:10} {value}")
    if refused is not None:
        raise refused


if __name__ == "__main__":
    sys.exit(main())
