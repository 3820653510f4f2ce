#include "core.h"

/* --- Creation and deletion ----------------------------------------------------------------------------------------- */

/* Takes an integer, or for a mean number of active concepts a float. The core checks the range of floats. */
static bool take_k(const module_state *state, PyObject *object, double *out) {
  int64_t whole = 0;
  if (PyFloat_Check(object)) {
    *out = PyFloat_AsDouble(object);
    return true;
  }
  if (!take_int(state, object, "k", 1, INT64_MAX, &whole)) return false;
  *out = (double)whole;
  return true;
}

static PyObject *core_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
  static char *keywords[] = {"n_concepts", "k", "seed", "n_threads", "recipe", NULL};
  const module_state *state = PyType_GetModuleState(type);
  PyObject *py_n_concepts, *py_k, *py_seed, *py_n_threads, *py_recipe;
  int64_t n_concepts;
  double k;
  uint64_t seed;
  int32_t n_threads;
  usae_recipe recipe;
  usae_sae *sae = NULL;
  core_object *self = NULL;
  core_call call;

  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOOO:Core", keywords, &py_n_concepts, &py_k, &py_seed,
                                   &py_n_threads, &py_recipe) ||
      !take_int(state, py_n_concepts, "n_concepts", 1, INT64_MAX, &n_concepts) ||
      !take_k(state, py_k, &k) || !take_seed(state, py_seed, &seed) ||
      !take_int32(state, py_n_threads, "n_threads", &n_threads) || !take_recipe(state, py_recipe, &recipe))
    goto done;

  core_call_begin(&call);
  usae_status status = usae_create(n_concepts, k, seed, n_threads, &recipe, &sae, &call.error);
  if (!core_call_end(&call, state, status)) goto done;

  self = (core_object *)PyType_GenericAlloc(type, 0);
  if (self == NULL) goto done;
  self->sae = sae;
  sae = NULL;
done:
  usae_destroy(sae);
  return (PyObject *)self;
}

static int core_traverse(PyObject *self, visitproc visit, void *arg) {
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(core_of(self)->last_report);
  return 0;
}

static int core_clear(PyObject *self) {
  Py_CLEAR(core_of(self)->last_report);
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

  remember(&core->last_report, NULL);
  result = Py_NewRef(Py_None);
done:
  PyMem_Free(widths);
  Py_XDECREF(tuple);
  names_clear(&names);
  return result;
}

static PyObject *core_initialize_from_parts(PyObject *self, PyObject *args, PyObject *kwargs) {
  static char *keywords[] = {"names", "inputs", NULL};
  const module_state *state = state_of(self);
  core_object *core = core_of(self);
  PyObject *py_names, *py_inputs, *result = NULL;
  name_list names = {0};
  activations_list inputs = {0};
  core_call call;

  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO:initialize_from_parts", keywords, &py_names, &py_inputs) ||
      !names_take(state, py_names, &names) || !activations_list_take(state, py_inputs, names.tuple, &inputs))
    goto done;
  if (names.count == 0 || inputs.count % names.count != 0) {
    PyErr_Format(state->invalid_input, "inputs: expected one for each part and each of %d names, got %d", (int)names.count,
                 (int)inputs.count);
    goto done;
  }

  core_call_begin(&call);
  usae_status status = usae_initialize_from_parts(core->sae, names.count, names.strings, inputs.count / names.count,
                                                  inputs.matrices, &call.interrupt, &call.error);
  if (!core_call_end(&call, state, status)) goto done;

  remember(&core->last_report, NULL);
  result = Py_NewRef(Py_None);
done:
  activations_list_clear(&inputs);
  names_clear(&names);
  return result;
}

/* --- The type ------------------------------------------------------------------------------------------------------ */

#define METHOD(name, arguments, words)                                                                    \
  {#name, (PyCFunction)(void (*)(void))core_##name, METH_VARARGS | METH_KEYWORDS, #name "($self, " arguments ")\n--\n\n" words}
static PyMethodDef methods[] = {
    METHOD(initialize, "names, widths", "Give it its models and seed their parameters without data."),
    METHOD(initialize_from_parts, "names, inputs", "The same, with standardisation and dictionaries taken from data."),
    METHOD(describe_sample, "model, center, deviation", "What standardisation was computed from, or None."),
    METHOD(set_plan, "total_steps, dead_tokens", "Change the length of the planned run."),
    METHOD(set_frozen, "model, frozen", "Say whether steps leave a model as it is: 1, or 0."),
    METHOD(encoders, "encoder, present", "The models that the next step encodes."),
    METHOD(step, "inputs, rows, encoder", "One optimisation step; its report as a dict."),
    METHOD(gradients, "inputs, rows, encoder, tensors", "The gradients of a step, which is not done; its report as a dict."),
    METHOD(shared_begin, "inputs, rows, encoder", "Begin a step that several processes share."),
    METHOD(shared_agree, "tokens, rank", "Take the tokens of each process; what is to be exchanged."),
    METHOD(shared_fill, "number, out", "This process's part of an exchange."),
    METHOD(shared_take, "number, sum", "The sum of an exchange that the next part depends on."),
    METHOD(shared_finish, "sums", "Update from the sums; the step's report as a dict."),
    {"shared_abandon", core_shared_abandon, METH_NOARGS,
     "shared_abandon($self)\n--\n\nEnd a step that was begun, if there is one."},
    METHOD(check_finite, "inputs", "Look at every element of the activations."),
    METHOD(encode, "model, x, values, indices", "Activations [n, width] to codes [n, slots]."),
    METHOD(decode, "model, values, indices, out", "Codes [n, slots] to activations [n, width]."),
    METHOD(preactivations, "model, x, out", "What ReLU and TopK would be given, [n, n_concepts]."),
    METHOD(evaluate, "inputs, threshold, outputs", "Encode and decode through every pair of models."),
    METHOD(top_examples, "model, x, tokens_per_image, values, tokens", "Tokens that fire each concept most, [n_concepts, n]."),
    METHOD(objective, "model, concept, objective, power, token, n_views, x, values, gradient",
           "How much activations show a concept, [n_views], and the gradient of the mean, [n, width]."),
    METHOD(tensor_shape, "model, tensor", "Shape of a parameter or part of the training state."),
    METHOD(tensors_read, "tensors", "Copy several out, as they are at one moment; the steps done then."),
    METHOD(tensors_write, "tensors", "Copy several in, all or none."),
    {"__reduce__", core_reduce, METH_NOARGS, "Refuses: the core is saved through its tensors."},
    {NULL, NULL, 0, NULL},
};
#undef METHOD

static PyGetSetDef properties[] = {
    {"n_concepts", core_n_concepts, NULL, "Dimensions of the code.", NULL},
    {"k", core_k, NULL, "Active concepts of a token.", NULL},
    {"slots", core_slots, NULL, "Most active concepts of a token.", NULL},
    {"seed", core_seed, NULL, "Of everything random.", NULL},
    {"names", core_names, NULL, "Names of the models; none before initialisation.", NULL},
    {"widths", core_widths, NULL, "Widths of the models.", NULL},
    {"recipe", core_recipe, NULL, "The recipe as it is now, by the names of its fields.", NULL},
    {"step_count", core_step_count, core_set_step_count, "Training steps done.", NULL},
    {"last_report", core_last_report, NULL, "What the newest training step returned, or None.", NULL},
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
