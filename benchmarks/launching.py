"""Runs Python from this small process, and writes the memory and CPU time that it used to a file: FILE ARGUMENTS...

Linux counts what the parent held at the start into the largest resident set of a process. Under a large parent, such as
a test run, the memory of the parent would be measured.
"""

import json
import resource
import subprocess
import sys

if __name__ == "__main__":
    written, *arguments = sys.argv[1:]
    exit_code = subprocess.call([sys.executable, *arguments])
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    with open(written, "w", encoding="utf-8") as file:  # noqa: PTH123  (few imports keep this process small)
        json.dump({"peak_kib": usage.ru_maxrss, "cpu_seconds": usage.ru_utime + usage.ru_stime}, file)
    sys.exit(exit_code if exit_code >= 0 else 128 - exit_code)  # after a signal 128 + its number, as in shells
