/// AuxK as published: the largest of **all** unchosen positive codes (half of the dictionary) reconstruct the residual.
///
/// Such a code is dense, so this is done in matrix products, tile by tile of a few hundred tokens: no array grows with
/// tokens times concepts. The dense parts of the gradients are added up in the gradient buffers of the trained tensors; each
/// product is one thread's on a fixed grid, and tiles follow each other in order, so the sums never depend on threads.
struct UnchosenAuxiliary {
  let reconstruction: Reconstruction
  let encoder: Int
  let steppedDictionaries: [Int]
  let buffers: Buffers
  let k, slots: Int

  static let tileRows = 512
  /// Concepts or tokens of one product.
  private static let conceptBlock = 256
  private static let tokenBlock = 64

  final class Buffers: @unchecked Sendable {
    /// Auxiliary codes of a tile and their gradients, [tileRows, columns].
    let codes, codeGradients: FloatBuffer
    let columns: Int
    /// Dictionaries with unit rows.
    let dictionaries: [PaddedMatrix]
    /// q D_j, then r_j - q D_j, then dLoss/d(q D_j), for one tile.
    let slopes: [PaddedMatrix]
    /// Sums over tokens of code gradients, [n_concepts].
    let sums: AlignedBuffer<Double>

    init(columns: Int, models: [ModelParameters]) throws(USAEError) {
      self.columns = columns
      codes = try FloatBuffer(UnchosenAuxiliary.tileRows * columns)
      codeGradients = try FloatBuffer(UnchosenAuxiliary.tileRows * columns)
      sums = try AlignedBuffer<Double>(columns)
      var dictionaries: [PaddedMatrix] = []
      var slopes: [PaddedMatrix] = []
      for model in models {
        dictionaries.append(try PaddedMatrix(rows: model.concepts, columns: model.width))
        slopes.append(try PaddedMatrix(rows: UnchosenAuxiliary.tileRows, columns: model.width))
      }
      self.dictionaries = dictionaries
      self.slopes = slopes
    }
  }

  private var models: [ModelParameters] { reconstruction.models }
  private var workspace: StepWorkspace { reconstruction.workspace }

  /// Loss before its coefficient; leaves dense gradients in the gradient buffers, and the main code's slopes and gradients.
  func run(tiles: [EncoderTile], work: Work) throws(USAEError) -> Double {
    let loss = try AuxiliaryLoss(reconstruction, work: work)
    try normalizeDictionaries(work: work)
    buffers.sums.zero()
    let blocks = (workspace.rows + Self.tokenBlock - 1) / Self.tokenBlock
    let sums = try AlignedBuffer<Double>(blocks * models.count)
    try BLAS.exclusively { () throws(USAEError) in
      for first in stride(from: 0, to: workspace.rows, by: Self.tileRows) {
        let tile = first..<min(workspace.rows, first + Self.tileRows)
        try selectCodes(tile, tiles: tiles, work: work)
        try reconstructResiduals(tile, loss: loss, sums: sums, work: work)
        try addDenseGradients(tile, work: work)
      }
    }
    return loss.total(sums, blocks: blocks)
  }

  private func normalizeDictionaries(work: Work) throws(USAEError) {
    for j in models.indices {
      let rows = models[j].dictionary.value
      try work.runBlocks(rows.rows, of: Self.conceptBlock) { _, range, _ in
        for c in range {
          let out = self.buffers.dictionaries[j].row(c)
          for i in 0..<rows.stride { out[i] = 0 }
          kernels.addScaled(self.models[j].inverseNorms.base[c], rows.row(c), rows.stride, out)
        }
      }
    }
  }

  /// The auxiliary codes of a tile, dense.
  private func selectCodes(_ rows: Range<Int>, tiles: [EncoderTile], work: Work) throws(USAEError) {
    try tiles[0].encoder.forEachToken(of: workspace.inputs[encoder], rows, tiles: tiles, work: work) { row, tile, token in
      let out = self.buffers.codes.base + (row - rows.lowerBound) * self.buffers.columns
      for c in 0..<self.buffers.columns { out[c] = 0 }
      let keys = tile.keys.base
      let positive = kernels.scan(tile.row(token), self.buffers.columns, 0, keys)
      guard positive > self.k else { return }
      kernels.partition(keys, positive, self.k)  // the first k are the main code
      kernels.partition(keys + self.k, positive - self.k, self.slots)
      for key in 0..<min(positive - self.k, self.slots) {
        out[Int(column(ofKey: keys[self.k + key]))] = value(ofKey: keys[self.k + key])
      }
    }
  }

