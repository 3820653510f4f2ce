/// In how many directions a model's standardised tokens vary: the participation ratio (sum of the variances of the principal
/// components)^2 / (sum of their squares), which is the width where all directions are alike and 1 where there is but one.
///
/// From it comes the learning rate (`Recipe.learningRate(of:)`). With C the second moments of tokens x, it is
/// (tr C)^2 / tr C^2, and tr C^2 is the mean of (x . y)^2 over pairs of different tokens.
struct EffectiveDimensions {
  let model: ModelParameters
  let recipe: Recipe

  /// As many tokens give the ratio to some hundredths. Pairs grow with their square.
  static let mostTokens = 1024

  /// - Parameter rows: of the activations, those that mean and scale come from. Some of them, evenly spaced, are used.
  func compute(_ activations: ModelRows, _ rows: [Int], work: InterruptibleWork) throws(USAEError) -> Float {
    let count = min(rows.count, Self.mostTokens)
    guard count > 1 else { return Float(model.width) }
    let chosen = (0..<count).map { rows[$0 * rows.count / count] }
    let tokens = try PaddedMatrix(rows: count, columns: model.width)
    let scratch = try makeScratch(work.threads, paddedWidth(model.width))
    try activations.copy(
      chosen, of: model, lengths: .atMost(recipe.outlierMultiple), to: tokens, scratch: scratch, work: work)
    let sums = try pairSums(tokens, work: work)
    let trace = sums.reduce(0) { $0 + $1.own } / Double(count)
    let square = sums.reduce(0) { $0 + $1.others } * 2 / Double(count * (count - 1))
    guard trace > 0, square > 0 else { return Float(model.width) }
    return Float(max(1, min(trace * trace / square, Double(model.width))))
  }

  /// For each token its squared length, and the squares of its products with the tokens before it.
  private func pairSums(_ tokens: PaddedMatrix, work: InterruptibleWork) throws(USAEError) -> [(own: Double, others: Double)] {
    let sums = try AlignedBuffer<(own: Double, others: Double)>(tokens.rows)
    let (base, stride) = (tokens.base, tokens.stride)
    try work.run(tokens.rows) { row, _ in
      let token = base + row &* stride
      var others = 0.0
      for other in 0..<row {
        let product = Double(kernels.rows.dot(token, base + other &* stride, stride))
        others += product * product
      }
      sums.base[row] = (Double(kernels.rows.dot(token, token, stride)), others)
    }
    return Array(UnsafeBufferPointer(start: sums.base, count: tokens.rows))
  }
}
