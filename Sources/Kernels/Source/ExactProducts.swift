import CIntrinsics
import KernelTypes

// Single pre-activations as exact dot products, with the bits that `product` gives them. The multiply-adds of one depend on
// each other, so sixteen dot products run side by side, on a transposed block of their weights.

/// out[q] = bias[c] + sum over the depth of x[p] * (scales[c] * rows[c][p]), c = indices[q].
///
/// `following` more indices come after these in the list; their rows are prefetched.
func exactProducts(
  _ x: ConstantFloats, _ rows: ConstantFloats, _ stride: Int, _ scales: ConstantFloats, _ bias: ConstantFloats,
  _ indices: UnsafePointer<Int32>, _ count: Int, _ following: Int, _ out: Floats
) {
  var q = 0
  while q < count {
    exactGroup(
      x, rows, stride, scales, bias, indices + q, min(productsAtOnce, count &- q), count &+ following &- q, out + q)
    q &+= productsAtOnce
  }
}

private let productsAtOnce = 16
#if USAE_AVX512
  private typealias Lanes = Vector
#elseif USAE_AVX2
  private typealias Lanes = SIMD8<Float>
#else
  private typealias Lanes = SIMD4<Float>
#endif

@inline(__always)
private func min(_ a: Int, _ b: Int) -> Int { a < b ? a : b }

@inline(__always)
private func multiplyAddLanes(_ sum: Lanes, _ a: Float, _ b: Lanes) -> Lanes {
  #if USAE_FMA || arch(arm64)
    return sum.addingProduct(Lanes(repeating: a), b)
  #else
    return sum + Lanes(repeating: a) * b
  #endif
}

#if USAE_AVX512
  private func exactGroup(
    _ x: ConstantFloats, _ rows: ConstantFloats, _ stride: Int, _ scales: ConstantFloats, _ bias: ConstantFloats,
    _ indices: UnsafePointer<Int32>, _ count: Int, _ listed: Int, _ out: Floats
  ) {
    // Lanes past the end repeat the last.
    @inline(__always) func index(_ lane: Int) -> Int { Int(indices[min(lane, count &- 1)]) }
    @inline(__always) func row(_ lane: Int) -> ConstantFloats { rows + index(lane) &* stride }
    var sums = Lanes.zero
    var scale = Lanes.zero
    for lane in 0..<16 {
      sums[lane] = bias[index(lane)]
      scale[lane] = scales[index(lane)]
    }
    let p0 = row(0), p1 = row(1), p2 = row(2), p3 = row(3), p4 = row(4), p5 = row(5), p6 = row(6), p7 = row(7)
    let p8 = row(8), p9 = row(9), p10 = row(10), p11 = row(11), p12 = row(12), p13 = row(13), p14 = row(14), p15 = row(15)
    var c = 0
    while c < stride {
      // Rows lie anywhere, so only the list tells what to prefetch: otherwise 16 streams would wait for the last cache.
      for lane in 16..<32 { usae_prefetch(rows + (Int(indices[min(lane, listed &- 1)]) &* stride &+ c)) }
      let b = Block(
        r0: load(p0, c), r1: load(p1, c), r2: load(p2, c), r3: load(p3, c), r4: load(p4, c), r5: load(p5, c),
        r6: load(p6, c), r7: load(p7, c), r8: load(p8, c), r9: load(p9, c), r10: load(p10, c), r11: load(p11, c),
        r12: load(p12, c), r13: load(p13, c), r14: load(p14, c), r15: load(p15, c)
      ).transposed()
      let y = x + c
      sums = multiplyAddLanes(sums, y[0], b.r0 * scale); sums = multiplyAddLanes(sums, y[1], b.r1 * scale)
      sums = multiplyAddLanes(sums, y[2], b.r2 * scale); sums = multiplyAddLanes(sums, y[3], b.r3 * scale)
      sums = multiplyAddLanes(sums, y[4], b.r4 * scale); sums = multiplyAddLanes(sums, y[5], b.r5 * scale)
      sums = multiplyAddLanes(sums, y[6], b.r6 * scale); sums = multiplyAddLanes(sums, y[7], b.r7 * scale)
      sums = multiplyAddLanes(sums, y[8], b.r8 * scale); sums = multiplyAddLanes(sums, y[9], b.r9 * scale)
      sums = multiplyAddLanes(sums, y[10], b.r10 * scale); sums = multiplyAddLanes(sums, y[11], b.r11 * scale)
      sums = multiplyAddLanes(sums, y[12], b.r12 * scale); sums = multiplyAddLanes(sums, y[13], b.r13 * scale)
      sums = multiplyAddLanes(sums, y[14], b.r14 * scale); sums = multiplyAddLanes(sums, y[15], b.r15 * scale)
      c &+= 16
    }
    for lane in 0..<count { out[lane] = sums[lane] }
  }
