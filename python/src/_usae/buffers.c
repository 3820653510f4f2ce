#include "module.h"

/* --- Errors -------------------------------------------------------------------------------------------------------- */

/* Returns the dtype of an object ("int64"), or the name of its type ("list") if it has none. A new reference, or NULL. */
static PyObject *describe(PyObject *object) {
  PyObject *dtype = PyObject_GetAttrString(object, "dtype");
  if (dtype == NULL) {
    PyErr_Clear();
    dtype = PyObject_GetAttrString((PyObject *)Py_TYPE(object), "__name__");
  }
  PyObject *words = dtype == NULL ? NULL : PyObject_Str(dtype);
  Py_XDECREF(dtype);
  return words;
}

/* Raises InvalidInputError, which says what was expected of `name`, what was given, and what to do. */
static void refuse(const module_state *state, const char *name, const char *expected, PyObject *object,
                   const char *remedy) {
  PyObject *got = describe(object);
  if (got != NULL) PyErr_Format(state->invalid_input, "%s: expected %s, got %U; %s", name, expected, got, remedy);
  Py_XDECREF(got);
}

/* Turns the error of a failed PyObject_GetBuffer into an InvalidInputError with its reason. Other errors, such as MemoryError,
 * stay as they are. */
static void refuse_buffer(const module_state *state, const char *name, const char *expected) {
  if (!PyErr_ExceptionMatches(PyExc_BufferError) && !PyErr_ExceptionMatches(PyExc_TypeError) &&
      !PyErr_ExceptionMatches(PyExc_ValueError))
    return;
  PyObject *type, *reason, *traceback;
  PyErr_Fetch(&type, &reason, &traceback);
  PyErr_Format(state->invalid_input, "%s: expected %s, got none: %S", name, expected, reason != NULL ? reason : type);
  Py_XDECREF(type);
  Py_XDECREF(reason);
  Py_XDECREF(traceback);
}

/* Returns the type code of a native format of one element, such as "f", "@f", "=f" or, on a little-endian machine, "<f". 0 for
 * any other format. */
static char type_code(const char *format) {
  const int one = 1;
  const char native = *(const char *)&one ? '<' : '>';
  if (format == NULL) return 0;
  if (*format == '@' || *format == '=' || *format == native) format++;
  return format[0] != '\0' && format[1] == '\0' ? format[0] : 0;
}

/* --- Dense arrays -------------------------------------------------------------------------------------------------- */

static const struct {
  const char *name;
  Py_ssize_t size;
  char code, other_code; /* codes of C types of the same width: int64 is 'l' in NumPy and 'q' elsewhere */
} elements[] = {
    [ELEMENT_FLOAT32] = {"float32", 4, 'f', 'f'},
    [ELEMENT_FLOAT64] = {"float64", 8, 'd', 'd'},
    [ELEMENT_INT32] = {"int32", 4, 'i', 'l'},
    [ELEMENT_INT64] = {"int64", 8, 'l', 'q'},
};

bool take_array(const module_state *state, PyObject *object, const char *name, element type, bool writable,
                Py_buffer *out) {
  char expected[64];
  PyOS_snprintf(expected, sizeof expected, "a %sC-contiguous array of %s", writable ? "writable " : "",
                elements[type].name);
  if (PyObject_GetBuffer(object, out, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (writable ? PyBUF_WRITABLE : 0)) < 0) {
    refuse_buffer(state, name, expected);
    return false;
  }
  char code = type_code(out->format);
  if ((code != elements[type].code && code != elements[type].other_code) || out->itemsize != elements[type].size ||
      (uintptr_t)out->buf % (uintptr_t)out->itemsize != 0) {
    refuse(state, name, expected, object, writable ? "allocate it with numpy.empty" : "convert with numpy.ascontiguousarray");
    return false;
  }
  return true;
}

/* Returns a tuple of the sides, with "any" for -1. A new reference, or NULL. */
static PyObject *shape_of(int ndim, const int64_t *sides) {
  PyObject *shape = PyTuple_New(ndim);
  for (int axis = 0; shape != NULL && axis < ndim; axis++)
    PyTuple_SetItem(shape, axis, sides[axis] < 0 ? PyUnicode_FromString("any") : PyLong_FromLongLong((long long)sides[axis]));
  return shape;
}

