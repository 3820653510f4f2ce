/// One pass of an evaluation over the rows, chunk by chunk.
final class EvaluationPass: @unchecked Sendable {
  static let chunkRows = 2048
  /// Tokens whose squares are summed in float32 before they go into a double.
  private static let blockRows = 64

  private let models: [ModelParameters]
  private let encoders: [PackedEncoder]
  private let tiles: [[EncoderTile]]
  private let k: Int
  private let work: Work
  private let inputs: [PaddedMatrix]
  private let codes: [CodeBuffer]
  private let spares, reconstructions: [FloatBuffer]
  /// Sums of squared residuals of a chunk by block and dimension, for one pair of models.
  private let partial: FloatBuffer
  private var tokens = 0
  private var moments: [ColumnMoments]
  /// [encoded][decoded][dimension], standardised units.
  private var residualSquares: [[[Double]]]
  private var firings: FiringCounts

  init(models: [ModelParameters], encoders: [PackedEncoder], k: Int, threshold: Float, work: Work) throws(USAEError) {
    self.models = models
    self.encoders = encoders
    self.k = k
    self.work = work
    let widest = paddedWidth(models.map(\.width).max() ?? 1)
    var inputs: [PaddedMatrix] = []
    var codes: [CodeBuffer] = []
    var tiles: [[EncoderTile]] = []
    for (model, encoder) in zip(models, encoders) {
      inputs.append(try PaddedMatrix(rows: Self.chunkRows, columns: model.width))
      codes.append(try CodeBuffer(rows: Self.chunkRows, slots: k))
      tiles.append(try encoder.makeTiles(work.threads))
    }
    self.inputs = inputs
    self.codes = codes
    self.tiles = tiles
    spares = try makeSpares(work.threads, max(k, widest))
    reconstructions = try makeSpares(work.threads, widest)
    partial = try FloatBuffer(Self.chunkRows / Self.blockRows * widest)
    moments = models.map { ColumnMoments(columns: $0.width) }
    residualSquares = models.map { _ in models.map { [Double](repeating: 0, count: $0.width) } }
    firings = FiringCounts(models: models.count, concepts: models[0].concepts, threshold: threshold)
  }

  /// Adds the rows `range` of the activations.
  func add(_ activations: [Activations], _ range: Range<Int>) throws(USAEError) {
    let count = range.count
    for (i, model) in models.enumerated() {
      try Ingestion(model: model, activations: activations[i]).copy(
        range, of: .all, to: inputs[i], spares: spares, work: work)
      try encoders[i].encode(inputs[i], count: count, k: k, tiles: tiles[i], to: codes[i], work: work)
      moments[i].add(inputs[i], count: count)
    }
    for i in models.indices {
      for j in models.indices { try addResiduals(encoded: i, decoded: j, count: count) }
    }
    firings.add(codes, count: count)
    tokens += count
  }

  private func addResiduals(encoded: Int, decoded: Int, count: Int) throws(USAEError) {
    let target = models[decoded]
    let stride = inputs[decoded].stride
    try work.runBlocks(count, of: Self.blockRows) { block, range, worker in
      let sums = self.partial.base + block * stride
      let residual = self.reconstructions[worker].base
      for c in 0..<stride { sums[c] = 0 }
      for t in range {
        target.decode(self.codes[encoded], token: t, spare: self.spares[worker].base, to: residual)
        kernels.subtractFrom(self.inputs[decoded].row(t), stride, residual)
        for c in 0..<stride { sums[c] += residual[c] * residual[c] }
      }
    }
    for block in 0..<(count + Self.blockRows - 1) / Self.blockRows {
      for c in 0..<target.width { residualSquares[encoded][decoded][c] += Double(partial.base[block * stride + c]) }
    }
  }

  func result() -> Evaluation {
    let pairs = models.indices.map { i in models.indices.map { j in scores(residualSquares[i][j], target: j) } }
    let n = Double(tokens)
    return Evaluation(
      tokens: tokens, r2: pairs.map { $0.map(\.r2) }, r2Standardized: pairs.map { $0.map(\.standardized) },
      r2ScalarMean: pairs.map { $0.map(\.scalarMean) }, meanSquaredError: pairs.map { $0.map(\.meanSquaredError) },
      l0: firings.active.map { Double($0) / n }, firingCounts: firings.fired, cofireCounts: firings.cofired,
      meanActivation: firings.sums.map { $0.map { $0 / n } }, maxActivation: firings.maxima)
  }

