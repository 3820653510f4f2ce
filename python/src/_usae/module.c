#include "module.h"

static const module_state *state_of(PyObject *module) { return PyModule_GetState(module); }

/* --- Functions ----------------------------------------------------------------------------------------------------- */

static PyObject *shuffled_rows(PyObject *module, PyObject *args, PyObject *kwargs) {
  static char *keywords[] = {"seed", "n_rows", "position", "out", NULL};
  const module_state *state = state_of(module);
  PyObject *py_seed, *py_n_rows, *py_position, *py_out, *result = NULL;
  uint64_t seed;
  int64_t n_rows, position;
  Py_buffer out = {0};
  core_call call;

  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOO:shuffled_rows", keywords, &py_seed, &py_n_rows, &py_position,
                                   &py_out) ||
      !take_seed(state, py_seed, &seed) || !take_int(state, py_n_rows, "n_rows", 0, INT64_MAX, &n_rows) ||
      !take_int(state, py_position, "position", 0, INT64_MAX, &position) ||
      !take_array(state, py_out, "out", ELEMENT_INT64, true, &out))
    goto done;

  core_call_begin(&call);
  usae_status status = usae_shuffled_rows(seed, n_rows, position, array_count(&out), out.buf, &call.error);
  if (!core_call_end(&call, state, status)) goto done;
  result = Py_NewRef(Py_None);
done:
  PyBuffer_Release(&out);
  return result;
}

static PyObject *set_threads(PyObject *module, PyObject *args, PyObject *kwargs) {
  static char *keywords[] = {"n_threads", NULL};
  const module_state *state = state_of(module);
  PyObject *py_n_threads, *result = NULL;
  int32_t n_threads;
  core_call call;

  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:set_threads", keywords, &py_n_threads) ||
      !take_int32(state, py_n_threads, "n_threads", &n_threads))
    goto done;

  core_call_begin(&call);
  usae_status status = usae_set_threads(n_threads, &call.error);
  if (!core_call_end(&call, state, status)) goto done;
  result = Py_NewRef(Py_None);
done:
  return result;
}

static PyObject *threads(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored)) {
  int32_t count;
  Py_BEGIN_ALLOW_THREADS
  count = usae_threads();
  Py_END_ALLOW_THREADS
  return PyLong_FromLong(count);
}

static PyObject *core_words(const char *(*words)(void)) {
  const char *text;
  Py_BEGIN_ALLOW_THREADS
  text = words();
  Py_END_ALLOW_THREADS
  return PyUnicode_FromString(text);
}

static PyObject *kernels(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored)) { return core_words(usae_kernels); }
static PyObject *blas(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored)) { return core_words(usae_blas); }
static PyObject *version(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored)) { return core_words(usae_version); }

static PyMethodDef functions[] = {
    {"shuffled_rows", (PyCFunction)(void (*)(void))shuffled_rows, METH_VARARGS | METH_KEYWORDS,
     "shuffled_rows($module, seed, n_rows, position, out)\n--\n\nA part of the endless sequence of shuffled row numbers."},
    {"rfft2", (PyCFunction)(void (*)(void))fourier_rfft2, METH_VARARGS | METH_KEYWORDS,
     "rfft2($module, image, re, im, n_threads)\n--\n\nThe half spectra of real images, as numpy.fft.rfft2."},
    {"irfft2", (PyCFunction)(void (*)(void))fourier_irfft2, METH_VARARGS | METH_KEYWORDS,
     "irfft2($module, re, im, image, n_threads)\n--\n\nThe images of half spectra, as numpy.fft.irfft2."},
    {"crop_resize", (PyCFunction)(void (*)(void))crop_resize, METH_VARARGS | METH_KEYWORDS,
     "crop_resize($module, image, boxes, out, mean, std, n_threads)\n--\n\nBoxes of an image as a model looks at them."},
    {"recipe_fields", recipe_fields, METH_NOARGS,
     "recipe_fields($module)\n--\n\nWhat the core knows of each field of a recipe, by name."},
    {"recipe_preset", recipe_preset, METH_O,
     "recipe_preset($module, preset)\n--\n\nA recipe that the core brings, as a dict."},
    {"set_threads", (PyCFunction)(void (*)(void))set_threads, METH_VARARGS | METH_KEYWORDS,
     "set_threads($module, n_threads)\n--\n\nSet the process-wide default; 0 goes back to the number of cores."},
    {"threads", threads, METH_NOARGS, "threads($module)\n--\n\nThe process-wide default number of threads."},
    {"kernels", kernels, METH_NOARGS, "kernels($module)\n--\n\nThe instruction set in use."},
    {"blas", blas, METH_NOARGS, "blas($module)\n--\n\nOpenBLAS's description of itself."},
    {"version", version, METH_NOARGS, "version($module)\n--\n\nThe version of the core."},
    {NULL, NULL, 0, NULL},
};

/* --- Constants ----------------------------------------------------------------------------------------------------- */

