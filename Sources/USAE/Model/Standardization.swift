/// Mean and scale of a model's activations from a sample of rows, in two passes in double.
struct Standardization {
  let recipe: Recipe
  let seed: UInt64

  private static let blockRows = 256

  /// Sets `mean` and `scale` of `model`.
  func fit(_ model: ModelParameters, to activations: Activations, work: InterruptibleWork) throws(USAEError) {
    let rows = sampledRows(of: activations.rows)
    let width = model.width
    let means = try columnMeans(activations, rows, model, shift: [Double](repeating: 0, count: width), square: false, work)
    let center = recipe.center == .dimension ? means : [Double](repeating: means.average, count: width)
    let variances = try columnMeans(activations, rows, model, shift: center, square: true, work)
    let scales =
      recipe.scale == .dimension
      ? variances.map { $0.squareRoot() } : [Double](repeating: variances.average.squareRoot(), count: width)
    for c in 0..<width { model.mean.base[c] = Float(center[c]) }
    // A constant dimension has deviation 0; dividing by epsilon alone would blow its rounding errors up.
    model.setScale { scales[$0] > 0 ? Float(scales[$0] + recipe.scaleEpsilon) : 1 }
  }

  /// All rows, or as many as the recipe draws, each once.
  private func sampledRows(of total: Int) -> [Int] {
    let wanted = recipe.statisticsTokens
    guard wanted > 0, wanted < total else { return Array(0..<total) }
    let order = RowOrder(seed: seed, rows: total, stream: .statisticsRows)
    return (0..<wanted).map { order.row(at: $0) }.sorted()
  }

  /// Mean over rows of (a - shift), or of its square, for each column.
  private func columnMeans(
    _ activations: Activations, _ rows: [Int], _ model: ModelParameters, shift: [Double], square: Bool,
    _ work: InterruptibleWork
  ) throws(USAEError) -> [Double] {
    let width = model.width
    let blocks = (rows.count + Self.blockRows - 1) / Self.blockRows
    let partial = try AlignedBuffer<Double>(blocks * width)
    let scratch = try makeScratch(work.threads, 2 * paddedWidth(width))
    let zeros = try PaddedMatrix(rows: 1, columns: width)
    let ones = try PaddedMatrix(rows: 1, columns: width)
    ones.storage.fill(1)
    let bad = try AlignedBuffer<Int64>(blocks)
    try work.runBlocks(rows.count, of: Self.blockRows) { block, range, worker in
      let sums = partial.base + block * width
      let row = scratch[worker].base
      bad.base[block] = -1
      for r in range {
        if !activations.standardize(
          row: rows[r], mean: zeros.base, inverseScale: ones.base, scratch: row + paddedWidth(width), out: row),
          bad.base[block] < 0
        {
          bad.base[block] = Int64(rows[r])
        }
        for c in 0..<width {
          let centred = Double(row[c]) - shift[c]
          sums[c] += square ? centred * centred : centred
        }
      }
    }
    for block in 0..<blocks where bad.base[block] >= 0 {
      let row = Int(bad.base[block])
      throw .notFinite(
        model: activations.name, row: activations.number(ofRow: row), column: activations.firstNotFinite(row: row) ?? 0)
    }
    var means = [Double](repeating: 0, count: width)
    for block in 0..<blocks {
      for c in 0..<width { means[c] += partial.base[block * width + c] }
    }
    return means.map { $0 / Double(rows.count) }
  }
}

extension [Double] {
  fileprivate var average: Double { reduce(0, +) / Double(Swift.max(count, 1)) }
}
