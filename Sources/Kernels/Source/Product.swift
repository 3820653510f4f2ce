import CIntrinsics
import KernelTypes

// A block of tokens times a panel of concepts, with all sums in registers while the depth is walked once. Every sum is an exact
// dot product (`ProductKernels.Block`), whose bits do not depend on the block that it is in. `take` is called with a row of the
// block for sixteen concepts of the panel from `column` on.

#if USAE_AVX512
  // 14 x 32: 28 of the 32 vector registers hold sums, two hold the panel, and the broadcast token is a memory operand.
  let tokensPerBlock = 14
  let panelWidth = 32

  @inline(__always)
  private func productBlock(
    _ depth: Int, _ tokens: ConstantFloats, _ panel: ConstantFloats, _ bias: ConstantFloats,
    _ take: (_ row: Int, _ column: Int, _ values: Vector) -> Void
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
    take(0, 0, l0); take(0, 16, r0)
    take(1, 0, l1); take(1, 16, r1)
    take(2, 0, l2); take(2, 16, r2)
    take(3, 0, l3); take(3, 16, r3)
    take(4, 0, l4); take(4, 16, r4)
    take(5, 0, l5); take(5, 16, r5)
    take(6, 0, l6); take(6, 16, r6)
    take(7, 0, l7); take(7, 16, r7)
    take(8, 0, l8); take(8, 16, r8)
    take(9, 0, l9); take(9, 16, r9)
    take(10, 0, l10); take(10, 16, r10)
    take(11, 0, l11); take(11, 16, r11)
    take(12, 0, l12); take(12, 16, r12)
    take(13, 0, l13); take(13, 16, r13)
  }
#else
  // 6 x 16: twelve of AVX2's sixteen registers hold sums (24 of NEON's 32).
  let tokensPerBlock = 6
  let panelWidth = 16

  @inline(__always)
  private func productBlock(
    _ depth: Int, _ tokens: ConstantFloats, _ panel: ConstantFloats, _ bias: ConstantFloats,
    _ take: (_ row: Int, _ column: Int, _ values: Vector) -> Void
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
    take(0, 0, s0)
    take(1, 0, s1)
    take(2, 0, s2)
    take(3, 0, s3)
    take(4, 0, s4)
    take(5, 0, s5)
  }
#endif

func product(
  _ depth: Int, _ tokens: ConstantFloats, _ panel: ConstantFloats, _ bias: ConstantFloats, _ rows: Int,
  _ out: Floats, _ outStride: Int
) {
  productBlock(depth, tokens, panel, bias) { row, column, values in
    if row < rows { store(values, out, row &* outStride &+ column) }
  }
}

/// Finds pairs of a token and a concept whose pre-activation is above the token's search threshold. One panel after the other,
/// which stays in the cache, is multiplied with all tokens; only pre-activations that are found leave the registers.
func productPairsAbove(_ arguments: UnsafeMutableRawPointer) {
  let search = arguments.assumingMemoryBound(to: ProductArguments.self)
  let depth = search.pointee.depth, count = search.pointee.count
  var found = search.pointee.pairs.found
  var column = search.pointee.pairs.nextColumn
  while column < search.pointee.columns && found &+ panelWidth &* count &+ 16 <= search.pointee.pairs.capacity {
    var token = 0
    while token < count {
      productBlock(
        depth, search.pointee.tokens + token &* depth, search.pointee.panels + column &* depth, search.pointee.bias + column
      ) { row, panelColumn, values in
        guard token &+ row < count else { return }
        found = search.pointee.pairs.add(
          token &+ row, column &+ panelColumn, values, values, above: search.pointee.thresholds[token &+ row], after: found)
      }
      token &+= tokensPerBlock
    }
    column &+= panelWidth
  }
  search.pointee.pairs.found = found
  search.pointee.pairs.nextColumn = column
}

extension FoundPairs {
  /// Adds the pairs of a token with those of sixteen concepts whose `uppers` are above a threshold, after `found` other pairs;
  /// returns how many there are then.
  ///
  /// All tokens share one list, so pairs are written next to the last ones. With a list for each token, they would touch a page
  /// for each token again and again.
  @inline(__always)
  func add(_ token: Int, _ column: Int, _ uppers: Vector, _ values: Vector, above threshold: Float, after found: Int) -> Int {
    let pair = Int32(truncatingIfNeeded: column) &+ (Int32(truncatingIfNeeded: token) &<< conceptBits)
    return found &+ Int(usae_write_above(Vector(repeating: threshold), uppers, pair, pairs + found, values, numbers + found))
  }
}

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
