#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

/* --- Recipes ----------------------------------------------------------------------------------------------------------- */

static void set_field(usae_recipe *recipe, const usae_recipe_field *field, bool *is_extreme) {
  char *place = (char *)recipe + field->offset;
  const bool odd = chance(3), is_end = chance(5);
  if (field->kind == USAE_FIELD_NUMBER && (odd || is_end)) *is_extreme = true;
  if (field->kind == USAE_FIELD_CHOICE || field->kind == USAE_FIELD_SWITCH) {
    const int64_t choices = field->kind == USAE_FIELD_SWITCH ? 2 : field->n_choices;
    const int32_t choice = (int32_t)(odd ? limit() : below(choices));
    memcpy(place, &choice, sizeof choice);
  } else if (field->kind == USAE_FIELD_COUNT) {
    const int64_t few = between(0, 60);
    const int64_t ends[] = {(int64_t)field->smallest, field->largest < 9e15 ? (int64_t)field->largest : 1ll << 53};
    const int64_t count = odd ? limit() : chance(85) ? few : ends[below(2)];
    memcpy(place, &count, sizeof count);
  } else if (field->kind == USAE_FIELD_NUMBER) {
    const double ends[] = {field->smallest, field->largest};
    const double number = odd ? odd_number() : is_end ? ends[below(2)] : real();
    memcpy(place, &number, sizeof number);
  } else {
    double shares[USAE_MOST_PREFIXES] = {0}, share = 0;
    const int64_t n = below(USAE_MOST_PREFIXES);
    for (int64_t i = 0; i < n; i++) shares[i] = share += odd ? odd_number() : (1 - share) * real();
    if (share > 0) shares[below(USAE_MOST_PREFIXES)] = 1;
    memcpy(place, shares, sizeof shares);
  }
}

/* Fields that most steps should be tried with, since some are rarely right together. */
static void settle(usae_recipe *recipe) {
  if (chance(90)) recipe->learning_rate = 0.01 * real();
  if (chance(70)) recipe->merge_every = between(1, 4);
  if (chance(40)) recipe->warmup_steps = below(3);
  if (chance(60)) recipe->dead_tokens = between(0, 90);
  if (chance(50)) recipe->selection = USAE_SELECTION_BATCHTOPK;
  if (chance(40)) recipe->merge_cosine = 0.3 * real();
  if (chance(50)) recipe->encoded_models = (int32_t)below(3);
  if (chance(50)) recipe->agreement = real();
  if (chance(80)) recipe->total_steps = 0;
  if (chance(80)) recipe->k_max = 0;
}

usae_recipe any_recipe(bool *is_extreme) {
  usae_recipe recipe;
  *is_extreme = false;
  memset(&recipe, 0, sizeof recipe);
  recipe.size = sizeof recipe;
  require(usae_recipe_preset((int32_t)below(2), &recipe, NULL) == USAE_OK, "a preset");
  for (int64_t changes = chance(30) ? 0 : between(1, 12); changes > 0; changes--) {
    usae_recipe_field field = {.size = sizeof field};
    require(usae_recipe_field_at(below(usae_recipe_field_count()), &field, NULL) == USAE_OK, "a field");
    set_field(&recipe, &field, is_extreme);
  }
  if (chance(80)) settle(&recipe);
  if (chance(2)) recipe.reserved = (int32_t)limit();
  if (chance(2)) recipe.size = (uint32_t)(chance(50) ? 8 * below(sizeof recipe / 8) : limit());
  if (recipe.size > sizeof recipe && recipe.size <= 4096) recipe.size = sizeof recipe;
  return recipe;
}

