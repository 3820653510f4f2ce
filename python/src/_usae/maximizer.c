#include "module.h"

#include <math.h>

/* An image that is optimised. tp_new makes it completely. */
typedef struct maximizer_object {
  PyObject_HEAD
  usae_maximizer *maximizer;
  int64_t height, width, views;
} maximizer_object;

static maximizer_object *maximizer_of(PyObject *self) { return (maximizer_object *)self; }

static const module_state *state_of(PyObject *self) { return PyType_GetModuleState(Py_TYPE(self)); }

/* --- Shapes and views ------------------------------------------------------------------------------------------------ */

/* Takes an array, or leaves `out` empty for None. */
static bool take_optional(const module_state *state, PyObject *object, const char *name, const int64_t *sides, Py_buffer *out) {
  return Py_IsNone(object) || take_shaped(state, object, name, ELEMENT_FLOAT32, false, 3, sides, out);
}

static bool take_three(const module_state *state, PyObject *sequence, const char *name, double out[3]) {
  PyObject *tuple = PySequence_Tuple(sequence);
  if (tuple == NULL) return false;
  bool ok = PyTuple_Size(tuple) == 3;
  if (!ok) PyErr_Format(state->invalid_input, "%s: expected three numbers, got %zd", name, PyTuple_Size(tuple));
  for (Py_ssize_t i = 0; ok && i < 3; i++) {
    out[i] = PyFloat_AsDouble(PyTuple_GetItem(tuple, i));
    ok = out[i] != -1.0 || !PyErr_Occurred();
  }
  Py_DECREF(tuple);
  return ok;
}

/* Fills a view whose size is that of the images, [views, 3, height, width]. */
static bool take_view(const module_state *state, const Py_buffer *images, PyObject *mean, PyObject *std, usae_view *out) {
  *out = (usae_view){.size = sizeof *out, .height = images->shape[2], .width = images->shape[3]};
  return take_three(state, mean, "mean", out->mean) && take_three(state, std, "std", out->std);
}

/* --- Creation and deletion ------------------------------------------------------------------------------------------- */

static PyObject *maximizer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
  static char *keywords[] = {"parametrization", "optimizer", "height",   "width",       "steps",     "views",
                             "learning_rate",   "first_crop", "last_crop", "noise",     "total_variation", "l2",
                             "contrast",        "decorrelate", "seed",   "n_threads",   "magnitude", "start", NULL};
  const module_state *state = PyType_GetModuleState(type);
  PyObject *py_seed, *py_magnitude, *py_start;
  Py_buffer magnitude = {0}, start = {0};
  usae_image_options options = {.size = sizeof options};
  long long height, width, steps, views;
  int parametrization, optimizer, decorrelate, n_threads;
  usae_maximizer *made = NULL;
  maximizer_object *self = NULL;
  core_call call;

  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "iiLLLLdddddddpOiOO:Maximizer", keywords, &parametrization, &optimizer,
                                   &height, &width, &steps, &views, &options.learning_rate, &options.first_crop,
                                   &options.last_crop, &options.noise, &options.total_variation, &options.l2,
                                   &options.contrast, &decorrelate, &py_seed, &n_threads, &py_magnitude, &py_start) ||
      !take_seed(state, py_seed, &options.seed))
    goto done;
  const int64_t spectrum[] = {3, height, width / 2 + 1}, image[] = {3, height, width};
  if (!take_optional(state, py_magnitude, "magnitude", spectrum, &magnitude) ||
      !take_optional(state, py_start, "start", image, &start))
    goto done;
  options.parametrization = parametrization;
  options.optimizer = optimizer;
  options.height = height;
  options.width = width;
  options.steps = steps;
  options.views = views;
  options.decorrelate = decorrelate;
  options.n_threads = n_threads;

  core_call_begin(&call);
  usae_status status = usae_maximizer_create(&options, magnitude.buf, start.buf, &made, &call.error);
  if (!core_call_end(&call, state, status)) goto done;

  self = (maximizer_object *)PyType_GenericAlloc(type, 0);
  if (self == NULL) goto done;
  self->maximizer = made;
  made = NULL;
  self->height = height;
  self->width = width;
  self->views = views;
done:
  usae_maximizer_destroy(made);
  PyBuffer_Release(&start);
  PyBuffer_Release(&magnitude);
  return (PyObject *)self;
}

static int maximizer_traverse(PyObject *self, visitproc visit, void *arg) {
  Py_VISIT(Py_TYPE(self));
  return 0;
}

static void maximizer_dealloc(PyObject *self) {
  PyTypeObject *type = Py_TYPE(self);
  PyObject_GC_UnTrack(self);
  usae_maximizer_destroy(maximizer_of(self)->maximizer);
  PyObject_GC_Del(self);
  Py_DECREF(type);
}

static PyObject *maximizer_reduce(PyObject *self, PyObject *Py_UNUSED(ignored)) {
  PyErr_Format(PyExc_TypeError, "%R cannot be copied or pickled", self);
  return NULL;
}

