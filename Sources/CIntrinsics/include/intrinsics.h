/* Instructions that Swift's vector types have no name for, each for the targets that are compiled for it. */
#ifndef USAE_INTRINSICS_H
#define USAE_INTRINSICS_H
#include <stdint.h>

/* A vector of more than a register is passed in other ways where registers are wider; these functions are all inlined. */
#pragma clang diagnostic ignored "-Wpsabi"

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

#if defined(__AVX2__)
#include <immintrin.h>

/* One register of AVX-512, two of AVX2. */
typedef int32_t usae_int32x16 __attribute__((vector_size(64)));
typedef float usae_float32x16 __attribute__((vector_size(64)));

/* Swift converts lane by lane. */
static inline __attribute__((always_inline)) usae_float32x16 usae_to_floats(usae_int32x16 a) {
  return __builtin_convertvector(a, usae_float32x16);
}
#endif

#if defined(__AVX2__)
/* The nearest whole numbers, from -127 to 127; they are written as bytes, too. */
static inline __attribute__((always_inline)) usae_float32x16 usae_digits(usae_float32x16 a, int8_t *bytes) {
#if defined(__AVX512F__)
  __m512 whole = _mm512_roundscale_ps((__m512)a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  whole = _mm512_max_ps(_mm512_min_ps(whole, _mm512_set1_ps(127)), _mm512_set1_ps(-127));
  _mm_storeu_si128((__m128i *)bytes, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(whole)));
  return (usae_float32x16)whole;
#else
  __m256 whole[2];
  __m256i integers[2];
  for (int half = 0; half < 2; half++) {
    const __m256 part = half ? (__m256)__builtin_shufflevector(a, a, 8, 9, 10, 11, 12, 13, 14, 15)
                             : (__m256)__builtin_shufflevector(a, a, 0, 1, 2, 3, 4, 5, 6, 7);
    whole[half] = _mm256_round_ps(part, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    whole[half] = _mm256_max_ps(_mm256_min_ps(whole[half], _mm256_set1_ps(127)), _mm256_set1_ps(-127));
    integers[half] = _mm256_cvtps_epi32(whole[half]);
  }
  const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(integers[0], integers[1]), 0xd8);
  _mm_storeu_si128(
      (__m128i *)bytes, _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
  return (usae_float32x16)__builtin_shufflevector(whole[0], whole[1], 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
#endif
}
#endif

#if defined(__AVX512F__)
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

/* Which lanes are not 0, and which are positive, a bit each. */
static inline __attribute__((always_inline)) uint32_t usae_not_zero(usae_float32x16 a) {
  return _mm512_cmp_ps_mask((__m512)a, _mm512_setzero_ps(), _CMP_NEQ_UQ);
}
static inline __attribute__((always_inline)) uint32_t usae_positive(usae_float32x16 a) {
  return _mm512_cmp_ps_mask((__m512)a, _mm512_setzero_ps(), _CMP_GT_OQ);
}

/* Writes the numbers of the lanes that are above the limit, `column` being the first's, and what these lanes of `values` hold;
 * returns how many there are. Writes whole vectors whatever it finds: a branch would be mispredicted too often. */
static inline __attribute__((always_inline)) int32_t usae_write_above(
    usae_float32x16 limit, usae_float32x16 uppers, int32_t column, int32_t *columns, usae_float32x16 values, float *kept) {
  const __mmask16 above = _mm512_cmp_ps_mask((__m512)uppers, (__m512)limit, _CMP_GT_OQ);
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  _mm512_storeu_si512(columns, _mm512_maskz_compress_epi32(above, _mm512_add_epi32(lanes, _mm512_set1_epi32(column))));
  _mm512_storeu_ps(kept, _mm512_maskz_compress_ps(above, (__m512)values));
  return __builtin_popcount(above);
}
/* Writes a selection key, bits << 32 | ~column, for each lane that is above the limit; returns how many there are. */
static inline __attribute__((always_inline)) int32_t usae_write_keys(
    usae_float32x16 limit, usae_float32x16 values, int32_t column, uint64_t *keys) {
  const __mmask16 above = _mm512_cmp_ps_mask((__m512)values, (__m512)limit, _CMP_GT_OQ);
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
#elif defined(__AVX2__)
/* The first or the second eight lanes. */
static inline __attribute__((always_inline)) __m256 usae_half(usae_float32x16 a, int second) {
  return second ? (__m256)__builtin_shufflevector(a, a, 8, 9, 10, 11, 12, 13, 14, 15)
                : (__m256)__builtin_shufflevector(a, a, 0, 1, 2, 3, 4, 5, 6, 7);
}

/* Which lanes are not 0, and which are positive, a bit each. */
static inline __attribute__((always_inline)) uint32_t usae_not_zero(usae_float32x16 a) {
  const __m256 low = _mm256_cmp_ps(usae_half(a, 0), _mm256_setzero_ps(), _CMP_NEQ_UQ);
  const __m256 high = _mm256_cmp_ps(usae_half(a, 1), _mm256_setzero_ps(), _CMP_NEQ_UQ);
  return (uint32_t)_mm256_movemask_ps(low) | (uint32_t)_mm256_movemask_ps(high) << 8;
}
static inline __attribute__((always_inline)) uint32_t usae_positive(usae_float32x16 a) {
  const __m256 low = _mm256_cmp_ps(usae_half(a, 0), _mm256_setzero_ps(), _CMP_GT_OQ);
  const __m256 high = _mm256_cmp_ps(usae_half(a, 1), _mm256_setzero_ps(), _CMP_GT_OQ);
  return (uint32_t)_mm256_movemask_ps(low) | (uint32_t)_mm256_movemask_ps(high) << 8;
}

/* Four floats from each of two places, and what turns such vectors of eight rows into four columns. */
static inline __attribute__((always_inline)) usae_floats usae_load_two(const float *low, const float *high) {
  return (usae_floats)_mm256_loadu2_m128(high, low);
}
static inline __attribute__((always_inline)) usae_floats usae_low_singles(usae_floats a, usae_floats b) {
  return (usae_floats)_mm256_unpacklo_ps((__m256)a, (__m256)b);
}
static inline __attribute__((always_inline)) usae_floats usae_high_singles(usae_floats a, usae_floats b) {
  return (usae_floats)_mm256_unpackhi_ps((__m256)a, (__m256)b);
}
static inline __attribute__((always_inline)) usae_floats usae_low_pairs(usae_floats a, usae_floats b) {
  return (usae_floats)_mm256_unpacklo_pd((__m256d)a, (__m256d)b);
}
static inline __attribute__((always_inline)) usae_floats usae_high_pairs(usae_floats a, usae_floats b) {
  return (usae_floats)_mm256_unpackhi_pd((__m256d)a, (__m256d)b);
}

/* The numbers of the bits that are set, from lane 0 on. */
static inline __attribute__((always_inline)) __m256i usae_numbers_of(uint32_t eight_bits) {
  const uint64_t bytes = _pdep_u64(eight_bits, 0x0101010101010101) * 0xff;
  return _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((int64_t)_pext_u64(0x0706050403020100, bytes)));
}

/* Writes the numbers of the lanes that are above the limit, `column` being the first's, and what these lanes of `values` hold;
 * returns how many there are: eight lanes at a time, since AVX2 has no instruction that moves lanes to the front. Writes whole
 * vectors. */
static inline __attribute__((always_inline)) int32_t usae_write_above(
    usae_float32x16 limit, usae_float32x16 uppers, int32_t column, int32_t *columns, usae_float32x16 values, float *kept) {
  int32_t count = 0;
  for (int second = 0; second < 2; second++) {
    const uint32_t above =
        (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(usae_half(uppers, second), usae_half(limit, second), _CMP_GT_OQ));
    const __m256i lanes = usae_numbers_of(above);
    _mm256_storeu_si256((__m256i *)(columns + count), _mm256_add_epi32(lanes, _mm256_set1_epi32(column + 8 * second)));
    _mm256_storeu_ps(kept + count, _mm256_permutevar8x32_ps(usae_half(values, second), lanes));
    count += __builtin_popcount(above);
  }
  return count;
}
#endif

#if defined(__AMX_INT8__)
/* A product with tiles, which are registers of sixteen rows of 64 bytes: 0 to 3 are sums, [32, 32] in quarters, 4 and 5 hold
 * sixteen tokens each, 6 and 7 sixteen concepts each. The processor knows their shapes from `begin` to `end`; between these a
 * thread's other work is slower to interrupt. */
static inline __attribute__((always_inline)) void usae_tiles_begin(void) {
  struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
  } shapes = {.palette = 1};
  for (int tile = 0; tile < 8; tile++) {
    shapes.row_bytes[tile] = 64;
    shapes.rows[tile] = 16;
  }
  _tile_loadconfig(&shapes);
}
static inline __attribute__((always_inline)) void usae_tiles_end(void) { _tile_release(); }
static inline __attribute__((always_inline)) void usae_tiles_zero(void) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}
/* Adds products of 64 bytes of 32 tokens, [32, 16 quads], and of 32 concepts, [16 quads, 32]. */
static inline __attribute__((always_inline)) void usae_tiles_add(const int32_t *tokens, const int32_t *concepts) {
  _tile_loadd(4, tokens, 64);
  _tile_loadd(6, concepts, 128);
  _tile_dpbusd(0, 4, 6);
  _tile_loadd(7, concepts + 16, 128);
  _tile_dpbusd(1, 4, 7);
  _tile_loadd(5, tokens + 16 * 16, 64);
  _tile_dpbusd(2, 5, 6);
  _tile_dpbusd(3, 5, 7);
}
/* sums [32, 32] */
static inline __attribute__((always_inline)) void usae_tiles_store(int32_t *sums) {
  _tile_stored(0, sums, 128);
  _tile_stored(1, sums + 16, 128);
  _tile_stored(2, sums + 16 * 32, 128);
  _tile_stored(3, sums + 16 * 32 + 16, 128);
}
#endif

