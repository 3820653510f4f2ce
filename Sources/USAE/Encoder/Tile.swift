/// Tokens that are encoded together: `count` rows of standardised activations, `stride` floats apart.
struct TokenRows {
  let base: UnsafePointer<Float>
  let stride, count: Int

  init(_ matrix: PaddedMatrix, _ rows: Range<Int>) {
    base = UnsafePointer(matrix.row(rows.lowerBound))
    stride = matrix.stride
    count = rows.count
  }

  @inline(__always) func row(_ token: Int) -> UnsafePointer<Float> { base + token &* stride }
}

/// A tile whose codes are selected.
struct EncodedTile {
  /// The rows of its tokens in their matrix.
  let rows: Range<Int>
  let tokens: TokenRows
  /// The keys of each token, counted from 0.
  let keys: SelectedKeys
  /// The thread that selected them.
  let worker: Int

  /// The keys of a row of the matrix.
  @inline(__always) subscript(row: Int) -> UnsafeBufferPointer<UInt64> { keys[row &- rows.lowerBound] }
}

/// How many tokens are encoded together. A token's code does not depend on it.
enum TileSize {
  /// Largest number of tokens in a tile: sixteen blocks, so that each panel of weights is read once for all of them. With many
  /// concepts it is fewer, so that one float for each token and concept takes at most 24 MB (needed if all concepts are dead;
  /// lists that hold nearly all concepts take about eight times that).
  ///
  /// With 8 megabytes, encoding with 65,536 concepts took 1.24 times as long: their weights come from memory, for fewer tokens
  /// at a time.
  static func capacity(columns: Int) -> Int { capacity(columns, blocks: 16, bytes: 24 << 20) }

  /// The same of dense tiles.
  static func denseCapacity(columns: Int) -> Int { capacity(columns, blocks: 8, bytes: 4 << 20) }

  private static func capacity(_ columns: Int, blocks: Int, bytes: Int) -> Int {
    let block = kernels.product.tokensPerBlock
    return block * max(1, min(blocks, bytes / (4 * columns * block)))
  }

  /// Tokens of each tile of `count`, at most `capacity`, such that every thread gets as many tiles.
  static func tokens(_ count: Int, threads: Int, capacity: Int) -> Int {
    let rounds = max(1, (count + capacity * threads - 1) / (capacity * threads))
    let block = kernels.product.tokensPerBlock
    return min(capacity, max(1, (count + rounds * threads * block - 1) / (rounds * threads * block)) * block)
  }
}
