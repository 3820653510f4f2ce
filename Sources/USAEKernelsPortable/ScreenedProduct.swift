import CIntrinsics
import USAEKernelTypes

// Estimates of pre-activations from bytes. A token is about s (u - 128) with unsigned bytes u, a concept's weights t q with
// signed bytes q, so their product is about s t (sum u q - 128 sum q). The sums are of integers: exact in any order, and
// the same on every processor. `Inference/ErrorBounds.swift` bounds the error of the rest.

#if USAE_AMX
  let screeningIsFast = true
  // Two tiles of sixteen tokens, two of sixteen concepts, and four of sums.
  let screenTokensPerBlock = 32
  let screenPanelWidth = 32
#elseif USAE_AVX512 && USAE_VNNI
  let screeningIsFast = true
  // As the float product: 28 sums, two vectors of weights, and the broadcast token as a memory operand.
  let screenTokensPerBlock = 14
  let screenPanelWidth = 32
#elseif USAE_VNNI
  let screeningIsFast = true
  // As the float product: twelve of AVX2's sixteen registers hold sums, two the weights, and one the broadcast token.
  let screenTokensPerBlock = 6
  let screenPanelWidth = 16
#else
  let screeningIsFast = false
  let screenTokensPerBlock = 4
  let screenPanelWidth = 16
#endif

/// Estimates of `count` packed tokens for all `columns` of packed panels: one panel, which stays in the cache, with all tokens.
func screen(
  _ quads: Int, _ tokens: UnsafePointer<Int32>, _ count: Int, _ panels: UnsafePointer<Int32>, _ columns: Int,
  _ starts: UnsafePointer<Int32>, _ tokenScales: ConstantFloats, _ scales: ConstantFloats, _ bias: ConstantFloats,
  _ out: Floats, _ spare: UnsafeMutablePointer<Int32>
) {
  #if USAE_AMX
    usae_tiles_begin()
  #endif
  var column = 0
  while column < columns {
    var token = 0
    while token < count {
      let left = count &- token
      estimate(
        quads, tokens + token &* quads, panels + column &* quads, starts + column, tokenScales + token, scales + column,
        bias + column, left < screenTokensPerBlock ? left : screenTokensPerBlock, out + (token &* columns &+ column), columns,
        spare)
      token &+= screenTokensPerBlock
    }
    column &+= screenPanelWidth
  }
  #if USAE_AMX
    usae_tiles_end()
  #endif
}

/// Puts a token's bytes where `screen` reads them: token `number` of the block.
func packScreenedToken(
  _ bytes: UnsafePointer<Int32>, _ quads: Int, _ number: Int, _ block: UnsafeMutablePointer<Int32>
) {
  #if USAE_AMX
    // A tile has a token in each row.
    for quad in 0..<quads { block[number &* quads &+ quad] = bytes[quad] }
  #else
    for quad in 0..<quads { block[quad &* screenTokensPerBlock &+ number] = bytes[quad] }
  #endif
}

/// Adds the four products of bytes in each lane, of `tokens` unsigned and of `weights` signed.
@inline(__always)
func dot4(_ sum: Integers, _ tokens: Integers, _ weights: Integers) -> Integers {
  #if USAE_VNNI
    return usae_dot4(sum, tokens, weights)
  #else
    var sum = sum
    sum = sum &+ (tokens & 0xff) &* ((weights &<< 24) &>> 24)
    sum = sum &+ ((tokens &>> 8) & 0xff) &* ((weights &<< 16) &>> 24)
    sum = sum &+ ((tokens &>> 16) & 0xff) &* ((weights &<< 8) &>> 24)
    return sum &+ ((tokens &>> 24) & 0xff) &* (weights &>> 24)
  #endif
}

