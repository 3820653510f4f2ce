#include "check.h"

void test_fourier_transforms(void) {
  enum { PLANES = 2, HEIGHT = 6, WIDTH = 10, BINS = WIDTH / 2 + 1 };
  usae_error error;
  float image[PLANES * HEIGHT * WIDTH], back[PLANES * HEIGHT * WIDTH];
  float re[PLANES * HEIGHT * BINS], im[PLANES * HEIGHT * BINS];
  fill(image, PLANES * HEIGHT * WIDTH, 3);
  check(usae_rfft2(PLANES, HEIGHT, WIDTH, image, re, im, 1, &error) == USAE_OK, "a transform");
  int right_ones = 1;
  for (int p = 0; p < PLANES; p++)
    for (int u = 0; u < HEIGHT; u++)
      for (int v = 0; v < BINS; v++) {
        double sum_re = 0, sum_im = 0;
        for (int y = 0; y < HEIGHT; y++)
          for (int x = 0; x < WIDTH; x++) {
            const double angle = 2 * acos(-1) * ((double)u * y / HEIGHT + (double)v * x / WIDTH);
            sum_re += image[(p * HEIGHT + y) * WIDTH + x] * cos(angle);
            sum_im -= image[(p * HEIGHT + y) * WIDTH + x] * sin(angle);
          }
        const int at = (p * HEIGHT + u) * BINS + v;
        if (fabs(re[at] - sum_re) > 1e-5 || fabs(im[at] - sum_im) > 1e-5) right_ones = 0;
      }
  check(right_ones, "has the sums of the definition");
  check(usae_irfft2(PLANES, HEIGHT, WIDTH, re, im, back, 0, &error) == USAE_OK, "and the inverse");
  int same = 1;
  for (int i = 0; i < PLANES * HEIGHT * WIDTH; i++)
    if (fabs(back[i] - image[i]) > 1e-6) same = 0;
  check(same, "gives the images back");
  re[0] = 77;
  check(usae_rfft2(0, HEIGHT, WIDTH, image, re, im, 1, &error) == USAE_INVALID_ARGUMENT, "no planes are refused");
  check(strstr(error.message, "planes") != NULL && re[0] == 77, "by name, and nothing is written");
  check(usae_rfft2(INT64_MAX, HEIGHT, WIDTH, image, re, im, 1, NULL) == USAE_INVALID_ARGUMENT, "so are absurdly many");
  check(usae_rfft2(1, 8193, WIDTH, image, re, im, 1, NULL) == USAE_INVALID_ARGUMENT, "a side above 8192");
  check(usae_irfft2(1, HEIGHT, INT64_MIN, re, im, back, 1, NULL) == USAE_INVALID_ARGUMENT, "a negative one");
  check(usae_irfft2(1, HEIGHT, WIDTH, re, im, back, -1, NULL) == USAE_INVALID_ARGUMENT, "negative threads");
  check(usae_rfft2(1, HEIGHT, WIDTH, image, NULL, im, 1, NULL) == USAE_INVALID_ARGUMENT, "and NULL");
}
