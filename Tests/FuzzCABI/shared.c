#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

/* Steps that processes share. Two processes are played by one: the other's part is equal, so that sums are twice the own part.
 * In a third of the steps something in a sum is not what two processes can have. */

void shared_forget(handle *h) {
  if (h->sums != NULL)
    for (int64_t i = 0; i < h->n_exchanges; i++) free(h->sums[i]);
  free(h->sums);
  free(h->counts);
  const handle kept = {.sae = h->sae, .is_extreme = h->is_extreme};
  *h = kept;
}

/* A call has failed, so that the step has ended. */
static void has_ended(handle *h, uint64_t before) {
  usae_exchange exchange = {.size = sizeof exchange};
  require(usae_shared_exchange(h->sae, 0, &exchange, NULL) != USAE_OK, "the step has ended after a failure");
  require(before == state_of(h->sae), "the autoencoder is as it was after a shared step that failed");
  shared_forget(h);
}

static void begin(handle *h) {
  int64_t widths[MOST_MODELS];
  activations x = activations_make(models_of(h->sae, widths), widths, false);
  if (chance(25)) leave_out_models(&x);
  array opening = array_make(1, sizeof(usae_shared_opening));
  ((usae_shared_opening *)opening.data)->size = chance(97) ? sizeof(usae_shared_opening) : (uint32_t)(8 * below(5));
  memcpy(opening.copy, opening.data, opening.bytes);
  const usae_status status = CALL(usae_shared_begin, h->sae, x.n_models, or_null(x.inputs), NULL, 0,
                                  chance(50) ? -1 : any_model(h->sae), interrupt(false), or_null(opening.data));
  if (status == USAE_OK) {
    h->is_begun = true;
    h->is_odd = chance(33);
    h->tokens = rows_of_batch(&x);
  } else {
    require(is_unchanged(&opening), "no opening after a failure");
  }
  array_free(&opening);
  activations_free(&x);
}

static void agree(handle *h) {
  const uint64_t before = state_of(h->sae);
  int64_t tokens[] = {h->tokens, h->tokens}, n = 0;
  int64_t processes = 2, rank = below(2);
  if (chance(3)) tokens[below(2)] = limit();
  if (chance(3)) processes = chance(50) ? -below(3) : (1 << 20) + 1 + (limit() & INT64_MAX) / 2;
  if (chance(3)) rank = limit();
  if (CALL(usae_shared_agree, h->sae, processes, or_null(tokens), rank, or_null(&n)) != USAE_OK) {
    require(n == 0, "no number of exchanges after a failure");
    has_ended(h, before);
    return;
  }
  h->is_agreed = true;
  h->rank = rank;
  h->n_exchanges = n;
  h->sums = calloc((size_t)n, sizeof *h->sums);
  h->counts = calloc((size_t)n, sizeof *h->counts);
  for (int64_t i = 0; i < n; i++) {
    usae_exchange exchange = {.size = sizeof exchange};
    require(CALL(usae_shared_exchange, h->sae, i, &exchange) == USAE_OK && exchange.count >= 0, "an exchange");
    h->counts[i] = exchange.count;
    h->sums[i] = calloc((size_t)exchange.count, sizeof(float));
  }
  usae_exchange exchange = {.size = sizeof exchange};
  require(CALL(usae_shared_exchange, h->sae, chance(50) ? n : -1, or_null(&exchange)) != USAE_OK, "there are no more");
}

/* What a process that fails, or a network, may make of a sum. */
static void damage(float *sum, int64_t count) {
  if (count == 0) return;
  switch (below(5)) {
  case 0: memset(sum, 0, (size_t)count * sizeof *sum); break; /* as if both had failed */
  case 1:
    for (int64_t i = 0; i < count; i++) sum[i] /= 2; /* as if one had */
    break;
  case 2:
    for (int64_t i = 0; i < count; i++) {
      const uint32_t word = (uint32_t)bits();
      memcpy(&sum[i], &word, sizeof word);
    }
    break;
  default:
    for (int64_t changes = between(1, 3); changes > 0; changes--) {
      float *const place = sum + below(chance(50) ? count : count < 8 ? count : 8);
      *place = chance(60) ? (float)odd_number() : *place + (float)between(-2, 2);
    }
  }
}