#if USAE_AVX512 && USAE_VNNI
  /// From a block's integer sums to estimates.
  private struct Finish {
    let tokenScales: ConstantFloats
    let left, right, leftBias, rightBias: Vector
    let rows: Int
    let out: Floats
    let stride: Int

    @inline(__always)
    func row(_ row: Int, _ leftSums: Integers, _ rightSums: Integers) {
      guard row < rows else { return }
      let scale = Vector(repeating: tokenScales[row])
      store(multiplyAdd(leftBias, toFloats(leftSums), scale * left), out, row &* stride)
      store(multiplyAdd(rightBias, toFloats(rightSums), scale * right), out, row &* stride &+ 16)
    }
  }
#endif

#if USAE_AMX
  @inline(__always)
  private func estimate(
    _ quads: Int, _ tokens: UnsafePointer<Int32>, _ panel: UnsafePointer<Int32>, _ start: UnsafePointer<Int32>,
    _ tokenScales: ConstantFloats, _ panelScales: ConstantFloats, _ bias: ConstantFloats, _ rows: Int, _ out: Floats,
    _ stride: Int, _ spare: UnsafeMutablePointer<Int32>
  ) {
    usae_tiles_zero()
    for step in 0..<quads / 16 {
      usae_tiles_add(tokens + 16 &* step, panel + 16 &* screenPanelWidth &* step, 4 &* quads)
    }
    usae_tiles_store(spare)
    let left = load(start, 0), right = load(start, 16)
    let finish = Finish(
      tokenScales: tokenScales, left: load(panelScales, 0),
      right: load(panelScales, 16), leftBias: load(bias, 0), rightBias: load(bias, 16), rows: rows, out: out, stride: stride)
    for row in 0..<rows {
      let sums = spare + row &* screenPanelWidth
      finish.row(row, load(sums, 0) &+ left, load(sums, 16) &+ right)
    }
  }
#elseif USAE_AVX512 && USAE_VNNI
  @inline(__always)
  private func estimate(
    _ quads: Int, _ tokens: UnsafePointer<Int32>, _ panel: UnsafePointer<Int32>, _ start: UnsafePointer<Int32>,
    _ tokenScales: ConstantFloats, _ panelScales: ConstantFloats, _ bias: ConstantFloats, _ rows: Int, _ out: Floats,
    _ stride: Int, _ spare: UnsafeMutablePointer<Int32>
  ) {
    let left = load(start, 0), right = load(start, 16)
    var l0 = left, l1 = left, l2 = left, l3 = left, l4 = left, l5 = left, l6 = left
    var l7 = left, l8 = left, l9 = left, l10 = left, l11 = left, l12 = left, l13 = left
    var r0 = right, r1 = right, r2 = right, r3 = right, r4 = right, r5 = right, r6 = right
    var r7 = right, r8 = right, r9 = right, r10 = right, r11 = right, r12 = right, r13 = right
    var a = tokens
    var b = panel
    for _ in 0..<quads {
      let x = load(b, 0), y = load(b, 16)
      let a0 = Integers(repeating: a[0]), a1 = Integers(repeating: a[1])
      l0 = dot4(l0, a0, x); r0 = dot4(r0, a0, y)
      l1 = dot4(l1, a1, x); r1 = dot4(r1, a1, y)
      let a2 = Integers(repeating: a[2]), a3 = Integers(repeating: a[3])
      l2 = dot4(l2, a2, x); r2 = dot4(r2, a2, y)
      l3 = dot4(l3, a3, x); r3 = dot4(r3, a3, y)
      let a4 = Integers(repeating: a[4]), a5 = Integers(repeating: a[5])
      l4 = dot4(l4, a4, x); r4 = dot4(r4, a4, y)
      l5 = dot4(l5, a5, x); r5 = dot4(r5, a5, y)
      let a6 = Integers(repeating: a[6]), a7 = Integers(repeating: a[7])
      l6 = dot4(l6, a6, x); r6 = dot4(r6, a6, y)
      l7 = dot4(l7, a7, x); r7 = dot4(r7, a7, y)
      let a8 = Integers(repeating: a[8]), a9 = Integers(repeating: a[9])
      l8 = dot4(l8, a8, x); r8 = dot4(r8, a8, y)
      l9 = dot4(l9, a9, x); r9 = dot4(r9, a9, y)
      let a10 = Integers(repeating: a[10]), a11 = Integers(repeating: a[11])
      l10 = dot4(l10, a10, x); r10 = dot4(r10, a10, y)
      l11 = dot4(l11, a11, x); r11 = dot4(r11, a11, y)
      let a12 = Integers(repeating: a[12]), a13 = Integers(repeating: a[13])
      l12 = dot4(l12, a12, x); r12 = dot4(r12, a12, y)
      l13 = dot4(l13, a13, x); r13 = dot4(r13, a13, y)
      a += screenTokensPerBlock
      b += screenPanelWidth
    }
    let finish = Finish(
      tokenScales: tokenScales, left: load(panelScales, 0), right: load(panelScales, 16), leftBias: load(bias, 0),
      rightBias: load(bias, 16), rows: rows, out: out, stride: stride)
    finish.row(0, l0, r0); finish.row(1, l1, r1); finish.row(2, l2, r2); finish.row(3, l3, r3)
    finish.row(4, l4, r4); finish.row(5, l5, r5); finish.row(6, l6, r6); finish.row(7, l7, r7)
    finish.row(8, l8, r8); finish.row(9, l9, r9); finish.row(10, l10, r10); finish.row(11, l11, r11)
    finish.row(12, l12, r12); finish.row(13, l13, r13)
  }
