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

PyObject *core_tensor_read(PyObject *self, PyObject *args, PyObject *kwargs) {
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

PyObject *core_tensor_write(PyObject *self, PyObject *args, PyObject *kwargs) {
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
