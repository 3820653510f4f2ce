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
    fileprivate let encodings: StepEncodings
    /// The step's rows (`StepEncodings`) that have an auxiliary code, ascending. All arrays are by number of such a row.
    private(set) var rows: [Int] = []
    /// The seats of encoders with auxiliary codes: the same tokens of each have one.
    private(set) var seats: [Int] = []
    /// How many tokens of all processes have one.
    private(set) var totalTokens = 0
    /// Copies of the tokens that have one, so that they follow each other.
    let tokens: PaddedMatrix

    /// - Parameters:
    ///   - tokens: the most that have one.
    ///   - columns: of the packed encoder.
    init(
      tokens most: Int, encodings: StepEncodings, slots: Int, concepts: Int, columns: Int, widths: [Int], threads: Int
    ) throws(USAEError) {
      self.encodings = encodings
      let rows = most * encodings.encoders
      codes = try CodeBuffer(rows: rows, slots: slots)
      codeGradients = try FloatBuffer(rows * slots)
      groups = try ConceptGroups(rows: rows, encoders: encodings.encoders, slots: slots, concepts: concepts)
      var slopes: [PaddedMatrix] = []
      for width in widths { slopes.append(try PaddedMatrix(rows: rows, columns: width)) }
      self.slopes = slopes
      let widest = widths.max() ?? 1
      tokens = try PaddedMatrix(rows: rows, columns: widest)
      scratch = try (0..<threads).map { _ throws(USAEError) in try ConceptSubset.Scratch(columns: columns, depth: widest) }
    }

    /// Begins a step.
    ///
    /// - Parameter seats: those of encoders with dead concepts.
    func begin(_ chosen: AuxiliaryTokens, seats: [Int]) {
      let tokens = chosen.rows(encodings.tokens)
      self.seats = seats
      rows = seats.flatMap { seat in tokens.map { encodings.range(seat).lowerBound + $0 } }
      totalTokens = chosen.total
    }

    /// Sorts the codes' entries by concept.
    func group() {
      let parts = (0..<encodings.encoders).map { numbers(in: encodings.range($0)) }
      groups.group(codes, codeGradients, parts: parts) { _, number in number }
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

    /// With BatchTopK: puts the dead concepts that were trimmed from the main codes of an encoder in front of its auxiliary
    /// codes, since they are larger than all that never were in the main code.
    func takeTrimmed(
      from main: CodeBuffer, _ selection: BatchSelection, rows: Range<Int>, isDead: (Int32) -> Bool, work: InterruptibleWork
    ) throws(USAEError) {
      let first = rows.lowerBound
      try work.runBlocks(rows.count, of: Reconstruction.blockRows) { _, range, _ in
        for number in self.numbers(in: first + range.lowerBound..<first + range.upperBound) {
          let row = self.rows[number]
          self.takeTrimmed(from: main, selection.trimmed(main, row), row, number, isDead: isDead)
        }
      }
    }

    private func takeTrimmed(
      from main: CodeBuffer, _ trimmed: Range<Int>, _ row: Int, _ number: Int, isDead: (Int32) -> Bool
    ) {
      let (values, indices) = (codes.values(number), codes.indices(number))
      let taken = min(codes.slots, trimmed.reduce(0) { $0 + (isDead(main.indices(row)[$1]) ? 1 : 0) })
      guard taken > 0 else { return }
      let count = min(codes.slots, codes.count(number) + taken)
      for slot in stride(from: count - 1, through: taken, by: -1) {
        (values[slot], indices[slot]) = (values[slot - taken], indices[slot - taken])
      }
      var slot = 0
      for source in trimmed where slot < taken && isDead(main.indices(row)[source]) {
        (values[slot], indices[slot]) = (main.values(row)[source], main.indices(row)[source])
        slot += 1
      }
      codes.counts.base[number] = Int32(count)
    }
  }

  /// Selects auxiliary codes among the dead concepts.
  struct Selection {
    let buffers: Buffers
    private let concepts: ConceptSubset
    /// The encoder's first row.
    private let first: Int

    init(
      _ dead: [Int32], of encoder: PackedEncoder, _ buffers: Buffers, seat: Int, work: InterruptibleWork
    ) throws(USAEError) {
      self.buffers = buffers
      first = buffers.encodings.range(seat).lowerBound
      concepts = try ConceptSubset(dead, of: encoder, scratch: buffers.scratch, work: work)
    }

    /// Selects the auxiliary codes of a tile's tokens, whose main codes are selected already.
    ///
    /// A dead concept that a token fires is in its main code, and so not in the auxiliary one.
    func select(_ tile: EncodedTile) {
      let numbers = buffers.numbers(in: first + tile.rows.lowerBound..<first + tile.rows.upperBound)
      guard let firstNumber = numbers.first else { return }
      let rows = buffers.rows[numbers].map { $0 - first }
      for (number, row) in zip(numbers, rows) {
        let token = tile.tokens.row(row - tile.rows.lowerBound)
        buffers.tokens.row(number).update(from: token, count: tile.tokens.stride)
      }
      let next = concepts.selectNext(
        tile, rows: rows[...], tokens: TokenRows(buffers.tokens, numbers), slots: buffers.codes.slots)
      for number in numbers { buffers.codes.store(next[number - firstNumber], row: number) }
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
    let (encodings, blocks) = (workspace.encodings, workspace.encodings.blocks(of: Reconstruction.blockRows))
    let sums = try AlignedBuffer<Double>(encodings.encoders * blocks * models.count)
    let detached = reconstruction.recipe.auxiliaryDetach
    let hasCodeGradients = Self.leavesSlopes(reconstruction)
    var loss = loss
    loss.tokens = buffers.totalTokens
    for j in reconstruction.targets {
      let target = reconstruction.makeTarget(j)
      try encodings.runBlocks(of: Reconstruction.blockRows, work) { block, range, worker in
        let scratch = workspace.scratch[worker].base
        var numbers = self.buffers.numbers(in: range)
        for t in range {
          var auxiliarySlope: UnsafePointer<Float>?
          if let number = numbers.first, self.buffers.rows[number] == t {
            numbers.removeFirst()
            sums.base[block * models.count + j] += self.differentiate(number, row: t, target, loss, scratch: scratch)
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

  /// Computes a token's auxiliary slope in a target model and adds its part to the gradients of the auxiliary code, which the
  /// first target starts. Returns the loss, a sum over the width.
  @inline(__always)
  private func differentiate(
    _ number: Int, row: Int, _ target: Reconstruction.Target, _ loss: AuxiliaryLoss, scratch: UnsafeMutablePointer<Float>
  ) -> Double {
    let (codes, slope) = (buffers.codes, buffers.slopes[target.index].row(number))
    let gradients = buffers.codeGradients.base + number &* codes.slots
    if target.isFirst { gradients.update(repeating: 0, count: codes.count(number)) }
    target.dictionary.decode(codes, token: number, scratch: scratch, to: slope)
    let sum = loss.differentiate(slope, row: row, target)
    reconstruction.addCodeGradients(
      token: number, codes: codes, slope: slope, target.dictionary, scratch: scratch, to: gradients)
    return sum
  }
}
