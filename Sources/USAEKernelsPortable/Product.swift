import USAEKernelTypes

// A block of tokens times a panel of concepts, with all sums in registers while the depth is walked once. Every sum is one
// chain of multiply-adds over the depth, in order, started from the bias, so its bits do not depend on the block it is in.

#if USAE_AVX512
  // 14 x 32: 28 of the 32 vector registers hold sums, two hold the panel, and the broadcast token is a memory operand.
  let tokensPerBlock = 14
  let panelWidth = 32

  func product(
    _ depth: Int, _ tokens: ConstantFloats, _ panel: ConstantFloats, _ bias: ConstantFloats, _ rows: Int,
    _ out: Floats, _ stride: Int
  ) {
    let left = load(bias, 0), right = load(bias, 16)
    var l0 = left, l1 = left, l2 = left, l3 = left, l4 = left, l5 = left, l6 = left
    var l7 = left, l8 = left, l9 = left, l10 = left, l11 = left, l12 = left, l13 = left
    var r0 = right, r1 = right, r2 = right, r3 = right, r4 = right, r5 = right, r6 = right
    var r7 = right, r8 = right, r9 = right, r10 = right, r11 = right, r12 = right, r13 = right
    var a = tokens
    var b = panel
    for _ in 0..<depth {
      let x = load(b, 0), y = load(b, 16)
      let a0 = Vector(repeating: a[0]), a1 = Vector(repeating: a[1])
      l0 = multiplyAdd(l0, a0, x); r0 = multiplyAdd(r0, a0, y)
      l1 = multiplyAdd(l1, a1, x); r1 = multiplyAdd(r1, a1, y)
      let a2 = Vector(repeating: a[2]), a3 = Vector(repeating: a[3])
      l2 = multiplyAdd(l2, a2, x); r2 = multiplyAdd(r2, a2, y)
      l3 = multiplyAdd(l3, a3, x); r3 = multiplyAdd(r3, a3, y)
      let a4 = Vector(repeating: a[4]), a5 = Vector(repeating: a[5])
      l4 = multiplyAdd(l4, a4, x); r4 = multiplyAdd(r4, a4, y)
      l5 = multiplyAdd(l5, a5, x); r5 = multiplyAdd(r5, a5, y)
      let a6 = Vector(repeating: a[6]), a7 = Vector(repeating: a[7])
      l6 = multiplyAdd(l6, a6, x); r6 = multiplyAdd(r6, a6, y)
      l7 = multiplyAdd(l7, a7, x); r7 = multiplyAdd(r7, a7, y)
      let a8 = Vector(repeating: a[8]), a9 = Vector(repeating: a[9])
      l8 = multiplyAdd(l8, a8, x); r8 = multiplyAdd(r8, a8, y)
      l9 = multiplyAdd(l9, a9, x); r9 = multiplyAdd(r9, a9, y)
      let a10 = Vector(repeating: a[10]), a11 = Vector(repeating: a[11])
      l10 = multiplyAdd(l10, a10, x); r10 = multiplyAdd(r10, a10, y)
      l11 = multiplyAdd(l11, a11, x); r11 = multiplyAdd(r11, a11, y)
      let a12 = Vector(repeating: a[12]), a13 = Vector(repeating: a[13])
      l12 = multiplyAdd(l12, a12, x); r12 = multiplyAdd(r12, a12, y)
      l13 = multiplyAdd(l13, a13, x); r13 = multiplyAdd(r13, a13, y)
      a += tokensPerBlock
      b += panelWidth
    }
    storeRow(0, rows, l0, r0, out, stride)
    storeRow(1, rows, l1, r1, out, stride)
    storeRow(2, rows, l2, r2, out, stride)
    storeRow(3, rows, l3, r3, out, stride)
    storeRow(4, rows, l4, r4, out, stride)
    storeRow(5, rows, l5, r5, out, stride)
    storeRow(6, rows, l6, r6, out, stride)
    storeRow(7, rows, l7, r7, out, stride)
    storeRow(8, rows, l8, r8, out, stride)
    storeRow(9, rows, l9, r9, out, stride)
    storeRow(10, rows, l10, r10, out, stride)
    storeRow(11, rows, l11, r11, out, stride)
    storeRow(12, rows, l12, r12, out, stride)
    storeRow(13, rows, l13, r13, out, stride)
  }

  @inline(__always)
  private func storeRow(_ row: Int, _ rows: Int, _ left: Vector, _ right: Vector, _ out: Floats, _ stride: Int) {
    guard row < rows else { return }
    store(left, out, row &* stride)
    store(right, out, row &* stride &+ 16)
  }
#else
  // 6 x 16: twelve of AVX2's sixteen registers hold sums (24 of NEON's 32).
  let tokensPerBlock = 6
  let panelWidth = 16

  func product(
    _ depth: Int, _ tokens: ConstantFloats, _ panel: ConstantFloats, _ bias: ConstantFloats, _ rows: Int,
    _ out: Floats, _ stride: Int
  ) {
    let start = load(bias, 0)
    var s0 = start, s1 = start, s2 = start, s3 = start, s4 = start, s5 = start
    var a = tokens
    var b = panel
    for _ in 0..<depth {
      let x = load(b, 0)
      s0 = multiplyAdd(s0, Vector(repeating: a[0]), x)
      s1 = multiplyAdd(s1, Vector(repeating: a[1]), x)
      s2 = multiplyAdd(s2, Vector(repeating: a[2]), x)
      s3 = multiplyAdd(s3, Vector(repeating: a[3]), x)
      s4 = multiplyAdd(s4, Vector(repeating: a[4]), x)
      s5 = multiplyAdd(s5, Vector(repeating: a[5]), x)
      a += tokensPerBlock
      b += panelWidth
    }
    storeRow(0, rows, s0, out, stride)
    storeRow(1, rows, s1, out, stride)
    storeRow(2, rows, s2, out, stride)
    storeRow(3, rows, s3, out, stride)
    storeRow(4, rows, s4, out, stride)
    storeRow(5, rows, s5, out, stride)
  }

  @inline(__always)
  private func storeRow(_ row: Int, _ rows: Int, _ sum: Vector, _ out: Floats, _ stride: Int) {
    guard row < rows else { return }
    store(sum, out, row &* stride)
  }
#endif

func packTokens(_ first: ConstantFloats, _ stride: Int, _ rows: Int, _ depth: Int, _ out: Floats) {
  for row in 0..<tokensPerBlock {
    var target = out + row
    if row < rows {
      let source = first + row &* stride
      for p in 0..<depth {
        target.pointee = source[p]
        target += tokensPerBlock
      }
    } else {
      for _ in 0..<depth {
        target.pointee = 0
        target += tokensPerBlock
      }
    }
  }
}

func packPanel(
  _ first: ConstantFloats, _ stride: Int, _ rows: Int, _ depth: Int, _ scales: ConstantFloats?, _ out: Floats
) {
  for row in 0..<panelWidth {
    var target = out + row
    let source = first + row &* stride
    let scale = row < rows ? (scales.map { $0[row] } ?? 1) : 0
    for p in 0..<depth {
      target.pointee = row < rows ? source[p] * scale : 0
      target += panelWidth
    }
  }
}
