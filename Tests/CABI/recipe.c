#include "check.h"

#include <stddef.h>

void test_refused_recipes(void) {
  usae_recipe r = recipe();
  usae_sae *sae = NULL;
  usae_error error;
  check(usae_create(8, 2, 0, 0, NULL, &sae, &error) == USAE_INVALID_ARGUMENT, "a NULL recipe is refused");
  r.encoder = 77;
  check(usae_create(8, 2, 0, 0, &r, &sae, &error) == USAE_INVALID_ARGUMENT, "an unknown choice is refused");
  check(strstr(error.message, "encoder") && strstr(error.message, "1 (batchnorm)"), "by name, with its choices");
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
  check(sae == NULL, "and nothing was made");
}

void test_presets(void) {
  usae_recipe r = {.size = sizeof r};
  usae_error error;
  check(usae_recipe_preset(USAE_PRESET_DEFAULT, &r, &error) == USAE_OK && r.size == sizeof r, "the default recipe");
  check(r.encoder == USAE_ENCODER_LINEAR && r.aux == USAE_AUX_DEAD && r.prefixes[3] == 1 && r.prefixes[4] == 0, "is known");
  check(usae_recipe_preset(USAE_PRESET_PUBLISHED, &r, &error) == USAE_OK, "the published recipe");
  check(r.encoder == USAE_ENCODER_BATCHNORM && r.aux == USAE_AUX_UNCHOSEN && r.prefixes[0] == 0, "is another");
  r.k_max = 77;
  check(usae_recipe_preset(2, &r, &error) == USAE_INVALID_ARGUMENT && r.k_max == 77, "an unknown one is refused");
  check(strstr(error.message, "preset") != NULL, "by name, and nothing is written");
  check(usae_recipe_preset(USAE_PRESET_DEFAULT, NULL, &error) == USAE_INVALID_ARGUMENT, "and so is NULL");
}

static usae_recipe_field field_at(int64_t number) {
  usae_recipe_field field = {.size = sizeof field};
  check(usae_recipe_field_at(number, &field, NULL) == USAE_OK, "a field");
  return field;
}

/* Puts a value that the field cannot have into a recipe. */
static void spoil(usae_recipe *r, const usae_recipe_field *field) {
  char *place = (char *)r + field->offset;
  const int32_t choice = field->kind == USAE_FIELD_CHOICE ? (int32_t)field->n_choices : 2;
  const int64_t count = (int64_t)field->smallest - 1;
  const double number = field->largest * 1.5;
  if (field->kind == USAE_FIELD_CHOICE || field->kind == USAE_FIELD_SWITCH)
    memcpy(place, &choice, sizeof choice);
  else if (field->kind == USAE_FIELD_COUNT)
    memcpy(place, &count, sizeof count);
  else
    memcpy(place, &number, sizeof number);
}

void test_fields(void) {
  usae_error error;
  usae_sae *sae = NULL;
  int encoders = 0, shares = 0;
  for (int64_t i = 0; i < usae_recipe_field_count(); i++) {
    const usae_recipe_field field = field_at(i);
    usae_recipe r = recipe();
    spoil(&r, &field);
    check(usae_create(8, 2, 0, 0, &r, &sae, &error) == USAE_INVALID_ARGUMENT && sae == NULL, "a value past a limit is refused");
    check(strstr(error.message, field.name) != NULL, "and the error names the field");
    check((field.kind == USAE_FIELD_CHOICE) == (field.choices != NULL && field.n_choices > 1), "choices have names");
    if (strcmp(field.name, "encoder") == 0)
      encoders += field.offset == (int32_t)offsetof(usae_recipe, encoder) &&
                  strcmp(field.choices[USAE_ENCODER_BATCHNORM], "batchnorm") == 0;
    if (strcmp(field.name, "prefixes") == 0)
      shares += field.offset == (int32_t)offsetof(usae_recipe, prefixes) && field.kind == USAE_FIELD_SHARES;
  }
  check(encoders == 1 && shares == 1, "fields are where the header has them");
  usae_recipe_field field = {.size = sizeof field};
  check(usae_recipe_field_at(usae_recipe_field_count(), &field, &error) == USAE_INVALID_ARGUMENT, "there are no more");
  check(usae_recipe_field_at(-1, &field, NULL) == USAE_INVALID_ARGUMENT && field.name == NULL, "nor any before the first");
  check(usae_recipe_field_at(0, NULL, NULL) == USAE_INVALID_ARGUMENT, "and NULL is no field");
}
