import USAEKernelTypes

/// The concepts of each token of a tile that estimates from bytes cannot rule out.
///
/// A token is searched from a start: every concept with its upper bound above that is found, so whatever is hidden has its
/// pre-activation, and its estimate, below. The start should be just below the token's k-th largest estimate, which nobody knows
/// before; it is guessed from earlier tokens, and where the guess was too high, the token is searched again, with others
/// of its kind. Estimates of what is not found are never written: all of a tile would not fit into the second cache.
final class CandidateSearch: @unchecked Sendable {
  var weights: ScreenedWeights?
  private(set) var bounds: [ErrorBounds] = []
  /// Both digits of each token, unsigned, [capacity, 2, quads].
  let digits: AlignedBuffer<Int32>
  let scales: FloatBuffer
  /// Where each token was searched from, and its k-th largest estimate.
  let starts, levels: FloatBuffer
  private let encoder: PackedEncoder
  private let quads: Int
  // Tokens of one search, one block of tokens after the other.
  private let blocks, sums: AlignedBuffer<Int32>
  private let blockScales, factorsOfNorm, factorsOfError, floors: FloatBuffer
  // What it finds. Nearly always some hundred concepts a token; room for more is made when they come.
  private let pairs: GrowingBuffer<Int32>
  private let pairEstimates: GrowingBuffer<Float>
  private let conceptBits: Int32
  // The same by token: where a token's are, which are adjacent.
  private var places: [Range<Int>]
  private let found: GrowingBuffer<Int32>
  private let estimates: GrowingBuffer<Float>
  private var used = 0
  private let ends: AlignedBuffer<Int>
  private let spare: FloatBuffer
  /// Where a search starts, as a share of the token's norm.
  private var guess: Float = 0
  /// Of a level, or of the level of one token of sixteen that have lower ones; few searches are repeated, and lists stay short.
  private static let share: Float = 0.97

  /// A pair of a concept and one of up to 512 tokens is a number.
  static let mostConcepts = 1 << 22

  init(_ encoder: PackedEncoder, capacity: Int) throws(USAEError) {
    self.encoder = encoder
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
    starts = try FloatBuffer(capacity)
    levels = try FloatBuffer(capacity)
    let room = padded * (256 + kernels.screening.panelWidth)
    pairs = GrowingBuffer(room)
    pairEstimates = GrowingBuffer(room)
    found = GrowingBuffer(room)
    estimates = GrowingBuffer(room)
    ends = try AlignedBuffer<Int>(capacity + 1)
    conceptBits = Int32(encoder.columns.bitWidth - (encoder.columns - 1).leadingZeroBitCount)
    places = [Range<Int>](repeating: 0..<0, count: capacity)
    spare = try FloatBuffer(encoder.columns + 16)
    bounds.reserveCapacity(capacity)
  }

  /// The concepts that were found for a token, which ascend, and their estimates; until the next search.
  func found(_ token: Int) -> (concepts: UnsafePointer<Int32>, estimates: UnsafePointer<Float>, count: Int) {
    let first = places[token].lowerBound
    return (UnsafePointer(found.base + first), UnsafePointer(estimates.base + first), places[token].count)
  }

  /// Takes the tokens of the next searches.
  func take(_ tokens: UnsafePointer<Float>, stride: Int, count: Int) {
    guard let weights else { preconditionFailure("a tile is prepared before it is used") }
    bounds.removeAll(keepingCapacity: true)
    for token in 0..<count {
      let line = digits.base + token * 2 * quads
      let row = Quantized(tokens + token * stride, columns: stride, factor: 1, quads: quads, to: line)
      scales.base[token] = row.scale
      // Flipping the sign bit adds 128 and makes the bytes unsigned. Past the row they are anything: weights are 0 there.
      for quad in 0..<2 * quads { line[quad] ^= Int32(bitPattern: 0x8080_8080) }
      bounds.append(ErrorBounds(row, roundingShare: weights.roundingShare))
    }
  }

  /// Searches all tokens of which something is known, such that their k largest estimates above a limit are found.
  func findAll(_ k: Int, above limit: Float) {
    used = 0
    let tokens = bounds.indices.filter { bounds[$0].isUsable }
    // Without a guess nearly half of all concepts are found.
    let first = guess > 0 ? 0 : min(tokens.count, kernels.screening.tokensPerBlock)
    find(tokens.prefix(first), k, above: limit)
    find(tokens.dropFirst(first), k, above: limit)
  }

