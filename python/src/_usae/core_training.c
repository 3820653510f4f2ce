#include "core.h"

#include <math.h>

PyObject *core_set_plan(PyObject *self, PyObject *args, PyObject *kwargs) {
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

PyObject *core_set_frozen(PyObject *self, PyObject *args, PyObject *kwargs) {
  static char *keywords[] = {"model", "frozen", NULL};
  const module_state *state = state_of(self);
  PyObject *py_model, *py_frozen, *result = NULL;
  int64_t model, frozen;
  core_call call;

  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO:set_frozen", keywords, &py_model, &py_frozen) ||
      !take_int(state, py_model, "model", 0, INT32_MAX, &model) || !take_int(state, py_frozen, "frozen", 0, 1, &frozen))
    goto done;

  core_call_begin(&call);
  usae_status status = usae_set_frozen(core_of(self)->sae, (int32_t)model, (int32_t)frozen, &call.error);
  if (!core_call_end(&call, state, status)) goto done;
  result = Py_NewRef(Py_None);
done:
  return result;
}

PyObject *core_last_report(PyObject *self, void *Py_UNUSED(closure)) {
  PyObject *report = core_of(self)->last_report;
  return Py_NewRef(report != NULL ? report : Py_None);
}

double *losses_alloc(PyObject *self) {
  usae_recipe recipe = {.size = sizeof recipe};
  int64_t n_models = usae_model_count(core_of(self)->sae), n_encoders = 1;
  if (usae_current_recipe(core_of(self)->sae, &recipe, NULL) == USAE_OK && recipe.encoded_models != USAE_ENCODED_ONE)
    n_encoders = recipe.encoded_models == USAE_ENCODED_TWO ? 2 : n_models;
  double *losses = PyMem_Calloc((size_t)(n_models * n_encoders) + 1, sizeof *losses);
  if (losses == NULL) PyErr_NoMemory();
  return losses;
}

static PyObject *list_of_floats(const double *numbers, int32_t count) {
  PyObject *list = PyList_New(count);
  for (int32_t i = 0; list != NULL && i < count; i++) {
    PyObject *number = PyFloat_FromDouble(numbers[i]);
    if (number == NULL || PyList_SetItem(list, i, number) < 0) Py_CLEAR(list);
  }
  return list;
}

PyObject *report_dict(const usae_step_report *report, const double *losses, int32_t n_models) {
  PyObject *list = PyList_New(report->n_encoders), *encoders = PyList_New(0), *result = NULL;
  if (list == NULL || encoders == NULL) goto done;
  for (int32_t e = 0, next = 0; e < report->n_encoders; e++) {
    PyObject *row = list_of_floats(losses + (int64_t)e * n_models, n_models);
    if (row == NULL || PyList_SetItem(list, e, row) < 0) goto done;
    while (next + 1 < n_models && (next == report->encoder || isnan(losses[next]))) next++; /* NaN: not of the batch */
    int32_t model = e == 0 ? report->encoder : e == 1 ? report->second_encoder : next;
    if (e > 0) next = model + 1;
    PyObject *index = PyLong_FromLong(model);
    int status = index == NULL ? -1 : PyList_Append(encoders, index);
    Py_XDECREF(index);
    if (status < 0) goto done;
  }
  result = Py_BuildValue("{s:O,s:L,s:d,s:d,s:d,s:d,s:d,s:d,s:L,s:L,s:(LLLL),s:O}", "encoders", encoders, "step",
                         (long long)report->step, "loss", report->loss, "auxiliary_loss", report->auxiliary_loss,
                         "agreement", report->agreement, "l0", report->l0, "learning_rate", report->learning_rate,
                         "gradient_norm", report->gradient_norm, "dead", (long long)report->dead, "prefix",
                         (long long)report->prefix, "screening", (long long)report->screened_tokens,
                         (long long)report->screened_candidates, (long long)report->screened_computed,
                         (long long)report->screened_fallbacks, "losses", list);
done:
  Py_XDECREF(encoders);
  Py_XDECREF(list);
  return result;
}

PyObject *core_encoders(PyObject *self, PyObject *args, PyObject *kwargs) {
  static char *keywords[] = {"encoder", "present", NULL};
  const module_state *state = state_of(self);
  PyObject *py_encoder, *py_present, *list = NULL, *result = NULL;
  int32_t encoder, count = 0, *encoders = NULL;
  Py_buffer present = {0};
  core_call call;

  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO:encoders", keywords, &py_encoder, &py_present) ||
      !take_int32(state, py_encoder, "encoder", &encoder) ||
      !take_array(state, py_present, "present", ELEMENT_INT32, false, &present))
    goto done;
  if (array_count(&present) > INT32_MAX) {
    PyErr_Format(state->invalid_input, "present: expected at most %d numbers, got more", INT32_MAX);
    goto done;
  }
  encoders = PyMem_Calloc((size_t)usae_model_count(core_of(self)->sae) + 1, sizeof *encoders);
  if (encoders == NULL) {
    PyErr_NoMemory();
    goto done;
  }

  core_call_begin(&call);
  usae_status status = usae_batch_encoders(core_of(self)->sae, (int32_t)array_count(&present), present.buf, encoder, encoders,
                                           &count, &call.error);
  if (!core_call_end(&call, state, status)) goto done;
  list = PyList_New(count);
  for (int32_t e = 0; list != NULL && e < count; e++) {
    PyObject *index = PyLong_FromLong(encoders[e]);
    if (index == NULL || PyList_SetItem(list, e, index) < 0) goto done;
  }
  result = Py_XNewRef(list);
