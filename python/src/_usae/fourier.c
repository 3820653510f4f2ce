#include "module.h"

/* Images, [planes, height, width], and real and imaginary parts of the half spectra, [planes, height, width / 2 + 1]. */
typedef struct transform_arrays {
  Py_buffer image, re, im;
  int64_t planes, height, width;
  int32_t n_threads;
} transform_arrays;

/* Takes the arrays. The spectra are written if `forward`, otherwise the image. Zero `out` before, and clear it after. */
static bool arrays_take(const module_state *state, PyObject *image, PyObject *re, PyObject *im, PyObject *n_threads,
                        bool forward, transform_arrays *out) {
  if (!take_array(state, image, "image", ELEMENT_FLOAT32, !forward, &out->image) ||
      !take_array(state, re, "re", ELEMENT_FLOAT32, forward, &out->re) ||
      !take_array(state, im, "im", ELEMENT_FLOAT32, forward, &out->im) ||
      !take_int32(state, n_threads, "n_threads", &out->n_threads))
    return false;
  if (out->image.ndim != 3) {
    PyErr_Format(state->invalid_input, "image: expected 3 dimensions, got %d; reshape to [planes, height, width]",
                 out->image.ndim);
    return false;
  }
  out->planes = out->image.shape[0];
  out->height = out->image.shape[1];
  out->width = out->image.shape[2];
  const int64_t spectrum[] = {out->planes, out->height, out->width / 2 + 1};
  return has_shape(state, &out->re, "re", 3, spectrum) && has_shape(state, &out->im, "im", 3, spectrum);
}

static void arrays_clear(transform_arrays *arrays) {
  PyBuffer_Release(&arrays->im);
  PyBuffer_Release(&arrays->re);
  PyBuffer_Release(&arrays->image);
}

PyObject *fourier_rfft2(PyObject *module, PyObject *args, PyObject *kwargs) {
  static char *keywords[] = {"image", "re", "im", "n_threads", NULL};
  const module_state *state = PyModule_GetState(module);
  PyObject *image, *re, *im, *n_threads, *result = NULL;
  transform_arrays arrays = {0};
  core_call call;

  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOO:rfft2", keywords, &image, &re, &im, &n_threads) ||
      !arrays_take(state, image, re, im, n_threads, true, &arrays))
    goto done;

  core_call_begin(&call);
  usae_status status = usae_rfft2(arrays.planes, arrays.height, arrays.width, arrays.image.buf, arrays.re.buf,
                                  arrays.im.buf, arrays.n_threads, &call.error);
  if (!core_call_end(&call, state, status)) goto done;
  result = Py_NewRef(Py_None);
done:
  arrays_clear(&arrays);
  return result;
}

PyObject *fourier_irfft2(PyObject *module, PyObject *args, PyObject *kwargs) {
  static char *keywords[] = {"re", "im", "image", "n_threads", NULL};
  const module_state *state = PyModule_GetState(module);
  PyObject *re, *im, *image, *n_threads, *result = NULL;
  transform_arrays arrays = {0};
  core_call call;

  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOO:irfft2", keywords, &re, &im, &image, &n_threads) ||
      !arrays_take(state, image, re, im, n_threads, false, &arrays))
    goto done;

  core_call_begin(&call);
  usae_status status = usae_irfft2(arrays.planes, arrays.height, arrays.width, arrays.re.buf, arrays.im.buf,
                                   arrays.image.buf, arrays.n_threads, &call.error);
  if (!core_call_end(&call, state, status)) goto done;
  result = Py_NewRef(Py_None);
done:
  arrays_clear(&arrays);
  return result;
}
