import CIntrinsics
import KernelTypes

// Estimates of pre-activations from bytes. A token is about s (u - offset), a concept's weights t q with signed bytes q, so
// their product is about s t (sum u q - offset sum q). x86-64 multiplies unsigned bytes by signed ones, so there the offset is
// 128 and u unsigned; on arm64 it is 0. The sums are of integers, so they are exact in any order and the same on every
// processor. `Encoder/Int8Screening/ErrorBounds.swift` bounds the error of the rest.

#if USAE_DOTPROD
  let screenTokenOffset: Int32 = 0
#else
  let screenTokenOffset: Int32 = 128
#endif

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
#elseif USAE_VNNI || USAE_DOTPROD
  let screeningIsFast = true
  // As the float product: twelve of AVX2's sixteen registers (24 of NEON's 32) hold sums, two (four) the weights, and one the
  // broadcast token.
  let screenTokensPerBlock = 6
  let screenPanelWidth = 16
#else
  let screeningIsFast = false
  let screenTokensPerBlock = 4
  let screenPanelWidth = 16
#endif

/// Finds pairs of a token and a concept whose upper bound is above the token's search threshold. One panel after the other,
/// which stays in the cache, is multiplied with all tokens; only the estimates of pairs that are found leave the registers.
func screen(_ arguments: UnsafeMutableRawPointer) {
  let search = arguments.assumingMemoryBound(to: ScreenArguments.self)
  let arguments = UnsafePointer(search)
  #if USAE_AMX
    usae_tiles_begin()
  #endif
  let mostOfPanel = screenPanelWidth &* arguments.pointee.count &+ 16
  var found = arguments.pointee.pairs.found
  var column = arguments.pointee.pairs.nextColumn
  while column < arguments.pointee.columns && found &+ mostOfPanel <= arguments.pointee.pairs.capacity {
    var token = 0
    while token < arguments.pointee.count {
      found = screenBlock(arguments, token, column, found)
      token &+= screenTokensPerBlock
    }
    column &+= screenPanelWidth
  }
  #if USAE_AMX
    usae_tiles_end()
  #endif
  search.pointee.pairs.found = found
  search.pointee.pairs.nextColumn = column
}

/// Sixteen concepts: turns integer sums into estimates and upper bounds, and adds the pairs whose upper bounds are above search
/// thresholds.
private struct Search {
  private let scales, bias, norms, errors, slacks: Vector
  private let column: Int
  private let arguments: UnsafePointer<ScreenArguments>

  @inline(__always)
  init(_ arguments: UnsafePointer<ScreenArguments>, _ column: Int) {
    self.arguments = arguments
    self.column = column
    scales = load(arguments.pointee.scales, column)
    bias = load(arguments.pointee.bias, column)
    norms = load(arguments.pointee.norms, column)
    errors = load(arguments.pointee.errors, column)
    slacks = load(arguments.pointee.slacks, column)
  }

  /// Adds the pairs of one token; returns how many pairs there are then.
  @inline(__always)
  func callAsFunction(_ token: Int, _ sums: Integers, _ count: Int) -> Int {
    let arguments = arguments.pointee
    guard token < arguments.count else { return count }
    let estimates = multiplyAdd(bias, usae_to_floats(sums), Vector(repeating: arguments.tokenScales[token]) * scales)
    let bounds = multiplyAdd(
      multiplyAdd(slacks, Vector(repeating: arguments.factorsOfNorm[token]), norms),
      Vector(repeating: arguments.factorsOfError[token]), errors)
    return arguments.pairs.add(token, column, estimates + bounds, estimates, above: arguments.thresholds[token], after: count)
  }
}

/// Puts a token's bytes where `screen` reads them: token `number` of the block.
func packScreenedToken(
  _ bytes: UnsafePointer<Int32>, _ groups: Int, _ number: Int, _ block: UnsafeMutablePointer<Int32>
) {
  #if USAE_AMX
    // 64 bytes of each of 32 tokens, and then the next 64.
    for step in 0..<groups / 16 {
      storeIntegers(load(bytes, 16 &* step), block, 16 &* (step &* screenTokensPerBlock &+ number))
    }
  #else
    for group in 0..<groups { block[group &* screenTokensPerBlock &+ number] = bytes[group] }
  #endif
}

