/* AVX2: two registers. Included by intrinsics.h alone. */
#ifndef USAE_AVX2_H
#define USAE_AVX2_H

#include <immintrin.h>

/* The first or the second eight lanes. */
USAE_INLINE __m256 usae_half(usae_float32x16 a, int second) {
  return second ? (__m256)__builtin_shufflevector(a, a, 8, 9, 10, 11, 12, 13, 14, 15)
                : (__m256)__builtin_shufflevector(a, a, 0, 1, 2, 3, 4, 5, 6, 7);
}

USAE_INLINE usae_float32x16 usae_to_bytes(usae_float32x16 a, int8_t *bytes) {
  __m256 whole[2];
  __m256i integers[2];
  for (int half = 0; half < 2; half++) {
    whole[half] = _mm256_round_ps(usae_half(a, half), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    whole[half] = _mm256_max_ps(_mm256_min_ps(whole[half], _mm256_set1_ps(127)), _mm256_set1_ps(-127));
    integers[half] = _mm256_cvtps_epi32(whole[half]);
  }
  const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(integers[0], integers[1]), 0xd8);
  _mm_storeu_si128(
      (__m128i *)bytes, _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
  return (usae_float32x16)__builtin_shufflevector(whole[0], whole[1], 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}

USAE_INLINE uint32_t usae_not_zero(usae_float32x16 a) {
  const __m256 low = _mm256_cmp_ps(usae_half(a, 0), _mm256_setzero_ps(), _CMP_NEQ_UQ);
  const __m256 high = _mm256_cmp_ps(usae_half(a, 1), _mm256_setzero_ps(), _CMP_NEQ_UQ);
  return (uint32_t)_mm256_movemask_ps(low) | (uint32_t)_mm256_movemask_ps(high) << 8;
}
USAE_INLINE uint32_t usae_positive(usae_float32x16 a) {
  const __m256 low = _mm256_cmp_ps(usae_half(a, 0), _mm256_setzero_ps(), _CMP_GT_OQ);
  const __m256 high = _mm256_cmp_ps(usae_half(a, 1), _mm256_setzero_ps(), _CMP_GT_OQ);
  return (uint32_t)_mm256_movemask_ps(low) | (uint32_t)_mm256_movemask_ps(high) << 8;
}

/* Four floats from each of two places, and what turns such vectors of eight rows into four columns. */
USAE_INLINE usae_floats usae_load_two(const float *low, const float *high) {
  return (usae_floats)_mm256_loadu2_m128(high, low);
}
USAE_INLINE usae_floats usae_low_singles(usae_floats a, usae_floats b) {
  return (usae_floats)_mm256_unpacklo_ps((__m256)a, (__m256)b);
}
USAE_INLINE usae_floats usae_high_singles(usae_floats a, usae_floats b) {
  return (usae_floats)_mm256_unpackhi_ps((__m256)a, (__m256)b);
}
USAE_INLINE usae_floats usae_low_pairs(usae_floats a, usae_floats b) {
  return (usae_floats)_mm256_unpacklo_pd((__m256d)a, (__m256d)b);
}
USAE_INLINE usae_floats usae_high_pairs(usae_floats a, usae_floats b) {
  return (usae_floats)_mm256_unpackhi_pd((__m256d)a, (__m256d)b);
}

/* The numbers of the bits that are set, from lane 0 on. */
USAE_INLINE __m256i usae_numbers_of(uint32_t eight_bits) {
  const uint64_t bytes = _pdep_u64(eight_bits, 0x0101010101010101) * 0xff;
  return _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((int64_t)_pext_u64(0x0706050403020100, bytes)));
}

/* Eight lanes at a time, since AVX2 has no instruction that moves lanes to the front. Writes whole vectors. */
USAE_INLINE int32_t usae_write_above(
    usae_float32x16 threshold, usae_float32x16 uppers, int32_t column, int32_t *columns, usae_float32x16 values, float *kept) {
  int32_t count = 0;
  for (int second = 0; second < 2; second++) {
    const uint32_t above =
        (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(usae_half(uppers, second), usae_half(threshold, second), _CMP_GT_OQ));
    const __m256i lanes = usae_numbers_of(above);
    _mm256_storeu_si256((__m256i *)(columns + count), _mm256_add_epi32(lanes, _mm256_set1_epi32(column + 8 * second)));
    _mm256_storeu_ps(kept + count, _mm256_permutevar8x32_ps(usae_half(values, second), lanes));
    count += __builtin_popcount(above);
  }
  return count;
}

#if defined(__AVXVNNI__)
#define USAE_HAS_DOT4
typedef int32_t usae_int32x8 __attribute__((vector_size(32)));

USAE_INLINE usae_int32x8 usae_half_of_dot4(
    usae_int32x16 sum, usae_int32x16 a, usae_int32x16 b, int second) {
  return (usae_int32x8)_mm256_dpbusd_avx_epi32(
      (__m256i)usae_half((usae_float32x16)sum, second), (__m256i)usae_half((usae_float32x16)a, second),
      (__m256i)usae_half((usae_float32x16)b, second));
}
USAE_INLINE usae_int32x16 usae_dot4(usae_int32x16 sum, usae_int32x16 a, usae_int32x16 b) {
  return __builtin_shufflevector(
      usae_half_of_dot4(sum, a, b, 0), usae_half_of_dot4(sum, a, b, 1), 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}
#endif

#endif
