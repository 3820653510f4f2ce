#include "check.h"

void test_training(usae_sae *sae) {
  usae_error error;
  usae_matrix inputs[2] = {matrix(left, TOKENS, LEFT), matrix(right, TOKENS, RIGHT)};
  check(usae_initialize_from(sae, 2, names, inputs, NULL, &error) == USAE_OK, "initialisation from data");
  check(usae_set_plan(sae, 100, 50, &error) == USAE_OK, "a plan is taken");
  check(usae_set_plan(sae, -1, 0, &error) == USAE_INVALID_ARGUMENT, "a negative plan is refused");
  check(usae_set_frozen(sae, 0, 1, &error) == USAE_OK, "a model is frozen");
  check(usae_set_frozen(sae, 0, 0, &error) == USAE_OK, "and trains again");
  check(usae_set_frozen(sae, 0, 2, &error) == USAE_INVALID_ARGUMENT, "a model is frozen or not");
  check(usae_set_frozen(sae, 99, 1, &error) != USAE_OK, "an unknown model is not frozen");

  usae_step_report report;
  memset(&report, 0, sizeof report);
  report.size = sizeof report;
  double first = 0, losses[2];
  int64_t rows[128];
  for (int step = 0; step < 60; step++) {
    check(usae_shuffled_rows(5, TOKENS, step * 128, 128, rows, &error) == USAE_OK, "rows are drawn");
    check(usae_step(sae, 2, inputs, rows, 128, -1, USAE_STEP_TRAIN, NULL, &report, losses, &error) == USAE_OK, "a step");
    if (step == 0) first = report.loss;
  }
  check(report.step == 60 && usae_step_count(sae) == 60, "steps are counted");
  check(report.loss < first && report.l0 <= K, "the loss falls and no token has more than k concepts");

  int asked = 0;
  usae_interrupt interrupt = {stop_at_once, &asked};
  check(usae_step(sae, 2, inputs, NULL, 0, 0, USAE_STEP_TRAIN, &interrupt, &report, NULL, &error) == USAE_INTERRUPTED,
        "an interrupt stops a step");
  check(asked > 0 && usae_step_count(sae) == 60, "and leaves the count");
  rows[7] = TOKENS;
  check(usae_step(sae, 2, inputs, rows, 128, -1, USAE_STEP_TRAIN, NULL, &report, NULL, &error) == USAE_INVALID_ARGUMENT,
        "a row past the end is refused");
  check(usae_step(sae, 2, inputs, NULL, 0, 2, USAE_STEP_TRAIN, NULL, &report, NULL, &error) == USAE_UNKNOWN_MODEL,
        "an unknown encoder is refused");
  check(usae_step(sae, 1, inputs, NULL, 0, 0, USAE_STEP_TRAIN, NULL, &report, NULL, &error) == USAE_SHAPE_MISMATCH,
        "a missing model is refused");
  usae_matrix empty[2] = {matrix(NULL, 0, LEFT), matrix(NULL, 0, RIGHT)};
  check(usae_step(sae, 2, empty, NULL, 0, 0, USAE_STEP_TRAIN, NULL, &report, NULL, &error) == USAE_SHAPE_MISMATCH,
        "zero rows are refused");
  right[5 * RIGHT + 3] = INFINITY;
  check(usae_step(sae, 2, inputs, NULL, 0, 0, USAE_STEP_TRAIN, NULL, &report, NULL, &error) == USAE_NOT_FINITE,
        "infinity is refused");
  check(strstr(error.message, "'right'") && strstr(error.message, "row 5") && strstr(error.message, "column 3"),
        "with model, row and column");
  check(usae_check_finite(sae, 2, inputs, NULL, &error) == USAE_NOT_FINITE, "a look at all rows finds it");
  right[5 * RIGHT + 3] = 0;
  check(usae_check_finite(sae, 2, inputs, NULL, &error) == USAE_OK, "and finds nothing else");
  check(usae_set_step_count(sae, 61, &error) == USAE_OK && usae_step_count(sae) == 61, "the count can be set");
}

/* One step with prefixes that reach to the end of the array. */
void test_prefixes(void) {
  usae_recipe r = recipe();
  usae_error error;
  usae_sae *sae = NULL;
  usae_matrix inputs[2] = {matrix(left, TOKENS, LEFT), matrix(right, TOKENS, RIGHT)};
  usae_step_report report = {.size = sizeof report};
  for (int i = 0; i < USAE_MOST_PREFIXES; i++) r.prefixes[i] = (i + 1) / (double)USAE_MOST_PREFIXES;
  check(usae_create(CONCEPTS, K, 7, 0, &r, &sae, &error) == USAE_OK, "prefixes are taken");
  check(usae_initialize_from(sae, 2, names, inputs, NULL, &error) == USAE_OK &&
            usae_step(sae, 2, inputs, NULL, 0, 0, USAE_STEP_TRAIN, NULL, &report, NULL, &error) == USAE_OK,
        "and trained with");
  check(report.step == 1 && isfinite(report.loss), "a step of them has a loss");
  usae_destroy(sae);
}