void fuzz_recipes(void) {
  array out = array_make(1, sizeof(usae_recipe));
  usae_recipe *recipe = out.data;
  recipe->size = chance(90) ? sizeof *recipe : (uint32_t)(8 * below(sizeof *recipe / 8 + 1));
  memcpy(out.copy, out.data, sizeof *recipe);
  const int32_t preset = (int32_t)(chance(80) ? below(2) : limit());
  if (CALL(usae_recipe_preset, preset, or_null(recipe)) != USAE_OK) require(is_unchanged(&out), "no recipe after a failure");
  array_free(&out);
  out = array_make(1, sizeof(usae_recipe_field));
  usae_recipe_field *field = out.data;
  field->size = chance(90) ? sizeof *field : (uint32_t)(8 * below(sizeof *field / 8 + 1));
  memcpy(out.copy, out.data, sizeof *field);
  const int64_t number = chance(80) ? below(usae_recipe_field_count()) : limit();
  if (CALL(usae_recipe_field_at, number, or_null(field)) != USAE_OK) require(is_unchanged(&out), "no field after a failure");
  array_free(&out);
  NOTE(usae_recipe_field_count);
}

/* --- Creation, models -------------------------------------------------------------------------------------------------- */

static void create(handle *h) {
  bool is_extreme;
  usae_recipe recipe = any_recipe(&is_extreme);
  usae_sae *made = (usae_sae *)&made;
  const int64_t concepts = chance(95) ? between(1, MOST_CONCEPTS) : limit();
  double k = (double)(chance(95) ? between(1, 1 + (concepts > 0 && concepts < 200 ? below(concepts) : 3)) : limit());
  if (chance(20)) k += chance(95) ? 0.25 * (double)below(4) : odd_number();
  const int32_t threads = (int32_t)(chance(95) ? between(1, 2) : limit());
  const usae_status status =
      CALL(usae_create, concepts, k, bits(), threads > 64 && threads <= 1024 ? 2 : threads, or_null(&recipe), or_null(&made));
  if (status != USAE_OK) {
    require(made == (usae_sae *)&made, "no handle after a failure");
    return;
  }
  if (usae_concepts(made) > MOST_CONCEPTS) { /* too large to work with */
    usae_destroy(made);
    return;
  }
  h->sae = made;
  h->is_extreme = is_extreme;
}

static void destroy(handle *h) {
  shared_forget(h);
  usae_destroy(h->sae);
  NOTE(usae_destroy);
  h->sae = NULL;
}

static const char *any_name(int64_t j) {
  static const char *const names[] = {"a", "b", "c", "vit", "a name of some length, with \xc3\xa9", "\xff\xfe not UTF-8", ""};
  return chance(95) ? names[j] : chance(90) ? names[below(sizeof names / sizeof names[0])] : NULL;
}

static void initialize(handle *h) {
  const char *names[MOST_MODELS + 1];
  int64_t widths[MOST_MODELS + 1];
  const int32_t n = (int32_t)between(1, MOST_MODELS);
  const bool is_odd = chance(8), has_data = chance(50);
  for (int j = 0; j <= MOST_MODELS; j++) {
    names[j] = any_name(j);
    widths[j] = chance(97) ? between(1, 40) : 0;
  }
  if (is_odd && !has_data && chance(60)) {
    static const int64_t odd[] = {-1, 0, (1 << 20) + 1, INT64_MAX, INT64_MIN, 1ll << 62};
    widths[below(n)] = odd[below(sizeof odd / sizeof odd[0])];
  }
  const uint64_t before = state_of(h->sae);
  const int32_t told = is_odd && chance(40) ? (int32_t)(chance(50) ? -below(3) : between(4097, INT32_MAX)) : n;
  usae_status status;
  if (!has_data) {
    status = CALL(usae_initialize, h->sae, told, or_null(names), or_null(widths));
  } else {
    activations x = activations_make(n, widths, true);
    if (told != n) x.n_models = told;
    const bool is_long = x.inputs[0].outer == 1ll << 31;
    if (chance(50) && told == n) {
      activations y = activations_make(n, widths, false);
      usae_matrix parts[2 * MOST_MODELS + 2];
      if (chance(60)) leave_out_models(&y);
      if (chance(20)) leave_out_models(&x);
      memcpy(parts, x.inputs, (size_t)n * sizeof *parts);
      memcpy(parts + n, y.inputs, (size_t)n * sizeof *parts);
      const int64_t n_parts = chance(95) ? 2 : chance(50) ? -below(3) : (1 << 20) + 1 + below(1ll << 40);
      status = CALL(usae_initialize_from_parts, h->sae, n, or_null(names), n_parts, or_null(parts), interrupt(is_long));
      activations_free(&y);
    } else {
      status = CALL(usae_initialize_from, h->sae, x.n_models, or_null(names), or_null(x.inputs), interrupt(is_long));
    }
    activations_free(&x);
  }
  if (status != USAE_OK) require(before == state_of(h->sae), "models are as they were after a failure");
}

