/* AMX: products of bytes in tiles. Included by intrinsics.h alone. */
#ifndef USAE_AMX_H
#define USAE_AMX_H

#include <immintrin.h>

/* A product with tiles, which are registers of sixteen rows of 64 bytes: 0 to 3 are sums, [32, 32] in quarters, 4 and 5 hold
 * sixteen tokens each, 6 and 7 sixteen concepts each. The processor knows their shapes from `begin` to `end`; between these,
 * the system takes longer to switch to another thread. */
USAE_INLINE void usae_tiles_begin(void) {
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
USAE_INLINE void usae_tiles_end(void) { _tile_release(); }
USAE_INLINE void usae_tiles_zero(void) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}
/* Adds products of 64 bytes of 32 tokens, [32, 16 groups of four], and of 32 concepts, [16 groups of four, 32]. */
USAE_INLINE void usae_tiles_add(const int32_t *tokens, const int32_t *concepts) {
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
USAE_INLINE void usae_tiles_store(int32_t *sums) {
  _tile_stored(0, sums, 128);
  _tile_stored(1, sums + 16, 128);
  _tile_stored(2, sums + 16 * 32, 128);
  _tile_stored(3, sums + 16 * 32 + 16, 128);
}

#endif
