import KernelTypes

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// What is maximised: how much activations of one model show one concept.
package struct ConceptObjective: Sendable {
  package let concept: Int
  package let kind: UniversalSAE.ObjectiveKind
  /// One token of each view, or nil for the mean over all.
  package let token: Int?

  package init(concept: Int, kind: UniversalSAE.ObjectiveKind, token: Int?) {
    self.concept = concept
    self.kind = kind
    self.token = token
  }

  /// Below this cosine, alignment has a slope along w alone, so that a token that does not show the concept yet can begin to.
  static let leastCosine = 0.1
}

extension UniversalSAE {
  /// The objective of each view, and the gradient of its mean over views with respect to the activations.
  ///
  /// - Parameters:
  ///   - x: activations of `model`, [views * tokens, width], in its own units.
  ///   - values: [views].
  ///   - gradient: [views * tokens, width].
  package func objective(
    _ objective: ConceptObjective, of x: Activations, model index: Int, views: Int, values: UnsafeMutablePointer<Double>,
    gradient: UnsafeMutablePointer<Float>, work: InterruptibleWork
  ) throws(USAEError) {
    try lock.reading(poll: work.poll) { () throws(USAEError) in
      let model = try model(index, for: "an objective")
      try Self.checkWidth(x, of: model)
      try Self.require("concept", objective.concept, in: 0...concepts - 1)
      try Self.require("views", views, in: 1...max(1, x.rows))
      guard x.rows > 0, x.rows.isMultiple(of: views) else {
        throw .shapeMismatch(
          name: "activations of '\(model.name)'", expected: "as many tokens in each of \(views) views", got: "\(x.rows) rows")
      }
      try Self.checkOutput("gradient", rows: x.rows, columns: model.width)
      let tokens = x.rows / views
      if let token = objective.token { try Self.require("token", token, in: 0...tokens - 1) }
      let standardized = try PaddedMatrix(rows: x.rows, columns: model.width)
      try Ingestion(model: model, activations: x, lengths: .comparable).copy(
        0..<x.rows, of: .all, to: standardized, scratch: try makeScratch(work.threads, model.width), work: work)
      var chosen: [Bool] = []
      if case .code = objective.kind { chosen = try tokensWith(objective.concept, model, standardized, work: work) }
      let slopes = try ObjectiveSlopes(objective, model, standardized, views: views, chosen: chosen, work: work)
      for view in 0..<views { values[view] = slopes.value(of: view) }
      nonisolated(unsafe) let gradient = gradient
      try work.runBlocks(x.rows, of: 64) { _, rows, _ in
        for row in rows { slopes.write(row, to: gradient + row * model.width) }
      }
    }
  }

  /// Whether each token's code has the concept.
  private func tokensWith(
    _ concept: Int, _ model: ModelParameters, _ tokens: PaddedMatrix, work: InterruptibleWork
  ) throws(USAEError) -> [Bool] {
    let encoder = try state.inference.encoder(of: model, work: work)
    let isActive = try AlignedBuffer<Bool>(tokens.rows)
    let scratch = encoder.makeScratch(work.threads)
    try encoder.forEachTile(of: tokens, 0..<tokens.rows, k: slots, scratch: scratch, work: work) { tile in
      for row in tile.rows { isActive.base[row] = tile[row].contains { Int(column(ofKey: $0)) == concept } }
    }
    return (0..<tokens.rows).map { isActive.base[$0] }
  }
}

/// The encoder's row of one concept, the products of all tokens with it, and what an objective makes of them.
private struct ObjectiveSlopes: @unchecked Sendable {
  private let objective: ConceptObjective
  private let model: ModelParameters
  private let x: PaddedMatrix
  private let tokens, views: Int
  private let chosen: [Bool]
  private let weight: PaddedMatrix  // [1, width], BatchNorm folded in
  private let bias, norm: Double
  private let products: AlignedBuffer<Double>  // a . w of each row
  private let maxima: [SoftMaximum]  // of each view's products, where they are asked for

  private struct SoftMaximum {
    var largest, sum: Double
  }

