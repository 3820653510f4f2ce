import USAEKernelTypes

/// The dense gradients of the published AuxK for one tile: of the auxiliary codes, and what they and the codes add to the
/// trained tensors.
///
/// With the absolute loss every slope is one number times a sign, and products with signs are looked up (`SignSums.swift`), at
/// about a quarter of the cost of multiplying. A slope of exactly 0, as good as never met, sends its tile to the products.
struct UnchosenGradients {
  let buffers: UnchosenAuxiliary.Buffers
  let workspace: StepWorkspace
  let models: [ModelParameters]
  let encoder: Int
  let steppedDictionaries: [Int]
  /// Size of the slopes by model, where they are signs.
  let slopeSizes: [Float]

  /// Concepts of one product.
  private static let conceptBlock = 256
  private static let lanes = 16

  /// One thread's room.
  final class Scratch: @unchecked Sendable {
    let tables, values, sums, block, scales: FloatBuffer
    /// Unit rows of a block of concepts, for products.
    private let units: PaddedMatrix

    init(widest: Int) throws(USAEError) {
      tables = try FloatBuffer(12 * 32 * lanes)
      values = try FloatBuffer(widest * lanes)
      sums = try FloatBuffer(max(widest, UnchosenAuxiliary.tileRows) * lanes)
      block = try FloatBuffer(lanes * lanes)
      scales = try FloatBuffer(lanes)
      units = try PaddedMatrix(rows: conceptBlock, columns: widest)
    }

    func unitRows(_ concepts: Range<Int>, of model: ModelParameters) -> UnsafeMutablePointer<Float> {
      let rows = model.dictionary.value
      for c in concepts {
        let out = units.base + (c - concepts.lowerBound) * rows.stride
        out.update(repeating: 0, count: rows.stride)
        kernels.addScaled(model.inverseNorms.base[c], rows.row(c), rows.stride, out)
      }
      return units.base
    }
  }

  /// Adds a tile's part, concept block by block.
  func add(_ rows: Range<Int>, bySigns: Bool, work: Work) throws(USAEError) {
    try work.runBlocks(models[0].concepts, of: Self.conceptBlock) { _, range, worker in
      let scratch = self.buffers.scratch[worker]
      // Sixteen concepts at a time by signs, the rest by products.
      let signed = bySigns ? range.lowerBound..<range.upperBound - range.count % Self.lanes : range.lowerBound..<range.lowerBound
      let multiplied = signed.upperBound..<range.upperBound
      for first in stride(from: signed.lowerBound, to: signed.upperBound, by: Self.lanes) {
        self.lookUpCodeGradients(first, rows.count, scratch)
      }
      if !multiplied.isEmpty { self.multiplyCodeGradients(multiplied, rows.count, scratch) }
      let tokens = self.workspace.inputs[self.encoder]
      self.add(
        self.buffers.codeGradients, tokens.row(rows.lowerBound), tokens.stride, rows.count, range,
        to: self.models[self.encoder].encoderWeight)
      for j in self.steppedDictionaries {
        for first in stride(from: signed.lowerBound, to: signed.upperBound, by: Self.lanes) {
          self.lookUpDictionaryGradient(first, rows.count, model: j, scratch)
        }
        if multiplied.isEmpty { continue }
        let slopes = self.buffers.slopes[j]
        self.add(self.buffers.codes, slopes.base, slopes.stride, rows.count, multiplied, to: self.models[j].dictionary)
      }
    }
  }

  // MARK: By signs

  /// Code gradients of sixteen concepts: sum over j of slopes_j D_j^T, without a multiplication.
  private func lookUpCodeGradients(_ first: Int, _ tokens: Int, _ scratch: Scratch) {
    scratch.sums.base.update(repeating: 0, count: tokens * Self.lanes)
    for (j, model) in models.enumerated() {
      for lane in 0..<Self.lanes { scratch.scales.base[lane] = slopeSizes[j] * model.inverseNorms.base[first + lane] }
      let rows = model.dictionary.value
      kernels.signs.transposeRows(rows.row(first), rows.stride, scratch.scales.base, rows.stride, scratch.values.base)
      kernels.signs.sums(
        scratch.values.base, Self.lanes, model.width, buffers.signsByToken[j].base, UnchosenAuxiliary.tileRows, tokens,
        scratch.tables.base, scratch.sums.base)
    }
    mask(first, tokens, scratch.sums.base, Self.lanes, scratch)
  }

  /// gradient of sixteen dictionary rows += codes^T slopes.
  private func lookUpDictionaryGradient(_ first: Int, _ tokens: Int, model j: Int, _ scratch: Scratch) {
    guard let gradient = models[j].dictionary.gradient else { preconditionFailure("a dense gradient has a buffer") }
    let width = models[j].width
    scratch.sums.base.update(repeating: 0, count: gradient.stride * Self.lanes)
    kernels.signs.sums(
      buffers.codes.base + first, buffers.columns, tokens, buffers.signsByDimension[j].base, buffers.slopes[j].stride, width,
      scratch.tables.base, scratch.sums.base)
    kernels.signs.addTransposed(
      scratch.sums.base, gradient.stride, slopeSizes[j], gradient.row(first), gradient.stride, scratch.block.base)
  }

  // MARK: By products

  private func multiplyCodeGradients(_ range: Range<Int>, _ tokens: Int, _ scratch: Scratch) {
    let out = buffers.codeGradients.base + range.lowerBound
    for (j, model) in models.enumerated() {
      let slopes = buffers.slopes[j]
      let stride = model.dictionary.value.stride
      BLAS.multiply(
        .init(base: slopes.base, stride: slopes.stride),
        .init(base: scratch.unitRows(range, of: model), stride: stride, transposed: true), into: out,
        stride: buffers.columns, rows: tokens, columns: range.count, depth: stride, accumulate: j > 0)
    }
    for first in Swift.stride(from: range.lowerBound, to: range.upperBound, by: Self.lanes) {
      mask(first, tokens, buffers.codeGradients.base + first, buffers.columns, scratch)
    }
  }

  /// gradient[concepts] += left^T right, summed over the tokens of a tile.
  private func add(
    _ left: FloatBuffer, _ right: UnsafePointer<Float>, _ stride: Int, _ tokens: Int, _ concepts: Range<Int>,
    to tensor: Trainable
  ) {
    guard let gradient = tensor.gradient else { preconditionFailure("a dense gradient has a buffer") }
    BLAS.multiply(
      .init(base: left.base + concepts.lowerBound, stride: buffers.columns, transposed: true),
      .init(base: right, stride: stride), into: gradient.row(concepts.lowerBound), stride: gradient.stride,
      rows: concepts.count, columns: gradient.stride, depth: tokens, accumulate: true)
  }

  // MARK: Through ReLU

  /// Keeps the gradients of active codes of sixteen concepts, and adds up their sums over the tokens.
  private func mask(_ first: Int, _ tokens: Int, _ gradients: UnsafePointer<Float>, _ stride: Int, _ scratch: Scratch) {
    scratch.scales.zero()
    kernels.signs.maskAndSum(
      gradients, stride, buffers.codes.base + first, buffers.columns, tokens, buffers.codeGradients.base + first,
      buffers.columns, scratch.scales.base)
    for lane in 0..<Self.lanes { buffers.sums.base[first + lane] += Double(scratch.scales.base[lane]) }
  }
}
