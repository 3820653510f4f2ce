import KernelTypes

/// Decodes a batch to every model that it has (forward), and computes slopes and code gradients from the residuals (backward).
///
/// Rows are those of the codes, one for each encoding (`StepEncodings`). Per row and model: residual r = x - z D, its loss, the
/// slope dLoss/d(z D), and the code gradients, which are dot products with the dictionary rows that decoding has just read.
struct Reconstruction {
  let models: [ModelParameters]
  /// The models that are decoded, ascending.
  let targets: [Int]
  let weights: LossWeights
  let workspace: StepWorkspace
  let recipe: Recipe

  /// Rows of one piece of work, and of one partial sum of the loss.
  static let blockRows = 64

  var which: Int32 { recipe.loss == .l1 ? absoluteLoss : squaredLoss }

  /// dLoss/d(z D) for one unit of the slope of a main loss of weight 1.
  private func slopeFactor(_ target: Int) -> Float {
    -1 / (Float(workspace.totalEncodings) * Float(models[target].width))
  }

  /// How much of the backward pass `forward` does. The dictionary rows that a code's gradients need have just been read.
  enum Backward {
    /// Nothing: the auxiliary loss changes the slopes.
    case none
    /// The code gradients: the auxiliary loss reads the residuals, and replaces them by slopes.
    case codeGradients
    case all
  }

  /// Computes the residuals, the losses by block, and what it can of the backward pass. An auxiliary loss does the rest.
  ///
  /// Model by model: the gathered dictionary rows come from the last cache as long as one dictionary fits into it.
  func forward(_ backward: Backward, work: InterruptibleWork) throws(USAEError) {
    for j in targets {
      let target = makeTarget(j)
      try workspace.encodings.runBlocks(of: Self.blockRows, work) { block, range, worker in
        let scratch = self.workspace.scratch[worker].base
        var sum = 0.0
        for t in range {
          sum += self.decode(token: t, target, scratch: scratch)
          switch backward {
          case .none: break
          case .codeGradients:
            self.startCodeGradients(token: t, target, slope: self.workspace.updateScratch[worker].base, scratch: scratch)
          case .all: self.backward(token: t, target, auxiliarySlope: nil, scratch: scratch)
          }
        }
        self.workspace.lossSums.base[block * self.models.count + j] = sum
      }
    }
  }

  /// One target model as the loops over tokens read it: pointers, as in `ScaledRows` and for the same reason.
  struct Target {
    let index: Int
    /// Whether it comes first, and so starts sums over the targets.
    let isFirst: Bool
    let dictionary: ScaledRows
    private let tokens: UnsafePointer<Float>
    private let encodings: StepEncodings
    /// Residuals of the whole code.
    let residuals: UnsafeMutablePointer<Float>
    /// Rows that this model's own encoder has; none if the step does not encode it.
    private let ownRows: Range<Int>
    private let ownFactor, otherFactor: Float

    /// The stride of tokens, residuals and the dictionary.
    var stride: Int { dictionary.stride }

    /// The target model's token that belongs to a row.
    @inline(__always) func token(_ row: Int) -> UnsafePointer<Float> { tokens + encodings.token(of: row) &* stride }
    @inline(__always) func residual(_ row: Int) -> UnsafeMutablePointer<Float> { residuals + row &* stride }
    /// dLoss/d(z D) of a row for one unit of the main loss's slope.
    @inline(__always) func slopeFactor(_ row: Int) -> Float { ownRows.contains(row) ? ownFactor : otherFactor }

    fileprivate init(
      _ index: Int, isFirst: Bool, _ model: ModelParameters, _ workspace: StepWorkspace, _ weights: LossWeights,
      slopeFactor: Float
    ) {
      self.index = index
      self.isFirst = isFirst
      dictionary = model.scaledRows
      tokens = UnsafePointer(workspace.tokens[index].base)
      encodings = workspace.encodings
      residuals = workspace.residuals[index].base
      ownRows = weights.encoders.firstIndex(of: index).map(encodings.range) ?? 0..<0
      ownFactor = Float(weights.same) * slopeFactor
      otherFactor = Float(weights.other) * slopeFactor
    }
  }

  func makeTarget(_ index: Int) -> Target {
    Target(index, isFirst: index == targets[0], models[index], workspace, weights, slopeFactor: slopeFactor(index))
  }

  /// Computes a token's residual in a target model, and returns its loss there as a sum over the width.
  @inline(__always)
  private func decode(token: Int, _ target: Target, scratch: UnsafeMutablePointer<Float>) -> Double {
    guard let nested = workspace.nested else {
      let residual = target.residual(token)
      target.dictionary.decode(workspace.codes, token: token, scratch: scratch, to: residual)
      return subtract(from: target.token(token), residual, stride: target.stride)
    }
    var rest = target.token(token)
    var sum = 0.0
    for group in 0..<nested.count {
      let residual = nested.rows(group, target: target.index, last: target.residuals) + token &* target.stride
      target.dictionary.decode(
        workspace.codes, token: token, slots: nested.slots(token, group: group), scratch: scratch, to: residual)
      sum += subtract(from: rest, residual, stride: target.stride)
      rest = UnsafePointer(residual)
    }
    return sum / Double(nested.count)
  }

