#include "fuzz.h"

#include <math.h>
#include <string.h>

static const int32_t kinds[] = {USAE_MEAN,        USAE_SCALE,           USAE_ENCODER_WEIGHT,  USAE_ENCODER_BIAS,
                                USAE_BN_WEIGHT,   USAE_BN_BIAS,         USAE_BN_RUNNING_MEAN, USAE_BN_RUNNING_VAR,
                                USAE_DICTIONARY,  USAE_THRESHOLD,       USAE_SILENT_TOKENS,   USAE_COUNTERS,
                                USAE_EFFECTIVE_DIMENSIONS};
enum { KINDS = sizeof kinds / sizeof kinds[0], LARGEST = MOST_CONCEPTS * 4096 };

static bool is_integer(int32_t tensor) { return tensor == USAE_SILENT_TOKENS || tensor == USAE_COUNTERS; }

/* Number of elements, 0 where there is no such tensor or where it is too large to look at. */
static int64_t count_of(const usae_sae *sae, int32_t model, int32_t tensor) {
  int64_t rows = 0, columns = 0;
  if (usae_tensor_shape(sae, model, tensor, &rows, &columns, NULL) != USAE_OK) return 0;
  const int64_t count = columns > 0 ? rows * columns : rows;
  return count <= LARGEST ? count : 0;
}

static const int32_t parts[] = {0, USAE_FIRST_MOMENT, USAE_SECOND_MOMENT, USAE_GRADIENT};

uint64_t state_of(usae_sae *sae) {
  static union {
    float numbers[LARGEST];
    int64_t integers[LARGEST];
  } memory;
  uint64_t hash = (uint64_t)usae_step_count(sae) * 31 + (uint64_t)usae_model_count(sae);
  usae_recipe recipe;
  memset(&recipe, 0, sizeof recipe);
  recipe.size = sizeof recipe;
  if (usae_current_recipe(sae, &recipe, NULL) == USAE_OK)
    for (size_t i = 0; i < sizeof recipe; i++) hash = (hash ^ ((unsigned char *)&recipe)[i]) * 0x100000001b3u;
  for (int32_t model = 0; model < usae_model_count(sae); model++)
    for (int k = 0; k < KINDS; k++)
      for (int p = 0; p < 3; p++) { /* no gradients, which a step that fails may drop */
        if (p > 0 && is_integer(kinds[k])) continue;
        const int32_t tensor = kinds[k] + parts[p];
        const int64_t count = count_of(sae, model, tensor);
        if (count == 0 || usae_tensor_read(sae, model, tensor, &memory, count, NULL) != USAE_OK) continue;
        const uint32_t *const words = (const uint32_t *)&memory;
        for (int64_t i = 0; i < count * (is_integer(tensor) ? 2 : 1); i++) hash = (hash ^ words[i]) * 0x100000001b3u;
      }
  return hash;
}

static bool is_finite(usae_sae *sae) {
  static float numbers[LARGEST];
  for (int32_t model = 0; model < usae_model_count(sae); model++)
    for (int k = 0; k < KINDS; k++) {
      if (is_integer(kinds[k])) continue;
      const int64_t count = count_of(sae, model, kinds[k]);
      if (count == 0 || usae_tensor_read(sae, model, kinds[k], numbers, count, NULL) != USAE_OK) continue;
      for (int64_t i = 0; i < count; i++)
        if (!isfinite(numbers[i])) return false;
    }
  return true;
}

void require_finite(handle *h) {
  const bool finite = h->is_extreme || is_finite(h->sae);
  require(finite, "parameters are finite after a step");
  h->is_extreme = h->is_extreme || !finite; /* once is enough */
}

static int32_t any_tensor(void) {
  return chance(95) ? kinds[below(KINDS)] + (chance(60) ? 0 : parts[below(4)]) : (int32_t)limit();
}

static void shape(handle *h) {
  array out = array_make(2, 8);
  int64_t *const numbers = out.data;
  if (CALL(usae_tensor_shape, h->sae, any_model(h->sae), any_tensor(), or_null(numbers), or_null(numbers + 1)) != USAE_OK)
    require(is_unchanged(&out), "no shape after a failure");
  array_free(&out);
}

/* What standardisation was computed from: arrays of the width that is told, or none. */
static void sample(handle *h) {
  const int32_t model = any_model(h->sae);
  const int64_t width = count_of(h->sae, model, USAE_MEAN);
  array center = array_make(width, 8), deviation = array_make(width, 8);
  usae_sample out = {.size = (uint32_t)(chance(95) ? sizeof out : below(sizeof out)), .reserved = chance(95) ? 0 : 1};
  out.center = or_null(center.data);
  out.deviation = or_null(deviation.data);
  if (CALL(usae_describe_sample, h->sae, model, chance(95) ? width : limit(), chance(98) ? &out : NULL) != USAE_OK)
    require(is_unchanged(&center) && is_unchanged(&deviation), "no sample after a failure");
  array_free(&center);
  array_free(&deviation);
}

