#include "module.h"

#include <stddef.h>
#include <string.h>

/* The core's autoencoder. It is made whole in tp_new, so that no half-made one can be met. */
typedef struct core_object {
  PyObject_HEAD
  usae_sae *sae;
  int64_t n_concepts, k;
  PyObject *names; /* tuple of str by model, for error messages; NULL before initialisation */
} core_object;

static core_object *core_of(PyObject *self) { return (core_object *)self; }

/* Core cannot be subclassed, so the type of `self` is the one that the module made. */
static const module_state *state_of(PyObject *self) { return PyType_GetModuleState(Py_TYPE(self)); }

/* --- Life ---------------------------------------------------------------------------------------------------------- */

static PyObject *core_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
  static char *keywords[] = {"n_concepts", "k", "seed", "n_threads", "recipe", NULL};
  const module_state *state = PyType_GetModuleState(type);
  PyObject *py_n_concepts, *py_k, *py_seed, *py_n_threads, *py_recipe;
  int64_t n_concepts, k;
  uint64_t seed;
  int32_t n_threads;
  usae_recipe recipe;
  usae_sae *sae = NULL;
  core_object *self = NULL;
  core_call call;

  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOOO:Core", keywords, &py_n_concepts, &py_k, &py_seed,
                                   &py_n_threads, &py_recipe) ||
      !take_int(state, py_n_concepts, "n_concepts", 1, INT64_MAX, &n_concepts) ||
      !take_int(state, py_k, "k", 1, INT64_MAX, &k) || !take_seed(state, py_seed, &seed) ||
      !take_int32(state, py_n_threads, "n_threads", &n_threads) || !take_recipe(state, py_recipe, &recipe))
    goto done;

  core_call_begin(&call);
  usae_status status = usae_create(n_concepts, k, seed, n_threads, &recipe, &sae, &call.error);
  if (!core_call_end(&call, state, status)) goto done;

  self = (core_object *)PyType_GenericAlloc(type, 0);
  if (self == NULL) goto done;
  self->sae = sae;
  sae = NULL;
  self->n_concepts = n_concepts;
  self->k = k;
done:
  usae_destroy(sae);
  return (PyObject *)self;
}

static int core_traverse(PyObject *self, visitproc visit, void *arg) {
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(core_of(self)->names);
  return 0;
}

static int core_clear(PyObject *self) {
  Py_CLEAR(core_of(self)->names);
  return 0;
}

static void core_dealloc(PyObject *self) {
  PyTypeObject *type = Py_TYPE(self);
  PyObject_GC_UnTrack(self);
  core_clear(self);
  Py_BEGIN_ALLOW_THREADS
  usae_destroy(core_of(self)->sae);
  Py_END_ALLOW_THREADS
  PyObject_GC_Del(self);
  Py_DECREF(type);
}

static PyObject *core_reduce(PyObject *self, PyObject *Py_UNUSED(ignored)) {
  PyErr_Format(PyExc_TypeError, "%R cannot be copied or pickled; save the UniversalSAE and load it again", self);
  return NULL;
}

/* --- Models -------------------------------------------------------------------------------------------------------- */

static void remember_names(core_object *core, PyObject *names) {
  PyObject *old = core->names;
  core->names = Py_NewRef(names);
  Py_XDECREF(old);
}

