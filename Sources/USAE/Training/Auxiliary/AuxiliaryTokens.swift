/// Which tokens of a batch have an auxiliary code on dead concepts: one, drawn, of each `every` tokens that follow each other.
///
/// Drawn, and not every eighth: tokens may be ordered, such as those of an image, and every eighth of them could be the same
/// place of every image. One of each eight, so that a step has as many whatever is drawn.
///
/// The draw depends on the seed, the step and a token's row in the whole batch alone, so processes that share a step choose
/// what one process would.
struct AuxiliaryTokens {
  private let random: CounterRandom
  private let every, firstRow, totalRows: Int

  /// - Parameters:
  ///   - step: steps done before this one.
  ///   - firstRow: the row of the whole batch that is this process's first.
  ///   - totalRows: of the whole batch.
  init(every: Int, seed: UInt64, step: Int, firstRow: Int, totalRows: Int) {
    random = CounterRandom(seed: seed, stream: .auxiliaryTokens, part: step)
    (self.every, self.firstRow, self.totalRows) = (every, firstRow, totalRows)
  }

  /// How many of the whole batch there are.
  var total: Int { totalRows / every + (totalRows % every > 0 ? 1 : 0) }

  /// Those among this process's rows, of which there are `count`: numbers of rows, ascending.
  func rows(_ count: Int) -> [Int] {
    guard count > 0 else { return [] }
    let groups = firstRow / every...(firstRow + count - 1) / every
    return groups.map(drawn).filter { firstRow <= $0 && $0 < firstRow + count }.map { $0 - firstRow }
  }

  /// The row of the whole batch that is drawn from a group.
  private func drawn(_ group: Int) -> Int {
    let first = group * every
    return first + random.index(UInt64(group), below: min(every, totalRows - first))
  }

  /// The most that there can be among `rows` of a process, whose first and last groups may lie in other processes too.
  static func most(of rows: Int, every: Int) -> Int { rows > 0 ? min(rows, (rows - 1) / every + 2) : 0 }
}
