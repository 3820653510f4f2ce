#include "core.h"

/* Steps of data-parallel training: usae_shared_* of usae.h. */

PyObject *core_shared_begin(PyObject *self, PyObject *args, PyObject *kwargs) {
  static char *keywords[] = {"inputs", "rows", "encoder", NULL};
  const module_state *state = state_of(self);
  PyObject *py_inputs, *py_rows, *py_encoder, *result = NULL;
  step_batch batch = {0};
  usae_shared_opening opening = {.size = sizeof opening};
  core_call call;

  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO:shared_begin", keywords, &py_inputs, &py_rows, &py_encoder) ||
      !step_batch_take(self, py_inputs, py_rows, py_encoder, &batch))
    goto done;

  core_call_begin(&call);
  usae_status status = usae_shared_begin(core_of(self)->sae, batch.inputs.count, batch.inputs.matrices, batch.row_numbers,
                                         batch.n_rows, batch.encoder, &call.interrupt, &opening, &call.error);
  if (!core_call_end(&call, state, status)) goto done;
  result = Py_BuildValue("{s:i,s:L,s:L,s:K,s:K}", "encoder", (int)opening.encoder, "step", (long long)opening.step, "tokens",
                         (long long)opening.tokens, "fingerprint", (unsigned long long)opening.fingerprint, "present",
                         (unsigned long long)opening.present);
done:
  step_batch_clear(&batch);
  return result;
}

static PyObject *exchange_tuple(const usae_exchange *exchange) {
  return Py_BuildValue("(iiiOL)", (int)exchange->kind, (int)exchange->model, (int)exchange->tensor,
                       exchange->awaited ? Py_True : Py_False, (long long)exchange->count);
}

PyObject *core_shared_agree(PyObject *self, PyObject *args, PyObject *kwargs) {
  static char *keywords[] = {"tokens", "rank", NULL};
  const module_state *state = state_of(self);
  PyObject *py_tokens, *py_rank, *list = NULL, *result = NULL;
  Py_buffer tokens = {0};
  int64_t rank, count = 0;
  core_call call;

  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO:shared_agree", keywords, &py_tokens, &py_rank) ||
      !take_array(state, py_tokens, "tokens", ELEMENT_INT64, false, &tokens) ||
      !take_int(state, py_rank, "rank", 0, INT64_MAX, &rank))
    goto done;

  core_call_begin(&call);
  usae_status status =
      usae_shared_agree(core_of(self)->sae, array_count(&tokens), tokens.buf, rank, &count, &call.error);
  if (!core_call_end(&call, state, status)) goto done;

  list = PyList_New(count);
  if (list == NULL) goto done;
  for (int64_t i = 0; i < count; i++) {
    usae_exchange exchange = {.size = sizeof exchange};
    core_call_begin(&call);
    status = usae_shared_exchange(core_of(self)->sae, i, &exchange, &call.error);
    if (!core_call_end(&call, state, status)) goto done;
    PyObject *tuple = exchange_tuple(&exchange);
    if (tuple == NULL || PyList_SetItem(list, i, tuple) < 0) goto done;
  }
  result = Py_NewRef(list);
done:
  PyBuffer_Release(&tokens);
  Py_XDECREF(list);
  return result;
}

PyObject *core_shared_fill(PyObject *self, PyObject *args, PyObject *kwargs) {
  static char *keywords[] = {"number", "out", NULL};
  const module_state *state = state_of(self);
  PyObject *py_number, *py_out, *result = NULL;
  int64_t number;
  Py_buffer out = {0};
  core_call call;

  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO:shared_fill", keywords, &py_number, &py_out) ||
      !take_int(state, py_number, "number", 0, INT64_MAX, &number) ||
      !take_array(state, py_out, "out", ELEMENT_FLOAT32, true, &out))
    goto done;

  core_call_begin(&call);
  usae_status status =
      usae_shared_fill(core_of(self)->sae, number, out.buf, array_count(&out), &call.interrupt, &call.error);
  if (!core_call_end(&call, state, status)) goto done;
  result = Py_NewRef(Py_None);
done:
  PyBuffer_Release(&out);
  return result;
}

