"""The command ``kktcert``: mounts the commands of the packages; nothing imports this module."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module, metadata
from typing import Annotated, NoReturn

try:
    import typer

    from attack.command import entries as of_attack
    from identify.command import commands as of_identify
    from identify.command.lazy import lazy_group
    from identify.command.limits import owner_only
    from identify.command.output import INTERRUPTED, say_error
    from identify.errors import (
        FileError,
        InvalidInputError,
        KktCertError,
        UnsupportedModelError,
        is_out_of_memory,
    )
    from proofs_check import entries as of_proofs
except KeyboardInterrupt:
    # The imports take a part of a second, in which Ctrl-C would print a traceback.
    print("kktcert: interrupted", file=sys.stderr)
    raise SystemExit(130) from None

COMPLETE = "_KKTCERT_COMPLETE"
"""Set by a shell that asks for completions, or for the script that makes it ask."""

app = typer.Typer(
    name="kktcert",
    cls=lazy_group((*of_identify.COMMANDS, *of_attack.COMMANDS, *of_proofs.COMMANDS)),
    help="Decide whether the weights of a network determine its training data, and recover them.",
    add_completion=False,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
)

# typer carries its own copy of click and shows only this class of its usage errors.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def main() -> NoReturn:
    """Run the command line and exit with its code.

    Another distribution that has written over the package ``identify`` is refused.
    """
    try:
        problem = clash(metadata.packages_distributions().get("identify", []))
        if problem:
            print(f"kktcert: {problem}", file=sys.stderr)
            raise SystemExit(2)
        if COMPLETE in os.environ:
            # typer does this where it adds options for completion, which would crowd `--help`.
            import_module("typer.completion").completion_init()
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        print("kktcert: interrupted", file=sys.stderr)
        code = INTERRUPTED
    raise SystemExit(code)


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code.

    0: done, whatever the verdict. 1: the run failed, or there is nothing to write. 2: usage or
    unusable input, one line on standard error, nothing written. 3: a word of
    ``--fail-on`` is met. 130: interrupted.
    """
    try:
        with owner_only():
            code = app(args=list(arguments), prog_name="kktcert", standalone_mode=False)
    except _UsageError as error:
        say_error(_usage(error))
        return 2
    except (InvalidInputError, UnsupportedModelError, FileError) as error:
        say_error(str(error))
        return 2
    except KktCertError as error:
        say_error(str(error))
        return 1
    except (MemoryError, RuntimeError) as error:
        # torch raises the second.
        if not is_out_of_memory(error):
            raise
        say_error("not enough memory; --memory-limit SIZE refuses such work beforehand")
        return 1
    except OSError as error:
        say_error(f"{error.filename or 'output'}: {error.strerror or error}")
        return 1
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    if code == INTERRUPTED:
        print("kktcert: interrupted", file=sys.stderr)
    return code or 0


def clash(owners: list[str]) -> str | None:
    """Say in one line what is wrong if ``identify`` is not this distribution's alone.

    An editable installation can be found twice, so repeated names count once.

    Example:
        >>> clash(["kktcert", "kktcert"]) is None
        True
        >>> clash([])
        'is not installed; run: pip install -e .'
    """
    others = sorted(set(owners) - {"kktcert"})
    if others:
        return (
            f"the package 'identify' also belongs to the distribution {', '.join(others)}, which "
            "overwrites it (pre-commit installs one of that name); "
            "install kktcert into an environment of its own"
        )
    return None if owners else "is not installed; run: pip install -e ."


def _usage(error: Exception) -> str:
    text = str(error.format_message())  # type: ignore[attr-defined]
    text = text.replace("Value error, ", "")
    context = getattr(error, "ctx", None)
    path = getattr(context, "command_path", "kktcert")
    return f"{text.rstrip('.')}; see {path} --help"


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", metavar="", help="Print the version.")
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose", metavar="", help="With --version: libraries, threads and the machine."
        ),
    ] = False,
) -> None:
    """Decide whether the weights of a network determine its training data, and recover them."""
    if verbose and not version:
        raise typer.BadParameter(
            "goes behind the command, or beside --version", param_hint="--verbose"
        )
    if version:
        from identify.command.versions import versions_text

        print(versions_text() if verbose else f"kktcert {metadata.version('kktcert')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


if __name__ == "__main__":
    main()
