/// One array that the processes of a shared step add up: `count` floats.
package struct SharedExchange: Sendable, Equatable {
  package enum Kind: Int32, Sendable, CustomStringConvertible {
    /// BatchNorm: sums of the encoded model's standardised tokens [width]; then the upper triangle of their covariance by rows.
    case means = 0
    case covariance = 1
    /// Scaled auxiliary loss: sums of residuals by model of the batch [sum of their widths]; then of their losses about the
    /// mean [models of the batch]. Both for each encoder that has auxiliary codes.
    case residualMeans = 2
    case spreads = 3
    /// Merging duplicates: the tokens from which concepts start again, [pairs, sum of widths]. Each token comes from one
    /// process.
    case restarts = 4
    /// Gradient of a weight or dictionary, [n_concepts, width].
    case gradient = 5
    case summary = 6
    /// BatchTopK: entries by the upper half of their bits, then by the lower half [65536]; entries that equal the smallest
    /// that is kept, by process.
    case upperHalves = 7
    case lowerHalves = 8
    case ties = 9

    /// As errors name it: the constant of `usae.h`.
    package var description: String {
      switch self {
      case .means: "USAE_EXCHANGE_MEANS"
      case .covariance: "USAE_EXCHANGE_COVARIANCE"
      case .residualMeans: "USAE_EXCHANGE_RESIDUAL_MEANS"
      case .spreads: "USAE_EXCHANGE_SPREADS"
      case .restarts: "USAE_EXCHANGE_RESTARTS"
      case .gradient: "USAE_EXCHANGE_GRADIENT"
      case .summary: "USAE_EXCHANGE_SUMMARY"
      case .upperHalves: "USAE_EXCHANGE_UPPER_HALVES"
      case .lowerHalves: "USAE_EXCHANGE_LOWER_HALVES"
      case .ties: "USAE_EXCHANGE_TIES"
      }
    }
  }

  package let kind: Kind
  /// -1 where it is not of one model, and where the only encoded model is meant.
  package let model: Int
  /// That of the encoder it is about (`StepEncodings`).
  let seat: Int
  package let tensor: TensorID.Kind?
  package let count: Int

  init(_ kind: Kind, model: Int = -1, seat: Int = 0, tensor: TensorID.Kind? = nil, count: Int) {
    self.kind = kind
    self.model = model
    self.seat = seat
    self.tensor = tensor
    self.count = count
  }

  /// Whether the next part depends on this one's sum.
  package var isAwaited: Bool {
    switch kind {
    case .means, .covariance, .upperHalves, .lowerHalves, .ties, .residualMeans, .spreads: return true
    case .restarts, .gradient, .summary: return false
    }
  }

  func check(_ count: Int) throws(USAEError) {
    guard count == self.count else {
      throw .shapeMismatch(name: "data of \(kind)", expected: "\(self.count) elements", got: "\(count)")
    }
  }
}

// MARK: BatchNorm

extension SharedStep {
  private func statistics(_ seat: Int) throws(USAEError) -> BatchStatistics {
    try workspace.statistics(seat: seat, width: models[local.encoders[seat]].width)
  }

  func fillMeans(_ seat: Int, _ out: UnsafeMutablePointer<Float>, work: InterruptibleWork) throws(USAEError) {
    let tokens = workspace.inputs[local.encoders[seat]]
    try tokens.columnSums(0..<workspace.rows, blocks: BatchStatistics.sumRows, work: work) { column, sum in
      if column < tokens.columns { out[column] = Float(sum) }
    }
  }

  func takeMeans(_ sum: SharedSum) throws(USAEError) {
    try sum.requireFinite()
    let statistics = try statistics(sum.exchange.seat)
    for c in 0..<sum.numbers.count {
      statistics.mean.base[c] = PaddedMatrix.mean(ofSum: sum.numbers[c], rows: workspace.totalRows)
    }
  }

  /// The covariance is about the mean of the whole batch, so that no two large numbers are subtracted.
  func fillCovariance(_ seat: Int, _ out: UnsafeMutablePointer<Float>, work: InterruptibleWork) throws(USAEError) {
    let statistics = try statistics(seat)
    try statistics.computeCovariance(
      workspace.inputs[local.encoders[seat]], count: workspace.rows, of: workspace.totalRows, work: work)
    var out = out
    let covariance = statistics.covariance
    for r in 0..<covariance.columns {
      out.update(from: covariance.row(r) + r, count: covariance.columns - r)
      out += covariance.columns - r
    }
  }

