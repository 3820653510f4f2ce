import KernelTypes

/// Noise that is added to what encoders read in a step, and not to what dictionaries have to give.
///
/// With few independent tokens, such as the patches of a thousand photographs, encoders learn those tokens by heart: codes that
/// the other models' dictionaries turn into good reconstructions of these tokens and of no others. Noise of variance v makes a
/// linear map a ridge regression with penalty v for each token, and has the same effect on encoders.
struct InputNoise {
  /// The standard deviation, of standardised activations; above 0.
  let deviation: Double
  let seed: UInt64
  /// Steps done before this one.
  let step: Int

  /// Tokens of one piece of work.
  private static let blockTokens = 64

  /// out = tokens + noise. A number depends on the seed, the step, the model, the row in the whole batch and the column,
  /// so that neither threads nor processes change it.
  ///
  /// - Parameters:
  ///   - firstRow: the row of the whole batch that is the first here.
  ///   - model: its number.
  func add(
    to tokens: PaddedMatrix, rows: Int, firstRow: Int, model: Int, out: PaddedMatrix, work: InterruptibleWork
  ) throws(USAEError) {
    let start = CounterRandom(seed: seed, stream: .inputNoise, part: model).rowNoise(step: step, deviation: deviation)
    try work.runBlocks(rows, of: Self.blockTokens) { _, range, _ in
      var constants = start
      for row in range {
        constants.counter.0 = UInt32(truncatingIfNeeded: firstRow &+ row)
        let noisy = out.row(row)
        kernels.images.noisyRow(&constants, tokens.row(row), tokens.columns, noisy)
        for c in tokens.columns..<tokens.stride { noisy[c] = 0 }  // the kernel fills whole vectors
      }
    }
  }
}
