#include "core.h"

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

PyObject *core_last_report(PyObject *self, void *Py_UNUSED(closure)) {
  PyObject *report = core_of(self)->last_report;
  return Py_NewRef(report != NULL ? report : Py_None);
}

PyObject *report_dict(const usae_step_report *report, const double *losses, int32_t n_models) {
  PyObject *list = PyList_New(n_models), *result = NULL;
  if (list == NULL) goto done;
  for (int32_t j = 0; j < n_models; j++) {
    PyObject *loss = PyFloat_FromDouble(losses[j]);
    if (loss == NULL || PyList_SetItem(list, j, loss) < 0) goto done;
  }
  result = Py_BuildValue("{s:i,s:L,s:d,s:d,s:d,s:d,s:d,s:L,s:L,s:(LLLL),s:O}", "encoder", (int)report->encoder, "step",
                         (long long)report->step, "loss", report->loss, "auxiliary_loss", report->auxiliary_loss, "l0",
                         report->l0, "learning_rate", report->learning_rate, "gradient_norm", report->gradient_norm,
                         "dead", (long long)report->dead, "prefix", (long long)report->prefix, "screening",
                         (long long)report->screened_tokens, (long long)report->screened_candidates,
                         (long long)report->screened_computed, (long long)report->screened_fallbacks, "losses", list);
done:
  Py_XDECREF(list);
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
  } else if (out->inputs.count > 0) {
    out->n_rows = activations_rows(&out->inputs.items[0]);
  }
  out->losses = PyMem_Calloc((size_t)out->inputs.count + 1, sizeof *out->losses);
  if (out->losses == NULL) PyErr_NoMemory();
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
