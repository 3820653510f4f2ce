/// What screening had to do.
public struct ScreeningCounts: Sendable, Equatable {
  /// Tokens that were screened.
  public internal(set) var tokens = 0
  /// Concepts that bytes could not rule out, over all tokens.
  public internal(set) var candidates = 0
  /// Pre-activations computed as the product would have.
  public internal(set) var chains = 0
  /// Tokens for which bounds said nothing, and all were computed.
  public internal(set) var fallbacks = 0

  static func += (left: inout Self, right: Self) {
    left.tokens += right.tokens
    left.candidates += right.candidates
    left.chains += right.chains
    left.fallbacks += right.fallbacks
  }

  static func - (left: Self, right: Self) -> Self {
    Self(
      tokens: left.tokens - right.tokens, candidates: left.candidates - right.candidates, chains: left.chains - right.chains,
      fallbacks: left.fallbacks - right.fallbacks)
  }
}

/// When to screen. Codes are the same either way, so this may depend on anything, time included.
struct ScreeningPolicy {
  private let isPossible: Bool
  private let concepts: Int
  private(set) var counts = ScreeningCounts()
  private var sinceLook = ScreeningCounts()
  /// Sets of weights to go without screening, because too many concepts were left.
  private var pause = 0

  /// Share of the concepts that may be left. A guess on the safe side, not measured: refining a concept costs some twice its
  /// part of the product, which bytes have left three quarters of.
  private static let worthwhileShare = 0.2
  private static let pauseLength = 64

  init(concepts: Int, depth: Int, wanted: Bool?) {
    self.concepts = concepts
    isPossible =
      depth <= ScreenedWeights.largestDepth && (wanted ?? (kernels.screening.isFast && concepts >= 256 && depth >= 32))
  }

  var screens: Bool { isPossible && pause == 0 }

  /// Called for each new set of weights.
  mutating func nextEncoder() { pause = max(0, pause - 1) }

  mutating func add(_ counts: ScreeningCounts) {
    self.counts += counts
    sinceLook += counts
    guard sinceLook.tokens >= 256 else { return }
    let share = Double(sinceLook.candidates) / (Double(sinceLook.tokens) * Double(concepts))
    if share > Self.worthwhileShare { pause = Self.pauseLength }
    sinceLook = ScreeningCounts()
  }
}
