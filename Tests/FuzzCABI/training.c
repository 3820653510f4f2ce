#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

/* Rows of a batch, in memory of its own: some of those that there are, none, or one that there is not. */
static int64_t *any_rows(int64_t total, int64_t *count) {
  *count = chance(3) ? 0 : between(1, 60);
  int64_t *rows = malloc((size_t)(*count > 0 ? *count : 1) * sizeof *rows);
  if (rows == NULL) abort();
  for (int64_t i = 0; i < *count; i++) rows[i] = total > 0 ? below(total) : 0;
  if (chance(4) && *count > 0) rows[below(*count)] = chance(50) ? total : limit();
  return rows;
}

static int32_t any_encoder(const usae_sae *sae) { return chance(50) ? -1 : any_model(sae); }

/* Gradients in their memory. */
static int64_t tensors_of_gradients(const usae_sae *sae, int32_t encoder, usae_tensor *tensors, array *memory) {
  static const int32_t kinds[] = {USAE_ENCODER_WEIGHT, USAE_ENCODER_BIAS, USAE_DICTIONARY, USAE_BN_WEIGHT, USAE_MEAN};
  const int64_t n = below(4);
  for (int64_t i = 0; i < n; i++) {
    const int32_t kind = kinds[below(5)], model = encoder < 0 ? 0 : encoder;
    int64_t rows = 0, columns = 0;
    usae_tensor_shape(sae, model, kind, &rows, &columns, NULL);
    const int64_t count = rows * (columns > 0 ? columns : 1);
    memory[i] = array_make(count, 4);
    tensors[i] = (usae_tensor){model, kind + (chance(90) ? USAE_GRADIENT : 0), or_null(memory[i].data), count + chance(3)};
  }
  return n;
}

static void step(handle *h) {
  int64_t widths[MOST_MODELS], n_rows = 0;
  const int32_t n = models_of(h->sae, widths);
  activations x = activations_make(n, widths, true);
  if (chance(25)) leave_out_models(&x);
  int64_t *rows = chance(50) ? NULL : any_rows(rows_of_batch(&x), &n_rows);
  const int32_t encoder = any_encoder(h->sae);
  array report = array_make(1, sizeof(usae_step_report)), losses = array_make((int64_t)n * n, sizeof(double));
  ((usae_step_report *)report.data)->size = chance(95) ? sizeof(usae_step_report) : (uint32_t)(8 * below(15));
  memcpy(report.copy, report.data, report.bytes);
  const uint64_t before = state_of(h->sae);
  const int64_t refused = chance(50) ? -1 - below(9) : (1 << 24) + 1 + (limit() & INT64_MAX) / 2;
  const int64_t told = rows != NULL && chance(3) ? refused : n_rows;
  usae_tensor tensors[4];
  array memory[4];
  int64_t n_tensors = 0;
  usae_status status;
  if (chance(80)) {
    const int32_t mode = (int32_t)(chance(90) ? USAE_STEP_TRAIN : chance(80) ? USAE_STEP_GRADIENTS : limit());
    status = CALL(usae_step, h->sae, x.n_models, or_null(x.inputs), rows, told, encoder, mode, interrupt(false),
                  or_null(report.data), or_null(losses.data));
  } else {
    n_tensors = tensors_of_gradients(h->sae, encoder, tensors, memory);
    status = CALL(usae_gradients, h->sae, x.n_models, or_null(x.inputs), rows, told, encoder, n_tensors, or_null(tensors),
                  interrupt(false), or_null(report.data), or_null(losses.data));
    require(before == state_of(h->sae), "gradients change no parameter");
  }
  if (status != USAE_OK) {
    require(is_unchanged(&report) && is_unchanged(&losses), "no report after a failure");
    for (int64_t i = 0; i < n_tensors; i++) require(is_unchanged(&memory[i]), "no gradients after a failure");
    require(before == state_of(h->sae), "the autoencoder is as it was after a step that failed");
  } else {
    require_finite(h);
  }
  for (int64_t i = 0; i < n_tensors; i++) array_free(&memory[i]);
  array_free(&report);
  array_free(&losses);
  free(rows);
  activations_free(&x);
}

static void step_encoders(handle *h) {
  const int32_t n = usae_model_count(h->sae);
  array encoders = array_make(n, sizeof(int32_t));
  int32_t count = -1;
  int32_t present[MOST_MODELS + 1];
  for (int j = 0; j <= MOST_MODELS; j++) present[j] = chance(97) ? (int32_t)below(2) : (int32_t)limit();
  const int32_t told = chance(95) ? n : (int32_t)limit();
  const bool has_all = chance(50);
  const usae_status status =
      has_all ? CALL(usae_step_encoders, h->sae, any_encoder(h->sae), or_null(encoders.data), &count)
              : CALL(usae_batch_encoders, h->sae, told, or_null(present), any_encoder(h->sae), or_null(encoders.data), &count);
  if (status != USAE_OK) require(is_unchanged(&encoders) && count == -1, "no encoders after a failure");
  require(status != USAE_OK || (count >= 1 && count <= n), "one encoder, or more");
  for (int32_t i = 0; i < count; i++) {
    const int32_t one = ((int32_t *)encoders.data)[i];
    require(one >= 0 && one < n, "encoders are models");
    require(has_all || present[one] == 1, "that the batch has");
    for (int32_t j = 0; j < i; j++) require(((int32_t *)encoders.data)[j] != one, "and differ");
  }
  array_free(&encoders);
}

static void shuffle(void) {
  array rows = array_make(between(0, 40), sizeof(int64_t));
  const int64_t total = chance(80) ? between(1, 100) : limit(), position = chance(80) ? below(1000) : limit();
  const int64_t refused = chance(50) ? -1 - below(9) : (1ll << 40) + 1 + below(1ll << 40);
  const int64_t count = chance(95) ? (int64_t)(rows.bytes / 8) : refused;
  const usae_status status = CALL(usae_shuffled_rows, bits(), total, position, count, or_null(rows.data));
  if (status != USAE_OK) require(is_unchanged(&rows), "no rows after a failure");
  for (int64_t i = 0; status == USAE_OK && i < count; i++)
    require(((int64_t *)rows.data)[i] >= 0 && ((int64_t *)rows.data)[i] < total, "rows are below their number");
  array_free(&rows);
}

static void check_finite(handle *h) {
  int64_t widths[MOST_MODELS];
  activations x = activations_make(models_of(h->sae, widths), widths, true);
  CALL(usae_check_finite, h->sae, x.n_models, or_null(x.inputs), interrupt(row_count(&x.inputs[0]) > 1 << 20));
  activations_free(&x);
}

void fuzz_training(handle *h) {
  if (chance(85)) step(h);
  else if (chance(40)) check_finite(h);
  else if (chance(40)) step_encoders(h);
  else shuffle();
}