/* --- A step ---------------------------------------------------------------------------------------------------------- */

static PyObject *maximizer_views(PyObject *self, PyObject *args, PyObject *kwargs) {
  static char *keywords[] = {"out", "mean", "std", NULL};
  const module_state *state = state_of(self);
  const maximizer_object *object = maximizer_of(self);
  PyObject *py_out, *mean, *std, *result = NULL;
  Py_buffer out = {0};
  usae_view view;
  core_call call;
  const int64_t sides[] = {object->views, 3, -1, -1};

  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO:views", keywords, &py_out, &mean, &std) ||
      !take_shaped(state, py_out, "out", ELEMENT_FLOAT32, true, 4, sides, &out) || !take_view(state, &out, mean, std, &view))
    goto done;
  core_call_begin(&call);
  usae_status status = usae_maximizer_views(object->maximizer, &view, out.buf, &call.interrupt, &call.error);
  if (!core_call_end(&call, state, status)) goto done;
  result = Py_NewRef(Py_None);
done:
  PyBuffer_Release(&out);
  return result;
}

static PyObject *maximizer_add_gradient(PyObject *self, PyObject *args, PyObject *kwargs) {
  static char *keywords[] = {"gradient", "mean", "std", "weight", NULL};
  const module_state *state = state_of(self);
  const maximizer_object *object = maximizer_of(self);
  PyObject *py_gradient, *mean, *std, *result = NULL;
  Py_buffer gradient = {0};
  usae_view view;
  double weight, norm = NAN;
  core_call call;
  const int64_t sides[] = {object->views, 3, -1, -1};

  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOd:add_gradient", keywords, &py_gradient, &mean, &std, &weight) ||
      !take_shaped(state, py_gradient, "gradient", ELEMENT_FLOAT32, false, 4, sides, &gradient) ||
      !take_view(state, &gradient, mean, std, &view))
    goto done;
  core_call_begin(&call);
  usae_status status = usae_maximizer_add_gradient(object->maximizer, &view, weight, gradient.buf, &norm, &call.interrupt,
                                                   &call.error);
  if (!core_call_end(&call, state, status)) goto done;
  result = PyFloat_FromDouble(norm);
done:
  PyBuffer_Release(&gradient);
  return result;
}

static PyObject *maximizer_advance(PyObject *self, PyObject *Py_UNUSED(ignored)) {
  core_call call;
  core_call_begin(&call);
  usae_status status = usae_maximizer_advance(maximizer_of(self)->maximizer, &call.interrupt, &call.error);
  return core_call_end(&call, state_of(self), status) ? Py_NewRef(Py_None) : NULL;
}

/* --- Properties --------------------------------------------------------------------------------------------------------- */

static PyObject *maximizer_image(PyObject *self, PyObject *py_out) {
  const module_state *state = state_of(self);
  const maximizer_object *object = maximizer_of(self);
  const int64_t sides[] = {3, object->height, object->width};
  Py_buffer out = {0};
  core_call call;
  PyObject *result = NULL;
  if (!take_shaped(state, py_out, "out", ELEMENT_FLOAT32, true, 3, sides, &out)) goto done;
  core_call_begin(&call);
  usae_status status = usae_maximizer_image(object->maximizer, out.buf, &call.error);
  if (core_call_end(&call, state, status)) result = Py_NewRef(Py_None);
done:
  PyBuffer_Release(&out);
  return result;
}

static PyObject *maximizer_attribution(PyObject *self, PyObject *py_out) {
  const module_state *state = state_of(self);
  const maximizer_object *object = maximizer_of(self);
  const int64_t sides[] = {object->height, object->width};
  Py_buffer out = {0};
  core_call call;
  PyObject *result = NULL;
  if (!take_shaped(state, py_out, "out", ELEMENT_FLOAT32, true, 2, sides, &out)) goto done;
  core_call_begin(&call);
  usae_status status = usae_maximizer_attribution(object->maximizer, out.buf, &call.error);
  if (core_call_end(&call, state, status)) result = Py_NewRef(Py_None);
done:
  PyBuffer_Release(&out);
  return result;
}

static PyObject *maximizer_boxes(PyObject *self, PyObject *py_out) {
  const module_state *state = state_of(self);
  const maximizer_object *object = maximizer_of(self);
  const int64_t sides[] = {object->views, 4};
  Py_buffer out = {0};
  core_call call;
  PyObject *result = NULL;
  if (!take_shaped(state, py_out, "out", ELEMENT_INT64, true, 2, sides, &out)) goto done;
  core_call_begin(&call);
  usae_status status = usae_maximizer_boxes(object->maximizer, out.buf, &call.error);
  if (core_call_end(&call, state, status)) result = Py_NewRef(Py_None);
done:
  PyBuffer_Release(&out);
  return result;
}