bool has_shape(const module_state *state, const Py_buffer *array, const char *name, int ndim, const int64_t *sides) {
  int64_t found[PyBUF_MAX_NDIM];
  bool fits = array->ndim == ndim;
  for (int axis = 0; axis < array->ndim; axis++) {
    found[axis] = array->shape[axis];
    fits = fits && (sides[axis] < 0 || found[axis] == sides[axis]);
  }
  if (fits) return true;
  PyObject *expected = shape_of(ndim, sides), *got = shape_of(array->ndim, found);
  if (expected != NULL && got != NULL)
    PyErr_Format(state->invalid_input, "%s: expected shape %S, got %S", name, expected, got);
  Py_XDECREF(expected);
  Py_XDECREF(got);
  return false;
}

bool take_shaped(const module_state *state, PyObject *object, const char *name, element type, bool writable, int ndim,
                 const int64_t *sides, Py_buffer *out) {
  return take_array(state, object, name, type, writable, out) && has_shape(state, out, name, ndim, sides);
}

int64_t array_count(const Py_buffer *array) { return array->len / array->itemsize; }

/* --- Activations --------------------------------------------------------------------------------------------------- */

/* Whether base and strides are multiples of the element size, so that every element is aligned. A field of a packed record is
 * not. */
static bool is_aligned(const Py_buffer *buffer) {
  bool aligned = (uintptr_t)buffer->buf % (uintptr_t)buffer->itemsize == 0;
  for (int axis = 0; axis < buffer->ndim; axis++)
    aligned = aligned && (buffer->shape[axis] < 2 || buffer->strides[axis] % buffer->itemsize == 0);
  return aligned;
}

static bool fill_matrix(const Py_buffer *buffer, int32_t dtype, usae_matrix *matrix) {
  static const double nothing = 0; /* replaces the data pointer of an empty array, which may be NULL */
  const Py_ssize_t *shape = buffer->shape, *strides = buffer->strides;
  const int last = buffer->ndim - 1;
  *matrix = (usae_matrix){.data = buffer->buf != NULL ? buffer->buf : &nothing,
                          .dtype = dtype,
                          .outer = shape[0],
                          .inner = 1,
                          .columns = shape[last],
                          .outer_stride = strides[0],
                          .column_stride = strides[last]};
  if (last == 2) {
    matrix->inner = shape[1];
    matrix->inner_stride = strides[1];
    if (matrix->inner == 0) { /* there are no rows, and `inner` must not be 0 as a divisor */
      matrix->outer = 0;
      matrix->inner = 1;
    }
  }
  int64_t rows, count;
  return !__builtin_mul_overflow(matrix->outer, matrix->inner, &rows) &&
         !__builtin_mul_overflow(rows, matrix->columns, &count);
}

/* Takes an array, or (uint16 array, "bfloat16"). */
static bool take_elements(const module_state *state, PyObject *object, const char *name, Py_buffer *buffer,
                          usae_matrix *matrix) {
  static const char expected[] = "a float16, float32 or float64 array";
  bool bfloat16 = false;
  if (PyTuple_Check(object)) {
    PyObject *label = PyTuple_Size(object) == 2 ? PyTuple_GetItem(object, 1) : NULL;
    bfloat16 = label != NULL && PyUnicode_Check(label) && PyUnicode_CompareWithASCIIString(label, "bfloat16") == 0;
    if (!bfloat16) {
      PyErr_Format(state->invalid_input, "%s: expected an array or (uint16 array, 'bfloat16'), got another tuple", name);
      return false;
    }
    object = PyTuple_GetItem(object, 0);
  }
  if (PyObject_GetBuffer(object, buffer, PyBUF_STRIDES | PyBUF_FORMAT) < 0) {
    refuse_buffer(state, name, expected);
    return false;
  }
  int32_t dtype = -1;
  char code = type_code(buffer->format);
  if (bfloat16)
    dtype = code == 'H' ? USAE_BFLOAT16 : -1;
  else if (code == 'e')
    dtype = USAE_FLOAT16;
  else if (code == 'f')
    dtype = USAE_FLOAT32;
  else if (code == 'd')
    dtype = USAE_FLOAT64;
  if (dtype < 0) {
    if (bfloat16)
      refuse(state, name, "bfloat16 numbers as native uint16", object, "use .view('uint16')");
    else
      refuse(state, name, expected, object, "convert with .astype('float32')");
    return false;
  }
  if (buffer->ndim != 2 && buffer->ndim != 3) {
    PyErr_Format(state->invalid_input, "%s: expected 2 or 3 dimensions, got %d; reshape to [n_tokens, width]", name,
                 buffer->ndim);
    return false;
  }
  if (!is_aligned(buffer)) {
    PyErr_Format(state->invalid_input, "%s: expected elements at their natural alignment, got others; pass a copy", name);
    return false;
  }
  if (!fill_matrix(buffer, dtype, matrix)) {
    PyErr_Format(state->invalid_input, "%s: expected fewer than 2**63 elements, got more", name);
    return false;
  }
  return true;
}

