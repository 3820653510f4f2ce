/* Calls every function of usae.h at random: with right arguments, with arguments at the limits, and with wrong ones. It sees
 * the header and nothing else. What has to hold is that
 *
 *   - no call ends the process, hangs, or touches memory that it was not given,
 *   - a status is one of usae.h, and one that is not USAE_OK comes with words,
 *   - after a failure outputs and autoencoder are as they were, where the header promises it,
 *   - parameters stay finite, where recipe and parameters were.
 *
 * A size is never larger than the memory behind it unless the header says that the size is refused. */
#ifndef USAE_FUZZ_H
#define USAE_FUZZ_H

#include "usae.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define USAE_FUZZ_ADDRESSES
#endif
#endif

/* --- random.c: the same numbers for the same seed ------------------------------------------------------------------- */

void seed_numbers(uint64_t seed);
uint64_t bits(void);
int64_t below(int64_t count);                    /* 0 to count - 1 */
int64_t between(int64_t first, int64_t last);    /* both included */
bool chance(int percent);
double real(void);                               /* 0 to 1 */
int64_t limit(void);                             /* a whole number at which something may break */
double odd_number(void);                         /* a number at which something may break; half of them are finite */

/* --- calls.c: counts, and what every call has to hold ---------------------------------------------------------------- */

/* Calls function(..., error) and gives its status. Every tenth call has no error struct. */
#define CALL(function, ...) end_call(#function, function(__VA_ARGS__, begin_call(#function)))
/* Notes a call of a function that cannot fail. */
#define NOTE(function) (begin_call(#function), end_call(#function, USAE_OK))

usae_error *begin_call(const char *function);
usae_status end_call(const char *function, usae_status status);
void require(bool condition, const char *sentence);
void watch_signals(uint64_t seed);
int64_t calls_made(void);
void trace_from(int64_t call); /* prints the calls from this one on */
bool print_counts(void);       /* false where something did not hold */

/* --- arrays.c: memory of exactly the size that a call is told ---------------------------------------------------------- */

/* An output, full of random bytes, of which a copy is kept. */
typedef struct array {
  void *data;
  void *copy;
  size_t bytes;
} array;

array array_make(int64_t count, size_t element);
bool is_unchanged(const array *array);
void array_free(array *array);
void *or_null(void *pointer); /* the pointer, or now and then NULL */

enum { MOST_MODELS = 3 };

/* Activations, and the memory that they lie in. */
typedef struct activations {
  int32_t n_models;
  usae_matrix inputs[MOST_MODELS];
  void *memory[MOST_MODELS];
  int64_t *rows; /* those that are selected, or NULL */
} activations;

/* Activations of `n` models of these widths, with a number of rows in common; often in a strange layout. Some numbers are odd,
 * and sometimes a size is one that is refused; with `endless` sometimes there are 2^31 equal rows. */
activations activations_make(int32_t n, const int64_t *widths, bool endless);
void activations_free(activations *x);
/* Turns some of them into matrices of models that a batch does not have. */
void leave_out_models(activations *x);
int64_t rows_of_batch(const activations *x);
int64_t row_count(const usae_matrix *x); /* 0 where the sizes are refused */

/* An interrupt that stops a call after some polls, or NULL. `must` says that there has to be one. */
const usae_interrupt *interrupt(bool must);

/* --- What there is ----------------------------------------------------------------------------------------------------- */

enum { MOST_HANDLES = 5, MOST_CONCEPTS = 48 };

/* An autoencoder, and where it is in a step that processes share. */
typedef struct handle {
  usae_sae *sae;
  int64_t n_exchanges, next;
  int64_t tokens, rank, processes;
  bool is_begun, is_agreed, is_awaited, is_odd;
  bool is_extreme; /* numbers of its recipe, or of a tensor that was written, are so large or small that parameters overflow */
  float **sums;
  int64_t *counts;
} handle;

extern handle handles[MOST_HANDLES];

handle *any_handle(void);          /* its autoencoder may be NULL */
int32_t models_of(const usae_sae *sae, int64_t widths[MOST_MODELS]);
int32_t any_model(const usae_sae *sae);
void shared_forget(handle *h);     /* frees what is kept of a shared step */
uint64_t state_of(usae_sae *sae);  /* a hash of everything that can be read of it */
void require_finite(handle *h);    /* that all parameters are, unless something extreme was asked for */

/* --- The calls --------------------------------------------------------------------------------------------------------- */

usae_recipe any_recipe(bool *is_extreme);
void fuzz_recipes(void);
void fuzz_life(handle *h);
void fuzz_description(handle *h);
void fuzz_training(handle *h);
void fuzz_shared(handle *h);
void fuzz_use(handle *h);
void fuzz_tensors(handle *h);
void fuzz_objective(handle *h);
void fuzz_images(void);
void destroy_images(void);
void fuzz_process(void);

#endif