#if USAE_AMX
  private func screenBlock(
    _ arguments: UnsafePointer<ScreenArguments>, _ first: Int, _ column: Int, _ found: Int
  ) -> Int {
    let groups = arguments.pointee.groups
    let tokens = arguments.pointee.tokens + first &* groups
    let panel = arguments.pointee.panels + column &* groups
    let sums = arguments.pointee.scratch
    usae_tiles_zero()
    for step in 0..<groups / 16 {
      usae_tiles_add(tokens + 16 &* screenTokensPerBlock &* step, panel + 16 &* screenPanelWidth &* step)
    }
    usae_tiles_store(sums)
    let left = Search(arguments, column), right = Search(arguments, column &+ 16)
    let corrections = arguments.pointee.corrections
    let leftCorrections = load(corrections, column), rightCorrections = load(corrections, column &+ 16)
    var found = found
    for row in 0..<screenTokensPerBlock {
      found = left(first &+ row, load(sums, row &* screenPanelWidth) &+ leftCorrections, found)
      found = right(first &+ row, load(sums, row &* screenPanelWidth &+ 16) &+ rightCorrections, found)
    }
    return found
  }
#elseif USAE_AVX512 && USAE_VNNI
  private func screenBlock(
    _ arguments: UnsafePointer<ScreenArguments>, _ first: Int, _ column: Int, _ found: Int
  ) -> Int {
    let groups = arguments.pointee.groups
    let tokens = arguments.pointee.tokens + first &* groups
    let panel = arguments.pointee.panels + column &* groups
    let left = load(arguments.pointee.corrections, column), right = load(arguments.pointee.corrections, column &+ 16)
    var l0 = left, l1 = left, l2 = left, l3 = left, l4 = left, l5 = left, l6 = left
    var l7 = left, l8 = left, l9 = left, l10 = left, l11 = left, l12 = left, l13 = left
    var r0 = right, r1 = right, r2 = right, r3 = right, r4 = right, r5 = right, r6 = right
    var r7 = right, r8 = right, r9 = right, r10 = right, r11 = right, r12 = right, r13 = right
    var a = tokens
    var b = panel
    for _ in 0..<groups {
      let x = load(b, 0), y = load(b, 16)
      let a0 = Integers(repeating: a[0]), a1 = Integers(repeating: a[1])
      l0 = usae_dot4(l0, a0, x); r0 = usae_dot4(r0, a0, y)
      l1 = usae_dot4(l1, a1, x); r1 = usae_dot4(r1, a1, y)
      let a2 = Integers(repeating: a[2]), a3 = Integers(repeating: a[3])
      l2 = usae_dot4(l2, a2, x); r2 = usae_dot4(r2, a2, y)
      l3 = usae_dot4(l3, a3, x); r3 = usae_dot4(r3, a3, y)
      let a4 = Integers(repeating: a[4]), a5 = Integers(repeating: a[5])
      l4 = usae_dot4(l4, a4, x); r4 = usae_dot4(r4, a4, y)
      l5 = usae_dot4(l5, a5, x); r5 = usae_dot4(r5, a5, y)
      let a6 = Integers(repeating: a[6]), a7 = Integers(repeating: a[7])
      l6 = usae_dot4(l6, a6, x); r6 = usae_dot4(r6, a6, y)
      l7 = usae_dot4(l7, a7, x); r7 = usae_dot4(r7, a7, y)
      let a8 = Integers(repeating: a[8]), a9 = Integers(repeating: a[9])
      l8 = usae_dot4(l8, a8, x); r8 = usae_dot4(r8, a8, y)
      l9 = usae_dot4(l9, a9, x); r9 = usae_dot4(r9, a9, y)
      let a10 = Integers(repeating: a[10]), a11 = Integers(repeating: a[11])
      l10 = usae_dot4(l10, a10, x); r10 = usae_dot4(r10, a10, y)
      l11 = usae_dot4(l11, a11, x); r11 = usae_dot4(r11, a11, y)
      let a12 = Integers(repeating: a[12]), a13 = Integers(repeating: a[13])
      l12 = usae_dot4(l12, a12, x); r12 = usae_dot4(r12, a12, y)
      l13 = usae_dot4(l13, a13, x); r13 = usae_dot4(r13, a13, y)
      a += screenTokensPerBlock
      b += screenPanelWidth
    }
    let l = Search(arguments, column), r = Search(arguments, column &+ 16)
    var found = found
    found = l(first, l0, found); found = r(first, r0, found)
    found = l(first &+ 1, l1, found); found = r(first &+ 1, r1, found)
    found = l(first &+ 2, l2, found); found = r(first &+ 2, r2, found)
    found = l(first &+ 3, l3, found); found = r(first &+ 3, r3, found)
    found = l(first &+ 4, l4, found); found = r(first &+ 4, r4, found)
    found = l(first &+ 5, l5, found); found = r(first &+ 5, r5, found)
    found = l(first &+ 6, l6, found); found = r(first &+ 6, r6, found)
    found = l(first &+ 7, l7, found); found = r(first &+ 7, r7, found)
    found = l(first &+ 8, l8, found); found = r(first &+ 8, r8, found)
    found = l(first &+ 9, l9, found); found = r(first &+ 9, r9, found)
    found = l(first &+ 10, l10, found); found = r(first &+ 10, r10, found)
    found = l(first &+ 11, l11, found); found = r(first &+ 11, r11, found)
    found = l(first &+ 12, l12, found); found = r(first &+ 12, r12, found)
    found = l(first &+ 13, l13, found); found = r(first &+ 13, r13, found)
    return found
  }
