/// Initial values of the parameters.
struct Initialization {
  let recipe: Recipe
  let seed: UInt64
  let work: InterruptibleWork

  /// Rows of the sample whose reconstruction determines the initial scale of the encoders.
  private static let scaleRows = 2048

  /// Random parameters, without data.
  func seed(_ models: [ModelParameters]) throws(USAEError) {
    for (i, model) in models.enumerated() {
      try seedDictionary(model, part: i)
      if recipe.initialization == .random { try seedEncoder(model, part: i) } else { tie(model) }
      model.updateRowScales(recipe.rowNorm, work: work)
    }
  }

  /// Standard normal rows, of norm 1 unless the initialisation is `random`.
  private func seedDictionary(_ model: ModelParameters, part: Int) throws(USAEError) {
    let random = CounterRandom(seed: seed, stream: .dictionary, part: part)
    let rows = model.dictionary.value
    let blocks = UInt64((model.width + 3) / 4)
    try forBlocks(model.concepts) { concept in
      random.fillNormals(
        UnsafeMutableBufferPointer(start: rows.row(concept), count: model.width), from: UInt64(concept) &* blocks)
      if recipe.initialization != .random { Self.normalize(rows.row(concept), rows.stride) }
    }
  }

  /// As torch.nn.Linear: uniform in +-1/sqrt(width), weights and bias.
  private func seedEncoder(_ model: ModelParameters, part: Int) throws(USAEError) {
    let weight = CounterRandom(seed: seed, stream: .encoderWeight, part: part)
    let bias = CounterRandom(seed: seed, stream: .encoderBias, part: part)
    let limit = 1 / Float(model.width).squareRoot()
    try forBlocks(model.concepts) { concept in
      for c in 0..<model.width {
        model.encoderWeight.value.row(concept)[c] = weight.uniform(
          UInt64(concept) &* UInt64(model.width) &+ UInt64(c), limit: limit)
      }
      model.encoderBias.value.base[concept] = bias.uniform(UInt64(concept), limit: limit)
    }
  }

  private func tie(_ model: ModelParameters) { model.encoderWeight.value.storage.copy(from: model.dictionary.value.storage) }

  /// Puts data rows, scaled to norm 1, into the dictionaries, the same in all models of which rows are aligned, and scales the
  /// encoders so that the first reconstruction has the right norm.
  ///
  /// Concepts take rows that are aligned between all models first. Those that are left take rows of fewer models, each model
  /// its own where no others belong to them. Concepts past the number of rows keep their random vectors.
  func copyDictionaries(from groups: [AlignedRows], to models: [ModelParameters], k: Int) throws(USAEError) {
    var taken = models.map { _ in 0 }
    let concepts = models[0].concepts
    for (number, group) in groups.enumerated() {
      let first = group.present.map { taken[$0] }.max() ?? 0
      let chosen = drawn(min(group.rows, concepts - first), of: group, number)
      for j in group.present {
        guard let rows = group.models[j], !chosen.isEmpty else { continue }
        try copyRows(chosen, of: rows, to: models[j], from: first)
        taken[j] = first + chosen.count
      }
    }
    for model in models {
      tie(model)
      model.updateRowScales(recipe.rowNorm, work: work)
    }
    guard recipe.encoder == .linear else { return }  // BatchNorm undoes any scale
    try scaleEncoders(groups, models, k: k)
  }

  /// Rows of the group with a number: of groups with equally many rows, others, so that no hidden order of the rows matters.
  private func drawn(_ count: Int, of group: AlignedRows, _ number: Int) -> [Int] {
    let order = RowOrder(seed: seed, rows: group.rows, stream: .dictionaryRows, part: number)
    return (0..<max(count, 0)).map(order.row)
  }

  /// - Parameter first: the concept that takes the first row.
  private func copyRows(_ chosen: [Int], of rows: ModelRows, to model: ModelParameters, from first: Int) throws(USAEError) {
    let copy = try PaddedMatrix(rows: chosen.count, columns: model.width)
    try rows.copy(
      chosen, of: model, lengths: .atMost(recipe.outlierMultiple), to: copy,
      scratch: try makeScratch(work.threads, model.width), work: work)
    try forBlocks(chosen.count) { number in
      let row = copy.row(number)
      guard rowNorm(row, copy.stride) > 0 else { return }  // a token equal to the mean has no direction
      Self.normalize(row, copy.stride)
      model.dictionary.value.row(first + number).update(from: row, count: copy.stride)
    }
  }