#if defined(__AVX512VNNI__)
/* sum + the four products of an unsigned byte of `a` with a signed byte of `b`, in each lane; never saturates. */
static inline __attribute__((always_inline)) usae_int32x16 usae_dot4(usae_int32x16 sum, usae_int32x16 a, usae_int32x16 b) {
  return (usae_int32x16)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)a, (__m512i)b);
}

static inline __attribute__((always_inline)) int32_t usae_sum(usae_int32x16 a) { return _mm512_reduce_add_epi32((__m512i)a); }
#elif defined(__AVXVNNI__)
typedef int32_t usae_int32x8 __attribute__((vector_size(32)));

static inline __attribute__((always_inline)) usae_int32x8 usae_half_of_dot4(
    usae_int32x16 sum, usae_int32x16 a, usae_int32x16 b, int second) {
  return (usae_int32x8)_mm256_dpbusd_avx_epi32(
      (__m256i)usae_half((usae_float32x16)sum, second), (__m256i)usae_half((usae_float32x16)a, second),
      (__m256i)usae_half((usae_float32x16)b, second));
}
static inline __attribute__((always_inline)) usae_int32x16 usae_dot4(usae_int32x16 sum, usae_int32x16 a, usae_int32x16 b) {
  return __builtin_shufflevector(
      usae_half_of_dot4(sum, a, b, 0), usae_half_of_dot4(sum, a, b, 1), 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}

static inline __attribute__((always_inline)) int32_t usae_sum(usae_int32x16 a) { return __builtin_reduce_add(a); }
#endif

#endif
