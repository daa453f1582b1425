#!/usr/bin/env python3
"""Writes the tables of docs/gpu.md that programs make, each between its two markers.

    python3 scripts/gpu_tables.py count          # operations, bytes and memory of an iteration: needs ./bench_fastgan
    python3 scripts/gpu_tables.py ptxas BUILD    # registers and shared memory of every kernel: needs nvcc (make ptxas-table)
"""

import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "gpu.md"


def replace(name, text):
    page = PAGE.read_text()
    begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->\n"
    if begin not in page or end not in page:
        sys.exit(f"{PAGE}: no markers for '{name}'; put them back: {begin.strip()} and {end.strip()}")
    before, rest = page.split(begin, 1)
    PAGE.write_text(before + begin + text.strip() + "\n" + end + rest.split(end, 1)[1])
    print(f"{PAGE.relative_to(ROOT)}: wrote the table '{name}'")


def output(*command):
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout


def main():
    if sys.argv[1:] == ["count"]:
        for size in (256, 1024):
            replace(f"count {size}", output("./bench_fastgan", "--count", "--size", str(size)))
        rows = ["| size | state, MB | peak with activations in f32, MB | in 16 bits, MB |", "|---:|---:|---:|---:|"]
        for size in (256, 512, 1024):
            j = json.loads(output("./bench_fastgan", "--count", "--json", "--size", str(size)))
            rows.append("| {} | {:.0f} | {:.0f} | {:.0f} |".format(size, *(j[key] / 1e6 for key in ("state_bytes", "peak_bytes_f32", "peak_bytes_16"))))
        replace("memory", "\n".join(rows))
    elif len(sys.argv) == 3 and sys.argv[1] == "ptxas":
        replace("ptxas", output(sys.executable, "scripts/ptxas_check.py", "--table", sys.argv[2]))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