static PyObject *core_initialize(PyObject *self, PyObject *args, PyObject *kwargs) {
  static char *keywords[] = {"names", "widths", NULL};
  const module_state *state = state_of(self);
  core_object *core = core_of(self);
  PyObject *py_names, *py_widths, *tuple = NULL, *result = NULL;
  name_list names = {0};
  int64_t *widths = NULL;
  core_call call;

  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO:initialize", keywords, &py_names, &py_widths) ||
      !names_take(state, py_names, &names))
    goto done;
  tuple = PySequence_Tuple(py_widths);
  if (tuple == NULL) goto done;
  if (PyTuple_Size(tuple) != names.count) {
    PyErr_Format(state->invalid_input, "widths: expected one for each of %d names, got %zd", (int)names.count,
                 PyTuple_Size(tuple));
    goto done;
  }
  widths = PyMem_Calloc((size_t)names.count + 1, sizeof *widths);
  if (widths == NULL) {
    PyErr_NoMemory();
    goto done;
  }
  for (int32_t i = 0; i < names.count; i++) {
    char name[32];
    PyOS_snprintf(name, sizeof name, "widths[%d]", (int)i);
    if (!take_int(state, PyTuple_GetItem(tuple, i), name, 1, INT64_MAX, &widths[i])) goto done;
  }

  core_call_begin(&call);
  usae_status status = usae_initialize(core->sae, names.count, names.strings, widths, &call.error);
  if (!core_call_end(&call, state, status)) goto done;

  remember_names(core, names.tuple);
  result = Py_NewRef(Py_None);
done:
  PyMem_Free(widths);
  Py_XDECREF(tuple);
  names_clear(&names);
  return result;
}

static PyObject *core_initialize_from(PyObject *self, PyObject *args, PyObject *kwargs) {
  static char *keywords[] = {"names", "inputs", NULL};
  const module_state *state = state_of(self);
  core_object *core = core_of(self);
  PyObject *py_names, *py_inputs, *result = NULL;
  name_list names = {0};
  activations_list inputs = {0};
  core_call call;

  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO:initialize_from", keywords, &py_names, &py_inputs) ||
      !names_take(state, py_names, &names) || !activations_take(state, py_inputs, names.tuple, &inputs))
    goto done;
  if (inputs.count != names.count) {
    PyErr_Format(state->invalid_input, "inputs: expected one for each of %d names, got %d", (int)names.count,
                 (int)inputs.count);
    goto done;
  }

  core_call_begin(&call);
  usae_status status = usae_initialize_from(core->sae, names.count, names.strings, inputs.matrices, &call.interrupt,
                                            &call.error);
  if (!core_call_end(&call, state, status)) goto done;

  remember_names(core, names.tuple);
  result = Py_NewRef(Py_None);
done:
  activations_clear(&inputs);
  names_clear(&names);
  return result;
}

/* --- Training ------------------------------------------------------------------------------------------------------ */

static PyObject *core_set_plan(PyObject *self, PyObject *args, PyObject *kwargs) {
  static char *keywords[] = {"total_steps", "dead_tokens", NULL};
  const module_state *state = state_of(self);
  PyObject *py_total_steps, *py_dead_tokens, *result = NULL;
  int64_t total_steps, dead_tokens;
  core_call call;

  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO:set_plan", keywords, &py_total_steps, &py_dead_tokens) ||
      !take_int(state, py_total_steps, "total_steps", 0, INT64_MAX, &total_steps) ||
      !take_int(state, py_dead_tokens, "dead_tokens", 0, INT64_MAX, &dead_tokens))
    goto done;

  core_call_begin(&call);
  usae_status status = usae_set_plan(core_of(self)->sae, total_steps, dead_tokens, &call.error);
  if (!core_call_end(&call, state, status)) goto done;
  result = Py_NewRef(Py_None);
done:
  return result;
}

static PyObject *report_dict(const usae_step_report *report, const double *losses, int32_t n_models) {
  PyObject *list = PyList_New(n_models), *result = NULL;
  if (list == NULL) goto done;
  for (int32_t j = 0; j < n_models; j++) {
    PyObject *loss = PyFloat_FromDouble(losses[j]);
    if (loss == NULL || PyList_SetItem(list, j, loss) < 0) goto done;
  }
  result = Py_BuildValue("{s:i,s:L,s:d,s:d,s:d,s:d,s:d,s:L,s:O}", "encoder", (int)report->encoder, "step",
                         (long long)report->step, "loss", report->loss, "auxiliary_loss", report->auxiliary_loss, "l0",
                         report->l0, "learning_rate", report->learning_rate, "gradient_norm", report->gradient_norm,
                         "dead", (long long)report->dead, "losses", list);
done:
  Py_XDECREF(list);
  return result;
}

