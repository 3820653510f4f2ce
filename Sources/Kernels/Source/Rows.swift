import KernelTypes

// The sparse half of a step: sums and dot products of a few rows of a large matrix. Decoding a token and gathering the
// gradient of a concept are the same sum, over concepts in one case and over tokens in the other.

func weightedSum(
  _ rows: ConstantFloats, _ stride: Int, _ indices: UnsafePointer<Int32>, _ coefficients: ConstantFloats,
  _ count: Int, _ columns: Int, _ out: Floats
) {
  var c = 0
  // 128 columns: eight sums hide the latency of a multiply-add, and all rows stream through them once.
  while c &+ 128 <= columns {
    var s0 = Vector.zero, s1 = s0, s2 = s0, s3 = s0, s4 = s0, s5 = s0, s6 = s0, s7 = s0
    for q in 0..<count {
      let row = rows + (Int(indices[q]) &* stride &+ c)
      let a = Vector(repeating: coefficients[q])
      s0 = multiplyAdd(s0, a, load(row, 0))
      s1 = multiplyAdd(s1, a, load(row, 16))
      s2 = multiplyAdd(s2, a, load(row, 32))
      s3 = multiplyAdd(s3, a, load(row, 48))
      s4 = multiplyAdd(s4, a, load(row, 64))
      s5 = multiplyAdd(s5, a, load(row, 80))
      s6 = multiplyAdd(s6, a, load(row, 96))
      s7 = multiplyAdd(s7, a, load(row, 112))
    }
    store(s0, out, c)
    store(s1, out, c &+ 16)
    store(s2, out, c &+ 32)
    store(s3, out, c &+ 48)
    store(s4, out, c &+ 64)
    store(s5, out, c &+ 80)
    store(s6, out, c &+ 96)
    store(s7, out, c &+ 112)
    c &+= 128
  }
  while c < columns {
    var sum = Vector.zero
    for q in 0..<count {
      sum = multiplyAdd(sum, Vector(repeating: coefficients[q]), load(rows, Int(indices[q]) &* stride &+ c))
    }
    store(sum, out, c)
    c &+= 16
  }
}

func dots(
  _ vector: ConstantFloats, _ rows: ConstantFloats, _ stride: Int, _ indices: UnsafePointer<Int32>, _ count: Int,
  _ columns: Int, _ out: Floats
) {
  for q in 0..<count { out[q] = dot(vector, rows + Int(indices[q]) &* stride, columns) }
}

func dot(_ a: ConstantFloats, _ b: ConstantFloats, _ columns: Int) -> Float {
  var s0 = Vector.zero, s1 = s0, s2 = s0, s3 = s0
  var c = 0
  while c &+ 64 <= columns {
    s0 = multiplyAdd(s0, load(a, c), load(b, c))
    s1 = multiplyAdd(s1, load(a, c &+ 16), load(b, c &+ 16))
    s2 = multiplyAdd(s2, load(a, c &+ 32), load(b, c &+ 32))
    s3 = multiplyAdd(s3, load(a, c &+ 48), load(b, c &+ 48))
    c &+= 64
  }
  while c < columns {
    s0 = multiplyAdd(s0, load(a, c), load(b, c))
    c &+= 16
  }
  return sumLanes((s0 + s1) + (s2 + s3))
}

func addScaled(_ a: Float, _ x: ConstantFloats, _ columns: Int, _ y: Floats) {
  let factor = Vector(repeating: a)
  var c = 0
  while c < columns {
    store(multiplyAdd(load(y, c), factor, load(x, c)), y, c)
    c &+= 16
  }
}

func subtractFrom(_ x: ConstantFloats, _ columns: Int, _ y: Floats) {
  var c = 0
  while c < columns {
    store(load(x, c) - load(y, c), y, c)
    c &+= 16
  }
}
