#include "module.h"

bool check_status(const module_state *state, usae_status status, const usae_error *error) {
  PyObject *class = state->error;
  switch (status) {
  case USAE_OK:
    return true;
  case USAE_INVALID_ARGUMENT:
  case USAE_SHAPE_MISMATCH:
  case USAE_UNKNOWN_MODEL:
  case USAE_NOT_FINITE:
    class = state->invalid_input;
    break;
  case USAE_NOT_INITIALIZED:
    class = state->not_initialized;
    break;
  case USAE_INTERRUPTED: /* occurs only if no signal handler raised, because core_call_end keeps such an exception */
    break;
  case USAE_OUT_OF_MEMORY:
    class = state->out_of_memory;
    break;
  }
  if (error->message[0] != '\0')
    PyErr_Format(class, "%s", error->message);
  else
    PyErr_Format(class, "the core failed with status %d", (int)status);
  return false;
}