  func takeCovariance(_ sum: SharedSum) throws(USAEError) {
    try sum.requireFinite()
    let covariance = try statistics(sum.exchange.seat).covariance
    var place = 0
    for r in 0..<covariance.columns {
      try sum.requireNotNegative(place..<place + 1)  // a variance
      for c in r..<covariance.columns {
        covariance.row(r)[c] = sum.numbers[place]
        covariance.row(c)[r] = sum.numbers[place]
        place += 1
      }
    }
  }
}

// MARK: The scale of the auxiliary loss

extension SharedStep {
  func fillResidualMeans(_ out: UnsafeMutablePointer<Float>, work: InterruptibleWork) throws(USAEError) {
    var first = out
    for seat in scaledSeats {
      for residuals in local.present.map({ workspace.residuals[$0] }) {
        let rows = workspace.encodings.range(seat)
        try residuals.columnSums(rows, blocks: Reconstruction.blockRows, work: work) { column, sum in
          if column < residuals.columns { first[column] = Float(sum) }
        }
        first += residuals.columns
      }
    }
  }

  func takeResidualMeans(_ sum: SharedSum) throws(USAEError) {
    try sum.requireFinite()
    var first = 0
    residualMeans = []
    for _ in scaledSeats {
      var means: [PaddedMatrix] = []
      for model in local.present.map({ models[$0] }) {
        let mean = try PaddedMatrix(rows: 1, columns: model.width)
        for c in 0..<model.width {
          mean.base[c] = PaddedMatrix.mean(ofSum: sum.numbers[first + c], rows: workspace.totalRows)
        }
        means.append(mean)
        first += model.width
      }
      residualMeans.append(means)
    }
  }

  func takeSpreads(_ sum: SharedSum) throws(USAEError) {
    try sum.requireFinite()
    try sum.requireNotNegative(0..<sum.numbers.count)
    for (number, seat) in scaledSeats.enumerated() {
      for (place, j) in local.present.enumerated() {
        let loss = sum.numbers[number * local.present.count + place]
        spreads[seat][j] = AuxiliaryLoss.spread(loss, rows: workspace.totalRows, models[j])
      }
    }
  }

  func fillSpreads(_ out: UnsafeMutablePointer<Float>, work: InterruptibleWork) throws(USAEError) {
    for (number, seat) in scaledSeats.enumerated() {
      let rows = workspace.encodings.range(seat)
      for (place, j) in local.present.enumerated() {
        let mean = residualMeans[number][place]
        out[number * local.present.count + place] = Float(
          try AuxiliaryLoss.deviations(from: mean.base, local.reconstruction, rows, target: j, work))
      }
    }
  }
}

// MARK: Merging duplicates

extension SharedStep {
  /// Writes the tokens that this process has, and zeros for the others. The first `first` tokens of the batch are those of
  /// processes before it.
  func fillRestarts(_ data: UnsafeMutableBufferPointer<Float>, first: Int) throws(USAEError) {
    let restarts = try local.restartTokens(of: duplicates) { number in
      let token = merging.token(ofPair: number, of: workspace.totalRows, step: local.number + 1) - first
      return (0..<workspace.rows).contains(token) ? token : nil
    }
    var place = 0
    for number in duplicates.indices {
      for tokens in restarts {
        for c in 0..<tokens.columns { data[place + c] = tokens.row(number)[c] }
        place += tokens.columns
      }
    }
  }

  /// By model, [pairs, width].
  func restartTokens(_ sum: UnsafeBufferPointer<Float>) throws(USAEError) -> [PaddedMatrix] {
    var tokens: [PaddedMatrix] = []
    for model in models { tokens.append(try PaddedMatrix(rows: duplicates.count, columns: model.width)) }
    var place = 0
    for number in duplicates.indices {
      for matrix in tokens {
        for c in 0..<matrix.columns { matrix.row(number)[c] = sum[place + c] }
        place += matrix.columns
      }
    }
    return tokens
  }
}
