import USAEKernelTypes

#if USAE_AVX512
  import CIntrinsics

  /// Sixteen rows, as vectors in registers.
  struct Block {
    var r0, r1, r2, r3, r4, r5, r6, r7, r8, r9, r10, r11, r12, r13, r14, r15: Vector

    /// One round of a perfect shuffle: row i is alternated with row i + 8. Four rounds transpose.
    @inline(__always)
    func shuffled() -> Block {
      Block(
        r0: usae_interleave_low(r0, r8), r1: usae_interleave_high(r0, r8), r2: usae_interleave_low(r1, r9),
        r3: usae_interleave_high(r1, r9), r4: usae_interleave_low(r2, r10), r5: usae_interleave_high(r2, r10),
        r6: usae_interleave_low(r3, r11), r7: usae_interleave_high(r3, r11), r8: usae_interleave_low(r4, r12),
        r9: usae_interleave_high(r4, r12), r10: usae_interleave_low(r5, r13), r11: usae_interleave_high(r5, r13),
        r12: usae_interleave_low(r6, r14), r13: usae_interleave_high(r6, r14), r14: usae_interleave_low(r7, r15),
        r15: usae_interleave_high(r7, r15))
    }

    @inline(__always)
    func transposed() -> Block { shuffled().shuffled().shuffled().shuffled() }
  }

  /// out[i][j] = rows[j][i] of a block of 16 x 16.
  @inline(__always)
  func transposeBlock(_ rows: ConstantFloats, _ stride: Int, _ out: Floats, _ outStride: Int) {
    let block = Block(
      r0: load(rows, 0), r1: load(rows, stride), r2: load(rows, 2 &* stride), r3: load(rows, 3 &* stride),
      r4: load(rows, 4 &* stride), r5: load(rows, 5 &* stride), r6: load(rows, 6 &* stride), r7: load(rows, 7 &* stride),
      r8: load(rows, 8 &* stride), r9: load(rows, 9 &* stride), r10: load(rows, 10 &* stride),
      r11: load(rows, 11 &* stride), r12: load(rows, 12 &* stride), r13: load(rows, 13 &* stride),
      r14: load(rows, 14 &* stride), r15: load(rows, 15 &* stride)
    ).transposed()
    store(block.r0, out, 0); store(block.r1, out, outStride)
    store(block.r2, out, 2 &* outStride); store(block.r3, out, 3 &* outStride)
    store(block.r4, out, 4 &* outStride); store(block.r5, out, 5 &* outStride)
    store(block.r6, out, 6 &* outStride); store(block.r7, out, 7 &* outStride)
    store(block.r8, out, 8 &* outStride); store(block.r9, out, 9 &* outStride)
    store(block.r10, out, 10 &* outStride); store(block.r11, out, 11 &* outStride)
    store(block.r12, out, 12 &* outStride); store(block.r13, out, 13 &* outStride)
    store(block.r14, out, 14 &* outStride); store(block.r15, out, 15 &* outStride)
  }
#else
  /// out[i][j] = rows[j][i] of a block of 16 x 16.
  @inline(__always)
  func transposeBlock(_ rows: ConstantFloats, _ stride: Int, _ out: Floats, _ outStride: Int) {
    for j in 0..<16 {
      for i in 0..<16 { out[i &* outStride &+ j] = rows[j &* stride &+ i] }
    }
  }
#endif
