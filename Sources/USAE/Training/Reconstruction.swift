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
  func slopeFactor(_ target: Int) -> Float { -1 / (Float(workspace.totalRows) * Float(models[target].width)) }

  /// Fills the residuals, and the losses by block; where no auxiliary loss waits for the residuals, also the way back.
  ///
  /// Model by model: the gathered dictionary rows come from the last cache as long as one dictionary fits into it.
  func forward(finish: Bool, work: Work) throws(USAEError) {
    for j in models.indices {
      try work.runBlocks(workspace.rows, of: Self.blockRows) { block, range, worker in
        let spare = self.workspace.spares[worker].base
        var sum = 0.0
        for t in range {
          sum += self.decode(token: t, target: j, spare: spare)
          if finish { self.backward(token: t, target: j, auxiliarySlope: nil, spare: spare) }
        }
        self.workspace.lossSums.base[block * self.models.count + j] = sum
      }
    }
  }

  /// Leaves a token's residuals in model `target`, and returns its loss there as a sum over the width.
  @inline(__always)
  private func decode(token: Int, target: Int, spare: UnsafeMutablePointer<Float>) -> Double {
    guard let nested = workspace.nested else {
      let residual = workspace.residuals[target].row(token)
      models[target].decode(workspace.codes, token: token, spare: spare, to: residual)
      return subtract(from: workspace.inputs[target].row(token), residual, target: target)
    }
    var rest = workspace.inputs[target].row(token)
    var sum = 0.0
    for group in 0..<nested.count {
      let residual = nested.matrix(group, target: target, last: workspace.residuals[target]).row(token)
      models[target].decode(
        workspace.codes, token: token, slots: nested.slots(token, group: group), spare: spare, to: residual)
      sum += subtract(from: rest, residual, target: target)
      rest = residual
    }
    return sum / Double(nested.count)
  }

  /// What is left of `rest`, in place of what was decoded; returns its loss.
  @inline(__always)
  private func subtract(from rest: UnsafePointer<Float>, _ decoded: UnsafeMutablePointer<Float>, target: Int) -> Double {
    let stride = workspace.residuals[target].stride
    kernels.subtractFrom(rest, stride, decoded)
    return Double(kernels.loss(which, decoded, stride))
  }

  /// Turns a token's residual in model `target` into a slope in place and adds its part to the token's code gradients;
  /// model 0 comes first and starts them.
  ///
  /// With prefixes, each prefix's residual becomes the sum of the slopes of all prefixes that hold its group.
  ///
  /// - Parameter auxiliarySlope: what a residual that is not a constant for the auxiliary loss adds to the slope.
  @inline(__always)
  func backward(token: Int, target: Int, auxiliarySlope: UnsafePointer<Float>?, spare: UnsafeMutablePointer<Float>) {
    let gradients = workspace.codeGradients.base + token &* workspace.codes.slots
    if target == 0 { for q in 0..<workspace.codes.count(token) { gradients[q] = 0 } }
    let last = workspace.residuals[target]
    guard let nested = workspace.nested else {
      let slope = last.row(token)
      kernels.slope(which, slopeFactor(target), slope, last.stride, slope)
      if let auxiliarySlope { kernels.addScaled(1, auxiliarySlope, last.stride, slope) }
      addCodeGradients(token: token, codes: workspace.codes, slope: slope, target: target, spare: spare, to: gradients)
      return
    }
    let factor = slopeFactor(target) / Float(nested.count)
    var longer = auxiliarySlope
    for group in stride(from: nested.count &- 1, through: 0, by: -1) {
      let slope = nested.matrix(group, target: target, last: last).row(token)
      kernels.slope(which, factor, slope, last.stride, slope)
      if let longer { kernels.addScaled(1, longer, last.stride, slope) }
      addCodeGradients(
        token: token, codes: workspace.codes, slots: nested.slots(token, group: group), slope: slope, target: target,
        spare: spare, to: gradients)
      longer = UnsafePointer(slope)
    }
  }

  /// gradients[q] += slope . unit dictionary row of slot q, for all slots of the token or some.
  @inline(__always)
  func addCodeGradients(
    token: Int, codes: CodeBuffer, slots: Range<Int>? = nil, slope: UnsafePointer<Float>, target: Int,
    spare: UnsafeMutablePointer<Float>, to gradients: UnsafeMutablePointer<Float>
  ) {
    let slots = slots ?? 0..<codes.count(token)
    let count = slots.count
    let indices = codes.indices(token) + slots.lowerBound
    let gradients = gradients + slots.lowerBound
    let rows = models[target].dictionary.value
    kernels.dots(slope, rows.base, rows.stride, indices, count, rows.stride, spare)
    let norms = models[target].inverseNorms.base
    for q in 0..<count { gradients[q] += spare[q] * norms[Int(indices[q])] }
  }

  /// Mean main loss by target model, with prefixes the mean over them.
  func losses() -> [Double] {
    let blocks = (workspace.rows + Self.blockRows - 1) / Self.blockRows
    return models.indices.map { j in
      var sum = 0.0
      for block in 0..<blocks { sum += workspace.lossSums.base[block * models.count + j] }
      return sum / (Double(workspace.totalRows) * Double(models[j].width))
    }
  }
}

extension ModelParameters {
  /// out = codes of one token times the unit rows of the dictionary, in standardised units.
  ///
  /// - Parameters:
  ///   - slots: those to take; nil takes all.
  ///   - spare: room for a float for each slot.
  @inline(__always)
  func decode(
    _ codes: CodeBuffer, token: Int, slots: Range<Int>? = nil, spare: UnsafeMutablePointer<Float>,
    to out: UnsafeMutablePointer<Float>
  ) {
    let slots = slots ?? 0..<codes.count(token)
    let count = slots.count
    let indices = codes.indices(token) + slots.lowerBound
    let values = codes.values(token) + slots.lowerBound
    for q in 0..<count { spare[q] = values[q] * inverseNorms.base[Int(indices[q])] }
    let rows = dictionary.value
    kernels.weightedRows(rows.base, rows.stride, indices, spare, count, rows.stride, out)
  }
}
