#include "fuzz.h"

#include <math.h>

static uint64_t state;

void seed_numbers(uint64_t seed) { state = seed; }

/* SplitMix64. */
uint64_t bits(void) {
  uint64_t z = state += 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

int64_t below(int64_t count) { return (int64_t)(bits() % (uint64_t)count); }

int64_t between(int64_t first, int64_t last) { return first + below(last - first + 1); }

bool chance(int percent) { return below(100) < percent; }

double real(void) { return (double)(bits() >> 11) / 9007199254740992.0; }

int64_t limit(void) {
  static const int64_t numbers[] = {
      0, 1, -1, 2, -2, 3, 15, 16, 17, 4096, 4097, 8192, 8193, 1 << 20, (1 << 20) + 1, 1 << 24, (1 << 24) + 1,
      INT32_MAX, INT32_MIN, 1ll << 31, 1ll << 32, (1ll << 32) + 1, 1ll << 40, (1ll << 40) + 1, 1ll << 53, (1ll << 53) + 1,
      1ll << 61, 1ll << 62, -(1ll << 62), INT64_MAX, INT64_MAX - 7, INT64_MIN};
  return numbers[below(sizeof numbers / sizeof numbers[0])];
}

double odd_number(void) {
  switch (below(16)) {
  case 0: return NAN;
  case 1: return INFINITY;
  case 2: return -INFINITY;
  case 3: return 0;
  case 4: return -0.0;
  case 5: return 1e-45;
  case 6: return 1e-38;
  case 7: return 3.4e38;
  case 8: return -3.4e38;
  case 9: return 1e19;
  case 10: return 1e300;
  case 11: return -1e300;
  case 12: return -1;
  case 13: return 0.5;
  case 14: return 1;
  default: return 1e-300;
  }
}
