#include "check.h"

static int passed, failed;

void check(int condition, const char *sentence) {
  if (condition) {
    passed++;
  } else {
    failed++;
    printf("FAILED: %s\n", sentence);
  }
}

float left[TOKENS * LEFT], right[TOKENS * RIGHT];
const char *const names[2] = {"left", "right"};

/* Numerical Recipes' generator: any numbers will do. */
void fill(float *out, int count, uint32_t state) {
  for (int i = 0; i < count; i++) {
    state = state * 1664525u + 1013904223u;
    out[i] = (float)(state >> 8) / 8388608.0f - 1.0f;
  }
}

usae_matrix matrix(const float *data, int64_t rows, int64_t columns) {
  usae_matrix m = {data, USAE_FLOAT32, 0, rows, 1, columns, columns * 4, 0, 4, NULL, 0};
  return m;
}

/* The plainest: one loss, all rates constant. */
usae_recipe recipe(void) {
  usae_recipe r = {.size = sizeof r};
  check(usae_recipe_preset(USAE_PRESET_DEFAULT, &r, NULL) == USAE_OK, "the default recipe");
  memset(r.prefixes, 0, sizeof r.prefixes);
  r.statistics_tokens = 0;
  r.prefix_loss = USAE_PREFIXES_MEAN;
  r.aux = USAE_AUX_NONE;
  r.dead_tokens = 0;
  r.merge_cosine = 0;
  r.schedule = USAE_SCHEDULE_CONSTANT;
  r.learning_rate = 1e-2;
  r.warmup_steps = 0;
  r.encoded_models = USAE_ENCODED_ONE;
  r.dictionary_norm = USAE_DICTIONARY_UNIT;
  return r;
}

int32_t stop_at_once(void *context) {
  ++*(int *)context;
  return 1;
}

int main(void) {
  fill(left, TOKENS * LEFT, 1);
  fill(right, TOKENS * RIGHT, 2);
  test_errors_of_creation();
  test_refused_recipes();
  test_presets();
  test_fields();
  test_sizes_of_input();

  usae_recipe r = recipe();
  usae_error error;
  usae_sae *sae = NULL;
  check(usae_create(CONCEPTS, K, 7, 0, &r, &sae, &error) == USAE_OK && sae != NULL, "create");
  test_before_initialisation(sae);
  test_training(sae);
  test_description(sae);
  test_tensors(sae);
  test_several_tensors(sae);
  test_use(sae);
  test_top_examples(sae);
  test_strange_sizes(sae);
  test_objective(sae);
  test_sizes_of_output(sae);
  test_reserved(sae);
  usae_destroy(sae);

  test_process();
  test_prefixes();
  test_shared_steps();
  test_selection_by_batch();
  test_several_encoders();
  test_absent_models();
  test_fourier_transforms();
  test_image_options();
  test_image_steps();
  test_crops();
  test_forks();
  printf("%d passed, %d failed\n", passed, failed);
  return failed != 0;
}