  init(
    _ objective: ConceptObjective, _ model: ModelParameters, _ x: PaddedMatrix, views: Int, chosen: [Bool],
    work: InterruptibleWork
  ) throws(USAEError) {
    self.objective = objective
    self.model = model
    self.x = x
    self.views = views
    self.chosen = chosen
    tokens = x.rows / views
    let (scale, bias) = model.affine(objective.concept)
    self.bias = Double(bias)
    let weight = try PaddedMatrix(rows: 1, columns: model.width)
    let row = model.encoderWeight.value.row(objective.concept)
    for c in 0..<model.width { weight.base[c] = scale * row[c] }
    norm = Double(kernels.rows.dot(weight.base, weight.base, weight.stride)).squareRoot()
    self.weight = weight
    let products = try AlignedBuffer<Double>(x.rows)
    try work.runBlocks(x.rows, of: 64) { _, rows, _ in
      for row in rows { products.base[row] = Double(kernels.rows.dot(x.row(row), weight.base, weight.stride)) }
    }
    self.products = products
    var maxima: [SoftMaximum] = []
    if case .logSumExp = objective.kind {
      for view in 0..<views {
        let rows = Self.rows(of: view, tokens, objective.token)
        let largest = rows.reduce(-Double.infinity) { max($0, products.base[$1]) }
        maxima.append(SoftMaximum(largest: largest, sum: rows.reduce(0) { $0 + exp(products.base[$1] - largest) }))
      }
    }
    self.maxima = maxima
  }

  /// The tokens that count.
  private static func rows(of view: Int, _ tokens: Int, _ token: Int?) -> Range<Int> {
    guard let token else { return view * tokens..<(view + 1) * tokens }
    return view * tokens + token..<view * tokens + token + 1
  }

  func value(of view: Int) -> Double {
    let rows = Self.rows(of: view, tokens, objective.token)
    if case .logSumExp = objective.kind {
      return maxima[view].largest + bias + log(maxima[view].sum / Double(rows.count))
    }
    return rows.reduce(0) { $0 + value(row: $1) } / Double(rows.count)
  }

  private func value(row: Int) -> Double {
    let product = products.base[row]
    switch objective.kind {
    case .alignment(let power): return product * pow(max(ConceptObjective.leastCosine, cosine(row)), power)
    case .code: return chosen[row] ? product + bias : 0
    case .preactivation, .logSumExp: return product + bias
    }
  }

  private func cosine(_ row: Int) -> Double {
    let a = x.row(row)
    let lengths = Double(kernels.rows.dot(a, a, x.stride)).squareRoot() * norm
    return lengths > 0 ? products.base[row] / lengths : 0
  }

  /// Gradient of the mean over views at one token, in the model's own units.
  func write(_ row: Int, to out: UnsafeMutablePointer<Float>) {
    let view = row / tokens
    let counted = Self.rows(of: view, tokens, objective.token)
    var (ofWeight, ofToken) = counted.contains(row) ? slope(row) : (0, 0)
    var share = 1 / Double(views * counted.count)
    if case .logSumExp = objective.kind {
      share = exp(products.base[row] - maxima[view].largest) / (maxima[view].sum * Double(views))
    }
    ofWeight *= share
    ofToken *= share
    let a = x.row(row)
    for c in 0..<model.width {
      let slope = ofWeight * Double(weight.base[c]) + ofToken * Double(a[c])
      out[c] = Float(slope * Double(model.inverseScale.base[c]))
    }
  }

  /// The gradient with respect to the standardised token, as multiples of the encoder's row and of the token.
  private func slope(_ row: Int) -> (ofWeight: Double, ofToken: Double) {
    switch objective.kind {
    case .alignment(let power):
      let cosine = cosine(row)
      guard cosine > ConceptObjective.leastCosine else { return (pow(ConceptObjective.leastCosine, power), 0) }
      // c^p w + p (a.w) c^(p-1) (w / |w| - c a / |a|) / |a|, and (a.w) / (|a| |w|) = c.
      let product = products.base[row]
      let length = product / (cosine * norm)
      return (pow(cosine, power) * (1 + power), -power * product * pow(cosine, power) / (length * length))
    case .code: return (chosen[row] ? 1 : 0, 0)
    case .preactivation, .logSumExp: return (1, 0)
    }
  }
}