  /// q D_j, the loss, both slopes, and the main code's gradients, for the tokens of a tile.
  private func reconstructResiduals(
    _ rows: Range<Int>, loss: AuxiliaryLoss, sums: AlignedBuffer<Double>, work: Work
  ) throws(USAEError) {
    let firstBlock = rows.lowerBound / Self.tokenBlock
    try work.runBlocks(rows.count, of: Self.tokenBlock) { block, range, worker in
      for j in self.models.indices {
        let slopes = self.buffers.slopes[j]
        BLAS.multiply(
          .init(base: self.buffers.codes.base + range.lowerBound * self.buffers.columns, stride: self.buffers.columns),
          .init(base: self.buffers.dictionaries[j].base, stride: slopes.stride), into: slopes.row(range.lowerBound),
          stride: slopes.stride, rows: range.count, columns: slopes.stride, depth: self.models[j].concepts,
          accumulate: false)
        var sum = 0.0
        for offset in range {
          let rest = slopes.row(offset)
          kernels.subtractFrom(self.workspace.residuals[j].row(rows.lowerBound + offset), slopes.stride, rest)
          sum += Double(kernels.loss(self.reconstruction.which, rest, slopes.stride))
          kernels.slope(self.reconstruction.which, loss.slopeFactor(j), rest, slopes.stride, rest)
        }
        sums.base[(firstBlock + block) * self.models.count + j] = sum
      }
      let detached = self.reconstruction.recipe.auxiliaryDetach
      for j in self.models.indices {
        for offset in range {
          self.reconstruction.backward(
            token: rows.lowerBound + offset, target: j,
            auxiliarySlope: detached ? nil : self.buffers.slopes[j].row(offset), spare: self.workspace.spares[worker].base)
        }
      }
    }
  }

  /// Gradients of the auxiliary codes, and what they and the codes add to the trained tensors, concept block by block.
  private func addDenseGradients(_ rows: Range<Int>, work: Work) throws(USAEError) {
    let columns = buffers.columns
    let tokens = workspace.inputs[encoder]
    try work.runBlocks(models[0].concepts, of: Self.conceptBlock) { _, range, _ in
      let codes = self.buffers.codes.base + range.lowerBound
      let gradients = self.buffers.codeGradients.base + range.lowerBound
      for j in self.models.indices {
        let slopes = self.buffers.slopes[j]
        BLAS.multiply(
          .init(base: slopes.base, stride: slopes.stride),
          .init(base: self.buffers.dictionaries[j].row(range.lowerBound), stride: slopes.stride, transposed: true),
          into: gradients, stride: columns, rows: rows.count, columns: range.count, depth: slopes.stride,
          accumulate: j > 0)
      }
      for t in 0..<rows.count {
        for c in 0..<range.count {
          let active = codes[t * columns + c] > 0
          gradients[t * columns + c] = active ? gradients[t * columns + c] : 0
          self.buffers.sums.base[range.lowerBound + c] += Double(gradients[t * columns + c])
        }
      }
      self.add(gradients, tokens.row(rows.lowerBound), tokens.stride, rows.count, range, to: self.models[self.encoder].encoderWeight)
      for j in self.steppedDictionaries {
        self.add(codes, self.buffers.slopes[j].base, self.buffers.slopes[j].stride, rows.count, range, to: self.models[j].dictionary)
      }
    }
  }

  /// gradient[concepts] += left^T right, summed over the tokens of a tile.
  private func add(
    _ left: UnsafePointer<Float>, _ right: UnsafePointer<Float>, _ stride: Int, _ tokens: Int, _ concepts: Range<Int>,
    to tensor: Trainable
  ) {
    guard let gradient = tensor.gradient else { preconditionFailure("a dense gradient has a buffer") }
    BLAS.multiply(
      .init(base: left, stride: buffers.columns, transposed: true), .init(base: right, stride: stride),
      into: gradient.row(concepts.lowerBound), stride: gradient.stride, rows: concepts.count, columns: gradient.stride,
      depth: tokens, accumulate: true)
  }
}
