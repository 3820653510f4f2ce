/// Selection by screening: estimates of all pre-activations from bytes, bounds on their errors, and float32 only for the
/// concepts that could be among the k largest. The result has the bits of the product.
///
/// The concepts with the k largest estimates lead, and their pre-activations are computed as the product would. The k-th
/// largest of these is a floor under the k-th largest of all, so whatever has its upper bound below it is out. Of what is left,
/// refined estimates rule out nearly everything, and the rest is computed too.
final class ScreenedTile: @unchecked Sendable {
  var weights: ScreenedWeights?
  var counts = ScreeningCounts()
  private let encoder: PackedEncoder
  /// Coarse digits by block of tokens as `screen` reads them, unsigned.
  private let blocks: AlignedBuffer<Int32>
  /// Both digits of each token, unsigned, [capacity, 2, quads].
  private let digits: AlignedBuffer<Int32>
  private let scales: FloatBuffer
  private let sums: AlignedBuffer<Int32>
  private var bounds: [ErrorBounds] = []
  private var tokens: UnsafePointer<Float>?
  private var stride = 0
  private let quads: Int
  private var count = 0
  // What a scan finds: concepts, their estimates and upper bounds.
  private let found: AlignedBuffer<Int32>
  private let estimated, upper: FloatBuffer
  private let pairs: CandidatePairs
  /// Concepts that lead, one token after the other, with their pre-activations.
  private var leaders: [Int32] = []
  private var values: [Float] = []
  /// Where each token's leaders end.
  private var leaderEnds: [Int] = []
  /// No pre-activation of a token that is hidden from its scan is above its start; none of the k largest is below its floor.
  private let starts, floors: FloatBuffer
  /// What selection chooses from, one token after the other; empty before the first `select`.
  private var keys: [UInt64] = []
  private var keyEnds: [Int] = []
  /// Where the next token's scan starts, as a share of its norm: a little below the last token's k-th largest estimate.
  private var guess: Float = 0
  /// Of a k-th largest estimate; a scan from there finds nearly always what it has to, and not much more.
  private static let share: Float = 0.94

  init(_ encoder: PackedEncoder, capacity: Int) throws(USAEError) {
    self.encoder = encoder
    quads = ScreenedWeights.quads(depth: encoder.depth)
    let block = kernels.screening.tokensPerBlock
    let padded = (capacity + block - 1) / block * block
    blocks = try AlignedBuffer<Int32>(padded * quads)
    digits = try AlignedBuffer<Int32>(capacity * 2 * quads)
    scales = try FloatBuffer(padded)
    sums = try AlignedBuffer<Int32>(block * kernels.screening.panelWidth)
    let room = encoder.columns + 16  // scans write whole vectors
    found = try AlignedBuffer<Int32>(room)
    estimated = try FloatBuffer(room)
    upper = try FloatBuffer(room)
    starts = try FloatBuffer(capacity)
    floors = try FloatBuffer(capacity)
    pairs = try CandidatePairs(columns: encoder.columns, tokens: capacity)
    bounds.reserveCapacity(capacity)
    leaderEnds.reserveCapacity(capacity)
    keyEnds.reserveCapacity(capacity)
  }

  // MARK: Estimates

  /// Estimates `out` [count, columns] of the rows from `tokens` on, which are read again by `select`.
  func compute(_ tokens: UnsafePointer<Float>, stride rowStride: Int, count: Int, out: UnsafeMutablePointer<Float>) {
    guard let weights else { preconditionFailure("a tile is prepared before it is used") }
    self.tokens = tokens
    stride = rowStride
    self.count = count
    keys.removeAll(keepingCapacity: true)
    keyEnds.removeAll(keepingCapacity: true)
    bounds.removeAll(keepingCapacity: true)
    for token in 0..<count { bounds.append(quantize(token, roundingShare: weights.roundingShare)) }
    weights.estimate(blocks.base, count: count, scales: scales.base, bias: encoder.bias.base, out: out, spare: sums.base)
  }

