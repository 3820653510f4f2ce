#include "core.h"

#include <math.h>

/* These calls of the core never wait, so the GIL is not released. */

PyObject *core_n_concepts(PyObject *self, void *Py_UNUSED(closure)) {
  return PyLong_FromLongLong(usae_concepts(core_of(self)->sae));
}

PyObject *core_k(PyObject *self, void *Py_UNUSED(closure)) {
  double k = usae_k(core_of(self)->sae);
  return k == floor(k) ? PyLong_FromDouble(k) : PyFloat_FromDouble(k);
}

PyObject *core_slots(PyObject *self, void *Py_UNUSED(closure)) { return PyLong_FromLongLong(usae_slots(core_of(self)->sae)); }

PyObject *core_seed(PyObject *self, void *Py_UNUSED(closure)) {
  return PyLong_FromUnsignedLongLong(usae_seed(core_of(self)->sae));
}

/* Returns NULL without an exception if there is no such model. */
static PyObject *model_name(const usae_sae *sae, int32_t model) {
  int64_t size = usae_model_name(sae, model, NULL, 0);
  if (size == 0) return NULL;
  char *text = PyMem_Calloc((size_t)size, 1); /* stays empty if another thread has changed the models meanwhile */
  if (text == NULL) return PyErr_NoMemory();
  usae_model_name(sae, model, text, size);
  PyObject *name = PyUnicode_FromString(text);
  PyMem_Free(text);
  return name;
}

static PyObject *model_width(const usae_sae *sae, int32_t model) {
  int64_t width = usae_model_width(sae, model);
  return width == 0 ? NULL : PyLong_FromLongLong(width);
}

/* Returns a tuple with the result of `of_model` for each model. */
static PyObject *of_models(const usae_sae *sae, PyObject *of_model(const usae_sae *, int32_t)) {
  PyObject *item, *result = NULL, *list = PyList_New(0);
  if (list == NULL) return NULL;
  for (int32_t model = 0; (item = of_model(sae, model)) != NULL; model++) {
    PyList_Append(list, item); /* a failure is detected below */
    Py_DECREF(item);
    if (PyErr_Occurred()) break;
  }
  if (!PyErr_Occurred()) result = PyList_AsTuple(list);
  Py_DECREF(list);
  return result;
}

PyObject *core_names(PyObject *self, void *Py_UNUSED(closure)) { return of_models(core_of(self)->sae, model_name); }

PyObject *core_widths(PyObject *self, void *Py_UNUSED(closure)) { return of_models(core_of(self)->sae, model_width); }

PyObject *core_recipe(PyObject *self, void *Py_UNUSED(closure)) {
  const module_state *state = state_of(self);
  usae_recipe recipe = {.size = sizeof recipe};
  usae_error error;
  if (!check_status(state, usae_current_recipe(core_of(self)->sae, &recipe, &error), &error)) return NULL;
  return recipe_dict(state, &recipe);
}

/* Returns (rows, outlying_rows, left_out_rows, identical_rows, median_distance, largest_distance) of a model's sample, and
 * writes [width] doubles to `center` and `deviation`. None where there was no sample. */
PyObject *core_describe_sample(PyObject *self, PyObject *args, PyObject *kwargs) {
  static char *keywords[] = {"model", "center", "deviation", NULL};
  const module_state *state = state_of(self);
  PyObject *py_model, *py_center, *py_deviation, *result = NULL;
  Py_buffer center = {0}, deviation = {0};
  usae_sample sample = {.size = sizeof sample};
  int32_t model;
  core_call call;

  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO:describe_sample", keywords, &py_model, &py_center, &py_deviation) ||
      !take_int32(state, py_model, "model", &model) ||
      !take_array(state, py_center, "center", ELEMENT_FLOAT64, true, &center) ||
      !take_array(state, py_deviation, "deviation", ELEMENT_FLOAT64, true, &deviation))
    goto done;
  if (array_count(&center) != array_count(&deviation)) {
    PyErr_Format(state->invalid_input, "deviation: expected %lld elements, got %lld", (long long)array_count(&center),
                 (long long)array_count(&deviation));
    goto done;
  }
  sample.center = center.buf;
  sample.deviation = deviation.buf;

  core_call_begin(&call);
  usae_status status = usae_describe_sample(core_of(self)->sae, model, array_count(&center), &sample, &call.error);
  if (!core_call_end(&call, state, status)) goto done;
  result = sample.rows == 0 ? Py_NewRef(Py_None)
                            : Py_BuildValue("(LLLLdd)", (long long)sample.rows, (long long)sample.outlying_rows,
                                            (long long)sample.left_out_rows, (long long)sample.identical_rows,
                                            sample.median_distance, sample.largest_distance);
done:
  PyBuffer_Release(&center);
  PyBuffer_Release(&deviation);
  return result;
}

PyObject *core_step_count(PyObject *self, void *Py_UNUSED(closure)) {
  return PyLong_FromLongLong(usae_step_count(core_of(self)->sae));
}

int core_set_step_count(PyObject *self, PyObject *value, void *Py_UNUSED(closure)) {
  const module_state *state = state_of(self);
  int64_t step;
  core_call call;

  if (value == NULL) {
    PyErr_SetString(PyExc_AttributeError, "step_count cannot be deleted");
    return -1;
  }
  if (!take_int(state, value, "step_count", 0, INT64_MAX, &step)) return -1;
  core_call_begin(&call);
  usae_status status = usae_set_step_count(core_of(self)->sae, step, &call.error);
  if (!core_call_end(&call, state, status)) return -1;
  remember(&core_of(self)->last_report, NULL);
  return 0;
}