void fuzz_life(handle *h) {
  if (h->sae == NULL) {
    create(h);
    for (int tries = 0; tries < 3 && h->sae != NULL && usae_model_count(h->sae) == 0; tries++) initialize(h);
  } else if (chance(30)) {
    destroy(h);
  } else if (chance(60)) {
    initialize(h);
  } else {
    const uint64_t before = state_of(h->sae);
    const int64_t steps = chance(80) ? below(2000) : limit(), dead = chance(80) ? below(200) : limit();
    if (CALL(usae_set_plan, h->sae, steps, dead) != USAE_OK)
      require(before == state_of(h->sae), "the plan is as it was after a failure");
    if (chance(20)) CALL(usae_set_frozen, h->sae, chance(80) ? (int32_t)below(3) : (int32_t)limit(), (int32_t)below(3));
  }
}

/* --- Description ------------------------------------------------------------------------------------------------------- */

void fuzz_description(handle *h) {
  const usae_sae *sae = chance(97) ? h->sae : NULL;
  const int32_t model = any_model(sae);
  require(usae_concepts(sae) >= 0 && usae_k(sae) >= 0 && (double)usae_slots(sae) >= usae_k(sae), "sizes");
  usae_seed(sae);
  require(usae_step_count(sae) >= 0 && usae_model_count(sae) >= 0 && usae_model_width(sae, model) >= 0, "counts");
  NOTE(usae_concepts);
  NOTE(usae_k);
  NOTE(usae_slots);
  NOTE(usae_seed);
  NOTE(usae_step_count);
  NOTE(usae_model_count);
  NOTE(usae_model_width);
  array name = array_make(between(0, 24), 1);
  const int64_t capacity = chance(95) ? (int64_t)name.bytes : -below(3);
  const int64_t length = usae_model_name(sae, model, name.data, capacity);
  if (length > 0 && capacity > 0) require(memchr(name.data, 0, name.bytes) != NULL, "a name is terminated");
  else require(is_unchanged(&name), "no name");
  require(usae_model_name(sae, model, NULL, 0) == length, "the length of a name");
  NOTE(usae_model_name);
  array_free(&name);
  array out = array_make(1, sizeof(usae_recipe));
  usae_recipe *recipe = out.data;
  recipe->size = chance(90) ? sizeof *recipe : (uint32_t)(8 * below(sizeof *recipe / 8 + 1));
  memcpy(out.copy, out.data, sizeof *recipe);
  if (CALL(usae_current_recipe, sae, or_null(recipe)) != USAE_OK) require(is_unchanged(&out), "no recipe after a failure");
  array_free(&out);
}

void fuzz_process(void) {
  const int64_t refused = chance(50) ? -1 - below(9) : between(1025, INT32_MAX);
  if (chance(50)) CALL(usae_set_threads, (int32_t)(chance(70) ? between(0, 3) : refused));
  require(usae_threads() >= 1 && usae_kernels() != NULL && usae_blas() != NULL && usae_version() != NULL, "the process");
  NOTE(usae_threads);
  NOTE(usae_kernels);
  NOTE(usae_blas);
  NOTE(usae_version);
}
