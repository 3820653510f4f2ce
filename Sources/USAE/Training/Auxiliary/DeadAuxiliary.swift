/// AuxK on dead concepts (Gao et al., 2024): concepts that have not fired for a while reconstruct the residual.
///
/// A token's auxiliary code has few entries, as its main code has, so everything stays sparse.
struct DeadAuxiliary {
  let reconstruction: Reconstruction
  let buffers: Buffers

  /// Memory of a step with dead concepts, in addition to the workspace.
  final class Buffers: @unchecked Sendable {
    let codes: CodeBuffer
    let codeGradients: FloatBuffer
    /// dLoss/d(q D_j), [rows, width] for each model.
    let slopes: [PaddedMatrix]
    let groups: ConceptGroups
    /// For each thread.
    let scratch: [ConceptSubset.Scratch]

    /// - Parameter columns: of the packed encoder.
    init(rows: Int, slots: Int, concepts: Int, columns: Int, widths: [Int], threads: Int) throws(USAEError) {
      codes = try CodeBuffer(rows: rows, slots: slots)
      codeGradients = try FloatBuffer(rows * slots)
      groups = try ConceptGroups(rows: rows, slots: slots, concepts: concepts)
      var slopes: [PaddedMatrix] = []
      for width in widths { slopes.append(try PaddedMatrix(rows: rows, columns: width)) }
      self.slopes = slopes
      let widest = widths.max() ?? 1
      scratch = try (0..<threads).map { _ throws(USAEError) in try ConceptSubset.Scratch(columns: columns, depth: widest) }
    }

    /// With BatchTopK: puts the dead concepts that were trimmed from a token's main code in front of its auxiliary code, since
    /// they are larger than all that never were in the main code.
    func takeTrimmed(
      from main: CodeBuffer, _ selection: BatchSelection, rows: Int, isDead: (Int32) -> Bool, work: InterruptibleWork
    ) throws(USAEError) {
      try work.runBlocks(rows, of: Reconstruction.blockRows) { _, range, _ in
        for token in range { self.takeTrimmed(from: main, selection.trimmed(main, token), token, isDead: isDead) }
      }
    }

    private func takeTrimmed(from main: CodeBuffer, _ trimmed: Range<Int>, _ token: Int, isDead: (Int32) -> Bool) {
      let (values, indices) = (codes.values(token), codes.indices(token))
      let taken = min(codes.slots, trimmed.reduce(0) { $0 + (isDead(main.indices(token)[$1]) ? 1 : 0) })
      guard taken > 0 else { return }
      let count = min(codes.slots, codes.count(token) + taken)
      for slot in stride(from: count - 1, through: taken, by: -1) {
        (values[slot], indices[slot]) = (values[slot - taken], indices[slot - taken])
      }
      var slot = 0
      for source in trimmed where slot < taken && isDead(main.indices(token)[source]) {
        (values[slot], indices[slot]) = (main.values(token)[source], main.indices(token)[source])
        slot += 1
      }
      codes.counts.base[token] = Int32(count)
    }
  }

  /// Selects auxiliary codes among the dead concepts.
  struct Selection {
    let buffers: Buffers
    private let concepts: ConceptSubset

    init(_ dead: [Int32], of encoder: PackedEncoder, _ buffers: Buffers, work: InterruptibleWork) throws(USAEError) {
      self.buffers = buffers
      concepts = try ConceptSubset(dead, of: encoder, scratch: buffers.scratch, work: work)
    }

    /// Selects the auxiliary codes of a tile's tokens, whose main codes are selected already.
    ///
    /// A dead concept that a token fires is in its main code, and so not in the auxiliary one.
    func select(_ tile: EncodedTile) {
      let next = concepts.selectNext(tile, slots: buffers.codes.slots)
      for (token, row) in tile.rows.enumerated() { buffers.codes.store(next[token], row: row) }
    }
  }

  /// Returns the loss without its coefficient; leaves slopes and code gradients of both codes in the buffers.
  func run(_ loss: AuxiliaryLoss, work: InterruptibleWork) throws(USAEError) -> Double {
    let workspace = reconstruction.workspace
    let models = reconstruction.models
    let blocks = (workspace.rows + Reconstruction.blockRows - 1) / Reconstruction.blockRows
    let sums = try AlignedBuffer<Double>(blocks * models.count)
    let detached = reconstruction.recipe.auxiliaryDetach
    for j in models.indices {
      let target = reconstruction.makeTarget(j)
      try work.runBlocks(workspace.rows, of: Reconstruction.blockRows) { block, range, worker in
        let scratch = workspace.scratch[worker].base
        for t in range {
          let gradients = self.buffers.codeGradients.base + t * self.buffers.codes.slots
          if j == 0 { for q in 0..<self.buffers.codes.count(t) { gradients[q] = 0 } }
          let slope = self.buffers.slopes[j].row(t)
          target.dictionary.decode(self.buffers.codes, token: t, scratch: scratch, to: slope)
          sums.base[block * models.count + j] += loss.differentiate(slope, token: t, target)
          self.reconstruction.addCodeGradients(
            token: t, codes: self.buffers.codes, slope: slope, target.dictionary, scratch: scratch, to: gradients)
          self.reconstruction.backward(token: t, target, auxiliarySlope: detached ? nil : slope, scratch: scratch)
        }
      }
    }
    return loss.total(sums, blocks: blocks)
  }
}
