import CIntrinsics
import KernelTypes

#if USAE_AVX512
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

  extension Block {
    /// Adjacent elements of sixteen rows `stride` apart.
    @inline(__always)
    init(_ rows: ConstantFloats, _ stride: Int) {
      self.init(
        r0: load(rows, 0), r1: load(rows, stride), r2: load(rows, 2 &* stride), r3: load(rows, 3 &* stride),
        r4: load(rows, 4 &* stride), r5: load(rows, 5 &* stride), r6: load(rows, 6 &* stride), r7: load(rows, 7 &* stride),
        r8: load(rows, 8 &* stride), r9: load(rows, 9 &* stride), r10: load(rows, 10 &* stride),
        r11: load(rows, 11 &* stride), r12: load(rows, 12 &* stride), r13: load(rows, 13 &* stride),
        r14: load(rows, 14 &* stride), r15: load(rows, 15 &* stride))
    }

    /// Elements from `column` on of sixteen rows anywhere.
    @inline(__always)
    init(_ rows: UnsafePointer<ConstantFloats>, _ column: Int) {
      self.init(
        r0: load(rows[0], column), r1: load(rows[1], column), r2: load(rows[2], column), r3: load(rows[3], column),
        r4: load(rows[4], column), r5: load(rows[5], column), r6: load(rows[6], column), r7: load(rows[7], column),
        r8: load(rows[8], column), r9: load(rows[9], column), r10: load(rows[10], column), r11: load(rows[11], column),
        r12: load(rows[12], column), r13: load(rows[13], column), r14: load(rows[14], column), r15: load(rows[15], column))
    }

    @inline(__always)
    func write(_ out: Floats, _ stride: Int) {
      store(r0, out, 0); store(r1, out, stride); store(r2, out, 2 &* stride); store(r3, out, 3 &* stride)
      store(r4, out, 4 &* stride); store(r5, out, 5 &* stride); store(r6, out, 6 &* stride); store(r7, out, 7 &* stride)
      store(r8, out, 8 &* stride); store(r9, out, 9 &* stride); store(r10, out, 10 &* stride)
      store(r11, out, 11 &* stride); store(r12, out, 12 &* stride); store(r13, out, 13 &* stride)
      store(r14, out, 14 &* stride); store(r15, out, 15 &* stride)
    }

    @inline(__always)
    func write(_ rows: UnsafePointer<Floats>, _ column: Int) {
      store(r0, rows[0], column); store(r1, rows[1], column); store(r2, rows[2], column); store(r3, rows[3], column)
      store(r4, rows[4], column); store(r5, rows[5], column); store(r6, rows[6], column); store(r7, rows[7], column)
      store(r8, rows[8], column); store(r9, rows[9], column); store(r10, rows[10], column); store(r11, rows[11], column)
      store(r12, rows[12], column); store(r13, rows[13], column); store(r14, rows[14], column)
      store(r15, rows[15], column)
    }
  }

  /// out[i][j] = rows[j][i] of a block of 16 x 16.
  @inline(__always)
  func transposeBlock(_ rows: ConstantFloats, _ stride: Int, _ out: Floats, _ outStride: Int) {
    Block(rows, stride).transposed().write(out, outStride)
  }

  /// out[i][j] = rows[j][column + i], the rows being anywhere.
  @inline(__always)
  func transposeBlock(_ rows: UnsafePointer<ConstantFloats>, _ column: Int, _ out: Floats, _ outStride: Int) {
    Block(rows, column).transposed().write(out, outStride)
  }

  /// out[i][column + j] = rows[j][i], the rows of `out` being anywhere.
  @inline(__always)
  func transposeBlock(_ rows: ConstantFloats, _ stride: Int, _ out: UnsafePointer<Floats>, _ column: Int) {
    Block(rows, stride).transposed().write(out, column)
  }