PyObject *core_shared_take(PyObject *self, PyObject *args, PyObject *kwargs) {
  static char *keywords[] = {"number", "sum", NULL};
  const module_state *state = state_of(self);
  PyObject *py_number, *py_sum, *result = NULL;
  int64_t number;
  Py_buffer sum = {0};
  core_call call;

  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO:shared_take", keywords, &py_number, &py_sum) ||
      !take_int(state, py_number, "number", 0, INT64_MAX, &number) ||
      !take_array(state, py_sum, "sum", ELEMENT_FLOAT32, false, &sum))
    goto done;

  core_call_begin(&call);
  usae_status status = usae_shared_take(core_of(self)->sae, number, sum.buf, array_count(&sum), &call.error);
  if (!core_call_end(&call, state, status)) goto done;
  result = Py_NewRef(Py_None);
done:
  PyBuffer_Release(&sum);
  return result;
}

/* Arrays by the number of the exchange. None becomes NULL. Zero it before, and clear it after. */
typedef struct sum_list {
  Py_buffer *buffers;
  const float **sums;
  int64_t *counts;
  Py_ssize_t count;
} sum_list;

static bool sums_take(const module_state *state, PyObject *sequence, sum_list *out) {
  bool ok = false;
  PyObject *tuple = PySequence_Tuple(sequence);
  if (tuple == NULL) goto done;
  Py_ssize_t count = PyTuple_Size(tuple);
  out->buffers = PyMem_Calloc((size_t)count + 1, sizeof *out->buffers);
  out->sums = PyMem_Calloc((size_t)count + 1, sizeof *out->sums);
  out->counts = PyMem_Calloc((size_t)count + 1, sizeof *out->counts);
  if (out->buffers == NULL || out->sums == NULL || out->counts == NULL) {
    PyErr_NoMemory();
    goto done;
  }
  out->count = count;
  for (Py_ssize_t i = 0; i < count; i++) {
    PyObject *item = PyTuple_GetItem(tuple, i);
    char name[32];
    PyOS_snprintf(name, sizeof name, "sums[%lld]", (long long)i);
    if (item == Py_None) continue;
    if (!take_array(state, item, name, ELEMENT_FLOAT32, false, &out->buffers[i])) goto done;
    out->sums[i] = out->buffers[i].buf;
    out->counts[i] = array_count(&out->buffers[i]);
  }
  ok = true;
done:
  Py_XDECREF(tuple);
  return ok;
}

static void sums_clear(sum_list *list) {
  for (Py_ssize_t i = 0; i < list->count; i++) PyBuffer_Release(&list->buffers[i]);
  PyMem_Free(list->counts);
  PyMem_Free(list->sums);
  PyMem_Free(list->buffers);
}

PyObject *core_shared_finish(PyObject *self, PyObject *args, PyObject *kwargs) {
  static char *keywords[] = {"sums", NULL};
  const module_state *state = state_of(self);
  PyObject *py_sums, *result = NULL;
  sum_list sums = {0};
  double *losses = NULL;
  usae_step_report report = {.size = sizeof report};
  core_call call;

  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:shared_finish", keywords, &py_sums) || !sums_take(state, py_sums, &sums))
    goto done;
  int32_t n_models = usae_model_count(core_of(self)->sae);
  losses = losses_alloc(self);
  if (losses == NULL) goto done;

  core_call_begin(&call);
  usae_status status =
      usae_shared_finish(core_of(self)->sae, sums.count, sums.sums, sums.counts, &report, losses, &call.error);
  if (!core_call_end(&call, state, status)) goto done;
  result = report_dict(&report, losses, n_models);
  remember(&core_of(self)->last_report, result);
done:
  PyMem_Free(losses);
  sums_clear(&sums);
  return result;
}

PyObject *core_shared_abandon(PyObject *self, PyObject *Py_UNUSED(ignored)) {
  const module_state *state = state_of(self);
  core_call call;

  core_call_begin(&call);
  usae_status status = usae_shared_abandon(core_of(self)->sae, &call.error);
  if (!core_call_end(&call, state, status)) return NULL;
  return Py_NewRef(Py_None);
}
