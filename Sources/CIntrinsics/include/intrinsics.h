/* Instructions that Swift's vector types have no name for. Each kernel target is compiled for one instruction set and gets that
 * set's file, in which the same functions have the same meaning. */
#ifndef USAE_INTRINSICS_H
#define USAE_INTRINSICS_H
#include <stdint.h>

/* The warning is about how vectors wider than a register are passed to functions; these functions are all inlined. */
#pragma clang diagnostic ignored "-Wpsabi"
#define USAE_INLINE static inline __attribute__((always_inline))

/* Asks for the cache line at `address`, which need not be readable. */
USAE_INLINE void usae_prefetch(const void *address) { __builtin_prefetch(address); }

/* As many floats as one register holds. Swift adds vectors lane by lane and leaves it to the optimiser to join the lanes, which
 * in long straight code, such as a butterfly, it does only in part. These functions are one instruction each. */
#if defined(__AVX512F__)
typedef float usae_floats __attribute__((vector_size(64)));
#elif defined(__AVX2__)
typedef float usae_floats __attribute__((vector_size(32)));
#else
typedef float usae_floats __attribute__((vector_size(16)));
#endif
USAE_INLINE usae_floats usae_add(usae_floats a, usae_floats b) { return a + b; }
USAE_INLINE usae_floats usae_subtract(usae_floats a, usae_floats b) { return a - b; }
USAE_INLINE usae_floats usae_multiply(usae_floats a, usae_floats b) { return a * b; }
/* sum + a * b, rounded once where the processor has a fused multiply-add. */
USAE_INLINE usae_floats usae_multiply_add(usae_floats sum, usae_floats a, usae_floats b) {
#if defined(__FMA__) || defined(__aarch64__)
  return __builtin_elementwise_fma(a, b, sum);
#else
  return sum + a * b;
#endif
}

/* One register of AVX-512, two of AVX2, four of others. */
typedef int32_t usae_int32x16 __attribute__((vector_size(64)));
typedef float usae_float32x16 __attribute__((vector_size(64)));

/* Swift's own conversion goes lane by lane. */
USAE_INLINE usae_float32x16 usae_to_floats(usae_int32x16 a) { return __builtin_convertvector(a, usae_float32x16); }

/* Sum of all lanes, wrapping. */
USAE_INLINE int32_t usae_sum(usae_int32x16 a) { return __builtin_reduce_add(a); }

/* An empty statement that pins a vector to a register: without it the compiler turns rounds of shuffles into loads or moves of
 * single elements, which take longer. */
#if defined(__x86_64__)
#define USAE_PIN(vector) __asm__("" : "+v"(vector))
#elif defined(__aarch64__)
#define USAE_PIN(vector) __asm__("" : "+w"(vector))
#else
#define USAE_PIN(vector)
#endif

/* a0 b0 a1 b1 and a2 b2 a3 b3. */
typedef float usae_float32x4 __attribute__((vector_size(16)));
USAE_INLINE usae_float32x4 usae_zip_low(usae_float32x4 a, usae_float32x4 b) {
  usae_float32x4 c = __builtin_shufflevector(a, b, 0, 4, 1, 5);
  USAE_PIN(c);
  return c;
}
USAE_INLINE usae_float32x4 usae_zip_high(usae_float32x4 a, usae_float32x4 b) {
  usae_float32x4 c = __builtin_shufflevector(a, b, 2, 6, 3, 7);
  USAE_PIN(c);
  return c;
}

/* In every set's file:
 *
 * usae_not_zero(a), usae_positive(a): which lanes are not 0, or positive, a bit each.
 *
 * usae_to_bytes(a, bytes): the nearest whole numbers, from -127 to 127, which are also written as bytes; for NaN, any.
 *
 * usae_write_above(threshold, uppers, column, columns, values, kept): writes the numbers of the lanes whose `uppers` are above
 * the threshold, counted from `column`, and the `values` of these lanes; returns how many there are. It may overwrite all
 * sixteen places.
 *
 * usae_dot4(sum, a, b), where the set multiplies bytes: in each lane, sum + the four products of a byte of `a` with a byte of
 * `b`. It never saturates. Those of `b` are signed, those of `a` unsigned (NEON: signed). */
#if defined(__AVX512F__)
#include "../sets/avx512.h"
#elif defined(__AVX2__)
#include "../sets/avx2.h"
#elif defined(__ARM_NEON)
#include "../sets/neon.h"
#else
#include "../sets/portable.h"
#endif
#if defined(__AMX_INT8__)
#include "../sets/amx.h"
#endif

#if !defined(USAE_HAS_DOT4)
/* Used by tests alone: without an instruction for it, screening takes longer than the product. */
USAE_INLINE usae_int32x16 usae_dot4(usae_int32x16 sum, usae_int32x16 a, usae_int32x16 b) {
  typedef uint32_t unsigned32x16 __attribute__((vector_size(64)));
  for (int byte = 0; byte < 4; byte++) {
    const usae_int32x16 token = (usae_int32x16)((unsigned32x16)a >> 8 * byte & 0xff);
    const usae_int32x16 weight = (usae_int32x16)((unsigned32x16)b << (24 - 8 * byte)) >> 24;
    sum = (usae_int32x16)((unsigned32x16)sum + (unsigned32x16)(token * weight));
  }
  return sum;
}
#endif

#endif
