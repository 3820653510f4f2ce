import Synchronization
import KernelTypes

/// The published AuxK: the largest positive pre-activations that are not in the main code reconstruct the residual. They are of
/// **all** concepts, and as many as half of them.
///
/// About half of such a code's entries are not 0, so it is decoded by products that skip zeros (`ColumnPanels`), in tiles of a
/// thousand tokens, so that no array grows with tokens times concepts. `PublishedAuxiliaryGradients` is the backward pass. Each
/// sum is made by one thread, and tiles follow each other in order, so sums never depend on threads.
struct PublishedAuxiliary {
  private let step: TrainingStep
  private let forward: TrainingStep.Forward
  private let buffers: Buffers
  private let reconstruction: Reconstruction
  private let slots: Int

  init(_ step: TrainingStep, _ forward: TrainingStep.Forward, buffers: Buffers) {
    self.step = step
    self.forward = forward
    self.buffers = buffers
    reconstruction = step.reconstruction
    slots = step.auxiliarySlots
  }

  /// Tokens of a tile: a multiple of the signs of a word, and of 32.
  static let tileRows = 16 * signsPerWord
  /// Tokens of one partial sum of the loss.
  private static let tokenBlock = signsPerWord

  private var models: [ModelParameters] { step.models }
  private var workspace: StepWorkspace { step.workspace }

  /// Returns the loss without its coefficient; leaves dense gradients in the gradient buffers, and the main code's slopes and
  /// gradients in the workspace.
  func run(_ loss: AuxiliaryLoss, work: InterruptibleWork) throws(USAEError) -> Double {
    try packDictionaries(work: work)
    let blocks = workspace.encodings.blocks(of: Self.tokenBlock)
    let sums = try AlignedBuffer<Double>(step.encoders.count * blocks * models.count)
    for seat in step.encoders.indices {
      buffers.sums[seat].zero()
      let packed = try packedEncoder(seat, work: work)
      let slopeSizes = models.indices.map { abs(loss.slopeFactor($0, seat: seat)) }
      let gradients = PublishedAuxiliaryGradients(step, seat: seat, buffers: buffers, slopeSizes: slopeSizes)
      try BLAS.exclusively { () throws(USAEError) in
        for first in stride(from: 0, to: workspace.rows, by: Self.tileRows) {
          let tile = first..<min(workspace.rows, first + Self.tileRows)
          try selectCodes(seat, packed, tile, work: work)
          try decode(count: tile.count, work: work)
          let signed = try differentiate(
            tile, row: workspace.encodings.range(seat).lowerBound, block: seat * blocks, loss: loss, sums: sums, work: work)
          try gradients.add(tile, bySigns: signed, work: work)
        }
      }
    }
    return loss.total(sums, blocks: blocks)
  }

  /// The packed encoder at a seat. Models of the same width share its memory, so where there are several it is packed again.
  private func packedEncoder(_ seat: Int, work: InterruptibleWork) throws(USAEError) -> PackedEncoder {
    let encoded = forward.encoded[seat]
    if step.encoders.count == 1 { return encoded.encoder }
    return try workspace.pack(models[step.encoders[seat]], encoded.statistics, work: work)
  }

  /// Packs the scaled rows of the dictionaries as the products read them.
  private func packDictionaries(work: InterruptibleWork) throws(USAEError) {
    for j in step.present {
      let (model, rows) = (models[j], models[j].dictionary.value)
      try buffers.dictionaries[j].pack(
        rows.base, stride: rows.stride, count: rows.rows, scales: model.rowScales.base, work: work)
    }
  }

  /// Selects the auxiliary codes of a tile.
  private func selectCodes(
    _ seat: Int, _ packed: PackedEncoder, _ tokens: Range<Int>, work: InterruptibleWork
  ) throws(USAEError) {
    let first = workspace.encodings.range(seat).lowerBound
    let rows = first + tokens.lowerBound..<first + tokens.upperBound
    try packed.forEachDenseTile(
      of: workspace.inputs[step.encoders[seat]], tokens, scratch: buffers.dense, work: work
    ) { tile in
      let keys = self.buffers.scratch[tile.worker].keys.base
      for token in tile.rows { self.selectCode(tile[token], columns: packed.columns, row: first + token, of: rows, keys) }
    }
  }

