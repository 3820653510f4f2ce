/// How far a token's or a concept's digits are from its numbers; two of these bound the error of an estimate.
///
/// With x = x1 + e = x1 + x2 + f, w likewise, and |.| the Euclidean norm:
///
///     |x.w - x1.w1|                  <= |e| |w| + |x1| |e'|
///     |x.w - x1.w1 - x1.w2 - x2.w1|  <= |f| |w| + |x - f| |f'| + |x2| |w2|
///
/// Float32 sums of n terms err by at most n 2^-24 times the sum of magnitudes, here |x| |w| + |bias|. `roundingShare` is a
/// little more than that factor; the norms below are enlarged by enough of it for the rounding of the canonical chain, of the
/// estimates, and of these numbers themselves. docs/method.md has the derivation, and a test searches for an exception.
struct ErrorBounds {
  let norm: Float
  /// Norms of what the coarse digits miss and of what both miss.
  let error, rest: Float

  static func roundingShare(depth: Int) -> Float { Float(paddedWidth(depth) + 32) * 0x1.04p-24 }

  init(_ row: Quantized, roundingShare share: Float) {
    norm = row.norm * (1 + share)
    error = row.error * (1 + share) + 3 * share * norm
    rest = row.rest * (1 + share) + 2 * share * norm
  }

  /// Whether bounds with this are numbers and cannot overflow.
  var isUsable: Bool { norm < ScreenedWeights.largestNorm && error.isFinite && rest.isFinite }

  /// Factors of a concept's norm and error in the error of an estimate.
  @inline(__always)
  func factors(roundingShare share: Float) -> (ofNorm: Float, ofError: Float) {
    (error, (norm + error) * (1 + 3 * share))
  }
}

/// The bounds of a list of concepts, padded to whole vectors.
final class ConceptBounds: @unchecked Sendable {
  let norms, errors, rests, slacks: FloatBuffer

  init(count: Int) throws(USAEError) {
    norms = try FloatBuffer(paddedWidth(count))
    errors = try FloatBuffer(paddedWidth(count))
    rests = try FloatBuffer(paddedWidth(count))
    slacks = try FloatBuffer(paddedWidth(count))
  }

  func set(_ position: Int, _ bounds: ErrorBounds, bias: Float, roundingShare: Float) {
    norms.base[position] = bounds.norm
    errors.base[position] = bounds.error
    rests.base[position] = bounds.rest
    // The constant is for results so small that they lose bits.
    slacks.base[position] = 3 * roundingShare * abs(bias) + 0x1p-100
  }

  /// Of a refined estimate of the pre-activation of `token` for the concept at `position`.
  @inline(__always)
  func refined(_ token: ErrorBounds, _ position: Int) -> Float {
    let rest = rests.base[position]
    return token.rest * norms.base[position] + (token.norm + token.rest) * rest
      + (token.error + token.rest) * (errors.base[position] + rest) + slacks.base[position]
  }
}
