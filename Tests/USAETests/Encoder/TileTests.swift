import Testing

@testable import USAE

/// A token's keys depend on the token and the encoder alone.
@Suite struct TileTests {
  /// Keys of the rows of `tokens`, selected in some scratch memory.
  static func keys(
    _ encoder: PackedEncoder, _ tokens: PaddedMatrix, _ rows: Range<Int>, k: Int, above threshold: Float = 0,
    scratch: [TileScratch]
  ) throws -> [[UInt64]] {
    let keys = LockProtected([Int: [UInt64]]())
    let work = InterruptibleWork(threads: scratch.count)
    try encoder.forEachTile(of: tokens, rows, k: k, above: threshold, scratch: scratch, work: work) { tile in
      for row in tile.rows {
        let own = Array(tile[row])
        keys.withLock { $0[row] = own }
      }
    }
    return rows.map { row in keys.withLock { $0[row] ?? [] } }
  }

  /// One thread's scratch memory serves both modes, two encoders, and tiles of any size, k and threshold, in any order.
  @Test func scratchMemoryHoldsNothingThatTheNextSelectionNeeds() throws {
    var random = TestRandom(21)
    let tokens = try ScreeningTests.matrix(random.rows(500, 48))
    let weights = try [ScreeningTests.matrix(random.rows(300, 48)), ScreeningTests.matrix(random.rows(300, 48))]
    let work = InterruptibleWork(threads: 1)
    var encoders: [PackedEncoder] = []
    for weight in weights {
      for screening in [false, true] {
        encoders.append(try PackedEncoder(weight, affine: { _ in (1, 0) }, screening: screening, work: work))
      }
    }
    let shared = encoders[0].makeScratch(1)
    let sizes = CounterRandom(seed: 1, stream: .encoderDraw)
    for round in 0..<60 {
      let encoder = encoders[sizes.index(UInt64(3 * round), below: 4)]
      let first = sizes.index(UInt64(3 * round + 1), below: 499)
      let rows = first..<first + 1 + sizes.index(UInt64(3 * round + 2), below: 500 - first)
      let (k, threshold): (Int, Float) = (1 + round % 40, Float(round % 3))
      let reused = try Self.keys(encoder, tokens, rows, k: k, above: threshold, scratch: shared)
      let fresh = try Self.keys(encoder, tokens, rows, k: k, above: threshold, scratch: encoder.makeScratch(1))
      #expect(reused == fresh)
    }
  }

  @Test(arguments: [false, true])
  func aTokenHasTheSameKeysInEveryTileAndForAnyNumberOfThreads(screening: Bool) throws {
    var random = TestRandom(22)
    let tokens = try ScreeningTests.matrix(random.rows(600, 40))
    let encoder = try PackedEncoder(
      try ScreeningTests.matrix(random.rows(400, 40)), affine: { (1, 0.01 * Float($0 % 7)) }, screening: screening,
      work: InterruptibleWork(threads: 2))
    let whole = try Self.keys(encoder, tokens, 0..<600, k: 12, scratch: encoder.makeScratch(1))
    #expect(whole.allSatisfy { $0.count == 12 })
    #expect(try Self.keys(encoder, tokens, 0..<600, k: 12, scratch: encoder.makeScratch(3)) == whole)
    for row in [0, 1, 17, 333, 599] {
      #expect(try Self.keys(encoder, tokens, row..<row + 1, k: 12, scratch: encoder.makeScratch(1)) == [whole[row]])
    }
  }