  private func quantize(_ token: Int, roundingShare: Float) -> ErrorBounds {
    let line = digits.base + token * 2 * quads
    let row = Quantized(self.row(token), columns: stride, factor: 1, quads: quads, to: line)
    scales.base[token] = row.scale
    // Flipping the sign bit adds 128 and makes the bytes unsigned. Past the row they are anything: weights are 0 there.
    for quad in 0..<2 * quads { line[quad] ^= Int32(bitPattern: 0x8080_8080) }
    let block = kernels.screening.tokensPerBlock
    let (group, lane) = token.quotientAndRemainder(dividingBy: block)
    kernels.screening.packToken(line, quads, lane, blocks.base + group * block * quads)
    return ErrorBounds(row, roundingShare: roundingShare)
  }

  private func row(_ token: Int) -> UnsafePointer<Float> {
    guard let tokens else { preconditionFailure("estimates come first") }
    return tokens + token &* stride
  }

  // MARK: Selection

  /// See `EncoderTile.select`; `estimates` are those of the whole tile.
  func select(
    _ token: Int, k: Int, above limit: Float, estimates: UnsafePointer<Float>, keys out: UnsafeMutablePointer<UInt64>
  ) -> Int {
    if keyEnds.isEmpty { selectAll(k, above: limit, estimates) }
    let first = token == 0 ? 0 : keyEnds[token - 1]
    let count = keyEnds[token] - first
    for i in 0..<count { out[i] = keys[first &+ i] }
    return kernels.keepLargest(out, count, k)
  }

  /// Finds the keys of all tokens of the tile.
  private func selectAll(_ k: Int, above limit: Float, _ estimates: UnsafePointer<Float>) {
    leaderEnds.removeAll(keepingCapacity: true)
    var first = 0
    clear()
    for token in 0..<count {
      if !pairs.hasRoom(for: encoder.columns) {
        finish(first..<token, k, above: limit, estimates)
        first = token
        clear()
      }
      lead(token, k, above: limit, estimates + token * encoder.columns)
    }
    finish(first..<count, k, above: limit, estimates)
    counts.tokens += count
  }

  private func clear() {
    pairs.clear()
    leaders.removeAll(keepingCapacity: true)
  }

  /// Divides a token's candidates into leaders and pairs.
  private func lead(_ token: Int, _ k: Int, above limit: Float, _ estimates: UnsafePointer<Float>) {
    if bounds[token].isUsable {
      let norm = bounds[token].norm
      var start = max(guess * norm, limit)
      var (found, level) = (0, Float(0))
      while true {
        found = scan(token, estimates, from: start)
        level = kernels.screening.floor(estimated.base, found, k)
        if level > start || start == limit { break }
        // The guess was too high: too few were found.
        start = level > limit ? max(limit, Self.share * level) : limit
      }
      starts.base[token] = start
      guess = norm > 0 ? Self.share * level / norm : 0
      for i in 0..<found where estimated.base[i] >= level { leaders.append(self.found.base[i]) }
      pairs.add(token: token, self.found.base, estimated.base, upper.base, count: found, below: level)
    } else {  // nothing is known
      counts.fallbacks += 1
      starts.base[token] = limit
      leaders.append(contentsOf: 0..<Int32(truncatingIfNeeded: encoder.concepts))
    }
    leaderEnds.append(leaders.count)
  }

  /// Leaves in `found`, `estimated` and `upper` the concepts whose upper bound is above `start`; returns how many there are.
  private func scan(_ token: Int, _ estimates: UnsafePointer<Float>, from start: Float) -> Int {
    guard let weights else { preconditionFailure("estimates come first") }
    let concepts = weights.concepts
    let factors = bounds[token].factors(roundingShare: weights.roundingShare)
    return kernels.screening.scan(
      estimates, encoder.columns, concepts.norms.base, concepts.errors.base, concepts.slacks.base, factors.ofNorm,
      factors.ofError, start, found.base, estimated.base, upper.base)
  }