  /// Standardised tokens by model, nil for those that the rows are not of.
  private struct Sample {
    let count: Int
    let tokens: [PaddedMatrix?]
  }

  /// As many rows of each group as it has of all.
  private func samples(_ groups: [AlignedRows], _ models: [ModelParameters], scratch: [FloatBuffer]) throws(USAEError)
    -> [Sample]
  {
    let total = groups.reduce(0) { $0 + $1.rows }
    let wanted = min(total, Self.scaleRows)
    var samples: [Sample] = []
    for (number, group) in groups.enumerated() {
      let chosen = drawn(max(1, Int(Double(wanted) * (Double(group.rows) / Double(total)))), of: group, number)
      var tokens: [PaddedMatrix?] = models.map { _ in nil }
      for j in group.present {
        let own = try PaddedMatrix(rows: chosen.count, columns: models[j].width)
        try group.models[j]?.copy(
          chosen, of: models[j], lengths: .atMost(recipe.outlierMultiple), to: own, scratch: scratch, work: work)
        tokens[j] = own
      }
      samples.append(Sample(count: chosen.count, tokens: tokens))
    }
    return samples
  }

  /// W_i times the factor that minimises sum_j |x_j - factor * reconstruction_ij|^2 / width_j over a sample, j being the models
  /// that rows are aligned with.
  private func scaleEncoders(_ groups: [AlignedRows], _ models: [ModelParameters], k: Int) throws(USAEError) {
    let scratch = try makeScratch(work.threads, max(k, paddedWidth(models.map(\.width).max() ?? 1)))
    let samples = try samples(groups, models, scratch: scratch)
    for (i, model) in models.enumerated() {
      let encoder = try PackedEncoder(model.encoderWeight.value, affine: { model.affine($0) }, work: work)
      let tileScratch = encoder.makeScratch(work.threads)
      var (along, square) = (0.0, 0.0)
      for sample in samples {
        guard let own = sample.tokens[i] else { continue }
        let codes = try CodeBuffer(rows: sample.count, slots: k)
        try encoder.encode(own, count: sample.count, k: k, scratch: tileScratch, to: codes, work: work)
        let sums = try reconstructionSums(codes, sample, models, scratch: scratch)
        along = (0..<sample.count).reduce(along) { $0 + sums.base[2 * $1] }
        square = (0..<sample.count).reduce(square) { $0 + sums.base[2 * $1 + 1] }
      }
      let factor = Float(along / square)
      guard factor > 0, factor.isFinite else { continue }  // nothing is reconstructed, or sums overflowed
      try forBlocks(model.concepts) { concept in
        let row = model.encoderWeight.value.row(concept)
        for c in 0..<model.width { row[c] *= factor }
      }
    }
  }

  /// For each token sums over the models of x_j . reconstruction / width_j and of |reconstruction|^2 / width_j, [count, 2].
  private func reconstructionSums(
    _ codes: CodeBuffer, _ sample: Sample, _ models: [ModelParameters], scratch: [FloatBuffer]
  ) throws(USAEError) -> AlignedBuffer<Double> {
    let sums = try AlignedBuffer<Double>(2 * sample.count)
    for (target, tokens) in zip(models, sample.tokens) {
      guard let tokens else { continue }
      let outs = try makeScratch(work.threads, tokens.stride)
      let dictionary = target.scaledRows
      try work.runBlocks(sample.count, of: 64) { _, range, worker in
        let out = outs[worker].base
        for t in range {
          dictionary.decode(codes, token: t, scratch: scratch[worker].base, to: out)
          let weight = 1 / Double(target.width)
          sums.base[2 * t] += weight * Double(kernels.rows.dot(tokens.row(t), out, tokens.stride))
          sums.base[2 * t + 1] += weight * Double(kernels.rows.dot(out, out, tokens.stride))
        }
      }
    }
    return sums
  }

  private func forBlocks(_ count: Int, _ body: (Int) -> Void) throws(USAEError) {
    try work.runBlocks(count, of: 64) { _, range, _ in
      for index in range { body(index) }
    }
  }

  private static func normalize(_ row: UnsafeMutablePointer<Float>, _ stride: Int) {
    let norm = rowNorm(row, stride)
    guard norm > 0 else { return }
    for c in 0..<stride { row[c] /= norm }
  }
}
