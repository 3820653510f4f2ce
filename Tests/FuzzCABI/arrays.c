#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

/* AddressSanitizer sees what is touched past the end of a block. Without it, bytes behind the block are looked at. */
#ifdef USAE_FUZZ_ADDRESSES
enum { BEHIND = 0 };
#else
enum { BEHIND = 64 };
#endif

static void *allocate(size_t bytes) {
  void *memory = malloc(bytes > 0 ? bytes : 1);
  if (memory == NULL) abort();
  return memory;
}

array array_make(int64_t count, size_t element) {
  array made = {NULL, NULL, (size_t)count * element};
  made.data = allocate(made.bytes + BEHIND);
  made.copy = allocate(made.bytes + BEHIND);
  memset(made.data, (int)between(1, 127), made.bytes + BEHIND);
  memcpy(made.copy, made.data, made.bytes + BEHIND);
  return made;
}

bool is_unchanged(const array *array) { return memcmp(array->data, array->copy, array->bytes) == 0; }

void array_free(array *array) {
  require(memcmp((char *)array->data + array->bytes, (char *)array->copy + array->bytes, BEHIND) == 0,
          "nothing is written past an array");
  free(array->data);
  free(array->copy);
  memset(array, 0, sizeof *array);
}

void *or_null(void *pointer) { return chance(2) ? NULL : pointer; }

static size_t size_of(int32_t dtype) { return dtype == USAE_FLOAT64 ? 8 : dtype == USAE_FLOAT32 ? 4 : 2; }

static void write_number(char *place, int32_t dtype, double number) {
  float narrow = (float)number;
  uint32_t word;
  memcpy(&word, &narrow, 4);
  uint16_t half = (uint16_t)(word >> 16);
  if (dtype == USAE_FLOAT32) memcpy(place, &narrow, 4);
  if (dtype == USAE_FLOAT64) memcpy(place, &number, 8);
  if (dtype == USAE_BFLOAT16) memcpy(place, &half, 2);
  if (dtype == USAE_FLOAT16) { /* of the right size, which is all that matters */
    half = (uint16_t)((bits() & 0x83ff) | (uint64_t)between(8, 17) << 10);
    if (number != number) half = 0x7e00;
    memcpy(place, &half, 2);
  }
}

/* Fills sizes and strides, and gives the memory. Layouts: dense, gaps between columns, rows from the last to the first, all
 * images the same. */
static void *lay_out(usae_matrix *x, int64_t outer, int64_t inner, int64_t columns) {
  const int64_t size = (int64_t)size_of(x->dtype), gap = chance(15) ? 2 : 1;
  x->outer = outer;
  x->inner = inner;
  x->columns = columns;
  x->column_stride = gap * size;
  x->inner_stride = columns * x->column_stride;
  x->outer_stride = inner * x->inner_stride;
  const bool backwards = chance(15) && columns > 0;
  const bool same = chance(10);
  const int64_t count = outer * inner * columns * gap;
  char *memory = allocate((size_t)(count * size));
  for (int64_t i = 0; i < count; i++) write_number(memory + i * size, x->dtype, 2 * real() - 1 + (i % columns == 0));
  x->data = memory;
  if (same && outer > 0) x->outer_stride = 0;
  if (backwards && outer * inner > 0 && !same) {
    x->data = memory + (outer * inner - 1) * x->inner_stride;
    x->inner_stride = -x->inner_stride;
    x->outer_stride = inner * x->inner_stride;
  }
  if (chance(6) && count > 0)
    for (int64_t odd = between(1, 3); odd > 0; odd--) write_number(memory + below(count) * size, x->dtype, odd_number());
  if (chance(3) && count > 0) { /* large, small, or constant */
    const double number = odd_number();
    for (int64_t i = 0; i < count; i++) write_number(memory + i * size, x->dtype, number * (chance(50) ? 1 : real()));
  }
  return memory;
}