#define CONSTANT(name) {#name, USAE_##name}
static const struct {
  const char *name;
  long value;
} constants[] = {
    CONSTANT(MOST_PREFIXES),
    CONSTANT(PRESET_DEFAULT),
    CONSTANT(PRESET_PUBLISHED),
    CONSTANT(IMAGE_PHASE),
    CONSTANT(IMAGE_SPECTRUM),
    CONSTANT(IMAGE_PIXELS),
    CONSTANT(ASCENT_NADAM),
    CONSTANT(ASCENT_ADAM),
    CONSTANT(OBJECTIVE_ALIGNMENT),
    CONSTANT(OBJECTIVE_PREACTIVATION),
    CONSTANT(OBJECTIVE_CODE),
    CONSTANT(OBJECTIVE_LOG_SUM_EXP),
    CONSTANT(EXCHANGE_MEANS),
    CONSTANT(EXCHANGE_COVARIANCE),
    CONSTANT(EXCHANGE_RESIDUAL_MEANS),
    CONSTANT(EXCHANGE_SPREADS),
    CONSTANT(EXCHANGE_RESTARTS),
    CONSTANT(EXCHANGE_GRADIENT),
    CONSTANT(EXCHANGE_SUMMARY),
    CONSTANT(EXCHANGE_UPPER_HALVES),
    CONSTANT(EXCHANGE_LOWER_HALVES),
    CONSTANT(EXCHANGE_TIES),
    CONSTANT(MEAN),
    CONSTANT(SCALE),
    CONSTANT(ENCODER_WEIGHT),
    CONSTANT(ENCODER_BIAS),
    CONSTANT(BN_WEIGHT),
    CONSTANT(BN_BIAS),
    CONSTANT(BN_RUNNING_MEAN),
    CONSTANT(BN_RUNNING_VAR),
    CONSTANT(DICTIONARY),
    CONSTANT(THRESHOLD),
    CONSTANT(MEAN_REST),
    CONSTANT(THRESHOLD_REST),
    CONSTANT(FIRST_MOMENT),
    CONSTANT(SECOND_MOMENT),
    CONSTANT(GRADIENT),
    CONSTANT(SILENT_TOKENS),
    CONSTANT(EFFECTIVE_DIMENSIONS),
    CONSTANT(COUNTERS),
};
#undef CONSTANT

/* --- The module ---------------------------------------------------------------------------------------------------- */

static bool import_errors(module_state *state) {
  PyObject *errors = PyImport_ImportModule("usae.errors");
  bool ok = errors != NULL && (state->error = PyObject_GetAttrString(errors, "UsaeError")) != NULL &&
            (state->invalid_input = PyObject_GetAttrString(errors, "InvalidInputError")) != NULL &&
            (state->not_initialized = PyObject_GetAttrString(errors, "NotInitializedError")) != NULL &&
            (state->out_of_memory = PyObject_GetAttrString(errors, "UsaeMemoryError")) != NULL;
  Py_XDECREF(errors);
  return ok;
}

static int module_exec(PyObject *module) {
  module_state *state = PyModule_GetState(module);
  if (!import_errors(state)) return -1;
  state->core_type = PyType_FromModuleAndSpec(module, &core_spec, NULL);
  if (state->core_type == NULL || PyModule_AddObjectRef(module, "Core", state->core_type) < 0) return -1;
  state->maximizer_type = PyType_FromModuleAndSpec(module, &maximizer_spec, NULL);
  if (state->maximizer_type == NULL || PyModule_AddObjectRef(module, "Maximizer", state->maximizer_type) < 0) return -1;
  for (size_t i = 0; i < sizeof constants / sizeof constants[0]; i++)
    if (PyModule_AddIntConstant(module, constants[i].name, constants[i].value) < 0) return -1;
  return 0;
}

static int module_traverse(PyObject *module, visitproc visit, void *arg) {
  module_state *state = PyModule_GetState(module);
  Py_VISIT(state->core_type);
  Py_VISIT(state->maximizer_type);
  Py_VISIT(state->error);
  Py_VISIT(state->invalid_input);
  Py_VISIT(state->not_initialized);
  Py_VISIT(state->out_of_memory);
  return 0;
}

static int module_clear(PyObject *module) {
  module_state *state = PyModule_GetState(module);
  Py_CLEAR(state->core_type);
  Py_CLEAR(state->maximizer_type);
  Py_CLEAR(state->error);
  Py_CLEAR(state->invalid_input);
  Py_CLEAR(state->not_initialized);
  Py_CLEAR(state->out_of_memory);
  return 0;
}

static void module_free(void *module) { module_clear(module); }

static PyModuleDef_Slot slots[] = {{Py_mod_exec, module_exec}, {0, NULL}};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "usae._usae",
    .m_doc = "The C interface of the core (usae.h) for Python, nothing more.",
    .m_size = sizeof(module_state),
    .m_methods = functions,
    .m_slots = slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__usae(void) { return PyModuleDef_Init(&definition); }
