#include "core.h"

static element tensor_element(int32_t tensor) {
  return tensor == USAE_SILENT_TOKENS || tensor == USAE_COUNTERS ? ELEMENT_INT64 : ELEMENT_FLOAT32;
}

PyObject *core_tensor_shape(PyObject *self, PyObject *args, PyObject *kwargs) {
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

/* --- Lists of tensors: (model, tensor, array) ---------------------------------------------------------------------- */

static bool take_tensor(const module_state *state, PyObject *item, Py_ssize_t number, bool writable, usae_tensor *tensor,
                        Py_buffer *buffer) {
  char name[48];
  PyOS_snprintf(name, sizeof name, "tensors[%lld]", (long long)number);
  if (!PyTuple_Check(item) || PyTuple_Size(item) != 3) {
    PyErr_Format(state->invalid_input, "%s: expected (model, tensor, array), got %R", name, (PyObject *)Py_TYPE(item));
    return false;
  }
  if (!take_int32(state, PyTuple_GetItem(item, 0), "model", &tensor->model) ||
      !take_int32(state, PyTuple_GetItem(item, 1), "tensor", &tensor->tensor) ||
      !take_array(state, PyTuple_GetItem(item, 2), name, tensor_element(tensor->tensor), writable, buffer))
    return false;
  tensor->data = buffer->buf;
  tensor->count = array_count(buffer);
  return true;
}

bool tensors_take(const module_state *state, PyObject *sequence, bool writable, tensor_list *out) {
  bool ok = false;
  PyObject *tuple = PySequence_Tuple(sequence);
  if (tuple == NULL) goto done;
  Py_ssize_t count = PyTuple_Size(tuple);
  out->buffers = PyMem_Calloc((size_t)count + 1, sizeof *out->buffers);
  out->tensors = PyMem_Calloc((size_t)count + 1, sizeof *out->tensors);
  if (out->buffers == NULL || out->tensors == NULL) {
    PyErr_NoMemory();
    goto done;
  }
  out->count = count;
  for (Py_ssize_t i = 0; i < count; i++)
    if (!take_tensor(state, PyTuple_GetItem(tuple, i), i, writable, &out->tensors[i], &out->buffers[i])) goto done;
  ok = true;
done:
  Py_XDECREF(tuple);
  return ok;
}

void tensors_clear(tensor_list *list) {
  for (Py_ssize_t i = 0; i < list->count; i++) PyBuffer_Release(&list->buffers[i]);
  PyMem_Free(list->tensors);
  PyMem_Free(list->buffers);
}

PyObject *core_tensors_read(PyObject *self, PyObject *args, PyObject *kwargs) {
  static char *keywords[] = {"tensors", NULL};
  const module_state *state = state_of(self);
  PyObject *py_tensors, *result = NULL;
  tensor_list list = {0};
  int64_t step = 0;
  core_call call;

  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:tensors_read", keywords, &py_tensors) ||
      !tensors_take(state, py_tensors, true, &list))
    goto done;

  core_call_begin(&call);
  usae_status status = usae_tensors_read(core_of(self)->sae, list.count, list.tensors, &step, &call.error);
  if (!core_call_end(&call, state, status)) goto done;
  result = PyLong_FromLongLong((long long)step);
done:
  tensors_clear(&list);
  return result;
}

PyObject *core_tensors_write(PyObject *self, PyObject *args, PyObject *kwargs) {
  static char *keywords[] = {"tensors", NULL};
  const module_state *state = state_of(self);
  PyObject *py_tensors, *result = NULL;
  tensor_list list = {0};
  core_call call;

  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:tensors_write", keywords, &py_tensors) ||
      !tensors_take(state, py_tensors, false, &list))
    goto done;

  core_call_begin(&call);
  usae_status status = usae_tensors_write(core_of(self)->sae, list.count, list.tensors, &call.error);
  if (!core_call_end(&call, state, status)) goto done;
  result = Py_NewRef(Py_None);
done:
  tensors_clear(&list);
  return result;
}
