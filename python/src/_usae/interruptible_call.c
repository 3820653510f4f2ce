#include "module.h"

#include <time.h>

/* Short enough for Ctrl-C to seem immediate. A check costs up to Python's switch interval (5 ms) if another thread is busy. */
static const int64_t signal_interval = 50 * 1000 * 1000;

static int64_t nanoseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* The core polls on the thread that made the call, so the thread state to restore is that of the call. */
static int32_t poll_signals(void *context) {
  core_call *call = context;
  if (!call->stopped && nanoseconds() - call->asked >= signal_interval) {
    PyEval_RestoreThread(call->thread);
    call->stopped = PyErr_CheckSignals() < 0;
    call->thread = PyEval_SaveThread();
    call->asked = nanoseconds(); /* read after the wait for the GIL, so that the wait does not shorten the next interval */
  }
  return call->stopped;
}

static void tell_progress(void *context, int64_t rows) {
  core_call *call = context;
  if (call->stopped) return;
  PyEval_RestoreThread(call->thread);
  PyObject *result = PyObject_CallFunction(call->progress, "L", (long long)rows);
  call->stopped = result == NULL;
  Py_XDECREF(result);
  call->thread = PyEval_SaveThread();
}

void core_call_begin(core_call *call) { core_call_begin_told(call, Py_None); }

void core_call_begin_told(core_call *call, PyObject *progress) {
  call->asked = nanoseconds();
  call->stopped = false;
  call->progress = progress == Py_None ? NULL : progress;
  call->interrupt = (usae_interrupt){
      .poll = poll_signals, .context = call, .progress = call->progress == NULL ? NULL : tell_progress};
  call->error.message[0] = '\0';
  call->thread = PyEval_SaveThread();
}

bool core_call_end(core_call *call, const module_state *state, usae_status status) {
  PyEval_RestoreThread(call->thread);
  /* KeyboardInterrupt is raised even if the core finished or failed before it saw the request to stop. */
  return !call->stopped && check_status(state, status, &call->error);
}
