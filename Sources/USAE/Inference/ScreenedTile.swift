/// Selection by screening: estimates of all pre-activations from bytes, bounds on their errors, and float32 only for the
/// concepts that could be among the k largest. The result has the bits of the product.
///
/// A lower bound of k concepts is a lower bound of the k-th largest pre-activation, so whatever has its upper bound below the
/// k-th largest lower bound is out. What is left is narrowed once more by refined estimates, and the rest computed as the
/// product would.
final class ScreenedTile: @unchecked Sendable {
  var weights: ScreenedWeights?
  var counts = ScreeningCounts()
  private let encoder: PackedEncoder
  /// Coarse digits by block of tokens as `screen` reads them, unsigned.
  private let blocks: AlignedBuffer<Int32>
  /// Both digits of each token, unsigned, [capacity, 2, quads].
  private let digits: AlignedBuffer<Int32>
  private let scales: FloatBuffer
  private var bounds: [ErrorBounds] = []
  private var tokens: UnsafePointer<Float>?
  private var stride = 0
  private let quads: Int
  private var count = 0
  private let found: AlignedBuffer<Int32>
  private let lower, upper: FloatBuffer
  private let pairs: CandidatePairs
  /// What is left of each token's candidates, one token after the other; empty before the first `select`.
  private var kept: [Int32] = []
  private var keptEnds: [Int] = []
  /// The last token's k-th lower bound as a share of its norm.
  private var guess: Float = 0

  init(_ encoder: PackedEncoder, capacity: Int) throws(USAEError) {
    self.encoder = encoder
    quads = ScreenedWeights.quads(depth: encoder.depth)
    let block = kernels.screening.tokensPerBlock
    let padded = (capacity + block - 1) / block * block
    blocks = try AlignedBuffer<Int32>(padded * quads)
    digits = try AlignedBuffer<Int32>(capacity * 2 * quads)
    scales = try FloatBuffer(padded)
    let room = encoder.columns + 16  // scans write whole vectors
    found = try AlignedBuffer<Int32>(room)
    lower = try FloatBuffer(room)
    upper = try FloatBuffer(room)
    pairs = try CandidatePairs(columns: encoder.columns, tokens: capacity)
    bounds.reserveCapacity(capacity)
    keptEnds.reserveCapacity(capacity)
  }

  // MARK: Estimates

  /// Estimates `out` [count, columns] of the rows from `tokens` on, which are read again by `select`.
  func compute(_ tokens: UnsafePointer<Float>, stride rowStride: Int, count: Int, out: UnsafeMutablePointer<Float>) {
    guard let weights else { preconditionFailure("a tile is prepared before it is used") }
    self.tokens = tokens
    stride = rowStride
    self.count = count
    kept.removeAll(keepingCapacity: true)
    keptEnds.removeAll(keepingCapacity: true)
    bounds.removeAll(keepingCapacity: true)
    for token in 0..<count { bounds.append(quantize(token, roundingShare: weights.roundingShare)) }
    let block = kernels.screening.tokensPerBlock
    for panel in 0..<encoder.columns / kernels.screening.panelWidth {
      for first in Swift.stride(from: 0, to: count, by: block) {
        weights.estimate(
          blocks.base + first * quads, tokenScales: scales.base + first, bias: encoder.bias.base, panel: panel,
          rows: min(block, count - first), out: out + first * encoder.columns)
      }
    }
  }

  private func quantize(_ token: Int, roundingShare: Float) -> ErrorBounds {
    let line = digits.base + token * 2 * quads
    let row = Quantized(self.row(token), columns: stride, factor: 1, quads: quads, to: line)
    scales.base[token] = row.scale
    // Flipping the sign bit adds 128 and makes the bytes unsigned. Past the row they are anything: weights are 0 there.
    for quad in 0..<2 * quads { line[quad] ^= Int32(bitPattern: 0x8080_8080) }
    let block = kernels.screening.tokensPerBlock
    let (group, lane) = token.quotientAndRemainder(dividingBy: block)
    let out = blocks.base + group * block * quads + lane
    for quad in 0..<quads { out[quad &* block] = line[quad] }
    return ErrorBounds(row, roundingShare: roundingShare)
  }

  private func row(_ token: Int) -> UnsafePointer<Float> {
    guard let tokens else { preconditionFailure("estimates come first") }
    return tokens + token &* stride
  }

  // MARK: Selection

  /// See `EncoderTile.select`; `estimates` are those of the whole tile.
  func select(
    _ token: Int, k: Int, above limit: Float, estimates: UnsafePointer<Float>, keys: UnsafeMutablePointer<UInt64>
  ) -> Int {
    if keptEnds.isEmpty { findCandidates(k, above: limit, estimates) }
    let first = token == 0 ? 0 : keptEnds[token - 1]
    return kept.withUnsafeBufferPointer { kept in
      exact(token, kept.baseAddress.map { $0 + first }, keptEnds[token] - first, k, above: limit, keys)
    }
  }

