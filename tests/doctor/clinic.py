"""Runs scripts under the doctor, each in a process forked from one that has PyTorch loaded already.

    python tests/doctor/clinic.py --rates          how many faults of each class are found, and on the right line
    python tests/doctor/clinic.py SCRIPT...        for each a line of JSON: path, code (of the exit), said (by --json)

Importing PyTorch takes longer than most of the scripts; the children start where that has been done.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
EXPECTED = re.compile(r"# expect: ([\w-]+)")
TROUBLE = re.compile(r"(rule [\w-]+|\w+): \w*(Error|Exception|StopIteration): ")  # said with COVARY_DOCTOR_DEBUG


def expected(path: Path) -> tuple[str, int] | None:
    """The code and the line that a script is marked with; None for a healthy one."""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if found := EXPECTED.search(line):
            return found[1], number
    return None


def examine(paths: list[Path], workers: int = 2, arguments: tuple[str, ...] = ()) -> dict[Path, dict]:
    """What the doctor says of each script, run with these arguments."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "COVARY_DOCTOR_DEBUG": "1",
        "CLINIC_ARGUMENTS": json.dumps(arguments),
    }
    shares = [paths[i::workers] for i in range(workers)]
    running = []
    for share in shares:
        out = tempfile.TemporaryFile("w+")  # noqa: SIM115
        command = [sys.executable, str(Path(__file__).resolve()), *map(str, share)]
        running.append((subprocess.Popen(command, stdout=out, env=environment, cwd=tempfile.gettempdir()), out))
    results = {}
    for process, out in running:
        process.wait()
        out.seek(0)
        with out:
            for line in out:
                record = json.loads(line)
                results[Path(record["path"])] = record
    return results


def serious(record: dict) -> list[dict]:
    """The errors and warnings among what was said, the first cause first."""
    return [finding for finding in record["said"]["findings"] if finding["severity"] != "note"]


def rates(folders: list[Path]) -> str:
    """A row for each class over the scripts in some folders, as Markdown."""
    paths = sorted(path for folder in folders for path in folder.glob("**/*.py"))
    heard = examine(paths)
    rows: dict[str, list[int]] = {}
    wrong: list[str] = []
    healthy = alarms = 0
    for path, record in heard.items():
        answer, found = expected(path), serious(record) if record["said"] else []
        if answer is None:
            healthy += 1
            alarms += bool(found)
            wrong += [f"{path.stem}: {found[0]['code']} on line {found[0]['line']}"] if found else []
            continue
        row = rows.setdefault(answer[0], [0, 0, 0, 0])
        row[0] += 1
        row[1] += bool(found)
        row[2] += bool(found) and found[0]["line"] == answer[1]
        row[3] += bool(found) and found[0]["code"] == answer[0]
        if not found or found[0]["line"] != answer[1]:
            wrong.append(
                f"{path.stem}: {found[0]['code'] + ' on line ' + str(found[0]['line']) if found else 'nothing'}"
            )
    total = [sum(row[i] for row in rows.values()) for i in range(4)]
    lines = ["| class | scripts | found | first finding on the line | of that class |", "|---|--:|--:|--:|--:|"]
    lines += [f"| {code} | {' | '.join(map(str, row))} |" for code, row in sorted(rows.items())]
    lines += [f"| **all** | {' | '.join(f'**{n}**' for n in total)} |"]
    lines += ["", f"False alarms on healthy scripts: {alarms} of {healthy}.", *(f"- {one}" for one in wrong)]
    return "\n".join(lines)


def main(paths: list[str]) -> None:
    import torch

    torch.set_num_threads(1)
    import covary.doctor.command as command

    arguments = json.loads(os.environ.get("CLINIC_ARGUMENTS", "[]"))
    for path in paths:
        with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as noise:
            child = os.fork()
            if child == 0:
                os.dup2(said.fileno(), 1)
                os.dup2(noise.fileno(), 2)
                sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
                code = 99
                try:
                    code = command.run(["--json", path, *arguments])
                finally:
                    sys.stdout.flush()
                    sys.stderr.flush()
                    os._exit(code)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            said.seek(0)
            noise.seek(0)
            text, stderr = said.read(), noise.read()
            try:
                heard = json.loads(text)
            except ValueError:
                heard = None
            record = {
                "path": path,
                "code": code,
                "said": heard,
                "text": "" if heard else text[-2000:],
                "troubles": [line for line in stderr.splitlines() if TROUBLE.match(line)],
                "stderr": stderr[-2000:],
            }
            print(json.dumps(record), flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["--rates"]:
        for folders in (["faulty", "healthy"], ["unfamiliar"], ["held_out"]):
            print(" and ".join(folders), rates([HERE / folder for folder in folders]), sep="\n\n", end="\n\n")
    else:
        main(sys.argv[1:])
