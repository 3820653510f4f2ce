/// Sums of squared residuals over tokens, by pair of models and dimension, in standardised units.
///
/// Squares are summed in float32 over blocks of `blockRows` tokens, and the blocks in double and in order: so the sums depend
/// neither on the number of threads nor on the size of the chunks that the tokens come in.
final class ResidualSquares: @unchecked Sendable {
  /// Tokens whose squares are summed in float32. Chunks but the last are a multiple of it.
  static let blockRows = 64
  /// Dimensions of one piece of work in the sum over blocks.
  private static let blockColumns = 128

  private let streams: [CodeStream]
  private let work: InterruptibleWork
  private let scratch, reconstructions: [FloatBuffer]
  /// Sums of a chunk for one decoded model, [block][encoded][dimension].
  private let partial: FloatBuffer
  /// Sums by decoded model, [encoded][dimension], with rows padded as the model's.
  private let sums: [AlignedBuffer<Double>]

  init(_ streams: [CodeStream], chunkRows: Int, work: InterruptibleWork) throws(USAEError) {
    self.streams = streams
    self.work = work
    let widest = streams.map(\.tokens.stride).max() ?? 0
    scratch = try makeScratch(work.threads, streams[0].codes.slots)
    reconstructions = try makeScratch(work.threads, widest)
    partial = try FloatBuffer((chunkRows + Self.blockRows - 1) / Self.blockRows * streams.count * widest)
    var sums: [AlignedBuffer<Double>] = []
    for stream in streams { sums.append(try AlignedBuffer<Double>(streams.count * stream.tokens.stride)) }
    self.sums = sums
  }

  /// Adds the first `count` tokens of the streams.
  ///
  /// The outer loop is over decoded models and the inner one over encoded models, token by token: so one dictionary at a time
  /// is read, and the row of a concept that several models fire for a token is in the cache.
  func add(count: Int) throws(USAEError) {
    for target in streams.indices {
      try work.runBlocks(count, of: Self.blockRows) { block, range, worker in
        self.decode(range, target: target, block: block, worker: worker)
      }
      try addBlocks((count + Self.blockRows - 1) / Self.blockRows, target: target)
    }
  }

  private func decode(_ range: Range<Int>, target: Int, block: Int, worker: Int) {
    let (dictionary, tokens) = (streams[target].model.scaledRows, streams[target].tokens)
    let stride = tokens.stride
    let first = partial.base + block * streams.count * stride
    first.update(repeating: 0, count: streams.count * stride)
    let residual = reconstructions[worker].base
    for t in range {
      for source in streams.indices {
        dictionary.decode(streams[source].codes, token: t, scratch: scratch[worker].base, to: residual)
        kernels.rows.subtractFrom(tokens.row(t), stride, residual)
        let squares = first + source &* stride
        for c in 0..<stride { squares[c] += residual[c] * residual[c] }
      }
    }
  }

  private func addBlocks(_ blocks: Int, target: Int) throws(USAEError) {
    let row = streams.count * streams[target].tokens.stride
    try work.runBlocks(row, of: Self.blockColumns) { _, range, _ in
      let sums = self.sums[target].base
      for block in 0..<blocks {
        let part = self.partial.base + block &* row
        for c in range { sums[c] += Double(part[c]) }
      }
    }
  }

  /// Sums by dimension.
  func sums(encoded: Int, decoded: Int) -> [Double] {
    let stream = streams[decoded]
    return Array(UnsafeBufferPointer(start: sums[decoded].base + encoded * stream.tokens.stride, count: stream.model.width))
  }
}
