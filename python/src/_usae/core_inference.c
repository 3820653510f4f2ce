#include "core.h"

#include <stddef.h>
#include <string.h>

PyObject *core_encode(PyObject *self, PyObject *args, PyObject *kwargs) {
  static char *keywords[] = {"model", "x", "values", "indices", NULL};
  const module_state *state = state_of(self);
  const core_object *core = core_of(self);
  PyObject *py_model, *py_x, *py_values, *py_indices, *result = NULL;
  activations x = {0};
  Py_buffer values = {0}, indices = {0};
  int32_t model;
  core_call call;

  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOO:encode", keywords, &py_model, &py_x, &py_values, &py_indices) ||
      !take_int32(state, py_model, "model", &model) || !activations_take(state, py_x, "x", &x))
    goto done;
  const int64_t codes[] = {activations_rows(&x), usae_slots(core->sae)};
  if (!take_shaped(state, py_values, "values", ELEMENT_FLOAT32, true, 2, codes, &values) ||
      !take_shaped(state, py_indices, "indices", ELEMENT_INT32, true, 2, codes, &indices))
    goto done;

  core_call_begin(&call);
  usae_status status = usae_encode(core->sae, model, &x.matrix, values.buf, indices.buf, &call.interrupt, &call.error);
  if (!core_call_end(&call, state, status)) goto done;
  result = Py_NewRef(Py_None);
done:
  PyBuffer_Release(&indices);
  PyBuffer_Release(&values);
  activations_clear(&x);
  return result;
}

PyObject *core_decode(PyObject *self, PyObject *args, PyObject *kwargs) {
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
  if (!has_shape(state, &indices, "indices", 2, (int64_t[]){n, slots})) goto done;

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

PyObject *core_preactivations(PyObject *self, PyObject *args, PyObject *kwargs) {
  static char *keywords[] = {"model", "x", "out", NULL};
  const module_state *state = state_of(self);
  const core_object *core = core_of(self);
  PyObject *py_model, *py_x, *py_out, *result = NULL;
  activations x = {0};
  Py_buffer out = {0};
  int32_t model;
  core_call call;

  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO:preactivations", keywords, &py_model, &py_x, &py_out) ||
      !take_int32(state, py_model, "model", &model) || !activations_take(state, py_x, "x", &x) ||
      !take_shaped(state, py_out, "out", ELEMENT_FLOAT32, true, 2,
                   (int64_t[]){activations_rows(&x), usae_concepts(core->sae)}, &out))
    goto done;

  core_call_begin(&call);
  usae_status status = usae_preactivations(core->sae, model, &x.matrix, out.buf, &call.interrupt, &call.error);
  if (!core_call_end(&call, state, status)) goto done;
  result = Py_NewRef(Py_None);
done:
  PyBuffer_Release(&out);
  activations_clear(&x);
  return result;
}

PyObject *core_top_examples(PyObject *self, PyObject *args, PyObject *kwargs) {
  static char *keywords[] = {"model", "x", "tokens_per_image", "values", "tokens", "progress", NULL};
  const module_state *state = state_of(self);
  const core_object *core = core_of(self);
  PyObject *py_model, *py_x, *py_tokens_per_image, *py_values, *py_tokens, *progress = Py_None, *result = NULL;
  activations x = {0};
  Py_buffer values = {0}, tokens = {0};
  int64_t tokens_per_image;
  int32_t model;
  core_call call;

  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOOO|O:top_examples", keywords, &py_model, &py_x,
                                   &py_tokens_per_image, &py_values, &py_tokens, &progress) ||
      !take_int32(state, py_model, "model", &model) || !activations_take(state, py_x, "x", &x) ||
      !take_int(state, py_tokens_per_image, "tokens_per_image", 1, INT64_MAX, &tokens_per_image) ||
      !take_array(state, py_values, "values", ELEMENT_FLOAT32, true, &values) ||
      !take_array(state, py_tokens, "tokens", ELEMENT_INT64, true, &tokens))
    goto done;
  int64_t n = values.ndim == 2 ? values.shape[1] : 1;
  const int64_t examples[] = {usae_concepts(core->sae), n};
  if (!has_shape(state, &values, "values", 2, examples) || !has_shape(state, &tokens, "tokens", 2, examples)) goto done;

  core_call_begin_told(&call, progress);
  usae_status status = usae_top_examples(core->sae, model, &x.matrix, n, tokens_per_image, values.buf, tokens.buf,
                                         &call.interrupt, &call.error);
  if (!core_call_end(&call, state, status)) goto done;
  result = Py_NewRef(Py_None);
