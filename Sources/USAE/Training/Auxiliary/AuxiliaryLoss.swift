/// What both auxiliary losses share: how well the auxiliary code q reconstructs the residual r of the main one.
///
/// Model j's part is mean L(r_j - q D_j). Where the recipe says so, it is divided by the same mean for r_j minus its batch
/// mean. Each encoder has a loss of its own, over its own residuals; the step's is their mean.
struct AuxiliaryLoss {
  let reconstruction: Reconstruction
  /// Divisors by seat and target model. 0 drops the model's part, where the divisor is so small that the quotient could
  /// overflow.
  let scales: [[Double]]
  /// Tokens that an encoder's means are over, those of all processes.
  var tokens: Int

  private var workspace: StepWorkspace { reconstruction.workspace }
  private var models: [ModelParameters] { reconstruction.models }
  private var targets: [Int] { reconstruction.targets }
  private var encoders: Int { workspace.encodings.encoders }

  init(_ reconstruction: Reconstruction, _ auxiliary: StepAuxiliary, work: InterruptibleWork) throws(USAEError) {
    var spreads = Self.noSpreads(reconstruction)
    if reconstruction.recipe.auxiliaryScale == .residual {
      for seat in auxiliary.seats {
        let rows = reconstruction.workspace.encodings.range(seat)
        for j in reconstruction.targets {
          let residuals = reconstruction.workspace.residuals[j]
          let mean = try FloatBuffer(residuals.stride)
          try residuals.columnMeans(rows, blocks: Reconstruction.blockRows, to: mean.base, work: work)
          let sum = Float(try Self.deviations(from: mean.base, reconstruction, rows, target: j, work))
          spreads[seat][j] = Self.spread(sum, rows: rows.count, reconstruction.models[j])
        }
      }
    }
    self.init(reconstruction, spreads: spreads)
  }

  /// - Parameter spreads: mean L(r - batch mean of r) by seat and target model, where the recipe scales by it; else 1.
  init(_ reconstruction: Reconstruction, spreads: [[Double]]) {
    self.reconstruction = reconstruction
    tokens = reconstruction.workspace.totalRows
    scales = spreads.map { $0.map(Self.usable) }
  }

  /// Divisors of 1.
  static func noSpreads(_ reconstruction: Reconstruction) -> [[Double]] {
    Array(repeating: reconstruction.models.map { _ in 1 }, count: reconstruction.workspace.encodings.encoders)
  }

  /// The spread that a sum of `deviations` gives, which is rounded as it is where processes exchange it.
  static func spread(_ sum: Float, rows: Int, _ model: ModelParameters) -> Double {
    Double(sum) / (Double(rows) * Double(model.width))
  }

  private static func usable(_ spread: Double) -> Double { spread > Double(Float.leastNormalMagnitude) ? spread : 0 }

  /// Factor of the slope of model j's part in the whole loss.
  func slopeFactor(_ target: Int, seat: Int) -> Float {
    guard scales[seat][target] > 0 else { return 0 }
    let ofMean = -1 / (Float(tokens * encoders) * Float(models[target].width))
    return ofMean * Float(reconstruction.recipe.auxiliaryCoefficient / scales[seat][target])
  }

  /// Replaces q D_j of a row by its slope dLoss/d(q D_j); returns the loss L(r_j - q D_j), a sum over the width.
  @inline(__always)
  func differentiate(_ decoded: UnsafeMutablePointer<Float>, row: Int, _ target: Reconstruction.Target) -> Double {
    let factor = slopeFactor(target.index, seat: workspace.encodings.seat(of: row))
    kernels.rows.subtractFrom(target.residual(row), target.stride, decoded)
    let loss = Double(kernels.training.loss(reconstruction.which, decoded, target.stride))
    kernels.training.slope(reconstruction.which, factor, decoded, target.stride, decoded)
    return loss
  }

  /// Adds up sums over blocks and models to the loss without its coefficient.
  ///
  /// - Parameter blocks: of each encoder.
  func total(_ sums: AlignedBuffer<Double>, blocks: Int) -> Double {
    var total = 0.0
    for seat in 0..<encoders {
      for j in targets where scales[seat][j] > 0 {
        var sum = 0.0
        for block in seat * blocks..<(seat + 1) * blocks { sum += sums.base[block * models.count + j] }
        total += sum / (Double(tokens * encoders) * Double(models[j].width) * scales[seat][j])
      }
    }
    return total
  }

  /// Sum over some rows of L(r - mean).
  static func deviations(
    from mean: UnsafePointer<Float>, _ reconstruction: Reconstruction, _ rows: Range<Int>, target: Int,
    _ work: InterruptibleWork
  ) throws(USAEError) -> Double {
    let residuals = reconstruction.workspace.residuals[target]
    let stride = residuals.stride
    let blocks = (rows.count + Reconstruction.blockRows - 1) / Reconstruction.blockRows
    let sums = try AlignedBuffer<Double>(blocks)
    let scratch = try makeScratch(work.threads, stride)
    try work.runBlocks(rows.count, of: Reconstruction.blockRows) { block, range, worker in
      let centred = scratch[worker].base
      for t in range {
        centred.update(from: residuals.row(rows.lowerBound + t), count: stride)
        kernels.rows.addScaled(-1, mean, stride, centred)
        sums.base[block] += Double(kernels.training.loss(reconstruction.which, centred, stride))
      }
    }
    var sum = 0.0
    for block in 0..<blocks { sum += sums.base[block] }
    return sum
  }
}
