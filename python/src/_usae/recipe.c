/* Conversion of recipes. In Python a recipe is a mapping from the names of usae_recipe's fields to values; None stands for a 0
 * that means "none". The core lists the fields, so this file names none of them. */
#include "module.h"

#include <string.h>

static bool field_at(const module_state *state, int64_t number, usae_recipe_field *out) {
  usae_error error;
  *out = (usae_recipe_field){.size = sizeof *out};
  return check_status(state, usae_recipe_field_at(number, out, &error), &error);
}

/* --- To the core ---------------------------------------------------------------------------------------------------- */

static bool take_choice(const module_state *state, const usae_recipe_field *field, PyObject *value, const char *name,
                        int32_t *out) {
  char known[256] = "";
  for (int32_t i = 0; i < field->n_choices; i++) {
    if (PyUnicode_Check(value) && PyUnicode_CompareWithASCIIString(value, field->choices[i]) == 0) {
      *out = i;
      return true;
    }
    size_t used = strlen(known);
    PyOS_snprintf(known + used, sizeof known - used, "%s'%s'", i > 0 ? ", " : "", field->choices[i]);
  }
  PyErr_Format(state->invalid_input, "%s: expected one of %s, got %R", name, known, value);
  return false;
}

static bool take_double(PyObject *value, const char *name, double *out) {
  *out = PyFloat_AsDouble(value);
  if (*out != -1.0 || !PyErr_Occurred()) return true;
  if (PyErr_ExceptionMatches(PyExc_TypeError)) PyErr_Format(PyExc_TypeError, "%s: expected a number, got %R", name, value);
  return false;
}

