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

  /// Puts the same data rows, scaled to norm 1, into every model's dictionary, and scales the encoders so that the first
  /// reconstruction has the right norm. Concepts past the number of rows keep their random vectors.
  func copyDictionaries(from activations: [Activations], to models: [ModelParameters], k: Int) throws(USAEError) {
    let total = activations[0].rows
    let order = RowOrder(seed: seed, rows: total, stream: .dictionaryRows)
    let concepts = models[0].concepts
    let chosen = (0..<min(total, concepts)).map { Int64(order.row(at: $0)) }
    try chosen.withUnsafeBufferPointer { rows throws(USAEError) in
      for (model, values) in zip(models, activations) {
        try copyRows(.some(rows), rows.count, values, to: model)
        tie(model)
        model.updateRowScales(recipe.rowNorm, work: work)
      }
    }
    guard recipe.encoder == .linear else { return }  // BatchNorm undoes any scale
    let sample = (0..<min(total, Self.scaleRows)).map { Int64(order.row(at: $0)) }
    try sample.withUnsafeBufferPointer { rows throws(USAEError) in
      try scaleEncoders(activations, .some(rows), rows.count, models, k: k)
    }
  }

  private func copyRows(
    _ rows: RowSelection, _ count: Int, _ values: Activations, to model: ModelParameters
  ) throws(USAEError) {
    let copy = try PaddedMatrix(rows: count, columns: model.width)
    try Ingestion(model: model, activations: values, lengths: .atMost(recipe.outlierMultiple)).copy(
      0..<count, of: rows, to: copy, scratch: try makeScratch(work.threads, model.width), work: work)
    try forBlocks(count) { concept in
      let row = copy.row(concept)
      guard rowNorm(row, copy.stride) > 0 else { return }  // a token equal to the mean has no direction
      Self.normalize(row, copy.stride)
      model.dictionary.value.row(concept).update(from: row, count: copy.stride)
    }
  }

  /// W_i times the factor that minimises sum_j |x_j - factor * reconstruction_ij|^2 / width_j over a sample.
  private func scaleEncoders(
    _ activations: [Activations], _ rows: RowSelection, _ count: Int, _ models: [ModelParameters], k: Int
  ) throws(USAEError) {
    let scratch = try makeScratch(work.threads, max(k, paddedWidth(models.map(\.width).max() ?? 1)))
    var sample: [PaddedMatrix] = []
    for (model, values) in zip(models, activations) {
      let tokens = try PaddedMatrix(rows: count, columns: model.width)
      try Ingestion(model: model, activations: values, lengths: .atMost(recipe.outlierMultiple)).copy(
        0..<count, of: rows, to: tokens, scratch: scratch, work: work)
      sample.append(tokens)
    }
    let codes = try CodeBuffer(rows: count, slots: k)
    for (i, model) in models.enumerated() {
      let encoder = try PackedEncoder(model.encoderWeight.value, affine: { model.affine($0) }, work: work)
      let tileScratch = encoder.makeScratch(work.threads)
      try encoder.encode(sample[i], count: count, k: k, scratch: tileScratch, to: codes, work: work)
      let sums = try AlignedBuffer<Double>(2 * count)
      for (target, tokens) in zip(models, sample) {
        let outs = try makeScratch(work.threads, tokens.stride)
        let dictionary = target.scaledRows
        try work.runBlocks(count, of: 64) { _, range, worker in
          let out = outs[worker].base
          for t in range {
            dictionary.decode(codes, token: t, scratch: scratch[worker].base, to: out)
            let weight = 1 / Double(target.width)
            sums.base[2 * t] += weight * Double(kernels.rows.dot(tokens.row(t), out, tokens.stride))
            sums.base[2 * t + 1] += weight * Double(kernels.rows.dot(out, out, tokens.stride))
          }
        }
      }
      let along = (0..<count).reduce(0.0) { $0 + sums.base[2 * $1] }
      let square = (0..<count).reduce(0.0) { $0 + sums.base[2 * $1 + 1] }
      let factor = Float(along / square)
      guard factor > 0, factor.isFinite else { continue }  // nothing is reconstructed, or sums overflowed
      try forBlocks(model.concepts) { concept in
        let row = model.encoderWeight.value.row(concept)
        for c in 0..<model.width { row[c] *= factor }
      }
    }
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