static PyObject *maximizer_gradients(PyObject *self, PyObject *args, PyObject *kwargs) {
  static char *keywords[] = {"colours", "planes", NULL};
  const module_state *state = state_of(self);
  const maximizer_object *object = maximizer_of(self);
  PyObject *py_colours, *py_planes, *result = NULL;
  Py_buffer colours = {0}, planes = {0};
  core_call call;
  const int64_t sides[] = {3, object->height, object->width};

  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO:gradients", keywords, &py_colours, &py_planes) ||
      !take_shaped(state, py_colours, "colours", ELEMENT_FLOAT32, true, 3, sides, &colours) ||
      !take_shaped(state, py_planes, "planes", ELEMENT_FLOAT32, true, 3, sides, &planes))
    goto done;
  core_call_begin(&call);
  usae_status status = usae_maximizer_gradients(object->maximizer, colours.buf, planes.buf, &call.error);
  if (core_call_end(&call, state, status)) result = Py_NewRef(Py_None);
done:
  PyBuffer_Release(&planes);
  PyBuffer_Release(&colours);
  return result;
}

static PyObject *maximizer_step_count(PyObject *self, void *Py_UNUSED(closure)) {
  return PyLong_FromLongLong(usae_maximizer_step_count(maximizer_of(self)->maximizer));
}

/* --- Resizing of images for models -------------------------------------------------------------------------------------- */

PyObject *crop_resize(PyObject *module, PyObject *args, PyObject *kwargs) {
  static char *keywords[] = {"image", "boxes", "out", "mean", "std", "n_threads", NULL};
  const module_state *state = PyModule_GetState(module);
  PyObject *py_image, *py_boxes, *py_out, *mean, *std, *py_threads, *result = NULL;
  Py_buffer image = {0}, boxes = {0}, out = {0};
  usae_view view;
  int32_t n_threads;
  core_call call;
  const int64_t image_sides[] = {3, -1, -1}, box_sides[] = {-1, 4};

  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOOOO:crop_resize", keywords, &py_image, &py_boxes, &py_out, &mean, &std,
                                   &py_threads) ||
      !take_shaped(state, py_image, "image", ELEMENT_FLOAT32, false, 3, image_sides, &image) ||
      !take_shaped(state, py_boxes, "boxes", ELEMENT_INT64, false, 2, box_sides, &boxes))
    goto done;
  const int64_t out_sides[] = {boxes.shape[0], 3, -1, -1};
  if (!take_shaped(state, py_out, "out", ELEMENT_FLOAT32, true, 4, out_sides, &out) ||
      !take_view(state, &out, mean, std, &view) || !take_int32(state, py_threads, "n_threads", &n_threads))
    goto done;
  core_call_begin(&call);
  usae_status status = usae_crop_resize(image.shape[1], image.shape[2], image.buf, boxes.shape[0], boxes.buf, &view, out.buf,
                                        n_threads, &call.error);
  if (!core_call_end(&call, state, status)) goto done;
  result = Py_NewRef(Py_None);
done:
  PyBuffer_Release(&out);
  PyBuffer_Release(&boxes);
  PyBuffer_Release(&image);
  return result;
}

/* --- The type ------------------------------------------------------------------------------------------------------------ */

#define METHOD(name, flags, arguments, words) \
  {#name, (PyCFunction)(void (*)(void))maximizer_##name, flags, #name "($self" arguments ")\n--\n\n" words}
static PyMethodDef methods[] = {
    METHOD(views, METH_VARARGS | METH_KEYWORDS, ", out, mean, std", "Views of the present image, [views, 3, height, width]."),
    METHOD(add_gradient, METH_VARARGS | METH_KEYWORDS, ", gradient, mean, std, weight",
           "Take the objective's gradient with respect to views; the length of the image's."),
    METHOD(advance, METH_NOARGS, "", "One step uphill."),
    METHOD(image, METH_O, ", out", "Colours between 0 and 1, [3, height, width]."),
    METHOD(attribution, METH_O, ", out", "How much each pixel had to do with the objective, [height, width]."),
    METHOD(boxes, METH_O, ", out", "Where this step's views are, [views, 4]."),
    METHOD(gradients, METH_VARARGS | METH_KEYWORDS, ", colours, planes", "Gradients of this step, [3, height, width] each."),
    {"__reduce__", maximizer_reduce, METH_NOARGS, "Refuses."},
    {NULL, NULL, 0, NULL},
};
#undef METHOD

static PyGetSetDef properties[] = {
    {"step_count", maximizer_step_count, NULL, "Steps done.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "Maximizer(...)\n--\n\nAn image that is optimised, see usae.h."},
    {Py_tp_new, maximizer_new},
    {Py_tp_dealloc, maximizer_dealloc},
    {Py_tp_traverse, maximizer_traverse},
    {Py_tp_methods, methods},
    {Py_tp_getset, properties},
    {0, NULL},
};

PyType_Spec maximizer_spec = {
    .name = "usae._usae.Maximizer",
    .basicsize = sizeof(maximizer_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};
