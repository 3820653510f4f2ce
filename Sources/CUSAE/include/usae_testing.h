/* usae_testing.h - what tests and benchmarks of the library call in addition to usae.h, whose conventions hold here too. A
 * later version may change or drop any of it. */
#ifndef USAE_TESTING_H
#define USAE_TESTING_H

#include "usae.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Writes the gradients that were added in this step, with respect to the colours and to the planes that colours are computed
 * from, both [3, height, width]. */
usae_status usae_maximizer_gradients(usae_maximizer *maximizer, float *colours, float *planes, usae_error *error);

/* Writes the two-dimensional Fourier transforms of real images, `image` [planes, height, width]. `re` and `im` [planes, height,
 * width / 2 + 1] are real and imaginary part of the half of each spectrum that determines the other; not normalised, as
 * numpy.fft.rfft2. Sides are from 1 to 8192, and fast where their prime factors are small. `n_threads` as of usae_create;
 * results do not depend on it, and those of a plane not on other planes. The arrays must not overlap. */
usae_status usae_rfft2(int64_t planes, int64_t height, int64_t width, const float *image, float *re, float *im,
                       int32_t n_threads, usae_error *error);

/* Writes the inverse, `image` [planes, height, width], divided by height * width, as numpy.fft.irfft2 with s = (height, width).
 * `re` and `im` [planes, height, width / 2 + 1] need not be the spectrum of a real image. Otherwise as usae_rfft2. */
usae_status usae_irfft2(int64_t planes, int64_t height, int64_t width, const float *re, const float *im, float *image,
                        int32_t n_threads, usae_error *error);

#ifdef __cplusplus
}
#endif
#endif
