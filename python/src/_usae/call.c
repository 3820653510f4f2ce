#include "module.h"

#include <time.h>

/* Ctrl-C should feel immediate, but next to a busy Python thread each look costs that thread's switch interval (5 ms). */
static const int64_t signal_interval = 50 * 1000 * 1000;

static int64_t nanoseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* The core polls on the thread that made the call, so its thread state is the one to wake. */
static int32_t poll_signals(void *context) {
  core_call *call = context;
  if (!call->stopped && nanoseconds() - call->asked >= signal_interval) {
    PyEval_RestoreThread(call->thread);
    call->stopped = PyErr_CheckSignals() < 0;
    call->thread = PyEval_SaveThread();
    call->asked = nanoseconds(); /* after the wait for the GIL, so that waiting never fills the whole interval */
  }
  return call->stopped;
}

void core_call_begin(core_call *call) {
  call->asked = nanoseconds();
  call->stopped = false;
  call->interrupt = (usae_interrupt){.poll = poll_signals, .context = call};
  call->error.message[0] = '\0';
  call->thread = PyEval_SaveThread();
}

bool core_call_end(core_call *call, const module_state *state, usae_status status) {
  PyEval_RestoreThread(call->thread);
  /* KeyboardInterrupt counts even where the core had finished, or failed, before it saw the request to stop. */
  return !call->stopped && check_status(state, status, &call->error);
}
