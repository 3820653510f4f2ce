/* AVX-512: one register. Included by intrinsics.h alone. */
#ifndef USAE_AVX512_H
#define USAE_AVX512_H

#include <immintrin.h>

USAE_INLINE usae_float32x16 usae_to_bytes(usae_float32x16 a, int8_t *bytes) {
  __m512 whole = _mm512_roundscale_ps((__m512)a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  whole = _mm512_max_ps(_mm512_min_ps(whole, _mm512_set1_ps(127)), _mm512_set1_ps(-127));
  _mm_storeu_si128((__m128i *)bytes, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(whole)));
  return (usae_float32x16)whole;
}

USAE_INLINE uint32_t usae_not_zero(usae_float32x16 a) {
  return _mm512_cmp_ps_mask((__m512)a, _mm512_setzero_ps(), _CMP_NEQ_UQ);
}
USAE_INLINE uint32_t usae_positive(usae_float32x16 a) {
  return _mm512_cmp_ps_mask((__m512)a, _mm512_setzero_ps(), _CMP_GT_OQ);
}

/* Always writes whole vectors: a branch would be mispredicted too often. */
USAE_INLINE int32_t usae_write_above(
    usae_float32x16 threshold, usae_float32x16 uppers, int32_t column, int32_t *columns, usae_float32x16 values, float *kept) {
  const __mmask16 above = _mm512_cmp_ps_mask((__m512)uppers, (__m512)threshold, _CMP_GT_OQ);
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  _mm512_storeu_si512(columns, _mm512_maskz_compress_epi32(above, _mm512_add_epi32(lanes, _mm512_set1_epi32(column))));
  _mm512_storeu_ps(kept, _mm512_maskz_compress_ps(above, (__m512)values));
  return __builtin_popcount(above);
}
/* Writes a selection key, bits << 32 | ~column, for each lane above the threshold; returns how many there are. */
USAE_INLINE int32_t usae_write_keys(
    usae_float32x16 threshold, usae_float32x16 values, int32_t column, uint64_t *keys) {
  const __mmask16 above = _mm512_cmp_ps_mask((__m512)values, (__m512)threshold, _CMP_GT_OQ);
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i low = _mm512_sub_epi32(_mm512_set1_epi32(~column), lanes), high = (__m512i)values;
  for (int half = 0; half < 2; half++) {
    const __m256i low8 = half ? _mm512_extracti64x4_epi64(low, 1) : _mm512_castsi512_si256(low);
    const __m256i high8 = half ? _mm512_extracti64x4_epi64(high, 1) : _mm512_castsi512_si256(high);
    const __m512i both =
        _mm512_or_si512(_mm512_slli_epi64(_mm512_cvtepu32_epi64(high8), 32), _mm512_cvtepu32_epi64(low8));
    const __mmask8 kept = (__mmask8)(above >> 8 * half);
    _mm512_storeu_si512(keys, _mm512_maskz_compress_epi64(kept, both));
    keys += __builtin_popcount(kept);
  }
  return __builtin_popcount(above);
}

/* a0 b0 a1 b1 ... of the low or of the high halves. Without USAE_PIN, rounds of these take four times as long. */
USAE_INLINE usae_float32x16 usae_interleave_low(usae_float32x16 a, usae_float32x16 b) {
  usae_float32x16 c = __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  USAE_PIN(c);
  return c;
}
USAE_INLINE usae_float32x16 usae_interleave_high(usae_float32x16 a, usae_float32x16 b) {
  usae_float32x16 c = __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  USAE_PIN(c);
  return c;
}

#if defined(__AVX512VNNI__)
#define USAE_HAS_DOT4
USAE_INLINE usae_int32x16 usae_dot4(usae_int32x16 sum, usae_int32x16 a, usae_int32x16 b) {
  return (usae_int32x16)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)a, (__m512i)b);
}
#endif

#endif