#else
  /// Four rows of four.
  struct Square {
    let r0, r1, r2, r3: SIMD4<Float>

    @inline(__always)
    init(_ p0: ConstantFloats, _ p1: ConstantFloats, _ p2: ConstantFloats, _ p3: ConstantFloats) {
      @inline(__always) func four(_ place: ConstantFloats) -> SIMD4<Float> {
        UnsafeRawPointer(place).loadUnaligned(as: SIMD4<Float>.self)
      }
      self.init(r0: four(p0), r1: four(p1), r2: four(p2), r3: four(p3))
    }

    @inline(__always)
    private init(r0: SIMD4<Float>, r1: SIMD4<Float>, r2: SIMD4<Float>, r3: SIMD4<Float>) {
      (self.r0, self.r1, self.r2, self.r3) = (r0, r1, r2, r3)
    }

    @inline(__always)
    func transposed() -> Square {
      let low02 = usae_zip_low(r0, r2), low13 = usae_zip_low(r1, r3)
      let high02 = usae_zip_high(r0, r2), high13 = usae_zip_high(r1, r3)
      return Square(
        r0: usae_zip_low(low02, low13), r1: usae_zip_high(low02, low13), r2: usae_zip_low(high02, high13),
        r3: usae_zip_high(high02, high13))
    }

    @inline(__always)
    func write(_ p0: Floats, _ p1: Floats, _ p2: Floats, _ p3: Floats) {
      @inline(__always) func put(_ row: SIMD4<Float>, _ place: Floats) {
        UnsafeMutableRawPointer(place).storeBytes(of: row, as: SIMD4<Float>.self)
      }
      put(r0, p0)
      put(r1, p1)
      put(r2, p2)
      put(r3, p3)
    }
  }

  /// Transposes a block of 16 x 16 in squares of four. `row` and `out` tell where its rows and those of the result are.
  @inline(__always)
  private func transposeSquares(_ row: (Int) -> ConstantFloats, _ out: (Int) -> Floats) {
    for j in 0..<4 {
      let first = 4 &* j
      let p0 = row(first), p1 = row(first &+ 1), p2 = row(first &+ 2), p3 = row(first &+ 3)
      for i in 0..<4 {
        let column = 4 &* i
        Square(p0 + column, p1 + column, p2 + column, p3 + column).transposed().write(
          out(column) + first, out(column &+ 1) + first, out(column &+ 2) + first, out(column &+ 3) + first)
      }
    }
  }

  /// out[i][j] = rows[j][i] of a block of 16 x 16.
  @inline(__always)
  func transposeBlock(_ rows: ConstantFloats, _ stride: Int, _ out: Floats, _ outStride: Int) {
    transposeSquares({ rows + $0 &* stride }, { out + $0 &* outStride })
  }

  /// out[i][j] = rows[j][column + i], the rows being anywhere.
  @inline(__always)
  func transposeBlock(_ rows: UnsafePointer<ConstantFloats>, _ column: Int, _ out: Floats, _ outStride: Int) {
    transposeSquares({ rows[$0] + column }, { out + $0 &* outStride })
  }

  /// out[i][column + j] = rows[j][i], the rows of `out` being anywhere.
  @inline(__always)
  func transposeBlock(_ rows: ConstantFloats, _ stride: Int, _ out: UnsafePointer<Floats>, _ column: Int) {
    transposeSquares({ rows + $0 &* stride }, { out[$0] + column })
  }
#endif

/// out[c] = element c of sixteen rows, each times its scale, for all columns: [columns, 16].
func transposeRows(_ rows: ConstantFloats, _ stride: Int, _ scales: ConstantFloats, _ columns: Int, _ out: Floats) {
  let scale = load(scales, 0)
  var c = 0
  while c < columns {
    transposeBlock(rows + c, stride, out + c &* 16, 16)
    for i in 0..<16 { store(load(out, (c &+ i) &* 16) * scale, out, (c &+ i) &* 16) }
    c &+= 16
  }
}

/// out[lane][c] = values[c][lane] for sixteen rows of `out` and all columns, a multiple of 16.
func transposeLanes(_ values: ConstantFloats, _ valueStride: Int, _ columns: Int, _ out: Floats, _ outStride: Int) {
  var c = 0
  while c < columns {
    transposeBlock(values + c &* valueStride, valueStride, out + c, outStride)
    c &+= 16
  }
}

/// out[lane][c] += a * values[c][lane] for sixteen rows of `out` and all columns; `scratch` [256].
func addTransposedLanes(
  _ values: ConstantFloats, _ columns: Int, _ a: Float, _ out: Floats, _ outStride: Int, _ scratch: Floats
) {
  let factor = Vector(repeating: a)
  var c = 0
  while c < columns {
    transposeBlock(values + c &* 16, 16, scratch, 16)
    for lane in 0..<16 {
      let place = out + (lane &* outStride &+ c)
      store(multiplyAdd(load(place, 0), factor, load(scratch, lane &* 16)), place, 0)
    }
    c &+= 16
  }
}
