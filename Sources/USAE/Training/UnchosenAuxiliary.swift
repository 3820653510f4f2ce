import Synchronization
import USAEKernelTypes

/// AuxK as published: the largest of **all** unchosen positive codes (half of the dictionary) reconstruct the residual.
///
/// Such a code is dense, so this is done in matrix products, tile by tile of a few hundred tokens: no array grows with
/// tokens times concepts. Forwards the products are our kernel's; `UnchosenGradients` goes back. Each product is one thread's
/// on a fixed grid, and tiles follow each other in order, so the sums never depend on threads.
struct UnchosenAuxiliary {
  let reconstruction: Reconstruction
  let encoder: Int
  let steppedDictionaries: [Int]
  let buffers: Buffers
  let k, slots: Int

  /// Whole words of signs, and close to whole blocks of the product kernel.
  static let tileRows = 8 * signsPerWord
  /// Tokens of one sum of the loss.
  private static let tokenBlock = signsPerWord

  private var models: [ModelParameters] { reconstruction.models }
  private var workspace: StepWorkspace { reconstruction.workspace }

  /// Loss before its coefficient; leaves dense gradients in the gradient buffers, and the main code's slopes and gradients.
  func run(tiles: [EncoderTile], work: Work) throws(USAEError) -> Double {
    let loss = try AuxiliaryLoss(reconstruction, work: work)
    try packDictionaries(work: work)
    buffers.sums.zero()
    let blocks = (workspace.rows + Self.tokenBlock - 1) / Self.tokenBlock
    let sums = try AlignedBuffer<Double>(blocks * models.count)
    let gradients = UnchosenGradients(
      buffers: buffers, workspace: workspace, models: models, encoder: encoder, steppedDictionaries: steppedDictionaries,
      slopeSizes: models.indices.map { abs(loss.slopeFactor($0)) })
    try BLAS.exclusively { () throws(USAEError) in
      for first in stride(from: 0, to: workspace.rows, by: Self.tileRows) {
        let tile = first..<min(workspace.rows, first + Self.tileRows)
        try selectCodes(tile, tiles: tiles, work: work)
        try decode(count: tile.count, work: work)
        let signed = try differentiate(tile, loss: loss, sums: sums, work: work)
        try gradients.add(tile, bySigns: signed, work: work)
      }
    }
    return loss.total(sums, blocks: blocks)
  }

  /// Unit rows of the dictionaries as the product reads them.
  private func packDictionaries(work: Work) throws(USAEError) {
    let width = kernels.panelWidth
    for (model, panels) in zip(models, buffers.panels) {
      let rows = model.dictionary.value
      try work.run((rows.stride + width - 1) / width) { panel, _ in
        kernels.packColumns(
          rows.base + panel * width, rows.stride, rows.rows, model.inverseNorms.base, min(width, rows.stride - panel * width),
          panels.base + panel * width * rows.rows)
      }
    }
  }

  /// The auxiliary codes of a tile, dense.
  private func selectCodes(_ rows: Range<Int>, tiles: [EncoderTile], work: Work) throws(USAEError) {
    let columns = buffers.columns
    try tiles[0].encoder.forEachToken(of: workspace.inputs[encoder], rows, dense: true, tiles: tiles, work: work) {
      row, tile, token in
      let out = self.buffers.codes.base + (row - rows.lowerBound) * columns
      out.update(repeating: 0, count: columns)
      let keys = tile.keys.base
      let positive = kernels.scan(tile.preactivations(token), columns, 0, keys)
      guard positive > self.k else { return }
      kernels.partition(keys, positive, self.k)  // the first k are the main code
      kernels.partition(keys + self.k, positive - self.k, self.slots)
      for key in self.k..<min(positive, self.k + self.slots) { out[Int(column(ofKey: keys[key]))] = value(ofKey: keys[key]) }
    }
  }

  /// q D_j of a tile for every model.
  private func decode(count: Int, work: Work) throws(USAEError) {
    let concepts = models[0].concepts
    let block = kernels.tokensPerBlock
    try work.runBlocks(count, of: block) { _, range, _ in
      kernels.packTokens(
        self.buffers.codes.base + range.lowerBound * self.buffers.columns, self.buffers.columns, range.count, concepts,
        self.buffers.packedCodes.base + range.lowerBound * concepts)
    }
    let width = kernels.panelWidth
    for (panels, out) in zip(buffers.panels, buffers.slopes) {
      try work.run(out.stride / width) { panel, _ in
        for first in stride(from: 0, to: count, by: block) {
          kernels.product(
            concepts, self.buffers.packedCodes.base + first * concepts, panels.base + panel * width * concepts,
            self.buffers.noBias.base, min(block, count - first), out.row(first) + panel * width, out.stride)
        }
      }
    }
  }

