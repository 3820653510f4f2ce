/// One model's part of a pass over many rows: the standardised rows of a chunk, and their codes.
///
/// Memory depends on the size of a chunk, not on the number of rows.
final class CodeStream: @unchecked Sendable {
  let model: ModelParameters
  let tokens: PaddedMatrix
  let codes: CodeBuffer
  private let encoder: PackedEncoder
  private let tileScratch: [TileScratch]
  private let rowScratch: [FloatBuffer]
  private let k: Int
  private let work: InterruptibleWork

  init(_ model: ModelParameters, encoder: PackedEncoder, k: Int, chunkRows: Int, work: InterruptibleWork) throws(USAEError) {
    self.model = model
    self.encoder = encoder
    self.k = k
    self.work = work
    tokens = try PaddedMatrix(rows: chunkRows, columns: model.width)
    codes = try CodeBuffer(rows: chunkRows, slots: k)
    tileScratch = encoder.makeScratch(work.threads)
    rowScratch = try makeScratch(work.threads, model.width)
  }

  /// Puts the rows `range` of the activations, and their codes, into the first rows of `tokens` and `codes`.
  func encode(_ activations: Activations, _ range: Range<Int>) throws(USAEError) {
    try Ingestion(model: model, activations: activations, lengths: .comparable)
      .copy(range, of: .all, to: tokens, scratch: rowScratch, work: work)
    try encoder.encode(tokens, count: range.count, k: k, scratch: tileScratch, to: codes, work: work)
  }

  /// Rows of a chunk, a multiple of `unit`: from about 2048 up, so many that all threads encode the same number of tiles, but
  /// at most 8192, and no more than there are rows, but always a unit.
  static func chunkRows(columns: Int, rows: Int, unit: Int, work: InterruptibleWork) -> Int {
    let round = TileSize.capacity(columns: columns) * work.threads
    let wanted = min(8192, (2048 + round - 1) / round * round) / unit * unit
    return min(max(unit, wanted), max(unit, (rows + unit - 1) / unit * unit))
  }
}