  /// As a training step does, which packs another model's encoder, or the same after an update, every time.
  @Test(arguments: [false, true])
  func anEncoderInTheMemoryOfAnotherSelectsAsAnyOther(screening: Bool) throws {
    var random = TestRandom(23)
    let tokens = try ScreeningTests.matrix(random.rows(100, 33))
    let work = InterruptibleWork(threads: 2)
    var previous: PackedEncoder?
    var scratch: [TileScratch]?
    for round in 0..<4 {
      let weight = try ScreeningTests.matrix(random.rows(300, 33))
      let affine = { (c: Int) in (Float(1 + round), Float(c % 5)) }
      let reused = try PackedEncoder(weight, affine: affine, screening: screening, reusing: previous, work: work)
      let fresh = try PackedEncoder(weight, affine: affine, screening: screening, work: work)
      let kept = scratch ?? reused.makeScratch(2)
      #expect(
        try Self.keys(reused, tokens, 0..<100, k: 9, scratch: kept)
          == Self.keys(fresh, tokens, 0..<100, k: 9, scratch: fresh.makeScratch(2)))
      #expect(reused.screeningCounts.tokens == (screening ? 100 : 0))
      let panels = try (reused.panels(work: work), fresh.panels(work: work))
      #expect((0..<reused.columns * 33).allSatisfy { panels.0.base[$0] == panels.1.base[$0] })
      (previous, scratch) = (reused, kept)
    }
  }

  @Test func anEncodersLimitHoldsWhateverIsAskedFor() throws {
    var random = TestRandom(24)
    let weight = try ScreeningTests.matrix(random.rows(300, 24)), tokens = try ScreeningTests.matrix(random.rows(50, 24))
    let work = InterruptibleWork(threads: 1)
    let free = try PackedEncoder(weight, affine: { _ in (1, 0) }, work: work)
    let limited = try PackedEncoder(
      weight, affine: { _ in (1, 0) }, limit: CodeLimit(most: 6, threshold: 8), work: work)
    let scratch = free.makeScratch(1)
    let expected = try Self.keys(free, tokens, 0..<50, k: 6, above: 8, scratch: scratch)
    #expect(expected.contains { $0.count == 6 } && expected.contains { $0.count < 6 })
    #expect(try Self.keys(limited, tokens, 0..<50, k: 20, scratch: scratch) == expected)
    #expect(try Self.keys(limited, tokens, 0..<50, k: 4, scratch: scratch) == expected.map { Array($0.prefix(4)) })
    #expect(
      try Self.keys(limited, tokens, 0..<50, k: 20, above: 10, scratch: scratch)
        == expected.map { $0.filter { value(ofKey: $0) > 10 } })
  }

  @Test func thresholdsOfConceptsHoldBeforeTheLargestAreTaken() throws {
    var random = TestRandom(25)
    let weight = try ScreeningTests.matrix(random.rows(300, 24)), tokens = try ScreeningTests.matrix(random.rows(50, 24))
    let work = InterruptibleWork(threads: 1)
    let own = try FloatBuffer(300)
    for c in 0..<300 { own.base[c] = 2 + Float(c % 7) }
    for screening in [false, true] {
      let free = try PackedEncoder(weight, affine: { _ in (1, 0) }, screening: screening, work: work)
      let limited = try PackedEncoder(
        weight, affine: { _ in (1, 0) }, limit: CodeLimit(most: 9, threshold: 2, ofConcepts: own), screening: screening,
        work: work)
      let scratch = free.makeScratch(1)
      let allowed = try Self.keys(free, tokens, 0..<50, k: 300, above: 0, scratch: scratch).map {
        $0.filter { value(ofKey: $0) > own.base[Int(column(ofKey: $0))] }
      }
      #expect(allowed.contains { $0.count > 9 } && allowed.contains { $0.count < 300 })
      #expect(try Self.keys(limited, tokens, 0..<50, k: 20, scratch: scratch) == allowed.map { Array($0.prefix(9)) })
      #expect(try Self.keys(limited, tokens, 3..<41, k: 4, scratch: scratch) == allowed[3..<41].map { Array($0.prefix(4)) })
    }
  }

  @Test func tilesAreWholeBlocksWithinTheirCapacityAndGiveAllThreadsAsMany() {
    let block = kernels.product.tokensPerBlock
    for columns in [16, 512, 6144, 65_536, 1 << 20] {
      for capacity in [TileSize.capacity(columns: columns), TileSize.denseCapacity(columns: columns)] {
        #expect(capacity.isMultiple(of: block) && (capacity == block || capacity * columns * 4 <= 24 << 20))
        for (count, threads) in [(1, 1), (5, 3), (1000, 2), (6272, 2), (4096, 16)] {
          let size = TileSize.tokens(count, threads: threads, capacity: capacity)
          #expect(size.isMultiple(of: block) && size > 0 && size <= capacity)
          let tiles = (count + size - 1) / size
          let rounds = (tiles + threads - 1) / threads
          #expect(rounds <= max(1, (count + capacity * threads - 1) / (capacity * threads)))
        }
      }
    }
  }
}
