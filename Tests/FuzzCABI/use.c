#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

static int64_t rows_of(const activations *x) {
  const int64_t rows = row_count(&x->inputs[0]);
  return rows > 1 << 20 ? 0 : rows; /* of endless rows the call is interrupted before it writes: see below */
}

static activations one_model(const usae_sae *sae, int32_t model) {
  int64_t width = usae_model_width(sae, model);
  if (width == 0) width = 5;
  return activations_make(1, &width, false);
}

static void encode(const usae_sae *sae) {
  const int32_t model = any_model(sae);
  activations x = one_model(sae, model);
  const int64_t n = rows_of(&x) * usae_slots(sae);
  array values = array_make(n, 4), indices = array_make(n, 4);
  const usae_status status =
      CALL(usae_encode, sae, model, or_null(x.inputs), or_null(values.data), or_null(indices.data), interrupt(false));
  if (status != USAE_OK && status != USAE_INTERRUPTED && status != USAE_NOT_FINITE)
    require(is_unchanged(&values) && is_unchanged(&indices), "no codes after a failure");
  for (int64_t i = 0; status == USAE_OK && i < n; i++) {
    const int32_t index = ((int32_t *)indices.data)[i];
    require(index >= -1 && index < usae_concepts(sae), "indices are concepts");
  }
  array_free(&values);
  array_free(&indices);
  activations_free(&x);
}

static void decode(const usae_sae *sae) {
  const int32_t model = any_model(sae);
  const int64_t n = below(40), slots = below(9), width = chance(97) ? usae_model_width(sae, model) : below(40);
  array values = array_make(n * slots, 4), indices = array_make(n * slots, 4), out = array_make(n * width, 4);
  for (int64_t i = 0; i < n * slots; i++) {
    ((float *)values.data)[i] = (float)real();
    ((int32_t *)indices.data)[i] = (int32_t)between(-1, usae_concepts(sae) - 1);
  }
  if (chance(10) && n * slots > 0) ((int32_t *)indices.data)[below(n * slots)] = (int32_t)limit();
  if (chance(10) && n * slots > 0) ((float *)values.data)[below(n * slots)] = (float)odd_number();
  int64_t told_n = n, told_slots = slots;
  if (chance(3)) told_n = chance(50) ? -1 - below(9) : (1ll << 40) + 1 + (limit() & INT64_MAX) / 2;
  if (chance(3)) told_slots = chance(50) ? -1 - below(9) : MOST_CONCEPTS + 1 + (limit() & INT64_MAX) / 2;
  const usae_status status = CALL(usae_decode, sae, model, told_n, told_slots, or_null(values.data), or_null(indices.data),
                                  width, or_null(out.data), interrupt(false));
  if (status != USAE_OK && status != USAE_INTERRUPTED && status != USAE_NOT_FINITE)
    require(is_unchanged(&out), "nothing decoded after a failure");
  array_free(&values);
  array_free(&indices);
  array_free(&out);
}

static void preactivations(const usae_sae *sae) {
  const int32_t model = any_model(sae);
  activations x = one_model(sae, model);
  array out = array_make(rows_of(&x) * usae_concepts(sae), 4);
  const usae_status status = CALL(usae_preactivations, sae, model, or_null(x.inputs), or_null(out.data), interrupt(false));
  if (status != USAE_OK && status != USAE_INTERRUPTED && status != USAE_NOT_FINITE)
    require(is_unchanged(&out), "no pre-activations after a failure");
  array_free(&out);
  activations_free(&x);
}

static void evaluate(const usae_sae *sae) {
  enum { OUTPUTS = 12 };
  int64_t widths[MOST_MODELS];
  const int32_t n = models_of(sae, widths);
  const int64_t M = n, m = usae_concepts(sae);
  activations x = activations_make(n, widths, true);
  const int64_t counts[OUTPUTS] = {M * M, M * M, M * M, M * M, M, M * m, M * M * m, m, m, M * m, M * m, M * M * m};
  array arrays[OUTPUTS];
  usae_evaluation out;
  memset(&out, 0, sizeof out);
  out.size = (uint32_t)(chance(97) ? sizeof out : 8 * below(sizeof out / 8 + 1));
  void **const fields = (void **)&out.r2;
  for (int i = 0; i < OUTPUTS; i++) {
    arrays[i] = array_make(counts[i], i == 10 ? 4 : 8);
    fields[i] = chance(80) ? arrays[i].data : NULL;
  }
  const double threshold = chance(90) ? real() : odd_number();
  const bool is_long = row_count(&x.inputs[0]) > 1 << 20;
  const usae_status status =
      CALL(usae_evaluate, sae, x.n_models, or_null(x.inputs), threshold, or_null(&out), interrupt(is_long));
  for (int i = 0; i < OUTPUTS; i++) {
    if (status != USAE_OK) require(is_unchanged(&arrays[i]), "no numbers after an evaluation that failed");
    array_free(&arrays[i]);
  }
  activations_free(&x);
}

static void top_examples(const usae_sae *sae) {
  const int32_t model = any_model(sae);
  int64_t width = usae_model_width(sae, model);
  if (width == 0) width = 5;
  activations x = activations_make(1, &width, true);
  const int64_t n = between(1, 20), rows = row_count(&x.inputs[0]);
  const int64_t told = chance(97) ? n : chance(50) ? -below(9) : (1ll << 32) + 1 + (limit() & INT64_MAX) / 2;
  const int64_t per_image = chance(60) ? 1 : chance(80) && rows > 0 ? between(1, rows) : limit();
  array values = array_make(n * usae_concepts(sae), 4), tokens = array_make(n * usae_concepts(sae), 8);
  const usae_status status = CALL(usae_top_examples, sae, model, or_null(x.inputs), told, per_image, or_null(values.data),
                                  or_null(tokens.data), interrupt(rows > 1 << 20));
  if (status != USAE_OK) require(is_unchanged(&values) && is_unchanged(&tokens), "no examples after a failure");
  array_free(&values);
  array_free(&tokens);
  activations_free(&x);
}

void fuzz_objective(handle *h) {
  const usae_sae *sae = h->sae;
  const int32_t model = any_model(sae);
  activations x = one_model(sae, model);
  const int64_t rows = rows_of(&x), views = chance(60) ? 1 : chance(80) && rows > 0 ? between(1, rows) : limit();
  const int64_t known = views >= 1 && views <= rows ? views : 0;
  array values = array_make(known, 8), gradient = array_make(rows * usae_model_width(sae, model), 4);
  const int64_t concept = chance(95) && usae_concepts(sae) > 0 ? below(usae_concepts(sae)) : limit();
  const int32_t objective = (int32_t)(chance(95) ? below(4) : limit());
  const double power = chance(90) ? 4 * real() : odd_number();
  const int64_t token = chance(80) ? -1 : chance(80) ? 0 : limit();
  const usae_status status = CALL(usae_objective, sae, model, concept, objective, power, token, views, or_null(x.inputs),
                                  or_null(values.data), or_null(gradient.data), interrupt(false));
  if (status != USAE_OK && status != USAE_INTERRUPTED && status != USAE_NOT_FINITE)
    require(is_unchanged(&values) && is_unchanged(&gradient), "no objective after a failure");
  array_free(&values);
  array_free(&gradient);
  activations_free(&x);
}

void fuzz_use(handle *h) {
  switch (below(5)) {
  case 0: encode(h->sae); break;
  case 1: decode(h->sae); break;
  case 2: preactivations(h->sae); break;
  case 3: evaluate(h->sae); break;
  default: top_examples(h->sae);
  }
}
