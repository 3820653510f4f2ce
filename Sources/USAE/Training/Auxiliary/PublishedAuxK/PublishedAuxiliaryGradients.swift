import KernelTypes

/// The dense gradients of the published AuxK for one tile: of the auxiliary codes, and what they and the codes add to the
/// trained tensors.
///
/// With the absolute loss every slope is one number times a sign, so products with slopes are looked up in tables of sums
/// (`SignSums.swift`), at about a quarter of the cost of multiplying. A tile with a slope of exactly 0, which hardly ever
/// happens, takes the products. About half of the codes' entries, and so of their gradients, are 0, which products with them
/// skip.
struct PublishedAuxiliaryGradients {
  private let buffers: PublishedAuxiliary.Buffers
  private let models: [ModelParameters]
  private let encoder: Int
  private let sums: AlignedBuffer<Double>
  private let tokens: PaddedMatrix
  private let steppedDictionaries, present: [Int]
  /// Absolute value of every slope by target model, where slopes are one number times a sign.
  private let slopeSizes: [Float]

  init(_ step: TrainingStep, seat: Int, buffers: PublishedAuxiliary.Buffers, slopeSizes: [Float]) {
    self.buffers = buffers
    models = step.models
    encoder = step.encoders[seat]
    sums = buffers.sums[seat]
    tokens = step.workspace.inputs[encoder]
    (steppedDictionaries, present) = (step.steppedDictionaries, step.present)
    self.slopeSizes = slopeSizes
  }

  /// Concepts that one thread takes at a time.
  private static let conceptBlock = 256
  private static let lanes = 16
  private static let tileRows = PublishedAuxiliary.tileRows

  /// One thread's memory.
  final class Scratch: @unchecked Sendable {
    let tables, values, sums, block, scales: FloatBuffer
    /// Gradients or codes of a block of concepts, [conceptBlock, tileRows].
    let byConcept: FloatBuffer
    /// Gradients of a block of concepts as a product leaves them, [tileRows, conceptBlock].
    let byToken: FloatBuffer
    /// Scaled dictionary rows of a block of concepts, for products.
    private let scaledRows: PaddedMatrix
    /// A token's positive pre-activations.
    let keys: AlignedBuffer<UInt64>

    init(columns: Int, widest: Int) throws(USAEError) {
      keys = try AlignedBuffer<UInt64>(columns)
      tables = try FloatBuffer(12 * 32 * lanes)
      values = try FloatBuffer(widest * lanes)
      sums = try FloatBuffer(max(widest, tileRows) * lanes)
      block = try FloatBuffer(lanes * lanes)
      scales = try FloatBuffer(lanes)
      byConcept = try FloatBuffer(conceptBlock * tileRows)
      byToken = try FloatBuffer(conceptBlock * tileRows)
      scaledRows = try PaddedMatrix(rows: conceptBlock, columns: widest)
    }

    func dictionaryRows(_ concepts: Range<Int>, of model: ModelParameters) -> UnsafeMutablePointer<Float> {
      let rows = model.dictionary.value
      for c in concepts {
        let out = scaledRows.base + (c - concepts.lowerBound) * rows.stride
        out.update(repeating: 0, count: rows.stride)
        kernels.rows.addScaled(model.rowScales.base[c], rows.row(c), rows.stride, out)
      }
      return scaledRows.base
    }
  }

  /// Adds a tile's part of the gradients, one block of concepts after the other.
  ///
  /// - Parameter rows: the tile's tokens.
  func add(_ rows: Range<Int>, bySigns: Bool, work: InterruptibleWork) throws(USAEError) {
    let panels = try buffers.tokens(width: tokens.columns)
    try panels.pack(tokens.row(rows.lowerBound), stride: tokens.stride, count: rows.count, work: work)
    // Sixteen concepts at a time by signs, the rest by products.
    let signed = bySigns ? models[0].concepts / Self.lanes * Self.lanes : 0
    if signed < models[0].concepts {
      for j in steppedDictionaries {
        let slopes = buffers.slopes[j]
        try buffers.slopePanels[j].pack(slopes.base, stride: slopes.stride, count: rows.count, work: work)
      }
    }
    try work.runBlocks(models[0].concepts, of: Self.conceptBlock) { _, range, worker in
      let scratch = self.buffers.scratch[worker]
      let multiplied = max(range.lowerBound, min(range.upperBound, signed))..<range.upperBound
      for first in stride(from: range.lowerBound, to: multiplied.lowerBound, by: Self.lanes) {
        self.lookUpCodeGradients(first, rows.count, scratch)
        self.passThroughReLU(first, rows.count, scratch.sums.base, Self.lanes, of: range, scratch)
      }
      if !multiplied.isEmpty { self.multiplyCodeGradients(multiplied, rows.count, of: range, scratch) }
      self.addProduct(scratch, range, rows.count, panels, to: self.models[self.encoder].encoderWeight, range)
      for j in self.steppedDictionaries {
        for first in stride(from: range.lowerBound, to: multiplied.lowerBound, by: Self.lanes) {
          self.lookUpDictionaryGradient(first, rows.count, model: j, scratch)
        }
        if multiplied.isEmpty { continue }
        self.gatherCodes(multiplied, rows.count, of: range, scratch)
        self.addProduct(scratch, multiplied, rows.count, self.buffers.slopePanels[j], to: self.models[j].dictionary, range)
      }
    }
  }