#elseif USAE_VNNI
  @inline(__always)
  private func estimate(
    _ quads: Int, _ tokens: UnsafePointer<Int32>, _ panel: UnsafePointer<Int32>, _ start: UnsafePointer<Int32>,
    _ tokenScales: ConstantFloats, _ panelScales: ConstantFloats, _ bias: ConstantFloats, _ rows: Int, _ out: Floats,
    _ stride: Int, _ spare: UnsafeMutablePointer<Int32>
  ) {
    let start = load(start, 0)
    var s0 = start, s1 = start, s2 = start, s3 = start, s4 = start, s5 = start
    var a = tokens
    var b = panel
    for _ in 0..<quads {
      let x = load(b, 0)
      s0 = dot4(s0, Integers(repeating: a[0]), x)
      s1 = dot4(s1, Integers(repeating: a[1]), x)
      s2 = dot4(s2, Integers(repeating: a[2]), x)
      s3 = dot4(s3, Integers(repeating: a[3]), x)
      s4 = dot4(s4, Integers(repeating: a[4]), x)
      s5 = dot4(s5, Integers(repeating: a[5]), x)
      a += screenTokensPerBlock
      b += screenPanelWidth
    }
    let scales = load(panelScales, 0), bias = load(bias, 0)
    @inline(__always) func finish(_ row: Int, _ sums: Integers) {
      guard row < rows else { return }
      store(multiplyAdd(bias, toFloats(sums), Vector(repeating: tokenScales[row]) * scales), out, row &* stride)
    }
    finish(0, s0); finish(1, s1); finish(2, s2); finish(3, s3); finish(4, s4); finish(5, s5)
  }
#else
  // Only for tests: without an instruction for four products at once, screening would take longer than the product.
  @inline(__always)
  private func estimate(
    _ quads: Int, _ tokens: UnsafePointer<Int32>, _ panel: UnsafePointer<Int32>, _ start: UnsafePointer<Int32>,
    _ tokenScales: ConstantFloats, _ panelScales: ConstantFloats, _ bias: ConstantFloats, _ rows: Int, _ out: Floats,
    _ stride: Int, _ spare: UnsafeMutablePointer<Int32>
  ) {
    for row in 0..<rows {
      var sum = load(start, 0)
      for quad in 0..<quads {
        sum = dot4(
          sum, Integers(repeating: tokens[quad &* screenTokensPerBlock &+ row]), load(panel, quad &* screenPanelWidth))
      }
      let scale = Vector(repeating: tokenScales[row]) * load(panelScales, 0)
      store(multiplyAdd(load(bias, 0), toFloats(sum), scale), out, row &* stride)
    }
  }
#endif
