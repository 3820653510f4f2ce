import Testing

@testable import USAE

@Suite struct AuxiliaryTokensTests {
  static func chosen(every: Int = 8, step: Int, firstRow: Int = 0, _ totalRows: Int) -> AuxiliaryTokens {
    AuxiliaryTokens(every: every, seed: 3, step: step, firstRow: firstRow, totalRows: totalRows)
  }

  @Test(arguments: [1, 2, 7, 8, 9, 64, 100], [1, 2, 8, 1 << 53]) func oneIsDrawnOfEachFew(tokens: Int, every: Int) {
    for step in [0, 1, 2, 3, 1 << 40] {
      let chosen = Self.chosen(every: every, step: step, tokens)
      let rows = chosen.rows(tokens)
      #expect(rows.map { $0 / every } == Array(0...(tokens - 1) / every))
      #expect(rows.allSatisfy((0..<tokens).contains))
      #expect(rows.count == chosen.total)
      #expect(rows.count <= AuxiliaryTokens.most(of: tokens, every: every))
    }
  }

  @Test func ofNoTokensThereIsNone() {
    #expect(Self.chosen(step: 5, firstRow: 3, 9).rows(0) == [])
    #expect(AuxiliaryTokens.most(of: 0, every: 8) == 0)
  }

  /// Of images of 8, 16 or 49 tokens, one after the other, each place is drawn as often as the others, in every step.
  @Test(arguments: [2, 7, 8, 16, 49, 64]) func noPlaceIsLeftOutHoweverTokensAreOrdered(places: Int) {
    let tokens = 2048 / places * places
    var counts = [Int](repeating: 0, count: places)
    let steps = 64
    for step in 0..<steps {
      let rows = Self.chosen(step: step, tokens).rows(tokens)
      for row in rows { counts[row % places] += 1 }
      #expect(Set(rows.map { $0 % places }).count >= min(places, 40) * 7 / 8)
    }
    let mean = Double(steps * (tokens + 7) / 8) / Double(places)
    for count in counts { #expect(abs(Double(count) - mean) < 5 * mean.squareRoot(), "\(counts)") }
  }

  @Test func stepsAndSeedsDrawOthers() {
    let rows = (0..<4).map { Self.chosen(step: $0, 800).rows(800) }
    for later in 1..<4 {
      let same = zip(rows[0], rows[later]).count { $0 == $1 }
      #expect((1..<35).contains(same), "of 100, some 12 by chance")
    }
    #expect(AuxiliaryTokens(every: 8, seed: 4, step: 0, firstRow: 0, totalRows: 800).rows(800) != rows[0])
  }

  @Test(arguments: [[3, 5, 1, 30], [1, 1, 1], [8, 8], [100, 1, 7], [0, 13, 0, 4], [9, 9, 9, 9]], [1, 2, 8, 100])
  func processesChooseWhatOneProcessWould(parts: [Int], every: Int) {
    let total = parts.reduce(0, +)
    for step in 0..<17 {
      var (first, rows): (Int, [Int]) = (0, [])
      for part in parts {
        let own = Self.chosen(every: every, step: step, firstRow: first, total)
        let chosen = own.rows(part)
        #expect(chosen.count <= AuxiliaryTokens.most(of: part, every: every))
        #expect(own.total == Self.chosen(every: every, step: step, total).total)
        rows += chosen.map { first + $0 }
        first += part
      }
      #expect(rows == Self.chosen(every: every, step: step, total).rows(total))
    }
  }
}