  // MARK: By signs

  /// Code gradients of sixteen concepts: sum over j of slopes_j D_j^T, without a multiplication.
  private func lookUpCodeGradients(_ first: Int, _ tokens: Int, _ scratch: Scratch) {
    scratch.sums.base.update(repeating: 0, count: tokens * Self.lanes)
    for j in present {
      let model = models[j]
      for lane in 0..<Self.lanes { scratch.scales.base[lane] = slopeSizes[j] * model.rowScales.base[first + lane] }
      let rows = model.dictionary.value
      kernels.transpose.rows(rows.row(first), rows.stride, scratch.scales.base, rows.stride, scratch.values.base)
      kernels.signs.sums(
        scratch.values.base, Self.lanes, model.width, buffers.signsByToken[j].base, Self.tileRows, tokens,
        scratch.tables.base, scratch.sums.base)
    }
  }

  /// gradient of sixteen dictionary rows += codes^T slopes.
  private func lookUpDictionaryGradient(_ first: Int, _ tokens: Int, model j: Int, _ scratch: Scratch) {
    guard let gradient = models[j].dictionary.gradient else { preconditionFailure("a dense gradient has a buffer") }
    let width = models[j].width
    scratch.sums.base.update(repeating: 0, count: gradient.stride * Self.lanes)
    kernels.signs.sums(
      buffers.codes.row(0, concept: first), SkippingKernels.depth, tokens, buffers.signsByDimension[j].base,
      buffers.slopes[j].stride, width, scratch.tables.base, scratch.sums.base)
    kernels.transpose.addLanes(
      scratch.sums.base, gradient.stride, slopeSizes[j], gradient.row(first), gradient.stride, scratch.block.base)
  }

  // MARK: By products

  private func multiplyCodeGradients(_ concepts: Range<Int>, _ tokens: Int, of block: Range<Int>, _ scratch: Scratch) {
    for j in present {
      let (model, slopes) = (models[j], buffers.slopes[j])
      let stride = model.dictionary.value.stride
      BLAS.multiply(
        .init(base: slopes.base, stride: slopes.stride),
        .init(base: scratch.dictionaryRows(concepts, of: model), stride: stride, transposed: true), into: scratch.byToken.base,
        stride: Self.conceptBlock, rows: tokens, columns: concepts.count, depth: stride, accumulate: j != present[0])
    }
    for first in Swift.stride(from: concepts.lowerBound, to: concepts.upperBound, by: Self.lanes) {
      passThroughReLU(
        first, tokens, scratch.byToken.base + (first - concepts.lowerBound), Self.conceptBlock, of: block, scratch)
    }
  }

  /// Codes of some concepts of a block, by concept.
  private func gatherCodes(_ concepts: Range<Int>, _ tokens: Int, of block: Range<Int>, _ scratch: Scratch) {
    for first in stride(from: concepts.lowerBound, to: concepts.upperBound, by: Self.lanes) {
      transpose(buffers.codes.row(0, concept: first), SkippingKernels.depth, first, tokens, of: block, scratch)
    }
  }

  /// gradient of `concepts` += their rows of `byConcept` times a tile's rows.
  private func addProduct(
    _ scratch: Scratch, _ concepts: Range<Int>, _ tokens: Int, _ rows: ColumnPanels, to tensor: Trainable, _ block: Range<Int>
  ) {
    guard let gradient = tensor.gradient else { preconditionFailure("a dense gradient has a buffer") }
    for panel in 0..<rows.count {
      for first in stride(from: 0, to: tokens, by: SkippingKernels.depth) {
        rows.add(
          scratch.byConcept.base + (concepts.lowerBound - block.lowerBound) * Self.tileRows + first, stride: Self.tileRows,
          rows: concepts.count, first: first, panel: panel, to: gradient.row(concepts.lowerBound), stride: gradient.stride)
      }
    }
  }

  // MARK: Both

  /// The backward pass of ReLU for sixteen concepts: keeps the gradients of active codes, by concept, and adds up their sums
  /// over the tokens.
  private func passThroughReLU(
    _ first: Int, _ tokens: Int, _ gradients: UnsafeMutablePointer<Float>, _ stride: Int, of block: Range<Int>,
    _ scratch: Scratch
  ) {
    scratch.scales.zero()
    kernels.signs.maskAndSum(
      gradients, stride, buffers.codes.row(0, concept: first), SkippingKernels.depth, tokens, gradients, stride,
      scratch.scales.base)
    for lane in 0..<Self.lanes { sums.base[first + lane] += Double(scratch.scales.base[lane]) }
    transpose(gradients, stride, first, tokens, of: block, scratch)
  }

  /// Sixteen columns of a tile become rows of `byConcept`, with zeros after the last token.
  private func transpose(
    _ values: UnsafePointer<Float>, _ stride: Int, _ first: Int, _ tokens: Int, of block: Range<Int>, _ scratch: Scratch
  ) {
    let out = scratch.byConcept.base + (first - block.lowerBound) * Self.tileRows
    kernels.transpose.lanes(values, stride, paddedWidth(tokens), out, Self.tileRows)
    let end = min(Self.tileRows, (tokens + SkippingKernels.depth - 1) / SkippingKernels.depth * SkippingKernels.depth)
    for lane in 0..<Self.lanes {
      (out + lane * Self.tileRows + tokens).update(repeating: 0, count: end - tokens)
    }
  }
}
