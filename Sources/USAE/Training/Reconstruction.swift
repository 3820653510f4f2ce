import USAEKernelTypes

/// Decoding a batch to every model, and the way back from the residual to the codes.
///
/// Per token and model: residual r = x - z D, its loss, the slope dLoss/d(z D), and the code gradients, which are dot
/// products with the dictionary rows that decoding has just read.
struct Reconstruction {
  let models: [ModelParameters]
  let workspace: StepWorkspace
  let recipe: Recipe

  /// Tokens in one piece of work, and in one partial sum of the loss.
  static let blockRows = 64

  var which: Int32 { recipe.loss == .l1 ? absoluteLoss : squaredLoss }

  /// dLoss/d(z D) for one unit of the main loss's slope.
  func slopeFactor(_ target: Int) -> Float { -1 / (Float(workspace.rows) * Float(models[target].width)) }

  /// Fills the residuals, and the losses by block; where no auxiliary loss waits for the residuals, also the way back.
  ///
  /// Model by model: the gathered dictionary rows come from the last cache as long as one dictionary fits into it.
  func forward(finish: Bool, work: Work) throws(USAEError) {
    for j in models.indices {
      try work.runBlocks(workspace.rows, of: Self.blockRows) { block, range, worker in
        let spare = self.workspace.spares[worker].base
        var sum = 0.0
        for t in range {
          let residual = self.workspace.residuals[j].row(t)
          self.models[j].decode(self.workspace.codes, token: t, spare: spare, to: residual)
          kernels.subtractFrom(self.workspace.inputs[j].row(t), self.workspace.residuals[j].stride, residual)
          sum += Double(kernels.loss(self.which, residual, self.workspace.residuals[j].stride))
          if finish { self.backward(token: t, target: j, auxiliarySlope: nil, spare: spare) }
        }
        self.workspace.lossSums.base[block * self.models.count + j] = sum
      }
    }
  }

  /// Turns a token's residual in model `target` into a slope in place and adds its part to the token's code gradients;
  /// model 0 comes first and starts them.
  ///
  /// - Parameter auxiliarySlope: what a residual that is not a constant for the auxiliary loss adds to the slope.
  @inline(__always)
  func backward(token: Int, target: Int, auxiliarySlope: UnsafePointer<Float>?, spare: UnsafeMutablePointer<Float>) {
    let gradients = workspace.codeGradients.base + token &* workspace.codes.slots
    if target == 0 { for q in 0..<workspace.codes.count(token) { gradients[q] = 0 } }
    let slope = workspace.residuals[target].row(token)
    let stride = workspace.residuals[target].stride
    kernels.slope(which, slopeFactor(target), slope, stride, slope)
    if let auxiliarySlope { kernels.addScaled(1, auxiliarySlope, stride, slope) }
    addCodeGradients(token: token, codes: workspace.codes, slope: slope, target: target, spare: spare, to: gradients)
  }

  /// gradients[q] += slope . unit dictionary row of slot q.
  @inline(__always)
  func addCodeGradients(
    token: Int, codes: CodeBuffer, slope: UnsafePointer<Float>, target: Int, spare: UnsafeMutablePointer<Float>,
    to gradients: UnsafeMutablePointer<Float>
  ) {
    let count = codes.count(token)
    let indices = codes.indices(token)
    let rows = models[target].dictionary.value
    kernels.dots(slope, rows.base, rows.stride, indices, count, rows.stride, spare)
    let norms = models[target].inverseNorms.base
    for q in 0..<count { gradients[q] += spare[q] * norms[Int(indices[q])] }
  }

  /// Mean main loss by target model.
  func losses() -> [Double] {
    let blocks = (workspace.rows + Self.blockRows - 1) / Self.blockRows
    return models.indices.map { j in
      var sum = 0.0
      for block in 0..<blocks { sum += workspace.lossSums.base[block * models.count + j] }
      return sum / (Double(workspace.rows) * Double(models[j].width))
    }
  }
}

extension ModelParameters {
  /// out = codes of one token times the unit rows of the dictionary, in standardised units.
  ///
  /// - Parameter spare: room for a float for each slot.
  @inline(__always)
  func decode(_ codes: CodeBuffer, token: Int, spare: UnsafeMutablePointer<Float>, to out: UnsafeMutablePointer<Float>) {
    let count = codes.count(token)
    let indices = codes.indices(token)
    let values = codes.values(token)
    for q in 0..<count { spare[q] = values[q] * inverseNorms.base[Int(indices[q])] }
    let rows = dictionary.value
    kernels.weightedRows(rows.base, rows.stride, indices, spare, count, rows.stride, out)
  }
}