  private func find(_ tokens: ArraySlice<Int>, _ k: Int, above limit: Float) {
    for token in tokens { starts.base[token] = max(guess * bounds[token].norm, limit) }
    var left = tokens
    var isFirst = true
    while !left.isEmpty {
      search(left)
      left = left.filter { !settles($0, k, above: limit, isFirst) }
      isFirst = false
    }
    learn(from: tokens)
  }

  /// Whether a token's list has its k largest estimates; if not, its start is lower now.
  private func settles(_ token: Int, _ k: Int, above limit: Float, _ isFirst: Bool) -> Bool {
    let start = starts.base[token]
    let found = found(token)
    spare.base.update(from: found.estimates, count: found.count)  // the kernel writes past the end
    let level = kernels.screening.floor(spare.base, found.count, k)
    levels.base[token] = level
    if level > start || start == limit { return true }
    // The start was too high. A level, if there is one, is not above that of all concepts.
    let lower = level > limit ? Self.share * level : isFirst ? 0.5 * start : limit
    starts.base[token] = max(limit, lower)
    return false
  }

  private func learn(from tokens: ArraySlice<Int>) {
    let levels = tokens.filter { bounds[$0].norm > 0 }.map { self.levels.base[$0] / bounds[$0].norm }.sorted()
    if !levels.isEmpty { guess = Self.share * levels[levels.count / 16] }
  }

  /// Searches some tokens again, each so that all concepts that may reach its floor are found.
  func find(_ tokens: [Int], floors: FloatBuffer) {
    for token in tokens { starts.base[token] = floors.base[token].nextDown }
    search(tokens[...])
  }

  /// Searches tokens from their starts.
  private func search(_ tokens: ArraySlice<Int>) {
    guard let weights, !tokens.isEmpty else { return }
    let block = kernels.screening.tokensPerBlock
    for (place, token) in tokens.enumerated() {
      let (number, lane) = place.quotientAndRemainder(dividingBy: block)
      kernels.screening.packToken(digits.base + token * 2 * quads, quads, lane, blocks.base + number * block * quads)
      blockScales.base[place] = scales.base[token]
      floors.base[place] = starts.base[token]
      (factorsOfNorm.base[place], factorsOfError.base[place]) = bounds[token].factors(roundingShare: weights.roundingShare)
    }
    sort(findPairs(weights, tokens.count), tokens)
  }

  /// Searches the tokens in the blocks; how many pairs there are.
  private func findPairs(_ weights: ScreenedWeights, _ count: Int) -> Int {
    var (found, column) = (0, 0)
    while column < encoder.columns {
      let least = found + kernels.screening.panelWidth * count + 16
      pairs.reserve(least)
      pairEstimates.reserve(least)
      var arguments = weights.screenArguments(
        bias: encoder.bias.base, count: count, tokens: blocks.base, tokenScales: blockScales.base,
        factorsOfNorm: factorsOfNorm.base, factorsOfError: factorsOfError.base, floors: floors.base, pairs: pairs.base,
        conceptBits: conceptBits, estimates: pairEstimates.base, room: pairs.count, spare: sums.base)
      (arguments.found, arguments.nextColumn) = (found, column)
      kernels.screening.screen(&arguments)
      (found, column) = (arguments.found, arguments.nextColumn)
    }
    return found
  }

  /// A counting sort of pairs by token.
  private func sort(_ count: Int, _ tokens: ArraySlice<Int>) {
    found.reserve(used + count)
    estimates.reserve(used + count)
    let pairs = pairs.base, ends = ends.base, found = found.base, estimates = estimates.base
    for place in 0...tokens.count { ends[place] = 0 }
    for i in 0..<count { ends[Int(pairs[i] &>> conceptBits) &+ 1] &+= 1 }
    ends[0] = used
    for place in 0..<tokens.count { ends[place &+ 1] &+= ends[place] }
    for (place, token) in tokens.enumerated() { places[token] = ends[place]..<ends[place &+ 1] }
    let concept: Int32 = (1 << conceptBits) - 1
    for i in 0..<count {
      let place = Int(pairs[i] &>> conceptBits)
      let end = ends[place]
      ends[place] = end &+ 1
      found[end] = pairs[i] & concept
      estimates[end] = pairEstimates.base[i]
    }
    used += count
  }
}