/* Makes a size one that usae.h refuses, whatever the others are. */
static void spoil(usae_matrix *x) {
  int64_t *const sizes[] = {&x->outer, &x->inner, &x->columns};
  static const int64_t refused[] = {-1, INT64_MIN, INT64_MAX, 1ll << 62, (1ll << 40) + 1, -(1ll << 40)};
  switch (below(6)) {
  case 0: /* no rows, in either way */
    *sizes[below(2)] = 0;
    break;
  case 1:
    x->dtype = (int32_t)limit();
    if (x->dtype >= 0 && x->dtype <= 3) x->dtype = 4;
    break;
  case 2:
    x->data = NULL;
    break;
  case 3:
    x->reserved = (int32_t)between(1, 9);
    break;
  default: {
    const int64_t size = below(3);
    *sizes[size] = refused[below(sizeof refused / sizeof refused[0])];
    if (size < 2 && *sizes[1 - size] == 0) *sizes[1 - size] = 1;
  }
  }
}

/* Selects the same rows of all models, in order. */
static void select_rows(activations *x, int64_t total) {
  int64_t n = 0;
  x->rows = allocate((size_t)(total > 0 ? total : 1) * sizeof *x->rows);
  for (int64_t row = 0; row < total; row++)
    if (chance(50)) x->rows[n++] = row;
  if (chance(10) && n > 0) x->rows[below(n)] = chance(50) ? total : limit();
  const int64_t refused = chance(50) ? -1 - below(9) : total + 1 + (limit() & INT64_MAX) / 2;
  for (int32_t j = 0; j < x->n_models; j++) {
    x->inputs[j].rows = chance(2) ? NULL : x->rows;
    x->inputs[j].n_rows = chance(97) ? n : refused;
  }
}

activations activations_make(int32_t n, const int64_t *widths, bool endless) {
  activations x;
  memset(&x, 0, sizeof x);
  x.n_models = n;
  int64_t outer = chance(3) ? 0 : between(1, chance(10) ? 70 : 9), inner = chance(3) ? 0 : between(1, chance(50) ? 1 : 8);
  endless = endless && chance(3);
  for (int32_t j = 0; j < n && j < MOST_MODELS; j++) {
    x.inputs[j].dtype = (int32_t)(chance(70) ? USAE_FLOAT32 : below(4));
    int64_t columns = chance(2) ? between(0, 9) : widths[j], rows = chance(2) ? between(0, 9) : outer;
    x.memory[j] = lay_out(&x.inputs[j], rows, inner, columns);
    if (endless && rows > 0) {
      x.inputs[j].outer = 1ll << 31;
      x.inputs[j].outer_stride = 0;
    }
  }
  if (chance(10) && n <= MOST_MODELS && row_count(&x.inputs[0]) < 1 << 20) select_rows(&x, row_count(&x.inputs[0]));
  if (chance(6) && n > 0) spoil(&x.inputs[below(n < MOST_MODELS ? n : MOST_MODELS)]);
  return x;
}

void activations_free(activations *x) {
  for (int j = 0; j < MOST_MODELS; j++) free(x->memory[j]);
  free(x->rows);
}

void leave_out_models(activations *x) {
  for (int32_t j = 0; j < x->n_models && j < MOST_MODELS; j++)
    if (chance(40)) memset(&x->inputs[j], 0, sizeof x->inputs[j]);
}

int64_t rows_of_batch(const activations *x) {
  int64_t rows = 0;
  for (int32_t j = 0; j < x->n_models && j < MOST_MODELS && rows == 0; j++) rows = row_count(&x->inputs[j]);
  return rows;
}

int64_t row_count(const usae_matrix *x) {
  if (x->outer <= 0 || x->inner <= 0 || x->outer > 1ll << 40 || x->inner > (1ll << 40) / x->outer) return 0;
  return x->rows != NULL ? (x->n_rows > 0 && x->n_rows <= x->outer * x->inner ? x->n_rows : 0) : x->outer * x->inner;
}

static int64_t polls_left;

static int32_t count_down(void *context) {
  require(context == &polls_left, "poll gets its context");
  return polls_left-- <= 0;
}

static void count_rows(void *context, int64_t rows) { require(context == &polls_left && rows > 0, "progress"); }

const usae_interrupt *interrupt(bool must) {
  static usae_interrupt made;
  if (!must && chance(80)) return NULL;
  polls_left = chance(50) ? 0 : between(0, 40);
  made = (usae_interrupt){must || !chance(10) ? count_down : NULL, &polls_left, chance(50) ? count_rows : NULL};
  return &made;
}
