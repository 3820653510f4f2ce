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
  check(usae_tensor_shape(sae, 0, USAE_MEAN_REST, &rows, &columns, &error) == USAE_OK && rows == LEFT, "a rest of the mean");
  double center[LEFT], deviation[LEFT];
  usae_sample sample = {.size = sizeof sample, .center = center, .deviation = deviation};
  check(usae_describe_sample(sae, 0, LEFT, &sample, &error) == USAE_OK, "the sample of a mean can be described");
  check(sample.rows == TOKENS && sample.largest_distance > 0 && deviation[LEFT - 1] > 0, "with its rows and deviations");
  check(usae_describe_sample(sae, 0, LEFT + 1, &sample, &error) == USAE_SHAPE_MISMATCH, "for arrays of the model's width");
  check(usae_describe_sample(sae, 2, LEFT, &sample, &error) == USAE_UNKNOWN_MODEL, "and of models that there are");
  sample.reserved = 1;
  check(usae_describe_sample(sae, 0, LEFT, &sample, &error) == USAE_INVALID_ARGUMENT, "with nothing unknown asked for");
  free(weights);
  free(again);
}

void test_several_tensors(usae_sae *sae) {
  usae_error error;
  static float means[2][RIGHT], biases[CONCEPTS], gradients[CONCEPTS * RIGHT];
  int64_t step = -1, counters[3];
  usae_tensor tensors[] = {{0, USAE_MEAN, means[0], LEFT}, {1, USAE_MEAN, means[1], RIGHT},
                           {0, USAE_ENCODER_BIAS, biases, CONCEPTS}, {1, USAE_COUNTERS, counters, 3}};
  check(usae_tensors_read(sae, 4, tensors, &step, &error) == USAE_OK && step == usae_step_count(sae) && counters[1] == 60,
        "tensors are read together");
  check(usae_tensors_read(sae, 0, NULL, NULL, &error) == USAE_OK, "or none");
  means[0][0] = biases[0] = 77;
  tensors[3].count = 4;
  check(usae_tensors_read(sae, 4, tensors, &step, &error) == USAE_SHAPE_MISMATCH && means[0][0] == 77 && biases[0] == 77,
        "if one cannot be read, none is");
  tensors[3].count = 3;
  counters[0] = -1;
  check(usae_tensors_write(sae, 4, tensors, &error) == USAE_INVALID_ARGUMENT &&
            usae_tensor_read(sae, 0, USAE_MEAN, means[0], LEFT, &error) == USAE_OK && means[0][0] != 77,
        "or written");
  tensors[2].data = NULL;
  check(usae_tensors_write(sae, 3, tensors, &error) == USAE_INVALID_ARGUMENT && strstr(error.message, "data"),
        "nor without data");
  check(usae_tensors_read(sae, -1, tensors, NULL, &error) == USAE_INVALID_ARGUMENT &&
            usae_tensors_read(sae, 1ll << 62, tensors, NULL, &error) == USAE_INVALID_ARGUMENT,
        "nor so many");
  check(usae_tensors_write(sae, 2, tensors, &error) == USAE_OK, "all are written");

  usae_matrix inputs[2] = {matrix(left, TOKENS, LEFT), matrix(right, TOKENS, RIGHT)};
  usae_tensor wanted[] = {{1, USAE_GRADIENT + USAE_ENCODER_WEIGHT, gradients, CONCEPTS * RIGHT}};
  usae_step_report report = {.size = sizeof report};
  double losses[2] = {-1, -1};
  check(usae_gradients(sae, 2, inputs, NULL, 0, 1, 1, wanted, NULL, &report, losses, &error) == USAE_OK && losses[1] > 0,
        "gradients");
  double norm = 0;
  for (int c = 0; c < CONCEPTS * RIGHT; c++) norm += fabs(gradients[c]);
  check(norm > 0 && report.step == usae_step_count(sae), "of a step that is not done");
  check(usae_gradients(sae, 2, inputs, NULL, 0, 0, 1, wanted, NULL, NULL, NULL, &error) == USAE_INVALID_ARGUMENT,
        "but not of a model that is not encoded");
}