  /// Selects all positive pre-activations of a token that are not in its main code, or the largest where there are more than
  /// slots.
  private func selectCode(
    _ preactivations: UnsafePointer<Float>, columns: Int, row: Int, of tile: Range<Int>,
    _ keys: UnsafeMutablePointer<UInt64>
  ) {
    let (codes, main) = (buffers.codes, workspace.codes)
    let token = row - tile.lowerBound
    let positive = kernels.skipping.rectify(preactivations, columns, codes.row(token, concept: 0), codes.pieceStride)
    let selected = main.count(row)
    for q in 0..<selected { codes[token, main.indices(row)[q]] = 0 }
    guard positive > selected + slots else { return }
    let count = kernels.selection.scan(preactivations, columns, 0, keys)
    kernels.selection.partition(keys, count, selected + slots)
    for key in selected + slots..<count { codes[token, column(ofKey: keys[key])] = 0 }
  }

  /// Computes q D_j of a tile for every model that the batch has.
  private func decode(count: Int, work: InterruptibleWork) throws(USAEError) {
    let codes = buffers.codes
    let chunk = Self.tileRows / 4
    let chunks = (count + chunk - 1) / chunk
    for j in step.present {
      let (panels, out) = (buffers.dictionaries[j], buffers.slopes[j])
      try work.run(panels.count * chunks) { item, _ in
        let panel = item / chunks
        let first = item % chunks * chunk
        let rows = min(chunk, count - first)
        for t in first..<first + rows {
          (out.row(t) + panels.range(panel).lowerBound).update(repeating: 0, count: panels.range(panel).count)
        }
        for concept in stride(from: 0, to: self.models[0].concepts, by: SkippingKernels.depth) {
          panels.add(
            codes.row(first, concept: concept), stride: SkippingKernels.depth, rows: rows, first: concept, panel: panel,
            to: out.row(first), stride: out.stride)
        }
      }
    }
  }

  /// For the tokens of a tile: replaces q D_j by dLoss/d(q D_j), and computes the loss and the main code's slopes and
  /// gradients.
  ///
  /// Returns whether every slope is one number times +1 or -1, and then leaves the signs in the buffers.
  ///
  /// - Parameters:
  ///   - row: the encoder's first row (`StepEncodings`).
  ///   - block: the number of its first block.
  private func differentiate(
    _ tokens: Range<Int>, row: Int, block first: Int, loss: AuxiliaryLoss, sums: AlignedBuffer<Double>,
    work: InterruptibleWork
  ) throws(USAEError) -> Bool {
    let firstBlock = first + tokens.lowerBound / Self.tokenBlock
    let wantsSigns = reconstruction.recipe.loss == .l1
    let anyZero = Atomic<Bool>(!wantsSigns)
    let targets = step.present.map(reconstruction.makeTarget)
    try work.runBlocks(tokens.count, of: Self.tokenBlock) { block, range, worker in
      let scratch = self.workspace.scratch[worker].base
      let detached = self.reconstruction.recipe.auxiliaryDetach
      for target in targets {
        let j = target.index
        var sum = 0.0
        for offset in range {
          let row = row + tokens.lowerBound + offset
          let rest = self.buffers.slopes[j].row(offset)
          sum += loss.differentiate(rest, row: row, target)
          self.reconstruction.backward(token: row, target, auxiliarySlope: detached ? nil : rest, scratch: scratch)
        }
        sums.base[(firstBlock + block) * self.models.count + j] = sum
        if wantsSigns, self.buffers.noteSigns(range, model: j, width: self.models[j].width) {
          anyZero.store(true, ordering: .relaxed)
        }
      }
    }
    return !anyZero.load(ordering: .relaxed)
  }
}
