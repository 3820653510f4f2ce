"""Ctrl-C at moments that a test chooses, so that no clock and no load of the machine decides what it hits."""

import contextlib
import itertools
import os
import signal
import sys
import threading
import time

import usae

PACKAGE = os.path.dirname(usae.__file__)


def ctrl_c_at_each_instruction_of(act):
    """Calls `act` with Ctrl-C at the first instruction of the package's Python code, then at the second, and so on to the last.

    Yields the number of each instruction after the call that ended there, or went on where it lies in a destructor.
    """
    for number in itertools.count(1):
        came = []
        with contextlib.suppress(KeyboardInterrupt), _ctrl_c_at(number, came):
            act()
        if not came:
            return
        yield number


@contextlib.contextmanager
def _ctrl_c_at(number, came):
    left = itertools.count(number - 1, -1)

    def of_call(frame, event, argument):
        if frame.f_code.co_filename.startswith(PACKAGE):
            frame.f_trace_opcodes = True
            return at_instruction
        return None

    def at_instruction(frame, event, argument):
        if event == "opcode" and next(left) == 0:
            came.append(frame.f_code.co_name)
            raise KeyboardInterrupt
        return at_instruction

    before = sys.gettrace()
    sys.settrace(of_call)
    try:
        yield
    finally:
        sys.settrace(before)


@contextlib.contextmanager
def while_the_core_works(act, within=None):
    """Gives a function. Once it is called, another thread calls `act` as soon as this one lets go of the interpreter.

    That is what a call of the core begins with; `within` names the function of Python that makes it, by default any. Python
    itself takes the interpreter from a thread only after a time, which is set so long here that it never comes.
    """
    go, before, over, main = threading.Event(), sys.getswitchinterval(), False, threading.get_ident()

    def wait_and_act():
        go.wait()
        while not over and within not in (None, sys._current_frames()[main].f_code.co_name):
            time.sleep(0)  # gives the interpreter back
        if not over:
            act()

    thread = threading.Thread(target=wait_and_act)
    sys.setswitchinterval(1000)  # seconds
    thread.start()
    try:
        yield go.set
    finally:
        over = True
        sys.setswitchinterval(before)
        go.set()
        thread.join()


def ctrl_c():
    """For another thread than the main one: the signal is noted, and the main thread answers it when it next looks."""
    signal.raise_signal(signal.SIGINT)
