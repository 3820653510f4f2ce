/// All pre-activations of a tile's tokens, which only the published AuxK and `preactivations` ask for.
struct DenseTile {
  /// The rows of its tokens in their matrix.
  let rows: Range<Int>
  /// The thread that computed it.
  let worker: Int
  fileprivate let columns: Int
  fileprivate let values: UnsafeMutablePointer<Float>

  /// The pre-activations of a row of the matrix, [columns]; columns past the last concept hold 0.
  @inline(__always) subscript(row: Int) -> UnsafeMutablePointer<Float> { values + (row &- rows.lowerBound) &* columns }

  /// One thread's memory.
  final class Scratch: @unchecked Sendable {
    fileprivate let packed, values: FloatBuffer

    /// - Parameter depth: the width of the widest token.
    init(columns: Int, depth: Int) throws(USAEError) {
      let capacity = TileSize.denseCapacity(columns: columns)
      packed = try FloatBuffer(capacity * depth)
      values = try FloatBuffer(capacity * columns)
    }
  }
}

extension PackedEncoder {
  /// Calls `consume` with every tile of some rows of `tokens`, from any thread.
  func forEachDenseTile(
    of tokens: PaddedMatrix, _ rows: Range<Int>, scratch: [DenseTile.Scratch], work: InterruptibleWork,
    _ consume: (DenseTile) -> Void
  ) throws(USAEError) {
    let panels = try panels(work: work)
    let capacity = TileSize.denseCapacity(columns: columns)
    let size = TileSize.tokens(rows.count, threads: scratch.count, capacity: capacity)
    try work.runBlocks(rows.count, of: size) { _, range, worker in
      let own = rows.lowerBound + range.lowerBound..<rows.lowerBound + range.upperBound
      let (packed, values) = (scratch[worker].packed, scratch[worker].values)
      panels.product(TokenRows(tokens, own), packed: packed, out: values.base)
      consume(DenseTile(rows: own, worker: worker, columns: self.columns, values: values.base))
    }
  }
}