  /// Replaces `decoded` by `rest` - `decoded`, and returns the loss of that.
  @inline(__always)
  private func subtract(from rest: UnsafePointer<Float>, _ decoded: UnsafeMutablePointer<Float>, stride: Int) -> Double {
    kernels.rows.subtractFrom(rest, stride, decoded)
    return Double(kernels.training.loss(which, decoded, stride))
  }

  /// Turns a token's residual in a target model into a slope in place and adds its part to the token's code gradients, which
  /// the first target starts.
  ///
  /// With prefixes, each prefix's residual becomes the sum of the slopes of all prefixes that hold its group.
  ///
  /// - Parameter auxiliarySlope: what the auxiliary loss adds to the slope, where its target, the residual, is not held
  ///   constant.
  @inline(__always)
  func backward(token: Int, _ target: Target, auxiliarySlope: UnsafePointer<Float>?, scratch: UnsafeMutablePointer<Float>) {
    let stride = target.stride
    let gradients = workspace.codeGradients.base + token &* workspace.codes.slots
    if target.isFirst { gradients.update(repeating: 0, count: workspace.codes.count(token)) }
    guard let nested = workspace.nested else {
      let slope = target.residual(token)
      kernels.training.slope(which, target.slopeFactor(token), slope, stride, slope)
      if let auxiliarySlope { kernels.rows.addScaled(1, auxiliarySlope, stride, slope) }
      addCodeGradients(token: token, codes: workspace.codes, slope: slope, target.dictionary, scratch: scratch, to: gradients)
      return
    }
    let factor = target.slopeFactor(token) / Float(nested.count)
    var longer = auxiliarySlope
    for group in Swift.stride(from: nested.count &- 1, through: 0, by: -1) {
      let slope = nested.rows(group, target: target.index, last: target.residuals) + token &* stride
      kernels.training.slope(which, factor, slope, stride, slope)
      if let longer { kernels.rows.addScaled(1, longer, stride, slope) }
      addCodeGradients(
        token: token, codes: workspace.codes, slots: nested.slots(token, group: group), slope: slope, target.dictionary,
        scratch: scratch, to: gradients)
      longer = UnsafePointer(slope)
    }
  }

  /// The code gradients of `backward` without an auxiliary slope and nested prefixes. The residual stays.
  ///
  /// - Parameter slope: scratch memory of the target's stride.
  @inline(__always)
  private func startCodeGradients(
    token: Int, _ target: Target, slope: UnsafeMutablePointer<Float>, scratch: UnsafeMutablePointer<Float>
  ) {
    let gradients = workspace.codeGradients.base + token &* workspace.codes.slots
    if target.isFirst { gradients.update(repeating: 0, count: workspace.codes.count(token)) }
    kernels.training.slope(which, target.slopeFactor(token), target.residual(token), target.stride, slope)
    addCodeGradients(token: token, codes: workspace.codes, slope: slope, target.dictionary, scratch: scratch, to: gradients)
  }

  /// What `backward` does after `startCodeGradients`: turns the residual into a slope.
  @inline(__always)
  func finishBackward(token: Int, _ target: Target) {
    let slope = target.residual(token)
    kernels.training.slope(which, target.slopeFactor(token), slope, target.stride, slope)
  }

  /// gradients[q] += slope . scaled dictionary row of slot q, for all slots of the token or some.
  @inline(__always)
  func addCodeGradients(
    token: Int, codes: CodeBuffer, slots: Range<Int>? = nil, slope: UnsafePointer<Float>, _ dictionary: ScaledRows,
    scratch: UnsafeMutablePointer<Float>, to gradients: UnsafeMutablePointer<Float>
  ) {
    let slots = slots ?? 0..<codes.count(token)
    let count = slots.count
    let indices = codes.indices(token) + slots.lowerBound
    let gradients = gradients + slots.lowerBound
    kernels.rows.dots(slope, dictionary.rows, dictionary.stride, indices, count, dictionary.stride, scratch)
    for q in 0..<count { gradients[q] += scratch[q] * dictionary.rowScales[Int(indices[q])] }
  }

  /// Mean main loss by seat and model, without weights; NaN for one that is not decoded; with prefixes, the mean over them.
  func losses() -> [[Double]] {
    let blocks = workspace.encodings.blocks(of: Self.blockRows)
    return (0..<workspace.encodings.encoders).map { seat in
      models.indices.map { j in
        guard targets.contains(j) else { return .nan }
        var sum = 0.0
        for block in seat * blocks..<(seat + 1) * blocks { sum += workspace.lossSums.base[block * models.count + j] }
        return sum / (Double(workspace.totalRows) * Double(models[j].width))
      }
    }
  }
}
