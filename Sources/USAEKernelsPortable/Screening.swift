import CIntrinsics
import USAEKernelTypes

// Estimates of pre-activations from bytes. A token is about s (u - 128) with unsigned bytes u, a concept's weights t q with
// signed bytes q, so their product is about s t (sum u q - 128 sum q). The sums are of integers: exact in any order, and
// the same on every processor. `Inference/ErrorBounds.swift` bounds the error of the rest.

#if USAE_AVX512 && USAE_VNNI
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

@inline(__always)
private func load(_ pointer: UnsafePointer<Int32>, _ offset: Int) -> Integers {
  UnsafeRawPointer(pointer + offset).loadUnaligned(as: Integers.self)
}

/// Adds the four products of bytes in each lane, of `tokens` unsigned and of `weights` signed.
@inline(__always)
private func dot4(_ sum: Integers, _ tokens: Integers, _ weights: Integers) -> Integers {
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
  func screen(
    _ quads: Int, _ tokens: UnsafePointer<Int32>, _ panel: UnsafePointer<Int32>, _ start: UnsafePointer<Int32>,
    _ tokenScales: ConstantFloats, _ panelScales: ConstantFloats, _ bias: ConstantFloats, _ rows: Int, _ out: Floats,
    _ stride: Int
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
#elseif USAE_VNNI
  func screen(
    _ quads: Int, _ tokens: UnsafePointer<Int32>, _ panel: UnsafePointer<Int32>, _ start: UnsafePointer<Int32>,
    _ tokenScales: ConstantFloats, _ panelScales: ConstantFloats, _ bias: ConstantFloats, _ rows: Int, _ out: Floats,
    _ stride: Int
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
  func screen(
    _ quads: Int, _ tokens: UnsafePointer<Int32>, _ panel: UnsafePointer<Int32>, _ start: UnsafePointer<Int32>,
    _ tokenScales: ConstantFloats, _ panelScales: ConstantFloats, _ bias: ConstantFloats, _ rows: Int, _ out: Floats,
    _ stride: Int
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

/// Below it, what is lost where squares underflow is not small beside the rounding that bounds allow for.
private let smallestSize: Float = 1e-10

@inline(__always)
private func toFloats(_ sums: Integers) -> Vector {
  #if USAE_AVX512 || USAE_AVX2
    return usae_to_floats(sums)
  #else
    var floats = Vector.zero  // not Vector(sums), which is a generic of the standard library
    for lane in 0..<16 { floats[lane] = Float(sums[lane]) }
    return floats
  #endif
}

/// Two digits of a row times a factor: a x = scale (coarse + fine / 254) + rest, the scale being the largest |a x| over 127.
///
/// `measures` gets the scale and the norms of a x, of a x - scale coarse, and of the rest; `sums` those of the digits. A row
/// with nothing above `smallestSize` has only zeros for digits.
func quantize(
  _ row: ConstantFloats, _ columns: Int, _ factor: Float, _ coarse: UnsafeMutablePointer<Int8>,
  _ fine: UnsafeMutablePointer<Int8>, _ measures: Floats, _ sums: UnsafeMutablePointer<Int32>
) {
  var largest = Vector.zero
  var squares = Vector.zero
  var c = 0
  while c < columns {
    let x = load(row, c) * factor
    let magnitude = x.replacing(with: -x, where: x .< 0)
    largest = largest.replacing(with: magnitude, where: magnitude .> largest)
    squares = multiplyAdd(squares, x, x)
    c &+= 16
  }
  let size = largestLane(largest)
  if size < smallestSize {
    // Squares and scales could underflow, so such a row has no digits, and all of it is what they miss.
    let norm = size * Float(columns).squareRoot() * 1.000001
    for c in 0..<columns {
      coarse[c] = 0
      fine[c] = 0
    }
    measures[0] = 0
    for i in 1..<4 { measures[i] = norm }
    sums[0] = 0
    sums[1] = 0
    return
  }
  let scale = size / 127
  let fineScale = scale / 254
  var errors = Vector.zero, rests = Vector.zero
  var coarseSum = Integers.zero, fineSum = Integers.zero
  c = 0
  while c < columns {
    let x = load(row, c) * factor
    let (first, firstInteger) = digit(x, scale)
    let error = multiplyAdd(x, first, Vector(repeating: -scale))
    let (second, secondInteger) = digit(error, fineScale)
    let rest = multiplyAdd(error, second, Vector(repeating: -fineScale))
    errors = multiplyAdd(errors, error, error)
    rests = multiplyAdd(rests, rest, rest)
    coarseSum = coarseSum &+ firstInteger
    fineSum = fineSum &+ secondInteger
    storeBytes(firstInteger, coarse + c)
    storeBytes(secondInteger, fine + c)
    c &+= 16
  }
  measures[0] = scale
  measures[1] = sumLanes(squares).squareRoot()
  measures[2] = sumLanes(errors).squareRoot()
  measures[3] = sumLanes(rests).squareRoot()
  sums[0] = sumIntegers(coarseSum)
  sums[1] = sumIntegers(fineSum)
}

/// x / scale to the nearest whole number from -127 to 127.
@inline(__always)
private func digit(_ x: Vector, _ scale: Float) -> (Vector, Integers) {
  // Adding 1.5 * 2^23 rounds to a whole number and leaves it in the low bits.
  let magic = Vector(repeating: 12_582_912)
  let inverse = 1 / scale
  var whole = (x * inverse + magic) - magic
  whole = whole.replacing(with: 127, where: whole .> 127).replacing(with: -127, where: whole .< -127)
  return (whole, unsafeBitCast(whole + magic, to: Integers.self) &- Integers(repeating: 0x4b40_0000))
}

@inline(__always)
private func storeBytes(_ integers: Integers, _ bytes: UnsafeMutablePointer<Int8>) {
  UnsafeMutableRawPointer(bytes).storeBytes(of: SIMD16<Int8>(truncatingIfNeeded: integers), as: SIMD16<Int8>.self)
}

/// out[q] = (the token's unsigned coarse) . fine + (its unsigned fine) . coarse of concept concepts[q] and token tokens[q].
///
/// The coarse digits come first, then the fine ones: `quads` times four bytes of each, a multiple of 64.
func screenRefine(
  _ conceptDigits: UnsafePointer<Int32>, _ tokenDigits: UnsafePointer<Int32>, _ quads: Int,
  _ concepts: UnsafePointer<Int32>, _ tokens: UnsafePointer<Int32>, _ count: Int, _ out: UnsafeMutablePointer<Int32>
) {
  let size = 2 &* quads
  for q in 0..<count {
    let concept = conceptDigits + Int(concepts[q]) &* size
    let token = tokenDigits + Int(tokens[q]) &* size
    // Concepts lie in a cache that takes as long to answer as three pairs take. (To ask for tokens too took longer.)
    let ahead = q &+ 3 < count ? q &+ 3 : q
    let nextConcept = conceptDigits + Int(concepts[ahead]) &* size
    var first = Integers.zero, second = Integers.zero
    var c = 0
    while c < quads {
      usae_prefetch(nextConcept + c)
      usae_prefetch(nextConcept + (quads &+ c))
      first = dot4(first, load(token, c), load(concept, quads &+ c))
      second = dot4(second, load(token, quads &+ c), load(concept, c))
      c &+= 16
    }
    out[q] = total(first &+ second)
  }
}

@inline(__always)
private func total(_ v: Integers) -> Int32 {
  #if USAE_VNNI
    return usae_sum(v)
  #else
    return sumIntegers(v)
  #endif
}

/// The columns whose upper bound is above `floor`, their estimates and that bound.
///
/// Writes up to sixteen places past the end of the lists. Upper bounds are estimates[c] + (a norms[c] + b errors[c] + slacks[c]).
func screenScan(
  _ estimates: ConstantFloats, _ columns: Int, _ norms: ConstantFloats, _ errors: ConstantFloats,
  _ slacks: ConstantFloats, _ a: Float, _ b: Float, _ floor: Float, _ found: UnsafeMutablePointer<Int32>,
  _ estimated: Floats, _ upper: Floats
) -> Int {
  let limit = Vector(repeating: floor)
  let first = Vector(repeating: a), second = Vector(repeating: b)
  var count = 0
  var column = 0
  while column < columns {
    let bound = multiplyAdd(multiplyAdd(load(slacks, column), first, load(norms, column)), second, load(errors, column))
    let above = load(estimates, column) + bound
    #if USAE_AVX512 || USAE_AVX2
      count &+= Int(usae_write_above(limit, above, Int32(truncatingIfNeeded: column), found + count))
    #else
      for lane in 0..<16 {
        // Write always, keep if above: a branch here would be mispredicted half of the time.
        found[count] = Int32(truncatingIfNeeded: column &+ lane)
        count &+= above[lane] > floor ? 1 : 0
      }
    #endif
    column &+= 16
  }
  for i in 0..<count {
    let c = Int(found[i])
    estimated[i] = estimates[c]
    upper[i] = estimates[c] + multiplyAddOne(multiplyAddOne(slacks[c], a, norms[c]), b, errors[c])
  }
  return count
}
