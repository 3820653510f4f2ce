import CIntrinsics
import KernelTypes

// What stands around the product with bytes (`ScreenedProduct.swift`): from floats to two digits of a byte each, and better
// estimates and bounds for the concepts that it finds.

/// Below it, what is lost where squares underflow is not small beside the rounding that bounds allow for.
private let smallestSize: Float = 1e-10

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
  let inverse = 1 / scale, fineInverse = 1 / fineScale
  // Sums of bytes stay whole numbers in floats: up to 2^15 of them are below 2^22.
  var coarseSum = Vector.zero, fineSum = Vector.zero
  c = 0
  while c < columns {
    let x = load(row, c) * factor
    let first = usae_digits(x * inverse, coarse + c)
    let error = multiplyAdd(x, first, Vector(repeating: -scale))
    let second = usae_digits(error * fineInverse, fine + c)
    let rest = multiplyAdd(error, second, Vector(repeating: -fineScale))
    errors = multiplyAdd(errors, error, error)
    rests = multiplyAdd(rests, rest, rest)
    coarseSum = coarseSum + first
    fineSum = fineSum + second
    c &+= 16
  }
  measures[0] = scale
  measures[1] = sumLanes(squares).squareRoot()
  measures[2] = sumLanes(errors).squareRoot()
  measures[3] = sumLanes(rests).squareRoot()
  sums[0] = wholeNumber(sumLanes(coarseSum))
  sums[1] = wholeNumber(sumLanes(fineSum))
}

/// 1.5 * 2^23: adding it rounds to a whole number and leaves that in the low bits.
private let roundingToWhole: Float = 12_582_912

/// A whole number between -2^22 and 2^22; of what is not a number, anything.
@inline(__always)
private func wholeNumber(_ x: Float) -> Int32 {
  Int32(bitPattern: (x + roundingToWhole).bitPattern) &- 0x4b40_0000
}

/// out[q] = (the token's coarse) . fine + (its fine) . coarse of concept concepts[q] and token tokens[q], the token's digits being
/// those with `screenTokenOffset`.
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
      first = usae_dot4(first, load(token, c), load(concept, quads &+ c))
      second = usae_dot4(second, load(token, quads &+ c), load(concept, c))
      c &+= 16
    }
    out[q] = usae_sum(first &+ second)
  }
}

/// out[i] = what the pre-activation of concept concepts[i] may be at most, its estimate being estimates[i].
func screenUppers(
  _ concepts: UnsafePointer<Int32>, _ estimates: ConstantFloats, _ count: Int, _ norms: ConstantFloats,
  _ errors: ConstantFloats, _ slacks: ConstantFloats, _ a: Float, _ b: Float, _ out: Floats
) {
  for i in 0..<count {
    let c = Int(concepts[i])
    out[i] = estimates[i] + multiplyAddOne(multiplyAddOne(slacks[c], a, norms[c]), b, errors[c])
  }
}
