/* module.h - declarations that the files of the extension `usae._usae` share.
 *
 *   arguments.c   Python values to numbers and names
 *   recipe.c      recipes, either way
 *   buffers.c     arrays to pointers
 *   interruptible_call.c  calls of the core without the GIL, which Ctrl-C ends
 *   errors.c      statuses to exceptions
 *   fourier.c     transforms of images
 *   maximizer.c   the type Maximizer; resizing of images for models
 *   core.c        the type Core; core_description.c, core_training.c, core_shared.c, core_inference.c,
 *                 core_objective.c, core_tensors.c its methods and properties
 *   module.c      the module: its functions, constants and state
 *
 * Functions that return bool have set a Python exception if they return false.
 */
#ifndef USAE_MODULE_H
#define USAE_MODULE_H

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000 /* CPython 3.11: the first with Py_buffer in the stable ABI */
#include <Python.h>
#include <stdbool.h>
#include <stdint.h>

#include "usae_testing.h"

/* Each interpreter that imports the module has one. The exceptions are the classes of usae.errors. */
typedef struct module_state {
  PyObject *core_type;
  PyObject *maximizer_type;
  PyObject *error;
  PyObject *invalid_input;
  PyObject *not_initialized;
  PyObject *out_of_memory;
} module_state;

/* --- arguments.c --------------------------------------------------------------------------------------------------- */

/* Takes an int, or an object with __index__. Outside [low, high] it raises InvalidInputError, which names it `name`. */
bool take_int(const module_state *state, PyObject *object, const char *name, int64_t low, int64_t high, int64_t *out);
bool take_int32(const module_state *state, PyObject *object, const char *name, int32_t *out);
bool take_seed(const module_state *state, PyObject *object, uint64_t *out);

/* `strings` [count] belong to the str objects in `tuple`. Zero it before names_take, and clear it after, even on failure. */
typedef struct name_list {
  PyObject *tuple;
  const char **strings;
  int32_t count;
} name_list;
bool names_take(const module_state *state, PyObject *sequence, name_list *out);
void names_clear(name_list *names);

/* --- recipe.c ------------------------------------------------------------------------------------------------------- */

bool take_recipe(const module_state *state, PyObject *mapping, usae_recipe *out);
PyObject *recipe_dict(const module_state *state, const usae_recipe *recipe);
PyObject *recipe_fields(PyObject *module, PyObject *ignored);
PyObject *recipe_preset(PyObject *module, PyObject *number);

/* --- buffers.c ----------------------------------------------------------------------------------------------------- */

typedef enum element { ELEMENT_FLOAT32, ELEMENT_FLOAT64, ELEMENT_INT32, ELEMENT_INT64 } element;

/* Takes a C-contiguous array of this element type. Zero `out` before, and PyBuffer_Release it after, even on failure. */
bool take_array(const module_state *state, PyObject *object, const char *name, element type, bool writable,
                Py_buffer *out);
int64_t array_count(const Py_buffer *array);

/* Whether an array has these `ndim` sides; -1 allows any length. InvalidInputError if it does not. */
bool has_shape(const module_state *state, const Py_buffer *array, const char *name, int ndim, const int64_t *sides);

/* Does take_array, then has_shape. */
bool take_shaped(const module_state *state, PyObject *object, const char *name, element type, bool writable, int ndim,
                 const int64_t *sides, Py_buffer *out);

/* Activations without a copy: `matrix` points into the buffers. Zero it before activations_take, and clear it after. */
typedef struct activations {
  Py_buffer elements, rows;
  usae_matrix matrix;
} activations;
bool activations_take(const module_state *state, PyObject *object, const char *name, activations *out);
void activations_clear(activations *x);
int64_t activations_rows(const activations *x);

/* Activations of all models, 0 in all fields for None. `names`, a tuple of str or NULL, is for error messages. Zero it before,
 * and clear it after. */
typedef struct activations_list {
  activations *items;
  usae_matrix *matrices;
  int32_t count;
} activations_list;
bool activations_list_take(const module_state *state, PyObject *sequence, PyObject *names, activations_list *out);
void activations_list_clear(activations_list *inputs);

/* --- interruptible_call.c ------------------------------------------------------------------------------------------ */

/* A call of the core. Between begin and end the thread does not hold the GIL, and `interrupt` lets signal handlers run.
 * The struct must not move from begin to end. */
typedef struct core_call {
  PyThreadState *thread;
  int64_t asked; /* time of the last check for signals, in nanoseconds */
  bool stopped;  /* a signal handler or `progress` has raised; its exception is set in `thread` */
  PyObject *progress; /* borrowed; called with the number of rows that are done; NULL: nobody is told */
  usae_interrupt interrupt;
  usae_error error;
} core_call;
void core_call_begin(core_call *call);
void core_call_begin_told(core_call *call, PyObject *progress); /* None: nobody is told */
bool core_call_end(core_call *call, const module_state *state, usae_status status);

/* --- errors.c ------------------------------------------------------------------------------------------------------ */

/* True for USAE_OK. Otherwise raises the exception of the status, with the core's message. */
bool check_status(const module_state *state, usae_status status, const usae_error *error);

/* --- fourier.c ----------------------------------------------------------------------------------------------------- */

PyObject *fourier_rfft2(PyObject *module, PyObject *args, PyObject *kwargs);
PyObject *fourier_irfft2(PyObject *module, PyObject *args, PyObject *kwargs);

/* --- maximizer.c --------------------------------------------------------------------------------------------------- */

extern PyType_Spec maximizer_spec;
PyObject *crop_resize(PyObject *module, PyObject *args, PyObject *kwargs);

/* --- core.c -------------------------------------------------------------------------------------------------------- */

extern PyType_Spec core_spec;

#endif