  /// Candidates of all tokens of the tile.
  private func findCandidates(
    _ k: Int, above limit: Float, _ estimates: UnsafePointer<Float>
  ) {
    pairs.clear()
    var ends: [Int] = []  // of the pairs of the tokens from `first` on
    var first = 0
    for token in 0..<count {
      if !pairs.hasRoom(for: encoder.columns) {  // before the next token's candidates are in `found`
        narrow(first..<token, ends, k, above: limit, estimates)
        pairs.clear()
        ends.removeAll(keepingCapacity: true)
        first = token
      }
      var candidates = 0
      if bounds[token].isUsable {
        let norm = bounds[token].norm
        let row = estimates + token * encoder.columns
        let floor: Float
        (candidates, floor) = self.candidates(token, row, k: k, above: limit, guess: guess * norm)
        // Nearly always below the next token's floor, and not far below.
        guess = norm > 0 ? 0.94 * floor / norm : 0
      }
      pairs.add(token: token, found.base, candidates)
      ends.append(pairs.count)
      counts.candidates += candidates
    }
    narrow(first..<count, ends, k, above: limit, estimates)
    counts.tokens += count
  }

  /// Appends to `kept` the candidates of some tokens that refined estimates do not rule out.
  private func narrow(
    _ tokens: Range<Int>, _ ends: [Int], _ k: Int, above limit: Float, _ estimates: UnsafePointer<Float>
  ) {
    guard let weights else { preconditionFailure("estimates come first") }
    pairs.refine(weights, digits: digits.base, tokenScales: scales.base)
    var first = 0
    for (token, last) in zip(tokens, ends) {
      if bounds[token].isUsable {
        found.base.update(from: pairs.concepts.base + first, count: last - first)
        let left = narrowed(
          token, estimates + token * encoder.columns, pairs.refinements.base + first, last - first, k, above: limit)
        kept.append(contentsOf: UnsafeBufferPointer(start: found.base, count: left))
      } else {  // nothing is known
        counts.fallbacks += 1
        counts.candidates += encoder.concepts
        kept.append(contentsOf: 0..<Int32(truncatingIfNeeded: encoder.concepts))
      }
      keptEnds.append(kept.count)
      first = last
    }
  }

  /// Leaves in `found` every concept that could be among the k largest above the limit, and what else the bounds cannot rule
  /// out. Returns how many there are, and a lower bound of the k-th largest, or the limit.
  private func candidates(
    _ token: Int, _ estimates: UnsafePointer<Float>, k: Int, above limit: Float, guess: Float
  ) -> (count: Int, floor: Float) {
    guard let weights else { preconditionFailure("estimates come first") }
    let concepts = weights.concepts
    let factors = bounds[token].factors(roundingShare: weights.roundingShare)
    var start = max(guess, limit)
    while true {
      let count = kernels.screening.scan(
        estimates, encoder.columns, concepts.norms.base, concepts.errors.base, concepts.slacks.base, factors.ofNorm, factors.ofError,
        start, found.base, lower.base, upper.base)
      let floor = max(limit, kernels.screening.floor(lower.base, count, k))
      if floor > start || start == limit { return (keep(count, atLeast: floor), floor) }
      // The guess was too high: what it hid may count. But k bounds that were seen are a floor in any case.
      start = floor > limit ? floor.nextDown : limit
    }
  }

  private func keep(_ count: Int, atLeast floor: Float) -> Int {
    var kept = 0
    for i in 0..<count {
      found.base[kept] = found.base[i]
      kept &+= upper.base[i] < floor ? 0 : 1
    }
    return kept
  }

  /// Leaves in `found` the candidates there that refined estimates do not rule out; returns how many.
  private func narrowed(
    _ token: Int, _ estimates: UnsafePointer<Float>, _ refinements: UnsafePointer<Float>, _ count: Int, _ k: Int,
    above limit: Float
  ) -> Int {
    guard let weights else { preconditionFailure("estimates come first") }
    let bounds = bounds[token]
    for i in 0..<count {
      let concept = Int(found.base[i])
      let estimate = estimates[concept] + refinements[i]
      let bound = weights.concepts.refined(bounds, concept)
      lower.base[i] = estimate - bound
      upper.base[i] = estimate + bound
    }
    return keep(count, atLeast: max(limit, kernels.screening.floor(lower.base, count, k)))
  }

  /// The canonical pre-activations of some concepts, and of those the `wanted` largest above a limit as keys.
  private func exact(
    _ token: Int, _ concepts: UnsafePointer<Int32>?, _ count: Int, _ wanted: Int, above limit: Float,
    _ keys: UnsafeMutablePointer<UInt64>
  ) -> Int {
    guard let weight = encoder.weight else { preconditionFailure("an encoder is packed before it is used") }
    guard let concepts, count > 0 else { return 0 }
    counts.chains += count
    kernels.screening.chains(
      row(token), weight.base, weight.stride, encoder.scales.base, encoder.bias.base, concepts, count, lower.base)
    var above = 0
    for i in 0..<count {
      keys[above] = selectionKey(lower.base[i], concepts[i])
      above &+= lower.base[i] > limit ? 1 : 0
    }
    return kernels.keepLargest(keys, above, wanted)
  }
}
