#include "check.h"

void test_tensors(usae_sae *sae) {
  usae_error error;
  int64_t rows = -1, columns = -1;
  check(usae_tensor_shape(sae, 1, USAE_DICTIONARY, &rows, &columns, &error) == USAE_OK, "a dictionary has a shape");
  check(rows == CONCEPTS && columns == RIGHT, "n_concepts x width");
  check(usae_tensor_shape(sae, 0, USAE_BN_WEIGHT, &rows, &columns, &error) == USAE_INVALID_ARGUMENT, "no BatchNorm here");
  check(usae_tensor_shape(sae, 0, USAE_THRESHOLD, &rows, &columns, &error) == USAE_INVALID_ARGUMENT, "nor a threshold");
  check(usae_tensor_shape(sae, 0, 99, &rows, &columns, &error) == USAE_INVALID_ARGUMENT, "no tensor 99");
  check(usae_tensor_shape(sae, 0, USAE_GRADIENT + USAE_DICTIONARY, &rows, &columns, &error) == USAE_INVALID_ARGUMENT,
        "no gradient without a step that keeps it");
  float *weights = malloc(sizeof(float) * CONCEPTS * RIGHT), *again = malloc(sizeof(float) * CONCEPTS * RIGHT);
  check(usae_tensor_read(sae, 1, USAE_DICTIONARY, weights, CONCEPTS * RIGHT, &error) == USAE_OK, "it can be read");
  double norm = 0;
  for (int c = 0; c < RIGHT; c++) norm += (double)weights[c] * weights[c];
  check(fabs(norm - 1) < 1e-5, "its rows have norm 1");
  check(usae_tensor_write(sae, 1, USAE_DICTIONARY, weights, 5, &error) == USAE_SHAPE_MISMATCH, "a wrong size is refused");
  weights[3] = NAN;
  check(usae_tensor_write(sae, 1, USAE_DICTIONARY, weights, CONCEPTS * RIGHT, &error) == USAE_INVALID_ARGUMENT,
        "NaN is refused");
  weights[3] = 0.25f;
  check(usae_tensor_write(sae, 1, USAE_DICTIONARY, weights, CONCEPTS * RIGHT, &error) == USAE_OK, "it can be written");
  usae_tensor_read(sae, 1, USAE_DICTIONARY, again, CONCEPTS * RIGHT, &error);
  check(memcmp(weights, again, sizeof(float) * CONCEPTS * RIGHT) == 0, "and comes back as it went in");
  int64_t counters[3] = {-1, -1, -1};
  check(usae_tensor_read(sae, 0, USAE_COUNTERS, counters, 3, &error) == USAE_OK && counters[1] == 60, "counters count");
  counters[0] = -4;
  check(usae_tensor_write(sae, 0, USAE_COUNTERS, counters, 3, &error) == USAE_INVALID_ARGUMENT, "negative ones are refused");
  free(weights);
  free(again);
}