  /// From q D_j to dLoss/d(q D_j) in place, the loss, and the main code's slopes and gradients, for the tokens of a tile.
  ///
  /// Returns whether every slope is one number times +1 or -1, and then leaves the signs in the buffers.
  private func differentiate(
    _ rows: Range<Int>, loss: AuxiliaryLoss, sums: AlignedBuffer<Double>, work: Work
  ) throws(USAEError) -> Bool {
    let firstBlock = rows.lowerBound / Self.tokenBlock
    let wantsSigns = reconstruction.recipe.loss == .l1
    let anyZero = Atomic<Bool>(!wantsSigns)
    try work.runBlocks(rows.count, of: Self.tokenBlock) { block, range, worker in
      let spare = self.workspace.spares[worker].base
      let detached = self.reconstruction.recipe.auxiliaryDetach
      for j in self.models.indices {
        var sum = 0.0
        for offset in range {
          sum += self.differentiate(token: rows.lowerBound + offset, offset, target: j, factor: loss.slopeFactor(j))
          self.reconstruction.backward(
            token: rows.lowerBound + offset, target: j, auxiliarySlope: detached ? nil : self.buffers.slopes[j].row(offset),
            spare: spare)
        }
        sums.base[(firstBlock + block) * self.models.count + j] = sum
        if wantsSigns, self.buffers.noteSigns(range, model: j, width: self.models[j].width) {
          anyZero.store(true, ordering: .relaxed)
        }
      }
    }
    return !anyZero.load(ordering: .relaxed)
  }

  private func differentiate(token: Int, _ offset: Int, target: Int, factor: Float) -> Double {
    let rest = buffers.slopes[target].row(offset)
    let residual = workspace.residuals[target]
    kernels.subtractFrom(residual.row(token), residual.stride, rest)
    let loss = Double(kernels.loss(reconstruction.which, rest, residual.stride))
    kernels.slope(reconstruction.which, factor, rest, residual.stride, rest)
    return loss
  }
}

extension UnchosenAuxiliary {
  /// Memory of a tile, and the packed dictionaries.
  final class Buffers: @unchecked Sendable {
    /// Auxiliary codes of a tile and their gradients, [tileRows, columns].
    let codes, codeGradients: FloatBuffer
    let columns: Int
    /// The codes as the product reads them.
    let packedCodes: FloatBuffer
    /// Dictionaries with unit rows as the product reads them: [width / panelWidth][n_concepts][panelWidth].
    let panels: [FloatBuffer]
    let noBias: FloatBuffer
    /// q D_j, then r_j - q D_j, then dLoss/d(q D_j), for one tile; rows padded to whole panels.
    let slopes: [PaddedMatrix]
    /// Signs of the slopes by model, 60 dimensions to a word [ceil(width / 60), tileRows] and 60 tokens to a word
    /// [tileRows / 60, stride].
    let signsByToken, signsByDimension: [AlignedBuffer<UInt64>]
    /// Sums over tokens of code gradients, [n_concepts].
    let sums: AlignedBuffer<Double>
    let scratch: [UnchosenGradients.Scratch]

    init(columns: Int, models: [ModelParameters], threads: Int) throws(USAEError) {
      let rows = UnchosenAuxiliary.tileRows
      let block = kernels.tokensPerBlock
      let width = kernels.panelWidth
      self.columns = columns
      codes = try FloatBuffer(rows * columns)
      codeGradients = try FloatBuffer(rows * columns)
      packedCodes = try FloatBuffer((rows + block - 1) / block * block * models[0].concepts)
      noBias = try FloatBuffer(width)
      sums = try AlignedBuffer<Double>(columns)
      var panels: [FloatBuffer] = []
      var slopes: [PaddedMatrix] = []
      var byToken: [AlignedBuffer<UInt64>] = []
      var byDimension = byToken
      for model in models {
        let padded = (model.width + width - 1) / width * width
        panels.append(try FloatBuffer(padded * model.concepts))
        slopes.append(try PaddedMatrix(rows: rows, columns: padded))
        byToken.append(try AlignedBuffer<UInt64>((model.width + signsPerWord - 1) / signsPerWord * rows))
        byDimension.append(try AlignedBuffer<UInt64>(rows / signsPerWord * padded))
      }
      self.panels = panels
      self.slopes = slopes
      signsByToken = byToken
      signsByDimension = byDimension
      let widest = slopes.map(\.stride).max() ?? 1
      scratch = try (0..<threads).map { _ throws(USAEError) in try UnchosenGradients.Scratch(widest: widest) }
    }

    /// Notes the signs of a block of tokens' slopes; true if one has none.
    func noteSigns(_ tokens: Range<Int>, model: Int, width: Int) -> Bool {
      let slopes = slopes[model]
      let words = signsByDimension[model].base + tokens.lowerBound / signsPerWord * slopes.stride
      words.update(repeating: 0, count: slopes.stride)
      var anyZero = false
      for token in tokens {
        let row = slopes.row(token)
        if kernels.signs.words(row, width, signsByToken[model].base + token, UnchosenAuxiliary.tileRows) { anyZero = true }
        kernels.signs.addSigns(row, width, token - tokens.lowerBound, words)
      }
      return anyZero
    }
  }
}
