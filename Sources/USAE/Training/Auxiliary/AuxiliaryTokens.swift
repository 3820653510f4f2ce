/// Which tokens of a batch have an auxiliary code on dead concepts: every eighth, beginning one token later in each step, so
/// that all come where the order of rows means something, such as the places of an image.
///
/// It depends on the step and on a token's row in the whole batch alone, so processes that share a step choose what one
/// process would.
struct AuxiliaryTokens {
  /// Measured: with every token, AuxK more than doubled a step with a tenth of the concepts dead, and dead concepts learned no
  /// better; with every sixteenth, more were left (docs/recipes.md).
  static let spacing = 8
  private let first, spacing: Int
  /// How many of the whole batch there are.
  let total: Int

  /// - Parameters:
  ///   - step: steps done before this one.
  ///   - firstRow: the row of the whole batch that is this process's first.
  ///   - totalRows: of the whole batch.
  init(step: Int, firstRow: Int, totalRows: Int) {
    spacing = max(1, min(Self.spacing, totalRows))
    let offset = step % spacing
    total = SpacedRows(from: offset, by: spacing, below: totalRows).count
    first = (offset - firstRow % spacing + spacing) % spacing
  }

  /// Those among this process's rows, of which there are `count`.
  func rows(_ count: Int) -> SpacedRows { SpacedRows(from: first, by: spacing, below: count) }

  /// The most that there can be among `rows` of a process.
  static func most(of rows: Int) -> Int { (rows + spacing - 1) / spacing }
}
