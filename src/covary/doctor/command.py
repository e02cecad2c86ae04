"""covary doctor [OPTIONS] SCRIPT [ARGS…]: why does it not learn?"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

HELP = """usage: covary doctor [OPTIONS] SCRIPT [ARGS...]
       covary doctor [OPTIONS] -m package.module [ARGS...]
       covary doctor --explain CODE

Runs a PyTorch script, unmodified, and names the line that keeps it from learning. What follows the script is its own.

  --updates N     stop after N steps of its optimizers
  --seconds S     stop after S seconds
  --json          print one JSON object on stdout and nothing else; the script's own output goes to stderr
  --explain CODE  what a finding means, the smallest script that shows it, how to mend it; without CODE, the list
  -h, --help      this text

Exit code: 0 healthy, 1 something was found, 2 the script could not be run, or raised with nothing found before.

  covary doctor train.py
  covary doctor --updates 200 train.py --lr 1e-3
"""


class Misuse(Exception):
    """The command line itself is wrong."""


def main(argv: list[str] | None = None) -> None:
    sys.exit(run(list(sys.argv[1:] if argv is None else argv)))


def run(argv: list[str]) -> int:
    """Parses, runs the script, prints the report, and returns the exit code."""
    options: dict[str, Any] = {"json": False, "updates": None, "seconds": None, "module": None}
    rest = list(argv)
    try:
        while rest and rest[0].startswith("-") and rest[0] != "-":
            word = rest.pop(0)
            word, equals, value = word.partition("=")
            if word in ("-h", "--help"):
                print(HELP, end="")
                return 0
            if word == "--":
                break
            if word == "--json":
                options["json"] = True
            elif word == "--explain":
                return explain(value if equals else (rest[0] if rest else None))
            elif word in ("--updates", "--seconds", "-m"):
                if not equals:
                    if not rest:
                        raise Misuse(f"{word} needs a value.")
                    value = rest.pop(0)
                if word == "-m":
                    options["module"] = value
                    break
                options[word[2:]] = _number(word, value)
            else:
                raise Misuse(f"There is no option {word}; the script's own options come after the script.")
        if options["module"] is None:
            if not rest:
                raise Misuse("Which script? covary doctor train.py")
            options["script"] = rest.pop(0)
    except Misuse as error:
        return _cannot(str(error), "", options["json"] or "--json" in rest)
    return examine_script(options.get("script"), options["module"], rest, options)


def _number(word: str, text: str) -> float:
    try:
        number = float(text) if word == "--seconds" else int(text)
    except ValueError:
        raise Misuse(f"{word} is a {'number' if word == '--seconds' else 'whole number'}, not {text!r}.") from None
    if not 0 < number < 1e9:
        raise Misuse(f"{word} must be above 0 and below 1e9, not {text}.")
    return number


def _cannot(message: str, script: str, json: bool, out: Any = None) -> int:
    if json:
        from covary.doctor.report import as_json

        print(as_json(script, [], None, 0.0, message), file=out or sys.stdout, flush=True)
    else:
        print(f"covary doctor: {message}", file=sys.stderr)
    return 2


def explain(code: str | None) -> int:
    """Prints the page of a fault class."""
    pages = Path(__file__).parent / "pages"
    known = sorted(page.stem for page in pages.glob("*.md"))
    if code is None:
        print("\n".join(known))
        return 0
    if code not in known:
        import difflib

        near = difflib.get_close_matches(code, known, n=1)
        meant = f" Did you mean {near[0]}?" if near else ""
        print(f"covary doctor: there is no finding called {code}.{meant} Known: {', '.join(known)}", file=sys.stderr)
        return 2
    text = (pages / f"{code}.md").read_text()
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.markdown import Markdown

        Console().print(Markdown(text))
    else:
        print(text, end="")
    return 0


def examine_script(path: str | None, module: str | None, args: list[str], options: dict[str, Any]) -> int:
    """Runs one script under watch."""
    from covary.doctor import script as scripts

    shown = path if path is not None else f"-m {module}"
    json = options["json"]
    code = None
    if path is not None:
        try:
            code = scripts.read(path)
        except scripts.CannotRun as error:
            return _cannot(str(error), shown, json)
    out = _own_stdout(json)
    from rich.console import Console

    from covary.doctor import report, rules
    from covary.doctor.checkup import Checkup

    limits = scripts.Limits(options["updates"], options["seconds"])
    checkup = Checkup(on_step=limits.on_step, announce=True)
    case = checkup.case
    case.script = shown
    started = time.perf_counter()
    checkup.start()
    failed: str | None = None
    scripts.stop_after(limits)
    try:
        if code is not None and path is not None:
            scripts.run_path(path, code, args)
        else:
            scripts.run_module(str(module), args)
    except SystemExit as leaving:
        if isinstance(leaving.code, str):  # what Python itself would print
            print(leaving.code, file=sys.stderr)
    except (scripts.Stop, KeyboardInterrupt):
        pass
    except scripts.CannotRun as error:
        checkup.stop()
        return _cannot(str(error), shown, json, out)
    except BaseException as error:
        case.raised = error
        case.raised_at = _raised_at(error)
        own = _without_us(error)
        print("".join(own), file=sys.stderr, end="")
        where = f" at {case.raised_at}" if case.raised_at else ""
        failed = f"the script raised {own[-1].strip()}{where}"
    finally:
        scripts.do_not_stop()
    _finish_undisturbed()
    checkup.stop()
    seconds = time.perf_counter() - started
    findings = rules.examine(case, checkup.troubles)
    serious = [finding for finding in findings if finding.severity != "note"]
    if json:
        print(report.as_json(shown, findings, case, seconds, failed), file=out, flush=True)
    elif failed and not serious:
        print(f"covary doctor: {failed}; nothing else was found.", file=sys.stderr)
        if case.counts["updates"]:
            report.show(findings, case, seconds, Console(file=out))
    else:
        report.show(findings, case, seconds, Console(file=out))
        if failed:
            print(f"covary doctor: {failed}.", file=sys.stderr)
    if os.environ.get("COVARY_DOCTOR_DEBUG") and checkup.troubles:
        print("\n".join(checkup.troubles), file=sys.stderr)
    if serious:
        return 1
    return 2 if failed else 0


def _own_stdout(json: bool) -> Any:
    """Where the report goes: what stdout is now, whatever the script makes of `sys.stdout`. With --json that is all
    that goes there; the script's own output goes to stderr."""
    sys.stdout.flush()
    try:
        out = os.fdopen(os.dup(1), "w", encoding=sys.stdout.encoding)
        if json:
            os.dup2(2, 1)
    except OSError:  # closed, as under some daemons
        return sys.stdout
    return out


def _finish_undisturbed() -> None:
    """The script has ended: what it printed comes before the report, and Ctrl-C has nothing more to end."""
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    sys.stdout = sys.__stdout__
    with contextlib.suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _raised_at(error: BaseException) -> Any:
    from covary.doctor.sites import is_users, site_of

    trace, last = error.__traceback__, None
    while trace is not None:
        if is_users(trace.tb_frame.f_code.co_filename):
            last = trace
        trace = trace.tb_next
    if last is None:
        return None
    site = site_of(last.tb_frame)
    return site.at(last.tb_lineno) if site is not None else None


def _without_us(error: BaseException) -> list[str]:
    """The traceback as Python would have shown it, without the doctor's own frames."""
    from covary.doctor.sites import OWN

    shown = traceback.TracebackException.from_exception(error)
    seen: set[int] = set()

    def strip(one: Any) -> None:
        if one is None or id(one) in seen:
            return
        seen.add(id(one))
        one.stack = traceback.StackSummary.from_list([f for f in one.stack if not f.filename.startswith(OWN)])
        strip(one.__cause__)
        strip(one.__context__)

    strip(shown)
    return list(shown.format())
