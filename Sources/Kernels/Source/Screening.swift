import CIntrinsics
import KernelTypes

// What comes before and after the product with bytes (`ScreenedProduct.swift`): the split of floats into high and low int8
// parts, and refined estimates and bounds for the concepts that it finds.

/// For smaller elements, squares lose more by underflow than the rounding that bounds allow for.
private let smallestSize: Float = 1e-10

/// Both int8 parts of a row times a factor: a x = scale (high + low / 254) + rest, the scale being the largest |a x| over 127.
///
/// `measures` gets the scale and the norms of a x, of a x - scale high, and of the rest; `sums` those of the parts. The parts
/// of a row with no element above `smallestSize` are 0.
func quantize(
  _ row: ConstantFloats, _ columns: Int, _ factor: Float, _ high: UnsafeMutablePointer<Int8>,
  _ low: UnsafeMutablePointer<Int8>, _ measures: Floats, _ sums: UnsafeMutablePointer<Int32>
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
    // Squares and scales could underflow, so such a row has parts of 0, and all of it is what they miss.
    let norm = size * Float(columns).squareRoot() * 1.000001
    for c in 0..<columns {
      high[c] = 0
      low[c] = 0
    }
    measures[0] = 0
    for i in 1..<4 { measures[i] = norm }
    sums[0] = 0
    sums[1] = 0
    return
  }
  let scale = size / 127
  let lowScale = scale / 254
  var errors = Vector.zero, rests = Vector.zero
  let inverse = 1 / scale, lowInverse = 1 / lowScale
  // Sums of bytes stay whole numbers in floats: up to 2^15 of them are below 2^22.
  var highSum = Vector.zero, lowSum = Vector.zero
  c = 0
  while c < columns {
    let x = load(row, c) * factor
    let first = usae_to_bytes(x * inverse, high + c)
    let error = multiplyAdd(x, first, Vector(repeating: -scale))
    let second = usae_to_bytes(error * lowInverse, low + c)
    let rest = multiplyAdd(error, second, Vector(repeating: -lowScale))
    errors = multiplyAdd(errors, error, error)
    rests = multiplyAdd(rests, rest, rest)
    highSum = highSum + first
    lowSum = lowSum + second
    c &+= 16
  }
  measures[0] = scale
  measures[1] = sumLanes(squares).squareRoot()
  measures[2] = sumLanes(errors).squareRoot()
  measures[3] = sumLanes(rests).squareRoot()
  sums[0] = wholeNumber(sumLanes(highSum))
  sums[1] = wholeNumber(sumLanes(lowSum))
}

/// 1.5 * 2^23: adding it rounds to a whole number, which is then in the low bits.
private let roundingToWhole: Float = 12_582_912

/// The int of a whole number between -2^22 and 2^22; for NaN, any int.
@inline(__always)
private func wholeNumber(_ x: Float) -> Int32 {
  Int32(bitPattern: (x + roundingToWhole).bitPattern) &- 0x4b40_0000
}

/// out[q] = (the token's high) . low + (its low) . high of concept concepts[q] and token tokens[q], the token's parts being
/// those with `screenTokenOffset`.
///
/// The high parts come first, then the low ones: `groups` times four bytes of each, a multiple of 64.
func screenRefine(
  _ conceptParts: UnsafePointer<Int32>, _ tokenParts: UnsafePointer<Int32>, _ groups: Int,
  _ concepts: UnsafePointer<Int32>, _ tokens: UnsafePointer<Int32>, _ count: Int, _ out: UnsafeMutablePointer<Int32>
) {
  let size = 2 &* groups
  for q in 0..<count {
    let concept = conceptParts + Int(concepts[q]) &* size
    let token = tokenParts + Int(tokens[q]) &* size
    // Prefetches concepts three pairs ahead, which is the latency of their cache. (Prefetching tokens too took longer.)
    let ahead = q &+ 3 < count ? q &+ 3 : q
    let nextConcept = conceptParts + Int(concepts[ahead]) &* size
    var first = Integers.zero, second = Integers.zero
    var c = 0
    while c < groups {
      usae_prefetch(nextConcept + c)
      usae_prefetch(nextConcept + (groups &+ c))
      first = usae_dot4(first, load(token, c), load(concept, groups &+ c))
      second = usae_dot4(second, load(token, groups &+ c), load(concept, c))
      c &+= 16
    }
    out[q] = usae_sum(first &+ second)
  }
}

/// out[i] = an upper bound of the pre-activation of concept concepts[i], from its estimate estimates[i].
func screenUpperBounds(
  _ concepts: UnsafePointer<Int32>, _ estimates: ConstantFloats, _ count: Int, _ norms: ConstantFloats,
  _ errors: ConstantFloats, _ slacks: ConstantFloats, _ factorOfNorm: Float, _ factorOfError: Float, _ out: Floats
) {
  for i in 0..<count {
    let c = Int(concepts[i])
    out[i] = estimates[i] + multiplyAddOne(multiplyAddOne(slacks[c], factorOfNorm, norms[c]), factorOfError, errors[c])
  }
}
