"""Runs Python from a process as small as this one and writes what it used to a file: FILE ARGUMENTS...

Linux counts into a process's largest resident set what its parent held as it started it: from a large parent, such as a test
run, it would be the parent's that is measured.
"""

import json
import resource
import subprocess
import sys

if __name__ == "__main__":
    written, *arguments = sys.argv[1:]
    exit_code = subprocess.call([sys.executable, *arguments])
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    with open(written, "w", encoding="utf-8") as file:  # noqa: PTH123  (nothing more is imported than is needed)
        json.dump({"peak_kib": usage.ru_maxrss, "cpu_seconds": usage.ru_utime + usage.ru_stime}, file)
    sys.exit(exit_code if exit_code >= 0 else 128 - exit_code)  # one killed by a signal as shells tell it
