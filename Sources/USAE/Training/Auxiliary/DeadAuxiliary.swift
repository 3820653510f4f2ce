/// AuxK on dead concepts (Gao et al., 2024): concepts that have not fired for a while reconstruct the residual.
///
/// A token's auxiliary code has few entries, as its main code has, so everything stays sparse. But by default it has twice as
/// many, and fewer concepts share them: if every token had one, a dead concept would learn from some twenty times as many
/// tokens as an alive one, and that would be most of a step's work. So only some tokens have one (`AuxiliaryTokens`).
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
    /// The step's rows that have an auxiliary code, ascending. All arrays are by number of such a row.
    private(set) var rows: [Int] = []
    /// How many tokens of all processes have one.
    private(set) var totalTokens = 0
    /// Copies of the tokens that have one, so that they follow each other.
    let tokens: PaddedMatrix

    /// - Parameters:
    ///   - rows: the most that have one.
    ///   - columns: of the packed encoder.
    init(rows: Int, slots: Int, concepts: Int, columns: Int, widths: [Int], threads: Int) throws(USAEError) {
      codes = try CodeBuffer(rows: rows, slots: slots)
      codeGradients = try FloatBuffer(rows * slots)
      groups = try ConceptGroups(rows: rows, slots: slots, concepts: concepts)
      var slopes: [PaddedMatrix] = []
      for width in widths { slopes.append(try PaddedMatrix(rows: rows, columns: width)) }
      self.slopes = slopes
      let widest = widths.max() ?? 1
      tokens = try PaddedMatrix(rows: rows, columns: widest)
      scratch = try (0..<threads).map { _ throws(USAEError) in try ConceptSubset.Scratch(columns: columns, depth: widest) }
    }

    /// Begins a step.
    ///
    /// - Parameter count: of this process's rows.
    func begin(_ chosen: AuxiliaryTokens, rows count: Int) {
      (rows, totalTokens) = (chosen.rows(count), chosen.total)
    }

    /// The numbers of the rows that lie in a range.
    fileprivate func numbers(in range: Range<Int>) -> Range<Int> {
      numbersBelow(range.lowerBound)..<numbersBelow(range.upperBound)
    }

    /// How many of the rows are below a bound.
    private func numbersBelow(_ bound: Int) -> Int {
      var (low, high) = (0, rows.count)
      while low < high {
        let middle = (low + high) / 2
        if rows[middle] < bound { low = middle + 1 } else { high = middle }
      }
      return low
    }

    /// With BatchTopK: puts the dead concepts that were trimmed from a token's main code in front of its auxiliary code, since
    /// they are larger than all that never were in the main code.
    func takeTrimmed(
      from main: CodeBuffer, _ selection: BatchSelection, rows: Int, isDead: (Int32) -> Bool, work: InterruptibleWork
    ) throws(USAEError) {
      try work.runBlocks(rows, of: Reconstruction.blockRows) { _, range, _ in
        for number in self.numbers(in: range) {
          let token = self.rows[number]
          self.takeTrimmed(from: main, selection.trimmed(main, token), token, number, isDead: isDead)
        }
      }
    }

    private func takeTrimmed(
      from main: CodeBuffer, _ trimmed: Range<Int>, _ token: Int, _ number: Int, isDead: (Int32) -> Bool
    ) {
      let (values, indices) = (codes.values(number), codes.indices(number))
      let taken = min(codes.slots, trimmed.reduce(0) { $0 + (isDead(main.indices(token)[$1]) ? 1 : 0) })
      guard taken > 0 else { return }
      let count = min(codes.slots, codes.count(number) + taken)
      for slot in stride(from: count - 1, through: taken, by: -1) {
        (values[slot], indices[slot]) = (values[slot - taken], indices[slot - taken])
      }
      var slot = 0
      for source in trimmed where slot < taken && isDead(main.indices(token)[source]) {
        (values[slot], indices[slot]) = (main.values(token)[source], main.indices(token)[source])
        slot += 1
      }
      codes.counts.base[number] = Int32(count)
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
      let numbers = buffers.numbers(in: tile.rows)
      guard let first = numbers.first else { return }
      for number in numbers {
        let token = tile.tokens.row(buffers.rows[number] - tile.rows.lowerBound)
        buffers.tokens.row(number).update(from: token, count: tile.tokens.stride)
      }
      let next = concepts.selectNext(
        tile, rows: buffers.rows[numbers], tokens: TokenRows(buffers.tokens, numbers), slots: buffers.codes.slots)
      for number in numbers { buffers.codes.store(next[number - first], row: number) }
    }
  }

  /// Whether the slopes of the main loss stay as they are, and each is made from one residual.
  static func leavesSlopes(_ reconstruction: Reconstruction) -> Bool {
    reconstruction.recipe.auxiliaryDetach && reconstruction.workspace.nested == nil
  }

  /// Returns the loss without its coefficient; leaves slopes and code gradients of both codes in the buffers.
  func run(_ loss: AuxiliaryLoss, work: InterruptibleWork) throws(USAEError) -> Double {
    let workspace = reconstruction.workspace
    let models = reconstruction.models
    let blocks = (workspace.rows + Reconstruction.blockRows - 1) / Reconstruction.blockRows
    let sums = try AlignedBuffer<Double>(blocks * models.count)
    let detached = reconstruction.recipe.auxiliaryDetach
    let hasCodeGradients = Self.leavesSlopes(reconstruction)
    var loss = loss
    loss.tokens = buffers.totalTokens
    for j in models.indices {
      let target = reconstruction.makeTarget(j)
      try work.runBlocks(workspace.rows, of: Reconstruction.blockRows) { block, range, worker in
        let scratch = workspace.scratch[worker].base
        var numbers = self.buffers.numbers(in: range)
        for t in range {
          var auxiliarySlope: UnsafePointer<Float>?
          if let number = numbers.first, self.buffers.rows[number] == t {
            numbers.removeFirst()
            sums.base[block * models.count + j] += self.differentiate(number, token: t, target, loss, scratch: scratch)
            if !detached { auxiliarySlope = UnsafePointer(self.buffers.slopes[j].row(number)) }
          }
          if hasCodeGradients {
            self.reconstruction.finishBackward(token: t, target)
          } else {
            self.reconstruction.backward(token: t, target, auxiliarySlope: auxiliarySlope, scratch: scratch)
          }
        }
      }
    }
    return loss.total(sums, blocks: blocks)
  }

  /// Computes a token's auxiliary slope in a target model and adds its part to the gradients of the auxiliary code; model 0
  /// comes first and starts them. Returns the loss, a sum over the width.
  @inline(__always)
  private func differentiate(
    _ number: Int, token: Int, _ target: Reconstruction.Target, _ loss: AuxiliaryLoss, scratch: UnsafeMutablePointer<Float>
  ) -> Double {
    let (codes, slope) = (buffers.codes, buffers.slopes[target.index].row(number))
    let gradients = buffers.codeGradients.base + number &* codes.slots
    if target.index == 0 { gradients.update(repeating: 0, count: codes.count(number)) }
    target.dictionary.decode(codes, token: number, scratch: scratch, to: slope)
    let sum = loss.differentiate(slope, token: token, target)
    reconstruction.addCodeGradients(
      token: number, codes: codes, slope: slope, target.dictionary, scratch: scratch, to: gradients)
    return sum
  }
}
