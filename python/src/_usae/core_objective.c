#include "core.h"

PyObject *core_objective(PyObject *self, PyObject *args, PyObject *kwargs) {
  static char *keywords[] = {"model", "concept", "objective", "power", "token", "n_views", "x", "values", "gradient", NULL};
  const module_state *state = state_of(self);
  const core_object *core = core_of(self);
  PyObject *py_model, *py_concept, *py_objective, *py_token, *py_n_views, *py_x, *py_values, *py_gradient, *result = NULL;
  activations x = {0};
  Py_buffer values = {0}, gradient = {0};
  int32_t model, objective;
  int64_t concept, token, n_views;
  double power;
  core_call call;

  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOdOOOOO:objective", keywords, &py_model, &py_concept, &py_objective,
                                   &power, &py_token, &py_n_views, &py_x, &py_values, &py_gradient) ||
      !take_int32(state, py_model, "model", &model) ||
      !take_int(state, py_concept, "concept", 0, usae_concepts(core->sae) - 1, &concept) ||
      !take_int32(state, py_objective, "objective", &objective) ||
      !take_int(state, py_token, "token", -1, INT64_MAX, &token) ||
      !take_int(state, py_n_views, "n_views", 1, INT64_MAX, &n_views) ||
      !activations_take(state, py_x, "x", &x))
    goto done;
  const int64_t of_values[] = {n_views}, of_gradient[] = {activations_rows(&x), x.matrix.columns};
  if (!take_shaped(state, py_values, "values", ELEMENT_FLOAT64, true, 1, of_values, &values) ||
      !take_shaped(state, py_gradient, "gradient", ELEMENT_FLOAT32, true, 2, of_gradient, &gradient))
    goto done;

  core_call_begin(&call);
  usae_status status = usae_objective(core->sae, model, concept, objective, power, token, n_views, &x.matrix, values.buf,
                                      gradient.buf, &call.interrupt, &call.error);
  if (!core_call_end(&call, state, status)) goto done;
  result = Py_NewRef(Py_None);
done:
  PyBuffer_Release(&gradient);
  PyBuffer_Release(&values);
  activations_clear(&x);
  return result;
}