static PyObject *core_step(PyObject *self, PyObject *args, PyObject *kwargs) {
  static char *keywords[] = {"inputs", "rows", "encoder", "gradients", NULL};
  static const int64_t nothing = 0;
  const module_state *state = state_of(self);
  PyObject *py_inputs, *py_rows, *py_encoder, *names = NULL, *result = NULL;
  activations_list inputs = {0};
  Py_buffer rows = {0};
  const int64_t *row_numbers = NULL;
  int64_t n_rows = 0;
  int32_t encoder;
  int gradients;
  double *losses = NULL;
  usae_step_report report = {.size = sizeof report};
  core_call call;

  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOp:step", keywords, &py_inputs, &py_rows, &py_encoder,
                                   &gradients) ||
      !take_int32(state, py_encoder, "encoder", &encoder))
    goto done;
  names = Py_XNewRef(core_of(self)->names);
  if (!activations_take(state, py_inputs, names, &inputs)) goto done;
  if (py_rows != Py_None) {
    if (!take_array(state, py_rows, "rows", ELEMENT_INT64, false, &rows)) goto done;
    n_rows = array_count(&rows);
    row_numbers = rows.buf != NULL ? rows.buf : &nothing; /* NULL would mean all rows */
  } else if (inputs.count > 0) {
    n_rows = inputs.matrices[0].outer * inputs.matrices[0].inner;
  }
  losses = PyMem_Calloc((size_t)inputs.count + 1, sizeof *losses);
  if (losses == NULL) {
    PyErr_NoMemory();
    goto done;
  }

  core_call_begin(&call);
  usae_status status = usae_step(core_of(self)->sae, inputs.count, inputs.matrices, row_numbers, n_rows, encoder,
                                 gradients ? USAE_STEP_GRADIENTS : USAE_STEP_TRAIN, &call.interrupt, &report, losses,
                                 &call.error);
  if (!core_call_end(&call, state, status)) goto done;
  result = report_dict(&report, losses, inputs.count);
done:
  PyMem_Free(losses);
  PyBuffer_Release(&rows);
  activations_clear(&inputs);
  Py_XDECREF(names);
  return result;
}

/* --- Use ----------------------------------------------------------------------------------------------------------- */

/* Whether `array` is [rows, columns]; else an InvalidInputError. */
static bool has_shape(const module_state *state, const Py_buffer *array, const char *name, int64_t rows,
                      int64_t columns) {
  if (array->ndim == 2 && array->shape[0] == rows && array->shape[1] == columns) return true;
  if (array->ndim == 2)
    PyErr_Format(state->invalid_input, "%s: expected shape (%lld, %lld), got (%zd, %zd)", name, (long long)rows,
                 (long long)columns, array->shape[0], array->shape[1]);
  else
    PyErr_Format(state->invalid_input, "%s: expected shape (%lld, %lld), got %d dimensions", name, (long long)rows,
                 (long long)columns, array->ndim);
  return false;
}