void test_selection_by_batch(void) {
  usae_recipe r = recipe();
  usae_error error;
  usae_sae *sae = NULL;
  r.selection = USAE_SELECTION_BATCHTOPK;
  r.k_max = K - 1;
  check(usae_create(CONCEPTS, K, 7, 0, &r, &sae, &error) == USAE_INVALID_ARGUMENT, "k_max below k is refused");
  check(strstr(error.message, "k_max") != NULL, "by name");
  r.k_max = 0;
  check(usae_create(CONCEPTS, K, 7, 0, &r, &sae, &error) == USAE_OK, "a selection by batch");
  check(usae_slots(sae) == 4 * K && usae_slots(NULL) == 0, "has 4 k slots for a token");
  usae_sae *fractional = NULL;
  check(usae_create(CONCEPTS, K + 0.3, 7, 0, &r, &fractional, &error) == USAE_OK, "its k may be fractional");
  check(usae_k(fractional) == K + 0.3 && usae_slots(fractional) == 4 * K + 2, "and slots are rounded up");

  usae_matrix inputs[2] = {matrix(left, TOKENS, LEFT), matrix(right, TOKENS, RIGHT)};
  usae_step_report report = {.size = sizeof report};
  float threshold = -1;
  static float values[TOKENS * 4 * K];
  static int32_t indices[TOKENS * 4 * K];
  check(usae_initialize_from(sae, 2, names, inputs, NULL, &error) == USAE_OK, "initialised from data");
  check(usae_tensor_read(sae, 0, USAE_THRESHOLD, &threshold, 1, &error) == USAE_OK && threshold == 0, "without a threshold");
  check(usae_encode(sae, 0, &inputs[0], values, indices, NULL, &error) == USAE_OK && indices[K] == -1, "codes have k entries");
  check(usae_step(sae, 2, inputs, NULL, 0, 0, USAE_STEP_TRAIN, NULL, &report, NULL, &error) == USAE_OK, "a step");
  check(report.l0 <= K, "keeps k on average");
  usae_step_report other = {.size = sizeof other};
  check(usae_initialize_from(fractional, 2, names, inputs, NULL, &error) == USAE_OK &&
            usae_step(fractional, 2, inputs, NULL, 0, 0, USAE_STEP_TRAIN, NULL, &other, NULL, &error) == USAE_OK,
        "a step with a fractional k");
  check(fabs(other.l0 * TOKENS - floor((K + 0.3) * TOKENS)) < 1e-6, "keeps as many in the batch, rounded down");
  usae_destroy(fractional);
  check(usae_tensor_read(sae, 0, USAE_THRESHOLD, &threshold, 1, &error) == USAE_OK && threshold > 0, "and sets the threshold");
  check(usae_encode(sae, 0, &inputs[0], values, indices, NULL, &error) == USAE_OK, "then codes");
  int above = 1;
  for (int i = 0; i < TOKENS * 4 * K; i++) above &= indices[i] == -1 ? values[i] == 0 : values[i] > threshold;
  check(above, "are above it");
  usae_destroy(sae);
}

void test_several_encoders(void) {
  usae_recipe r = recipe();
  usae_error error;
  usae_sae *sae = NULL;
  usae_matrix inputs[2] = {matrix(left, TOKENS, LEFT), matrix(right, TOKENS, RIGHT)};
  usae_step_report report = {.size = sizeof report};
  int32_t encoders[2] = {-7, -7}, count = -7;
  double losses[4] = {-1, -1, -1, -1};
  r.encoded_models = USAE_ENCODED_TWO;
  r.agreement = 0.1;
  check(usae_create(CONCEPTS, K, 7, 0, &r, &sae, &error) == USAE_OK, "a step may encode two models");
  check(usae_step_encoders(sae, -1, encoders, &count, &error) == USAE_NOT_INITIALIZED && count == -7, "once there are models");
  check(usae_initialize_from(sae, 2, names, inputs, NULL, &error) == USAE_OK, "which there are now");
  check(usae_step_encoders(sae, 2, encoders, &count, &error) == USAE_UNKNOWN_MODEL && encoders[0] == -7, "of those there are");
  check(usae_step_encoders(sae, 1, NULL, &count, &error) == USAE_INVALID_ARGUMENT, "NULL is refused");
  check(usae_step_encoders(sae, 1, encoders, &count, &error) == USAE_OK && count == 2 && encoders[0] == 1 && encoders[1] == 0,
        "the first is the caller's");
  check(usae_step(sae, 2, inputs, NULL, 0, 1, USAE_STEP_TRAIN, NULL, &report, losses, &error) == USAE_OK, "a step of both");
  check(report.encoder == 1 && report.n_encoders == 2 && report.second_encoder == 0, "says so");
  check(report.agreement > 0 && fabs(report.loss - (losses[0] + losses[1] + losses[2] + losses[3]) / 2 -
                                     0.1 * report.agreement) < 1e-6 * report.loss, "the loss is their mean and the term");
  usae_destroy(sae);
  r.encoded_models = USAE_ENCODED_ONE;
  sae = NULL;
  check(usae_create(CONCEPTS, K, 7, 0, &r, &sae, &error) == USAE_OK, "with one of them");
  check(usae_initialize_from(sae, 2, names, inputs, NULL, &error) == USAE_OK &&
            usae_step(sae, 2, inputs, NULL, 0, 1, USAE_STEP_TRAIN, NULL, &report, losses, &error) == USAE_OK,
        "a step");
  check(report.n_encoders == 1 && report.second_encoder == -1 && report.agreement == 0, "has no term");
  usae_destroy(sae);
}

