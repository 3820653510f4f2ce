"""A worker's side of the pipe: one JSON object a line in, one a line out. Needs nothing beyond Python itself.

Libraries print what they like: whatever a worker writes to stdout goes to stderr, and the answers to a copy of stdout.
"""

import json
import os
import sys
import time
import traceback


def serve(commands):
    """Answer calls of `commands`, {name: function of keyword arguments to a JSON value}, until the pipe is closed."""
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
    """Seconds of each of `count` calls."""
    seconds = []
    for _ in range(count):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return seconds


def resident_bytes():
    """Resident memory of this process now; 0 where /proc does not say."""
    return _status("VmRSS:")


def peak_bytes():
    """The most that was resident so far; 0 where /proc does not say. (ru_maxrss would include the parent's.)"""
    return _status("VmHWM:")


def _status(field):
    try:
        with open("/proc/self/status") as status:
            return 1024 * next(int(line.split()[1]) for line in status if line.startswith(field))
    except OSError:
        return 0