static PyObject *core_encode(PyObject *self, PyObject *args, PyObject *kwargs) {
  static char *keywords[] = {"model", "x", "values", "indices", NULL};
  const module_state *state = state_of(self);
  const core_object *core = core_of(self);
  PyObject *py_model, *py_x, *py_values, *py_indices, *result = NULL;
  Py_buffer x = {0}, values = {0}, indices = {0};
  usae_matrix matrix;
  int32_t model;
  core_call call;

  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOO:encode", keywords, &py_model, &py_x, &py_values, &py_indices) ||
      !take_int32(state, py_model, "model", &model) || !take_activations(state, py_x, "x", &x, &matrix) ||
      !take_array(state, py_values, "values", ELEMENT_FLOAT32, true, &values) ||
      !take_array(state, py_indices, "indices", ELEMENT_INT32, true, &indices) ||
      !has_shape(state, &values, "values", matrix.outer * matrix.inner, core->k) ||
      !has_shape(state, &indices, "indices", matrix.outer * matrix.inner, core->k))
    goto done;

  core_call_begin(&call);
  usae_status status = usae_encode(core->sae, model, &matrix, values.buf, indices.buf, &call.interrupt, &call.error);
  if (!core_call_end(&call, state, status)) goto done;
  result = Py_NewRef(Py_None);
done:
  PyBuffer_Release(&indices);
  PyBuffer_Release(&values);
  PyBuffer_Release(&x);
  return result;
}

static PyObject *core_decode(PyObject *self, PyObject *args, PyObject *kwargs) {
  static char *keywords[] = {"model", "values", "indices", "out", NULL};
  const module_state *state = state_of(self);
  core_object *core = core_of(self);
  PyObject *py_model, *py_values, *py_indices, *py_out, *result = NULL;
  Py_buffer values = {0}, indices = {0}, out = {0};
  int64_t n, slots;
  int32_t model;
  core_call call;

  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOO:decode", keywords, &py_model, &py_values, &py_indices,
                                   &py_out) ||
      !take_int32(state, py_model, "model", &model) ||
      !take_array(state, py_values, "values", ELEMENT_FLOAT32, false, &values) ||
      !take_array(state, py_indices, "indices", ELEMENT_INT32, false, &indices) ||
      !take_array(state, py_out, "out", ELEMENT_FLOAT32, true, &out))
    goto done;
  if (values.ndim != 2) {
    PyErr_Format(state->invalid_input, "values: expected 2 dimensions, got %d", values.ndim);
    goto done;
  }
  n = values.shape[0];
  slots = values.shape[1];
  if (!has_shape(state, &indices, "indices", n, slots)) goto done;

  if (out.ndim != 2 || out.shape[0] != n) {
    PyErr_Format(state->invalid_input, "out: expected 2 dimensions and %lld rows, got %d and %zd", (long long)n, out.ndim,
                 out.ndim > 0 ? out.shape[0] : (Py_ssize_t)0);
    goto done;
  }

  core_call_begin(&call);
  usae_status status = usae_decode(core->sae, model, n, slots, values.buf, indices.buf, out.shape[1], out.buf,
                                   &call.interrupt, &call.error);
  if (!core_call_end(&call, state, status)) goto done;
  result = Py_NewRef(Py_None);
done:
  PyBuffer_Release(&out);
  PyBuffer_Release(&indices);
  PyBuffer_Release(&values);
  return result;
}

static PyObject *core_preactivations(PyObject *self, PyObject *args, PyObject *kwargs) {
  static char *keywords[] = {"model", "x", "out", NULL};
  const module_state *state = state_of(self);
  const core_object *core = core_of(self);
  PyObject *py_model, *py_x, *py_out, *result = NULL;
  Py_buffer x = {0}, out = {0};
  usae_matrix matrix;
  int32_t model;
  core_call call;

  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO:preactivations", keywords, &py_model, &py_x, &py_out) ||
      !take_int32(state, py_model, "model", &model) || !take_activations(state, py_x, "x", &x, &matrix) ||
      !take_array(state, py_out, "out", ELEMENT_FLOAT32, true, &out) ||
      !has_shape(state, &out, "out", matrix.outer * matrix.inner, core->n_concepts))
    goto done;

  core_call_begin(&call);
  usae_status status = usae_preactivations(core->sae, model, &matrix, out.buf, &call.interrupt, &call.error);
  if (!core_call_end(&call, state, status)) goto done;
  result = Py_NewRef(Py_None);