#elseif USAE_AVX2
  private func exactGroup(
    _ x: ConstantFloats, _ rows: ConstantFloats, _ stride: Int, _ scales: ConstantFloats, _ bias: ConstantFloats,
    _ indices: UnsafePointer<Int32>, _ count: Int, _ listed: Int, _ out: Floats
  ) {
    // Lanes past the end repeat the last.
    @inline(__always) func eight(_ first: Int) -> EightProducts {
      @inline(__always) func index(_ lane: Int) -> Int { Int(indices[min(first &+ lane, count &- 1)]) }
      return EightProducts(
        rows, stride, scales, bias, index(0), index(1), index(2), index(3), index(4), index(5), index(6), index(7))
    }
    // Two registers of sums, since one alone would wait for every multiply-add.
    var left = eight(0), right = eight(8)
    var c = 0
    while c < stride {
      for lane in 16..<32 { usae_prefetch(rows + (Int(indices[min(lane, listed &- 1)]) &* stride &+ c)) }  // as above
      for column in 0..<4 {
        left.add(x, c &+ 4 &* column)
        right.add(x, c &+ 4 &* column)
      }
      c &+= 16
    }
    for lane in 0..<min(count, 8) { out[lane] = left.sums[lane] }
    if count > 8 { for lane in 8..<count { out[lane] = right.sums[lane &- 8] } }
  }

  private struct EightProducts {
    let p0, p1, p2, p3, p4, p5, p6, p7: ConstantFloats
    let scale: Lanes
    var sums: Lanes

    @inline(__always)
    init(
      _ rows: ConstantFloats, _ stride: Int, _ scales: ConstantFloats, _ bias: ConstantFloats, _ i0: Int, _ i1: Int,
      _ i2: Int, _ i3: Int, _ i4: Int, _ i5: Int, _ i6: Int, _ i7: Int
    ) {
      (p0, p1, p2, p3) = (rows + i0 &* stride, rows + i1 &* stride, rows + i2 &* stride, rows + i3 &* stride)
      (p4, p5, p6, p7) = (rows + i4 &* stride, rows + i5 &* stride, rows + i6 &* stride, rows + i7 &* stride)
      scale = Lanes(
        scales[i0], scales[i1], scales[i2], scales[i3], scales[i4], scales[i5], scales[i6], scales[i7])
      sums = Lanes(bias[i0], bias[i1], bias[i2], bias[i3], bias[i4], bias[i5], bias[i6], bias[i7])
    }

    @inline(__always)
    mutating func add(_ x: ConstantFloats, _ c: Int) {
      let a04 = usae_load_two(p0 + c, p4 + c), a15 = usae_load_two(p1 + c, p5 + c)
      let a26 = usae_load_two(p2 + c, p6 + c), a37 = usae_load_two(p3 + c, p7 + c)
      let b0 = usae_low_singles(a04, a15), b1 = usae_low_singles(a26, a37)
      let b2 = usae_high_singles(a04, a15), b3 = usae_high_singles(a26, a37)
      let y = x + c
      sums = multiplyAddLanes(sums, y[0], usae_low_pairs(b0, b1) * scale)
      sums = multiplyAddLanes(sums, y[1], usae_high_pairs(b0, b1) * scale)
      sums = multiplyAddLanes(sums, y[2], usae_low_pairs(b2, b3) * scale)
      sums = multiplyAddLanes(sums, y[3], usae_high_pairs(b2, b3) * scale)
    }
  }
#else
  private func exactGroup(
    _ x: ConstantFloats, _ rows: ConstantFloats, _ stride: Int, _ scales: ConstantFloats, _ bias: ConstantFloats,
    _ indices: UnsafePointer<Int32>, _ count: Int, _ listed: Int, _ out: Floats
  ) {
    // Lanes past the end repeat the last.
    @inline(__always) func four(_ first: Int) -> FourProducts {
      @inline(__always) func index(_ lane: Int) -> Int { Int(indices[min(first &+ lane, count &- 1)]) }
      return FourProducts(rows, stride, scales, bias, index(0), index(1), index(2), index(3))
    }
    // Four registers of sums, since one alone would wait for every multiply-add.
    var a = four(0), b = four(4), d = four(8), e = four(12)
    var c = 0
    while c < stride {
      a.add(x, c)
      b.add(x, c)
      d.add(x, c)
      e.add(x, c)
      c &+= 4
    }
    for lane in 0..<count {
      let products = lane < 8 ? (lane < 4 ? a : b) : (lane < 12 ? d : e)
      out[lane] = products.sums[lane & 3]
    }
  }

  private struct FourProducts {
    let p0, p1, p2, p3: ConstantFloats
    let scale: Lanes
    var sums: Lanes

    @inline(__always)
    init(
      _ rows: ConstantFloats, _ stride: Int, _ scales: ConstantFloats, _ bias: ConstantFloats, _ i0: Int, _ i1: Int,
      _ i2: Int, _ i3: Int
    ) {
      (p0, p1, p2, p3) = (rows + i0 &* stride, rows + i1 &* stride, rows + i2 &* stride, rows + i3 &* stride)
      scale = Lanes(scales[i0], scales[i1], scales[i2], scales[i3])
      sums = Lanes(bias[i0], bias[i1], bias[i2], bias[i3])
    }

    @inline(__always)
    mutating func add(_ x: ConstantFloats, _ c: Int) {
      let columns = Square(p0 + c, p1 + c, p2 + c, p3 + c).transposed()
      let y = x + c
      sums = multiplyAddLanes(sums, y[0], columns.r0 * scale)
      sums = multiplyAddLanes(sums, y[1], columns.r1 * scale)
      sums = multiplyAddLanes(sums, y[2], columns.r2 * scale)
      sums = multiplyAddLanes(sums, y[3], columns.r3 * scale)
    }
  }
#endif
