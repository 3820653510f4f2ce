import KernelTypes

/// The concepts of each token of a tile that estimates from bytes cannot rule out: those whose upper bound is above the start of
/// the token's search. So whatever is hidden has its pre-activation, and its estimate, not above that.
final class CandidateSearch: PairFinder, @unchecked Sendable {
  var weights: ScreenedWeights?
  /// With estimates as numbers.
  let lists: TokenSearch
  private(set) var bounds: [ErrorBounds] = []
  /// Both digits of each token, with the kernels' offset, [capacity, 2, quads].
  let digits: AlignedBuffer<Int32>
  let scales: FloatBuffer
  private let encoder: PackedEncoder
  private let quads: Int
  // Tokens of one search, one block of tokens after the other.
  private let blocks, sums: AlignedBuffer<Int32>
  private let blockScales, factorsOfNorm, factorsOfError, floors: FloatBuffer

  init(_ encoder: PackedEncoder, capacity: Int) throws(USAEError) {
    self.encoder = encoder
    lists = try TokenSearch(columns: encoder.columns, capacity: capacity)
    quads = ScreenedWeights.quads(depth: encoder.depth)
    let block = kernels.screening.tokensPerBlock
    let padded = (capacity + block - 1) / block * block
    blocks = try AlignedBuffer<Int32>(padded * quads)
    sums = try AlignedBuffer<Int32>(block * kernels.screening.panelWidth)
    blockScales = try FloatBuffer(padded)
    factorsOfNorm = try FloatBuffer(padded)
    factorsOfError = try FloatBuffer(padded)
    floors = try FloatBuffer(padded)
    digits = try AlignedBuffer<Int32>(capacity * 2 * quads)
    scales = try FloatBuffer(capacity)
    bounds.reserveCapacity(capacity)
  }

  /// Takes the tokens of the next searches.
  func take(_ tokens: UnsafePointer<Float>, stride: Int, count: Int) {
    guard let weights else { preconditionFailure("a tile is prepared before it is used") }
    bounds.removeAll(keepingCapacity: true)
    // Flipping the sign bit adds 128. Past the row bytes are anything: weights are 0 there.
    let flip = kernels.screening.tokenOffset == 0 ? 0 : Int32(bitPattern: 0x8080_8080)
    for token in 0..<count {
      let line = digits.base + token * 2 * quads
      let row = Quantized(tokens + token * stride, columns: stride, factor: 1, quads: quads, to: line)
      scales.base[token] = row.scale
      for quad in 0..<2 * quads { line[quad] ^= flip }
      bounds.append(ErrorBounds(row, roundingShare: weights.roundingShare))
    }
  }

  /// Searches all tokens of which something is known, such that their k largest estimates above a limit are found.
  func findLargest(_ k: Int, above limit: Float) {
    lists.findLargest(k, above: limit, of: bounds.indices.filter { bounds[$0].isUsable }, self)
  }

  /// Searches some tokens again, each so that all concepts that may reach its floor are found.
  func find(_ tokens: [Int], floors: FloatBuffer, above limit: Float) {
    lists.find(tokens, floors: floors, above: limit, self)
  }

  // MARK: PairFinder

  func norm(of token: Int) -> Float { bounds[token].norm }

  func place(_ token: Int, at place: Int, floor: Float) {
    guard let weights else { preconditionFailure("a tile is prepared before it is used") }
    let (number, lane) = place.quotientAndRemainder(dividingBy: kernels.screening.tokensPerBlock)
    let block = blocks.base + number * kernels.screening.tokensPerBlock * quads
    kernels.screening.packToken(digits.base + token * 2 * quads, quads, lane, block)
    blockScales.base[place] = scales.base[token]
    (factorsOfNorm.base[place], factorsOfError.base[place]) = bounds[token].factors(roundingShare: weights.roundingShare)
    floors.base[place] = floor
  }

  func find(count: Int, _ pairs: inout FoundPairs) {
    guard let weights else { preconditionFailure("a tile is prepared before it is used") }
    var arguments = weights.screenArguments(
      bias: encoder.bias.base, count: count, tokens: blocks.base, tokenScales: blockScales.base,
      factorsOfNorm: factorsOfNorm.base, factorsOfError: factorsOfError.base, floors: floors.base, pairs: pairs,
      spare: sums.base)
    kernels.screening.screen(&arguments)
    pairs = arguments.pairs
  }
}