done:
  PyBuffer_Release(&out);
  PyBuffer_Release(&x);
  return result;
}

/* --- Evaluation ---------------------------------------------------------------------------------------------------- */

typedef enum extent { EXTENT_PAIRS, EXTENT_MODELS, EXTENT_MODEL_CONCEPTS, EXTENT_CONCEPTS } extent;

#define OUTPUT(extent, type, name) {#name, type, extent, offsetof(usae_evaluation, name)}
static const struct output {
  const char *name;
  element type;
  extent extent;
  size_t offset;
} outputs[] = {
    OUTPUT(EXTENT_PAIRS, ELEMENT_FLOAT64, r2),
    OUTPUT(EXTENT_PAIRS, ELEMENT_FLOAT64, r2_standardized),
    OUTPUT(EXTENT_PAIRS, ELEMENT_FLOAT64, r2_scalar_mean),
    OUTPUT(EXTENT_PAIRS, ELEMENT_FLOAT64, mse),
    OUTPUT(EXTENT_MODELS, ELEMENT_FLOAT64, l0),
    OUTPUT(EXTENT_MODEL_CONCEPTS, ELEMENT_INT64, firing_counts),
    OUTPUT(EXTENT_CONCEPTS, ELEMENT_INT64, cofire_counts),
    OUTPUT(EXTENT_MODEL_CONCEPTS, ELEMENT_FLOAT64, mean_activation),
    OUTPUT(EXTENT_MODEL_CONCEPTS, ELEMENT_FLOAT32, max_activation),
};
#undef OUTPUT
enum { OUTPUT_COUNT = sizeof outputs / sizeof outputs[0] };

static int64_t extent_count(extent extent, int64_t n_models, int64_t n_concepts) {
  int64_t count = n_models;
  switch (extent) {
  case EXTENT_PAIRS:
    return n_models * n_models; /* of int32 numbers */
  case EXTENT_MODELS:
    return n_models;
  case EXTENT_MODEL_CONCEPTS:
    return __builtin_mul_overflow(n_models, n_concepts, &count) ? -1 : count;
  case EXTENT_CONCEPTS:
    return n_concepts;
  }
  return -1;
}

/* The arrays of the mapping into `buffers` and `evaluation`. An array given twice under two names is the caller's affair. */
static bool take_outputs(const module_state *state, PyObject *mapping, int64_t n_models, int64_t n_concepts,
                         Py_buffer buffers[OUTPUT_COUNT], usae_evaluation *evaluation) {
  bool ok = false;
  PyObject *array = NULL, *keys = PyMapping_Keys(mapping);
  if (keys == NULL) goto done;
  for (Py_ssize_t i = 0; i < PyList_Size(keys); i++) {
    PyObject *key = PyList_GetItem(keys, i);
    size_t o = 0;
    while (o < OUTPUT_COUNT && !(PyUnicode_Check(key) && PyUnicode_CompareWithASCIIString(key, outputs[o].name) == 0)) o++;
    if (o == OUTPUT_COUNT || buffers[o].obj != NULL) {
      PyErr_Format(PyExc_TypeError, "outputs: unknown or repeated entry %R", key);
      goto done;
    }
    char name[64];
    PyOS_snprintf(name, sizeof name, "outputs['%s']", outputs[o].name);
    array = PyObject_GetItem(mapping, key);
    if (array == NULL || !take_array(state, array, name, outputs[o].type, true, &buffers[o])) goto done;
    Py_CLEAR(array);
    int64_t count = extent_count(outputs[o].extent, n_models, n_concepts);
    if (array_count(&buffers[o]) != count) {
      PyErr_Format(state->invalid_input, "%s: expected %lld elements, got %lld", name, (long long)count,
                   (long long)array_count(&buffers[o]));
      goto done;
    }
    memcpy((char *)evaluation + outputs[o].offset, &buffers[o].buf, sizeof buffers[o].buf);
  }
  ok = true;
done:
  Py_XDECREF(array);
  Py_XDECREF(keys);
  return ok;
}

