extension UniversalSAE {
  /// Trains from the beginning on aligned activations: row t of every matrix is the same token.
  ///
  /// - Parameters:
  ///   - steps: length of the run.
  ///   - batchSize: encodings of a step: its tokens, times the models that the recipe encodes. All rows where there are fewer.
  ///   - onStep: sees each report; returning false ends the run early.
  @discardableResult
  public func fit(
    _ activations: KeyValuePairs<String, Matrix>, steps: Int, batchSize: Int = 2048,
    onStep: (StepReport) -> Bool = { _ in true }
  ) throws(USAEError) -> [StepReport] {
    try Self.require("steps", steps, in: 1...1 << 40)
    try Self.require("batch_size", batchSize, in: 1...1 << 24)
    let work = makeWork()
    return try withActivations(activations) { all throws(USAEError) in
      try initialize(from: all, work: work)
      try setPlan(totalSteps: steps, deadTokens: recipe.deadTokens)
      let order = RowOrder(seed: seed, rows: all[0].rows)
      let batch = min(recipe.tokens(ofBatch: batchSize, models: all.count), all[0].rows)
      var reports: [StepReport] = []
      var rows = [Int64](repeating: 0, count: batch)
      for step in 0..<steps {
        for i in 0..<batch { rows[i] = Int64(order.row(at: step * batch + i)) }
        let report = try self.step(all, rows: rows, work: work)
        reports.append(report)
        if !onStep(report) { break }
      }
      return reports
    }
  }

  /// One step on all rows of a batch; the first call makes the models from it.
  ///
  /// - Parameters:
  ///   - encoder: the first model to encode; nil draws it.
  ///   - absent: models that the batch does not have. The step neither decodes to them nor changes them.
  @discardableResult
  public func partialFit(_ batch: KeyValuePairs<String, Matrix>, encoder: String? = nil, absent: Set<String> = [])
    throws(USAEError) -> StepReport
  {
    let work = makeWork()
    return try withActivations(batch) { batch throws(USAEError) in
      if modelNames.isEmpty { try initialize(from: batch, work: work) }
      var index: Int?
      if let encoder { index = try self.index(of: encoder) }
      for name in absent { _ = try self.index(of: name) }
      return try step(try byModel(batch, absent: absent), rows: .all, encoder: index, work: work)
    }
  }

  /// The activations in the order of the models.
  func ordered(_ activations: [Activations]) throws(USAEError) -> [Activations] {
    try byModel(activations, absent: []).compactMap { $0 }
  }

  /// The activations in the order of the models, nil for those that are absent.
  private func byModel(_ activations: [Activations], absent: Set<String>) throws(USAEError) -> [Activations?] {
    let names = modelNames
    if let stranger = activations.first(where: { !names.contains($0.name) }) {
      throw .unknownModel(name: "'\(stranger.name)'", known: names)
    }
    var ordered: [Activations?] = []
    for name in names {
      let own = activations.first { $0.name == name }
      guard (own == nil) == absent.contains(name) else {
        throw .invalidArgument(
          name: "activations", expected: "all of \(names.filter { !absent.contains($0) })",
          got: own == nil ? "none of '\(name)'" : "'\(name)', which is absent")
      }
      ordered.append(own)
    }
    return ordered
  }

  private func step(_ batch: [Activations], rows: [Int64], work: InterruptibleWork) throws(USAEError) -> StepReport {
    try rows.withUnsafeBufferPointer { buffer throws(USAEError) in
      try step(batch, rows: .some(buffer), encoder: nil, work: work)
    }
  }

  /// Row numbers of positions of the endless shuffled sequence of `total` rows that `fit` trains on.
  package static func shuffledRows(seed: UInt64, total: Int, position: Int, out: UnsafeMutableBufferPointer<Int64>)
    throws(USAEError)
  {
    try require("n_rows", total, in: 1...1 << 53)
    try require("position", position, in: 0...1 << 60)
    let order = RowOrder(seed: seed, rows: total)
    for i in out.indices { out[i] = Int64(order.row(at: position + i)) }
  }

  /// Runs `body` with the activations of all matrices.
  func withActivations<Result>(
    _ matrices: KeyValuePairs<String, Matrix>, _ body: ([Activations]) throws(USAEError) -> Result
  ) throws(USAEError) -> Result {
    try Self.withAll(Array(matrices), [], body)
  }

  private static func withAll<Result>(
    _ rest: [(key: String, value: Matrix)], _ batch: [Activations], _ body: ([Activations]) throws(USAEError) -> Result
  ) throws(USAEError) -> Result {
    guard let next = rest.first else { return try body(batch) }
    return try next.value.withActivations(name: next.key) { activations throws(USAEError) in
      try withAll(Array(rest.dropFirst()), batch + [activations], body)
    }
  }
}
