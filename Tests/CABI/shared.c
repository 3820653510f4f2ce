#include "check.h"

/* Two processes in one: the first has 250 of the tokens, the second the rest. */
void test_shared_steps(void) {
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
  exchange.reserved = 7;
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
    check(usae_shared_exchange(saes[0], e, &exchange, &error) == USAE_OK && !exchange.awaited && !exchange.reserved &&
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
  for (int mistake = 0; mistake < 5; mistake++) {
    check(usae_shared_begin(saes[0], 2, inputs, NULL, 0, -1, NULL, &openings[0], &error) == USAE_OK, "another step begins");
    tokens[0] = TOKENS;
    usae_status status = USAE_OK;
    if (mistake == 0) status = usae_shared_agree(saes[0], 1ll << 62, tokens, 0, &n, &error);
    if (mistake == 1) status = usae_shared_agree(saes[0], 1, NULL, 0, &n, &error);
    if (mistake > 1) check(usae_shared_agree(saes[0], 1, tokens, 0, &n, &error) == USAE_OK, "its processes agree");
    if (mistake == 2) status = usae_shared_fill(saes[0], 0, NULL, 1, NULL, &error);
    if (mistake == 3) status = usae_shared_fill(saes[0], 0, parts[0], -1, NULL, &error);
    if (mistake == 4) status = usae_shared_finish(saes[0], 1ll << 50, pointers, counts, NULL, NULL, &error);
    check(status != USAE_OK && usae_shared_exchange(saes[0], 0, &exchange, &error) == USAE_INVALID_ARGUMENT,
          "and ends with any mistake");
  }
  check(usae_shared_begin(saes[0], 2, inputs, NULL, 0, -1, NULL, &openings[0], &error) == USAE_OK &&
            usae_shared_take(saes[0], 0, parts[0], 1, &error) == USAE_INVALID_ARGUMENT &&
            usae_shared_abandon(saes[0], &error) == USAE_OK && usae_step_count(saes[0]) == 1,
        "a mistake, or giving up, leaves the autoencoder as it was");
  check(usae_step(saes[0], 2, inputs, NULL, 0, -1, USAE_STEP_TRAIN, NULL, &report, NULL, &error) == USAE_OK,
        "and ready for another step");
  for (int i = 0; i < 3; i++) usae_destroy(saes[i]);
}