static void read_one(handle *h) {
  const int32_t model = any_model(h->sae), tensor = any_tensor();
  const int64_t count = count_of(h->sae, model, tensor);
  array out = array_make(count, is_integer(tensor) ? 8 : 4);
  const int64_t told = chance(95) ? count : count + between(1, 9) * (chance(50) ? -1 : 1);
  if (CALL(usae_tensor_read, h->sae, model, tensor, or_null(out.data), chance(98) ? told : INT64_MAX) != USAE_OK)
    require(is_unchanged(&out), "nothing read after a failure");
  array_free(&out);
}

/* Numbers that a tensor can have, and sometimes others. */
static array numbers_for(handle *h, int32_t tensor, int64_t count) {
  array made = array_make(count, is_integer(tensor) ? 8 : 4);
  const bool has_sign = tensor != USAE_SCALE && tensor != USAE_THRESHOLD && tensor != USAE_EFFECTIVE_DIMENSIONS;
  for (int64_t i = 0; i < count; i++) {
    if (is_integer(tensor)) ((int64_t *)made.data)[i] = below(100);
    else ((float *)made.data)[i] = (float)(real() + 0.1) * (has_sign && chance(50) ? -1 : 1);
  }
  if (tensor == USAE_BN_RUNNING_VAR || tensor / 100 * 100 == USAE_SECOND_MOMENT)
    for (int64_t i = 0; i < count; i++) ((float *)made.data)[i] = fabsf(((float *)made.data)[i]);
  if (chance(10) && count > 0) {
    h->is_extreme = true;
    if (is_integer(tensor)) ((int64_t *)made.data)[below(count)] = limit();
    else ((float *)made.data)[below(count)] = (float)odd_number();
  }
  return made;
}

static void write_one(handle *h) {
  const int32_t model = any_model(h->sae), tensor = any_tensor();
  const int64_t count = count_of(h->sae, model, tensor);
  array values = numbers_for(h, tensor, count);
  const uint64_t before = state_of(h->sae);
  const int64_t told = chance(95) ? count : count + between(1, 9) * (chance(50) ? -1 : 1);
  if (CALL(usae_tensor_write, h->sae, model, tensor, or_null(values.data), told) != USAE_OK)
    require(before == state_of(h->sae), "nothing written after a failure");
  array_free(&values);
}

static void several(handle *h) {
  enum { MOST = 6 };
  usae_tensor tensors[MOST];
  array memory[MOST];
  const int64_t n = below(MOST + 1);
  const bool is_write = chance(40);
  for (int64_t i = 0; i < n; i++) {
    int32_t model = any_model(h->sae), tensor = any_tensor();
    for (int tries = 0; tries < 4 && count_of(h->sae, model, tensor) == 0; tries++) {
      model = any_model(h->sae);
      tensor = any_tensor();
    }
    const int64_t count = count_of(h->sae, model, tensor);
    memory[i] = is_write ? numbers_for(h, tensor, count) : array_make(count, is_integer(tensor) ? 8 : 4);
    tensors[i] = (usae_tensor){model, tensor, or_null(memory[i].data), count + (chance(2) ? 1 : 0)};
  }
  const uint64_t before = state_of(h->sae);
  const int64_t told = chance(97) ? n : chance(50) ? -1 - below(9) : (1 << 20) + 1 + (limit() & INT64_MAX) / 2;
  if (is_write) {
    if (CALL(usae_tensors_write, h->sae, told, or_null(tensors)) != USAE_OK)
      require(before == state_of(h->sae), "no tensor is written after a failure");
  } else {
    int64_t step = -7;
    const usae_status status = CALL(usae_tensors_read, h->sae, told, or_null(tensors), chance(80) ? &step : NULL);
    if (status != USAE_OK) require(step == -7, "no step after a failure");
    for (int64_t i = 0; i < n && status != USAE_OK; i++) require(is_unchanged(&memory[i]), "no tensor is read after a failure");
  }
  for (int64_t i = 0; i < n; i++) array_free(&memory[i]);
}

void fuzz_tensors(handle *h) {
  switch (below(6)) {
  case 0: shape(h); break;
  case 1: read_one(h); break;
  case 2: write_one(h); break;
  case 3: several(h); break;
  case 4: sample(h); break;
  default: {
    const uint64_t before = state_of(h->sae);
    if (CALL(usae_set_step_count, h->sae, chance(80) ? below(500) : limit()) != USAE_OK)
      require(before == state_of(h->sae), "the count is as it was after a failure");
  }
  }
}