static void fill(handle *h) {
  const uint64_t before = state_of(h->sae);
  const int64_t number = chance(98) ? h->next : limit();
  usae_exchange exchange = {.size = sizeof exchange};
  require(usae_shared_exchange(h->sae, h->next, &exchange, NULL) == USAE_OK, "the next exchange");
  float *const sum = h->sums[h->next];
  const int64_t count = chance(98) ? exchange.count : chance(50) ? limit() & ~7ll : exchange.count - 1;
  if (CALL(usae_shared_fill, h->sae, number, or_null(sum), count, interrupt(false)) != USAE_OK) {
    has_ended(h, before);
    return;
  }
  for (int64_t i = 0; i < exchange.count; i++) sum[i] *= 2;
  if (exchange.kind == USAE_EXCHANGE_TIES) sum[h->rank] /= 2, sum[1 - h->rank] = sum[h->rank];
  if (h->is_odd && chance(30)) damage(sum, exchange.count);
  h->is_awaited = exchange.awaited == 1;
  if (!h->is_awaited) h->next++;
}

static void take(handle *h) {
  const uint64_t before = state_of(h->sae);
  const int64_t at = h->next < h->n_exchanges ? h->next : 0; /* all are filled, and this is one too many */
  const int64_t number = chance(98) ? h->next : limit(), count = h->counts[at];
  const usae_status status = CALL(usae_shared_take, h->sae, number, or_null(h->sums[at]), chance(98) ? count : count - 1);
  if (status != USAE_OK) {
    has_ended(h, before);
    return;
  }
  h->is_awaited = false;
  h->next++;
}

static void finish(handle *h) {
  const uint64_t before = state_of(h->sae);
  array report = array_make(1, sizeof(usae_step_report));
  const int64_t n_models = usae_model_count(h->sae);
  array losses = array_make(n_models * n_models, sizeof(double));
  ((usae_step_report *)report.data)->size = sizeof(usae_step_report);
  memcpy(report.copy, report.data, report.bytes);
  if (h->n_exchanges > 0 && chance(2)) {
    const int64_t odd = below(h->n_exchanges);
    h->counts[odd] = chance(50) ? -1 : h->counts[odd] - 1;
  }
  const int64_t n = chance(97) ? h->n_exchanges : chance(50) ? h->n_exchanges + 1 + (limit() & INT64_MAX) / 2 : -1;
  const usae_status status = CALL(usae_shared_finish, h->sae, n, or_null((void *)h->sums), or_null(h->counts),
                                  or_null(report.data), or_null(losses.data));
  if (status == USAE_OK) {
    require_finite(h);
    shared_forget(h);
  } else {
    require(is_unchanged(&report) && is_unchanged(&losses), "no report after a failure");
    has_ended(h, before);
  }
  array_free(&report);
  array_free(&losses);
}

/* One call of a shared step, mostly the next one. Other calls come in between. */
void fuzz_shared(handle *h) {
  if (h->is_begun && usae_model_count(h->sae) == 0) shared_forget(h);
  if (!h->is_begun) {
    if (chance(95)) {
      begin(h);
      return;
    }
    float number = 0;
    require(CALL(usae_shared_fill, h->sae, 0, &number, 1, NULL) != USAE_OK, "no step is under way");
    require(CALL(usae_shared_take, h->sae, 0, &number, 1) != USAE_OK, "no step is under way");
  } else if (chance(2)) {
    require(CALL(usae_shared_abandon, h->sae) == USAE_OK || h->sae == NULL, "a step is abandoned");
    shared_forget(h);
  } else if (!h->is_agreed) {
    agree(h);
  } else if (h->is_awaited ? chance(97) : chance(1)) {
    take(h);
  } else if (h->next < h->n_exchanges) {
    fill(h);
  } else {
    finish(h);
  }
}