  private func scores(_ residuals: [Double], target: Int)
    -> (r2: Double, standardized: Double, scalarMean: Double, meanSquaredError: Double)
  {
    let model = models[target]
    let variations = moments[target].variations
    var residual = 0.0
    var total = 0.0
    for c in 0..<model.width {
      let unit = Double(model.scale.base[c]) * Double(model.scale.base[c])
      residual += unit * residuals[c]
      total += unit * variations[c]
    }
    let plain = residuals.reduce(0, +)
    return (
      1 - residual / total, 1 - plain / variations.reduce(0, +), 1 - plain / moments[target].variationAboutOneMean,
      residual / (Double(tokens) * Double(model.width))
    )
  }
}

/// Sums over tokens of x and its square, per column, about a shift that keeps their difference well conditioned.
private struct ColumnMoments {
  private let columns: Int
  private var shift: [Double] = []
  private var sums, squares: [Double]
  private var count = 0

  init(columns: Int) {
    self.columns = columns
    sums = [Double](repeating: 0, count: columns)
    squares = sums
  }

  mutating func add(_ rows: PaddedMatrix, count: Int) {
    if shift.isEmpty { shift = (0..<columns).map { Double(rows.row(0)[$0]) } }
    for t in 0..<count {
      let row = rows.row(t)
      for c in 0..<columns {
        let x = Double(row[c]) - shift[c]
        sums[c] += x
        squares[c] += x * x
      }
    }
    self.count += count
  }

  /// Sum of squared distances from the column's mean.
  var variations: [Double] { (0..<columns).map { max(0, squares[$0] - sums[$0] * sums[$0] / Double(count)) } }

  /// Sum of squared distances of all elements from one mean.
  var variationAboutOneMean: Double {
    let means = (0..<columns).map { shift[$0] + sums[$0] / Double(count) }
    let mean = means.reduce(0, +) / Double(columns)
    return zip(variations, means).reduce(0) { $0 + $1.0 + Double(count) * ($1.1 - mean) * ($1.1 - mean) }
  }
}

/// Which concepts fire, how often, how strongly, and in how many models at once.
private struct FiringCounts {
  let threshold: Float
  /// Active slots by model.
  private(set) var active: [Int64]
  private(set) var fired: [[Int64]]
  private(set) var cofired: [Int64]
  private(set) var sums: [[Double]]
  private(set) var maxima: [[Float]]
  // Models that fire a concept in the token at hand; `stamp` tells whether the count is this token's.
  private var hits: [Int]
  private var stamp: [Int]
  private var tokens = 0

  init(models: Int, concepts: Int, threshold: Float) {
    self.threshold = threshold
    active = [Int64](repeating: 0, count: models)
    fired = [[Int64]](repeating: [Int64](repeating: 0, count: concepts), count: models)
    sums = [[Double]](repeating: [Double](repeating: 0, count: concepts), count: models)
    maxima = [[Float]](repeating: [Float](repeating: 0, count: concepts), count: models)
    cofired = [Int64](repeating: 0, count: concepts)
    hits = [Int](repeating: 0, count: concepts)
    stamp = [Int](repeating: -1, count: concepts)
  }

  mutating func add(_ codes: [CodeBuffer], count: Int) {
    for t in 0..<count {
      for i in codes.indices { add(codes[i], token: t, model: i, of: codes.count) }
      tokens += 1
    }
  }

  private mutating func add(_ codes: CodeBuffer, token: Int, model: Int, of models: Int) {
    let used = codes.count(token)
    active[model] += Int64(used)
    for q in 0..<used {
      let concept = Int(codes.indices(token)[q])
      let value = codes.values(token)[q]
      sums[model][concept] += Double(value)
      maxima[model][concept] = max(maxima[model][concept], value)
      guard value > threshold else { continue }
      fired[model][concept] += 1
      hits[concept] = stamp[concept] == tokens ? hits[concept] + 1 : 1
      stamp[concept] = tokens
      if hits[concept] == models { cofired[concept] += 1 }
    }
  }
}
