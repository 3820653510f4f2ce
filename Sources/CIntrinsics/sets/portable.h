/* Any processor. Included by intrinsics.h alone. */
#ifndef USAE_PORTABLE_H
#define USAE_PORTABLE_H

USAE_INLINE uint32_t usae_not_zero(usae_float32x16 a) {
  uint32_t bits = 0;
  for (int lane = 0; lane < 16; lane++) bits |= (uint32_t)(a[lane] != 0) << lane;
  return bits;
}
USAE_INLINE uint32_t usae_positive(usae_float32x16 a) {
  uint32_t bits = 0;
  for (int lane = 0; lane < 16; lane++) bits |= (uint32_t)(a[lane] > 0) << lane;
  return bits;
}

USAE_INLINE usae_float32x16 usae_to_bytes(usae_float32x16 a, int8_t *bytes) {
  const float magic = 12582912; /* 1.5 * 2^23: adding it rounds to a whole number and leaves that in the low bits */
  for (int lane = 0; lane < 16; lane++) {
    float whole = (a[lane] + magic) - magic;
    whole = whole > 127 ? 127 : whole < -127 ? -127 : whole;
    const float shifted = whole + magic;
    bytes[lane] = (int8_t)__builtin_bit_cast(int32_t, shifted);
    a[lane] = whole;
  }
  return a;
}

USAE_INLINE int32_t usae_write_above(
    usae_float32x16 threshold, usae_float32x16 uppers, int32_t column, int32_t *columns, usae_float32x16 values, float *kept) {
  int32_t count = 0;
  for (int lane = 0; lane < 16; lane++) {
    /* A lane is always written, and kept if above: a branch would be mispredicted too often. */
    columns[count] = column + lane;
    kept[count] = values[lane];
    count += uppers[lane] > threshold[lane];
  }
  return count;
}

#endif
