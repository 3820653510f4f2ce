/* Structs that are shorter or longer than this library's, as those of older and newer headers are. Each has a block of memory
 * of exactly its size, so that a sanitizer sees a byte too many being read or written. */
#include "check.h"

#include <stddef.h>

/* A struct of `size` bytes: the first of `known`, then bytes of `value`. The caller frees it. */
static void *resized(const void *known, size_t known_size, uint32_t size, int value) {
  char *block = malloc(size);
  memset(block, value, size);
  memcpy(block, known, size < known_size ? size : known_size);
  memcpy(block, &size, sizeof size);
  return block;
}

static usae_status create(const void *options) {
  usae_sae *sae = NULL;
  usae_error error = {""};
  usae_status status = usae_create(CONCEPTS, K, 7, 0, options, &sae, &error);
  check((status == USAE_OK) == (sae != NULL), "an autoencoder where there is no error");
  check(status == USAE_OK || strstr(error.message, "recipe") != NULL, "an error that names the recipe");
  usae_destroy(sae);
  return status;
}

static void test_sizes_of_recipes(void) {
  usae_recipe r = recipe(), now = {.size = sizeof now}, defaults = {.size = sizeof defaults};
  const uint32_t bad[] = {0, 4, 12, sizeof r - 4, sizeof r + 4, 4104, UINT32_MAX};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    r.size = bad[i];
    check(create(&r) == USAE_INVALID_ARGUMENT, "a size that no version has is refused");
  }
  usae_recipe *longer = resized(&r, sizeof r, sizeof r + 16, 0);
  check(create(longer) == USAE_OK, "a longer recipe is taken");
  ((char *)longer)[sizeof r + 9] = 1;
  check(create(longer) == USAE_INVALID_ARGUMENT, "but not if it says what is not known here");
  free(longer);

  /* A header that ends before `encoder`. */
  usae_sae *sae = NULL;
  r.center = USAE_STATISTIC_SCALAR;
  usae_recipe *shorter = resized(&r, sizeof r, offsetof(usae_recipe, encoder), 0);
  check(usae_create(CONCEPTS, K, 7, 0, shorter, &sae, NULL) == USAE_OK, "a shorter recipe is taken");
  check(usae_current_recipe(sae, &now, NULL) == USAE_OK && now.center == USAE_STATISTIC_SCALAR, "with what it says");
  usae_recipe_preset(USAE_PRESET_DEFAULT, &defaults, NULL);
  check(memcmp(&now.encoder, &defaults.encoder, sizeof now - offsetof(usae_recipe, encoder)) == 0, "and else the defaults");
  usae_destroy(sae);
  free(shorter);
}

static void test_sizes_of_image_options(void) {
  usae_image_options o = {.size = sizeof o};
  usae_maximizer *maximizer = NULL;
  check(usae_image_defaults(&o, NULL) == USAE_OK && o.views == 16 && o.decorrelate == 1, "default options");
  o.height = o.width = 32;
  o.size = sizeof o - 4;
  check(usae_maximizer_create(&o, NULL, NULL, &maximizer, NULL) == USAE_INVALID_ARGUMENT && !maximizer, "a size of no version");
  usae_image_options *longer = resized(&o, sizeof o, sizeof o + 8, 0), *shorter = resized(&o, sizeof o, 32, 0);
  check(usae_maximizer_create(longer, NULL, NULL, &maximizer, NULL) == USAE_OK, "longer options are taken");
  usae_maximizer_destroy(maximizer);
  maximizer = NULL;
  ((char *)longer)[sizeof o] = 1;
  check(usae_maximizer_create(longer, NULL, NULL, &maximizer, NULL) == USAE_INVALID_ARGUMENT && !maximizer, "if the rest is 0");

  check(usae_maximizer_create(shorter, NULL, NULL, &maximizer, NULL) == USAE_OK, "shorter options are taken");
  int64_t boxes[16 * 4] = {0};
  check(usae_maximizer_boxes(maximizer, boxes, NULL) == USAE_OK && boxes[15 * 4 + 2] == 32, "and have the default views");
  usae_maximizer_destroy(maximizer);
  free(shorter);
  free(longer);
}

static void test_sizes_of_views(void) {
  float image[3] = {0.5f, 0.5f, 0.5f}, out[3] = {77, 77, 77};
  int64_t box[4] = {0, 0, 1, 1};
  usae_view view = {.height = 1, .width = 1, .mean = {0.5, 0.5, 0.5}, .std = {1, 1, 1}};
  usae_view *shorter = resized(&view, sizeof view, 64, 0), *longer = resized(&view, sizeof view, 80, 0);
  check(usae_crop_resize(1, 1, image, 1, box, shorter, out, 1, NULL) == USAE_INVALID_ARGUMENT && out[2] == 77,
        "a view whose fields have no default cannot be shorter");
  check(usae_crop_resize(1, 1, image, 1, box, longer, out, 1, NULL) == USAE_OK && out[2] == 0, "but longer");
  longer->size = sizeof view;
  check(usae_crop_resize(1, 1, image, 1, box, longer, out, 1, NULL) == USAE_OK, "or as long");
  free(shorter);
  free(longer);
}

