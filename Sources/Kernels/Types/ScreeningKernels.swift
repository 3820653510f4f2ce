/// Estimates of pre-activations from int8 products, which rule out most concepts of a token, and exact dot products for the few
/// that are left, with the bits that `ProductKernels` gives them.
///
/// A row of floats is kept as two int8 parts of each number, `high` in units of the row's scale and `low` in units of a 254th
/// of it: x = scale * (high + low / 254) + rest. Bytes are read in groups of four along the depth, one int32 each.
public struct ScreeningKernels: @unchecked Sendable {
  /// Both int8 parts of a row times a factor. `measures` [4]: the scale, the norm of the row, that of what `high` misses, and
  /// that of what both miss. `sums` [2]: of all `high`, and of all `low`.
  public typealias Quantize =
    @convention(c) (
      _ row: ConstantFloats, _ columns: Int, _ factor: Float, _ high: UnsafeMutablePointer<Int8>,
      _ low: UnsafeMutablePointer<Int8>, _ measures: Floats, _ sums: UnsafeMutablePointer<Int32>
    ) -> Void
  /// Puts the bytes of a token, with `tokenOffset`, where `Screen` reads them. `number` is the token's number in its block, and
  /// `block` is [tokensPerBlock * groups].
  public typealias PackToken =
    @convention(c) (
      _ bytes: UnsafePointer<Int32>, _ groups: Int, _ number: Int, _ block: UnsafeMutablePointer<Int32>
    ) -> Void
  /// Pairs of a token and a concept with an upper bound above the token's search threshold, until the list is full. `arguments`
  /// points to `ScreenArguments`, whose `pairs` tell how far the search came.
  public typealias Screen = @convention(c) (_ arguments: UnsafeMutableRawPointer) -> Void
  /// What the low parts add to an estimate, in units of scale * scale / 254: out[q] = high . low + low . high of concept
  /// concepts[q] and token tokens[q]. Both parts of all concepts are [concepts, 2, groups], those of all tokens, with
  /// `tokenOffset`, [tokens, 2, groups]; `groups` is a multiple of 16.
  public typealias Refine =
    @convention(c) (
      _ conceptParts: UnsafePointer<Int32>, _ tokenParts: UnsafePointer<Int32>, _ groups: Int,
      _ concepts: UnsafePointer<Int32>, _ tokens: UnsafePointer<Int32>, _ count: Int, _ out: UnsafeMutablePointer<Int32>
    ) -> Void
  /// Upper bounds of one token's pre-activations: out[i] = estimates[i] + slacks[c] + factorOfNorm * norms[c] + factorOfError *
  /// errors[c], c = concepts[i]. See `ScreenArguments`.
  public typealias UpperBounds =
    @convention(c) (
      _ concepts: UnsafePointer<Int32>, _ estimates: ConstantFloats, _ count: Int, _ norms: ConstantFloats,
      _ errors: ConstantFloats, _ slacks: ConstantFloats, _ factorOfNorm: Float, _ factorOfError: Float, _ out: Floats
    ) -> Void
  /// Exact dot products, as `ProductKernels.Block` computes them: out[q] = bias[c] + sum over the depth of x[p] * (scales[c] *
  /// rows[c][p]), c = indices[q], q < count. `following` more indices come after these in the list; their rows are prefetched.
  public typealias ExactProducts =
    @convention(c) (
      _ x: ConstantFloats, _ rows: ConstantFloats, _ stride: Int, _ scales: ConstantFloats, _ bias: ConstantFloats,
      _ indices: UnsafePointer<Int32>, _ count: Int, _ following: Int, _ out: Floats
    ) -> Void

  /// Whether the processor multiplies bytes so fast that screening saves time.
  public var isFast: Bool
  /// Added to the bytes of tokens before they are multiplied: 128, which makes them unsigned, or 0.
  public var tokenOffset: Int32
  public var tokensPerBlock: Int
  public var panelWidth: Int
  public var quantize: Quantize
  public var packToken: PackToken
  public var screen: Screen
  public var refine: Refine
  public var upperBounds: UpperBounds
  public var exactProducts: ExactProducts

  public init(
    isFast: Bool, tokenOffset: Int32, tokensPerBlock: Int, panelWidth: Int, quantize: @escaping Quantize,
    packToken: @escaping PackToken, screen: @escaping Screen, refine: @escaping Refine, upperBounds: @escaping UpperBounds,
    exactProducts: @escaping ExactProducts
  ) {
    self.isFast = isFast
    self.tokenOffset = tokenOffset
    self.tokensPerBlock = tokensPerBlock
    self.panelWidth = panelWidth
    self.quantize = quantize
    self.packToken = packToken
    self.screen = screen
    self.refine = refine
    self.upperBounds = upperBounds
    self.exactProducts = exactProducts
  }
}

/// What `ScreeningKernels.Screen` reads and writes.
///
/// The estimate of a pre-activation is bias + (correction + sum of products of bytes) * token scale * concept scale, and the
/// upper bound estimate + (slack + factor of norm * norm + factor of error * error); no NaN.
public struct ScreenArguments {
  /// Groups of four bytes along the depth, a multiple of 16.
  public var groups: Int
  /// Concepts: a multiple of `panelWidth`.
  public var columns: Int
  public var panels, corrections: UnsafePointer<Int32>
  public var scales, bias, norms, errors, slacks: ConstantFloats
  /// Packed tokens, in whole blocks; the last one's places past `count` may hold anything.
  public var count: Int
  public var tokens: UnsafePointer<Int32>
  public var tokenScales, factorsOfNorm, factorsOfError, thresholds: ConstantFloats
  /// The pairs, with estimates as numbers.
  public var pairs: FoundPairs
  /// Scratch memory of one thread, [tokensPerBlock, panelWidth].
  public var scratch: UnsafeMutablePointer<Int32>

  public init(
    groups: Int, columns: Int, panels: UnsafePointer<Int32>, corrections: UnsafePointer<Int32>, scales: ConstantFloats,
    bias: ConstantFloats, norms: ConstantFloats, errors: ConstantFloats, slacks: ConstantFloats, count: Int,
    tokens: UnsafePointer<Int32>, tokenScales: ConstantFloats, factorsOfNorm: ConstantFloats, factorsOfError: ConstantFloats,
    thresholds: ConstantFloats, pairs: FoundPairs, scratch: UnsafeMutablePointer<Int32>
  ) {
    self.groups = groups
    self.columns = columns
    self.panels = panels
    self.corrections = corrections
    self.scales = scales
    self.bias = bias
    self.norms = norms
    self.errors = errors
    self.slacks = slacks
    self.count = count
    self.tokens = tokens
    self.tokenScales = tokenScales
    self.factorsOfNorm = factorsOfNorm
    self.factorsOfError = factorsOfError
    self.thresholds = thresholds
    self.pairs = pairs
    self.scratch = scratch
  }
}
