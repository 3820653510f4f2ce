import KernelTypes

/// Finds the candidates of each token of a tile: the concepts that estimates from int8 cannot rule out, because their upper
/// bound is above the token's search threshold. The pre-activations of all other concepts, and their estimates, are not above
/// it.
struct CandidateSearch: PairFinder {
  private let weights: ScreenedWeights
  private let tokenCount: Int
  private let scratch: Scratch

  /// One thread's memory.
  final class Scratch: @unchecked Sendable {
    fileprivate let lists: TokenSearch
    fileprivate let bounds: AlignedBuffer<ErrorBounds>
    /// Both parts of each token, with the kernels' token offset, [capacity, 2, groups].
    fileprivate let parts: AlignedBuffer<Int32>
    fileprivate let scales: FloatBuffer
    fileprivate let packed: PackedInt8Tokens

    init(columns: Int, depth: Int) throws(USAEError) {
      let capacity = TileSize.capacity(columns: columns)
      let groups = ScreenedWeights.groups(depth: depth)
      lists = try TokenSearch(columns: columns, capacity: capacity)
      bounds = try AlignedBuffer<ErrorBounds>(capacity)
      parts = try AlignedBuffer<Int32>(capacity * 2 * groups)
      scales = try FloatBuffer(capacity)
      packed = try PackedInt8Tokens(capacity: capacity, groups: groups)
    }
  }

  init(_ tokens: TokenRows, _ weights: ScreenedWeights, _ scratch: Scratch) {
    self.weights = weights
    self.scratch = scratch
    tokenCount = tokens.count
    let groups = weights.groups
    // Flipping the sign bit adds 128. Past the row bytes can be anything: weights are 0 there.
    let flip = kernels.screening.tokenOffset == 0 ? 0 : Int32(bitPattern: 0x8080_8080)
    for token in 0..<tokens.count {
      let parts = scratch.parts.base + token * 2 * groups
      let row = Int8Row(tokens.row(token), columns: tokens.stride, factor: 1, groups: groups, to: parts)
      for group in 0..<2 * groups { parts[group] ^= flip }
      scratch.scales.base[token] = row.scale
      scratch.bounds.base[token] = ErrorBounds(row, roundingShare: weights.roundingShare)
    }
  }

  /// By token.
  var bounds: UnsafePointer<ErrorBounds> { UnsafePointer(scratch.bounds.base) }
  var parts: UnsafePointer<Int32> { UnsafePointer(scratch.parts.base) }
  var scales: UnsafePointer<Float> { UnsafePointer(scratch.scales.base) }

  /// What was found for each token, with estimates as numbers.
  var lists: TokenSearch { scratch.lists }

  /// Searches so that each token's k largest estimates above a threshold are found. Tokens without usable bounds are not
  /// searched.
  func findLargest(_ k: Int, above threshold: Float) {
    lists.findLargest(k, above: threshold, of: (0..<tokenCount).filter { bounds[$0].isUsable }, self)
  }

  /// Searches some tokens again so that all concepts are found that can reach the token's exact threshold.
  func find(_ tokens: [Int], from exactThresholds: FloatBuffer, above threshold: Float) {
    lists.find(tokens, from: exactThresholds, above: threshold, self)
  }

  // MARK: PairFinder

  func norm(of token: Int) -> Float { bounds[token].norm }

  func place(_ token: Int, at place: Int, above threshold: Float) {
    scratch.packed.place(
      parts + token * 2 * weights.groups, scale: scales[token],
      factors: bounds[token].factors(roundingShare: weights.roundingShare), threshold: threshold, at: place)
  }

  func find(count: Int, _ pairs: inout FoundPairs) { weights.screen(scratch.packed, count: count, &pairs) }
}

/// The tokens of one search as the screening kernel reads them, in blocks of `tokensPerBlock`.
final class PackedInt8Tokens: @unchecked Sendable {
  let blocks: AlignedBuffer<Int32>
  let scales, factorsOfNorm, factorsOfError, thresholds: FloatBuffer
  /// The kernel's scratch memory.
  let sums: AlignedBuffer<Int32>
  private let groups: Int

  init(capacity: Int, groups: Int) throws(USAEError) {
    self.groups = groups
    let block = kernels.screening.tokensPerBlock
    let padded = (capacity + block - 1) / block * block
    blocks = try AlignedBuffer<Int32>(padded * groups)
    sums = try AlignedBuffer<Int32>(block * kernels.screening.panelWidth)
    scales = try FloatBuffer(padded)
    factorsOfNorm = try FloatBuffer(padded)
    factorsOfError = try FloatBuffer(padded)
    thresholds = try FloatBuffer(padded)
  }

  /// - Parameters:
  ///   - parts: both parts of the token, with the kernels' token offset, of which the high one is packed.
  ///   - factors: see `ErrorBounds.factors`.
  ///   - threshold: the search threshold.
  @inline(__always)
  func place(
    _ parts: UnsafePointer<Int32>, scale: Float, factors: (ofNorm: Float, ofError: Float), threshold: Float, at place: Int
  ) {
    let (number, lane) = place.quotientAndRemainder(dividingBy: kernels.screening.tokensPerBlock)
    let block = blocks.base + number * kernels.screening.tokensPerBlock * groups
    kernels.screening.packToken(parts, groups, lane, block)
    scales.base[place] = scale
    (factorsOfNorm.base[place], factorsOfError.base[place]) = factors
    thresholds.base[place] = threshold
  }
}
