/// What both auxiliary losses share: how well the auxiliary code q reconstructs the residual r of the main one.
///
/// Model j's part is mean L(r_j - q D_j). Where the recipe says so, it is divided by the same mean for r_j minus its batch
/// mean.
struct AuxiliaryLoss {
  let reconstruction: Reconstruction
  /// Divisors by target model. 0 drops the model's part, where the divisor is so small that the quotient could overflow.
  let scales: [Double]
  /// Tokens that the means are over, those of all processes.
  var tokens: Int

  private var workspace: StepWorkspace { reconstruction.workspace }
  private var models: [ModelParameters] { reconstruction.models }

  init(_ reconstruction: Reconstruction, work: InterruptibleWork) throws(USAEError) {
    self.reconstruction = reconstruction
    tokens = reconstruction.workspace.totalRows
    guard reconstruction.recipe.auxiliaryScale == .residual else {
      scales = reconstruction.models.map { _ in 1 }
      return
    }
    let rows = reconstruction.workspace.rows
    var spreads: [Double] = []
    for j in reconstruction.models.indices {
      let residuals = reconstruction.workspace.residuals[j]
      let mean = try FloatBuffer(residuals.stride)
      try residuals.columnMeans(rows, blocks: Reconstruction.blockRows, to: mean.base, work: work)
      let sum = try Self.deviations(from: mean.base, reconstruction, target: j, work)
      spreads.append(sum / (Double(rows) * Double(reconstruction.models[j].width)))
    }
    scales = spreads.map(Self.usable)
  }

  /// - Parameter spreads: mean L(r - batch mean of r) by target model, where the recipe scales by it.
  init(_ reconstruction: Reconstruction, spreads: [Double]) {
    self.reconstruction = reconstruction
    tokens = reconstruction.workspace.totalRows
    scales = spreads.map(Self.usable)
  }

  private static func usable(_ spread: Double) -> Double { spread > Double(Float.leastNormalMagnitude) ? spread : 0 }

  /// Factor of the slope of model j's part in the whole loss.
  func slopeFactor(_ target: Int) -> Float {
    guard scales[target] > 0 else { return 0 }
    let ofMean = -1 / (Float(tokens) * Float(models[target].width))
    return ofMean * Float(reconstruction.recipe.auxiliaryCoefficient / scales[target])
  }

  /// Replaces q D_j of a token by its slope dLoss/d(q D_j); returns the loss L(r_j - q D_j), a sum over the width.
  @inline(__always)
  func differentiate(_ decoded: UnsafeMutablePointer<Float>, token: Int, _ target: Reconstruction.Target) -> Double {
    kernels.rows.subtractFrom(target.residual(token), target.stride, decoded)
    let loss = Double(kernels.training.loss(reconstruction.which, decoded, target.stride))
    kernels.training.slope(reconstruction.which, slopeFactor(target.index), decoded, target.stride, decoded)
    return loss
  }

  /// Adds up sums over blocks and models to the loss without its coefficient.
  func total(_ sums: AlignedBuffer<Double>, blocks: Int) -> Double {
    var total = 0.0
    for j in models.indices where scales[j] > 0 {
      var sum = 0.0
      for block in 0..<blocks { sum += sums.base[block * models.count + j] }
      total += sum / (Double(tokens) * Double(models[j].width) * scales[j])
    }
    return total
  }

  /// Sum over the rows of L(r - mean).
  static func deviations(
    from mean: UnsafePointer<Float>, _ reconstruction: Reconstruction, target: Int, _ work: InterruptibleWork
  ) throws(USAEError) -> Double {
    let rows = reconstruction.workspace.rows
    let residuals = reconstruction.workspace.residuals[target]
    let stride = residuals.stride
    let blocks = (rows + Reconstruction.blockRows - 1) / Reconstruction.blockRows
    let sums = try AlignedBuffer<Double>(blocks)
    let scratch = try makeScratch(work.threads, stride)
    try work.runBlocks(rows, of: Reconstruction.blockRows) { block, range, worker in
      let centred = scratch[worker].base
      for t in range {
        centred.update(from: residuals.row(t), count: stride)
        kernels.rows.addScaled(-1, mean, stride, centred)
        sums.base[block] += Double(kernels.training.loss(reconstruction.which, centred, stride))
      }
    }
    var sum = 0.0
    for block in 0..<blocks { sum += sums.base[block] }
    return sum
  }
}