  /// Keys of some tokens that have their leaders.
  private func finish(_ tokens: Range<Int>, _ k: Int, above limit: Float, _ estimates: UnsafePointer<Float>) {
    guard let weights else { preconditionFailure("estimates come first") }
    computeLeaders(tokens, k, above: limit)
    pairs.prune(floors: floors.base)
    counts.candidates += leaders.count + pairs.count
    pairs.refine(weights, digits: digits.base, tokenScales: scales.base, bounds: bounds)
    pairs.prune(floors: floors.base)
    var first = 0
    for token in tokens {
      let own = leaders(of: token, from: tokens.lowerBound)
      for i in own { append(values[i], leaders[i], above: limit) }
      let end = pairs.end(of: token, from: first)
      if floors.base[token] <= starts.base[token], starts.base[token] > limit {
        let count = hidden(token, estimates + token * encoder.columns, leaders[own])
        appendKeys(of: found.base, count, token, above: limit)
      } else {
        appendKeys(of: pairs.concepts.base + first, end - first, token, above: limit)
      }
      keyEnds.append(keys.count)
      first = end
    }
  }

  /// Places of a token's leaders, `first` being the first token that has some.
  private func leaders(of token: Int, from first: Int) -> Range<Int> {
    (token == first ? 0 : leaderEnds[token - 1])..<leaderEnds[token]
  }

  /// The leaders' pre-activations, and each token's floor.
  private func computeLeaders(_ tokens: Range<Int>, _ k: Int, above limit: Float) {
    let room = leaders.count + 16
    if values.count < room { values = [Float](repeating: 0, count: room) }
    values.withUnsafeMutableBufferPointer { values in
      leaders.withUnsafeBufferPointer { leaders in
        guard let values = values.baseAddress, let leaders = leaders.baseAddress else { return }
        for token in tokens {
          let own = self.leaders(of: token, from: tokens.lowerBound)
          let out = values + own.lowerBound
          compute(token, leaders + own.lowerBound, own.count, following: self.leaders.count - own.upperBound, out)
          // Writes where the next token's come then.
          floors.base[token] = max(limit, kernels.screening.floor(out, own.count, k))
        }
      }
    }
  }

  /// Leaves in `found` every concept but the leaders that may count, where the floor came out below the start of the scan:
  /// estimates were off by just that much. Returns how many there are.
  private func hidden(_ token: Int, _ estimates: UnsafePointer<Float>, _ leaders: ArraySlice<Int32>) -> Int {
    let count = scan(token, estimates, from: floors.base[token].nextDown)
    counts.candidates += count
    let known = Set(leaders)
    var left = 0
    for i in 0..<count where !known.contains(found.base[i]) {
      found.base[left] = found.base[i]
      left += 1
    }
    return left
  }

  private func appendKeys(of concepts: UnsafePointer<Int32>, _ count: Int, _ token: Int, above limit: Float) {
    guard count > 0 else { return }
    compute(token, concepts, count, following: 0, estimated.base)
    for i in 0..<count { append(estimated.base[i], concepts[i], above: limit) }
  }

  @inline(__always)
  private func append(_ value: Float, _ concept: Int32, above limit: Float) {
    if value > limit { keys.append(selectionKey(value, concept)) }
  }

  /// The canonical pre-activations of some concepts.
  private func compute(
    _ token: Int, _ concepts: UnsafePointer<Int32>, _ count: Int, following: Int, _ out: UnsafeMutablePointer<Float>
  ) {
    guard let weight = encoder.weight else { preconditionFailure("an encoder is packed before it is used") }
    counts.chains += count
    kernels.screening.chains(
      row(token), weight.base, weight.stride, encoder.scales.base, encoder.bias.base, concepts, count, following, out)
  }
}
