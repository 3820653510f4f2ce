/// What screening did.
public struct ScreeningCounts: Sendable, Equatable {
  /// Tokens that were screened.
  public internal(set) var tokens = 0
  /// Concepts that int8 estimates could not rule out, over all tokens.
  public internal(set) var candidates = 0
  /// Pre-activations computed by exact dot products.
  public internal(set) var computed = 0
  /// Tokens without usable bounds, for which all pre-activations were computed.
  public internal(set) var fallbacks = 0

  static func += (left: inout Self, right: Self) {
    left.tokens += right.tokens
    left.candidates += right.candidates
    left.computed += right.computed
    left.fallbacks += right.fallbacks
  }
}

/// When to screen. Codes are the same either way, so this may depend on anything, time included.
struct ScreeningPolicy {
  private let isPossible: Bool
  private let concepts: Int
  /// Counts of the present encoder.
  private(set) var counts = ScreeningCounts()
  /// Counts since the last decision, which takes 256 tokens.
  private var recent = ScreeningCounts()
  /// How many more encoders are used without screening, because too many concepts were candidates.
  private var pause = 0

  /// Screening pauses when a larger share of the concepts are candidates. The value is cautious, not measured: refining a
  /// concept costs about twice its part of the product, and int8 estimates have saved three quarters of the product.
  private static let worthwhileShare = 0.2
  private static let pauseLength = 64

  init(concepts: Int, depth: Int, wanted: Bool?) {
    self.concepts = concepts
    isPossible =
      depth <= ScreenedWeights.largestDepth && (wanted ?? (kernels.screening.isFast && concepts >= 256 && depth >= 32))
  }

  var screens: Bool { isPossible && pause == 0 }

  /// Begins an encoder with new weights.
  mutating func startEncoder() {
    pause = max(0, pause - 1)
    counts = ScreeningCounts()
  }

  mutating func add(_ counts: ScreeningCounts) {
    self.counts += counts
    recent += counts
    guard recent.tokens >= 256 else { return }
    let share = Double(recent.candidates) / (Double(recent.tokens) * Double(concepts))
    if share > Self.worthwhileShare { pause = Self.pauseLength }
    recent = ScreeningCounts()
  }
}