void test_sizes_of_input(void) {
  test_sizes_of_recipes();
  test_sizes_of_image_options();
  test_sizes_of_views();
}

/* What is at `from` and after it in a struct of `size` bytes was not written. */
static int untouched(const void *block, size_t from, size_t size, int value) {
  for (size_t i = from; i < size; i++)
    if (((const unsigned char *)block)[i] != value) return 0;
  return 1;
}

void test_sizes_of_output(usae_sae *sae) {
  enum { SHORT = offsetof(usae_step_report, auxiliary_loss), LONG = sizeof(usae_step_report) + 8 };
  usae_error error;
  usae_matrix inputs[2] = {matrix(left, TOKENS, LEFT), matrix(right, TOKENS, RIGHT)};
  usae_step_report report = {.size = sizeof report};
  usae_step_report *shorter = resized(&report, 0, SHORT, 0x55), *longer = resized(&report, 0, LONG, 0x55);
#define STEP(report) usae_step(sae, 2, inputs, NULL, 0, 0, USAE_STEP_GRADIENTS, NULL, report, NULL, &error)
  check(STEP(&report) == USAE_OK && report.loss > 0, "a report");
  check(STEP(shorter) == USAE_OK && shorter->size == SHORT && shorter->loss == report.loss, "a shorter one is filled");
  check(STEP(longer) == USAE_OK && longer->size == LONG && longer->prefix == report.prefix, "a longer one has all");
  check(untouched(longer, sizeof report, LONG, 0x55), "and is left alone where nothing is known");
  report.size = 20;
  check(STEP(&report) == USAE_INVALID_ARGUMENT && strstr(error.message, "report.size"), "a size of no version is refused");
#undef STEP
  usae_recipe *start = resized(&report, 0, offsetof(usae_recipe, encoder), 0x55);
  check(usae_current_recipe(sae, start, NULL) == USAE_OK && start->initialization == USAE_INIT_DATA, "the start of a recipe");
  usae_recipe_field *name = resized(&report, 0, offsetof(usae_recipe_field, choices), 0x55);
  check(usae_recipe_field_at(0, name, NULL) == USAE_OK && strcmp(name->name, "initialization") == 0, "and of a field");

  /* The struct of an evaluation is input: pointers past its end are NULL. */
  double r2[4];
  usae_evaluation arrays = {.r2 = r2};
  usae_evaluation *first = resized(&arrays, sizeof arrays, offsetof(usae_evaluation, r2_standardized), 0);
  check(usae_evaluate(sae, 2, inputs, 0, first, NULL, &error) == USAE_OK && r2[0] > 0, "an evaluation with one output");
  usae_evaluation *more = resized(&arrays, sizeof arrays, sizeof arrays + 8, 1);
  check(usae_evaluate(sae, 2, inputs, 0, more, NULL, &error) == USAE_INVALID_ARGUMENT, "but none that nobody would write");
  free(more);
  free(first);
  free(name);
  free(start);
  free(longer);
  free(shorter);
}

void test_reserved(usae_sae *sae) {
  usae_error error;
  usae_recipe r = recipe();
  usae_sae *made = NULL;
  r.reserved = 1;
  check(usae_create(8, 2, 0, 0, &r, &made, &error) == USAE_INVALID_ARGUMENT && !made, "reserved fields of a recipe");
  check(strstr(error.message, "recipe.reserved") != NULL, "are checked, by name");
  usae_matrix x = matrix(left, TOKENS, LEFT), inputs[2] = {x, matrix(right, TOKENS, RIGHT)};
  float values[TOKENS * K];
  int32_t indices[TOKENS * K];
  x.reserved = 1;
  check(usae_encode(sae, 0, &x, values, indices, NULL, &error) == USAE_INVALID_ARGUMENT, "those of activations");
  check(strstr(error.message, "'left'") && strstr(error.message, "reserved"), "with the model");
  usae_evaluation evaluation = {.size = sizeof evaluation, .reserved = 1};
  check(usae_evaluate(sae, 2, inputs, 0, &evaluation, NULL, NULL) == USAE_INVALID_ARGUMENT, "of an evaluation");
  usae_image_options o = {.size = sizeof o};
  usae_maximizer *maximizer = NULL;
  usae_image_defaults(&o, NULL);
  o.reserved = -1;
  check(usae_maximizer_create(&o, NULL, NULL, &maximizer, NULL) == USAE_INVALID_ARGUMENT && !maximizer, "of options");
  usae_view view = {sizeof view, 1, 1, 1, {0, 0, 0}, {1, 1, 1}};
  const int64_t box[] = {0, 0, 1, 1};
  check(usae_crop_resize(1, 1, left, 1, box, &view, values, 1, NULL) == USAE_INVALID_ARGUMENT, "and of views");
}
