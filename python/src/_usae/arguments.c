#include "module.h"

#include <stddef.h>
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

/* --- Recipe -------------------------------------------------------------------------------------------------------- */

typedef enum field_kind { FIELD_INT32, FIELD_INT64, FIELD_DOUBLE, FIELD_PREFIXES } field_kind;

#define FIELD(kind, name) {#name, kind, offsetof(usae_recipe, name)}
static const struct field {
  const char *name;
  field_kind kind;
  size_t offset;
} fields[] = {
    FIELD(FIELD_INT32, encoder),
    FIELD(FIELD_INT32, initialization),
    FIELD(FIELD_INT32, selection),
    FIELD(FIELD_INT64, k_max),
    FIELD(FIELD_INT32, loss),
    FIELD(FIELD_INT32, update),
    FIELD(FIELD_INT32, center),
    FIELD(FIELD_INT32, scale),
    FIELD(FIELD_INT32, renormalize),
    FIELD(FIELD_DOUBLE, scale_epsilon),
    FIELD(FIELD_DOUBLE, dictionary_epsilon),
    FIELD(FIELD_INT64, statistics_tokens),
    FIELD(FIELD_INT32, aux),
    FIELD(FIELD_INT32, aux_scale),
    FIELD(FIELD_INT32, aux_detach),
    FIELD(FIELD_INT32, schedule),
    FIELD(FIELD_INT64, aux_k),
    FIELD(FIELD_DOUBLE, aux_coefficient),
    FIELD(FIELD_INT64, dead_tokens),
    FIELD(FIELD_DOUBLE, learning_rate),
    FIELD(FIELD_DOUBLE, warmup_learning_rate),
    FIELD(FIELD_DOUBLE, final_learning_rate),
    FIELD(FIELD_INT64, warmup_steps),
    FIELD(FIELD_INT64, total_steps),
    FIELD(FIELD_DOUBLE, decay_share),
    FIELD(FIELD_INT32, clock),
    FIELD(FIELD_DOUBLE, beta1),
    FIELD(FIELD_DOUBLE, beta2),
    FIELD(FIELD_DOUBLE, epsilon),
    FIELD(FIELD_DOUBLE, weight_decay),
    FIELD(FIELD_DOUBLE, clip_norm),
    FIELD(FIELD_PREFIXES, prefixes),
    FIELD(FIELD_DOUBLE, merge_cosine),
    FIELD(FIELD_INT64, merge_every),
    FIELD(FIELD_INT32, prefix_loss),
};
#undef FIELD
enum { FIELD_COUNT = sizeof fields / sizeof fields[0] };

static bool take_double(PyObject *value, const char *name, double *out) {
  *out = PyFloat_AsDouble(value);
  if (*out != -1.0 || !PyErr_Occurred()) return true;
  if (PyErr_ExceptionMatches(PyExc_TypeError)) PyErr_Format(PyExc_TypeError, "%s: expected a number, got %R", name, value);
  return false;
}

/* At most USAE_MOST_PREFIXES numbers; the core looks at what they are. */
static bool take_prefixes(const module_state *state, PyObject *value, const char *name, double *out) {
  PyObject *shares = PySequence_Tuple(value);
  if (shares == NULL) return false;
  Py_ssize_t count = PyTuple_Size(shares);
  bool ok = count <= USAE_MOST_PREFIXES;
  if (!ok)
    PyErr_Format(state->invalid_input, "%s: expected at most %d numbers, got %zd", name, USAE_MOST_PREFIXES, count);
  for (Py_ssize_t i = 0; ok && i < count; i++) ok = take_double(PyTuple_GetItem(shares, i), name, &out[i]);
  Py_DECREF(shares);
  return ok;
}

static bool take_field(const module_state *state, const struct field *field, PyObject *value, usae_recipe *recipe) {
  void *place = (char *)recipe + field->offset;
  char name[64];
  PyOS_snprintf(name, sizeof name, "recipe['%s']", field->name);
  switch (field->kind) {
  case FIELD_INT32:
    return take_int32(state, value, name, place);
  case FIELD_INT64:
    return take_int(state, value, name, INT64_MIN, INT64_MAX, place);
  case FIELD_DOUBLE:
    return take_double(value, name, place);
  case FIELD_PREFIXES:
    return take_prefixes(state, value, name, place);
  }
  return false;
}

bool take_recipe(const module_state *state, PyObject *mapping, usae_recipe *out) {
  bool ok = false, seen[FIELD_COUNT] = {false};
  *out = (usae_recipe){.size = sizeof *out};
  PyObject *value = NULL, *keys = PyMapping_Keys(mapping);
  if (keys == NULL) goto done;
  for (Py_ssize_t i = 0; i < PyList_Size(keys); i++) {
    PyObject *key = PyList_GetItem(keys, i);
    size_t f = 0;
    while (f < FIELD_COUNT && !(PyUnicode_Check(key) && PyUnicode_CompareWithASCIIString(key, fields[f].name) == 0)) f++;
    if (f == FIELD_COUNT) {
      PyErr_Format(PyExc_TypeError, "recipe: unknown entry %R", key);
      goto done;
    }
    value = PyObject_GetItem(mapping, key);
    if (value == NULL || !take_field(state, &fields[f], value, out)) goto done;
    Py_CLEAR(value);
    seen[f] = true;
  }
  for (size_t f = 0; f < FIELD_COUNT; f++) {
    if (!seen[f]) {
      PyErr_Format(PyExc_TypeError, "recipe: missing entry '%s'", fields[f].name);
      goto done;
    }
  }
  ok = true;
done:
  Py_XDECREF(value);
  Py_XDECREF(keys);
  return ok;
}
