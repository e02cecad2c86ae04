"""Runs scripts under the doctor, each in a process forked from one that has PyTorch loaded already.

    python tests/doctor/clinic.py SCRIPT...        one line of JSON for each: {"path": ..., "code": exit code, "said": what --json printed}

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


def expected(path: Path) -> tuple[str, int] | None:
    """The code and the line that a script is marked with; None for a healthy one."""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if found := EXPECTED.search(line):
            return found[1], number
    return None


def examine(paths: list[Path], workers: int = 2, options: tuple[str, ...] = ()) -> dict[Path, dict]:
    """What the doctor says of each script."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CLINIC_OPTIONS": json.dumps(options)}
    shares = [paths[i::workers] for i in range(workers)]
    running = []
    for share in shares:
        out = tempfile.TemporaryFile("w+")
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


def main(paths: list[str]) -> None:
    import torch

    torch.set_num_threads(1)
    import covary.doctor.command as command

    options = json.loads(os.environ.get("CLINIC_OPTIONS", "[]"))
    for path in paths:
        with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as noise:
            child = os.fork()
            if child == 0:
                os.dup2(said.fileno(), 1)
                os.dup2(noise.fileno(), 2)
                sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
                code = 99
                try:
                    code = command.run(["--json", *options, path])
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
                "stderr": stderr[-2000:],
            }
            print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