/* Takes the numbers of the rows that are selected. */
static bool take_rows(const module_state *state, PyObject *object, const char *name, activations *out) {
  static const int64_t nothing = 0; /* a NULL would mean all rows */
  char label[160];
  PyOS_snprintf(label, sizeof label, "rows of %s", name);
  if (!take_shaped(state, object, label, ELEMENT_INT64, false, 1, (int64_t[]){-1}, &out->rows)) return false;
  out->matrix.n_rows = out->rows.shape[0];
  out->matrix.rows = out->rows.buf != NULL ? out->rows.buf : &nothing;
  return true;
}

int64_t activations_rows(const activations *x) {
  return x->rows.obj != NULL ? x->matrix.n_rows : x->matrix.outer * x->matrix.inner;
}

void activations_clear(activations *x) {
  PyBuffer_Release(&x->rows);
  PyBuffer_Release(&x->elements);
}

bool activations_take(const module_state *state, PyObject *object, const char *name, activations *out) {
  if (PyTuple_Check(object) && PyTuple_Size(object) == 2 && !PyUnicode_Check(PyTuple_GetItem(object, 1)))
    return take_elements(state, PyTuple_GetItem(object, 0), name, &out->elements, &out->matrix) &&
           take_rows(state, PyTuple_GetItem(object, 1), name, out);
  return take_elements(state, object, name, &out->elements, &out->matrix);
}

bool activations_list_take(const module_state *state, PyObject *sequence, PyObject *names, activations_list *out) {
  bool ok = false;
  PyObject *tuple = PySequence_Tuple(sequence);
  if (tuple == NULL) goto done;
  Py_ssize_t count = PyTuple_Size(tuple);
  if (count > INT32_MAX) {
    PyErr_Format(state->invalid_input, "inputs: expected at most %d arrays, got %zd", INT32_MAX, count);
    goto done;
  }
  out->items = PyMem_Calloc((size_t)count + 1, sizeof *out->items);
  out->matrices = PyMem_Calloc((size_t)count + 1, sizeof *out->matrices);
  if (out->items == NULL || out->matrices == NULL) {
    PyErr_NoMemory();
    goto done;
  }
  out->count = (int32_t)count;
  for (Py_ssize_t i = 0; i < count; i++) {
    char name[128]; /* longer names are cut off */
    PyObject *model = names != NULL && i < PyTuple_Size(names) ? PyTuple_GetItem(names, i) : NULL;
    if (model != NULL)
      PyOS_snprintf(name, sizeof name, "acts['%s']", PyUnicode_AsUTF8AndSize(model, NULL));
    else
      PyOS_snprintf(name, sizeof name, "inputs[%lld]", (long long)i);
    PyObject *item = PyTuple_GetItem(tuple, i);
    if (item != Py_None && !activations_take(state, item, name, &out->items[i])) goto done;
    out->matrices[i] = out->items[i].matrix;
  }
  ok = true;
done:
  Py_XDECREF(tuple);
  return ok;
}

void activations_list_clear(activations_list *inputs) {
  for (int32_t i = 0; i < inputs->count; i++) activations_clear(&inputs->items[i]);
  PyMem_Free(inputs->matrices);
  PyMem_Free(inputs->items);
}