/* Takes at most USAE_MOST_PREFIXES numbers. The core checks their values. */
static bool take_shares(const module_state *state, PyObject *value, const char *name, double *out) {
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

static bool take_field(const module_state *state, const usae_recipe_field *field, PyObject *value, usae_recipe *recipe) {
  void *place = (char *)recipe + field->offset;
  char name[64];
  int64_t truth = 0;
  if (field->zero_is_none && Py_IsNone(value)) return true; /* all fields are 0 at first */
  PyOS_snprintf(name, sizeof name, "recipe['%s']", field->name);
  switch (field->kind) {
  case USAE_FIELD_CHOICE:
    return take_choice(state, field, value, name, place);
  case USAE_FIELD_SWITCH:
    if (!take_int(state, value, name, 0, 1, &truth)) return false;
    *(int32_t *)place = (int32_t)truth;
    return true;
  case USAE_FIELD_COUNT:
    return take_int(state, value, name, (int64_t)field->smallest, (int64_t)field->largest, place);
  case USAE_FIELD_NUMBER:
    return take_double(value, name, place);
  case USAE_FIELD_SHARES:
    return take_shares(state, value, name, place);
  }
  PyErr_Format(PyExc_SystemError, "%s: a field of an unknown kind", name);
  return false;
}

/* Raises TypeError for a key that is no field. */
static bool check_keys(PyObject *mapping, PyObject *known) {
  PyObject *keys = PyMapping_Keys(mapping);
  bool ok = keys != NULL;
  for (Py_ssize_t i = 0; ok && i < PyList_Size(keys); i++) {
    PyObject *key = PyList_GetItem(keys, i);
    int found = PySequence_Contains(known, key);
    ok = found > 0;
    if (found == 0) PyErr_Format(PyExc_TypeError, "recipe: unknown entry %R", key);
  }
  Py_XDECREF(keys);
  return ok;
}

bool take_recipe(const module_state *state, PyObject *mapping, usae_recipe *out) {
  bool ok = false;
  PyObject *value = NULL, *names = PyList_New(0);
  if (names == NULL) goto done;
  *out = (usae_recipe){.size = sizeof *out};
  for (int64_t i = 0; i < usae_recipe_field_count(); i++) {
    usae_recipe_field field;
    if (!field_at(state, i, &field)) goto done;
    PyObject *name = PyUnicode_FromString(field.name);
    int failed = name == NULL ? -1 : PyList_Append(names, name);
    if (failed == 0) value = PyObject_GetItem(mapping, name);
    Py_XDECREF(name);
    if (value == NULL) {
      if (PyErr_ExceptionMatches(PyExc_KeyError)) PyErr_Format(PyExc_TypeError, "recipe: missing entry '%s'", field.name);
      goto done;
    }
    if (!take_field(state, &field, value, out)) goto done;
    Py_CLEAR(value);
  }
  ok = check_keys(mapping, names);
done:
  Py_XDECREF(value);
  Py_XDECREF(names);
  return ok;
}

/* --- From the core -------------------------------------------------------------------------------------------------- */

static PyObject *shares_tuple(const double *shares) {
  Py_ssize_t count = 0;
  while (count < USAE_MOST_PREFIXES && shares[count] != 0) count++;
  PyObject *tuple = PyTuple_New(count);
  for (Py_ssize_t i = 0; tuple != NULL && i < count; i++) {
    PyObject *share = PyFloat_FromDouble(shares[i]);
    if (share == NULL || PyTuple_SetItem(tuple, i, share) < 0) Py_CLEAR(tuple);
  }
  return tuple;
}

static PyObject *field_value(const usae_recipe_field *field, const usae_recipe *recipe) {
  const void *place = (const char *)recipe + field->offset;
  const double zero = 0; /* all bytes are 0, as those of an integer 0 */
  if (field->zero_is_none && memcmp(place, &zero, sizeof zero) == 0) return Py_NewRef(Py_None);
  switch (field->kind) {
  case USAE_FIELD_CHOICE:
    return PyUnicode_FromString(field->choices[*(const int32_t *)place]);
  case USAE_FIELD_SWITCH:
    return PyBool_FromLong(*(const int32_t *)place);
  case USAE_FIELD_COUNT:
    return PyLong_FromLongLong(*(const int64_t *)place);
  case USAE_FIELD_NUMBER:
    return PyFloat_FromDouble(*(const double *)place);
  case USAE_FIELD_SHARES:
    return shares_tuple(place);
  }
  PyErr_Format(PyExc_SystemError, "recipe['%s']: a field of an unknown kind", field->name);
  return NULL;
}

static PyObject *limit(const usae_recipe_field *field, double value) {
  return field->kind == USAE_FIELD_COUNT ? PyLong_FromDouble(value) : PyFloat_FromDouble(value);
}

static PyObject *field_description(const usae_recipe_field *field, const usae_recipe *Py_UNUSED(ignored)) {
  static const char *const kinds[] = {"choice", "switch", "count", "number", "shares"};
  PyObject *choices = PyTuple_New((Py_ssize_t)field->n_choices);
  for (Py_ssize_t i = 0; choices != NULL && i < field->n_choices; i++) {
    PyObject *name = PyUnicode_FromString(field->choices[i]);
    if (name == NULL || PyTuple_SetItem(choices, i, name) < 0) Py_CLEAR(choices);
  }
  if (choices == NULL) return NULL;
  return Py_BuildValue("{s:s,s:N,s:O,s:N,s:N}", "kind", kinds[field->kind], "choices", choices, "zero_is_none",
                       field->zero_is_none ? Py_True : Py_False, "smallest", limit(field, field->smallest), "largest",
                       limit(field, field->largest));
}

/* Returns a dict from the names of the fields to the results of `make`. */
static PyObject *dict_of_fields(const module_state *state, const usae_recipe *recipe,
                                PyObject *make(const usae_recipe_field *, const usae_recipe *)) {
  PyObject *result = PyDict_New();
  for (int64_t i = 0; result != NULL && i < usae_recipe_field_count(); i++) {
    usae_recipe_field field;
    PyObject *value = field_at(state, i, &field) ? make(&field, recipe) : NULL;
    if (value == NULL || PyDict_SetItemString(result, field.name, value) < 0) Py_CLEAR(result);
    Py_XDECREF(value);
  }
  return result;
}

PyObject *recipe_dict(const module_state *state, const usae_recipe *recipe) {
  return dict_of_fields(state, recipe, field_value);
}

PyObject *recipe_fields(PyObject *module, PyObject *Py_UNUSED(ignored)) {
  return dict_of_fields(PyModule_GetState(module), NULL, field_description);
}

PyObject *recipe_preset(PyObject *module, PyObject *number) {
  const module_state *state = PyModule_GetState(module);
  usae_recipe recipe = {.size = sizeof recipe};
  usae_error error;
  int32_t preset;
  if (!take_int32(state, number, "preset", &preset) ||
      !check_status(state, usae_recipe_preset(preset, &recipe, &error), &error))
    return NULL;
  return recipe_dict(state, &recipe);
}
