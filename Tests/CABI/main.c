/* Sees usae.h and nothing else: every function of the header is called, so a declaration without a body does not link.
 * Prints 'N passed, M failed' and returns 1 if anything failed. */
#include "usae.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int passed, failed;

static void check(int condition, const char *sentence) {
  if (condition) {
    passed++;
  } else {
    failed++;
    printf("FAILED: %s\n", sentence);
  }
}

enum { TOKENS = 300, LEFT = 19, RIGHT = 33, CONCEPTS = 40, K = 4 };

static float left[TOKENS * LEFT], right[TOKENS * RIGHT];
static const char *const names[] = {"left", "right"};

/* Numerical Recipes' generator: any numbers will do. */
static void fill(float *out, int count, uint32_t state) {
  for (int i = 0; i < count; i++) {
    state = state * 1664525u + 1013904223u;
    out[i] = (float)(state >> 8) / 8388608.0f - 1.0f;
  }
}

static usae_matrix matrix(const float *data, int64_t rows, int64_t columns) {
  usae_matrix m = {data, USAE_FLOAT32, 0, rows, 1, columns, columns * 4, 0, 4};
  return m;
}

static usae_recipe recipe(void) {
  usae_recipe r;
  memset(&r, 0, sizeof r);
  r.size = sizeof r;
  r.loss = USAE_LOSS_MSE;
  r.initialization = USAE_INIT_DATA;
  r.center = USAE_STATISTIC_DIMENSION;
  r.scale_epsilon = 1e-5;
  r.dictionary_epsilon = 1e-8;
  r.learning_rate = 1e-2;
  r.beta1 = 0.9;
  r.beta2 = 0.999;
  r.epsilon = 1e-8;
  r.decay_share = 1;
  r.renormalize = 1;
  return r;
}

static int32_t stop_at_once(void *context) {
  ++*(int *)context;
  return 1;
}

static void test_statuses_and_words(void) {
  usae_recipe r = recipe();
  usae_sae *sae = NULL;
  usae_error error;
  check(usae_create(0, 1, 0, 0, &r, &sae, &error) == USAE_INVALID_ARGUMENT, "no concepts are refused");
  check(sae == NULL && strstr(error.message, "n_concepts") != NULL, "and the error names the argument");
  check(usae_create(8, 9, 0, 0, &r, &sae, &error) == USAE_INVALID_ARGUMENT, "k above n_concepts is refused");
  check(usae_create(INT64_MAX, 1, 0, 0, &r, &sae, NULL) == USAE_INVALID_ARGUMENT, "an absurd size is refused, not a crash");
  check(usae_create(8, INT64_MIN, 0, 0, &r, &sae, NULL) == USAE_INVALID_ARGUMENT, "so is a negative one");
  check(usae_create(8, 2, 0, 0, NULL, &sae, &error) == USAE_INVALID_ARGUMENT, "a NULL recipe is refused");
  r.size = 12;
  check(usae_create(8, 2, 0, 0, &r, &sae, &error) == USAE_INVALID_ARGUMENT, "a recipe of another version is refused");
  r = recipe();
  r.encoder = 77;
  check(usae_create(8, 2, 0, 0, &r, &sae, &error) == USAE_INVALID_ARGUMENT, "an unknown choice is refused");
  r = recipe();
  r.learning_rate = NAN;
  check(usae_create(8, 2, 0, 0, &r, &sae, &error) == USAE_INVALID_ARGUMENT, "a NaN learning rate is refused");
  r = recipe();
  r.prefixes[0] = 0.5;
  check(usae_create(8, 2, 0, 0, &r, &sae, &error) == USAE_INVALID_ARGUMENT, "prefixes that leave concepts out are refused");
  check(strstr(error.message, "prefixes") != NULL, "by name");
  r.prefixes[1] = 0;
  r.prefixes[2] = 1;
  check(usae_create(8, 2, 0, 0, &r, &sae, &error) == USAE_INVALID_ARGUMENT, "and so is a zero between them");
  usae_destroy(NULL);
  check(usae_model_count(NULL) == 0 && usae_step_count(NULL) == 0, "a NULL handle has no models and no steps");
}

