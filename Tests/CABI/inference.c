#include "check.h"

/* An interrupt's progress: keeps the newest number in the int64_t at `context`, or -1 once it does not grow. */
static void count_rows(void *context, int64_t rows) {
  int64_t *seen = context;
  *seen = rows > *seen ? rows : -1;
}

void test_use(usae_sae *sae) {
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
        "another width is refused");
  /* Some of the rows, in place of a copy of them. */
  static const int64_t some[] = {1, 4, TOKENS - 1}, twice[] = {1, 1}, beyond[] = {0, TOKENS};
  static float of_some[3 * K];
  static int32_t indices_of_some[3 * K];
  usae_matrix selected = x;
  selected.rows = some;
  selected.n_rows = 3;
  check(usae_encode(sae, 0, &selected, of_some, indices_of_some, NULL, &error) == USAE_OK, "encode some rows");
  for (int t = 0; t < 3; t++)
    check(memcmp(of_some + t * K, values + some[t] * K, K * sizeof *values) == 0, "codes of the rows that are selected");
  selected.n_rows = 2;
  selected.rows = twice;
  check(usae_encode(sae, 0, &selected, of_some, indices_of_some, NULL, &error) == USAE_INVALID_ARGUMENT, "a row twice");
  selected.rows = beyond;
  check(usae_encode(sae, 0, &selected, of_some, indices_of_some, NULL, &error) == USAE_INVALID_ARGUMENT, "a row too far");
  selected.rows = NULL;
  check(usae_encode(sae, 0, &selected, of_some, indices_of_some, NULL, &error) == USAE_INVALID_ARGUMENT, "rows that are NULL");
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
  int64_t seen = 0;
  usae_interrupt told = {.context = &seen, .progress = count_rows};
  check(usae_evaluate(sae, 2, inputs, 0, &evaluation, &told, &error) == USAE_OK && seen == TOKENS, "progress ends at all rows");
  check(usae_evaluate(sae, 2, inputs, -1, &evaluation, NULL, &error) == USAE_INVALID_ARGUMENT, "a negative threshold");
}

void test_top_examples(usae_sae *sae) {
  enum { N = 3, IMAGE = 60 };
  usae_error error;
  usae_matrix x = matrix(left, TOKENS, LEFT);
  static float values[TOKENS * K], top[CONCEPTS * N];
  static int32_t indices[TOKENS * K];
  static int64_t tokens[CONCEPTS * N];
  usae_encode(sae, 0, &x, values, indices, NULL, &error);
  int64_t seen = 0;
  usae_interrupt told = {.context = &seen, .progress = count_rows};
  check(usae_top_examples(sae, 0, &x, N, 1, top, tokens, &told, &error) == USAE_OK, "top examples");
  check(seen == TOKENS, "with their progress");
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

/* No rows in every way, and more than can be counted. */
void test_strange_sizes(usae_sae *sae) {
  usae_error error;
  static float values[CONCEPTS * K];
  static int32_t indices[CONCEPTS * K];
  static int64_t tokens[CONCEPTS];
  const int64_t none[][2] = {{4, 0}, {0, 4}, {0, 0}, {1ll << 40, 0}};
  const int64_t many[][2] = {{1ll << 62, 1}, {1ll << 31, 1ll << 31}, {-4, -4}};
  for (int i = 0; i < 4; i++) {
    usae_matrix x = matrix(left, none[i][0], LEFT);
    x.inner = none[i][1];
    values[0] = 77;
    check(usae_encode(sae, 0, &x, values, indices, NULL, &error) == USAE_OK && values[0] == 77, "codes of no rows");
    check(usae_preactivations(sae, 0, &x, values, NULL, &error) == USAE_OK && values[0] == 77, "pre-activations of none");
    check(usae_top_examples(sae, 0, &x, 1, 1, values, tokens, NULL, &error) == USAE_OK && tokens[0] == -1, "no examples");
  }
  for (int i = 0; i < 3; i++) {
    usae_matrix x = matrix(left, many[i][0], LEFT), both[2] = {x, x};
    x.inner = both[0].inner = both[1].inner = many[i][1];
    both[1].columns = RIGHT;
    usae_evaluation evaluation = {.size = sizeof evaluation};
    check(usae_encode(sae, 0, &x, values, indices, NULL, &error) == USAE_INVALID_ARGUMENT, "too many rows for codes");
    check(usae_top_examples(sae, 0, &x, 1, 1, values, tokens, NULL, &error) == USAE_INVALID_ARGUMENT, "for examples");
    check(usae_evaluate(sae, 2, both, 0, &evaluation, NULL, &error) == USAE_INVALID_ARGUMENT, "for an evaluation");
    check(usae_check_finite(sae, 2, both, NULL, &error) == USAE_INVALID_ARGUMENT, "for a look");
    check(usae_step(sae, 2, both, NULL, 0, 0, USAE_STEP_TRAIN, NULL, NULL, NULL, &error) == USAE_INVALID_ARGUMENT, "a step");
  }
  const int64_t sizes[] = {-1, 1ll << 41, 1ll << 62};
  for (int i = 0; i < 3; i++) {
    usae_matrix inputs[2] = {matrix(left, TOKENS, LEFT), matrix(right, TOKENS, RIGHT)};
    check(usae_decode(sae, 0, sizes[i], K, values, indices, LEFT, values, NULL, &error) == USAE_INVALID_ARGUMENT, "rows");
    check(usae_decode(sae, 0, 1, sizes[i], values, indices, LEFT, values, NULL, &error) == USAE_INVALID_ARGUMENT, "slots");
    check(usae_step(sae, 2, inputs, tokens, sizes[i], 0, USAE_STEP_TRAIN, NULL, NULL, NULL, &error) == USAE_INVALID_ARGUMENT,
          "rows of a batch");
    check(usae_initialize(sae, i == 0 ? -1 : 1 << 30, names, tokens, &error) == USAE_INVALID_ARGUMENT, "models");
  }
  usae_matrix one = matrix(left, TOKENS, LEFT);
  check(usae_step(sae, 1 << 30, &one, NULL, 0, 0, USAE_STEP_TRAIN, NULL, NULL, NULL, &error) == USAE_INVALID_ARGUMENT,
        "as many models as nobody has");
  int64_t selected[] = {1, 2};
  one.rows = selected;
  one.n_rows = 1ll << 62;
  check(usae_encode(sae, 0, &one, values, indices, NULL, &error) == USAE_INVALID_ARGUMENT, "more selected rows than there are");
}