/* Batches and parts of the data without the model on the right. */
void test_absent_models(void) {
  usae_error error;
  usae_recipe r = recipe();
  usae_sae *sae = NULL;
  usae_matrix inputs[2] = {matrix(left, TOKENS, LEFT), matrix(right, TOKENS, RIGHT)}, alone[2], parts[4], nothing[2];
  usae_step_report report = {.size = sizeof report};
  int32_t present[2] = {1, 0}, encoders[2] = {-7, -7}, count = -7;
  double losses[2] = {-1, -1};
  static float before[CONCEPTS * RIGHT], after[CONCEPTS * RIGHT];
  memset(alone, 0, sizeof alone);
  memset(nothing, 0, sizeof nothing);
  alone[0] = inputs[0];
  memcpy(parts, alone, sizeof alone);
  memcpy(parts + 2, inputs, sizeof inputs);
  check(usae_create(CONCEPTS, K, 7, 0, &r, &sae, &error) == USAE_OK, "an autoencoder");
  check(usae_initialize_from(sae, 2, names, alone, NULL, &error) != USAE_OK, "of all models");
  check(usae_initialize_from_parts(sae, 2, names, 1, parts, NULL, &error) == USAE_INVALID_ARGUMENT &&
            strstr(error.message, names[1]) != NULL, "each of which some part has");
  check(usae_initialize_from_parts(sae, 2, names, 0, parts, NULL, &error) == USAE_INVALID_ARGUMENT, "of which there is one");
  check(usae_initialize_from_parts(sae, 2, names, 2, parts, NULL, &error) == USAE_OK, "two parts");
  check(usae_batch_encoders(sae, 2, present, -1, encoders, &count, &error) == USAE_OK && count == 1 && encoders[0] == 0,
        "the model that is there is encoded");
  check(usae_batch_encoders(sae, 2, present, 1, encoders, &count, &error) == USAE_INVALID_ARGUMENT, "and no other");
  present[1] = 2;
  check(usae_batch_encoders(sae, 2, present, -1, encoders, &count, &error) == USAE_INVALID_ARGUMENT, "it is there or not");
  check(usae_batch_encoders(sae, 3, present, -1, encoders, &count, &error) == USAE_SHAPE_MISMATCH, "for each model");
  check(usae_tensor_read(sae, 1, USAE_DICTIONARY, before, CONCEPTS * RIGHT, &error) == USAE_OK, "a dictionary");
  check(usae_check_finite(sae, 2, alone, NULL, &error) == USAE_OK, "a look at a batch without the model");
  check(usae_step(sae, 2, alone, NULL, 0, -1, USAE_STEP_TRAIN, NULL, &report, losses, &error) == USAE_OK, "a step without it");
  check(report.encoder == 0 && losses[0] > 0 && isnan(losses[1]), "has no loss of it");
  check(usae_tensor_read(sae, 1, USAE_DICTIONARY, after, CONCEPTS * RIGHT, &error) == USAE_OK &&
            memcmp(before, after, sizeof before) == 0, "and leaves it as it was");
  check(usae_step(sae, 2, alone, NULL, 0, 1, USAE_STEP_TRAIN, NULL, &report, losses, &error) == USAE_INVALID_ARGUMENT,
        "it cannot be encoded");
  check(usae_step(sae, 2, nothing, NULL, 0, -1, USAE_STEP_TRAIN, NULL, &report, losses, &error) == USAE_INVALID_ARGUMENT,
        "a batch of nothing is refused");
  usae_shared_opening openings[2] = {{.size = sizeof openings[0]}, {.size = sizeof openings[0]}};
  check(usae_shared_begin(sae, 2, alone, NULL, 0, -1, NULL, &openings[0], &error) == USAE_OK &&
            usae_shared_abandon(sae, &error) == USAE_OK &&
            usae_shared_begin(sae, 2, inputs, NULL, 0, 0, NULL, &openings[1], &error) == USAE_OK &&
            usae_shared_abandon(sae, &error) == USAE_OK,
        "processes begin");
  check(openings[0].present != openings[1].present && openings[0].fingerprint == openings[1].fingerprint,
        "and tell which models they have");
  usae_destroy(sae);
}