static PyObject *core_evaluate(PyObject *self, PyObject *args, PyObject *kwargs) {
  static char *keywords[] = {"inputs", "threshold", "outputs", NULL};
  const module_state *state = state_of(self);
  const core_object *core = core_of(self);
  PyObject *py_inputs, *py_outputs, *names = NULL, *result = NULL;
  activations_list inputs = {0};
  Py_buffer buffers[OUTPUT_COUNT] = {{0}};
  usae_evaluation evaluation = {.size = sizeof evaluation};
  double threshold;
  core_call call;

  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OdO:evaluate", keywords, &py_inputs, &threshold, &py_outputs))
    goto done;
  names = Py_XNewRef(core->names);
  if (!activations_take(state, py_inputs, names, &inputs) ||
      !take_outputs(state, py_outputs, inputs.count, core->n_concepts, buffers, &evaluation))
    goto done;

  core_call_begin(&call);
  usae_status status = usae_evaluate(core->sae, inputs.count, inputs.matrices, threshold, &evaluation, &call.interrupt,
                                     &call.error);
  if (!core_call_end(&call, state, status)) goto done;
  result = Py_NewRef(Py_None);
done:
  for (size_t o = 0; o < OUTPUT_COUNT; o++) PyBuffer_Release(&buffers[o]);
  activations_clear(&inputs);
  Py_XDECREF(names);
  return result;
}

/* --- Parameters and training state --------------------------------------------------------------------------------- */

static element tensor_element(int32_t tensor) {
  return tensor == USAE_SILENT_TOKENS || tensor == USAE_COUNTERS ? ELEMENT_INT64 : ELEMENT_FLOAT32;
}

static PyObject *core_tensor_shape(PyObject *self, PyObject *args, PyObject *kwargs) {
  static char *keywords[] = {"model", "tensor", NULL};
  const module_state *state = state_of(self);
  PyObject *py_model, *py_tensor, *result = NULL;
  int32_t model, tensor;
  int64_t rows = 0, columns = 0;
  core_call call;

  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO:tensor_shape", keywords, &py_model, &py_tensor) ||
      !take_int32(state, py_model, "model", &model) || !take_int32(state, py_tensor, "tensor", &tensor))
    goto done;

  core_call_begin(&call);
  usae_status status = usae_tensor_shape(core_of(self)->sae, model, tensor, &rows, &columns, &call.error);
  if (!core_call_end(&call, state, status)) goto done;
  result = columns == 0 ? Py_BuildValue("(L)", (long long)rows)
                        : Py_BuildValue("(LL)", (long long)rows, (long long)columns);
done:
  return result;
}

static PyObject *core_tensor_read(PyObject *self, PyObject *args, PyObject *kwargs) {
  static char *keywords[] = {"model", "tensor", "out", NULL};
  const module_state *state = state_of(self);
  PyObject *py_model, *py_tensor, *py_out, *result = NULL;
  Py_buffer out = {0};
  int32_t model, tensor;
  core_call call;

  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO:tensor_read", keywords, &py_model, &py_tensor, &py_out) ||
      !take_int32(state, py_model, "model", &model) || !take_int32(state, py_tensor, "tensor", &tensor) ||
      !take_array(state, py_out, "out", tensor_element(tensor), true, &out))
    goto done;

  core_call_begin(&call);
  usae_status status = usae_tensor_read(core_of(self)->sae, model, tensor, out.buf, array_count(&out), &call.error);
  if (!core_call_end(&call, state, status)) goto done;
  result = Py_NewRef(Py_None);
done:
  PyBuffer_Release(&out);
  return result;
}

