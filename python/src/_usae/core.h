/* core.h - the type Core, whose methods are in one file for each subject. */
#ifndef USAE_CORE_H
#define USAE_CORE_H

#include "module.h"

/* The core's autoencoder. tp_new makes it completely, so that no method sees an incomplete one. */
typedef struct core_object {
  PyObject_HEAD
  usae_sae *sae;
  /* Report of the newest training step. It is kept because a signal handler may run as soon as the step returns, and its
   * exception then replaces the result. NULL if there is none, or if step_count was set since. */
  PyObject *last_report;
} core_object;

static inline core_object *core_of(PyObject *self) { return (core_object *)self; }

/* Replaces an object by another or by NULL. */
static inline void remember(PyObject **place, PyObject *object) {
  PyObject *old = *place;
  *place = Py_XNewRef(object);
  Py_XDECREF(old);
}

/* Core cannot be subclassed, so the type of `self` is the one that the module made. */
static inline const module_state *state_of(PyObject *self) { return PyType_GetModuleState(Py_TYPE(self)); }

/* core_description.c: what the core says of itself, without waiting */
PyObject *core_n_concepts(PyObject *self, void *closure);
PyObject *core_k(PyObject *self, void *closure);
PyObject *core_slots(PyObject *self, void *closure);
PyObject *core_seed(PyObject *self, void *closure);
PyObject *core_names(PyObject *self, void *closure);
PyObject *core_widths(PyObject *self, void *closure);
PyObject *core_recipe(PyObject *self, void *closure);
PyObject *core_step_count(PyObject *self, void *closure);
PyObject *core_describe_sample(PyObject *self, PyObject *args, PyObject *kwargs);
int core_set_step_count(PyObject *self, PyObject *value, void *closure);

/* core_training.c */
PyObject *core_last_report(PyObject *self, void *closure);
PyObject *core_set_plan(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *core_set_frozen(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *core_encoders(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *core_step(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *core_gradients(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *core_check_finite(PyObject *self, PyObject *args, PyObject *kwargs);

/* The arguments of a step, and memory for losses. Zero it before, and clear it after, even on failure. */
typedef struct step_batch {
  PyObject *names;
  activations_list inputs;
  Py_buffer rows;
  const int64_t *row_numbers; /* NULL: all */
  int64_t n_rows;
  int32_t encoder;
  double *losses;
} step_batch;
bool step_batch_take(PyObject *self, PyObject *inputs, PyObject *rows, PyObject *encoder, step_batch *out);
void step_batch_clear(step_batch *batch);
/* Memory for the losses of each encoded and decoded model of a step; NULL with an exception. PyMem_Free frees it. */
double *losses_alloc(PyObject *self);
PyObject *report_dict(const usae_step_report *report, const double *losses, int32_t n_models);

/* core_shared.c */
PyObject *core_shared_begin(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *core_shared_agree(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *core_shared_fill(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *core_shared_take(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *core_shared_finish(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *core_shared_abandon(PyObject *self, PyObject *ignored);

/* core_inference.c */
PyObject *core_encode(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *core_decode(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *core_preactivations(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *core_top_examples(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *core_evaluate(PyObject *self, PyObject *args, PyObject *kwargs);

/* core_objective.c */
PyObject *core_objective(PyObject *self, PyObject *args, PyObject *kwargs);

/* core_tensors.c */
PyObject *core_tensor_shape(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *core_tensors_read(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *core_tensors_write(PyObject *self, PyObject *args, PyObject *kwargs);

/* Tensors and the arrays that they are copied to or from. Zero it before, and clear it after, even on failure. */
typedef struct tensor_list {
  Py_buffer *buffers;
  usae_tensor *tensors;
  Py_ssize_t count;
} tensor_list;
bool tensors_take(const module_state *state, PyObject *sequence, bool writable, tensor_list *out);
void tensors_clear(tensor_list *list);

#endif
