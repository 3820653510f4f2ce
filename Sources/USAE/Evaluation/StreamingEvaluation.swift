/// An evaluation in one pass over the rows, chunk by chunk.
final class StreamingEvaluation {
  private let streams: [CodeStream]
  private let chunkRows: Int
  private let work: InterruptibleWork
  private let moments: [ColumnMoments]
  private let residuals: ResidualSquares
  private let concepts: ConceptStatistics
  private var tokens = 0

  /// - Parameter rows: how many rows there will be in all.
  init(
    models: [ModelParameters], encoders: [PackedEncoder], k: Int, threshold: Float, rows: Int, work: InterruptibleWork
  ) throws(USAEError) {
    self.work = work
    chunkRows = CodeStream.chunkRows(columns: encoders[0].columns, rows: rows, unit: ResidualSquares.blockRows, work: work)
    var streams: [CodeStream] = []
    var moments: [ColumnMoments] = []
    for (model, encoder) in zip(models, encoders) {
      streams.append(try CodeStream(model, encoder: encoder, k: k, chunkRows: chunkRows, work: work))
      moments.append(try ColumnMoments(columns: model.width))
    }
    self.streams = streams
    self.moments = moments
    residuals = try ResidualSquares(streams, chunkRows: chunkRows, work: work)
    concepts = try ConceptStatistics(
      models: models.count, concepts: models[0].concepts, slots: k, threshold: threshold, work: work)
  }

  /// Adds all rows of the activations.
  func run(_ activations: [Activations]) throws(USAEError) {
    let rows = activations[0].rows
    for first in stride(from: 0, to: rows, by: chunkRows) {
      try add(activations, first..<min(rows, first + chunkRows))
      work.progress?(tokens)
    }
    for (i, source) in streams.enumerated() {
      for (j, target) in streams.enumerated() where !residuals.sums(encoded: i, decoded: j).allSatisfy(\.isFinite) {
        throw .invalidArgument(
          name: "activations of '\(source.model.name)'",
          expected: "reconstructions of '\(target.model.name)' that float32 can hold", got: "larger ones",
          remedy: "look for outliers in the activations and for huge parameters")
      }
    }
  }

  private func add(_ activations: [Activations], _ range: Range<Int>) throws(USAEError) {
    for (i, stream) in streams.enumerated() {
      try stream.encode(activations[i], range)
      try moments[i].add(stream.tokens, count: range.count, work: work)
    }
    try residuals.add(count: range.count)
    try concepts.add(streams.map(\.codes), count: range.count)
    tokens += range.count
  }

  /// The share of a variation that is explained. NaN where nothing varies: there is nothing to explain.
  private func share(_ residual: Double, of variation: Double) -> Double { variation > 0 ? 1 - residual / variation : .nan }

  func result() -> Evaluation {
    let scores = streams.indices.map { i in streams.indices.map { j in self.scores(encoded: i, decoded: j) } }
    let n = Double(tokens)
    let cofires = concepts.cofireCounts
    return Evaluation(
      tokens: tokens, r2: scores.map { $0.map(\.r2) }, r2Standardized: scores.map { $0.map(\.standardized) },
      r2ScalarMean: scores.map { $0.map(\.scalarMean) }, meanSquaredError: scores.map { $0.map(\.meanSquaredError) },
      l0: concepts.active.map { Double($0) / n }, firingCounts: streams.indices.map { cofires[$0][$0] },
      pairCofireCounts: cofires, cofireCounts: concepts.allFireCounts, unionCounts: concepts.anyFireCounts,
      meanActivation: concepts.sumsOfCodes.map { $0.map { $0 / n } }, maxActivation: concepts.largestCodes,
      codeProducts: concepts.codeProducts)
  }

  private func scores(encoded: Int, decoded: Int)
    -> (r2: Double, standardized: Double, scalarMean: Double, meanSquaredError: Double)
  {
    let model = streams[decoded].model
    let squares = residuals.sums(encoded: encoded, decoded: decoded)
    let variations = moments[decoded].variations
    var residual = 0.0
    var total = 0.0
    for c in 0..<model.width {
      let unit = Double(model.scale.base[c]) * Double(model.scale.base[c])
      residual += unit * squares[c]
      total += unit * variations[c]
    }
    let plain = squares.reduce(0, +)
    return (
      share(residual, of: total), share(plain, of: variations.reduce(0, +)),
      share(plain, of: moments[decoded].variationAboutOneMean), residual / (Double(tokens) * Double(model.width))
    )
  }
}
