/* Instructions that Swift's vector types have no name for, each for the targets that are compiled for it. */
#ifndef USAE_INTRINSICS_H
#define USAE_INTRINSICS_H
#include <stdint.h>

/* Asks for the cache line at `address`, which need not be readable. */
static inline __attribute__((always_inline)) void usae_prefetch(const void *address) { __builtin_prefetch(address); }

/* As many floats as one register holds. Swift adds vectors lane by lane and leaves it to the optimiser to see that; in long
 * straight code, such as a butterfly, it sees parts of them. These are one instruction each. */
#if defined(__AVX512F__)
typedef float usae_floats __attribute__((vector_size(64)));
#elif defined(__AVX2__)
typedef float usae_floats __attribute__((vector_size(32)));
#else
typedef float usae_floats __attribute__((vector_size(16)));
#endif
static inline __attribute__((always_inline)) usae_floats usae_add(usae_floats a, usae_floats b) { return a + b; }
static inline __attribute__((always_inline)) usae_floats usae_subtract(usae_floats a, usae_floats b) { return a - b; }
static inline __attribute__((always_inline)) usae_floats usae_multiply(usae_floats a, usae_floats b) { return a * b; }
/* sum + a * b, rounded once where the processor can. */
static inline __attribute__((always_inline)) usae_floats usae_multiply_add(usae_floats sum, usae_floats a, usae_floats b) {
#if defined(__FMA__) || defined(__aarch64__)
  return __builtin_elementwise_fma(a, b, sum);
#else
  return sum + a * b;
#endif
}

#if defined(__AVX512F__)
#include <immintrin.h>

typedef int32_t usae_int32x16 __attribute__((vector_size(64)));
typedef float usae_float32x16 __attribute__((vector_size(64)));

/* a0 b0 a1 b1 ... of the low or of the high halves. Without the empty statement that pins the result to a register, the
 * compiler turns rounds of these into loads of single elements, four times as slow. */
static inline __attribute__((always_inline)) usae_float32x16 usae_interleave_low(usae_float32x16 a, usae_float32x16 b) {
  usae_float32x16 c = __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  __asm__("" : "+v"(c));
  return c;
}
static inline __attribute__((always_inline)) usae_float32x16 usae_interleave_high(usae_float32x16 a, usae_float32x16 b) {
  usae_float32x16 c = __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  __asm__("" : "+v"(c));
  return c;
}

/* Which lanes are not 0, a bit each. */
static inline __attribute__((always_inline)) uint32_t usae_not_zero(usae_float32x16 a) {
  return _mm512_cmp_ps_mask((__m512)a, _mm512_setzero_ps(), _CMP_NEQ_UQ);
}

/* Swift converts lane by lane. */
static inline __attribute__((always_inline)) usae_float32x16 usae_to_floats(usae_int32x16 a) {
  return __builtin_convertvector(a, usae_float32x16);
}
/* Writes the numbers of the lanes that are above the limit, `column` being the first's, and returns how many there are. Writes
 * a whole vector whatever it finds: a branch would be mispredicted too often. */
static inline __attribute__((always_inline)) int32_t usae_write_above(
    usae_float32x16 limit, usae_float32x16 values, int32_t column, int32_t *columns) {
  const __mmask16 above = _mm512_cmp_ps_mask((__m512)values, (__m512)limit, _CMP_GT_OQ);
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  _mm512_storeu_si512(columns, _mm512_maskz_compress_epi32(above, _mm512_add_epi32(lanes, _mm512_set1_epi32(column))));
  return __builtin_popcount(above);
}
#endif

#if defined(__AVX512VNNI__)
/* sum + the four products of an unsigned byte of `a` with a signed byte of `b`, in each lane; never saturates. */
static inline __attribute__((always_inline)) usae_int32x16 usae_dot4(usae_int32x16 sum, usae_int32x16 a, usae_int32x16 b) {
  return (usae_int32x16)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)a, (__m512i)b);
}

static inline __attribute__((always_inline)) int32_t usae_sum(usae_int32x16 a) { return _mm512_reduce_add_epi32((__m512i)a); }
#endif

#endif
