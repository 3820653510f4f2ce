#include "check.h"

void test_errors_of_creation(void) {
  usae_recipe r = recipe();
  usae_sae *sae = NULL;
  usae_error error;
  check(usae_create(0, 1, 0, 0, &r, &sae, &error) == USAE_INVALID_ARGUMENT, "no concepts are refused");
  check(sae == NULL && strstr(error.message, "n_concepts") != NULL, "and the error names the argument");
  check(usae_create(8, 9, 0, 0, &r, &sae, &error) == USAE_INVALID_ARGUMENT, "k above n_concepts is refused");
  check(usae_create(INT64_MAX, 1, 0, 0, &r, &sae, NULL) == USAE_INVALID_ARGUMENT, "an absurd size is refused, not a crash");
  check(usae_create(8, (double)INT64_MIN, 0, 0, &r, &sae, NULL) == USAE_INVALID_ARGUMENT, "so is a negative one");
  check(usae_create(8, NAN, 0, 0, &r, &sae, NULL) == USAE_INVALID_ARGUMENT, "and NaN");
  check(usae_create(8, 2.5, 0, 0, &r, &sae, &error) == USAE_INVALID_ARGUMENT, "TopK has no fractional k");
  check(strstr(error.message, "k ") != NULL && sae == NULL, "which the error names");
  check(usae_create(8, 2, 0, 0, &r, NULL, &error) == USAE_INVALID_ARGUMENT, "and no place for the autoencoder");
  usae_destroy(NULL);
}

void test_before_initialisation(usae_sae *sae) {
  usae_error error;
  usae_matrix x = matrix(left, TOKENS, LEFT);
  float values[K * TOKENS];
  int32_t indices[K * TOKENS];
  check(usae_slots(sae) == K, "a code has k slots");
  check(usae_model_count(sae) == 0, "a new autoencoder has no models");
  check(usae_encode(sae, 0, &x, values, indices, NULL, &error) == USAE_NOT_INITIALIZED, "encode before parameters");
  check(usae_initialize(sae, 0, names, NULL, &error) == USAE_INVALID_ARGUMENT, "no models are refused");
  int64_t widths[2] = {LEFT, 0};
  check(usae_initialize(sae, 2, names, widths, &error) == USAE_INVALID_ARGUMENT, "a width of 0 is refused");
  check(usae_model_count(sae) == 0, "and nothing was made");
  widths[1] = RIGHT;
  check(usae_initialize(sae, 2, names, widths, &error) == USAE_OK, "names and widths make an autoencoder");
  check(usae_model_count(sae) == 2, "with two models");
}

void test_description(usae_sae *sae) {
  usae_error error;
  char name[8] = "xxxxxxx";
  check(usae_concepts(sae) == CONCEPTS && usae_k(sae) == K && usae_slots(sae) == K, "it has the sizes that it was made with");
  check(usae_seed(sae) == 7, "and the seed");
  check(usae_model_width(sae, 0) == LEFT && usae_model_width(sae, 1) == RIGHT, "its models have widths");
  check(usae_model_width(sae, 2) == 0 && usae_model_width(sae, -1) == 0, "which others have not");
  check(usae_model_name(sae, 1, name, sizeof name) == 6 && strcmp(name, "right") == 0, "and names");
  check(usae_model_name(sae, 0, name, 3) == 5 && strcmp(name, "le") == 0 && name[3] == 'h', "which may be cut");
  check(usae_model_name(sae, 0, NULL, 0) == 5 && usae_model_name(sae, 2, name, 8) == 0, "or measured");
  usae_recipe now = {.size = sizeof now}, r = recipe();
  r.total_steps = 100;
  r.dead_tokens = 50;
  check(usae_current_recipe(sae, &now, &error) == USAE_OK && memcmp(&now, &r, sizeof r) == 0, "the recipe, with its plan");
  check(usae_current_recipe(NULL, &now, NULL) == USAE_INVALID_ARGUMENT, "which NULL has not");
  check(usae_current_recipe(sae, NULL, NULL) == USAE_INVALID_ARGUMENT, "and NULL is refused");
  check(usae_concepts(NULL) == 0 && usae_k(NULL) == 0 && usae_slots(NULL) == 0 && usae_seed(NULL) == 0, "NULL is of no size");
  check(usae_model_count(NULL) == 0 && usae_model_width(NULL, 0) == 0, "has no models");
  check(usae_model_name(NULL, 0, name, 8) == 0, "no names");
  check(usae_step_count(NULL) == 0, "and no steps");
}

void test_process(void) {
  check(usae_set_threads(3, NULL) == USAE_OK && usae_threads() == 3, "the default number of threads");
  check(usae_set_threads(-1, NULL) == USAE_INVALID_ARGUMENT && usae_threads() == 3, "a negative one is refused");
  check(usae_set_threads(0, NULL) == USAE_OK && usae_threads() >= 1, "0 is all cores");
  check(strlen(usae_kernels()) > 0 && strlen(usae_blas()) > 0 && strlen(usae_version()) > 0, "names of what is in use");
}
