/// One model's encoder as it is used: whatever stands between the product and ReLU (bias, BatchNorm) is folded in, so a
/// pre-activation is one chain of multiply-adds over the standardised token, started from the bias.
///
/// Where the processor multiplies bytes fast, codes are found by screening (`ScreenedTile`), with the same bits as by the
/// product (`PackedPanels`), and the product serves those who want all pre-activations.
final class PackedEncoder: @unchecked Sendable {
  let concepts: Int
  /// Number of columns of a row of pre-activations: concepts, rounded up to whole panels. The columns past the end are 0.
  let columns: Int
  let depth: Int
  let bias: FloatBuffer
  let scales: FloatBuffer
  /// Nil: codes have the k entries that are asked for, as in training.
  let limit: CodeLimit?
  private(set) var weight: PaddedMatrix?
  private var screened: ScreenedWeights?
  /// What calls that share the encoder may change.
  private let shared: Guarded<Shared>

  private struct Shared {
    var policy: ScreeningPolicy
    var panels: PackedPanels?
  }

  /// - Parameter screening: nil screens where that saves time.
  init(concepts: Int, depth: Int, limit: CodeLimit? = nil, screening: Bool? = nil) throws(USAEError) {
    self.concepts = concepts
    self.depth = depth
    self.limit = limit
    let width = kernels.largestPanel
    columns = paddedWidth((concepts + width - 1) / width * width)
    bias = try FloatBuffer(columns)
    scales = try FloatBuffer(columns)
    let policy = ScreeningPolicy(concepts: concepts, depth: depth, wanted: screening)
    shared = Guarded(Shared(policy: policy))
  }

  /// Takes the encoder of a model. Reads `weight` until the next call.
  func pack(_ weight: PaddedMatrix, affine: (_ concept: Int) -> (scale: Float, bias: Float), work: Work) throws(USAEError) {
    for c in 0..<concepts { (scales.base[c], bias.base[c]) = affine(c) }
    self.weight = weight
    let screens = shared.withLock { shared in
      shared.panels?.isCurrent = false
      shared.policy.nextEncoder()
      return shared.policy.screens
    }
    guard screens else { return }
    if screened == nil { screened = try ScreenedWeights(columns: columns, depth: depth) }
    try screened?.pack(weight, factors: scales, bias: bias, work: work)
  }

  /// Makes a list of concepts ready to be selected among by some tiles, after their selection among all.
  func prepare(_ subset: ConceptSubset, tiles: [EncoderTile], work: Work) throws(USAEError) {
    guard let weight else { preconditionFailure("an encoder is packed before it is used") }
    try subset.pack(weight, scales: scales, bias: bias, work: work)
    for tile in tiles { try tile.prepare(subset) }
  }

  /// What screening had to do since the encoder was made.
  var screeningCounts: ScreeningCounts { shared.withLock { $0.policy.counts } }

  /// Weights for screening, or nil where the product is to be used.
  private var screening: ScreenedWeights? {
    guard let screened, screened.isUsable, shared.withLock({ $0.policy.screens }) else { return nil }
    return screened
  }

  private func currentPanels(work: Work) throws(USAEError) -> PackedPanels {
    guard let weight else { preconditionFailure("an encoder is packed before it is used") }
    // Current ones are shared; stale ones are taken by one caller, who packs them outside the lock: a process that is forked
    // meanwhile finds it free.
    let found = shared.withLock { shared in
      let panels = shared.panels
      if panels?.isCurrent == false { shared.panels = nil }
      return panels
    }
    if let found, found.isCurrent { return found }
    let panels: PackedPanels
    if let found { panels = found } else { panels = try PackedPanels(columns: columns, depth: depth) }
    panels.pack(weight, scales: scales, work: work)
    shared.withLock { $0.panels = panels }
    return panels
  }

  /// Codes of the first `count` rows of `tokens`, of at most `k` entries.
  func encode(_ tokens: PaddedMatrix, count: Int, k: Int, to codes: CodeBuffer, work: Work) throws(USAEError) {
    try encode(tokens, count: count, k: k, tiles: try makeTiles(work.threads), to: codes, work: work)
  }

  /// The same with tiles, one for each thread, that the caller keeps.
  func encode(_ tokens: PaddedMatrix, count: Int, k: Int, tiles: [EncoderTile], to codes: CodeBuffer, work: Work)
    throws(USAEError)
  {
    try forEachToken(of: tokens, 0..<count, tiles: tiles, work: work) { row, tile, token in
      codes.store(tile.keys.base, count: self.select(tile, token, k: k), row: row)
    }
  }

  /// One tile for each thread.
  func makeTiles(_ threads: Int) throws(USAEError) -> [EncoderTile] {
    var tiles: [EncoderTile] = []
    for _ in 0..<threads { tiles.append(try EncoderTile(self)) }
    return tiles
  }

  /// Calls `consume(row, tile, token in tile)` for each row, from any thread, when the tile can select the row's code.
  ///
  /// - Parameter dense: the tile must hold all pre-activations of the row (`EncoderTile.preactivations`).
  func forEachToken(
    of tokens: PaddedMatrix, _ rows: Range<Int>, dense: Bool = false, tiles: [EncoderTile], work: Work,
    _ consume: (_ row: Int, _ tile: EncoderTile, _ token: Int) -> Void
  ) throws(USAEError) {
    let way: EncoderTile.Way
    if !dense, let screening {
      way = .screening(screening)
    } else {
      let panels = try currentPanels(work: work)
      way = dense ? .dense(panels) : .product(panels)
    }
    for tile in tiles { try tile.prepare(way) }
    try work.runBlocks(rows.count, of: tileSize(rows.count, tiles.count, dense: dense)) { _, range, worker in
      let tile = tiles[worker]
      let first = rows.lowerBound + range.lowerBound
      tile.take(tokens.row(first), stride: tokens.stride, count: range.count)
      for token in 0..<range.count { consume(first + token, tile, token) }
    }
    shared.withLock { shared in
      for tile in tiles { shared.policy.add(tile.takeCounts()) }
    }
  }

  /// Tokens of a tile, at most its capacity, so that every thread gets as many.
  private func tileSize(_ count: Int, _ threads: Int, dense: Bool) -> Int {
    let capacity = EncoderTile.capacity(self, dense: dense)
    let rounds = max(1, (count + capacity * threads - 1) / (capacity * threads))
    let block = kernels.product.tokensPerBlock
    return min(capacity, max(1, (count + rounds * threads * block - 1) / (rounds * threads * block)) * block)
  }
}
