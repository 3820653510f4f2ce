#include "module.h"

#include <string.h>

/* --- Integers ------------------------------------------------------------------------------------------------------ */

static PyObject *index_of(PyObject *object, const char *name) {
  PyObject *index = PyNumber_Index(object);
  if (index == NULL && PyErr_ExceptionMatches(PyExc_TypeError))
    PyErr_Format(PyExc_TypeError, "%s: expected an integer, got %R", name, object);
  return index;
}

bool take_int(const module_state *state, PyObject *object, const char *name, int64_t low, int64_t high, int64_t *out) {
  PyObject *index = index_of(object, name);
  if (index == NULL) return false;
  int overflow = 0;
  long long value = PyLong_AsLongLongAndOverflow(index, &overflow);
  bool fits = overflow == 0 && value >= low && value <= high;
  if (fits)
    *out = value;
  else
    PyErr_Format(state->invalid_input, "%s: expected an integer from %lld to %lld, got %R", name, (long long)low,
                 (long long)high, index);
  Py_DECREF(index);
  return fits;
}

bool take_int32(const module_state *state, PyObject *object, const char *name, int32_t *out) {
  int64_t value = 0;
  if (!take_int(state, object, name, INT32_MIN, INT32_MAX, &value)) return false;
  *out = (int32_t)value;
  return true;
}

bool take_seed(const module_state *state, PyObject *object, uint64_t *out) {
  PyObject *index = index_of(object, "seed");
  if (index == NULL) return false;
  *out = PyLong_AsUnsignedLongLong(index);
  bool fits = !PyErr_Occurred();
  if (!fits) {
    PyErr_Clear();
    PyErr_Format(state->invalid_input, "seed: expected an integer from 0 to 2**64 - 1, got %R", index);
  }
  Py_DECREF(index);
  return fits;
}

/* --- Names --------------------------------------------------------------------------------------------------------- */

bool names_take(const module_state *state, PyObject *sequence, name_list *out) {
  if (PyUnicode_Check(sequence)) { /* a sequence of one-letter names, but hardly meant so */
    PyErr_SetString(PyExc_TypeError, "names: expected a sequence of str, got one str");
    return false;
  }
  out->tuple = PySequence_Tuple(sequence);
  if (out->tuple == NULL) return false;
  Py_ssize_t count = PyTuple_Size(out->tuple);
  if (count > INT32_MAX) {
    PyErr_Format(state->invalid_input, "names: expected at most %d, got %zd", INT32_MAX, count);
    return false;
  }
  out->strings = PyMem_Calloc((size_t)count + 1, sizeof *out->strings);
  if (out->strings == NULL) {
    PyErr_NoMemory();
    return false;
  }
  out->count = (int32_t)count;
  for (Py_ssize_t i = 0; i < count; i++) {
    PyObject *name = PyTuple_GetItem(out->tuple, i);
    if (!PyUnicode_Check(name)) {
      PyErr_Format(PyExc_TypeError, "names[%zd]: expected a str, got %R", i, name);
      return false;
    }
    Py_ssize_t length = 0;
    out->strings[i] = PyUnicode_AsUTF8AndSize(name, &length);
    if (out->strings[i] == NULL) return false;
    if (strlen(out->strings[i]) != (size_t)length) {
      PyErr_Format(state->invalid_input, "names[%zd]: expected a name without null characters, got %R", i, name);
      return false;
    }
  }
  return true;
}

void names_clear(name_list *names) {
  PyMem_Free(names->strings);
  Py_CLEAR(names->tuple);
}