#elseif USAE_VNNI || USAE_DOTPROD
  private func screenBlock(
    _ arguments: UnsafePointer<ScreenArguments>, _ first: Int, _ column: Int, _ found: Int
  ) -> Int {
    let groups = arguments.pointee.groups
    let tokens = arguments.pointee.tokens + first &* groups
    let panel = arguments.pointee.panels + column &* groups
    let correction = load(arguments.pointee.corrections, column)
    var s0 = correction, s1 = correction, s2 = correction, s3 = correction, s4 = correction, s5 = correction
    var a = tokens
    var b = panel
    for _ in 0..<groups {
      let x = load(b, 0)
      s0 = usae_dot4(s0, Integers(repeating: a[0]), x)
      s1 = usae_dot4(s1, Integers(repeating: a[1]), x)
      s2 = usae_dot4(s2, Integers(repeating: a[2]), x)
      s3 = usae_dot4(s3, Integers(repeating: a[3]), x)
      s4 = usae_dot4(s4, Integers(repeating: a[4]), x)
      s5 = usae_dot4(s5, Integers(repeating: a[5]), x)
      a += screenTokensPerBlock
      b += screenPanelWidth
    }
    let search = Search(arguments, column)
    var found = found
    found = search(first, s0, found)
    found = search(first &+ 1, s1, found)
    found = search(first &+ 2, s2, found)
    found = search(first &+ 3, s3, found)
    found = search(first &+ 4, s4, found)
    found = search(first &+ 5, s5, found)
    return found
  }
#else
  // Only for tests: without an instruction for four products at once, screening would take longer than the product.
  private func screenBlock(
    _ arguments: UnsafePointer<ScreenArguments>, _ first: Int, _ column: Int, _ found: Int
  ) -> Int {
    let groups = arguments.pointee.groups
    let tokens = arguments.pointee.tokens + first &* groups
    let panel = arguments.pointee.panels + column &* groups
    let search = Search(arguments, column)
    var found = found
    for row in 0..<screenTokensPerBlock {
      var sum = load(arguments.pointee.corrections, column)
      for group in 0..<groups {
        sum = usae_dot4(
          sum, Integers(repeating: tokens[group &* screenTokensPerBlock &+ row]), load(panel, group &* screenPanelWidth))
      }
      found = search(first &+ row, sum, found)
    }
    return found
  }
#endif
