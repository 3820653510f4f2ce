/* NEON, of every arm64 processor: four registers. Included by intrinsics.h alone. */
#ifndef USAE_NEON_H
#define USAE_NEON_H

#include <arm_neon.h>

/* Four lanes of sixteen, which the compiler knows to be a register. */
USAE_INLINE float32x4_t usae_quarter(usae_float32x16 a, int number) {
  switch (number) {
    case 0: return __builtin_shufflevector(a, a, 0, 1, 2, 3);
    case 1: return __builtin_shufflevector(a, a, 4, 5, 6, 7);
    case 2: return __builtin_shufflevector(a, a, 8, 9, 10, 11);
    default: return __builtin_shufflevector(a, a, 12, 13, 14, 15);
  }
}
USAE_INLINE usae_float32x16 usae_of_quarters(const float32x4_t *a) {
  return __builtin_shufflevector(
      __builtin_shufflevector(a[0], a[1], 0, 1, 2, 3, 4, 5, 6, 7), __builtin_shufflevector(a[2], a[3], 0, 1, 2, 3, 4, 5, 6, 7),
      0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}

/* The lowest byte of each lane of four masks. */
USAE_INLINE uint8x16_t usae_narrow(uint32x4_t a, uint32x4_t b, uint32x4_t c, uint32x4_t d) {
  const uint16x8_t low = vcombine_u16(vmovn_u32(a), vmovn_u32(b)), high = vcombine_u16(vmovn_u32(c), vmovn_u32(d));
  return vcombine_u8(vmovn_u16(low), vmovn_u16(high));
}
/* A bit for each byte of a mask: NEON has no instruction that gathers them, but one that adds. */
USAE_INLINE uint32_t usae_bits(uint8x16_t mask) {
  const uint8x16_t places = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
  const uint8x16_t bits = vandq_u8(mask, places);
  return (uint32_t)vaddv_u8(vget_low_u8(bits)) | (uint32_t)vaddv_u8(vget_high_u8(bits)) << 8;
}

USAE_INLINE uint32_t usae_not_zero(usae_float32x16 a) {
  return usae_bits(vmvnq_u8(usae_narrow(
      vceqzq_f32(usae_quarter(a, 0)), vceqzq_f32(usae_quarter(a, 1)), vceqzq_f32(usae_quarter(a, 2)),
      vceqzq_f32(usae_quarter(a, 3)))));
}
USAE_INLINE uint32_t usae_positive(usae_float32x16 a) {
  return usae_bits(usae_narrow(
      vcgtzq_f32(usae_quarter(a, 0)), vcgtzq_f32(usae_quarter(a, 1)), vcgtzq_f32(usae_quarter(a, 2)),
      vcgtzq_f32(usae_quarter(a, 3))));
}

USAE_INLINE usae_float32x16 usae_to_bytes(usae_float32x16 a, int8_t *bytes) {
  float32x4_t whole[4];
  int16x4_t words[4];
  for (int i = 0; i < 4; i++) {
    whole[i] = vrndnq_f32(usae_quarter(a, i));
    whole[i] = vmaxnmq_f32(vminnmq_f32(whole[i], vdupq_n_f32(127)), vdupq_n_f32(-127));
    words[i] = vmovn_s32(vcvtq_s32_f32(whole[i]));
  }
  vst1_s8(bytes, vmovn_s16(vcombine_s16(words[0], words[1])));
  vst1_s8(bytes + 8, vmovn_s16(vcombine_s16(words[2], words[3])));
  return usae_of_quarters(whole);
}

/* Which bytes of a register move to the front, by which of its four lanes are kept. */
#define USAE_LANE(n) 4 * (n), 4 * (n) + 1, 4 * (n) + 2, 4 * (n) + 3
#define USAE_LANES(a, b, c, d) {USAE_LANE(a), USAE_LANE(b), USAE_LANE(c), USAE_LANE(d)}
static const uint8_t usae_to_front[16][16] = {
    USAE_LANES(0, 1, 2, 3), USAE_LANES(0, 1, 2, 3), USAE_LANES(1, 0, 2, 3), USAE_LANES(0, 1, 2, 3),
    USAE_LANES(2, 0, 1, 3), USAE_LANES(0, 2, 1, 3), USAE_LANES(1, 2, 0, 3), USAE_LANES(0, 1, 2, 3),
    USAE_LANES(3, 0, 1, 2), USAE_LANES(0, 3, 1, 2), USAE_LANES(1, 3, 0, 2), USAE_LANES(0, 1, 3, 2),
    USAE_LANES(2, 3, 0, 1), USAE_LANES(0, 2, 3, 1), USAE_LANES(1, 2, 3, 0), USAE_LANES(0, 1, 2, 3),
};
#undef USAE_LANES
#undef USAE_LANE

USAE_INLINE int32_t usae_write_above(
    usae_float32x16 threshold, usae_float32x16 uppers, int32_t column, int32_t *columns, usae_float32x16 values, float *kept) {
  uint32x4_t above[4];
  for (int i = 0; i < 4; i++) above[i] = vcgtq_f32(usae_quarter(uppers, i), usae_quarter(threshold, i));
  const uint32x4_t any = vorrq_u32(vorrq_u32(above[0], above[1]), vorrq_u32(above[2], above[3]));
  if (vmaxvq_u32(any) == 0) return 0; /* most often: of thousands of concepts, dozens are above */
  int32_t count = 0;
  for (int i = 0; i < 4; i++) {
    const uint32_t bits = vaddvq_u32(vandq_u32(above[i], (uint32x4_t){1, 2, 4, 8}));
    const uint8x16_t order = vld1q_u8(usae_to_front[bits]);
    const int32x4_t numbers = vaddq_s32(vdupq_n_s32(column + 4 * i), (int32x4_t){0, 1, 2, 3});
    vst1q_s32(columns + count, vreinterpretq_s32_u8(vqtbl1q_u8(vreinterpretq_u8_s32(numbers), order)));
    vst1q_f32(
        kept + count, vreinterpretq_f32_u8(vqtbl1q_u8(vreinterpretq_u8_f32(usae_quarter(values, i)), order)));
    count += __builtin_popcount(bits);
  }
  return count;
}

#if defined(__ARM_FEATURE_DOTPROD)
#define USAE_HAS_DOT4
USAE_INLINE usae_int32x16 usae_dot4(usae_int32x16 sum, usae_int32x16 a, usae_int32x16 b) {
  float32x4_t sums[4];
  for (int i = 0; i < 4; i++) {
    const int32x4_t old = vreinterpretq_s32_f32(usae_quarter((usae_float32x16)sum, i));
    const int8x16_t x = vreinterpretq_s8_f32(usae_quarter((usae_float32x16)a, i));
    const int8x16_t y = vreinterpretq_s8_f32(usae_quarter((usae_float32x16)b, i));
    sums[i] = vreinterpretq_f32_s32(vdotq_s32(old, x, y));
  }
  return (usae_int32x16)usae_of_quarters(sums);
}
#endif

#endif
