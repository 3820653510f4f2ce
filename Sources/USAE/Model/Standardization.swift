/// Mean and scale of a model's activations from a sample of rows.
///
/// Results do not depend on the units of the activations, as long as the scale is in the range of float32. Rows that are far
/// from all others, such as attention sinks, count for neither mean nor scale where the recipe has an `outlierMultiple`.
struct Standardization {
  let recipe: Recipe
  let seed: UInt64

  /// Outlying rows are few; where more are far away, they are a part of the data like any other.
  static let mostOutlying = 0.05
  /// How often moments without outlying rows are computed: those rows have moved the centre from which they were found.
  private static let rounds = 5
  /// Numbers of rows are held in memory: 2 GB.
  private static let mostRows = 1 << 28
  /// `scaleEpsilon` counts in the user's units where the deviation is at least 1/4, and below as many times less as the
  /// deviation is smaller: an absolute number would be all of the scale of small activations.
  private static let epsilonUnits = 4.0

  /// Sets `mean` and `scale` of `model`, and what was found on the way.
  func fit(_ model: ModelParameters, to activations: ModelRows, work: InterruptibleWork) throws(USAEError) {
    let rows = try sampledRows(of: activations.rows)
    var moments = try RowMoments(activations, rows, center: recipe.center, exact: false, work: work)
    if moments.needsExactReading {
      moments = try RowMoments(activations, rows, center: recipe.center, exact: true, work: work)
    }
    try requireVariation(moments, of: activations)
    let outlying = moments.outlyingRows(beyond: multiple)
    let leftOut = try leaveOut(outlying, of: &moments, work: work)
    try set(model, moments, activations)
    let dimensions = EffectiveDimensions(model: model, recipe: recipe)
    model.effectiveDimensions.base[0] = try dimensions.compute(activations, rows, work: work)
    model.sample = SampleReport(moments, outlying: leftOut > 0 ? leftOut : outlying.count, leftOut: leftOut)
  }

  private var multiple: Double { recipe.outlierMultiple > 0 ? recipe.outlierMultiple : Recipe().outlierMultiple }

  /// Computes the moments without outlying rows, if they are few. Returns how many were left out.
  private func leaveOut(_ outlying: [Int], of moments: inout RowMoments, work: InterruptibleWork) throws(USAEError) -> Int {
    guard recipe.outlierMultiple > 0, !outlying.isEmpty else { return 0 }
    let most = Self.mostOutlying * Double(moments.rows.count)
    var (robust, outlying) = (moments, outlying)
    for _ in 0..<Self.rounds where Double(outlying.count) <= most {
      try robust.update(without: outlying, work: work)
      let found = robust.outlyingRows(beyond: multiple)
      if found == outlying { break }
      outlying = found
    }
    guard Double(outlying.count) <= most, robust.overallDeviation > 0 else { return 0 }
    moments = robust
    return outlying.count
  }

  private func set(_ model: ModelParameters, _ moments: RowMoments, _ activations: ModelRows) throws(USAEError) {
    let deviations = moments.deviations
    let overall = moments.overallDeviation
    let epsilon = recipe.scaleEpsilon * min(1, Self.epsilonUnits * overall)
    let smallest = Double(Float.leastNormalMagnitude)
    guard (smallest...Double(Float.greatestFiniteMagnitude)).contains(overall), (1 / Float(overall)).isFinite else {
      throw .invalidArgument(
        name: "activations of '\(activations.name)'", expected: "a standard deviation that float32 can hold",
        got: "\(overall)", remedy: "multiply them by a constant")
    }
    // Dividing a constant dimension by its deviation would blow rounding errors up.
    model.setStandardization(center: moments.center) {
      let own = recipe.scale == .dimension ? deviations[$0] : overall
      return moments.isConstant($0, deviation: own) ? Float(overall + epsilon) : Float(own + epsilon)
    }
  }

  /// All rows, or as many as the recipe draws, each once.
  private func sampledRows(of total: Int) throws(USAEError) -> [Int] {
    let wanted = recipe.statisticsTokens
    guard (wanted > 0 ? min(wanted, total) : total) <= Self.mostRows else {
      throw .invalidArgument(
        name: "recipe.statistics_tokens", expected: "at most \(Self.mostRows) rows, of which mean and scale are computed",
        got: wanted > 0 ? "\(wanted)" : "all \(total)")
    }
    guard wanted > 0, wanted < total else { return Array(0..<total) }
    let order = RowOrder(seed: seed, rows: total, stream: .statisticsRows)
    return (0..<wanted).map { order.row(at: $0) }.sorted()
  }

  private func requireVariation(_ moments: RowMoments, of activations: ModelRows) throws(USAEError) {
    guard moments.identicalRows == moments.rows.count else { return }
    let got = moments.rows.count == 1 ? "1 row" : "\(moments.rows.count) equal rows"
    throw .invalidArgument(
      name: "activations of '\(activations.name)'", expected: "rows that differ, of which mean and scale are computed",
      got: got,
      remedy: "begin with more rows (see recipe.statistics_tokens, too), choose another layer, or leave the model out")
  }
}
