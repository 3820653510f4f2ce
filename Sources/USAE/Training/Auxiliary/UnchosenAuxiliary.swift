import Synchronization
import KernelTypes

/// AuxK as published: the largest of **all** unchosen positive codes (half of the dictionary) reconstruct the residual.
///
/// Such a code is half full, so this is done in products that pass over zeros (`ColumnPanels`), tile by tile of a thousand
/// tokens: no array grows with tokens times concepts. `UnchosenGradients` goes back. Each sum is one thread's, and tiles
/// follow each other in order, so sums never depend on threads.
struct UnchosenAuxiliary {
  let reconstruction: Reconstruction
  let encoder: Int
  let steppedDictionaries: [Int]
  let buffers: Buffers
  let slots: Int

  /// Whole words of signs, and whole pieces of 32.
  static let tileRows = 16 * signsPerWord
  /// Tokens of one sum of the loss.
  private static let tokenBlock = signsPerWord

  private var models: [ModelParameters] { reconstruction.models }
  private var workspace: StepWorkspace { reconstruction.workspace }

  /// Loss before its coefficient; leaves dense gradients in the gradient buffers, and the main code's slopes and gradients.
  func run(_ loss: AuxiliaryLoss, tiles: [EncoderTile], work: Work) throws(USAEError) -> Double {
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

  /// Unit rows of the dictionaries as the products read them.
  private func packDictionaries(work: Work) throws(USAEError) {
    for (model, panels) in zip(models, buffers.dictionaries) {
      let rows = model.dictionary.value
      try panels.pack(rows.base, stride: rows.stride, count: rows.rows, scales: model.inverseNorms.base, work: work)
    }
  }

  /// The auxiliary codes of a tile.
  private func selectCodes(_ rows: Range<Int>, tiles: [EncoderTile], work: Work) throws(USAEError) {
    let encoder = tiles[0].encoder
    try encoder.forEachToken(of: workspace.inputs[self.encoder], rows, dense: true, tiles: tiles, work: work) {
      row, tile, token in
      let codes = self.buffers.codes
      let offset = row - rows.lowerBound
      let values = tile.preactivations(token)
      let positive = kernels.skipping.rectify(values, encoder.columns, codes.row(offset, concept: 0), codes.pieceStride)
      let main = self.workspace.codes
      let chosen = main.count(row)
      for q in 0..<chosen { codes[offset, main.indices(row)[q]] = 0 }
      guard positive > chosen + self.slots else { return }
      let keys = tile.keys.base
      let count = kernels.selection.scan(values, encoder.columns, 0, keys)
      kernels.selection.partition(keys, count, chosen + self.slots)
      for key in chosen + self.slots..<count { codes[offset, column(ofKey: keys[key])] = 0 }
    }
  }

  /// q D_j of a tile for every model.
  private func decode(count: Int, work: Work) throws(USAEError) {
    let codes = buffers.codes
    let chunk = Self.tileRows / 4
    let chunks = (count + chunk - 1) / chunk
    for (panels, out) in zip(buffers.dictionaries, buffers.slopes) {
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

  /// From q D_j to dLoss/d(q D_j) in place, the loss, and the main code's slopes and gradients, for the tokens of a tile.
  ///
  /// Returns whether every slope is one number times +1 or -1, and then leaves the signs in the buffers.
  private func differentiate(
    _ rows: Range<Int>, loss: AuxiliaryLoss, sums: AlignedBuffer<Double>, work: Work
  ) throws(USAEError) -> Bool {
    let firstBlock = rows.lowerBound / Self.tokenBlock
    let wantsSigns = reconstruction.recipe.loss == .l1
    let anyZero = Atomic<Bool>(!wantsSigns)
    let targets = models.indices.map(reconstruction.makeTarget)
    try work.runBlocks(rows.count, of: Self.tokenBlock) { block, range, worker in
      let spare = self.workspace.spares[worker].base
      let detached = self.reconstruction.recipe.auxiliaryDetach
      for (j, target) in targets.enumerated() {
        var sum = 0.0
        for offset in range {
          let token = rows.lowerBound + offset
          let rest = self.buffers.slopes[j].row(offset)
          sum += loss.differentiate(rest, token: token, target)
          self.reconstruction.backward(token: token, target, auxiliarySlope: detached ? nil : rest, spare: spare)
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

extension UnchosenAuxiliary {
  /// Memory of a tile, and the packed dictionaries.
  final class Buffers: @unchecked Sendable {
    /// Auxiliary codes of a tile.
    let codes: TileCodes
    /// Dictionaries with unit rows.
    let dictionaries: [ColumnPanels]
    /// The encoded model's tokens of a tile, by width.
    private var tokens: [Int: ColumnPanels] = [:]
    /// q D_j, then r_j - q D_j, then dLoss/d(q D_j), for one tile.
    let slopes: [PaddedMatrix]
    /// The same as products read them.
    let slopePanels: [ColumnPanels]
    /// Signs of the slopes by model, 60 dimensions to a word [ceil(width / 60), tileRows] and 60 tokens to a word
    /// [tileRows / 60, stride].
    let signsByToken, signsByDimension: [AlignedBuffer<UInt64>]
    /// Sums over tokens of code gradients, [n_concepts].
    let sums: AlignedBuffer<Double>
    let scratch: [UnchosenGradients.Scratch]

    init(columns: Int, models: [ModelParameters], threads: Int) throws(USAEError) {
      let rows = UnchosenAuxiliary.tileRows
      codes = try TileCodes(rows: rows, columns: columns)
      sums = try AlignedBuffer<Double>(columns)
      var dictionaries: [ColumnPanels] = []
      var slopePanels = dictionaries
      var slopes: [PaddedMatrix] = []
      var byToken: [AlignedBuffer<UInt64>] = []
      var byDimension = byToken
      for model in models {
        dictionaries.append(try ColumnPanels(rows: model.concepts, columns: model.width))
        slopePanels.append(try ColumnPanels(rows: rows, columns: model.width))
        slopes.append(try PaddedMatrix(rows: rows, columns: model.width))
        byToken.append(try AlignedBuffer<UInt64>((model.width + signsPerWord - 1) / signsPerWord * rows))
        byDimension.append(try AlignedBuffer<UInt64>(rows / signsPerWord * paddedWidth(model.width)))
      }
      self.dictionaries = dictionaries
      self.slopePanels = slopePanels
      self.slopes = slopes
      signsByToken = byToken
      signsByDimension = byDimension
      let widest = slopes.map(\.stride).max() ?? 1
      scratch = try (0..<threads).map { _ throws(USAEError) in try UnchosenGradients.Scratch(widest: widest) }
    }

    func tokens(width: Int) throws(USAEError) -> ColumnPanels {
      if let tokens = tokens[width] { return tokens }
      let made = try ColumnPanels(rows: UnchosenAuxiliary.tileRows, columns: width)
      tokens[width] = made
      return made
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

/// Auxiliary codes of a tile, in pieces of 32 concepts that hold all tokens of the tile: [pieces][rows][32].
final class TileCodes: @unchecked Sendable {
  /// Distance of a token's pieces.
  let pieceStride: Int
  private let storage: FloatBuffer

  init(rows: Int, columns: Int) throws(USAEError) {
    pieceStride = rows * SkippingKernels.depth
    storage = try FloatBuffer((columns + SkippingKernels.depth - 1) / SkippingKernels.depth * pieceStride)
  }

  /// A token's codes from a concept on, to the end of its piece.
  func row(_ token: Int, concept: Int) -> UnsafeMutablePointer<Float> {
    let piece = concept / SkippingKernels.depth
    let place = concept % SkippingKernels.depth
    return storage.base + (piece &* pieceStride &+ token &* SkippingKernels.depth &+ place)
  }

  subscript(token: Int, concept: Int32) -> Float {
    get { row(token, concept: Int(concept)).pointee }
    set { row(token, concept: Int(concept)).pointee = newValue }
  }
}