static PyObject *core_tensor_write(PyObject *self, PyObject *args, PyObject *kwargs) {
  static char *keywords[] = {"model", "tensor", "data", NULL};
  const module_state *state = state_of(self);
  PyObject *py_model, *py_tensor, *py_data, *result = NULL;
  Py_buffer data = {0};
  int32_t model, tensor;
  core_call call;

  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO:tensor_write", keywords, &py_model, &py_tensor, &py_data) ||
      !take_int32(state, py_model, "model", &model) || !take_int32(state, py_tensor, "tensor", &tensor) ||
      !take_array(state, py_data, "data", tensor_element(tensor), false, &data))
    goto done;

  core_call_begin(&call);
  usae_status status = usae_tensor_write(core_of(self)->sae, model, tensor, data.buf, array_count(&data), &call.error);
  if (!core_call_end(&call, state, status)) goto done;
  result = Py_NewRef(Py_None);
done:
  PyBuffer_Release(&data);
  return result;
}

static PyObject *core_n_models(PyObject *self, void *Py_UNUSED(closure)) {
  int32_t count;
  Py_BEGIN_ALLOW_THREADS
  count = usae_model_count(core_of(self)->sae);
  Py_END_ALLOW_THREADS
  return PyLong_FromLong(count);
}

static PyObject *core_step_count(PyObject *self, void *Py_UNUSED(closure)) {
  int64_t step;
  Py_BEGIN_ALLOW_THREADS
  step = usae_step_count(core_of(self)->sae);
  Py_END_ALLOW_THREADS
  return PyLong_FromLongLong(step);
}

static int core_set_step_count(PyObject *self, PyObject *value, void *Py_UNUSED(closure)) {
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
  return core_call_end(&call, state, status) ? 0 : -1;
}

/* --- The type ------------------------------------------------------------------------------------------------------ */

#define METHOD(name, arguments, words)                                                                    \
  {#name, (PyCFunction)(void (*)(void))core_##name, METH_VARARGS | METH_KEYWORDS, #name "($self, " arguments ")\n--\n\n" words}
static PyMethodDef methods[] = {
    METHOD(initialize, "names, widths", "Give it its models and seed their parameters without data."),
    METHOD(initialize_from, "names, inputs", "The same, with standardisation and dictionaries taken from data."),
    METHOD(set_plan, "total_steps, dead_tokens", "Change the length of the planned run."),
    METHOD(step, "inputs, rows, encoder, gradients", "One optimisation step; its report as a dict."),
    METHOD(encode, "model, x, values, indices", "Activations [n, width] to codes [n, k]."),
    METHOD(decode, "model, values, indices, out", "Codes [n, slots] to activations [n, width]."),
    METHOD(preactivations, "model, x, out", "What ReLU and TopK would be given, [n, n_concepts]."),
    METHOD(evaluate, "inputs, threshold, outputs", "Encode and decode through every pair of models."),
    METHOD(tensor_shape, "model, tensor", "Shape of a parameter or part of the training state."),
    METHOD(tensor_read, "model, tensor, out", "Copy it out."),
    METHOD(tensor_write, "model, tensor, data", "Copy it in."),
    {"__reduce__", core_reduce, METH_NOARGS, "Refuses: the core is saved through its tensors."},
    {NULL, NULL, 0, NULL},
};
#undef METHOD

static PyGetSetDef properties[] = {
    {"n_models", core_n_models, NULL, "Number of models; 0 before initialisation.", NULL},
    {"step_count", core_step_count, core_set_step_count, "Training steps done.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "Core(n_concepts, k, seed, n_threads, recipe)\n--\n\nAn autoencoder of usae.h."},
    {Py_tp_new, core_new},
    {Py_tp_dealloc, core_dealloc},
    {Py_tp_traverse, core_traverse},
    {Py_tp_clear, core_clear},
    {Py_tp_methods, methods},
    {Py_tp_getset, properties},
    {0, NULL},
};

PyType_Spec core_spec = {
    .name = "usae._usae.Core",
    .basicsize = sizeof(core_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};
