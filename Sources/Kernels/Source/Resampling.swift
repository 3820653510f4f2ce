import KernelTypes

// Crop-and-resize is a product with two banded matrices, one for rows and one for columns. Rows are weighted sums of adjacent
// source rows; for columns, sixteen rows stand side by side in the lanes.

/// out[c] = sum over t < taps of weights[t] * rows[t][c], for rows that are `stride` apart.
func bandOfRows(
  _ rows: ConstantFloats, _ stride: Int, _ weights: ConstantFloats, _ taps: Int, _ columns: Int, _ out: Floats
) {
  var c = 0
  while c &+ 32 <= columns {
    var s0 = Vector.zero, s1 = s0
    for t in 0..<taps {
      let weight = Vector(repeating: weights[t])
      s0 = multiplyAdd(s0, weight, load(rows, t &* stride &+ c))
      s1 = multiplyAdd(s1, weight, load(rows, t &* stride &+ c &+ 16))
    }
    store(s0, out, c)
    store(s1, out, c &+ 16)
    c &+= 32
  }
  while c < columns {
    var sum = Vector.zero
    for t in 0..<taps { sum = multiplyAdd(sum, Vector(repeating: weights[t]), load(rows, t &* stride &+ c)) }
    store(sum, out, c)
    c &+= 16
  }
}

/// out[o] = sum over t < taps of weights[o][t] * values[starts[o] + t], sixteen floats each.
func bandOfLanes(
  _ values: ConstantFloats, _ starts: UnsafePointer<Int32>, _ weights: ConstantFloats, _ taps: Int, _ count: Int,
  _ out: Floats
) {
  for o in 0..<count {
    let first = values + Int(starts[o]) &* 16
    let weight = weights + o &* taps
    var sum = Vector.zero
    for t in 0..<taps { sum = multiplyAdd(sum, Vector(repeating: weight[t]), load(first, t &* 16)) }
    store(sum, out, o &* 16)
  }
}
