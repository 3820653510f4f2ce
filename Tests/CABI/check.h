/* Sees the two headers of the library and nothing else. Every function of theirs is called, so a declaration without a body
 * does not link. Prints 'N passed, M failed' and returns 1 if anything failed. */
#ifndef USAE_CHECK_H
#define USAE_CHECK_H

#include "usae_testing.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void check(int condition, const char *sentence);

enum { TOKENS = 300, LEFT = 19, RIGHT = 33, CONCEPTS = 40, K = 4 };

/* Activations of two models. Tests that change them change them back. */
extern float left[TOKENS * LEFT], right[TOKENS * RIGHT];
extern const char *const names[2];

void fill(float *out, int count, uint32_t state);
usae_matrix matrix(const float *data, int64_t rows, int64_t columns);
usae_recipe recipe(void);
int32_t stop_at_once(void *context); /* an interrupt's poll; counts in the int at `context` */

/* lifecycle.c */
void test_errors_of_creation(void);
void test_before_initialisation(usae_sae *sae);
void test_description(usae_sae *sae);
void test_process(void);
/* recipe.c */
void test_refused_recipes(void);
void test_presets(void);
void test_fields(void);
/* structs.c */
void test_sizes_of_input(void);
void test_sizes_of_output(usae_sae *sae);
void test_reserved(usae_sae *sae);
/* training.c */
void test_training(usae_sae *sae);
void test_prefixes(void);
void test_selection_by_batch(void);
void test_several_encoders(void);
void test_absent_models(void);
/* shared.c */
void test_shared_steps(void);
/* forks.c */
void test_forks(void);
/* tensors.c */
void test_tensors(usae_sae *sae);
void test_several_tensors(usae_sae *sae);
/* inference.c */
void test_use(usae_sae *sae);
void test_top_examples(usae_sae *sae);
void test_strange_sizes(usae_sae *sae);
/* images.c */
void test_image_options(void);
void test_image_steps(void);
void test_crops(void);
/* objective.c */
void test_objective(usae_sae *sae);
/* fourier.c */
void test_fourier_transforms(void);

#endif