done:
  PyBuffer_Release(&tokens);
  PyBuffer_Release(&values);
  activations_clear(&x);
  return result;
}

/* --- Evaluation ----------------------------------------------------------------------------------------------------- */

typedef enum extent { EXTENT_PAIRS, EXTENT_MODELS, EXTENT_MODEL_CONCEPTS, EXTENT_PAIR_CONCEPTS, EXTENT_CONCEPTS } extent;

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
    OUTPUT(EXTENT_PAIR_CONCEPTS, ELEMENT_INT64, pair_cofire_counts),
    OUTPUT(EXTENT_CONCEPTS, ELEMENT_INT64, cofire_counts),
    OUTPUT(EXTENT_CONCEPTS, ELEMENT_INT64, union_counts),
    OUTPUT(EXTENT_MODEL_CONCEPTS, ELEMENT_FLOAT64, mean_activation),
    OUTPUT(EXTENT_MODEL_CONCEPTS, ELEMENT_FLOAT32, max_activation),
    OUTPUT(EXTENT_PAIR_CONCEPTS, ELEMENT_FLOAT64, code_products),
};
#undef OUTPUT
enum { OUTPUT_COUNT = sizeof outputs / sizeof outputs[0] };

static int64_t extent_count(extent extent, int64_t n_models, int64_t n_concepts) {
  int64_t count = n_models;
  switch (extent) {
  case EXTENT_PAIRS:
    return n_models * n_models; /* cannot overflow, because n_models is an int32 */
  case EXTENT_MODELS:
    return n_models;
  case EXTENT_MODEL_CONCEPTS:
    return __builtin_mul_overflow(n_models, n_concepts, &count) ? -1 : count;
  case EXTENT_PAIR_CONCEPTS:
    return __builtin_mul_overflow(n_models * n_models, n_concepts, &count) ? -1 : count;
  case EXTENT_CONCEPTS:
    return n_concepts;
  }
  return -1;
}

/* Takes the arrays of the mapping into `buffers` and `evaluation`. It does not check whether one array has two names. */
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

PyObject *core_evaluate(PyObject *self, PyObject *args, PyObject *kwargs) {
  static char *keywords[] = {"inputs", "threshold", "outputs", "progress", NULL};
  const module_state *state = state_of(self);
  const core_object *core = core_of(self);
  PyObject *py_inputs, *py_outputs, *progress = Py_None, *names = NULL, *result = NULL;
  activations_list inputs = {0};
  Py_buffer buffers[OUTPUT_COUNT] = {{0}};
  usae_evaluation evaluation = {.size = sizeof evaluation};
  double threshold;
  core_call call;

  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OdO|O:evaluate", keywords, &py_inputs, &threshold, &py_outputs,
                                   &progress))
    goto done;
  names = core_names(self, NULL);
  if (names == NULL || !activations_list_take(state, py_inputs, names, &inputs) ||
      !take_outputs(state, py_outputs, inputs.count, usae_concepts(core->sae), buffers, &evaluation))
    goto done;

  core_call_begin_told(&call, progress);
  usae_status status = usae_evaluate(core->sae, inputs.count, inputs.matrices, threshold, &evaluation, &call.interrupt,
                                     &call.error);
  if (!core_call_end(&call, state, status)) goto done;
  result = Py_NewRef(Py_None);
done:
  for (size_t o = 0; o < OUTPUT_COUNT; o++) PyBuffer_Release(&buffers[o]);
  activations_list_clear(&inputs);
  Py_XDECREF(names);
  return result;
}
