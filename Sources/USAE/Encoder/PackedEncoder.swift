/// One model's encoder, packed for use. Bias and BatchNorm are folded into the weights, so a pre-activation is the exact dot
/// product (`ProductKernels.Block`) of a standardised token and a scaled row of weights.
///
/// Codes are selected by screening (`ScreenedSelection`) where the processor multiplies bytes fast, else by the product
/// (`ProductSelection`). Both give the same bits. All pre-activations of a token come from the product (`DenseTile`).
final class PackedEncoder: @unchecked Sendable {
  let concepts: Int
  /// Concepts, rounded up to whole panels. Pre-activations of the columns past the last concept are 0.
  let columns: Int
  let depth: Int
  let weight: PaddedMatrix
  let scales, bias: FloatBuffer
  private let limit: CodeLimit
  /// Nil where codes are selected by the product.
  private let screened: ScreenedWeights?
  /// What calls that share the encoder may change.
  private let shared: LockProtected<Shared>

  private struct Shared {
    var policy: ScreeningPolicy
    /// Packed by the first call that needs the product.
    var panels: PackedPanels?
    /// Those of another encoder, whose memory the first such call takes.
    var oldPanels: PackedPanels?
  }

  /// - Parameters:
  ///   - weight: [n_concepts, width], which is read as long as the encoder is used.
  ///   - affine: scale and bias of a concept, pre-activation = scale * (weight . token) + bias.
  ///   - limit: bounds codes in addition to what each call asks for.
  ///   - screening: nil screens where that saves time.
  ///   - previous: an encoder of the same shape that is no longer used. Its memory is reused, and what it learned about
  ///     screening is kept.
  init(
    _ weight: PaddedMatrix, affine: (_ concept: Int) -> (scale: Float, bias: Float), limit: CodeLimit = .none,
    screening: Bool? = nil, reusing previous: PackedEncoder? = nil, work: InterruptibleWork
  ) throws(USAEError) {
    concepts = weight.rows
    depth = weight.columns
    self.weight = weight
    self.limit = limit
    columns = Self.columns(concepts: concepts)
    if let previous {
      precondition(previous.concepts == concepts && previous.depth == depth, "an encoder of another shape")
      (scales, bias) = (previous.scales, previous.bias)
    } else {
      scales = try FloatBuffer(columns)
      bias = try FloatBuffer(columns)
    }
    for c in 0..<concepts { (scales.base[c], bias.base[c]) = affine(c) }
    let old = previous?.shared.withLock { $0 }
    var policy = old?.policy ?? ScreeningPolicy(concepts: concepts, depth: depth, wanted: screening)
    policy.startEncoder()
    screened =
      policy.screens
      ? try ScreenedWeights(
        weight, columns: columns, scales: scales, bias: bias, reusing: previous?.screened, work: work) : nil
    shared = LockProtected(Shared(policy: policy, oldPanels: old?.panels ?? old?.oldPanels))
  }

  /// `concepts`, rounded up to whole panels.
  static func columns(concepts: Int) -> Int {
    let width = kernels.largestPanel
    return paddedWidth((concepts + width - 1) / width * width)
  }

  /// What screening did with this encoder.
  var screeningCounts: ScreeningCounts { shared.withLock { $0.policy.counts } }

  /// The encoder as the product reads it.
  func panels(work: InterruptibleWork) throws(USAEError) -> PackedPanels {
    let (current, old) = shared.withLock { ($0.panels, $0.oldPanels.take()) }
    if let current { return current }
    // Packed outside the lock, so that a process that is forked meanwhile finds it free. Where two threads pack, either result
    // will do.
    let packed = try PackedPanels(weight, columns: columns, scales: scales, bias: bias, reusing: old, work: work)
    shared.withLock { $0.panels = packed }
    return packed
  }

  /// Memory for each thread that selects codes.
  func makeScratch(_ threads: Int) -> [TileScratch] {
    (0..<threads).map { _ in TileScratch(columns: columns, depth: depth) }
  }

  private func selectors(_ scratch: [TileScratch], work: InterruptibleWork) throws(USAEError) -> [TopKSelector] {
    if let screened, screened.isUsable, shared.withLock({ $0.policy.screens }) {
      return try scratch.map { one throws(USAEError) in .screening(screened, try one.forScreening()) }
    }
    let panels = try panels(work: work)
    return try scratch.map { one throws(USAEError) in .product(panels, try one.forProduct()) }
  }

  /// Selects the codes of some rows of `tokens`, at most `k` entries above `threshold` and within the encoder's limit, and
  /// calls `consume` with every tile, from any thread.
  ///
  /// - Parameter scratch: for each thread.
  func forEachTile(
    of tokens: PaddedMatrix, _ rows: Range<Int>, k: Int, above threshold: Float = 0, scratch: [TileScratch],
    work: InterruptibleWork, _ consume: (EncodedTile) -> Void
  ) throws(USAEError) {
    let selectors = try selectors(scratch, work: work)
    let (k, threshold) = (min(k, limit.most), max(threshold, limit.threshold))
    let size = TileSize.tokens(rows.count, threads: scratch.count, capacity: TileSize.capacity(columns: columns))
    let counts = LockProtected(ScreeningCounts())
    try work.runBlocks(rows.count, of: size) { _, range, worker in
      let own = rows.lowerBound + range.lowerBound..<rows.lowerBound + range.upperBound
      let rows = TokenRows(tokens, own)
      let keys = select(selectors[worker], rows, k: k, above: threshold)
      counts.withLock { $0 += keys.counts }
      consume(EncodedTile(rows: own, tokens: rows, keys: keys, worker: worker))
    }
    let all = counts.withLock { $0 }
    shared.withLock { $0.policy.add(all) }
  }

  /// With thresholds of concepts, everything above the lowest one is selected first: a selection has one threshold, and its
  /// k-th largest entry may be one that its concept's threshold rules out.
  private func select(_ selector: TopKSelector, _ rows: TokenRows, k: Int, above threshold: Float) -> SelectedKeys {
    guard let own = limit.ofConcepts else { return selector.select(rows, k: k, above: threshold) }
    return selector.select(rows, k: concepts, above: threshold).kept(k, above: own, tokens: rows.count)
  }

  /// Codes of the first `count` rows of `tokens`, of at most `k` entries.
  func encode(
    _ tokens: PaddedMatrix, count: Int, k: Int, scratch: [TileScratch], to codes: CodeBuffer, work: InterruptibleWork
  ) throws(USAEError) {
    try forEachTile(of: tokens, 0..<count, k: k, scratch: scratch, work: work) { tile in
      for row in tile.rows { codes.store(tile[row], row: row) }
    }
  }
}
