/// One model's encoder as the product kernel reads it: panels [n_concepts / width][depth][width], and the bias.
///
/// Whatever stands between the product and ReLU (bias, BatchNorm) is folded in, so a pre-activation is one chain of
/// multiply-adds over the standardised token, started from the bias.
final class PackedEncoder: @unchecked Sendable {
  let concepts: Int
  /// Number of columns of a row of pre-activations: concepts, rounded up to whole panels. The columns past the end are 0.
  let columns: Int
  let depth: Int
  private let panels: FloatBuffer
  private let bias: FloatBuffer
  private let scales: FloatBuffer

  init(concepts: Int, depth: Int) throws(USAEError) {
    self.concepts = concepts
    self.depth = depth
    let width = kernels.panelWidth
    columns = paddedWidth((concepts + width - 1) / width * width)
    panels = try FloatBuffer(columns * depth)
    bias = try FloatBuffer(columns)
    scales = try FloatBuffer(columns)
  }

  /// Packs `weight`, each row times its scale, and the bias.
  func pack(_ weight: PaddedMatrix, affine: (_ concept: Int) -> (scale: Float, bias: Float), work: Work) {
    let width = kernels.panelWidth
    for c in 0..<concepts { (scales.base[c], bias.base[c]) = affine(c) }
    work.runToEnd(columns / width) { panel, _ in
      let first = panel * width
      kernels.packPanel(
        weight.row(min(first, self.concepts - 1)), weight.stride, max(0, min(width, self.concepts - first)), self.depth,
        self.scales.base + first, self.panels.base + first * self.depth)
    }
  }

  /// Codes of the first `count` rows of `tokens`.
  func encode(_ tokens: PaddedMatrix, count: Int, k: Int, to codes: CodeBuffer, work: Work) throws(USAEError) {
    try encode(tokens, count: count, k: k, tiles: try makeTiles(work.threads), to: codes, work: work)
  }

  /// The same with tiles, one for each thread, that the caller keeps.
  func encode(_ tokens: PaddedMatrix, count: Int, k: Int, tiles: [EncoderTile], to codes: CodeBuffer, work: Work)
    throws(USAEError)
  {
    try forEachToken(of: tokens, 0..<count, tiles: tiles, work: work) { row, tile, token in
      codes.store(tile.keys.base, count: tile.select(token, k: k), row: row)
    }
  }

  /// One tile for each thread.
  func makeTiles(_ threads: Int) throws(USAEError) -> [EncoderTile] {
    var tiles: [EncoderTile] = []
    for _ in 0..<threads { tiles.append(try EncoderTile(self)) }
    return tiles
  }

  /// Computes pre-activations tile by tile and calls `consume(row, tile, token in tile)` for each row, from any thread.
  func forEachToken(
    of tokens: PaddedMatrix, _ rows: Range<Int>, tiles: [EncoderTile], work: Work,
    _ consume: (_ row: Int, _ tile: EncoderTile, _ token: Int) -> Void
  ) throws(USAEError) {
    try work.runBlocks(rows.count, of: tiles[0].capacity) { _, range, worker in
      let tile = tiles[worker]
      let first = rows.lowerBound + range.lowerBound
      tile.compute(tokens.row(first), stride: tokens.stride, count: range.count)
      for token in 0..<range.count { consume(first + token, tile, token) }
    }
  }

  /// Pre-activations of the packed tokens of a tile, `out` [count, columns].
  fileprivate func product(_ tokens: UnsafePointer<Float>, count: Int, out: UnsafeMutablePointer<Float>) {
    let width = kernels.panelWidth
    let block = kernels.tokensPerBlock
    for first in stride(from: 0, to: columns, by: width) {
      for token in stride(from: 0, to: count, by: block) {
        kernels.product(
          depth, tokens + token * depth, panels.base + first * depth, bias.base + first, min(block, count - token),
          out + token * columns + first, columns)
      }
    }
  }
}

/// One thread's room for a tile: a few tokens with all their pre-activations, small enough to stay in the cache.
final class EncoderTile: @unchecked Sendable {
  let encoder: PackedEncoder
  /// Tokens in a tile.
  let capacity: Int
  let preactivations: FloatBuffer
  let keys: AlignedBuffer<UInt64>
  private let packed: FloatBuffer
  /// Selection starts from a guess; the result does not depend on it.
  private var threshold: Float = 0

  init(_ encoder: PackedEncoder) throws(USAEError) {
    self.encoder = encoder
    capacity = Self.capacity(encoder)
    preactivations = try FloatBuffer(capacity * encoder.columns)
    keys = try AlignedBuffer<UInt64>(encoder.columns + 16)
    packed = try FloatBuffer(capacity * encoder.depth)
  }

  /// Up to eight blocks of tokens for each panel read, as long as the pre-activations stay within 4 MB.
  static func capacity(_ encoder: PackedEncoder) -> Int {
    let block = kernels.tokensPerBlock
    return block * max(1, min(8, (4 << 20) / (4 * encoder.columns * block)))
  }

  /// Computes the pre-activations of `count` rows from `tokens` on.
  func compute(_ tokens: UnsafePointer<Float>, stride rowStride: Int, count: Int) {
    let block = kernels.tokensPerBlock
    for first in stride(from: 0, to: count, by: block) {
      kernels.packTokens(
        tokens + first * rowStride, rowStride, min(block, count - first), encoder.depth, packed.base + first * encoder.depth)
    }
    encoder.product(packed.base, count: count, out: preactivations.base)
  }

  func row(_ token: Int) -> UnsafeMutablePointer<Float> { preactivations.base + token &* encoder.columns }

  /// The k largest positive pre-activations of a row, as keys in descending order at the front of `keys`.
  func select(_ token: Int, k: Int) -> Int {
    let row = row(token)
    var count = kernels.scan(row, encoder.columns, threshold, keys.base)
    if count < k && threshold > 0 { count = kernels.scan(row, encoder.columns, 0, keys.base) }
    kernels.partition(keys.base, count, k)
    let kept = min(count, k)
    kernels.sortDescending(keys.base, kept)
    // Nine tenths of this token's smallest: nearly always below the next token's, and far above most candidates.
    threshold = kept == k ? 0.9 * value(ofKey: keys.base[k &- 1]) : 0
    return kept
  }
}

/// A selection key's value and column; `USAEKernels/Selection.swift` makes them.
@inline(__always) func value(ofKey key: UInt64) -> Float { Float(bitPattern: UInt32(truncatingIfNeeded: key >> 32)) }
@inline(__always) func column(ofKey key: UInt64) -> Int32 { Int32(bitPattern: ~UInt32(truncatingIfNeeded: key)) }
