"""A worker's side of the pipe, which reads and writes one JSON object per line. It needs only Python's standard library.

Libraries may print to stdout, so stdout is redirected to stderr, and answers go to a copy of stdout.
"""

import json
import os
import sys
import time
import traceback


def serve(commands):
    """Answer calls until the pipe is closed. `commands` has functions from keyword arguments to JSON values, by name."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        call = json.loads(line)
        try:
            answer = {"result": commands[call["command"]](**call["arguments"])}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
        print(json.dumps(answer), file=answers, flush=True)


def timed(function, count):
    """Return the seconds of each of `count` calls."""
    seconds = []
    for _ in range(count):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return seconds


def resident_bytes():
    """Return the resident memory of this process, or 0 if /proc does not have it."""
    return _status("VmRSS:")


def peak_bytes():
    """Return the peak of resident memory, or 0 if /proc does not have it. (ru_maxrss would include that of the parent.)"""
    return _status("VmHWM:")


def _status(field):
    try:
        with open("/proc/self/status") as status:
            return 1024 * next(int(line.split()[1]) for line in status if line.startswith(field))
    except OSError:
        return 0