static void test_before_initialisation(usae_sae *sae) {
  usae_error error;
  usae_matrix x = matrix(left, TOKENS, LEFT);
  float values[K * TOKENS];
  int32_t indices[K * TOKENS];
  check(usae_slots(sae) == K, "a code has room for k concepts");
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

static void test_training(usae_sae *sae) {
  usae_error error;
  usae_matrix inputs[2] = {matrix(left, TOKENS, LEFT), matrix(right, TOKENS, RIGHT)};
  check(usae_initialize_from(sae, 2, names, inputs, NULL, &error) == USAE_OK, "initialisation from data");
  check(usae_set_plan(sae, 100, 50, &error) == USAE_OK, "a plan is taken");
  check(usae_set_plan(sae, -1, 0, &error) == USAE_INVALID_ARGUMENT, "a negative plan is refused");

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

/* Two processes in one: the first has 250 of the tokens, the second the rest. */
static void test_shared_steps(void) {
  usae_error error;
  usae_recipe r = recipe();
  usae_sae *saes[3] = {NULL, NULL, NULL}; /* the third takes ordinary steps */
  usae_matrix inputs[2] = {matrix(left, TOKENS, LEFT), matrix(right, TOKENS, RIGHT)};
  int64_t rows[TOKENS], tokens[2] = {250, TOKENS - 250}, n = 0;
  usae_shared_opening openings[2];
  usae_exchange exchange;
  usae_step_report report, whole;
  static float parts[2][16384], sums[8][16384], values[3][CONCEPTS * RIGHT];
  const float *pointers[8];
  int64_t counts[8];
  double losses[2];
  memset(openings, 0, sizeof openings);
  memset(&exchange, 0, sizeof exchange);
  report.size = whole.size = sizeof report;
  for (int64_t t = 0; t < TOKENS; t++) rows[t] = t;
  for (int i = 0; i < 3; i++) {
    check(usae_create(CONCEPTS, K, 7, 1, &r, &saes[i], &error) == USAE_OK &&
              usae_initialize_from(saes[i], 2, names, inputs, NULL, &error) == USAE_OK,
          "copies of an autoencoder");
  }
  check(usae_shared_begin(saes[0], 2, inputs, NULL, 0, 0, NULL, &openings[0], &error) == USAE_INVALID_ARGUMENT,
        "an opening of another size is refused");
  openings[0].size = openings[1].size = sizeof openings[0];
  exchange.size = sizeof exchange;
  for (int i = 0; i < 2; i++)
    check(usae_shared_begin(saes[i], 2, inputs, rows + (i ? 250 : 0), tokens[i], -1, NULL, &openings[i], &error) == USAE_OK &&
              openings[i].tokens == tokens[i],
          "a shared step begins");
  check(openings[0].encoder == openings[1].encoder && openings[0].fingerprint == openings[1].fingerprint,
        "copies draw alike and have one fingerprint");
  check(usae_step(saes[0], 2, inputs, NULL, 0, 0, USAE_STEP_TRAIN, NULL, &report, NULL, &error) == USAE_INVALID_ARGUMENT &&
            usae_initialize_from(saes[0], 2, names, inputs, NULL, &error) == USAE_INVALID_ARGUMENT,
        "nothing else may change it meanwhile");
  for (int i = 0; i < 2; i++)
    check(usae_shared_agree(saes[i], 2, tokens, i, &n, &error) == USAE_OK && n == 4, "three gradients and a summary");
  check(usae_shared_exchange(saes[0], n, &exchange, &error) == USAE_INVALID_ARGUMENT, "there are no more");
  for (int64_t e = 0; e < n; e++) {
    check(usae_shared_exchange(saes[0], e, &exchange, &error) == USAE_OK && !exchange.awaited &&
              exchange.kind == (e == n - 1 ? USAE_EXCHANGE_SUMMARY : USAE_EXCHANGE_GRADIENT) && exchange.count <= 16384,
          "exchanges say what they are");
    for (int i = 0; i < 2; i++)
      check(usae_shared_fill(saes[i], e, parts[i], exchange.count, NULL, &error) == USAE_OK, "a part is filled");
    for (int64_t c = 0; c < exchange.count; c++) sums[e][c] = parts[0][c] + parts[1][c];
    pointers[e] = sums[e];
    counts[e] = exchange.count;
  }
  for (int i = 0; i < 2; i++)
    check(usae_shared_finish(saes[i], n, pointers, counts, &report, losses, &error) == USAE_OK, "and the sums are taken");
  check(usae_step(saes[2], 2, inputs, NULL, 0, -1, USAE_STEP_TRAIN, NULL, &whole, NULL, &error) == USAE_OK &&
            whole.encoder == report.encoder && whole.step == report.step && whole.l0 == report.l0 &&
            fabs(whole.loss - report.loss) < 1e-5 * whole.loss,
        "one step of both is a step on all tokens");
  double difference = 0, norm = 0;
  for (int i = 0; i < 3; i++)
    check(usae_tensor_read(saes[i], 1, USAE_DICTIONARY, values[i], CONCEPTS * RIGHT, &error) == USAE_OK, "what was learned");
  for (int c = 0; c < CONCEPTS * RIGHT; c++) {
    difference += pow(values[0][c] - values[2][c], 2);
    norm += pow(values[2][c], 2);
  }
  check(memcmp(values[0], values[1], sizeof values[0]) == 0, "both have the same bits");
  check(difference < 1e-8 * norm, "and what one process has up to rounding");

  check(usae_shared_fill(saes[0], 0, parts[0], 1, NULL, &error) == USAE_INVALID_ARGUMENT, "no step is under way");
  check(usae_shared_begin(saes[0], 2, inputs, NULL, 0, -1, NULL, &openings[0], &error) == USAE_OK &&
            usae_shared_take(saes[0], 0, parts[0], 1, &error) == USAE_INVALID_ARGUMENT &&
            usae_shared_abandon(saes[0], &error) == USAE_OK && usae_step_count(saes[0]) == 1,
        "a mistake, or giving up, leaves the autoencoder as it was");
  check(usae_step(saes[0], 2, inputs, NULL, 0, -1, USAE_STEP_TRAIN, NULL, &report, NULL, &error) == USAE_OK,
        "and ready for another step");
  for (int i = 0; i < 3; i++) usae_destroy(saes[i]);
}

static void test_tensors(usae_sae *sae) {
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

static void test_use(usae_sae *sae) {
  usae_error error;
  usae_matrix x = matrix(left, TOKENS, LEFT), inputs[2] = {x, matrix(right, TOKENS, RIGHT)};
  static float values[TOKENS * K], out[TOKENS * RIGHT], pre[TOKENS * CONCEPTS];
  static int32_t indices[TOKENS * K];
  check(usae_encode(sae, 0, &x, values, indices, NULL, &error) == USAE_OK, "encode");
  check(usae_preactivations(sae, 0, &x, pre, NULL, &error) == USAE_OK, "preactivations");
  int agree = 1;
  for (int t = 0; t < TOKENS; t++)
    for (int q = 0; q < K; q++) {
      int32_t c = indices[t * K + q];
      if (c >= 0 && pre[t * CONCEPTS + c] != values[t * K + q]) agree = 0;
      if (c < 0 && values[t * K + q] != 0) agree = 0;
    }
  check(agree, "codes are pre-activations, unused slots are 0");
  check(usae_decode(sae, 1, TOKENS, K, values, indices, RIGHT, out, NULL, &error) == USAE_OK, "decode to the other model");
  check(usae_decode(sae, 1, TOKENS, K, values, indices, LEFT, out, NULL, &error) == USAE_SHAPE_MISMATCH,
        "room for another width is refused");
  indices[0] = CONCEPTS;
  check(usae_decode(sae, 1, TOKENS, K, values, indices, RIGHT, out, NULL, &error) == USAE_INVALID_ARGUMENT,
        "an index past the concepts is refused");
  double r2[4], l0[2], products[4 * CONCEPTS];
  int64_t fired[2 * CONCEPTS], pairs[4 * CONCEPTS], together[CONCEPTS], any[CONCEPTS];
  usae_evaluation evaluation;
  memset(&evaluation, 0, sizeof evaluation);
  evaluation.size = sizeof evaluation;
  evaluation.r2 = r2;
  evaluation.l0 = l0;
  evaluation.firing_counts = fired;
  evaluation.pair_cofire_counts = pairs;
  evaluation.cofire_counts = together;
  evaluation.union_counts = any;
  evaluation.code_products = products;
  check(usae_evaluate(sae, 2, inputs, 0, &evaluation, NULL, &error) == USAE_OK, "evaluate");
  int64_t total = 0;
  for (int c = 0; c < CONCEPTS; c++) total += fired[c];
  check(fabs(total - l0[0] * TOKENS) < 1e-6, "firings add up to L0");
  int consistent = 1;
  for (int c = 0; c < CONCEPTS; c++) {
    int64_t first = fired[c], second = fired[CONCEPTS + c], both = pairs[CONCEPTS + c];
    if (pairs[c] != first || pairs[3 * CONCEPTS + c] != second || pairs[2 * CONCEPTS + c] != both) consistent = 0;
    if (together[c] != both || any[c] != first + second - both) consistent = 0;
    double product = products[CONCEPTS + c];
    if (product != products[2 * CONCEPTS + c] || (product > 0) != (both > 0)) consistent = 0;
  }
  check(consistent, "counts of pairs, of all and of any model fit together");
  check(r2[0] > 0 && r2[0] < 1 && r2[3] > 0 && r2[3] < 1, "R2 is a share");
  check(usae_evaluate(sae, 2, inputs, -1, &evaluation, NULL, &error) == USAE_INVALID_ARGUMENT, "a negative threshold");
}

static void test_top_examples(usae_sae *sae) {
  enum { N = 3, IMAGE = 60 };
  usae_error error;
  usae_matrix x = matrix(left, TOKENS, LEFT);
  static float values[TOKENS * K], top[CONCEPTS * N];
  static int32_t indices[TOKENS * K];
  static int64_t tokens[CONCEPTS * N];
  usae_encode(sae, 0, &x, values, indices, NULL, &error);
  check(usae_top_examples(sae, 0, &x, N, 1, top, tokens, NULL, &error) == USAE_OK, "top examples");
  int right_ones = 1;
  for (int c = 0; c < CONCEPTS; c++) {
    /* How many codes stand before a row in the order: those of the examples must be 0, 1, 2. */
    int active = 0;
    for (int e = 0; e < TOKENS * K; e++) {
      if (indices[e] != c) continue;
      int before = 0;
      for (int f = 0; f < TOKENS * K; f++)
        if (indices[f] == c && (values[f] > values[e] || (values[f] == values[e] && f < e))) before++;
      if (before < N && (top[c * N + before] != values[e] || tokens[c * N + before] != e / K)) right_ones = 0;
      active++;
    }
    for (int q = active; q < N; q++)
      if (top[c * N + q] != 0 || tokens[c * N + q] != -1) right_ones = 0;
  }
  check(right_ones, "are the largest codes of each concept");
  check(usae_top_examples(sae, 0, &x, N, IMAGE, top, tokens, NULL, &error) == USAE_OK, "with one row of an image at most");
  int distinct = 1;
  for (int c = 0; c < CONCEPTS; c++)
    for (int q = 0; q < N; q++)
      for (int p = 0; p < q; p++)
        if (tokens[c * N + q] >= 0 && tokens[c * N + q] / IMAGE == tokens[c * N + p] / IMAGE) distinct = 0;
  check(distinct, "their images differ");
  tokens[0] = 77;
  check(usae_top_examples(sae, 0, &x, N, 7, top, tokens, NULL, &error) == USAE_SHAPE_MISMATCH && tokens[0] == 77,
        "rows that are no whole images are refused, and nothing is written");
  check(usae_top_examples(sae, 0, &x, 0, 1, top, tokens, NULL, &error) == USAE_INVALID_ARGUMENT, "so are no examples");
  check(usae_top_examples(sae, 0, &x, INT64_MAX, 1, top, tokens, NULL, &error) == USAE_INVALID_ARGUMENT,
        "and absurdly many");
  check(usae_top_examples(sae, 5, &x, N, 1, top, tokens, NULL, &error) == USAE_UNKNOWN_MODEL,
        "and a model that is not there");
}

static void test_process(void) {
  check(usae_set_threads(3, NULL) == USAE_OK && usae_threads() == 3, "the default number of threads");
  check(usae_set_threads(-1, NULL) == USAE_INVALID_ARGUMENT && usae_threads() == 3, "a negative one is refused");
  check(usae_set_threads(0, NULL) == USAE_OK && usae_threads() >= 1, "0 is all cores");
  check(strlen(usae_kernels()) > 0 && strlen(usae_blas()) > 0 && strlen(usae_version()) > 0, "names of what is in use");
}

/* One step with prefixes that reach to the end of the array. */
static void test_prefixes(void) {
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

static void test_selection_by_batch(void) {
  usae_recipe r = recipe();
  usae_error error;
  usae_sae *sae = NULL;
  r.selection = USAE_SELECTION_BATCHTOPK;
  r.k_max = K - 1;
  check(usae_create(CONCEPTS, K, 7, 0, &r, &sae, &error) == USAE_INVALID_ARGUMENT, "k_max below k is refused");
  check(strstr(error.message, "k_max") != NULL, "by name");
  r.k_max = 0;
  check(usae_create(CONCEPTS, K, 7, 0, &r, &sae, &error) == USAE_OK, "a selection by batch");
  check(usae_slots(sae) == 4 * K && usae_slots(NULL) == 0, "has room for 4 k concepts of a token");

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
  check(usae_tensor_read(sae, 0, USAE_THRESHOLD, &threshold, 1, &error) == USAE_OK && threshold > 0, "and sets the threshold");
  check(usae_encode(sae, 0, &inputs[0], values, indices, NULL, &error) == USAE_OK, "then codes");
  int above = 1;
  for (int i = 0; i < TOKENS * 4 * K; i++) above &= indices[i] == -1 ? values[i] == 0 : values[i] > threshold;
  check(above, "are above it");
  usae_destroy(sae);
}

static void test_fourier_transforms(void) {
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

static usae_image_options image_options(void) {
  usae_image_options o;
  memset(&o, 0, sizeof o);
  o.size = sizeof o;
  o.height = 20;
  o.width = 24;
  o.steps = 2;
  o.views = 3;
  o.learning_rate = 0.3;
  o.first_crop = 0.5;
  o.last_crop = 0.25;
  o.noise = 0.05;
  o.contrast = 1;
  o.seed = 3;
  o.decorrelate = 1;
  return o;
}

static void test_image_options(void) {
  usae_image_options o = image_options();
  usae_maximizer *made = NULL;
  usae_error error;
  static float start[3 * 20 * 24], magnitude[3 * 20 * 13];
  check(usae_maximizer_create(NULL, NULL, NULL, &made, &error) == USAE_INVALID_ARGUMENT, "NULL options are refused");
  check(usae_maximizer_create(&o, NULL, NULL, NULL, &error) == USAE_INVALID_ARGUMENT, "and no place for the maximizer");
  o.size = sizeof o - 8;
  check(usae_maximizer_create(&o, NULL, NULL, &made, &error) == USAE_INVALID_ARGUMENT, "another version is refused");
  check(strstr(error.message, "size") != NULL && made == NULL, "by name, and nothing is made");
#define REFUSED(field, value, sentence)                                                                             \
  o = image_options();                                                                                              \
  o.field = value;                                                                                                  \
  check(usae_maximizer_create(&o, NULL, NULL, &made, &error) == USAE_INVALID_ARGUMENT && made == NULL, sentence)
  REFUSED(parametrization, 3, "an unknown parametrization is refused");
  REFUSED(optimizer, -1, "an unknown optimizer");
  REFUSED(height, 0, "no rows");
  REFUSED(width, 8193, "a side above 8192");
  REFUSED(width, INT64_MIN, "a negative one");
  REFUSED(height, INT64_MAX, "an absurd one");
  REFUSED(steps, 0, "no steps");
  REFUSED(views, INT64_MAX, "absurdly many views");
  REFUSED(n_threads, -1, "negative threads");
  REFUSED(learning_rate, NAN, "a rate that is none");
  REFUSED(first_crop, 0, "crops of nothing");
  REFUSED(last_crop, 1.5, "crops past the canvas");
  REFUSED(noise, INFINITY, "infinite noise");
  REFUSED(contrast, -1, "negative contrast");
  REFUSED(l2, -1, "a negative weight");
#undef REFUSED
  o = image_options();
  start[7] = 1.5f;
  check(usae_maximizer_create(&o, NULL, start, &made, &error) == USAE_INVALID_ARGUMENT, "a start that is no image");
  check(strstr(error.message, "start") != NULL, "by name");
  magnitude[7] = -1;
  check(usae_maximizer_create(&o, magnitude, NULL, &made, &error) == USAE_INVALID_ARGUMENT, "and a negative magnitude");
  usae_maximizer_destroy(NULL);
  check(usae_maximizer_step_count(NULL) == -1, "a NULL maximizer has no steps");
}

static usae_view view_of(int64_t height, int64_t width) {
  usae_view view = {sizeof view, 0, height, width, {0.5, 0.5, 0.5}, {0.25, 0.25, 0.25}};
  return view;
}

static void test_image_steps(void) {
  enum { HEIGHT = 20, WIDTH = 24, PIXELS = HEIGHT * WIDTH, VIEWS = 3, SIDE = 16, COUNT = VIEWS * 3 * SIDE * SIDE };
  usae_image_options o = image_options();
  usae_maximizer *maximizer = NULL;
  usae_error error;
  usae_view view = view_of(SIDE, SIDE);
  static float views[COUNT], again[COUNT], gradient[COUNT], image[3 * PIXELS], next[3 * PIXELS];
  static float attribution[PIXELS], colours[3 * PIXELS], planes[3 * PIXELS];
  int64_t boxes[VIEWS * 4];
  double norm = -1;
  check(usae_maximizer_create(&o, NULL, NULL, &maximizer, &error) == USAE_OK && maximizer != NULL, "a maximizer");
  check(usae_maximizer_step_count(maximizer) == 0, "has done no steps");
  check(usae_maximizer_image(maximizer, image, &error) == USAE_OK, "and has an image");
  check(usae_maximizer_boxes(maximizer, boxes, &error) == USAE_OK, "boxes");
  int inside = 1;
  for (int v = 0; v < VIEWS; v++) {
    const int64_t *b = boxes + 4 * v;
    if (b[0] < 0 || b[1] < 0 || b[2] != 10 || b[3] != 10 || b[0] + 10 > HEIGHT || b[1] + 10 > WIDTH) inside = 0;
  }
  check(inside, "are half as large as the canvas's shorter side, and inside");
  check(usae_maximizer_views(maximizer, &view, views, NULL, &error) == USAE_OK, "views");
  check(usae_maximizer_views(maximizer, &view, again, NULL, &error) == USAE_OK && !memcmp(views, again, sizeof views),
        "are the same when asked for again");
  for (int i = 0; i < COUNT; i++) gradient[i] = sinf((float)i);
  check(usae_maximizer_add_gradient(maximizer, &view, 1, gradient, &norm, NULL, &error) == USAE_OK && norm > 0, "a gradient");
  check(usae_maximizer_gradients(maximizer, colours, planes, &error) == USAE_OK, "is seen");
  double square = 0;
  for (int i = 0; i < 3 * PIXELS; i++) square += colours[i] * colours[i];
  check(fabs(sqrt(square) - 1) < 1e-5, "with length 1");
  check(usae_maximizer_advance(maximizer, NULL, &error) == USAE_OK && usae_maximizer_step_count(maximizer) == 1, "a step");
  check(usae_maximizer_image(maximizer, next, &error) == USAE_OK && memcmp(image, next, sizeof image), "changes the image");
  gradient[5] = NAN;
  norm = -1;
  check(usae_maximizer_add_gradient(maximizer, &view, 1, gradient, &norm, NULL, &error) == USAE_INVALID_ARGUMENT && norm == -1,
        "NaN is refused");
  gradient[5] = 0;

  int asked = 0;
  usae_interrupt interrupt = {stop_at_once, &asked};
  check(usae_maximizer_views(maximizer, &view, again, &interrupt, &error) == USAE_INTERRUPTED, "an interrupt stops views");
  check(usae_maximizer_add_gradient(maximizer, &view, 1, gradient, NULL, &interrupt, NULL) == USAE_INTERRUPTED, "gradients");
  check(usae_maximizer_add_gradient(maximizer, &view, 1, gradient, &norm, NULL, &error) == USAE_OK, "which are taken again");
  check(usae_maximizer_advance(maximizer, &interrupt, &error) == USAE_INTERRUPTED, "and a step");
  check(asked > 0 && usae_maximizer_step_count(maximizer) == 1, "that leaves the count");
  check(usae_maximizer_advance(maximizer, NULL, &error) == USAE_OK && usae_maximizer_step_count(maximizer) == 2, "a last step");
  check(usae_maximizer_attribution(maximizer, attribution, &error) == USAE_OK, "attribution");
  int positive = 1;
  for (int i = 0; i < PIXELS; i++) positive &= attribution[i] >= 0 && isfinite(attribution[i]);
  check(positive, "is not negative");
  check(usae_maximizer_advance(maximizer, NULL, &error) == USAE_INVALID_ARGUMENT, "one step too many");
  check(strstr(error.message, "steps") != NULL, "by name");

  check(usae_maximizer_views(NULL, &view, views, NULL, &error) == USAE_INVALID_ARGUMENT, "a NULL maximizer has no views");
  check(usae_maximizer_views(maximizer, NULL, views, NULL, &error) == USAE_INVALID_ARGUMENT, "NULL is no view");
  check(usae_maximizer_views(maximizer, &view, NULL, NULL, &error) == USAE_INVALID_ARGUMENT, "and no room for one");
  check(usae_maximizer_add_gradient(NULL, &view, 1, gradient, &norm, NULL, &error) == USAE_INVALID_ARGUMENT, "nor gradients");
  check(usae_maximizer_add_gradient(maximizer, NULL, 1, gradient, &norm, NULL, NULL) == USAE_INVALID_ARGUMENT, "of no view");
  check(usae_maximizer_add_gradient(maximizer, &view, 1, NULL, &norm, NULL, NULL) == USAE_INVALID_ARGUMENT, "NULL is none");
  check(usae_maximizer_add_gradient(maximizer, &view, NAN, gradient, &norm, NULL, NULL) == USAE_INVALID_ARGUMENT, "or weight");
  check(usae_maximizer_advance(NULL, NULL, NULL) == USAE_INVALID_ARGUMENT, "NULL makes no step");
  check(usae_maximizer_image(NULL, image, NULL) == USAE_INVALID_ARGUMENT, "has no image");
  check(usae_maximizer_image(maximizer, NULL, NULL) == USAE_INVALID_ARGUMENT, "and is no room for one");
  check(usae_maximizer_attribution(NULL, attribution, NULL) == USAE_INVALID_ARGUMENT, "no attribution");
  check(usae_maximizer_attribution(maximizer, NULL, NULL) == USAE_INVALID_ARGUMENT, "nor room for it");
  check(usae_maximizer_boxes(NULL, boxes, NULL) == USAE_INVALID_ARGUMENT, "no boxes");
  check(usae_maximizer_boxes(maximizer, NULL, NULL) == USAE_INVALID_ARGUMENT, "nor room for them");
  check(usae_maximizer_gradients(NULL, colours, planes, NULL) == USAE_INVALID_ARGUMENT, "no gradients");
  check(usae_maximizer_gradients(maximizer, colours, NULL, NULL) == USAE_INVALID_ARGUMENT, "nor room for them");
  view.size = 8;
  check(usae_maximizer_views(maximizer, &view, views, NULL, NULL) == USAE_INVALID_ARGUMENT, "a view of another version");
  const int64_t bad[] = {0, -1, 8193, INT64_MAX, INT64_MIN};
  for (int i = 0; i < 5; i++) {
    view = view_of(bad[i], SIDE);
    check(usae_maximizer_views(maximizer, &view, views, NULL, NULL) == USAE_INVALID_ARGUMENT, "an impossible height");
    view = view_of(SIDE, bad[i]);
    check(usae_maximizer_add_gradient(maximizer, &view, 1, gradient, NULL, NULL, NULL) == USAE_INVALID_ARGUMENT, "or width");
  }
  view = view_of(SIDE, SIDE);
  view.std[1] = 0;
  check(usae_maximizer_views(maximizer, &view, views, NULL, NULL) == USAE_INVALID_ARGUMENT, "a deviation of 0");
  view.std[1] = 1;
  view.mean[2] = NAN;
  check(usae_maximizer_views(maximizer, &view, views, NULL, NULL) == USAE_INVALID_ARGUMENT, "a mean that is none");
  usae_maximizer_destroy(maximizer);
}

static void test_crops(void) {
  enum { HEIGHT = 8, WIDTH = 9, BOXES = 2, SIDE = 4 };
  usae_error error;
  usae_view view = view_of(SIDE, SIDE);
  static float image[3 * HEIGHT * WIDTH], out[BOXES * 3 * SIDE * SIDE];
  int64_t boxes[BOXES * 4] = {0, 0, 4, 4, 4, 5, 4, 4};
  for (int i = 0; i < 3 * HEIGHT * WIDTH; i++) image[i] = (float)i / 216;
  check(usae_crop_resize(HEIGHT, WIDTH, image, BOXES, boxes, &view, out, 1, &error) == USAE_OK, "crops");
  int same = 1;
  for (int b = 0; b < BOXES; b++)
    for (int c = 0; c < 3; c++)
      for (int y = 0; y < SIDE; y++)
        for (int x = 0; x < SIDE; x++) {
          const float pixel = image[(c * HEIGHT + (int)boxes[4 * b] + y) * WIDTH + (int)boxes[4 * b + 1] + x];
          if (fabsf(out[((b * 3 + c) * SIDE + y) * SIDE + x] - (pixel - 0.5f) / 0.25f) > 1e-6f) same = 0;
        }
  check(same, "of the views' own size are the pixels, scaled");
  out[0] = 77;
  boxes[4] = 5;
  check(usae_crop_resize(HEIGHT, WIDTH, image, BOXES, boxes, &view, out, 1, &error) == USAE_INVALID_ARGUMENT && out[0] == 77,
        "a box past the image is refused, and nothing is written");
  check(strstr(error.message, "boxes") != NULL, "by name");
  boxes[4] = INT64_MAX;
  check(usae_crop_resize(HEIGHT, WIDTH, image, BOXES, boxes, &view, out, 1, NULL) == USAE_INVALID_ARGUMENT, "an absurd one");
  boxes[4] = 4;
  boxes[6] = 3;
  check(usae_crop_resize(HEIGHT, WIDTH, image, BOXES, boxes, &view, out, 1, NULL) == USAE_INVALID_ARGUMENT, "of two sizes");
  boxes[6] = 4;
  check(usae_crop_resize(HEIGHT, WIDTH, image, 0, boxes, &view, out, 1, NULL) == USAE_INVALID_ARGUMENT, "none");
  check(usae_crop_resize(HEIGHT, WIDTH, image, INT64_MAX, boxes, &view, out, 1, NULL) == USAE_INVALID_ARGUMENT, "too many");
  check(usae_crop_resize(0, WIDTH, image, 1, boxes, &view, out, 1, NULL) == USAE_INVALID_ARGUMENT, "an image without rows");
  check(usae_crop_resize(HEIGHT, 8193, image, 1, boxes, &view, out, 1, NULL) == USAE_INVALID_ARGUMENT, "one too wide");
  check(usae_crop_resize(HEIGHT, WIDTH, image, 1, boxes, &view, out, -1, NULL) == USAE_INVALID_ARGUMENT, "negative threads");
  check(usae_crop_resize(HEIGHT, WIDTH, NULL, 1, boxes, &view, out, 1, NULL) == USAE_INVALID_ARGUMENT, "no image");
  check(usae_crop_resize(HEIGHT, WIDTH, image, 1, NULL, &view, out, 1, NULL) == USAE_INVALID_ARGUMENT, "no boxes");
  check(usae_crop_resize(HEIGHT, WIDTH, image, 1, boxes, NULL, out, 1, NULL) == USAE_INVALID_ARGUMENT, "no view");
  check(usae_crop_resize(HEIGHT, WIDTH, image, 1, boxes, &view, NULL, 1, NULL) == USAE_INVALID_ARGUMENT, "and no room");
}

static void test_objective(usae_sae *sae) {
  enum { VIEWS = 10 };
  usae_error error;
  usae_matrix x = matrix(left, TOKENS, LEFT);
  static float pre[TOKENS * CONCEPTS], gradient[TOKENS * LEFT];
  double values[VIEWS];
  const int concept = 3;
  usae_preactivations(sae, 0, &x, pre, NULL, &error);
#define STATUS(model, concept, kind, power, token, views, x) \
  usae_objective(sae, model, concept, kind, power, token, views, x, values, gradient, NULL, &error)
  check(STATUS(0, concept, USAE_OBJECTIVE_PREACTIVATION, 0, -1, VIEWS, &x) == USAE_OK, "an objective");
  int means = 1;
  for (int v = 0; v < VIEWS; v++) {
    double sum = 0;
    for (int t = 0; t < TOKENS / VIEWS; t++) sum += pre[(v * (TOKENS / VIEWS) + t) * CONCEPTS + concept];
    if (fabs(values[v] - sum / (TOKENS / VIEWS)) > 1e-4) means = 0;
  }
  check(means, "is the mean of pre-activations");
  check(STATUS(0, concept, USAE_OBJECTIVE_ALIGNMENT, 2, 4, VIEWS, &x) == USAE_OK, "of one token");
  int alone = 1;
  for (int i = 0; i < TOKENS * LEFT; i++)
    if ((gradient[i] != 0) && i / LEFT % (TOKENS / VIEWS) != 4) alone = 0;
  check(alone, "no other has a gradient");
  check(STATUS(0, concept, USAE_OBJECTIVE_CODE, 0, -1, VIEWS, &x) == USAE_OK, "codes");
  check(STATUS(0, concept, USAE_OBJECTIVE_LOG_SUM_EXP, 0, -1, VIEWS, &x) == USAE_OK, "and soft maxima are known");
  check(STATUS(0, concept, 4, 0, -1, VIEWS, &x) == USAE_INVALID_ARGUMENT, "others are refused");
  check(STATUS(7, concept, 1, 0, -1, VIEWS, &x) == USAE_UNKNOWN_MODEL, "so is a model that is not there");
  check(STATUS(-1, concept, 1, 0, -1, VIEWS, &x) == USAE_UNKNOWN_MODEL, "or has a negative number");
  check(STATUS(1, concept, 1, 0, -1, VIEWS, &x) == USAE_SHAPE_MISMATCH, "activations of another width");
  check(STATUS(0, CONCEPTS, 1, 0, -1, VIEWS, &x) == USAE_INVALID_ARGUMENT, "a concept past the last");
  check(STATUS(0, INT64_MIN, 1, 0, -1, VIEWS, &x) == USAE_INVALID_ARGUMENT, "a negative one");
  check(STATUS(0, concept, 0, NAN, -1, VIEWS, &x) == USAE_INVALID_ARGUMENT, "a power that is none");
  check(STATUS(0, concept, 0, 101, -1, VIEWS, &x) == USAE_INVALID_ARGUMENT, "a huge one");
  check(STATUS(0, concept, 1, 0, TOKENS / VIEWS, VIEWS, &x) == USAE_INVALID_ARGUMENT, "a token past the last");
  check(STATUS(0, concept, 1, 0, INT64_MAX, VIEWS, &x) == USAE_INVALID_ARGUMENT, "an absurd one");
  check(STATUS(0, concept, 1, 0, -1, 0, &x) == USAE_INVALID_ARGUMENT, "no views");
  check(STATUS(0, concept, 1, 0, -1, INT64_MAX, &x) == USAE_INVALID_ARGUMENT, "too many");
  check(STATUS(0, concept, 1, 0, -1, 7, &x) == USAE_SHAPE_MISMATCH, "views that tokens cannot be divided among");
  check(STATUS(0, concept, 1, 0, -1, VIEWS, NULL) == USAE_INVALID_ARGUMENT, "and no activations");
#undef STATUS
  check(usae_objective(NULL, 0, 0, 1, 0, -1, VIEWS, &x, values, gradient, NULL, NULL) == USAE_INVALID_ARGUMENT, "NULL");
  check(usae_objective(sae, 0, 0, 1, 0, -1, VIEWS, &x, NULL, gradient, NULL, NULL) == USAE_INVALID_ARGUMENT, "no room");
  check(usae_objective(sae, 0, 0, 1, 0, -1, VIEWS, &x, values, NULL, NULL, NULL) == USAE_INVALID_ARGUMENT, "or the gradient");
}

int main(void) {
  fill(left, TOKENS * LEFT, 1);
  fill(right, TOKENS * RIGHT, 2);
  test_statuses_and_words();
  usae_recipe r = recipe();
  usae_error error;
  usae_sae *sae = NULL;
  check(usae_create(CONCEPTS, K, 7, 0, &r, &sae, &error) == USAE_OK && sae != NULL, "create");
  test_before_initialisation(sae);
  test_training(sae);
  test_tensors(sae);
  test_use(sae);
  test_top_examples(sae);
  test_process();
  test_prefixes();
  test_shared_steps();
  test_selection_by_batch();
  test_fourier_transforms();
  test_image_options();
  test_image_steps();
  test_crops();
  test_objective(sae);
  usae_destroy(sae);
  printf("%d passed, %d failed\n", passed, failed);
  return failed != 0;
}
