import Testing

@testable import USAE

@Suite struct AuxiliaryTokensTests {
  static func rows(_ chosen: AuxiliaryTokens, _ count: Int) -> [Int] {
    let rows = chosen.rows(count)
    return (0..<rows.count).map { rows[$0] }
  }

  @Test(arguments: [1, 2, 7, 8, 9, 64, 100]) func everyTokenComesOnceInEightSteps(tokens: Int) {
    var seen: [Int] = []
    let steps = min(tokens, AuxiliaryTokens.spacing)
    for step in 0..<steps {
      let chosen = AuxiliaryTokens(step: 1_000_000 * steps + step, firstRow: 0, totalRows: tokens)
      let rows = Self.rows(chosen, tokens)
      #expect(rows.count == chosen.total)
      #expect(rows.count <= AuxiliaryTokens.most(of: tokens))
      #expect(!rows.isEmpty)
      seen += rows
    }
    #expect(seen.sorted() == Array(0..<tokens))
  }

  @Test(arguments: [[3, 5, 1, 30], [1, 1, 1], [8, 8], [100, 1, 7]]) func processesChooseWhatOneProcessWould(parts: [Int]) {
    let total = parts.reduce(0, +)
    for step in 0..<17 {
      var (first, chosen): (Int, [Int]) = (0, [])
      for part in parts {
        let own = AuxiliaryTokens(step: step, firstRow: first, totalRows: total)
        let rows = Self.rows(own, part)
        #expect(rows.count <= AuxiliaryTokens.most(of: part))
        #expect(own.total == AuxiliaryTokens(step: step, firstRow: 0, totalRows: total).total)
        chosen += rows.map { first + $0 }
        first += part
      }
      #expect(chosen == Self.rows(AuxiliaryTokens(step: step, firstRow: 0, totalRows: total), total))
    }
  }

  @Test func spacedRowsKnowTheirNumbers() {
    for (first, spacing, count) in [(0, 1, 9), (3, 4, 5), (2, 8, 0), (0, 8, 1)] {
      let rows = SpacedRows(first: first, spacing: spacing, count: count)
      let all = (0..<count).map { rows[$0] }
      for row in -3..<40 { #expect(rows.number(of: row) == all.firstIndex(of: row)) }
      for low in 0..<30 {
        for high in low..<31 {
          #expect(rows.numbers(in: low..<high).map { rows[$0] } == all.filter { (low..<high).contains($0) })
        }
      }
    }
  }
}