done:
  Py_XDECREF(list);
  PyMem_Free(encoders);
  PyBuffer_Release(&present);
  return result;
}

bool step_batch_take(PyObject *self, PyObject *inputs, PyObject *rows, PyObject *encoder, step_batch *out) {
  static const int64_t nothing = 0;
  const module_state *state = state_of(self);
  out->names = core_names(self, NULL);
  if (out->names == NULL || !take_int32(state, encoder, "encoder", &out->encoder) ||
      !activations_list_take(state, inputs, out->names, &out->inputs))
    return false;
  if (rows != Py_None) {
    if (!take_array(state, rows, "rows", ELEMENT_INT64, false, &out->rows)) return false;
    out->n_rows = array_count(&out->rows);
    out->row_numbers = out->rows.buf != NULL ? out->rows.buf : &nothing; /* NULL would mean all rows */
  } else {
    for (int32_t i = 0; i < out->inputs.count && out->n_rows == 0; i++) /* one that the batch does not have has no rows */
      out->n_rows = activations_rows(&out->inputs.items[i]);
  }
  out->losses = losses_alloc(self);
  return out->losses != NULL;
}

void step_batch_clear(step_batch *batch) {
  PyMem_Free(batch->losses);
  PyBuffer_Release(&batch->rows);
  activations_list_clear(&batch->inputs);
  Py_XDECREF(batch->names);
}

PyObject *core_step(PyObject *self, PyObject *args, PyObject *kwargs) {
  static char *keywords[] = {"inputs", "rows", "encoder", NULL};
  const module_state *state = state_of(self);
  PyObject *py_inputs, *py_rows, *py_encoder, *result = NULL;
  step_batch batch = {0};
  usae_step_report report = {.size = sizeof report};
  core_call call;

  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO:step", keywords, &py_inputs, &py_rows, &py_encoder) ||
      !step_batch_take(self, py_inputs, py_rows, py_encoder, &batch))
    goto done;

  core_call_begin(&call);
  usae_status status = usae_step(core_of(self)->sae, batch.inputs.count, batch.inputs.matrices, batch.row_numbers,
                                 batch.n_rows, batch.encoder, USAE_STEP_TRAIN, &call.interrupt, &report, batch.losses,
                                 &call.error);
  if (!core_call_end(&call, state, status)) goto done;
  result = report_dict(&report, batch.losses, batch.inputs.count);
  remember(&core_of(self)->last_report, result);
done:
  step_batch_clear(&batch);
  return result;
}

PyObject *core_gradients(PyObject *self, PyObject *args, PyObject *kwargs) {
  static char *keywords[] = {"inputs", "rows", "encoder", "tensors", NULL};
  const module_state *state = state_of(self);
  PyObject *py_inputs, *py_rows, *py_encoder, *py_tensors, *result = NULL;
  step_batch batch = {0};
  tensor_list list = {0};
  usae_step_report report = {.size = sizeof report};
  core_call call;

  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOO:gradients", keywords, &py_inputs, &py_rows, &py_encoder, &py_tensors) ||
      !step_batch_take(self, py_inputs, py_rows, py_encoder, &batch) || !tensors_take(state, py_tensors, true, &list))
    goto done;

  core_call_begin(&call);
  usae_status status = usae_gradients(core_of(self)->sae, batch.inputs.count, batch.inputs.matrices, batch.row_numbers,
                                      batch.n_rows, batch.encoder, list.count, list.tensors, &call.interrupt, &report,
                                      batch.losses, &call.error);
  if (!core_call_end(&call, state, status)) goto done;
  result = report_dict(&report, batch.losses, batch.inputs.count);
done:
  tensors_clear(&list);
  step_batch_clear(&batch);
  return result;
}

PyObject *core_check_finite(PyObject *self, PyObject *args, PyObject *kwargs) {
  static char *keywords[] = {"inputs", NULL};
  const module_state *state = state_of(self);
  PyObject *py_inputs, *names = NULL, *result = NULL;
  activations_list inputs = {0};
  core_call call;

  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:check_finite", keywords, &py_inputs)) goto done;
  names = core_names(self, NULL);
  if (names == NULL || !activations_list_take(state, py_inputs, names, &inputs)) goto done;

  core_call_begin(&call);
  usae_status status = usae_check_finite(core_of(self)->sae, inputs.count, inputs.matrices, &call.interrupt, &call.error);
  if (!core_call_end(&call, state, status)) goto done;
  result = Py_NewRef(Py_None);
done:
  activations_list_clear(&inputs);
  Py_XDECREF(names);
  return result;
}
