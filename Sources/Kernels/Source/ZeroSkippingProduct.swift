import CIntrinsics
import KernelTypes

// Products with a matrix of which many elements are 0: the codes of the published AuxK, which ReLU alone makes sparse. In each
// row the elements that are not 0 are found first, and each adds its multiple of a row of the panel to sums in registers.
// Thirty-two rows of a panel are 24 KB and stay in the first-level cache while all rows of the matrix pass by. Elements are
// added in order, as in `Product.swift`; skipping zeros does not change the sums.

#if USAE_AVX512
  /// Columns whose sums fit into registers.
  let skippingWidth = 192

  @inline(__always)
  private func addWidest(_ values: ConstantFloats, _ found: UInt32, _ panel: ConstantFloats, _ stride: Int, _ out: Floats) {
    var s0 = load(out, 0), s1 = load(out, 16), s2 = load(out, 32), s3 = load(out, 48), s4 = load(out, 64), s5 = load(out, 80)
    var s6 = load(out, 96), s7 = load(out, 112), s8 = load(out, 128), s9 = load(out, 144), s10 = load(out, 160)
    var s11 = load(out, 176)
    var left = found
    while left != 0 {
      let i = left.trailingZeroBitCount
      left &= left &- 1
      let a = Vector(repeating: values[i])
      let row = panel + i &* stride
      s0 = multiplyAdd(s0, a, load(row, 0)); s1 = multiplyAdd(s1, a, load(row, 16))
      s2 = multiplyAdd(s2, a, load(row, 32)); s3 = multiplyAdd(s3, a, load(row, 48))
      s4 = multiplyAdd(s4, a, load(row, 64)); s5 = multiplyAdd(s5, a, load(row, 80))
      s6 = multiplyAdd(s6, a, load(row, 96)); s7 = multiplyAdd(s7, a, load(row, 112))
      s8 = multiplyAdd(s8, a, load(row, 128)); s9 = multiplyAdd(s9, a, load(row, 144))
      s10 = multiplyAdd(s10, a, load(row, 160)); s11 = multiplyAdd(s11, a, load(row, 176))
    }
    store(s0, out, 0); store(s1, out, 16); store(s2, out, 32); store(s3, out, 48); store(s4, out, 64); store(s5, out, 80)
    store(s6, out, 96); store(s7, out, 112); store(s8, out, 128); store(s9, out, 144); store(s10, out, 160)
    store(s11, out, 176)
  }
#else
  let skippingWidth = 96

  @inline(__always)
  private func addWidest(_ values: ConstantFloats, _ found: UInt32, _ panel: ConstantFloats, _ stride: Int, _ out: Floats) {
    var s0 = load(out, 0), s1 = load(out, 16), s2 = load(out, 32), s3 = load(out, 48), s4 = load(out, 64), s5 = load(out, 80)
    var left = found
    while left != 0 {
      let i = left.trailingZeroBitCount
      left &= left &- 1
      let a = Vector(repeating: values[i])
      let row = panel + i &* stride
      s0 = multiplyAdd(s0, a, load(row, 0)); s1 = multiplyAdd(s1, a, load(row, 16))
      s2 = multiplyAdd(s2, a, load(row, 32)); s3 = multiplyAdd(s3, a, load(row, 48))
      s4 = multiplyAdd(s4, a, load(row, 64)); s5 = multiplyAdd(s5, a, load(row, 80))
    }
    store(s0, out, 0); store(s1, out, 16); store(s2, out, 32); store(s3, out, 48); store(s4, out, 64); store(s5, out, 80)
  }
#endif

/// out[r] += sum over i < 32 of values[r][i] * panel[i], skipping zeros, for `columns` columns, at most `skippingWidth`.
func addSkippingZeros(
  _ values: ConstantFloats, _ valueStride: Int, _ rows: Int, _ panel: ConstantFloats, _ columns: Int, _ out: Floats,
  _ outStride: Int
) {
  for row in 0..<rows {
    let values = values + row &* valueStride
    let out = out + row &* outStride
    let found = usae_not_zero(load(values, 0)) | usae_not_zero(load(values, 16)) &<< 16
    if columns == skippingWidth {
      addWidest(values, found, panel, columns, out)
    } else {
      addNarrow(values, found, panel, columns, out)
    }
  }
}

/// Any multiple of 16 columns: the last panel of a matrix.
@inline(__always)
private func addNarrow(_ values: ConstantFloats, _ found: UInt32, _ panel: ConstantFloats, _ columns: Int, _ out: Floats) {
  var c = 0
  while c &+ 64 <= columns {
    var s0 = load(out, c), s1 = load(out, c &+ 16), s2 = load(out, c &+ 32), s3 = load(out, c &+ 48)
    var left = found
    while left != 0 {
      let i = left.trailingZeroBitCount
      left &= left &- 1
      let a = Vector(repeating: values[i])
      let row = panel + (i &* columns &+ c)
      s0 = multiplyAdd(s0, a, load(row, 0)); s1 = multiplyAdd(s1, a, load(row, 16))
      s2 = multiplyAdd(s2, a, load(row, 32)); s3 = multiplyAdd(s3, a, load(row, 48))
    }
    store(s0, out, c); store(s1, out, c &+ 16); store(s2, out, c &+ 32); store(s3, out, c &+ 48)
    c &+= 64
  }
  while c < columns {
    var sum = load(out, c)
    var left = found
    while left != 0 {
      let i = left.trailingZeroBitCount
      left &= left &- 1
      sum = multiplyAdd(sum, Vector(repeating: values[i]), load(panel, i &* columns &+ c))
    }
    store(sum, out, c)
    c &+= 16
  }
}

/// out = row where positive, else 0, in pieces of 32 that lie `pieceStride` apart; returns how many are positive.
func rectify(_ row: ConstantFloats, _ columns: Int, _ out: Floats, _ pieceStride: Int) -> Int {
  let one = Vector(repeating: 1)
  var counts = Vector.zero
  var c = 0
  var out = out
  while c < columns {
    for half in 0..<2 {
      let first = c &+ half &* 16
      let x = first < columns ? load(row, first) : Vector.zero
      let positive = x .> 0
      store(Vector.zero.replacing(with: x, where: positive), out, half &* 16)
      counts += Vector.zero.replacing(with: one, where: positive)
    }
    c &+= 32
    out += pieceStride
  }
  return Int(sumLanes(counts))
}

/// `columns` adjacent columns of a matrix, each row times its scale if there is one.
func packColumns(
  _ firstColumn: ConstantFloats, _ stride: Int, _ rows: Int, _ scales: ConstantFloats?, _ columns: Int, _ out: Floats
) {
  for row in 0..<rows {
    let scale = Vector(repeating: scales.map { $0[row] } ?? 1)
    var c = 0
    while c < columns {
      store(load(firstColumn, row &* stride &+ c) * scale, out, row &* columns &+ c)
      c &+= 16
    }
  }
}
