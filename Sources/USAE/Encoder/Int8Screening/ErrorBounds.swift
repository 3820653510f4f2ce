/// How far the int8 parts of a row, a token or a concept, are from its numbers. Those of a token and of a concept together
/// bound the error of an estimate.
///
/// With x = x1 + e = x1 + x2 + f, w likewise, and |.| the Euclidean norm:
///
///     |x.w - x1.w1|                  <= |e| |w| + |x1| |e'|
///     |x.w - x1.w1 - x1.w2 - x2.w1|  <= |f| |w| + |x - f| |f'| + |x2| |w2|
///
/// Float32 sums of n terms err by at most n 2^-24 times the sum of magnitudes, here |x| |w| + |bias|. `roundingShare` is a
/// little more than that factor; the norms below are enlarged by enough of it for the rounding of the exact dot product, of the
/// estimates, and of these numbers themselves. docs/method.md has the derivation, and a test searches for an exception.
struct ErrorBounds {
  let norm: Float
  /// Norms of what the high part misses, e, and of what both parts miss, f.
  let highError, fullError: Float

  static func roundingShare(depth: Int) -> Float { Float(paddedWidth(depth) + 32) * 0x1.04p-24 }

  init(_ row: Int8Row, roundingShare share: Float) {
    norm = row.norm * (1 + share)
    highError = row.highError * (1 + share) + 3 * share * norm
    fullError = row.fullError * (1 + share) + 2 * share * norm
  }

  /// Whether bounds made from this are finite.
  var isUsable: Bool { norm < ScreenedWeights.largestNorm && highError.isFinite && fullError.isFinite }

  /// Factors of a concept's norm and of its high part's error in the error of an estimate.
  @inline(__always)
  func factors(roundingShare share: Float) -> (ofNorm: Float, ofError: Float) {
    (highError, (norm + highError) * (1 + 3 * share))
  }
}

/// The bounds of a list of concepts, padded to whole vectors.
final class ConceptBounds: @unchecked Sendable {
  let norms, highErrors, fullErrors, slacks: FloatBuffer

  init(count: Int) throws(USAEError) {
    norms = try FloatBuffer(paddedWidth(count))
    highErrors = try FloatBuffer(paddedWidth(count))
    fullErrors = try FloatBuffer(paddedWidth(count))
    slacks = try FloatBuffer(paddedWidth(count))
  }

  func set(_ position: Int, _ bounds: ErrorBounds, bias: Float, roundingShare: Float) {
    norms.base[position] = bounds.norm
    highErrors.base[position] = bounds.highError
    fullErrors.base[position] = bounds.fullError
    // The constant covers results so small that they lose bits (subnormals).
    slacks.base[position] = 3 * roundingShare * abs(bias) + 0x1p-100
  }

  /// Bound on the error of the refined estimate of a token's pre-activation for the concept at `position`.
  @inline(__always)
  func refined(_ token: ErrorBounds, _ position: Int) -> Float {
    let fullError = fullErrors.base[position]
    return token.fullError * norms.base[position] + (token.norm + token.fullError) * fullError
      + (token.highError + token.fullError) * (highErrors.base[position] + fullError) + slacks.base[position]
  }
}
